//! Branches of distributed transactions that the binary log ends and never prepares: MariaDB prepares a branch in the
//! storage engine before it writes it to its log, so that a server killed in between knows the branch after its recovery,
//! and its log does not. Whoever ends the branch then writes an end without a beginning (replicas stop there with error
//! 1397). What the branch changed is in no log and in no archive; the rest of the log goes on from there, on an empty
//! branch of that name, and the restore tells of it.

use super::branches::Group;
use super::error::RestoreError;
use super::plan::Segment;
use crate::database::archive::{Archive, Entry, IndexedKind};
use crate::database::dsn::Dsn;
use crate::database::server::{Client, LoadOptions, Program};
use ehpc_proto::binlog::{Flavor, GtidState, Xid};
use ehpc_proto::replication::database::{ArchivedFile, Place};
use std::collections::HashSet;

/// A replication domain that nobody uses.
const NO_DOMAIN: u32 = u32::MAX;

/// Those that `segments` end. `prepared`: groups that prepared what was open before them.
pub(crate) fn ended(
    archive: &Archive,
    segments: &[Segment],
    prepared: &[Group],
) -> Result<Vec<Xid>, RestoreError> {
    let mut open: HashSet<u64> = prepared.iter().map(|group| group.branch).collect();
    let mut orphans = Vec::new();
    for segment in segments {
        for file in archive.files() {
            if file.lineage != segment.from.lineage
                || !(segment.from.file..=segment.to.file).contains(&file.ordinal)
            {
                continue;
            }
            let skip = segment.skip.as_deref().and_then(|skip| GtidState::parse(Flavor::MariaDb, skip).ok());
            let mut found = Vec::new();
            archive.groups(file.lineage, file.ordinal, &mut |entry| {
                if is_applied(segment, &file, skip.as_ref(), entry) {
                    match entry.kind {
                        IndexedKind::XaPrepare => drop(open.insert(entry.branch)),
                        IndexedKind::XaEnd if !open.remove(&entry.branch) => {
                            found.push(entry.start..entry.end)
                        }
                        _ => {}
                    }
                }
            })?;
            for range in found {
                orphans.extend(archive.ended_branch(file.lineage, file.ordinal, range)?);
            }
        }
    }
    Ok(orphans)
}

fn is_applied(segment: &Segment, file: &ArchivedFile, skip: Option<&GtidState>, entry: &Entry) -> bool {
    let at = |offset| Place { lineage: file.lineage, file: file.ordinal, offset };
    let skipped = skip.zip(entry.gtid.as_ref()).is_some_and(|(skip, gtid)| skip.contains(gtid));
    at(entry.start) >= segment.from && at(entry.end) <= segment.to && !skipped
}

/// Makes them in the target, empty.
pub(crate) fn prepare(program: &Program, dsn: &Dsn, branches: &[Xid]) -> Result<(), RestoreError> {
    for (xid, number) in branches.iter().zip(1..) {
        // A branch that writes nothing is forgotten when its connection ends; and a connection has one at most.
        let row = format!("mysql.gtid_slave_pos WHERE domain_id = {NO_DOMAIN} AND sub_id = {number}");
        let mut client = Client::start(program, dsn, LoadOptions { unlogged: true })?;
        client.write(
            format!(
                "XA START {xid};\nINSERT INTO mysql.gtid_slave_pos VALUES ({NO_DOMAIN}, {number}, 1, 1);\n\
                 DELETE FROM {row};\nXA END {xid};\nXA PREPARE {xid};\n"
            )
            .as_bytes(),
        )?;
        client.finish()?;
    }
    Ok(())
}
