//! What a standby had done right before it was killed, and not yet noted: rows are noted with the transaction itself, the
//! end of a distributed transaction and a definition only after it. Then its server does the group again, and fails.

use crate::database::archive::{Archive, ArchiveError, Entry, IndexedKind};
use crate::database::restore::branches;
use ehpc_proto::binlog::{GtidState, Xid};
use ehpc_proto::replication::database::Place;

/// So many files are looked through from that one on: those in between hold nothing.
const FILES: usize = 3;
/// "Unknown XID": XA COMMIT or XA ROLLBACK was done.
const UNKNOWN_XID: u32 = 1397;
/// "The XID already exists": XA PREPARE was done.
const XID_EXISTS: u32 = 1440;
/// A database, table, column, index, foreign key, routine, trigger, event, view or account is there already, or gone.
const DONE: [u32; 17] =
    [1007, 1008, 1050, 1051, 1060, 1061, 1091, 1304, 1305, 1359, 1360, 1396, 1537, 1539, 1826, 4090, 4092];

/// Does this error say of a group of that kind that it was applied?
fn says_done(error: u32, kind: IndexedKind) -> bool {
    match kind {
        IndexedKind::XaEnd => error == UNKNOWN_XID,
        IndexedKind::XaPrepare => error == XID_EXISTS,
        IndexedKind::Ddl => DONE.contains(&error),
        _ => false,
    }
}

/// A group of the archive.
struct Next {
    lineage: u32,
    file: u32,
    entry: Entry,
    /// GTID state after it.
    state: GtidState,
}

/// The group that follows `at`: in the newest file that begins at or before it, or in one after that.
fn next(archive: &Archive, at: &GtidState) -> Result<Option<Next>, ArchiveError> {
    let files = archive.files();
    let mut from = files.len();
    for (number, file) in files.iter().enumerate().rev() {
        let begin = Place { lineage: file.lineage, file: file.ordinal, offset: 0 };
        if at.contains_all(&archive.gtid_at(begin)?) {
            from = number;
            break;
        }
    }
    for file in files.iter().skip(from).take(FILES) {
        let (lineage, ordinal) = (file.lineage, file.ordinal);
        let mut state = archive.gtid_at(Place { lineage, file: ordinal, offset: 0 })?;
        let mut found = None;
        archive.groups(lineage, ordinal, &mut |entry| {
            let is_next = found.is_none() && state.contains_all(at) && at.contains_all(&state);
            if let Some(gtid) = &entry.gtid {
                state.add(gtid);
            }
            if is_next {
                found = Some(Next { lineage, file: ordinal, entry: *entry, state: state.clone() });
            }
        })?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The GTID state after the group that follows `at`.
pub(super) fn after(archive: &Archive, at: &GtidState) -> Result<Option<GtidState>, ArchiveError> {
    Ok(next(archive, at)?.map(|next| next.state))
}

/// What is known of the group that comes next.
pub(super) enum Known {
    /// That there is one; the GTID state after it.
    Next(GtidState),
    /// It was applied already; the GTID state after it.
    Applied(GtidState),
    /// It ends a branch that no binary log prepared (`restore::branches`): no replica knows it, nor what it changed. And the
    /// GTID state after it.
    Unprepared(Xid, GtidState),
}

/// What is known of the group that follows `at`, which failed with `error`. `was_killed`: its server was, right there.
pub(super) fn known(
    archive: &Archive,
    error: u32,
    at: &GtidState,
    was_killed: bool,
) -> Result<Option<Known>, ArchiveError> {
    let Some(Next { lineage, file, entry, state }) = next(archive, at)? else { return Ok(None) };
    if error == UNKNOWN_XID
        && entry.kind == IndexedKind::XaEnd
        && let Some(branch) = archive.ended_branch(lineage, file, entry.start..entry.end)?
        && !branches::is_prepared(
            archive,
            &branch,
            entry.branch,
            Place { lineage, file, offset: entry.start },
        )?
    {
        return Ok(Some(Known::Unprepared(branch, state)));
    }
    Ok((was_killed && says_done(error, entry.kind)).then_some(Known::Applied(state)))
}
