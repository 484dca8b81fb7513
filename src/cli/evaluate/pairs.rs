//! The file of pairs: CSV with the header `a,b,mated`, and `group` after it where pairs are of several kinds.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Two images, and whether they truly show one person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// Numbers into [`Pairs::images`].
    pub a: usize,
    pub b: usize,
    pub mated: bool,
    /// Number into [`Pairs::groups`], where the file has groups.
    pub group: Option<usize>,
}

/// All pairs of a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pairs {
    /// Every distinct image once, as the file names it, in the order of appearance.
    pub images: Vec<String>,
    /// At least one.
    pub pairs: Vec<Pair>,
    /// Every distinct group once, in the order of appearance.
    pub groups: Vec<String>,
}

/// Bytes of a file at most: some 10 million pairs.
const MAX_FILE: u64 = 1 << 30;
/// What a report calls all pairs together: no group's name.
pub const EVERY_PAIR: &str = "all";
/// Each is counted for itself.
const MAX_GROUPS: usize = 1000;

/// Why a file is no list of pairs. Lines count from 1, the header being one.
#[derive(Debug, thiserror::Error)]
pub enum PairsError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("line 1: expected the header a,b,mated or a,b,mated,group, got {0:?}")]
    Header(String),
    #[error("line {line}: expected {expected} fields, as in the header, got {got}")]
    Fields { line: u64, expected: usize, got: usize },
    #[error("the file has more than {MAX_GROUPS} groups")]
    Groups,
    #[error(
        "line {line}: expected a group of another name than {EVERY_PAIR}, which stands for all pairs in the report"
    )]
    GroupOfAll { line: u64 },
    #[error("line {line}: expected two names of images, field {field} is empty")]
    Name { line: u64, field: &'static str },
    #[error("line {line}: an image is compared with itself")]
    Itself { line: u64 },
    #[error("line {line}: this pair is there already; the order of its images does not matter")]
    Doubled { line: u64 },
    #[error("line {line}: mated is 1 or 0, got {got:?}")]
    Mated { line: u64, got: String },
    #[error("line {line}: {what}")]
    Text { line: u64, what: String },
    #[error("there are no pairs below the header")]
    Empty,
    #[error("the file has more than {MAX_FILE} bytes")]
    TooLarge,
}

impl Pairs {
    pub fn open(path: &Path) -> Result<Self, PairsError> {
        let mut text = Vec::new();
        fs::File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut text)?;
        if text.len() as u64 > MAX_FILE { Err(PairsError::TooLarge) } else { Self::parse(&text) }
    }

    /// From the text of a file.
    pub fn parse(text: &[u8]) -> Result<Self, PairsError> {
        let mut reader = csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(text);
        let fault = |line, error: csv::Error| PairsError::Text { line, what: error.to_string() };
        let header = reader.headers().map_err(|e| fault(1, e))?;
        let columns = header.len();
        if !["a,b,mated", "a,b,mated,group"].contains(&header.iter().collect::<Vec<_>>().join(",").as_str()) {
            return Err(PairsError::Header(header.iter().collect::<Vec<_>>().join(",").chars().take(100).collect()));
        }
        let mut pairs = Self::default();
        let mut numbers = HashMap::new();
        let mut known = HashSet::new();
        let mut record = csv::StringRecord::new();
        loop {
            let line = line_after_blanks(text, reader.position());
            if !reader.read_record(&mut record).map_err(|e| fault(line, e))? {
                break;
            }
            if record.len() != columns {
                return Err(PairsError::Fields { line, expected: columns, got: record.len() });
            }
            let (a, b, mated) = fields(&record, line)?;
            if record.get(3) == Some(EVERY_PAIR) {
                return Err(PairsError::GroupOfAll { line });
            }
            let group = record.get(3).map(|name| pairs.group(name));
            if pairs.groups.len() > MAX_GROUPS {
                return Err(PairsError::Groups);
            }
            let mut number = |name: &str| match numbers.get(name) {
                Some(number) => *number,
                None => {
                    pairs.images.push(name.into());
                    numbers.insert(name.to_owned(), pairs.images.len() - 1);
                    pairs.images.len() - 1
                }
            };
            let (a, b) = (number(a), number(b));
            if !known.insert((a.min(b), a.max(b))) {
                return Err(PairsError::Doubled { line });
            }
            pairs.pairs.push(Pair { a, b, mated, group });
        }
        if pairs.pairs.is_empty() { Err(PairsError::Empty) } else { Ok(pairs) }
    }

    /// The number of a group.
    fn group(&mut self, name: &str) -> usize {
        self.groups.iter().position(|known| known == name).unwrap_or_else(|| {
            self.groups.push(name.into());
            self.groups.len() - 1
        })
    }

    /// The image's path: relative to the folder of the file of pairs.
    pub fn path(file: &Path, image: &str) -> PathBuf {
        file.parent().unwrap_or(Path::new("")).join(image)
    }
}

fn fields(record: &csv::StringRecord, line: u64) -> Result<(&str, &str, bool), PairsError> {
    let field = |number| record.get(number).unwrap_or_default();
    let (a, b, mated) = (field(0), field(1), field(2));
    for (name, field) in [(a, "a"), (b, "b")] {
        if name.is_empty() {
            return Err(PairsError::Name { line, field });
        }
    }
    if a == b {
        return Err(PairsError::Itself { line });
    }
    match mated {
        "1" => Ok((a, b, true)),
        "0" => Ok((a, b, false)),
        got => Err(PairsError::Mated { line, got: got.chars().take(50).collect() }),
    }
}

/// The line of the next record: the reader stands before blank lines, or before the second half of a line's end.
fn line_after_blanks(text: &[u8], position: &csv::Position) -> u64 {
    let start = usize::try_from(position.byte()).unwrap_or(usize::MAX);
    let blank = text.get(start..).unwrap_or_default().iter().take_while(|b| matches!(b, b'\r' | b'\n'));
    position.line() + blank.filter(|b| **b == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Pairs, String> {
        Pairs::parse(text.as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn each_image_is_listed_once() {
        let pairs = read("a,b,mated\nx.png,y.png,1\r\n x.png , z.png , 0\n\"u,v.png\",z.png,0\n").unwrap();
        assert_eq!(pairs.images, ["x.png", "y.png", "z.png", "u,v.png"]);
        let pair = |a, b, mated| Pair { a, b, mated, group: None };
        assert_eq!(pairs.pairs, [pair(0, 1, true), pair(0, 2, false), pair(3, 2, false)]);
    }

    #[test]
    fn a_fault_names_its_line() {
        for (text, expected) in [
            ("", "line 1: expected the header a,b,mated or a,b,mated,group, got \"\""),
            ("x.png,y.png,1\n", "line 1: expected the header a,b,mated or a,b,mated,group, got \"x.png,y.png,1\""),
            ("a,b,mated\n", "there are no pairs below the header"),
            ("a,b,mated\nx,y,1\nx,y,yes\n", "line 3: mated is 1 or 0, got \"yes\""),
            ("a,b,mated\r\nx,y,1\r\n\r\nx,y\r\n", "line 4: expected 3 fields, as in the header, got 2"),
            ("a,b,mated\n\nx,y\n", "line 3: expected 3 fields, as in the header, got 2"),
            ("a,b,mated\nx,,1\n", "line 2: expected two names of images, field b is empty"),
            (
                "a,b,mated\nx,y,1\nz,y,0\ny,x,1\n",
                "line 4: this pair is there already; the order of its images does not matter",
            ),
            (
                "a,b,mated\nx,y,1\nx,y,0\n",
                "line 3: this pair is there already; the order of its images does not matter",
            ),
            ("a,b,mated\nx,x,1\n", "line 2: an image is compared with itself"),
        ] {
            assert_eq!(read(text).unwrap_err(), expected, "{text:?}");
        }
        let error = Pairs::parse(&b"a,b,mated\nx,y,1\n\xff\xfe,y,0\n"[..]).unwrap_err().to_string();
        assert!(error.starts_with("line 3: "), "{error}");
    }

    #[test]
    fn pairs_have_groups_where_the_header_says_so() {
        let pairs = read("a,b,mated,group\nx,y,1,masks\nx,z,0,\ny,z,0,masks\n").unwrap();
        assert_eq!(
            (pairs.groups, pairs.pairs.iter().map(|p| p.group).collect::<Vec<_>>()),
            (vec!["masks".into(), "".into()], vec![Some(0), Some(1), Some(0)])
        );
        assert_eq!(read("a,b,mated,group\nx,y,1\n").unwrap_err(), "line 2: expected 4 fields, as in the header, got 3");
        assert_eq!(read("a,b,mated\nx,y,1,masks\n").unwrap_err(), "line 2: expected 3 fields, as in the header, got 4");
        let many: String = (0..=1000).map(|n| format!("x{n},y{n},1,g{n}\n")).collect();
        assert!(read(&format!("a,b,mated,group\n{many}")).unwrap_err().contains("1000 groups"));
        for name in ["all", " all "] {
            let error = read(&format!("a,b,mated,group\nx,y,1,masks\nx,z,0,{name}\n")).unwrap_err();
            assert!(error.starts_with("line 3: expected a group of another name than all"), "{error}");
        }
        assert_eq!(read("a,b,mated,group\nx,y,1,All\n").unwrap().groups, ["All"]);
    }

    #[test]
    fn images_are_beside_the_file() {
        assert_eq!(Pairs::path(Path::new("x/pairs.csv"), "a/b.png"), Path::new("x/a/b.png"));
        assert_eq!(Pairs::path(Path::new("pairs.csv"), "b.png"), Path::new("b.png"));
    }
}
