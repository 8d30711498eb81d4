//! exports(5): which directories are exported to whom, and how.
//!
//! The types are what the file means, and they are what `nfs` decides by. `words` splits the text, `parse`
//! reads lines, `options` is the table of options, `client` says which clients a line is about, `files` finds
//! the file and the directory beside it. Everything but `files` is pure.

mod client;
mod files;
mod options;
mod parse;
#[cfg(test)]
mod tests;
mod words;

pub use client::{Client, Names};
pub use files::{ExportsFile, load};

use super::problem::{Problem, Site};
use std::fmt;
use std::path::PathBuf;

/// User and group of callers without identity, where nothing else is said ("nobody").
pub const ANONYMOUS: u32 = 65_534;

/// Whose identity is replaced by the anonymous one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Squash {
    /// Nobody's (`no_root_squash`).
    Nobody,
    /// uid 0 and gid 0, supplementary groups included (`root_squash`).
    Root,
    /// Everybody's (`all_squash`).
    Everybody,
}

/// The number of a file system, as the operator has chosen it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Fsid {
    /// `fsid=7`; `fsid=root` is 0.
    Number(u32),
    /// `fsid=UUID`.
    Uuid([u8; 16]),
}

impl Fsid {
    /// The fsid in attributes (fattr3): of a UUID both halves together.
    pub fn attribute(self) -> u64 {
        match self {
            Fsid::Number(number) => u64::from(number),
            Fsid::Uuid(uuid) => {
                let [high, low] = [&uuid[..8], &uuid[8..]]
                    .map(|half| half.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)));
                high ^ low
            }
        }
    }
}

impl fmt::Display for Fsid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fsid::Number(number) => write!(f, "{number}"),
            Fsid::Uuid(uuid) => uuid.iter().enumerate().try_for_each(|(index, byte)| {
                let dash = if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" };
                write!(f, "{dash}{byte:02x}")
            }),
        }
    }
}

/// `mountpoint`: the export is served only while this is a mount point.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MountPoint {
    /// The exported directory.
    Itself,
    /// Another.
    At(PathBuf),
}

/// How one client may use one export.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// `ro`: refuse whatever would change something.
    pub read_only: bool,
    /// `sync`: every modifying reply is durable.
    pub sync: bool,
    /// `secure`: requests must come from a port below 1024.
    pub secure: bool,
    /// Whose identity is replaced.
    pub squash: Squash,
    /// User of the anonymous.
    pub anonuid: u32,
    /// Group of the anonymous.
    pub anongid: u32,
    /// `hide`: the file system is not entered from the export that it is mounted in (`nohide`: it is).
    pub hide: bool,
    /// `crossmnt`: file systems that are mounted below are entered.
    pub crossmnt: bool,
    /// `subtree_check`: an object must still be below the exported directory.
    pub subtree_check: bool,
    /// READDIRPLUS is answered (`nordirplus` refuses it).
    pub readdirplus: bool,
    /// POSIX ACLs are shown and set (`no_acl` refuses it).
    pub acl: bool,
    /// Lock requests must come from somebody who may use the file (`no_auth_nlm` asks nobody).
    pub auth_nlm: bool,
    /// `fsid=`.
    pub fsid: Option<Fsid>,
    /// `mountpoint`.
    pub mount_point: Option<MountPoint>,
}

impl Default for Options {
    /// What exports(5) says of an empty list.
    fn default() -> Options {
        Options {
            read_only: true,
            sync: true,
            secure: true,
            squash: Squash::Root,
            anonuid: ANONYMOUS,
            anongid: ANONYMOUS,
            hide: true,
            crossmnt: false,
            subtree_check: false,
            readdirplus: true,
            acl: true,
            auth_nlm: true,
            fsid: None,
            mount_point: None,
        }
    }
}

impl Options {
    /// What is served where no exports file says otherwise: everything, under the callers' own ids.
    pub fn open() -> Options {
        Options { read_only: false, secure: false, squash: Squash::Nobody, ..Options::default() }
    }
}

/// `client(options)`: who may use an export, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Who.
    pub client: Client,
    /// How.
    pub options: Options,
    /// Where it is written.
    pub site: Site,
}

impl Rule {
    /// Everybody, with these options, written nowhere.
    pub fn everybody(options: Options) -> Rule {
        Rule { client: Client::Everybody, options, site: Site::Default("nfs1.export") }
    }

    /// The rule as it is for a file system that is mounted below the export: what names the export alone is left
    /// out.
    pub fn below(&self) -> Rule {
        let options = Options { fsid: None, mount_point: None, ..self.options.clone() };
        Rule { options, ..self.clone() }
    }

    /// Does it mean the same, wherever it is written?
    pub fn says_the_same(&self, other: &Rule) -> bool {
        (&self.client, &self.options) == (&other.client, &other.options)
    }
}

impl fmt::Display for Rule {
    /// As exports(5) writes it, every option spelt out that differs from client to client.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.client, self.options.words().join(","))
    }
}

/// A directory that is exported.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exported {
    /// Absolute, without `.`, `..` and double slashes; symbolic links in it are not resolved.
    pub path: PathBuf,
    /// Where it is first written.
    pub site: Site,
    /// Who may use it. Never empty.
    pub rules: Vec<Rule>,
}

impl Exported {
    /// Replies are durable if any of its clients is promised that: the others get more than they asked for.
    pub fn sync(&self) -> bool {
        self.rules.iter().any(|rule| rule.options.sync)
    }

    /// The file system's number, if one is chosen.
    pub fn fsid(&self) -> Option<Fsid> {
        self.rules.iter().find_map(|rule| rule.options.fsid)
    }

    /// What must be a mount point.
    pub fn mount_point(&self) -> Option<&MountPoint> {
        self.rules.iter().find_map(|rule| rule.options.mount_point.as_ref())
    }

    /// Rules of one export that contradict one another in what is the export's own.
    fn contradictions(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut contradicts = |rule: &Rule, option: &str| {
            problems.push(Problem {
                site: rule.site.clone(),
                what: format!("{} has another `{option}` for another client", self.path.display()),
                expected: format!("one `{option}` for each exported directory"),
                next: "write it once, or the same for every client".to_owned(),
            });
        };
        for rule in &self.rules {
            if rule.options.fsid.is_some() && rule.options.fsid != self.fsid() {
                contradicts(rule, "fsid");
            }
            if rule.options.mount_point.is_some() && rule.options.mount_point.as_ref() != self.mount_point() {
                contradicts(rule, "mountpoint");
            }
        }
        problems
    }
}

/// What is wrong between exports that are right each for itself.
fn conflicts(exported: &[Exported]) -> Vec<Problem> {
    let mut problems: Vec<Problem> = exported.iter().flat_map(Exported::contradictions).collect();
    for (index, export) in exported.iter().enumerate() {
        let Some(fsid) = export.fsid() else { continue };
        if let Some(other) = exported[..index].iter().find(|other| other.fsid() == Some(fsid)) {
            problems.push(Problem {
                site: export.site.clone(),
                what: format!("{} has the fsid {fsid} of {}", export.path.display(), other.path.display()),
                expected: "another number for each exported directory".to_owned(),
                next: "change one of them; clients of the changed one must mount again".to_owned(),
            });
        }
    }
    problems
}
