//! Calls that a worker does, and the way back of their replies.

use super::budget::{Budget, Reserved};
use super::job::{Job, Place, Ran};
use super::meters::Traffic;
use super::server::Shared;
use super::workers::Workers;
use ehpc_proto::codec::Encoder;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;

/// A reply that was made elsewhere, and what it holds until it is written.
pub(super) struct Outgoing {
    pub(super) bytes: Vec<u8>,
    pub(super) reserved: Option<Reserved>,
}

/// Waits for memory and for a place in the workers' queue. False: the server is shutting down.
pub(super) async fn submit(
    shared: Arc<Shared>,
    workers: Arc<Workers>,
    budget: Budget,
    (job, record, reserved): (Job, Vec<u8>, Option<Reserved>),
    traffic: Arc<Traffic>,
    finish: UnboundedSender<Outgoing>,
) -> bool {
    let cost = job.cost;
    let unstarted = Unstarted { shared: Arc::clone(&shared), job: Some(job) };
    let reserved = match reserved {
        Some(reserved) => Some(reserved),
        None => budget.reserve(cost).await,
    };
    let work = move || {
        let Some(mut job) = unstarted.take() else { return };
        let mut out = Encoder::with_capacity(512);
        let Ran::Done(settled) = job.run(&shared, &record, &mut out, Place::Worker) else {
            // A worker may wait: nothing blocks there.
            tracing::error!(procedure = job.target.name(), "a worker refused an NFS call");
            return;
        };
        let reply = out.finish();
        let Some(settled) = settled else {
            job.finish(&shared, &traffic, &reply);
            // Fails when the connection is gone: the client asks again and finds the reply in the cache.
            let _ = finish.send(Outgoing { bytes: reply, reserved });
            return;
        };
        let runtime = shared.runtime.clone();
        runtime.spawn(async move {
            let reply = job.settle(&shared, settled, reply).await;
            job.finish(&shared, &traffic, &reply);
            let _ = finish.send(Outgoing { bytes: reply, reserved });
        });
    };
    workers.submit(work).await
}

/// A job that no worker has taken yet. If none ever does, copies of its call may be done.
struct Unstarted {
    shared: Arc<Shared>,
    job: Option<Job>,
}

impl Unstarted {
    fn take(mut self) -> Option<Job> {
        self.job.take()
    }
}

impl Drop for Unstarted {
    fn drop(&mut self) {
        if let Some(job) = &self.job
            && let Some(call) = job.replay
        {
            self.shared.cache.lock(&call).abandon(call, job.peer.port());
        }
    }
}
