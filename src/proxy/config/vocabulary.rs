//! The one table of known words: where each may stand, what becomes of it, a line of help. The parser dispatches by
//! it, errors suggest from it, `-dKall` lists it. A word that is not here is refused.

use super::draft::{Context, Draft, ServerDraft};
use super::model::{Bind, Options};
use super::words::{Parsed, Words};
use super::{bind_words, global_words, option_words, proxy_words, rule_words, server_words};
use crate::proxy::expression;
use crate::settings::problem::nearest;
use std::fmt::Write;

/// Where a word may stand, as bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Places(pub(crate) u8);

impl Places {
    /// Section `global`.
    pub(crate) const GLOBAL: Places = Places(1);
    /// Section `defaults`.
    pub(crate) const DEFAULTS: Places = Places(2);
    /// Sections `frontend` and `listen`.
    pub(crate) const FRONT: Places = Places(4);
    /// Sections `backend` and `listen`.
    pub(crate) const BACK: Places = Places(8);
    /// Behind `bind ADDRESS`.
    pub(crate) const BIND: Places = Places(16);
    /// Behind `server NAME ADDRESS` and `default-server`.
    pub(crate) const SERVER: Places = Places(32);

    /// Whether all of `other` is in here.
    pub(crate) fn contains(self, other: Places) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether they have something in common.
    pub(crate) fn meets(self, other: Places) -> bool {
        self.0 & other.0 != 0
    }
}

impl std::ops::BitOr for Places {
    type Output = Places;
    fn bitor(self, other: Places) -> Places {
        Places(self.0 | other.0)
    }
}

const D: u8 = 2;
const F: u8 = 4;
const B: u8 = 8;

/// defaults, frontend, listen.
pub(crate) const DF: Places = Places(D | F);
/// defaults, backend, listen.
pub(crate) const DB: Places = Places(D | B);
/// Every proxy section.
pub(crate) const DFB: Places = Places(D | F | B);
/// frontend, backend, listen.
pub(crate) const FB: Places = Places(F | B);

/// What reads a word's arguments; the cursor stands behind the word.
#[derive(Clone, Copy)]
pub(crate) enum Handler {
    Global(fn(&mut super::model::Global, &mut Words<'_>, &mut Context<'_>) -> Parsed<()>),
    Proxy(fn(&mut Draft, &mut Words<'_>, &mut Context<'_>) -> Parsed<()>),
    /// An option that is either on or off.
    Switch(fn(&mut Options) -> &mut bool),
    Bind(fn(&mut Bind, &mut Words<'_>, &mut Context<'_>) -> Parsed<()>),
    Server(fn(&mut ServerDraft, &mut Words<'_>, &mut Context<'_>) -> Parsed<()>),
    /// Compiled when all sections are known.
    Deferred,
    /// Done while the lines were read (`setenv` ...).
    Done,
}

/// What becomes of a word.
#[derive(Clone, Copy)]
pub(crate) enum Class {
    /// It does what HAProxy does with it.
    Honoured(Handler),
    /// Means nothing in this engine: accepted, named once in the start notice. Behind `bind` and `server` it takes this
    /// many arguments; elsewhere the whole line.
    WithoutMeaning(usize),
    /// Refused, with the reason and what to write instead.
    Refused(&'static str),
}

/// One word.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    /// One word, or two of a group: `timeout connect`.
    pub(crate) word: &'static str,
    pub(crate) places: Places,
    pub(crate) class: Class,
    pub(crate) help: &'static str,
}

/// A row; short, because the tables are long.
pub(crate) const fn row(word: &'static str, places: Places, class: Class, help: &'static str) -> Row {
    Row { word, places, class, help }
}

/// Sections that are read.
const SECTIONS: [&str; 6] = ["global", "defaults", "frontend", "backend", "listen", "userlist"];

/// Sections that HAProxy knows and this product refuses, with the reason.
pub(crate) const REFUSED_SECTIONS: [(&str, &str); 10] = [
    ("peers", "stick tables are not replicated to peers yet"),
    ("resolvers", "names are resolved once, when the file is read"),
    ("mailers", "mail alerts are not supported"),
    ("program", "use the role `supervise` for other programs"),
    ("cache", "answers are not cached yet"),
    ("http-errors", "groups of error files are not supported yet; use errorfile"),
    ("ring", "log rings are not supported"),
    ("log-forward", "log forwarding is not supported"),
    ("fcgi-app", "FastCGI is not supported"),
    ("crt-store", "TLS is not supported yet"),
];

/// Words that change a variable or decide a block; they never reach a section.
pub(crate) fn is_section(word: &str) -> bool {
    SECTIONS.contains(&word) || REFUSED_SECTIONS.iter().any(|(name, _)| *name == word)
}

/// All tables: (heading, rows).
pub(crate) fn tables() -> [(&'static str, &'static [Row]); 7] {
    [
        ("global", global_words::ROWS),
        ("defaults, frontend, backend, listen", proxy_words::ROWS),
        ("options", option_words::OPTIONS),
        ("rules and conditions", rule_words::ROWS),
        ("removed words", rule_words::REMOVED),
        ("bind", bind_words::ROWS),
        ("server, default-server", server_words::ROWS),
    ]
}

/// The row of `first` (or of `first second`) that may stand at any of `places`; else a row elsewhere.
pub(crate) fn find(places: Places, first: &str, second: Option<&str>) -> Option<&'static Row> {
    let rows = || tables().into_iter().flat_map(|(_, rows)| rows);
    let is = |row: &&Row| match row.word.split_once(' ') {
        Some((group, word)) => group == first && Some(word) == second,
        None => row.word == first,
    };
    rows().filter(|row| row.places.meets(places)).find(is)
}

/// The known word nearest to what was written, among those that may stand there.
pub(crate) fn suggest(places: Places, first: &str, second: Option<&str>) -> Option<&'static str> {
    let candidates = || {
        let rows = tables().into_iter().flat_map(|(_, rows)| rows);
        rows.filter(move |row| row.places.meets(places) && !matches!(row.class, Class::Refused(_)))
            .map(|row| row.word)
    };
    let group =
        |word: &str| candidates().any(|known| known.split(' ').next() == Some(word) && known.contains(' '));
    let single = || nearest(first, candidates().map(|word| word.split(' ').next().unwrap_or(word)));
    let Some(second) = second else { return single() };
    let both = nearest(&format!("{first} {second}"), candidates().filter(|word| word.contains(' ')));
    match group(first) {
        true => both,
        false => both.or_else(single),
    }
}

/// Whether `first` begins words of two: `timeout`, `option`, `stats`.
pub(crate) fn is_group(places: Places, first: &str) -> bool {
    tables().into_iter().flat_map(|(_, rows)| rows).any(|row| {
        row.places.meets(places) && row.word.split_once(' ').is_some_and(|(group, _)| group == first)
    })
}

/// The table for a person: one line a word, its class in the first column (`+` honoured, `.` accepted without
/// meaning, `-` refused).
pub fn listing() -> String {
    let mut text =
        String::from("# Words of haproxy.cfg: + honoured, . accepted without meaning here, - refused\n");
    for (heading, rows) in tables() {
        let _ = writeln!(text, "\n# {heading}");
        for row in rows {
            let (mark, note) = match row.class {
                Class::Honoured(_) => ('+', ""),
                Class::WithoutMeaning(_) => ('.', ""),
                Class::Refused(reason) => ('-', reason),
            };
            let help = if row.help.is_empty() { note } else { row.help };
            let _ = writeln!(text, "{mark} {:<36} {:<28} {help}", row.word, places(row.places));
        }
    }
    for (heading, entries) in [
        ("fetches", expression::fetches().collect::<Vec<_>>()),
        ("converters (and map_METHOD_TYPE)", expression::converters().collect()),
    ] {
        let _ = writeln!(text, "\n# {heading}");
        for entry in entries {
            let _ = writeln!(text, "+ {:<36} {:<28} {}", entry.name, entry.kind, entry.help);
        }
    }
    text
}

fn places(places: Places) -> String {
    let names = [
        (Places::GLOBAL, "global"),
        (Places::DEFAULTS, "defaults"),
        (Places::FRONT, "frontend"),
        (Places::BACK, "backend"),
        (Places::BIND, "bind"),
        (Places::SERVER, "server"),
    ];
    let names = names.into_iter().filter(|(place, _)| places.contains(*place)).map(|(_, name)| name);
    names.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_word_stands_twice_in_one_place() {
        let mut seen = BTreeSet::new();
        for row in tables().into_iter().flat_map(|(_, rows)| rows) {
            for bit in (0..6).map(|n| Places(1 << n)).filter(|bit| row.places.meets(*bit)) {
                assert!(seen.insert((row.word, bit.0)), "{} twice in {}", row.word, places(bit));
            }
        }
        assert!(seen.len() > 300);
    }

    #[test]
    fn every_word_says_what_it_is() {
        for row in tables().into_iter().flat_map(|(_, rows)| rows) {
            let reason = if let Class::Refused(reason) = row.class { reason } else { "" };
            assert!(!row.help.is_empty() || !reason.is_empty(), "{}", row.word);
        }
    }
}
