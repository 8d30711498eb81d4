//! Requests that take long are told of, one a second: where the time went, and on what.

use super::handle::{self, Handles};
use super::job::Job;
use super::server::Shared;
use crate::observe::metrics;
use ehpc_proto::nfs3::nfs_fh3;
use std::time::Instant;

/// Counts a call that took longer than `slow_request`, and logs it unless another was logged a moment ago.
pub(super) fn tell(job: &Job, shared: &Shared, ready: Instant) {
    metrics::NFS_SLOW.inc();
    shared.counters.slow.add(1);
    shared.slow.say(|held_back| {
        let (started, done) = job.measured.done.unwrap_or((ready, ready));
        let ms = |from: Instant, to: Instant| {
            u64::try_from(to.saturating_duration_since(from).as_millis()).unwrap_or(u64::MAX)
        };
        let (export, object) = object(job, shared);
        tracing::warn!(
            client = %job.peer,
            procedure = job.target.full_name(),
            export,
            object,
            took_ms = ms(job.received, ready),
            waiting_ms = ms(job.received, started),
            doing_ms = ms(started, done),
            settling_ms = ms(done, ready),
            held_back,
            "a slow NFS request"
        );
    });
}

/// The export, and the object that the call names first: its path, as far as it can be told, else its handle.
fn object(job: &Job, shared: &Shared) -> (String, String) {
    let handle = nfs_fh3 { data: job.object.to_vec() };
    let exports = shared.exports.snapshot();
    let id = handle::claimed_export(&handle.data);
    let Some(export) = id.and_then(|id| exports.get(id)) else { return Default::default() };
    let object = match Handles::new(&shared.options.handle_key, export.id).decode(&handle) {
        Ok(key) => export.vfs.describe(&key).unwrap_or_else(|| format!("{key:?}")),
        Err(status) => format!("{status:?}"),
    };
    (export.display_name(), object)
}
