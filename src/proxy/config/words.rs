//! Words of one line, with their places, and a cursor that parsers share.

use crate::settings::{Problem, Site};
use std::path::Path;
use std::sync::Arc;

/// One word after quotes and escapes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Word {
    /// What it says.
    pub text: String,
    /// Column where it begins, from 1, in characters.
    pub column: usize,
    /// Some of it stood in quotes or behind a backslash: never a keyword such as `{` or `or`.
    pub quoted: bool,
}

/// One line of a file.
#[derive(Clone, Debug)]
pub struct Line {
    /// File it stands in.
    pub file: Arc<Path>,
    /// From 1.
    pub number: usize,
    /// Its words; never empty.
    pub words: Vec<Word>,
}

/// A cursor over the words of a line. Every parser of arguments takes one and leaves it behind what it has read.
#[derive(Clone, Debug)]
pub struct Words<'l> {
    line: &'l Line,
    next: usize,
}

/// A parser's result: one problem is enough for a line.
pub type Parsed<T> = Result<T, Box<Problem>>;

impl<'l> Words<'l> {
    /// From the first word.
    pub fn new(line: &'l Line) -> Words<'l> {
        Words { line, next: 0 }
    }

    /// The next word, without taking it.
    pub fn peek(&self) -> Option<&'l str> {
        self.line.words.get(self.next).map(|word| word.text.as_str())
    }

    /// The next word with its place, without taking it.
    pub fn peek_word(&self) -> Option<&'l Word> {
        self.line.words.get(self.next)
    }

    /// Takes the next word.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<&'l str> {
        let word = self.peek();
        self.next += usize::from(word.is_some());
        word
    }

    /// Takes the next word if it is `word`, unquoted.
    pub fn take(&mut self, word: &str) -> bool {
        let here = self.peek_word().is_some_and(|next| next.text == word && !next.quoted);
        self.next += usize::from(here);
        here
    }

    /// Takes the next word; a problem that says `what` was expected when there is none.
    pub fn demand(&mut self, what: &str) -> Parsed<&'l str> {
        let before = self.before();
        self.next().ok_or_else(|| self.problem(&format!("`{before}` is not complete"), what, ""))
    }

    /// All words that are left; the cursor stands behind them.
    pub fn rest(&mut self) -> &'l [Word] {
        let rest = &self.line.words[self.next..];
        self.next = self.line.words.len();
        rest
    }

    /// Nothing may be left.
    pub fn end(&self) -> Parsed<()> {
        match self.peek() {
            None => Ok(()),
            Some(word) => Err(self.problem(
                &format!("`{word}` is too much after `{}`", self.before()),
                "the end of the line",
                "",
            )),
        }
    }

    /// The word before the cursor.
    pub fn before(&self) -> &'l str {
        self.next.checked_sub(1).map_or("", |at| self.line.words[at].text.as_str())
    }

    /// Place of the next word, or of the line's last one.
    pub fn site(&self) -> Site {
        let at = self.next.min(self.line.words.len().saturating_sub(1));
        self.site_of(at)
    }

    /// Place of the word that was taken last.
    pub fn site_before(&self) -> Site {
        self.site_of(self.next.saturating_sub(1))
    }

    /// A problem at the next word.
    pub fn problem(&self, what: &str, expected: &str, next: &str) -> Box<Problem> {
        let (what, expected, next) = (what.to_owned(), expected.to_owned(), next.to_owned());
        Box::new(Problem { site: self.site(), what, expected, next })
    }

    /// A problem at the word that was taken last.
    pub fn problem_before(&self, what: &str, expected: &str, next: &str) -> Box<Problem> {
        let (what, expected, next) = (what.to_owned(), expected.to_owned(), next.to_owned());
        Box::new(Problem { site: self.site_before(), what, expected, next })
    }

    fn site_of(&self, index: usize) -> Site {
        let column = self.line.words.get(index).map_or(1, |word| word.column);
        Site::At { file: self.line.file.to_path_buf(), line: self.line.number, column }
    }
}
