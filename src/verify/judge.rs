//! Rounds: what differed is read again between two fences, and judged.

use super::compare::{Candidate, Finding, version_digest};
use super::primary::{Seen, SeenObject};
use super::report::printable;
use super::walk::Unknown;
use super::{Progress, Verify, VerifyError};
use crate::host::{self, Tree};
use ehpc_proto::replication::message::Version;
use ehpc_proto::replication::{ObjectId, ObjectState, Timestamp};
use std::os::fd::AsFd;

/// A candidate after its look in this round.
struct Looked {
    candidate: Candidate,
    seen: Option<Seen>,
}

impl Verify<'_> {
    /// Looks at every candidate between two fences; returns those that are not equal.
    pub(super) fn round(
        &self,
        round: u32,
        candidates: Vec<Candidate>,
    ) -> Result<Vec<Candidate>, VerifyError> {
        let total = candidates.len() as u64;
        let began = host::coarse_now();
        let from = self.primary.fence().map_err(VerifyError::Fence)?;
        let mut bytes = 0;
        let mut looked = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            self.check_stop()?;
            looked.push(self.look(candidate, &mut bytes)?);
            (self.progress)(Progress { round, candidates: total, bytes, ..Progress::default() });
        }
        let to = self.primary.fence().map_err(VerifyError::Fence)?;
        let ids: Vec<ObjectId> = looked.iter().filter_map(|looked| looked.candidate.id).collect();
        let versions = self.versions(&ids, from, to)?;
        let mut still = Vec::new();
        for Looked { mut candidate, seen } in looked {
            let known = candidate.id.and_then(|id| versions.get(&id)).map_or(&[][..], Vec::as_slice);
            let finding = match (&seen, &candidate.unknown) {
                (Some(seen), _) => judge(seen, known, began),
                (None, Some(unknown)) => self.judge_unknown(unknown, began),
                (None, None) => None,
            };
            if let Some(finding) = finding {
                candidate.finding = finding;
                still.push(candidate);
            }
        }
        Ok(still)
    }

    fn look(&self, mut candidate: Candidate, bytes: &mut u64) -> Result<Looked, VerifyError> {
        if let Some(unknown) = &candidate.unknown
            && let Some(id) = self.shadow.id_of(&unknown.key)?
        {
            candidate.id = Some(id);
            candidate.unknown = None;
        }
        let row = match candidate.id {
            Some(id) => self.shadow.by_id(id)?,
            None => None,
        };
        let seen = match row {
            Some(row) => Some(self.see(&row, bytes)?),
            // The shadow forgot it: it is gone, and its directory's listing tells whether the backup agrees.
            None => candidate.id.map(|_| Seen::Absent),
        };
        Ok(Looked { candidate, seen })
    }

    /// A name that still has no number after a fence.
    fn judge_unknown(&self, unknown: &Unknown, began: Timestamp) -> Option<Finding> {
        let row = self.shadow.by_id(unknown.parent).ok().flatten()?;
        let directory = self.tree.open_read(&row.key).ok()?;
        let found = self.tree.lookup(directory.as_fd(), &unknown.name).ok().flatten()?;
        if found.key != unknown.key {
            return None;
        }
        let parent = Tree::stat(directory.as_fd()).ok()?;
        if found.stat.ctime >= began || parent.ctime >= began {
            return Some(Finding::Moving);
        }
        Some(Finding::Differs(vec!["is not on the backup".to_owned()]))
    }
}

/// `None` = equal to one of the versions (or gone: then the listing of its directory decides).
fn judge(seen: &Seen, versions: &[Version], began: Timestamp) -> Option<Finding> {
    match seen {
        Seen::Absent => None,
        Seen::Unreadable(reason) => Some(Finding::Unreadable(reason.clone())),
        Seen::Object(seen) => {
            if let Some(digest) = seen.digest()
                && versions.iter().any(|version| version_digest(version) == Some(digest))
            {
                return None;
            }
            if seen.moved || seen.stat.ctime >= began {
                return Some(Finding::Moving);
            }
            Some(Finding::Differs(reasons(seen, versions.last())))
        }
    }
}

/// In words: what the primary has and the backup has not.
fn reasons(seen: &SeenObject, version: Option<&Version>) -> Vec<String> {
    let Some(version) = version else { return vec!["is not on the backup".to_owned()] };
    let Some(theirs) = &version.state else { return vec!["is not on the backup any more".to_owned()] };
    let ours = &seen.state;
    let mut reasons = Vec::new();
    attribute_reasons(ours, theirs, &mut reasons);
    if let Some(at) = seen.content_differs_at {
        reasons.push(format!("content differs from byte {at} on"));
    } else if ours.content != theirs.content {
        reasons.push("content differs: the backup records other chunks".to_owned());
    }
    if let Some(listing) = &seen.listing {
        listing_reasons(seen, listing, version, &mut reasons);
    }
    if reasons.is_empty() {
        reasons.push("digest differs".to_owned());
    }
    reasons
}

fn attribute_reasons(ours: &ObjectState, theirs: &ObjectState, reasons: &mut Vec<String>) {
    let mut compare = |what: &str, here: String, there: String| {
        if here != there {
            reasons.push(format!("{what}: primary {here}, backup {there}"));
        }
    };
    compare("type", format!("{:?}", ours.kind), format!("{:?}", theirs.kind));
    compare("mode", format!("{:04o}", ours.mode), format!("{:04o}", theirs.mode));
    compare("owner", ours.uid.to_string(), theirs.uid.to_string());
    compare("group", ours.gid.to_string(), theirs.gid.to_string());
    compare("size", ours.size.to_string(), theirs.size.to_string());
    let time = |t: Timestamp| format!("{}.{:09}", t.seconds, t.nanos);
    compare("mtime", time(ours.mtime), time(theirs.mtime));
    compare("device", format!("{:?}", ours.rdev), format!("{:?}", theirs.rdev));
    compare("target", printable(&ours.target), printable(&theirs.target));
    let names = |state: &ObjectState| {
        let list: Vec<String> =
            state.xattrs.iter().map(|x| format!("{}={}", printable(&x.name), printable(&x.value))).collect();
        format!("[{}]", list.join(", "))
    };
    compare("extended attributes", names(ours), names(theirs));
}

fn listing_reasons(
    seen: &SeenObject,
    ours: &[(Vec<u8>, ObjectId)],
    version: &Version,
    reasons: &mut Vec<String>,
) {
    let has = |list: &[(Vec<u8>, ObjectId)], entry: &(Vec<u8>, ObjectId)| list.binary_search(entry).is_ok();
    for entry in ours.iter().filter(|entry| !has(&version.entries, entry)) {
        reasons
            .push(format!("name {} is not on the backup, or is another object there", printable(&entry.0)));
    }
    for entry in version.entries.iter().filter(|entry| !has(ours, entry)) {
        if !ours.iter().any(|(name, _)| *name == entry.0) {
            reasons.push(format!("name {} is on the backup only", printable(&entry.0)));
        }
    }
    for (name, _) in &seen.unknown {
        reasons.push(format!("name {} is on the primary only", printable(name)));
    }
}
