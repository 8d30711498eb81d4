//! Digests of buckets from both sides, and the drill-down into those that differ.

use super::walk::{Unknown, Walked};
use super::{Verify, VerifyError};
use ehpc_proto::replication::digest::bucket_digest;
use ehpc_proto::replication::message::{Answer, BUCKET, Query, Version};
use ehpc_proto::replication::{Hash, ObjectId};
use std::collections::HashMap;

/// Something that must be looked at again.
pub(super) struct Candidate {
    /// Its number; `None` when the shadow did not know it.
    pub(super) id: Option<ObjectId>,
    /// Where an unknown one was found.
    pub(super) unknown: Option<Unknown>,
    /// Why it is still here, from the last round.
    pub(super) finding: Finding,
}

/// What the last look said.
pub(super) enum Finding {
    /// Not looked at since the first pass.
    Fresh,
    /// Stable on the primary, and not what the backup has.
    Differs(Vec<String>),
    /// It moved while it was compared.
    Moving,
    /// It could not be read.
    Unreadable(String),
}

/// Buckets asked for at once.
const BUCKETS: u32 = 16_384;
/// Objects whose versions are asked for at once: a state is at most some KiB, an answer at most 8 MiB.
pub(super) const VERSIONS: usize = 256;

impl Verify<'_> {
    /// Objects whose digest is not the backup's at `batch`.
    pub(super) fn drill_down(&self, batch: u64, walked: Walked) -> Result<Vec<Candidate>, VerifyError> {
        let mut digests = walked.digests;
        digests.sort_unstable_by_key(|(id, _)| *id);
        digests.dedup_by_key(|(id, _)| *id);
        let mut candidates: Vec<Candidate> = walked
            .unknown
            .into_iter()
            .map(|unknown| Candidate { id: None, unknown: Some(unknown), finding: Finding::Fresh })
            .collect();
        let last = digests.last().map_or(0, |(id, _)| id.0 / BUCKET);
        let mut rest = digests.as_slice();
        let mut first = 0;
        while first <= last {
            let count = BUCKETS.min((last - first + 1) as u32);
            let theirs = self.buckets(batch, first, count)?;
            for bucket in 0..u64::from(count) {
                self.check_stop()?;
                let end = rest.partition_point(|(id, _)| id.0 / BUCKET <= first + bucket);
                let (ours, later) = rest.split_at(end);
                rest = later;
                let all: Option<Vec<(ObjectId, Hash)>> =
                    ours.iter().map(|(id, digest)| Some((*id, (*digest)?))).collect();
                let equal = all
                    .is_some_and(|all| theirs.get(bucket as usize) == Some(&bucket_digest(all.into_iter())));
                if !equal {
                    self.drill_into(batch, ours, &mut candidates)?;
                }
            }
            first += u64::from(count);
        }
        Ok(candidates)
    }

    fn drill_into(
        &self,
        batch: u64,
        ours: &[(ObjectId, Option<Hash>)],
        candidates: &mut Vec<Candidate>,
    ) -> Result<(), VerifyError> {
        let ids: Vec<ObjectId> = ours.iter().map(|(id, _)| *id).collect();
        let versions = self.versions(&ids, batch, batch)?;
        for (id, digest) in ours {
            let known = versions.get(id).map_or(&[][..], Vec::as_slice);
            let equal = digest
                .is_some_and(|digest| known.iter().any(|version| version_digest(version) == Some(digest)));
            if !equal {
                candidates.push(Candidate { id: Some(*id), unknown: None, finding: Finding::Fresh });
            }
        }
        Ok(())
    }

    fn buckets(&self, applied: u64, first: u64, count: u32) -> Result<Vec<Hash>, VerifyError> {
        let mut found = Vec::new();
        let mut failed = None;
        let asked = self.backup.ask(Query::Buckets { applied, first, count }, &mut |answer| match answer {
            Answer::Buckets { digests, .. } => found.extend(digests),
            Answer::Failed { reason } => failed = Some(VerifyError::Backup(reason)),
            _ => failed = Some(VerifyError::Answer("Buckets")),
        });
        asked.map_err(VerifyError::Backup)?;
        failed.map_or(Ok(found), Err)
    }

    /// The backup's versions of each object between two batches.
    pub(super) fn versions(
        &self,
        ids: &[ObjectId],
        from: u64,
        to: u64,
    ) -> Result<HashMap<ObjectId, Vec<Version>>, VerifyError> {
        let mut found = HashMap::with_capacity(ids.len());
        for part in ids.chunks(VERSIONS) {
            self.check_stop()?;
            let mut lists = Vec::new();
            let mut failed = None;
            let query = Query::Versions { objects: part.to_vec(), from, to };
            let asked = self.backup.ask(query, &mut |answer| match answer {
                Answer::Versions(more) => lists.extend(more),
                Answer::Failed { reason } => failed = Some(VerifyError::Backup(reason)),
                _ => failed = Some(VerifyError::Answer("Versions")),
            });
            asked.map_err(VerifyError::Backup)?;
            if let Some(failed) = failed {
                return Err(failed);
            }
            if lists.len() != part.len() {
                return Err(VerifyError::Answer("Versions: another number of objects"));
            }
            found.extend(part.iter().copied().zip(lists));
        }
        Ok(found)
    }
}

/// A version's digest as verify compares it; `None` when the object did not exist.
pub(super) fn version_digest(version: &Version) -> Option<Hash> {
    use ehpc_proto::replication::Kind;
    use ehpc_proto::replication::digest::{listing_digest, object_digest};
    let state = version.state.as_ref()?;
    let listing = (state.kind == Kind::Directory)
        .then(|| listing_digest(version.entries.iter().map(|(name, child)| (name.as_slice(), *child))));
    Some(object_digest(state.digest(), listing))
}
