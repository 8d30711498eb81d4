//! Proof that the backup equals the primary (invariant 10: verify never lies).
//!
//! 1. A fence: everything that happened before is on the backup, at batch `b`.
//! 2. The real tree is walked and read; every object's digest is taken from the disk, its content compared by hash
//!    with the manifest that the shadow holds. With `read_data` the backup meanwhile re-reads its mirror and packs.
//! 3. Digests of buckets of objects are compared with the catalog's; differing buckets are drilled down.
//! 4. What differs is read again between two fences, at most three times: a state read at time t is equal if it
//!    matches the backup's version at any batch between a fence before the read and a fence after it. What still
//!    moves is listed as unchecked, never as different.
//!
//! An object that only the backup has is found through the listing of the directory that holds its name there.

mod compare;
mod content;
mod judge;
mod primary;
mod report;
mod walk;

#[cfg(test)]
mod tests;

use compare::Candidate;
pub use report::{Difference, Report, Side, Unchecked, Verdict};

use crate::change::shadow::{ShadowError, ShadowReader};
use crate::host::{ObjectKey, Tree};
use ehpc_proto::replication::message::{Answer, Query, ReadProgress};
use ehpc_proto::replication::{Hash, ObjectId};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Rounds in which a difference must persist.
pub const ROUNDS: u32 = 3;

/// What a person asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// The backup re-reads its mirror and its live chunks; without it its recorded hashes stand for its side.
    pub read_data: bool,
    /// Differences are shipped again, damage on the backup is mended, and everything is verified once more.
    pub repair: bool,
}

/// Why it could not be done. Nothing is said about equality then.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum VerifyError {
    #[error("no fence: {0}; verify needs a backup that answers (`ehpc-store status` shows the link)")]
    Fence(String),
    #[error("the backup did not answer: {0}")]
    Backup(String),
    #[error("the backup's answer does not fit the question ({0}): the two sides run different versions")]
    Answer(&'static str),
    #[error("the shadow index cannot be read: {0}")]
    Shadow(#[from] ShadowError),
    #[error("the export cannot be read at {path:?}: {source}")]
    Tree { path: String, source: std::io::Error },
    #[error("stopped before it was finished")]
    Stopped,
}

/// Questions to the backup; `cli` connects it to the replication link. Blocks.
pub trait Backup: Send + Sync {
    /// Asks; `part` gets each part of the answer. The error says why there is none.
    fn ask(&self, query: Query, part: &mut dyn FnMut(Answer)) -> Result<(), String>;
}

/// What verify needs of the primary's own machinery; `cli` connects it. Blocks.
pub trait Primary: Send + Sync {
    /// A fence: everything before this call is acknowledged and committed to the shadow. Returns the last acknowledged batch.
    fn fence(&self) -> Result<u64, String>;
    /// Ships these objects anew, content too, whatever the shadow believes of them. (Returns at once; a fence waits for it.)
    fn reship(&self, objects: &[ObjectId], unknown: &[ObjectKey]);
}

/// Where it stands, for a progress bar.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs)]
pub struct Progress {
    /// Objects of the primary read so far.
    pub objects: u64,
    /// Objects expected.
    pub objects_total: u64,
    pub bytes: u64,
    /// Objects of the mirror that the backup has re-read so far, and how many there are.
    pub backup_objects: u64,
    pub backup_total: u64,
    /// 0 = first pass, then the round.
    pub round: u32,
    /// Objects that this round looks at.
    pub candidates: u64,
}

/// One verification.
pub struct Verify<'a> {
    /// The export.
    pub tree: &'a Tree,
    /// The shadow index.
    pub shadow: &'a ShadowReader,
    /// The primary's fence and sender.
    pub primary: &'a dyn Primary,
    /// The backup.
    pub backup: &'a dyn Backup,
    /// Told now and then where it stands.
    pub progress: &'a (dyn Fn(Progress) + Sync),
    /// Set from outside to stop early.
    pub stop: &'a AtomicBool,
}

impl Verify<'_> {
    /// Runs to the end; blocks.
    pub fn run(&self, options: Options) -> Result<Report, VerifyError> {
        let first = self.pass(options)?;
        if !options.repair || first.verdict == Verdict::Equal {
            return Ok(first);
        }
        self.repair(&first)?;
        let mut second = self.pass(options)?;
        second.repaired = first.differences;
        Ok(second)
    }

    fn pass(&self, options: Options) -> Result<Report, VerifyError> {
        let start = Instant::now();
        let batch = self.primary.fence().map_err(VerifyError::Fence)?;
        let mut report = Report::new(batch, options.read_data);
        let damage = std::thread::scope(|scope| {
            let reading = options.read_data.then(|| scope.spawn(|| self.read_backup(batch)));
            let compared = self.compare(batch, &mut report);
            let damage = match reading.map(|thread| thread.join()) {
                None => Ok(Default::default()),
                Some(Ok(damage)) => damage,
                Some(Err(_)) => Err(VerifyError::Backup("its reader ended abnormally".to_owned())),
            };
            compared?;
            damage
        })?;
        report.add_damage(damage);
        report.finish(start.elapsed());
        Ok(report)
    }

    /// First pass and rounds: the primary's disk against the backup's catalog.
    fn compare(&self, batch: u64, report: &mut Report) -> Result<(), VerifyError> {
        let walked = self.walk(report)?;
        let mut candidates = self.drill_down(batch, walked)?;
        for round in 1..=ROUNDS {
            if candidates.is_empty() {
                break;
            }
            candidates = self.round(round, candidates)?;
        }
        for candidate in candidates {
            let path = self.path_of(&candidate)?;
            report.add_candidate(candidate, &path);
        }
        Ok(())
    }

    fn read_backup(&self, batch: u64) -> Result<BackupDamage, VerifyError> {
        let mut found = BackupDamage::default();
        let mut failed = None;
        let query = Query::ReadData { applied: batch };
        let asked = self.backup.ask(query, &mut |answer| match answer {
            Answer::ReadData { progress, damage, unchecked } => {
                found.progress = progress;
                found.damage.extend(damage);
                found.unchecked.extend(unchecked);
                (self.progress)(Progress {
                    backup_objects: progress.objects,
                    backup_total: progress.objects_total,
                    ..Progress::default()
                });
            }
            Answer::Failed { reason } => failed = Some(VerifyError::Backup(reason)),
            _ => failed = Some(VerifyError::Answer("ReadData")),
        });
        asked.map_err(VerifyError::Backup)?;
        failed.map_or(Ok(found), Err)
    }

    fn repair(&self, report: &Report) -> Result<(), VerifyError> {
        let objects: Vec<ObjectId> =
            report.differences.iter().filter_map(|difference| difference.object).collect();
        let mut resend: Vec<ObjectId> = report
            .differences
            .iter()
            .filter(|difference| difference.side == Side::Primary)
            .filter_map(|difference| difference.object)
            .collect();
        for part in objects.chunks(4096) {
            let mut failed = None;
            let asked =
                self.backup.ask(Query::Repair { objects: part.to_vec() }, &mut |answer| match answer {
                    Answer::Repaired { resend: more } => resend.extend(more),
                    Answer::Failed { reason } => failed = Some(VerifyError::Backup(reason)),
                    _ => failed = Some(VerifyError::Answer("Repair")),
                });
            asked.map_err(VerifyError::Backup)?;
            if let Some(failed) = failed {
                return Err(failed);
            }
        }
        let unknown: Vec<ObjectKey> = report.unknown_keys();
        self.primary.reship(&resend, &unknown);
        self.primary.fence().map_err(VerifyError::Fence)?;
        Ok(())
    }

    fn path_of(&self, candidate: &Candidate) -> Result<Vec<u8>, VerifyError> {
        if let Some(unknown) = &candidate.unknown {
            return Ok(unknown.path.clone());
        }
        let Some(id) = candidate.id else { return Ok(Vec::new()) };
        Ok(self
            .shadow
            .path_of(id)?
            .unwrap_or_else(|| format!("(object {} without a name)", id.0).into_bytes()))
    }

    fn check_stop(&self) -> Result<(), VerifyError> {
        if self.stop.load(Ordering::Relaxed) { Err(VerifyError::Stopped) } else { Ok(()) }
    }

    /// A manifest page: from the shadow, else from the backup.
    fn page(&self, hash: &Hash) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
        if let Some(page) = self.shadow.page(hash)? {
            return Ok(page);
        }
        let mut page = None;
        self.backup.ask(Query::Blobs(vec![*hash]), &mut |answer| {
            if let Answer::Blobs(mut blobs) = answer {
                page = blobs.pop().flatten();
            }
        })?;
        page.ok_or_else(|| format!("neither side holds manifest page {hash}").into())
    }
}

/// What the backup found on its own disk.
#[derive(Default)]
struct BackupDamage {
    progress: ReadProgress,
    damage: Vec<ehpc_proto::replication::message::Damage>,
    unchecked: Vec<ehpc_proto::replication::message::Damage>,
}
