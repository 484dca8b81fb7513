//! Which images are compared, from a CSV file with the header `a,b,mated`.

use std::{
    collections::HashMap,
    io::Read,
    path::{Path, PathBuf},
};

use csv::{ReaderBuilder, StringRecord, Trim};

/// Pairs in a file, at most.
pub const MAX_PAIRS: usize = 20_000_000;

const COLUMNS: [&str; 3] = ["a", "b", "mated"];

/// Why a file holds no pairs. Lines count from 1, the header's.
#[derive(Debug, thiserror::Error)]
pub enum PairsError {
    #[error("the pairs cannot be read: {0}")]
    Csv(#[from] csv::Error),
    #[error("the first line must name the columns a, b and mated; {0} is missing")]
    Header(&'static str),
    #[error("the first line names the column {0} twice")]
    Twice(&'static str),
    #[error("line {line}: a and b each name an image")]
    Path { line: u64 },
    #[error("line {line}: a and b are the same image")]
    Same { line: u64 },
    #[error("line {line}: mated is 1 or 0")]
    Mated { line: u64 },
    #[error("line {line}: an earlier line says the opposite of this pair")]
    Contradiction { line: u64 },
    #[error("there are more than {MAX_PAIRS} pairs")]
    TooMany,
    #[error("there are no pairs")]
    Empty,
}

/// Two images, by their place in [`Pairs::images`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    pub a: usize,
    pub b: usize,
    /// Truly of one person.
    pub mated: bool,
}

/// Pairs as listed (one listed twice counts twice) and the images in them, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pairs {
    folder: PathBuf,
    images: Vec<String>,
    pairs: Vec<Pair>,
}

impl Pairs {
    /// From a CSV file; paths in it are relative to its folder.
    pub fn open(file: &Path) -> Result<Self, PairsError> {
        let folder = file.parent().unwrap_or(Path::new(""));
        Self::read(std::fs::File::open(file).map_err(csv::Error::from)?, folder)
    }

    /// From CSV text; paths in it are relative to `folder`.
    pub fn read(text: impl Read, folder: &Path) -> Result<Self, PairsError> {
        let mut reader = ReaderBuilder::new().trim(Trim::All).from_reader(text);
        let columns = columns(reader.headers()?)?;
        let mut read = Self { folder: folder.into(), images: vec![], pairs: vec![] };
        let (mut places, mut known) = (HashMap::new(), HashMap::new());
        for record in reader.records() {
            let record = record?;
            let line = record.position().map_or(0, csv::Position::line);
            let [a, b, mated] = columns.map(|column| record.get(column).unwrap_or_default());
            let mut place = |path: &str| {
                // One image under two spellings would be its own mate.
                let path = path.trim_start_matches("./");
                if path.is_empty() {
                    return Err(PairsError::Path { line });
                }
                Ok(*places.entry(path.to_owned()).or_insert_with(|| {
                    read.images.push(path.to_owned());
                    read.images.len() - 1
                }))
            };
            let (a, b) = (place(a)?, place(b)?);
            if a == b {
                return Err(PairsError::Same { line });
            }
            let mated = match mated {
                "1" => true,
                "0" => false,
                _ => return Err(PairsError::Mated { line }),
            };
            if *known.entry((a.min(b), a.max(b))).or_insert(mated) != mated {
                return Err(PairsError::Contradiction { line });
            }
            if read.pairs.len() == MAX_PAIRS {
                return Err(PairsError::TooMany);
            }
            read.pairs.push(Pair { a, b, mated });
        }
        if read.pairs.is_empty() { Err(PairsError::Empty) } else { Ok(read) }
    }

    /// As the file names them, in the order in which they appear first.
    pub fn images(&self) -> &[String] {
        &self.images
    }

    /// Where they are, in the same order.
    pub fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.images.iter().map(|image| self.folder.join(image))
    }

    pub fn pairs(&self) -> &[Pair] {
        &self.pairs
    }
}

/// Where `a`, `b` and `mated` stand; other columns are left alone.
fn columns(header: &StringRecord) -> Result<[usize; 3], PairsError> {
    let mut places = [0; 3];
    for (place, name) in places.iter_mut().zip(COLUMNS) {
        // Spreadsheets begin a file with a byte order mark.
        let mut found = header.iter().enumerate().filter(|(_, h)| h.trim_start_matches('\u{feff}') == name);
        *place = found.next().ok_or(PairsError::Header(name))?.0;
        if found.next().is_some() {
            return Err(PairsError::Twice(name));
        }
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Pairs, PairsError> {
        Pairs::read(text.as_bytes(), Path::new("set"))
    }

    fn refusal(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    #[test]
    fn pairs_name_images_relative_to_their_file() {
        let pairs = read("a,b,mated\nx/1.png,x/2.png,1\n x/1.png , ../y.png,0\n/abs.png,./x/2.png,0\n").unwrap();
        assert_eq!(pairs.images(), ["x/1.png", "x/2.png", "../y.png", "/abs.png"]);
        let paths: Vec<PathBuf> = pairs.paths().collect();
        assert_eq!(paths, ["set/x/1.png", "set/x/2.png", "set/../y.png", "/abs.png"].map(PathBuf::from));
        let pair = |a, b, mated| Pair { a, b, mated };
        assert_eq!(pairs.pairs(), [pair(0, 1, true), pair(0, 2, false), pair(3, 1, false)]);
    }

    #[test]
    fn columns_go_by_name() {
        let pairs = read("\u{feff}mated,note,b,a\r\n1,\"x, y\",2.png,1.png\r\n").unwrap();
        assert_eq!(pairs.images(), ["1.png", "2.png"]);
    }

    #[test]
    fn a_pair_listed_twice_counts_twice_but_never_contradicts_itself() {
        assert_eq!(read("a,b,mated\n1,2,1\n2,1,1\n").unwrap().pairs().len(), 2);
        assert!(refusal("a,b,mated\n1,2,1\n2,1,0\n").starts_with("line 3: an earlier line"));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        assert!(refusal("").contains("a is missing"));
        assert!(refusal("1.png,2.png,1\n").contains("a is missing"));
        assert!(refusal("a,b\n1,2\n").contains("mated is missing"));
        assert!(refusal("a,b,mated,a\n").contains("column a twice"));
        assert_eq!(refusal("a,b,mated\n"), "there are no pairs");
        assert_eq!(refusal("a,b,mated\n1,2,1\n3,4,yes\n"), "line 3: mated is 1 or 0");
        assert_eq!(refusal("a,b,mated\n1,2,\n"), "line 2: mated is 1 or 0");
        assert_eq!(refusal("a,b,mated\n,2,1\n"), "line 2: a and b each name an image");
        assert_eq!(refusal("a,b,mated\n1,./1,1\n"), "line 2: a and b are the same image");
        assert!(refusal("a,b,mated\n1,2\n").contains("line: 2"), "{}", refusal("a,b,mated\n1,2\n"));
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_an_answer(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
            let text = [b"a,b,mated\n".as_slice(), &tail].concat();
            if let Ok(pairs) = Pairs::read(text.as_slice(), Path::new("")) {
                prop_assert!(pairs.pairs().iter().all(|p| p.a != p.b && p.a.max(p.b) < pairs.images().len()));
            }
        }
    }
}
