//! What the backup does from time to time with the database: it seals binary logs, and removes those that nobody needs.

use super::db_keep::Keep;
use crate::database::base::BaseRecord;
use crate::database::base::schedule::kept;
use crate::host;
use crate::observe::words;
use anyhow::Result;
use ehpc_proto::binlog::{GtidState, Xid};
use ehpc_proto::replication::Timestamp;
use ehpc_proto::replication::database::Place;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// So often.
const TIDY: Duration = Duration::from_secs(60);
/// Nothing is removed before: replicas come back first and say how far they are.
const SETTLED: Duration = Duration::from_secs(600);

/// Somebody who still reads binary logs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Reader {
    /// For people.
    pub(super) who: String,
    /// What is before this place is not needed by it.
    pub(super) from: Place,
}

/// All of them, now.
pub(super) type Readers = Arc<dyn Fn() -> Vec<Reader> + Send + Sync>;

impl Keep {
    /// Removes what nobody needs any more: binary logs before the oldest base snapshot that is kept and before what
    /// readers have, once they are older than `archive_keep`, and marks that lie in them. Nothing while a restore
    /// runs. (Base snapshots give their space back at the daemon's start.)
    pub(super) fn prune(&self, dry_run: bool, readers: &dyn Fn() -> Vec<Reader>) -> Result<Value> {
        let nothing = |why: &str| json!({ "text": format!("nothing to remove: {why}"), "files": 0 });
        let Ok(_alone) = self.in_use.try_write() else {
            return Ok(nothing("a restore, a drill or a standby that is built reads the archive"));
        };
        let all = self.bases.list();
        let kept = kept(&all, self.settings.base_keep);
        let Some(oldest) = all.iter().find(|base| kept.first() == Some(&base.number)) else {
            return Ok(nothing("there is no base snapshot yet"));
        };
        let Some(mut before) = self.needed_from(oldest)? else {
            return Ok(nothing("what the oldest base needs is gone"));
        };
        let keep_for = i64::try_from(self.settings.archive_keep.0.as_secs()).unwrap_or(i64::MAX);
        let now = host::now();
        let older_than = Timestamp { seconds: now.seconds.saturating_sub(keep_for), ..now };
        let mut pruned = self.archive.prune(before, older_than, true)?;
        let mut held = String::new();
        if let Some(last) = pruned.files.last() {
            let end = (last.lineage, last.ordinal);
            for reader in
                readers().into_iter().filter(|reader| (reader.from.lineage, reader.from.file) <= end)
            {
                held.push_str(&format!("; {} has not read further", reader.who));
                before = before.min(reader.from);
            }
            pruned = self.archive.prune(before, older_than, dry_run)?;
        }
        if !dry_run && let Some(last) = pruned.files.last() {
            self.marks.forget_before(Place { lineage: last.lineage, file: last.ordinal + 1, offset: 0 })?;
        }
        let verb = if dry_run { "would go" } else { "removed" };
        let (files, bytes) = (pruned.files.len(), words::bytes(pruned.bytes));
        let text =
            format!("{verb}: {files} binary logs, {bytes}; base {} is the oldest kept{held}", oldest.number);
        Ok(json!({ "text": text, "files": files, "bytes": pruned.bytes, "dry_run": dry_run }))
    }

    /// Where the binary log begins that this base needs: its own place, and the groups that prepared the branches which
    /// were open when it was taken.
    fn needed_from(&self, base: &BaseRecord) -> Result<Option<Place>> {
        let files = self.archive.files();
        let of = |file: &str| files.iter().find(|f| f.lineage == base.lineage && f.name == file);
        let Some(file) = of(&base.before.file) else { return Ok(None) };
        let mut from = Place { lineage: file.lineage, file: file.ordinal, offset: base.before.offset };
        for branch in &base.prepared {
            let (gtrid, bqual) = branch.bytes();
            let xid = Xid { format: branch.format, gtrid, bqual };
            if let Some((file, range)) = self.archive.prepare_group(&xid, from)? {
                from = from.min(Place { lineage: file.lineage, file: file.ordinal, offset: range.start });
            }
        }
        Ok(Some(from))
    }

    /// Where a server that has applied `gtid` goes on: in the newest file before whose first transaction it is.
    pub(super) fn goes_on_in(&self, gtid: &str) -> Option<Place> {
        let flavor = self.archive.lineages().last()?.lineage.flavor;
        let state = GtidState::parse(flavor, gtid).ok()?;
        self.archive.files().into_iter().rev().find_map(|file| {
            let start = Place { lineage: file.lineage, file: file.ordinal, offset: 0 };
            let before = self.archive.gtid_at(start).ok()?;
            state.contains_all(&before).then_some(start)
        })
    }
}

/// Keeps what is kept in order, until `stop`.
pub(super) async fn tidy(keep: Keep, readers: Readers, stop: CancellationToken) {
    let started = Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(TIDY) => {}
        }
        let (keep, readers, stop) = (keep.clone(), Arc::clone(&readers), stop.clone());
        let settled = started.elapsed() >= SETTLED;
        let done = tokio::task::spawn_blocking(move || {
            if settled && let Err(error) = keep.prune(false, &*readers) {
                tracing::warn!("removing old binary logs: {error:#}");
            }
            match keep.archive.maintain(&|| stop.is_cancelled()) {
                Ok(found) => found.iter().for_each(|file| {
                    tracing::error!("the archive of the database is damaged: {file}");
                }),
                Err(_) if stop.is_cancelled() => {}
                Err(error) => tracing::warn!("{error}"),
            }
        });
        if done.await.is_err() {
            tracing::error!("tidying the archive ended abnormally");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Database;

    #[test]
    fn nothing_is_removed_while_a_restore_reads() {
        let directory = tempfile::tempdir().unwrap();
        let keep = Keep::open(&Database::at(Vec::new(), directory.path())).unwrap();
        let asked = || keep.prune(false, &|| Vec::new()).unwrap()["text"].to_string();
        let reading = keep.in_use.try_read().unwrap();
        assert!(asked().contains("reads the archive"), "{}", asked());
        drop(reading);
        assert!(asked().contains("no base snapshot"), "{}", asked());
    }
}
