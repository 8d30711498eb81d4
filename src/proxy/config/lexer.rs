//! One line of haproxy.cfg into words: quotes, escapes, comments, variables (2.2 and 2.3 of the manual). Pure.
//!
//! Observed on HAProxy 2.6: variables are replaced inside double quotes only; a backslash before another character
//! than those below stays as it is (`\1` of a regex); `#` ends the line wherever it is not quoted or escaped.

use super::environment::Environment;
use super::words::Word;

/// Words of one line at most, as HAProxy (`MAX_LINE_ARGS`).
pub(crate) const MOST_WORDS: usize = 64;

/// A fault and the column (from 1, in characters) where it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LexicalFault {
    /// Where.
    pub(crate) column: usize,
    /// What is wrong.
    pub(crate) what: String,
    /// What to do.
    pub(crate) next: &'static str,
}

/// What a line's pseudo-variables (`.FILE`, `.LINE`, `.SECTION`) say.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub(crate) struct Place<'p> {
    pub(crate) file: &'p str,
    pub(crate) line: usize,
    pub(crate) section: &'p str,
}

/// Splits `line` (without its line feed). Words that are empty at the end of the line, as an unset variable leaves
/// them, are dropped; a line without words is empty.
pub(crate) fn split(
    line: &[u8],
    environment: &Environment,
    place: Place<'_>,
) -> Result<Vec<Word>, LexicalFault> {
    let mut lexer = Lexer { line, at: 0, words: Vec::new(), current: Current::default() };
    lexer.run(environment, place)?;
    lexer.finish()
}

struct Lexer<'l> {
    line: &'l [u8],
    at: usize,
    words: Vec<(Vec<u8>, usize, bool)>,
    current: Current,
}

/// The word that is being read.
#[derive(Default)]
struct Current {
    text: Vec<u8>,
    started: Option<usize>,
    quoted: bool,
}

impl Lexer<'_> {
    fn run(&mut self, environment: &Environment, place: Place<'_>) -> Result<(), LexicalFault> {
        while let Some(&byte) = self.line.get(self.at) {
            match byte {
                b'#' => break,
                b'\r' if self.at + 1 == self.line.len() => break,
                b'\r' | 0 => {
                    let what = if byte == 0 { "a NUL byte" } else { "a carriage return inside of the line" };
                    return Err(self.fault(self.at, what, "remove it; the file may be damaged"));
                }
                b'\'' => self.single_quoted()?,
                b'"' => self.double_quoted(environment, place)?,
                b'\\' => self.escape()?,
                b' ' | b'\t' | 0x0b | 0x0c => {
                    self.end_word();
                    self.at += 1;
                }
                _ => {
                    self.begin();
                    self.current.text.push(byte);
                    self.at += 1;
                }
            }
        }
        self.end_word();
        Ok(())
    }

    fn begin(&mut self) {
        self.current.started.get_or_insert(self.at);
    }

    fn end_word(&mut self) {
        let current = std::mem::take(&mut self.current);
        if let Some(started) = current.started {
            self.words.push((current.text, started, current.quoted));
        }
    }

    fn single_quoted(&mut self) -> Result<(), LexicalFault> {
        self.begin();
        self.current.quoted = true;
        let open = self.at;
        let rest = &self.line[open + 1..];
        let Some(length) = rest.iter().position(|byte| *byte == b'\'') else {
            return Err(self.unmatched(open));
        };
        self.current.text.extend_from_slice(&rest[..length]);
        self.at = open + length + 2;
        Ok(())
    }

    fn double_quoted(&mut self, environment: &Environment, place: Place<'_>) -> Result<(), LexicalFault> {
        self.begin();
        self.current.quoted = true;
        let open = self.at;
        self.at += 1;
        loop {
            match self.line.get(self.at) {
                None => return Err(self.unmatched(open)),
                Some(b'"') => break,
                Some(b'\\') if self.line.get(self.at + 1) == Some(&b'$') => {
                    self.current.text.push(b'$');
                    self.at += 2;
                }
                Some(b'\\') => self.escape()?,
                Some(b'$') => self.variable(environment, place)?,
                Some(0) => return Err(self.fault(self.at, "a NUL byte", "remove it")),
                Some(byte) => {
                    self.current.text.push(*byte);
                    self.at += 1;
                }
            }
        }
        self.at += 1;
        Ok(())
    }

    /// `\ `, `\\`, `\#`, `\'`, `\"`, `\t`, `\n`, `\r`, `\xHH`; anything else keeps its backslash.
    fn escape(&mut self) -> Result<(), LexicalFault> {
        self.begin();
        let plain = match self.line.get(self.at + 1) {
            Some(byte @ (b' ' | b'\\' | b'#' | b'\'' | b'"')) => *byte,
            Some(b't') => b'\t',
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b'x') => {
                let digits = self.line.get(self.at + 2..self.at + 4).unwrap_or_default();
                let value = std::str::from_utf8(digits)
                    .ok()
                    .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
                    .and_then(|digits| u8::from_str_radix(digits, 16).ok());
                let Some(value) = value else {
                    return Err(self.fault(self.at, "`\\x` without two hexadecimal digits", "write \\x41"));
                };
                if value == 0 {
                    return Err(self.fault(self.at, "`\\x00`: a word cannot hold NUL", "remove it"));
                }
                self.at += 2;
                value
            }
            _ => {
                self.current.text.push(b'\\');
                self.at += 1;
                return Ok(());
            }
        };
        self.current.text.push(plain);
        self.current.quoted = true;
        self.at += 2;
        Ok(())
    }

    /// `$NAME`, `${NAME}`, `${NAME-default}`, `${NAME[*]}` inside double quotes.
    fn variable(&mut self, environment: &Environment, place: Place<'_>) -> Result<(), LexicalFault> {
        let dollar = self.at;
        self.at += 1;
        let brace = self.line.get(self.at) == Some(&b'{');
        self.at += usize::from(brace);
        let start = self.at;
        let first = self.line.get(start).copied().unwrap_or(0);
        if !(first.is_ascii_alphabetic() || first == b'_' || first == b'.') {
            return Err(self.fault(
                self.at,
                "a variable's name begins with a letter, `_` or `.`",
                "for a plain dollar write \\$ or use single quotes",
            ));
        }
        self.at += 1;
        while self.line.get(self.at).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') {
            self.at += 1;
        }
        let name = &self.line[start..self.at];
        let pseudo = match name {
            b".LINE" => Some(place.line.to_string()),
            b".FILE" => Some(place.file.to_owned()),
            b".SECTION" => Some(place.section.to_owned()),
            _ if first == b'.' => {
                let next = "the pseudo-variables are .FILE, .LINE and .SECTION";
                return Err(self.fault(start, "unknown pseudo-variable", next));
            }
            _ => None,
        };
        let mut value = match &pseudo {
            Some(text) => Some(text.as_bytes()),
            None => environment.get(name),
        };
        let mut several = false;
        if brace {
            several = self.line[self.at..].starts_with(b"[*]");
            self.at += if several { 3 } else { 0 };
            if self.line.get(self.at) == Some(&b'[') {
                return Err(self.fault(
                    self.at,
                    "only `[*]` may follow a variable's name",
                    "write ${NAME[*]}",
                ));
            }
            let rest = &self.line[self.at..];
            let default = rest.first() == Some(&b'-');
            let end = if default { rest.iter().position(|byte| *byte == b'}') } else { Some(0) };
            let Some(end) = end.filter(|end| rest.get(*end) == Some(&b'}')) else {
                return Err(self.fault(dollar + 1, "`{` without `}` in a variable", "close it: ${NAME}"));
            };
            if default && value.is_none() {
                value = Some(&rest[1..end]);
            }
            self.at += end + 1;
        }
        self.put_value(value.unwrap_or_default(), several);
        Ok(())
    }

    /// Appends a variable's value; `several`: blanks in it end a word.
    fn put_value(&mut self, value: &[u8], several: bool) {
        if !several {
            self.current.text.extend_from_slice(value);
            return;
        }
        let mut blank_before = false;
        for byte in value {
            if byte.is_ascii_whitespace() {
                blank_before = true;
                continue;
            }
            if blank_before {
                self.end_word();
                self.begin();
                self.current.quoted = true;
                blank_before = false;
            }
            self.current.text.push(*byte);
        }
    }

    fn finish(mut self) -> Result<Vec<Word>, LexicalFault> {
        while self.words.last().is_some_and(|(text, ..)| text.is_empty()) {
            self.words.pop();
        }
        if let Some((_, start, _)) = self.words.get(MOST_WORDS) {
            return Err(self.fault(*start, "more than 64 words in one line", "split the line"));
        }
        let mut words = Vec::with_capacity(self.words.len());
        for (text, start, quoted) in std::mem::take(&mut self.words) {
            if text.is_empty() {
                return Err(self.fault(
                    start,
                    "an empty word before others; HAProxy would ignore the rest of the line",
                    "remove it, or give its variable a value",
                ));
            }
            let column = column(self.line, start);
            let text = String::from_utf8(text)
                .map_err(|_| self.fault(start, "this word is not UTF-8", "save the file as UTF-8"))?;
            words.push(Word { text, column, quoted });
        }
        Ok(words)
    }

    fn unmatched(&self, open: usize) -> LexicalFault {
        self.fault(
            open,
            "a quote that is not closed",
            "close it in the same line, or write a backslash before it",
        )
    }

    fn fault(&self, at: usize, what: &str, next: &'static str) -> LexicalFault {
        LexicalFault { column: column(self.line, at), what: what.to_owned(), next }
    }
}

/// Column of byte `at`: from 1, in characters (of UTF-8; other bytes count one each).
fn column(line: &[u8], at: usize) -> usize {
    String::from_utf8_lossy(&line[..at.min(line.len())]).chars().count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Vec<Word>, LexicalFault> {
        let mut environment = Environment::default();
        environment.set("A", "1");
        environment.set("SP", " a b  c ");
        split(line.as_bytes(), &environment, Place { file: "x.cfg", line: 7, section: "frontend" })
    }

    fn texts(line: &str) -> Vec<String> {
        words(line).expect(line).into_iter().map(|word| word.text).collect()
    }

    /// The same lines were given to HAProxy 2.6.12, which names a line's first word in its error.
    #[test]
    fn words_are_those_of_haproxy() {
        for (line, expected) in [
            (r"a\ b c", &["a b", "c"][..]),
            (r#""a b" c"#, &["a b", "c"]),
            (r#"'a b'c"d" e"#, &["a bcd", "e"]),
            ("x${A}y", &["x${A}y"]),
            (r#""x${A}y""#, &["x1y"]),
            (r#""$A.b""#, &["1.b"]),
            (r#""${NO-def x}""#, &["def x"]),
            (r#""${NO-a"b}""#, &["a\"b"]),
            (r#""${NO}""#, &[]),
            (r#"bind :80 "${NO}""#, &["bind", ":80"]),
            (r#"x"${SP[*]}"y z"#, &["x", "a", "b", "cy", "z"]),
            (r"a\#b", &["a#b"]),
            ("a#b", &["a"]),
            (r##""a#b""##, &["a#b"]),
            (r"a\nb\x41", &["a\nbA"]),
            (r"a\q\1", &[r"a\q\1"]),
            (r#""a\q""#, &[r"a\q"]),
            (r"a\$b", &[r"a\$b"]),
            (r#""a\$b""#, &["a$b"]),
            (r"'a\ b'", &[r"a\ b"]),
            (r#""a\'b""#, &["a'b"]),
            (r"a\'b", &["a'b"]),
            (r"a\", &["a\\"]),
            (r#""${.LINE}${.FILE}${.SECTION}""#, &["7x.cfgfrontend"]),
            ("\t mode\thttp # 三次", &["mode", "http"]),
            ("mode http\r", &["mode", "http"]),
            (r#""a" ""b"#, &["a", "b"]),
            ("", &[]),
        ] {
            assert_eq!(texts(line), expected, "{line}");
        }
    }

    #[test]
    fn faults_have_a_column() {
        for (line, column) in [
            ("三 \"a", 3),
            ("'a", 1),
            (r"a \x4", 3),
            (r#""a$ b""#, 4),
            (r#""${A""#, 3),
            (r#""${.FOO}""#, 4),
            (r#""${A[1]}""#, 5),
            (r#"a "" b"#, 3),
            ("a\0b", 2),
            ("a\rb", 2),
            (r"a\x00", 2),
        ] {
            assert_eq!(words(line).expect_err(line).column, column, "{line}");
        }
        let many = "a ".repeat(65);
        assert_eq!(words(&many).expect_err("65 words").column, 129);
        assert_eq!(texts(&"a ".repeat(64)).len(), 64);
    }

    #[test]
    fn columns_count_characters_also_behind_quotes() {
        let found = words("\tserver \"三 次\" b\\ c d").expect("words");
        let columns: Vec<usize> = found.iter().map(|word| word.column).collect();
        assert_eq!(columns, [2, 9, 15, 20]);
        assert_eq!(found.iter().map(|word| word.quoted).collect::<Vec<_>>(), [false, true, true, false]);
    }

    #[test]
    fn other_encodings_are_fine_in_comments_only() {
        let environment = Environment::default();
        let place = Place { file: "", line: 1, section: "" };
        assert_eq!(split(b"mode http # \xe9\xff", &environment, place).expect("words").len(), 2);
        assert_eq!(split(b"a \xe9", &environment, place).expect_err("a word").column, 3);
    }
}
