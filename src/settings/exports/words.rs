//! The words of an exports file: continuation lines, comments, quotes and octal escapes, with the place of
//! every byte.

/// A place in the file; both count from 1, columns in characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// A word: its bytes after unquoting, and where each of them stands.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Word {
    pub(super) bytes: Vec<u8>,
    places: Vec<Place>,
}

impl Word {
    fn push(&mut self, byte: u8, place: Place) {
        self.bytes.push(byte);
        self.places.push(place);
    }

    /// Where the byte at `index` stands; of the end, where the last one stands.
    pub(super) fn place(&self, index: usize) -> Place {
        let last = Place { line: 1, column: 1 };
        self.places.get(index).or(self.places.last()).copied().unwrap_or(last)
    }

    /// The bytes as text for messages.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// The words of one logical line; never empty.
pub(super) type Line = Vec<Word>;

/// A line whose quote is not closed, and where it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Unclosed(pub(super) Place);

/// The bytes of a file, a joined line seen as a space.
struct Reader<'t> {
    rest: &'t [u8],
    at: Place,
}

impl Reader<'_> {
    /// The next byte and its place.
    fn next(&mut self) -> Option<(u8, Place)> {
        let (&byte, rest) = self.rest.split_first()?;
        let place = self.at;
        self.rest = rest;
        if byte == b'\n' {
            self.at = Place { line: place.line + 1, column: 1 };
        } else if self.rest.first().is_none_or(|next| next & 0xc0 != 0x80) {
            // A character ends before what is no continuation byte of UTF-8.
            self.at.column += 1;
        }
        if byte == b'\\' && self.rest.first() == Some(&b'\n') {
            self.next();
            return Some((b' ', place));
        }
        Some((byte, place))
    }

    /// Three octal digits that name a byte.
    fn octal(&mut self) -> Option<u8> {
        let digits = self.rest.first_chunk::<3>()?;
        if !digits.iter().all(|digit| (b'0'..=b'7').contains(digit)) {
            return None;
        }
        let value = digits.iter().fold(0u32, |value, digit| value * 8 + u32::from(digit - b'0'));
        let byte = u8::try_from(value).ok()?;
        for _ in 0..3 {
            self.next();
        }
        Some(byte)
    }
}

/// Splits a file into lines of words. What follows an unclosed quote in its line is left out.
pub(super) fn lines(text: &[u8]) -> (Vec<Line>, Vec<Unclosed>) {
    let mut reader = Reader { rest: text, at: Place { line: 1, column: 1 } };
    let (mut lines, mut unclosed) = (Vec::new(), Vec::new());
    let mut line = Line::new();
    let mut word: Option<Word> = None;
    let mut quote: Option<Place> = None;
    let mut comment = false;
    loop {
        let next = reader.next();
        let ends = next.is_none_or(|(byte, _)| byte == b'\n');
        if ends {
            if let Some(opened) = quote.take() {
                unclosed.push(Unclosed(opened));
                line.clear();
                word = None;
            }
            line.extend(word.take());
            if !line.is_empty() {
                lines.push(std::mem::take(&mut line));
            }
            comment = false;
        }
        let Some((byte, place)) = next else { return (lines, unclosed) };
        match byte {
            _ if ends || comment => {}
            b'#' if word.is_none() => comment = true,
            b'"' => {
                quote = if quote.is_some() { None } else { Some(place) };
                word.get_or_insert_default();
            }
            byte if byte.is_ascii_whitespace() && quote.is_none() => line.extend(word.take()),
            b'\\' => {
                let byte = reader.octal().unwrap_or(byte);
                word.get_or_insert_default().push(byte, place);
            }
            byte => word.get_or_insert_default().push(byte, place),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<Vec<String>> {
        let (lines, unclosed) = lines(text.as_bytes());
        assert!(unclosed.is_empty());
        lines.iter().map(|line| line.iter().map(Word::text).collect()).collect()
    }

    #[test]
    fn comments_blank_lines_and_continuations() {
        let text = "# all\n\n  /a  b\t(c) # end\n/d \\\n   e\\\nf\n#x \\\ny\n/g#h";
        assert_eq!(words(text), [vec!["/a", "b", "(c)"], vec!["/d", "e", "f"], vec!["/g#h"]]);
        assert_eq!(words("/a b\r\n"), [["/a", "b"]]);
        assert_eq!(words(""), Vec::<Vec<String>>::new());
    }

    #[test]
    fn quotes_and_octal_escapes() {
        assert_eq!(words("\"/with space\" a"), [["/with space", "a"]]);
        assert_eq!(words("/with\\040space\\011tab a"), [["/with space\ttab", "a"]]);
        assert_eq!(words("\"/a\\040#b\"c d"), [["/a #bc", "d"]]);
        assert_eq!(words("/a\\9 /b\\"), [["/a\\9", "/b\\"]]);
        assert_eq!(words("/a\\777"), [["/a\\777"]], "no byte has this value");
        let (lines, _) = lines(b"/\\377\\012x");
        assert_eq!(lines[0][0].bytes, b"/\xff\nx");
    }

    #[test]
    fn every_byte_has_its_place() {
        let text = "/\u{e4} \\\n \"b c\"(\\040d)\n";
        let (lines, _) = lines(text.as_bytes());
        let line = &lines[0];
        let at = |word: usize, index| (line[word].place(index).line, line[word].place(index).column);
        assert_eq!((at(0, 0), at(0, 1)), ((1, 1), (1, 2)));
        assert_eq!(line[1].text(), "b c( d)");
        assert_eq!(
            (at(1, 0), at(1, 2), at(1, 3), at(1, 4), at(1, 5)),
            ((2, 3), (2, 5), (2, 7), (2, 8), (2, 12))
        );
        assert_eq!(at(1, 99), at(1, 6), "the end is where the last byte is");
    }

    #[test]
    fn an_unclosed_quote_ends_with_its_line() {
        let (lines, unclosed) = lines(b"/a b\n  /c \"d e\n/f g");
        assert_eq!(unclosed, [Unclosed(Place { line: 2, column: 6 })]);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1][0].bytes, b"/f");
    }
}
