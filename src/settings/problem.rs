//! Problems with what the operator wrote: where, what, what was expected, what next.

use std::fmt;
use std::path::PathBuf;

/// Where a setting comes from.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Site {
    /// The file as a whole.
    Whole(PathBuf),
    /// A place in a file; line and column count from 1, columns in characters.
    #[allow(missing_docs)]
    At { file: PathBuf, line: usize, column: usize },
    /// An option of the command line.
    Flag(&'static str),
    /// Nobody wrote it: the default of this key.
    Default(&'static str),
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Site::Whole(file) => write!(f, "{}", file.display()),
            Site::At { file, line, column } => write!(f, "{}:{line}:{column}", file.display()),
            Site::Flag(flag) => write!(f, "option {flag}"),
            Site::Default(key) => write!(f, "default of {key}"),
        }
    }
}

/// One problem.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Where.
    pub site: Site,
    /// What is wrong: "unknown key `lisen` in [nfs1]".
    pub what: String,
    /// What was expected there: "one of host, state, listen".
    pub expected: String,
    /// What to do: "write `listen`".
    pub next: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.site, self.what)?;
        if !self.expected.is_empty() {
            write!(f, "\n    expected: {}", self.expected)?;
        }
        if !self.next.is_empty() {
            write!(f, "\n    next: {}", self.next)?;
        }
        Ok(())
    }
}

/// All problems found, in order of place. Never empty when returned as an error.
#[derive(Clone, PartialEq, Eq, Debug, Default, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// `Ok` when there are none; sorted by place.
    pub fn into_result(mut self) -> Result<(), Problems> {
        if self.0.is_empty() {
            return Ok(());
        }
        self.0.sort_by(|a, b| a.site.cmp(&b.site));
        Err(self)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.0 {
            writeln!(f, "{problem}")?;
        }
        match self.0.len() {
            1 => write!(f, "1 problem; nothing was started"),
            n => write!(f, "{n} problems; nothing was started"),
        }
    }
}

/// The known word nearest to `word`, if it is near enough to be a slip of the hand.
pub(crate) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let limit = (word.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace, swap of neighbours) that make `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    // Only short words are compared; a pasted page must not cost its square.
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replace = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replace.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_known_word_is_suggested() {
        let known = ["listen", "host", "state", "dashboard"];
        assert_eq!(nearest("lisen", known), Some("listen"));
        assert_eq!(nearest("lsiten", known), Some("listen"));
        assert_eq!(nearest("hots", known), Some("host"));
        assert_eq!(nearest("dashbord", known), Some("dashboard"));
        assert_eq!(nearest("port", known), None);
        assert_eq!(nearest(&"x".repeat(100_000), known), None);
    }

    #[test]
    fn a_problem_says_where_what_and_what_next() {
        let problem = Problem {
            site: Site::At { file: "c.toml".into(), line: 3, column: 7 },
            what: "`state` is a number".into(),
            expected: "a path in quotes".into(),
            next: "write \"/var/lib/ehpc-store\"".into(),
        };
        let text = problem.to_string();
        assert_eq!(
            text,
            "c.toml:3:7: `state` is a number\n    expected: a path in quotes\n    next: write \"/var/lib/ehpc-store\""
        );
        let all = Problems(vec![problem.clone(), problem]);
        assert!(all.to_string().ends_with("\n2 problems; nothing was started"));
        assert!(Problems::default().into_result().is_ok());
    }
}
