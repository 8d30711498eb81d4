//! What nfs1 serves: the one share of the settings, or what an exports file says; and its reload.

mod build;

pub(super) use build::is_mount;

use crate::change::{DirtySet, Durability, Recording};
use crate::nfs;
use crate::observe::status::NfsExport;
use crate::settings::exports::{self, ExportsFile, Rule};
use crate::settings::{Nfs1, Problems};
use crate::vfs::{LocalOptions, LocalVfs, Vfs};
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

/// Number of the export that is the replicated directory itself, with an exports file and without one: its
/// handles survive the change from the one to the other.
const WHOLE_SHARE: u32 = 1;

/// Where the exports come from, and what was made of them.
pub(super) struct Shares {
    settings: Nfs1,
    /// The replicated directory.
    share: LocalVfs,
    dirty: Arc<DirtySet>,
    durability: Durability,
    /// Directories outside of it that are or were exported, by path.
    others: Mutex<HashMap<PathBuf, Arc<LocalVfs>>>,
    now: Mutex<Served>,
    /// Held while the exports change: what looks at mounts must not bring back what a reload has just replaced.
    changing: Mutex<()>,
}

/// What is served now.
#[derive(Default)]
struct Served {
    file: ExportsFile,
    exports: Vec<NfsExport>,
    /// Exported by the file, and not served: why.
    faults: Vec<String>,
}

/// What a reload has changed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(super) struct Reloaded {
    added: Vec<String>,
    changed: Vec<String>,
    removed: Vec<String>,
    unchanged: usize,
    /// What the file says and probably does not mean.
    warnings: Vec<String>,
    /// Exported by the file, and not served: why.
    not_served: Vec<String>,
}

impl Shares {
    /// `share` is the replicated directory; what is done in it is noted in `dirty`.
    pub(super) fn new(
        settings: &Nfs1,
        share: LocalVfs,
        dirty: Arc<DirtySet>,
        durability: Durability,
    ) -> Shares {
        let settings = settings.clone();
        Shares {
            settings,
            share,
            dirty,
            durability,
            others: Mutex::default(),
            now: Mutex::default(),
            changing: Mutex::default(),
        }
    }

    /// The first table. Blocks on the disk.
    pub(super) fn first(&self) -> anyhow::Result<nfs::Table> {
        let Some(file) = &self.settings.exports else { return Ok(self.whole_share()?) };
        let file = exports::load(file)?;
        for warning in &file.warnings {
            tracing::warn!("{warning}");
        }
        Ok(self.adopt(file)?)
    }

    /// Reads the file again and puts `table` in force. On an error everything stays as it is. Blocks on the disk.
    pub(super) fn reload(&self, table: &nfs::Exports) -> Result<Reloaded, String> {
        let Some(file) = &self.settings.exports else {
            let what = "there is nothing to reload: nfs1 has no exports file";
            return Err(format!("{what}; name one with `exports` in [nfs1], or with --exports FILE"));
        };
        let _turn = self.changing.lock();
        let kept = |problems: &dyn std::fmt::Display| format!("{problems}\nthe exports stay as they were");
        let file = exports::load(file).map_err(|problems| kept(&list(&problems)))?;
        let warnings: Vec<String> = file.warnings.iter().map(ToString::to_string).collect();
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        let new = self.adopt(file).map_err(|error| kept(&error))?;
        let told = compare(&table.snapshot(), &new);
        table.replace(new);
        let not_served = self.faults();
        tracing::info!(added = ?told.added, changed = ?told.changed, removed = ?told.removed, "exports reloaded");
        Ok(Reloaded { warnings, not_served, ..told })
    }

    /// Looks again at what the exports stand on: directories and mounts that came and went. Blocks on the disk.
    pub(super) fn look_again(&self, table: &nfs::Exports) {
        if self.settings.exports.is_none() {
            return;
        }
        let _turn = self.changing.lock();
        let file = self.now.lock().file.clone();
        match self.adopt(file) {
            Ok(new) => {
                let told = compare(&table.snapshot(), &new);
                if told.added.len() + told.changed.len() + told.removed.len() > 0 {
                    table.replace(new);
                    tracing::info!(added = ?told.added, changed = ?told.changed, removed = ?told.removed,
                        "file systems were mounted or unmounted: exports changed");
                }
            }
            Err(error) => tracing::warn!(%error, "the exports cannot follow the changed mounts"),
        }
    }

    /// For `status`: who may use the exports, of which it is told already what went through them.
    pub(super) fn describe(&self, exports: &mut Vec<NfsExport>) {
        let counted = std::mem::replace(exports, self.now.lock().exports.clone());
        for export in exports {
            if let Some(counts) = counted.iter().find(|counts| counts.name == export.name) {
                export.operations = counts.operations;
                export.read_bytes = counts.read_bytes;
                export.written_bytes = counts.written_bytes;
            }
        }
    }

    /// What the file exports and is not served, each with the reason.
    pub(super) fn faults(&self) -> Vec<String> {
        self.now.lock().faults.clone()
    }

    /// Without an exports file: the share, to everybody.
    fn whole_share(&self) -> Result<nfs::Table, nfs::TableError> {
        let options = LocalOptions { sync: self.settings.export.sync, ..LocalOptions::default() };
        let everybody = vec![Rule::everybody(exports::Options::open())];
        let name = &self.settings.export.name;
        let table = nfs::Table::new(vec![nfs::Export::whole(
            WHOLE_SHARE,
            name,
            self.replicated(options),
            everybody,
        )])?;
        let exports = table.exports().iter().map(|export| describe(export, true)).collect();
        *self.now.lock() = Served { exports, ..Served::default() };
        Ok(table)
    }

    /// A table of what the file says.
    fn adopt(&self, file: ExportsFile) -> Result<nfs::Table, nfs::TableError> {
        let built = build::build(self, &file.exported)?;
        *self.others.lock() = built.others;
        for fault in &built.faults {
            tracing::warn!("{fault}");
        }
        *self.now.lock() = Served { file, exports: built.described, faults: built.faults };
        Ok(built.table)
    }

    /// The replicated directory under these options.
    fn replicated(&self, options: LocalOptions) -> Arc<dyn Vfs> {
        Arc::new(Recording::new(self.share.view(options), Arc::clone(&self.dirty), self.durability))
    }
}

/// Problems without the words about a start.
fn list(problems: &Problems) -> String {
    problems.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn describe(export: &nfs::Export, backed_up: bool) -> NfsExport {
    NfsExport {
        name: export.display_name(),
        clients: export.rules.iter().map(ToString::to_string).collect(),
        backed_up,
        implied: export.implied,
        ..NfsExport::default()
    }
}

/// What differs between two tables, by name.
fn compare(before: &nfs::Table, after: &nfs::Table) -> Reloaded {
    let by_name = |table: &nfs::Table| -> BTreeMap<Vec<u8>, nfs::Export> {
        table.exports().iter().map(|export| (export.name.clone(), export.clone())).collect()
    };
    let (before, after) = (by_name(before), by_name(after));
    let mut told = Reloaded::default();
    for (name, new) in &after {
        match before.get(name) {
            None => told.added.push(new.display_name()),
            Some(old) if same(old, new) => told.unchanged += 1,
            Some(_) => told.changed.push(new.display_name()),
        }
    }
    let removed = before.iter().filter(|(name, _)| !after.contains_key(*name));
    told.removed = removed.map(|(_, old)| old.display_name()).collect();
    told
}

/// Do clients see the same?
fn same(old: &nfs::Export, new: &nfs::Export) -> bool {
    let rules = old.rules.len() == new.rules.len()
        && old.rules.iter().zip(&new.rules).all(|(old, new)| old.says_the_same(new));
    rules && (old.id, &old.root, &old.crossings) == (new.id, &new.root, &new.crossings)
}

impl Reloaded {
    /// For people.
    pub(super) fn text(&self) -> String {
        let mut lines = Vec::new();
        for (what, names) in [("added", &self.added), ("changed", &self.changed), ("removed", &self.removed)]
        {
            lines.extend(names.iter().map(|name| format!("{what:<10}{name}")));
        }
        if lines.is_empty() {
            lines.push("nothing has changed".to_owned());
        }
        lines.push(format!("unchanged {}", self.unchanged));
        lines.extend(self.warnings.iter().map(|warning| format!("warning: {warning}")));
        lines.extend(self.not_served.iter().map(|fault| format!("warning: {fault}")));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests;
