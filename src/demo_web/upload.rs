//! A file on its way into the share: written under a name of its own, made durable, then given its real name, so that
//! nobody ever reads half of it.

use super::share::{Fault, PARTIAL, Share, TRANSFER};
use nfs3_client::nfs3_types::nfs3::{nfs_fh3, writeverf3};
use std::sync::Arc;

/// Longest name (NAME_MAX of Linux file systems).
const MAX_NAME: usize = 255;

/// The name under which an uploaded file is kept: what a browser sends, less any directories before it.
pub(super) fn safe_name(sent: &str) -> Result<String, Fault> {
    let name = sent.rsplit(['/', '\\']).next().unwrap_or_default().trim();
    let bad =
        |why: &str| Err(Fault::Name(format!("the file cannot be kept as `{}`: {why}", name.escape_debug())));
    if name.is_empty() || name == "." || name == ".." {
        return bad("it has no name");
    }
    if name.len() > MAX_NAME {
        return bad("its name is longer than 255 bytes");
    }
    if name.chars().any(char::is_control) {
        return bad("its name has control characters");
    }
    if name.starts_with(PARTIAL) {
        return bad("names of this form are used for uploads under way");
    }
    Ok(name.to_owned())
}

/// An upload under way. Dropped before [`Upload::finish`], it removes what it has written.
pub(super) struct Upload {
    share: Arc<Share>,
    partial: String,
    file: nfs_fh3,
    buffer: Vec<u8>,
    written: u64,
    verifier: Option<writeverf3>,
    finished: bool,
}

impl Upload {
    /// Creates the file that is written to.
    pub(super) async fn begin(share: &Arc<Share>) -> Result<Upload, Fault> {
        let partial = format!("{PARTIAL}{:032x}", rand::random::<u128>());
        let file = share.create(&partial).await?;
        Ok(Upload {
            share: Arc::clone(share),
            partial,
            file,
            buffer: Vec::new(),
            written: 0,
            verifier: None,
            finished: false,
        })
    }

    /// Bytes received so far.
    pub(super) fn len(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Adds bytes.
    pub(super) async fn push(&mut self, mut bytes: &[u8]) -> Result<(), Fault> {
        while !bytes.is_empty() {
            let room = TRANSFER - self.buffer.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() == TRANSFER {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Makes it durable and visible as `name`, in place of a file that had this name.
    pub(super) async fn finish(mut self, name: &str) -> Result<u64, Fault> {
        self.flush().await?;
        let verifier = self.share.commit(&self.file).await?;
        if self.verifier.is_some_and(|written| written != verifier) {
            return Err(Fault::Restarted(name.to_owned()));
        }
        self.share.rename(&self.partial, name).await?;
        self.finished = true;
        Ok(self.written)
    }

    async fn flush(&mut self) -> Result<(), Fault> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let verifier = self.share.write(&self.file, self.written, &self.buffer).await?;
        if self.verifier.is_some_and(|before| before != verifier) {
            return Err(Fault::Restarted("the file".to_owned()));
        }
        self.verifier = Some(verifier);
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let (share, partial) = (Arc::clone(&self.share), std::mem::take(&mut self.partial));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = share.remove(&partial).await {
                    tracing::warn!(%error, file = partial, "an incomplete upload could not be removed");
                }
            });
        }
    }
}
