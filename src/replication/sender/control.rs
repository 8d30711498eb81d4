//! How other threads speak to the sender.

use super::status::SenderStatus;
use crate::change::shadow::ShadowError;
use crate::change::watermark::ShadowNote;
use crossbeam_channel::{Receiver, Sender as ChannelSender};
use ehpc_proto::replication::ObjectId;
use std::sync::Arc;
use tokio::sync::{Notify, oneshot};

/// Faults of the start.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum SenderError {
    #[error(transparent)]
    Shadow(#[from] ShadowError),
    #[error("cannot start the sender's thread: {0}")]
    Thread(std::io::Error),
    #[error("the sender has stopped")]
    Stopped,
}

/// What other threads ask of the sender.
pub(super) enum Request {
    Note(ShadowNote),
    Rebuild,
    /// Answered when everything is written to the shadow.
    Stop(oneshot::Sender<()>),
    /// Answered when everything asked before is written to the shadow.
    Flush(oneshot::Sender<()>),
    /// Answered when these objects are noted, to be shipped whatever the shadow says of them.
    Reship(Vec<ObjectId>, oneshot::Sender<()>),
}

/// How other threads speak to the sender; may be made, and used, before the sender runs.
#[derive(Clone)]
pub struct SenderControl {
    requests: ChannelSender<Request>,
    wake: Arc<Notify>,
    status: Arc<SenderStatus>,
}

/// The other end of a [`SenderControl`].
pub struct SenderSeat {
    pub(super) requests: Receiver<Request>,
    pub(super) wake: Arc<Notify>,
    pub(super) status: Arc<SenderStatus>,
}

impl SenderControl {
    /// A control, and the seat that the sender will take.
    pub fn new() -> (SenderControl, SenderSeat) {
        let (sender, requests) = crossbeam_channel::unbounded();
        let wake = Arc::new(Notify::new());
        let status = Arc::new(SenderStatus::default());
        let control =
            SenderControl { requests: sender, wake: Arc::clone(&wake), status: Arc::clone(&status) };
        (control, SenderSeat { requests, wake, status })
    }

    fn request(&self, request: Request) {
        // A sender that has stopped needs no requests.
        let _ = self.requests.send(request);
        self.wake.notify_one();
    }

    /// Has something recorded in the shadow.
    pub fn note(&self, note: ShadowNote) {
        self.request(Request::Note(note));
    }

    /// Throws the shadow away, rebuilds it from the backup and has the tree scanned.
    pub fn rebuild(&self) {
        self.request(Request::Rebuild);
    }

    /// Resolves when everything noted before is committed to the shadow.
    pub async fn flush(&self) -> Result<(), SenderError> {
        let (done, finished) = oneshot::channel();
        self.request(Request::Flush(done));
        finished.await.map_err(|_| SenderError::Stopped)
    }

    /// Has these objects read and shipped anew, content too, whatever the shadow says of them. Resolves when they are
    /// in the dirty set: a fence after that waits for them.
    pub async fn reship(&self, objects: Vec<ObjectId>) -> Result<(), SenderError> {
        let (done, finished) = oneshot::channel();
        self.request(Request::Reship(objects, done));
        finished.await.map_err(|_| SenderError::Stopped)
    }

    /// Stops the sender (the connector must be told to give up as well); resolves when the shadow is closed.
    pub async fn stop(&self) {
        let (done, finished) = oneshot::channel();
        self.request(Request::Stop(done));
        let _ = finished.await;
    }

    /// What it is doing.
    pub fn status(&self) -> &Arc<SenderStatus> {
        &self.status
    }
}
