//! Branches of distributed transactions (XA) on the way through the archive: which of them are prepared at a place, and which
//! the binary log ends and never prepares. Restores and the standby decide by it.
//!
//! MariaDB prepares a branch in its storage engine before it writes that to its binary log: a server that is killed in
//! between knows the branch after its recovery, and its log does not. Whoever ends the branch then writes an end without a
//! beginning (replicas stop there with error 1397). What the branch changed is in no log and in no archive. A restore leaves
//! such an end out, goes on behind it, and tells of the branch.

use super::error::RestoreError;
use super::plan::{Hole, Segment};
use crate::database::archive::{Archive, ArchiveError, Entry, IndexedKind};
use crate::database::base::{BaseRecord, Branch};
use ehpc_proto::binlog::{Flavor, GtidState, Xid};
use ehpc_proto::replication::database::Place;
use std::collections::HashMap;
use std::ops::Range;

/// A group that prepares or ends a branch: its file and its bytes in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Group {
    pub(crate) lineage: u32,
    pub(crate) file: u32,
    pub(crate) bytes: Range<u64>,
    /// Hash of the branch.
    branch: u64,
}

impl Group {
    fn at(&self, offset: u64) -> Place {
        Place { lineage: self.lineage, file: self.file, offset }
    }

    /// Its bytes as a part of the archive.
    pub(super) fn segment(&self) -> Segment {
        Segment { from: self.at(self.bytes.start), to: self.at(self.bytes.end), skip: None }
    }
}

/// The branches that are prepared, as one goes along the archive.
#[derive(Clone, Default)]
struct Branches {
    /// By their hash: who prepared them.
    open: HashMap<u64, Group>,
}

impl Branches {
    fn of(groups: &[Group]) -> Branches {
        Branches { open: groups.iter().map(|group| (group.branch, group.clone())).collect() }
    }

    /// Goes over those groups between two places that `counts`; returned are those that end a branch which is not prepared.
    fn pass(
        &mut self,
        archive: &Archive,
        (from, to): (Place, Place),
        counts: &dyn Fn(&Entry) -> bool,
    ) -> Result<Vec<Group>, ArchiveError> {
        let mut unprepared = Vec::new();
        for file in archive.listed() {
            let (lineage, ordinal) = (file.lineage, file.ordinal);
            if (lineage, ordinal) < (from.lineage, from.file) || (lineage, ordinal) > (to.lineage, to.file) {
                continue;
            }
            if file.len == 0 {
                let reason = archive.known_damage(lineage, ordinal).unwrap_or_default().to_string();
                return Err(ArchiveError::Damaged { name: file.name, reason });
            }
            archive.groups(lineage, ordinal, &mut |entry| {
                let (branch, bytes) = (entry.branch, entry.start..entry.end);
                let group = Group { lineage, file: ordinal, bytes, branch };
                if group.at(entry.start) < from || group.at(entry.end) > to || !counts(entry) {
                    return;
                }
                match entry.kind {
                    IndexedKind::XaPrepare => drop(self.open.insert(branch, group)),
                    IndexedKind::XaEnd if self.open.remove(&branch).is_none() => unprepared.push(group),
                    _ => {}
                }
            })?;
        }
        Ok(unprepared)
    }
}

/// The groups to apply after loading `record`, whose place in the archive is `place`, in order: a base holds no row of a
/// branch that was prepared then, and what is applied after it only ends it. `before`: where the binary log ended when the
/// prepared branches were asked for. And those of these branches that are in no log.
pub(super) fn open_at(
    archive: &Archive,
    record: &BaseRecord,
    before: Place,
    place: Place,
) -> Result<(Vec<Group>, Vec<Xid>), RestoreError> {
    let mut unlogged = Vec::new();
    // What was prepared before that is known by name, the rest is behind it.
    let mut from = before;
    for branch in &record.prepared {
        match archive.prepare_group(&xid(branch), place)? {
            Some((file, bytes)) => {
                from = from.min(Place { lineage: file.lineage, file: file.ordinal, offset: bytes.start });
            }
            // The whole history is here: its server was killed before it logged the prepare.
            None if is_from_the_start(archive)? => unlogged.push(xid(branch)),
            None => {
                return Err(RestoreError::LostBranch { branch: branch.sql(), base: record.number });
            }
        }
    }
    let mut branches = Branches::default();
    branches.pass(archive, (from, place), &|_| true)?;
    let mut groups: Vec<Group> = branches.open.into_values().collect();
    groups.sort_by_key(|group| (group.lineage, group.file, group.bytes.start));
    Ok((groups, unlogged))
}

/// The groups of `segments` that end a branch which nothing prepared, and these branches. `prepared`: by whom those were that
/// are prepared before.
pub(super) fn unprepared(
    archive: &Archive,
    segments: &[Segment],
    prepared: &[Group],
) -> Result<Vec<(Hole, Xid)>, RestoreError> {
    let mut branches = Branches::of(prepared);
    let mut found = Vec::new();
    for segment in segments {
        let skip = segment.skip.as_deref().and_then(|skip| GtidState::parse(Flavor::MariaDb, skip).ok());
        let is_applied = |entry: &Entry| {
            !skip.as_ref().zip(entry.gtid.as_ref()).is_some_and(|(skip, gtid)| skip.contains(gtid))
        };
        for end in branches.pass(archive, (segment.from, segment.to), &is_applied)? {
            let Some(xid) = archive.ended_branch(end.lineage, end.file, end.bytes.clone())? else { continue };
            let Segment { from, to, .. } = end.segment();
            let mut behind = archive.gtid_at(to)?;
            if let Some(skip) = &skip {
                behind.merge(skip);
            }
            found.push((Hole { from, to, behind: behind.to_string() }, xid));
        }
    }
    Ok(found)
}

/// Is the branch, whose hash in the index is `hash`, prepared at `place`, as the binary log tells it?
pub(in crate::database) fn is_prepared(
    archive: &Archive,
    branch: &Xid,
    hash: u64,
    place: Place,
) -> Result<bool, ArchiveError> {
    let Some((file, bytes)) = archive.prepare_group(branch, place)? else { return Ok(false) };
    let from = Place { lineage: file.lineage, file: file.ordinal, offset: bytes.start };
    // Its name may have been used before, for another one.
    let mut branches = Branches::default();
    branches.pass(archive, (from, place), &|entry| entry.branch == hash)?;
    Ok(!branches.open.is_empty())
}

/// Whether nothing happened before the archive's first file, and nothing of it is lost.
fn is_from_the_start(archive: &Archive) -> Result<bool, RestoreError> {
    let files = archive.listed();
    let Some(first) = files.first().filter(|_| files.iter().all(|file| file.len > 0)) else {
        return Ok(false);
    };
    let begin = Place { lineage: first.lineage, file: first.ordinal, offset: 0 };
    Ok(archive.gtid_at(begin)?.is_empty())
}

fn xid(branch: &Branch) -> Xid {
    let (gtrid, bqual) = branch.bytes();
    Xid { format: branch.format, gtrid, bqual }
}
