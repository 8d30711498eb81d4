//! From the words of an exports file to its lines: a path, its default options, who may use it and how.

use super::client::Client;
use super::options::{self, Wrong};
use super::words::{self, Place, Unclosed, Word};
use super::{Exported, Options, Rule};
use crate::settings::problem::{Problem, Site};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

/// Longest MNT path (RFC 1813 appendix I, MNTPATHLEN).
const MAX_PATH: usize = 1024;

/// What a file says, and what is wrong with it.
#[derive(Default)]
pub(super) struct Parsed {
    pub(super) exported: Vec<Exported>,
    /// Nothing of the file counts while there are any.
    pub(super) problems: Vec<Problem>,
    /// What it says and probably does not mean.
    pub(super) warnings: Vec<Problem>,
}

/// Reads the text of `file`, after others: a path that they export gets more rules.
pub(super) fn parse(file: &Path, text: &[u8], into: &mut Parsed) {
    let (lines, unclosed) = words::lines(text);
    let mut parser = Parser { file, into };
    for Unclosed(place) in unclosed {
        parser.problem(place, "the quote is not closed".to_owned(), "a second \" in the same line", "");
    }
    for line in lines {
        parser.line(&line);
    }
}

struct Parser<'f, 'p> {
    file: &'f Path,
    into: &'p mut Parsed,
}

impl Parser<'_, '_> {
    fn site(&self, place: Place) -> Site {
        Site::At { file: self.file.to_path_buf(), line: place.line, column: place.column }
    }

    fn problem(&mut self, place: Place, what: String, expected: &str, next: &str) {
        let site = self.site(place);
        let problem = Problem { site, what, expected: expected.to_owned(), next: next.to_owned() };
        self.into.problems.push(problem);
    }

    fn warning(&mut self, place: Place, what: String, next: String) {
        let problem = Problem { site: self.site(place), what, expected: String::new(), next };
        self.into.warnings.push(problem);
    }

    fn line(&mut self, line: &[Word]) {
        let Some((path_word, rest)) = line.split_first() else { return };
        let path = self.path(path_word);
        let mut defaults = Options::default();
        let defaults_end = rest.iter().position(|word| !word.bytes.starts_with(b"-")).unwrap_or(rest.len());
        let (default_words, clients) = rest.split_at(defaults_end);
        for word in default_words {
            self.options(&mut defaults, word, 1..word.bytes.len());
        }
        let mut rules = Vec::new();
        for word in clients {
            rules.extend(self.rule(path_word, &defaults, word));
        }
        if clients.is_empty() {
            let path = path_word.text();
            let what = format!("{path} is exported to everybody: no client is named");
            self.warning(path_word.place(0), what, format!("write `{path} *` if that is meant"));
            let site = self.site(path_word.place(0));
            rules.push(Rule { client: Client::Everybody, options: defaults, site });
        }
        if let Some(path) = path {
            self.export(path, path_word, rules);
        }
    }

    fn path(&mut self, word: &Word) -> Option<PathBuf> {
        let path = PathBuf::from(OsString::from_vec(word.bytes.clone()));
        let what = if word.bytes.contains(&0) {
            "the path holds a NUL character".to_owned()
        } else if !path.is_absolute() {
            format!("`{}` does not start at the root", word.text())
        } else if path.components().any(|part| part == Component::ParentDir) {
            format!("`{}` holds `..`", word.text())
        } else if word.bytes.len() > MAX_PATH {
            format!("the path is longer than {MAX_PATH} bytes")
        } else {
            // Without double and closing slashes.
            return Some(path.components().collect());
        };
        self.problem(word.place(0), what, "the path of a directory, such as /home/share", "");
        None
    }

    /// The rule of `client(options)`.
    fn rule(&mut self, path: &Word, defaults: &Options, word: &Word) -> Option<Rule> {
        let open = word.bytes.iter().position(|byte| *byte == b'(');
        let name = &word.bytes[..open.unwrap_or(word.bytes.len())];
        let mut options = defaults.clone();
        let mut good = true;
        if let Some(open) = open {
            let body = open + 1..word.bytes.len().saturating_sub(1).max(open + 1);
            let close = word.bytes.iter().rposition(|byte| *byte == b')');
            if close != Some(word.bytes.len() - 1) || close == Some(open) {
                let what = format!("`{}`: the list of options does not end with the word", word.text());
                let next = "write no spaces between ( and ), and one ) at the end";
                self.problem(word.place(open), what, "client(option,option)", next);
                return None;
            }
            good = self.options(&mut options, word, body);
        }
        if name.is_empty() {
            let (path, list) = (path.text(), word.text());
            let what = format!("{list} has no client before it: everybody gets these options");
            let next = format!(
                "write no space between a client and its (, or `{path} *{list}` if everybody is meant"
            );
            self.warning(word.place(0), what, next);
        }
        let text = String::from_utf8_lossy(name);
        if text.starts_with('-') {
            let what = format!("`{text}` stands after a client");
            self.problem(word.place(0), what, "default options right after the path", "move it there");
            return None;
        }
        if text.starts_with("gss/") {
            let what = format!("the client `{text}` is not supported: there is no Kerberos here");
            self.problem(word.place(0), what, "", "name hosts or networks, with sec=sys");
            return None;
        }
        match Client::parse(&text) {
            Ok(client) => {
                if let Client::Wildcard(pattern) = &client
                    && pattern.bytes().all(|byte| !byte.is_ascii_alphabetic())
                    && pattern.contains('.')
                {
                    let what = format!("`{pattern}`: wildcards match names of hosts, not their addresses");
                    self.warning(word.place(0), what, "write a network, such as 192.168.1.0/24".to_owned());
                }
                good.then(|| Rule { client, options, site: self.site(word.place(0)) })
            }
            Err(what) => {
                let expected = "a host name, an address, a network (10.0.0.0/8), a wildcard (*.example.org), a @netgroup or *";
                self.problem(word.place(0), what, expected, "");
                None
            }
        }
    }

    /// Applies the options in a part of a word; false if one of them is wrong.
    fn options(&mut self, options: &mut Options, word: &Word, within: std::ops::Range<usize>) -> bool {
        let mut start = within.start;
        let mut good = true;
        for written in word.bytes.get(within).unwrap_or_default().split(|byte| *byte == b',') {
            // An empty list, and a comma too many, say nothing.
            if !written.is_empty()
                && let Err(Wrong { what, expected, next }) =
                    options::apply(options, &String::from_utf8_lossy(written))
            {
                self.problem(word.place(start), what, &expected, &next);
                good = false;
            }
            start += written.len() + 1;
        }
        good
    }

    fn export(&mut self, path: PathBuf, word: &Word, rules: Vec<Rule>) {
        let known = self.into.exported.iter().position(|exported| exported.path == path);
        let index = known.unwrap_or_else(|| {
            let site = Site::At {
                file: self.file.to_path_buf(),
                line: word.place(0).line,
                column: word.place(0).column,
            };
            self.into.exported.push(Exported { path, site, rules: Vec::new() });
            self.into.exported.len() - 1
        });
        for rule in rules {
            let Some(exported) = self.into.exported.get_mut(index) else { return };
            match exported.rules.iter().find(|known| known.client == rule.client) {
                None => exported.rules.push(rule),
                Some(first) => {
                    let path = exported.path.display();
                    let what = format!(
                        "{path} is exported to {} twice; the first counts: {}",
                        rule.client, first.site
                    );
                    let next = "remove one of them".to_owned();
                    let warning = Problem { site: rule.site, what, expected: String::new(), next };
                    self.into.warnings.push(warning);
                }
            }
        }
    }
}
