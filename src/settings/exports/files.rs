//! The exports file and the directory beside it.

use super::parse::{Parsed, parse};
use super::{Exported, conflicts};
use crate::settings::problem::{Problem, Problems, Site};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A longer file is not one that a person wrote.
const MAX_FILE: u64 = 4 << 20;
/// Most files in the directory.
const MAX_FILES: usize = 10_000;

/// What the files say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ExportsFile {
    /// In the order of the files.
    pub exported: Vec<Exported>,
    /// What they say and probably do not mean; for people.
    pub warnings: Vec<Problem>,
}

/// Reads `file` (such as /etc/exports), then every `*.exports` of the directory `FILE.d` beside it, by name. One
/// of the two may be missing. All problems are returned at once, and then nothing of the files counts.
pub fn load(file: &Path) -> Result<ExportsFile, Problems> {
    let mut parsed = Parsed::default();
    let directory = beside(file);
    let more = match in_directory(&directory) {
        Ok(more) => more,
        Err(error) => {
            parsed.problems.push(unreadable(&directory, &error));
            None
        }
    };
    match read(file) {
        Ok(text) => parse(file, &text, &mut parsed),
        Err(error) if error.kind() == io::ErrorKind::NotFound && more.is_some() => {}
        Err(error) => parsed.problems.push(unreadable(file, &error)),
    }
    for file in more.unwrap_or_default() {
        match read(&file) {
            Ok(text) => parse(&file, &text, &mut parsed),
            Err(error) => parsed.problems.push(unreadable(&file, &error)),
        }
    }
    parsed.problems.extend(conflicts(&parsed.exported));
    Problems(parsed.problems).into_result()?;
    Ok(ExportsFile { exported: parsed.exported, warnings: parsed.warnings })
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    Problem {
        site: Site::Whole(path.to_path_buf()),
        what: format!("cannot be read: {error}"),
        expected: "a file in the form of exports(5), such as /etc/exports".to_owned(),
        next: "see config/exports of the source tree".to_owned(),
    }
}

/// `/etc/exports` and `/etc/exports.d`.
fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".d");
    PathBuf::from(name)
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(file)?.take(MAX_FILE + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!("it is longer than {MAX_FILE} bytes")));
    }
    Ok(text)
}

/// Names that end in `.exports` and do not start with a dot, sorted; `None` without such a directory.
fn in_directory(directory: &Path) -> io::Result<Option<Vec<PathBuf>>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        if name.ends_with(b".exports") && !name.starts_with(b".") {
            files.push(entry.path());
        }
        if files.len() > MAX_FILES {
            return Err(io::Error::other(format!("it holds more than {MAX_FILES} files")));
        }
    }
    files.sort();
    Ok(Some(files))
}
