//! Files and directories into lines of words: `.if` blocks are decided, variables are set and replaced on the way.

use super::conditional;
use super::environment::Environment;
use super::lexer::{self, Place};
use super::vocabulary;
use super::words::{Line, Words};
use crate::settings::{Problem, Problems, Site};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest configuration file.
const LARGEST_FILE: u64 = 64 << 20;
/// Deepest nesting of `.if`, as HAProxy.
const DEEPEST_BLOCKS: usize = 1024;

/// The lines of all `paths` in order: a directory stands for its `*.cfg` in alphabetical order, as with HAProxy's `-f`.
pub(crate) fn read(paths: &[PathBuf], environment: &mut Environment, problems: &mut Problems) -> Vec<Line> {
    let mut lines = Vec::new();
    for path in expand(paths, problems) {
        match contents(&path) {
            Ok(bytes) => Reader::new(&path, environment, problems, &mut lines).file(&bytes),
            Err(problem) => problems.0.push(problem),
        }
    }
    lines
}

/// `bytes` as if they stood in `path`.
pub(crate) fn read_bytes(
    path: &Path,
    bytes: &[u8],
    environment: &mut Environment,
    problems: &mut Problems,
) -> Vec<Line> {
    let mut lines = Vec::new();
    Reader::new(path, environment, problems, &mut lines).file(bytes);
    lines
}

fn expand(paths: &[PathBuf], problems: &mut Problems) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in paths {
        if !path.is_dir() {
            found.push(path.clone());
            continue;
        }
        match fs::read_dir(path) {
            Ok(entries) => {
                let mut files: Vec<PathBuf> = entries
                    .flatten()
                    .map(|entry| entry.path())
                    .filter(|file| {
                        let name = file.file_name().unwrap_or_default().as_encoded_bytes();
                        name.ends_with(b".cfg") && !name.starts_with(b".") && file.is_file()
                    })
                    .collect();
                files.sort();
                found.extend(files);
            }
            Err(error) => problems.0.push(unreadable(path, &error)),
        }
    }
    found
}

fn contents(path: &Path) -> Result<Vec<u8>, Problem> {
    let file = fs::File::open(path).map_err(|error| unreadable(path, &error))?;
    let mut bytes = Vec::new();
    file.take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(Problem {
            site: Site::Whole(path.to_owned()),
            what: "the file is larger than 64 MiB".to_owned(),
            expected: "a configuration".to_owned(),
            next: "name another file".to_owned(),
        });
    }
    Ok(bytes)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Problem {
    Problem {
        site: Site::Whole(path.to_owned()),
        what: format!("cannot be read: {error}"),
        expected: "a configuration file, or a directory of *.cfg files".to_owned(),
        next: "name another with -f, or make it readable for this user".to_owned(),
    }
}

/// One `.if` block.
struct Block {
    /// Line of its `.if`.
    line: usize,
    /// Lines count now.
    active: bool,
    /// One of its branches was taken, or the block stands in one that is not.
    decided: bool,
    /// `.else` was seen.
    last: bool,
}

struct Reader<'r> {
    file: Arc<Path>,
    environment: &'r mut Environment,
    problems: &'r mut Problems,
    lines: &'r mut Vec<Line>,
    section: String,
    blocks: Vec<Block>,
}

impl<'r> Reader<'r> {
    fn new(
        path: &Path,
        environment: &'r mut Environment,
        problems: &'r mut Problems,
        lines: &'r mut Vec<Line>,
    ) -> Reader<'r> {
        Reader { file: path.into(), environment, problems, lines, section: String::new(), blocks: Vec::new() }
    }

    fn file(mut self, bytes: &[u8]) {
        let mut number = 0;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            number += 1;
            match line.strip_suffix(b"\n") {
                Some(line) => self.line(number, line),
                None => {
                    let what = "the last line has no line feed; the file may have been cut off";
                    self.problem(number, 1, what, "end the file with a new line");
                }
            }
        }
        if let Some(block) = self.blocks.last() {
            let (line, what) = (block.line, "`.if` without `.endif`");
            self.problem(line, 1, what, "add `.endif` where the block ends");
        }
    }

    fn line(&mut self, number: usize, bytes: &[u8]) {
        let file = self.file.to_string_lossy().into_owned();
        let place = Place { file: &file, line: number, section: &self.section };
        let skipped = self.blocks.last().is_some_and(|block| !block.active);
        let words = match lexer::split(bytes, self.environment, place) {
            Ok(words) => words,
            // In a block that does not count only directives are looked at.
            Err(_) if skipped && !bytes.trim_ascii_start().starts_with(b".") => return,
            Err(fault) => return self.problem(number, fault.column, &fault.what, fault.next),
        };
        let Some(first) = words.first().map(|word| word.text.clone()) else { return };
        let line = Line { file: self.file.clone(), number, words };
        if first.starts_with('.') && self.directive(&first, &line) || skipped {
            return;
        }
        if vocabulary::is_section(&first) {
            self.section.clone_from(&first);
        } else if self.section == "global" {
            let mut words = Words::new(&line);
            words.next();
            if let Err(problem) = self.environment.obey(&first, &mut words) {
                self.problems.0.push(*problem);
            }
        }
        self.lines.push(line);
    }

    /// `.if` and its kin, `.notice` and its kin; `false`: not one of them.
    fn directive(&mut self, first: &str, line: &Line) -> bool {
        let active = self.blocks.last().is_none_or(|block| block.active);
        let text: Vec<&str> = line.words[1..].iter().map(|word| word.text.as_str()).collect();
        let text = text.join(" ");
        let number = line.number;
        match first {
            ".if" => {
                if self.blocks.len() == DEEPEST_BLOCKS {
                    self.problem(number, 1, "`.if` blocks are nested too deeply", "");
                    return true;
                }
                let holds = active && self.holds(line, &text);
                self.blocks.push(Block {
                    line: number,
                    active: holds,
                    decided: holds || !active,
                    last: false,
                });
            }
            ".elif" | ".else" => {
                let wanted = match self.blocks.last() {
                    None => return self.misplaced(first, number, "it has no `.if`"),
                    Some(block) if block.last => {
                        return self.misplaced(first, number, "it stands after `.else`");
                    }
                    Some(block) => !block.decided,
                };
                let holds = wanted && (first == ".else" || self.holds(line, &text));
                if let Some(block) = self.blocks.last_mut() {
                    block.active = holds;
                    block.decided |= holds;
                    block.last = first == ".else";
                }
            }
            ".endif" => {
                if self.blocks.pop().is_none() {
                    return self.misplaced(first, number, "it has no `.if`");
                }
            }
            ".alert" if active => self.problem(number, 1, &text, "this is what `.alert` says"),
            ".notice" | ".warning" | ".diag" if active => {
                self.lines.push(line.clone());
            }
            ".alert" | ".notice" | ".warning" | ".diag" => {}
            _ => return false,
        }
        true
    }

    fn holds(&mut self, line: &Line, text: &str) -> bool {
        match conditional::evaluate(text, self.environment) {
            Ok(holds) => holds,
            Err(what) => {
                let column = line.words.get(1).map_or(1, |word| word.column);
                self.problem(line.number, column, &what, "see 2.4 of HAProxy's manual");
                false
            }
        }
    }

    fn misplaced(&mut self, word: &str, line: usize, why: &str) -> bool {
        self.problem(line, 1, &format!("`{word}` cannot stand here: {why}"), "");
        true
    }

    fn problem(&mut self, line: usize, column: usize, what: &str, next: &str) {
        self.problems.0.push(Problem {
            site: Site::At { file: self.file.to_path_buf(), line, column },
            what: what.to_owned(),
            expected: String::new(),
            next: next.to_owned(),
        });
    }
}
