//! Where the content of a file goes while it is read: chunks to the outlet, manifest pages also to the shadow.

use super::acks::Acks;
use super::outlet::Outlet;
use super::status::{FileProgress, SenderStatus};
use crate::replication::link::Link;
use crate::replication::overlay::{View, ViewError};
use crate::replication::read::{ContentSink, SinkError};
use crate::store::manifest::BoxError;
use bytes::Bytes;
use ehpc_proto::replication::Hash;

/// Between two looks at what else is going on.
const HOUSEKEEPING_BYTES: u64 = 4 * 1024 * 1024;

/// The status's view of the file that is being read.
pub(crate) struct Progress<'a> {
    status: &'a SenderStatus,
    path: Option<String>,
    total: u64,
    shown: u64,
}

impl<'a> Progress<'a> {
    pub(crate) fn new(status: &'a SenderStatus, path: String, total: u64) -> Progress<'a> {
        Progress { status, path: Some(path), total, shown: 0 }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if self.path.is_none() {
            self.status.update(|report| report.current_file = None);
        }
    }
}

/// The sink of one file.
pub(crate) struct Sink<'a> {
    pub link: &'a mut dyn Link,
    pub outlet: &'a mut Outlet,
    pub view: &'a mut View,
    pub acks: &'a mut Acks,
    /// Nothing is known of the object, or what is known is not trusted: its pages are sent whatever the shadow holds.
    pub anew: bool,
    /// For large files.
    pub progress: Option<Progress<'a>>,
}

impl ContentSink for Sink<'_> {
    fn chunk(&mut self, hash: Hash, bytes: Bytes, of_large: bool) -> Result<(), SinkError> {
        Ok(self.outlet.chunk(self.link, hash, bytes, of_large)?)
    }

    fn page(&mut self, hash: Hash, bytes: Vec<u8>) -> Result<(), SinkError> {
        if !self.anew && self.view.shadow().holds_page(&hash)? {
            return Ok(()); // of acknowledged content
        }
        self.view.shadow().put_page(&hash, &bytes)?;
        Ok(self.outlet.page(self.link, hash, bytes.into())?)
    }

    fn fetch(&mut self, hash: &Hash) -> Result<Vec<u8>, BoxError> {
        self.view.page(hash)
    }

    fn progress(&mut self, done: u64) -> Result<(), SinkError> {
        let Some(progress) = &mut self.progress else { return Ok(()) };
        if done < progress.shown + HOUSEKEEPING_BYTES && done >= progress.shown {
            return Ok(());
        }
        progress.shown = done;
        progress.total = progress.total.max(done);
        let (status, total) = (progress.status, progress.total);
        let path = progress.path.take();
        status.update(|report| match (&mut report.current_file, path) {
            (_, Some(path)) => {
                report.current_file = Some(FileProgress { path, bytes: done, bytes_total: total })
            }
            (Some(current), None) => (current.bytes, current.bytes_total) = (done, total),
            (None, None) => {}
        });
        // A large file must not keep others from learning that they are safe.
        self.acks.poll(self.link, self.view).map_err(|error| match error {
            ViewError::Shadow(error) => SinkError::Shadow(error),
            ViewError::Manifest(error) => SinkError::Manifest(error),
        })?;
        self.view.shadow().commit_if_due()?;
        Ok(())
    }
}
