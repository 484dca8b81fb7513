//! A Rust file, reduced to the code that ships.

/// A file under src/ with comments, literals and unit tests blanked out; lines and columns stay where they were.
pub struct Source {
    /// Relative to the root, with `/`.
    pub name: String,
    pub code: String,
}

impl Source {
    pub fn new(name: &str, text: &str) -> Self {
        let code = blank(text);
        let shipped = if name.ends_with("/tests.rs") || name.ends_with("_tests.rs") {
            0
        } else {
            unit_tests_at(&code).unwrap_or(code.len())
        };
        Self { name: name.to_owned(), code: code[..shipped].to_owned() }
    }

    /// 1 for the first line.
    pub fn line(&self, at: usize) -> usize {
        1 + self.code[..at].matches('\n').count()
    }

    /// The folder of its crate, with a slash at the end; empty for the service's own.
    pub fn home(&self) -> &str {
        self.name.split_once("src/").map_or("", |(home, _)| home)
    }

    /// Names of the modules it is made of, below the crate: `src/pipeline/align.rs` is `["pipeline", "align"]`.
    pub fn module(&self) -> Vec<&str> {
        let path = self.name.split_once("src/").map_or("", |(_, path)| path).trim_end_matches(".rs");
        let mut parts: Vec<_> = path.split('/').collect();
        if matches!(parts.last(), Some(&"mod" | &"lib")) {
            parts.pop();
        }
        parts
    }
}

/// Where `#[cfg(test)] mod ...` begins; by the house's order nothing that ships follows.
fn unit_tests_at(code: &str) -> Option<usize> {
    const ATTRIBUTE: &str = "#[cfg(test)]";
    let attributes = code.match_indices(ATTRIBUTE).map(|(at, _)| at);
    attributes.into_iter().find(|at| {
        let item = code[at + ATTRIBUTE.len()..].trim_start();
        item.starts_with("mod ") && item.find('{').is_some_and(|brace| !item[..brace].contains(';'))
    })
}

/// Replaces comments and the insides of string and character literals by spaces; newlines stay.
fn blank(text: &str) -> String {
    let mut rest = text;
    let mut code = String::with_capacity(text.len());
    let mut last = ' ';
    while let Some(c) = rest.chars().next() {
        let taken = if last.is_alphanumeric() || last == '_' { None } else { raw_string(rest) };
        let taken = taken.or_else(|| comment(rest)).or_else(|| literal(rest));
        let length = taken.unwrap_or(c.len_utf8());
        let (token, after) = rest.split_at(length);
        match taken {
            Some(_) => code.extend(token.bytes().map(|b| if b == b'\n' { '\n' } else { ' ' })),
            None => code.push(c),
        }
        last = c;
        rest = after;
    }
    code
}

/// Length of the comment at the start of `text`, if one is there; block comments nest.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if !text.starts_with("/*") {
        return None;
    }
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        match text.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    Some(at)
}

/// Length of the raw string at the start of `text`: `r"..."`, `br#"..."#`.
fn raw_string(text: &str) -> Option<usize> {
    let prefix = text.strip_prefix('b').unwrap_or(text).strip_prefix('r')?;
    let hashes = prefix.len() - prefix.trim_start_matches('#').len();
    let inside = prefix[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = inside.find(&close).map_or(inside.len(), |at| at + close.len());
    Some(text.len() - inside.len() + end)
}

/// Length of the string or character literal at the start of `text`; a lifetime is neither.
fn literal(text: &str) -> Option<usize> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    if quote == '\'' {
        let mut chars = text[1..].chars();
        let first = chars.next()?;
        if first != '\\' && chars.next() != Some('\'') {
            return None;
        }
    }
    let mut escaped = false;
    let end = text[1..].char_indices().find(|(_, c)| {
        let closes = *c == quote && !escaped;
        escaped = *c == '\\' && !escaped;
        closes
    });
    Some(end.map_or(text.len(), |(at, _)| at + 2))
}

#[test]
fn only_code_is_left() {
    let text = r##"
let a = "crate::rpc // \" not"; // crate::rpc
/* crate::rpc /* nested */ crate::rpc */ let b: &'a str = r#"crate::rpc "quoted" "#;
let c = ['"', '\'', 'x', '\u{41}']; let d = b"crate::rpc"; for_r("x");
use crate::seal;
"##;
    let code = blank(text);
    assert_eq!(code.len(), text.len());
    assert_eq!(code.matches("crate").count(), 1, "{code}");
    for kept in ["let a", "let b: &'a str", "let c", "let d", "for_r(", "use crate::seal;"] {
        assert!(code.contains(kept), "{kept} is gone from {code}");
    }
}

#[test]
fn unit_tests_are_left_out() {
    let source = Source::new(
        "src/a.rs",
        "#[cfg(test)]\nuse x;\n#[cfg(test)]\nmod y;\nfn f() {}\n#[cfg(test)]\nmod tests { g() }",
    );
    assert!(source.code.contains("fn f") && !source.code.contains("g()"), "{}", source.code);
    assert_eq!(source.line(source.code.find("fn f").unwrap()), 5);
    assert!(Source::new("src/a/tests.rs", "fn f() {}").code.is_empty());
    assert!(Source::new("src/a/b_tests.rs", "fn f() {}").code.is_empty());
}
