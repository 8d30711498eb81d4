//! The control socket of a running node: `<state>/control.sock`, for its owner only.
//!
//! One request a connection: a JSON line `{"action": NAME, "arguments": {...}}`; the answer is JSON lines,
//! `{"progress": ...}` any number of times, then `{"result": ...}` or `{"error": TEXT}`.

use crate::observe::Control;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// Longest request line.
const MAX_REQUEST: u64 = 64 * 1024;
/// Requests at once.
const MAX_REQUESTS: usize = 32;
/// A client that does not say what it wants for this long is sent away.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Progress steps that may wait for a slow reader.
const PROGRESS_QUEUE: usize = 16;

/// What a client wants.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    /// Name of an action, or "status".
    pub(crate) action: String,
    /// As the action defines them.
    #[serde(default)]
    pub(crate) arguments: Value,
}

/// One line of the answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    /// So far.
    Progress(Value),
    /// Done.
    Result(Value),
    /// Not done, and why.
    Error(String),
}

/// A socket path that fits sockaddr_un (108 bytes) however long the directory's own path is.
pub(crate) struct SocketPath {
    /// Through the open directory.
    pub(crate) path: PathBuf,
    _directory: File,
}

/// The control socket of the node whose state is in `directory`.
pub(crate) fn socket_path(directory: &Path) -> io::Result<SocketPath> {
    let opened = File::open(directory)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/control.sock", opened.as_raw_fd()));
    Ok(SocketPath { path, _directory: opened })
}

/// Opens the socket; the caller holds the directory's lock, so an old one belongs to nobody.
pub(crate) fn bind(directory: &Path) -> Result<UnixListener> {
    let socket = socket_path(directory).with_context(|| format!("opening {}", directory.display()))?;
    let old = fs::remove_file(&socket.path);
    if let Err(error) = old
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error)
            .with_context(|| format!("removing the old control socket in {}", directory.display()));
    }
    let listener = UnixListener::bind(&socket.path)
        .with_context(|| format!("creating the control socket in {}", directory.display()))?;
    // The directory is private already; the socket says so itself too.
    fs::set_permissions(&socket.path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers until `stop`.
pub(crate) async fn serve(listener: UnixListener, node: Arc<dyn Control>, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(MAX_REQUESTS));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let node = Arc::clone(&node);
                tokio::spawn(async move {
                    if let Err(error) = answer(stream, node.as_ref()).await {
                        tracing::debug!(%error, "a control request ended early");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the control socket cannot accept; trying again");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn answer(stream: UnixStream, node: &dyn Control) -> Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader).take(MAX_REQUEST);
    let mut line = Vec::new();
    tokio::time::timeout(REQUEST_TIMEOUT, reader.read_until(b'\n', &mut line)).await??;
    if line.is_empty() {
        // Somebody only looked whether a node is here.
        return Ok(());
    }
    let request: Request = match serde_json::from_slice(&line) {
        Ok(request) if line.ends_with(b"\n") => request,
        Ok(_) => {
            return send(&mut writer, &Reply::Error("the request does not end with a newline".to_owned()))
                .await;
        }
        Err(_) if line.len() as u64 == MAX_REQUEST => {
            return send(
                &mut writer,
                &Reply::Error(format!("the request is longer than {MAX_REQUEST} bytes")),
            )
            .await;
        }
        Err(error) => {
            return send(&mut writer, &Reply::Error(format!("the request is not understood: {error}"))).await;
        }
    };
    if request.action == "status" {
        return send(&mut writer, &Reply::Result(serde_json::to_value(node.status())?)).await;
    }
    let (progress, mut steps) = mpsc::channel(PROGRESS_QUEUE);
    let mut outcome = node.act(&request.action, request.arguments, progress);
    let mut rest = [0; 1];
    let mut gone = reader.into_inner();
    loop {
        tokio::select! {
            biased;
            Some(step) = steps.recv() => send(&mut writer, &Reply::Progress(step)).await?,
            done = &mut outcome => {
                while let Ok(step) = steps.try_recv() {
                    send(&mut writer, &Reply::Progress(step)).await?;
                }
                let reply = match done {
                    Ok(value) => Reply::Result(value),
                    Err(refusal) => Reply::Error(refusal.to_string()),
                };
                return send(&mut writer, &reply).await;
            }
            // The client has left: dropping the outcome abandons the action.
            read = gone.read(&mut rest) => if read.map_or(true, |n| n == 0) { return Ok(()) },
        }
    }
}

async fn send(writer: &mut (impl AsyncWriteExt + Unpin), reply: &Reply) -> Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    writer.write_all(&line).await?;
    Ok(())
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
