//! Branches of distributed transactions that were prepared, and not ended, at a base's place. A base holds none of their
//! rows, and what is applied after it only ends them: their XA PREPARE groups are applied in between.

use super::error::RestoreError;
use crate::database::archive::{Archive, IndexedKind};
use crate::database::base::{BaseRecord, Branch};
use ehpc_proto::binlog::Xid;
use ehpc_proto::replication::database::{ArchivedFile, Place};
use std::collections::HashMap;
use std::ops::Range;

/// A group that prepares a branch: its file and its bytes in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Group {
    pub(crate) lineage: u32,
    pub(crate) file: u32,
    pub(crate) bytes: Range<u64>,
    /// Hash of the branch.
    pub(crate) branch: u64,
}

/// The groups to apply after loading `record`, whose place in the archive is `place`, in order. `before`: where the binary
/// log ended when the prepared branches were asked for.
pub(crate) fn open_at(
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
    let mut open: HashMap<u64, Group> = HashMap::new();
    for file in archive.listed() {
        let ArchivedFile { lineage, ordinal, len, .. } = file;
        if (lineage, ordinal) < (from.lineage, from.file) || (lineage, ordinal) > (place.lineage, place.file)
        {
            continue;
        }
        if len == 0 {
            let reason = archive.known_damage(lineage, ordinal).unwrap_or_default().to_string();
            return Err(RestoreError::Unsound { lineage, ordinal, reason });
        }
        archive.groups(lineage, ordinal, &mut |entry| {
            let at = |offset| Place { lineage, file: ordinal, offset };
            if at(entry.start) < from || at(entry.end) > place {
                return;
            }
            match entry.kind {
                IndexedKind::XaPrepare => {
                    let (bytes, branch) = (entry.start..entry.end, entry.branch);
                    let group = Group { lineage, file: ordinal, bytes, branch };
                    open.insert(entry.branch, group);
                }
                IndexedKind::XaEnd => {
                    open.remove(&entry.branch);
                }
                _ => {}
            }
        })?;
    }
    let mut groups: Vec<Group> = open.into_values().collect();
    groups.sort_by_key(|group| (group.lineage, group.file, group.bytes.start));
    Ok((groups, unlogged))
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
