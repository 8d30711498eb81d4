//! First pass over the primary: every object that has a name, read from the disk, reduced to a digest.

use super::primary::{Seen, SeenObject};
use super::report::{Report, printable};
use super::{Progress, Verify, VerifyError};
use crate::change::shadow::Row;
use crate::host::ObjectKey;
use ehpc_proto::replication::{Hash, Kind, ObjectId};
use std::collections::HashSet;

/// What the walk leaves behind: 40 bytes an object.
#[derive(Default)]
pub(super) struct Walked {
    /// Digest from the disk of each object, in no order; `None` = no recorded state can match.
    pub(super) digests: Vec<(ObjectId, Option<Hash>)>,
    /// Names without a number: (parent's number, name, key, path).
    pub(super) unknown: Vec<Unknown>,
}

/// A name on the primary whose object the shadow does not know.
pub(super) struct Unknown {
    pub(super) parent: ObjectId,
    pub(super) name: Vec<u8>,
    pub(super) key: ObjectKey,
    pub(super) path: Vec<u8>,
}

/// How often progress is told, objects.
const STEP: u64 = 256;

impl Verify<'_> {
    pub(super) fn walk(&self, report: &mut Report) -> Result<Walked, VerifyError> {
        let total = self.shadow.object_count()?;
        let mut walked = Walked::default();
        let mut linked = HashSet::new();
        let mut stack = vec![(self.tree.root_key().clone(), ObjectId::ROOT, Vec::new())];
        while let Some((key, id, path)) = stack.pop() {
            self.check_stop()?;
            let Some(row) = self.shadow.by_key(&key)? else { continue };
            match self.see(&row, &mut report.bytes)? {
                Seen::Absent => walked.digests.push((id, None)),
                Seen::Unreadable(reason) => report.add_unchecked(&path, reason),
                Seen::Object(seen) => {
                    if seen.state.kind != Kind::Directory && seen.stat.nlink > 1 && !linked.insert(id) {
                        continue;
                    }
                    self.note(report, &row, &seen, &path);
                    walked.digests.push((id, seen.digest()));
                    let at = |name: &[u8]| join(&path, name);
                    for (name, key) in seen.unknown {
                        let path = at(&name);
                        walked.unknown.push(Unknown { parent: id, name, key, path });
                    }
                    stack.extend(seen.children.into_iter().map(|(name, key, child)| (key, child, at(&name))));
                }
            }
            if report.objects().is_multiple_of(STEP) {
                (self.progress)(Progress {
                    objects: report.objects(),
                    objects_total: total,
                    bytes: report.bytes,
                    ..Progress::default()
                });
            }
        }
        Ok(walked)
    }

    fn note(&self, report: &mut Report, row: &Row, seen: &SeenObject, path: &[u8]) {
        match seen.state.kind {
            Kind::File => report.files += 1,
            Kind::Directory => report.directories += 1,
            _ => report.others += 1,
        }
        for name in &seen.mounts {
            report.notes.push(format!(
                "{} is another file system's mount point: not part of the export",
                printable(&join(path, name))
            ));
        }
        if row.fuzzy {
            report.fuzzy += 1;
        }
    }
}

/// `path/name`, or `name` at the root.
pub(super) fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    let mut joined = path.to_vec();
    if !joined.is_empty() {
        joined.push(b'/');
    }
    joined.extend_from_slice(name);
    joined
}
