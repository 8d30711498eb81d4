//! The table of exports: read by every call as one snapshot, replaced as a whole while clients work.

use super::access::{self, Claim, Grant, Refusal};
use super::decisions::Decisions;
use super::lookup::Lookups;
use super::meters::Traffic;
use super::mount::components;
use super::stats::ExportStats;
use crate::host::ObjectKey;
use crate::settings::exports::{Client, Names, Rule};
use crate::vfs::Vfs;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A directory that is served.
#[derive(Clone)]
pub struct Export {
    /// Part of every file handle: handles of a number that is in no export are stale.
    pub id: u32,
    /// The path that clients mount, for example `/share`.
    pub name: Vec<u8>,
    /// The files.
    pub vfs: Arc<dyn Vfs>,
    /// The exported directory; nothing above it can be reached.
    pub root: ObjectKey,
    /// Who may use it, and how; who is in none of them may not.
    pub rules: Vec<Rule>,
    /// Ways into file systems that are mounted below.
    pub crossings: Vec<Crossing>,
    /// Exported because what it is mounted in is (`crossmnt`); EXPORT does not name it.
    pub implied: bool,
}

/// A mount point in an export, and the export of what is mounted there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Crossing {
    /// The directory that the mount point lies in.
    pub dir: ObjectKey,
    /// Its name there.
    pub name: Vec<u8>,
    /// Number of the export that is entered.
    pub to: u32,
}

impl Export {
    /// Serves the whole of `vfs` as `name`.
    pub fn whole(id: u32, name: &str, vfs: Arc<dyn Vfs>, rules: Vec<Rule>) -> Export {
        Export {
            id,
            name: name.as_bytes().to_vec(),
            root: vfs.root(),
            vfs,
            rules,
            crossings: Vec::new(),
            implied: false,
        }
    }

    /// The export that a name in a directory leads to, where another file system is mounted.
    pub(super) fn crossing(&self, dir: &ObjectKey, name: &[u8]) -> Option<u32> {
        if self.crossings.is_empty() {
            return None;
        }
        self.crossings.iter().find(|way| way.dir == *dir && way.name == name).map(|way| way.to)
    }

    /// The name as people read it.
    pub fn display_name(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }
}

/// Who wants to use an export.
#[derive(Clone, Copy)]
pub(super) struct Who<'a> {
    pub(super) peer: SocketAddr,
    pub(super) claim: &'a Claim,
    pub(super) lookups: &'a Lookups,
    /// Groups are looked up on this machine.
    pub(super) manage_gids: bool,
    /// How long the name service is waited for; `None` on a thread that must not wait.
    pub(super) patience: Option<Duration>,
}

/// Why exports do not make a table.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TableError {
    /// An export has no usable name.
    #[error("the export's name is {name:?}: it must start with '/' and name something, like \"/share\"")]
    Name {
        /// The name given.
        name: String,
    },
    /// Two exports have one name.
    #[error("{name} is exported twice")]
    SameName {
        /// The name.
        name: String,
    },
    /// Two exports have one number.
    #[error(
        "the exports {first} and {second} have the same number in file handles; give one of them another fsid="
    )]
    SameId {
        /// One.
        first: String,
        /// The other.
        second: String,
    },
}

/// What is served at one moment.
#[derive(Clone, Default)]
pub struct Table {
    /// Sorted by name.
    exports: Vec<Export>,
    /// Index, and who was found to be covered by which rule.
    by_id: HashMap<u32, (usize, Arc<Decisions>)>,
    /// What went through each, in the same order.
    traffic: Vec<Arc<Traffic>>,
}

impl Table {
    /// A table of these exports, in any order.
    pub fn new(mut exports: Vec<Export>) -> Result<Table, TableError> {
        exports.sort_by(|a, b| a.name.cmp(&b.name));
        let mut by_id: HashMap<u32, (usize, Arc<Decisions>)> = HashMap::new();
        for (index, export) in exports.iter().enumerate() {
            let name = export.display_name();
            // "/" is the name of the whole machine's tree, and a good one.
            if !export.name.starts_with(b"/") {
                return Err(TableError::Name { name });
            }
            if index > 0 && exports[index - 1].name == export.name {
                return Err(TableError::SameName { name });
            }
            if let Some((other, _)) = by_id.insert(export.id, (index, Arc::default())) {
                return Err(TableError::SameId { first: exports[other].display_name(), second: name });
            }
        }
        let traffic = exports.iter().map(|_| Arc::default()).collect();
        Ok(Table { exports, by_id, traffic })
    }

    /// Every export, sorted by name.
    pub fn exports(&self) -> &[Export] {
        &self.exports
    }

    /// The export of this number.
    pub(super) fn get(&self, id: u32) -> Option<&Export> {
        self.by_id.get(&id).and_then(|(index, _)| self.exports.get(*index))
    }

    /// What a caller may do with an export of this table.
    pub(super) fn admit(&self, export: &Export, who: &Who<'_>) -> Result<Grant, Refusal> {
        let Some((_, decisions)) = self.by_id.get(&export.id) else { return Err(Refusal::Client) };
        let decide = || {
            let rule = decisions.rule(&export.rules, who.peer.ip(), who.lookups)?;
            access::grant(rule, who.peer.port(), who.claim, who.manage_gids.then_some(who.lookups))
        };
        match (decide(), who.patience) {
            (Err(Refusal::NotKnownYet), Some(patience)) => {
                let deadline = Instant::now() + patience;
                loop {
                    let seen = who.lookups.answered();
                    match decide() {
                        Err(Refusal::NotKnownYet) if who.lookups.wait_past(seen, deadline) => {}
                        decided => return decided,
                    }
                }
            }
            (decided, _) => decided,
        }
    }

    /// Counts what goes through the export of this number.
    pub(super) fn traffic(&self, id: u32) -> Option<&Traffic> {
        self.by_id.get(&id).and_then(|(index, _)| self.traffic.get(*index)).map(|traffic| &**traffic)
    }

    /// What went through each export.
    pub(super) fn stats(&self) -> Vec<ExportStats> {
        let told = |(export, traffic): (&Export, &Arc<Traffic>)| {
            let (requests, read_bytes, written_bytes) = traffic.load();
            ExportStats { name: export.display_name(), requests, read_bytes, written_bytes }
        };
        self.exports.iter().zip(&self.traffic).map(told).collect()
    }

    /// Exports of the same name go on counting where `before` is.
    fn count_on(&mut self, before: &Table) {
        for (export, traffic) in self.exports.iter().zip(&mut self.traffic) {
            let same = before.exports.iter().position(|other| other.name == export.name);
            if let Some(counted) = same.and_then(|index| before.traffic.get(index)) {
                *traffic = Arc::clone(counted);
            }
        }
    }

    /// Has the name service asked for the hosts that rules name.
    pub(super) fn ask_names(&self, lookups: &Lookups) {
        for rule in self.exports.iter().flat_map(|export| &export.rules) {
            if let Client::Host(name) = &rule.client {
                lookups.is_host(name, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            }
        }
    }

    /// Exports that hold `path`, the deepest first, each with the names that lead from its root to `path`.
    pub(super) fn holding<'t, 'p>(&'t self, path: &'p [u8]) -> Vec<(&'t Export, Vec<&'p [u8]>)> {
        let names: Vec<&[u8]> = components(path).collect();
        let mut found: Vec<(&Export, Vec<&[u8]>)> = self
            .exports
            .iter()
            .filter_map(|export| {
                let depth = components(&export.name).count();
                let inside = components(&export.name).eq(names.iter().take(depth).copied());
                inside.then(|| (export, names.iter().skip(depth).copied().collect()))
            })
            .collect();
        found.sort_by_key(|(_, rest)| rest.len());
        found
    }
}

/// The table in force.
#[derive(Default)]
pub struct Exports {
    now: RwLock<Arc<Table>>,
}

impl Exports {
    /// This table is in force.
    pub fn new(table: Table) -> Exports {
        Exports { now: RwLock::new(Arc::new(table)) }
    }

    /// What is in force now; a call keeps it to its end.
    pub fn snapshot(&self) -> Arc<Table> {
        Arc::clone(&self.now.read())
    }

    /// From the next call on, `table` is in force. Returns what was before.
    pub fn replace(&self, mut table: Table) -> Arc<Table> {
        let mut now = self.now.write();
        table.count_on(&now);
        std::mem::replace(&mut now, Arc::new(table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::exports::{Options, Rule};
    use crate::vfs::MemoryVfs;

    fn export(id: u32, name: &str) -> Export {
        Export::whole(
            id,
            name,
            Arc::new(MemoryVfs::new((0, 0, 0o755), false)),
            vec![Rule::everybody(Options::open())],
        )
    }

    #[test]
    fn two_exports_share_neither_name_nor_number() {
        let error = |exports: Vec<Export>| Table::new(exports).err().map(|error| error.to_string());
        assert!(error(vec![export(1, "/b"), export(2, "/a")]).is_none());
        assert!(error(vec![export(1, "/")]).is_none());
        assert!(error(vec![export(1, "b")]).unwrap().contains("must start with '/'"));
        assert!(error(vec![export(1, "")]).unwrap().contains("must start with '/'"));
        assert_eq!(error(vec![export(1, "/b"), export(2, "/b")]).unwrap(), "/b is exported twice");
        let same_id = error(vec![export(3, "/b"), export(3, "/a")]).unwrap();
        assert!(same_id.starts_with("the exports /a and /b have the same number"), "{same_id}");
    }

    #[test]
    fn the_deepest_export_that_holds_a_path_comes_first() {
        let table = Table::new(vec![export(1, "/a"), export(2, "/a/b/c"), export(3, "/ab")]).unwrap();
        let holding = |path: &'static str| -> Vec<(u32, String)> {
            let found = table.holding(path.as_bytes());
            found
                .into_iter()
                .map(|(export, rest)| (export.id, String::from_utf8(rest.join(&b'/')).unwrap()))
                .collect()
        };
        assert_eq!(holding("/a/b/c/d"), [(2, "d".to_owned()), (1, "b/c/d".to_owned())]);
        assert_eq!(holding("/a//b/./c/"), [(2, String::new()), (1, "b/c".to_owned())]);
        assert_eq!(holding("/abc"), []);
        assert_eq!(holding("/"), []);
    }

    #[test]
    fn an_export_that_stays_goes_on_counting() {
        let exports = Exports::new(Table::new(vec![export(1, "/a"), export(2, "/b")]).unwrap());
        exports.snapshot().traffic(1).unwrap().answered(5, 0);
        exports.snapshot().traffic(2).unwrap().answered(0, 7);
        let before = exports.replace(Table::new(vec![export(9, "/b"), export(3, "/c")]).unwrap());
        before.traffic(2).unwrap().answered(0, 1); // a call that was under way
        let counted: Vec<_> = exports
            .snapshot()
            .stats()
            .into_iter()
            .map(|one| (one.name, one.requests, one.written_bytes))
            .collect();
        assert_eq!(counted, [("/b".to_owned(), 2, 8), ("/c".to_owned(), 0, 0)]);
    }
}
