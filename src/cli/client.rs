//! The other end of the control socket: what `status`, `verify`, `pair` and `ctl` use.

use super::control::{Reply, Request, socket_path};
use crate::observe::NodeStatus;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest line that a node sends (a report with many differences).
const MAX_REPLY: u64 = 256 * 1024 * 1024;
/// A quick question that is not answered by then will not be.
const QUICK: Duration = Duration::from_secs(20);

/// A node that answers.
pub(crate) struct Client {
    directory: PathBuf,
}

impl Client {
    /// The node whose state is in `directory`; `None` if none runs there.
    pub(crate) fn find(directory: &Path) -> Option<Client> {
        let client = Client { directory: directory.to_path_buf() };
        client.connect().ok().map(|_| client)
    }

    fn connect(&self) -> Result<UnixStream> {
        let socket = socket_path(&self.directory)?;
        Ok(UnixStream::connect(&socket.path)?)
    }

    /// What the node says of itself.
    pub(crate) fn status(&self) -> Result<NodeStatus> {
        let value = self.request("status", Value::Null, Some(QUICK), &mut |_| ())?;
        serde_json::from_value(value).context("the node's status is not understood: is it another version?")
    }

    /// Has the node do something; `progress` is called for each step that it tells. Waits as long as it takes.
    pub(crate) fn act(
        &self,
        action: &str,
        arguments: Value,
        progress: &mut dyn FnMut(Value),
    ) -> Result<Value> {
        self.request(action, arguments, None, progress)
    }

    fn request(
        &self,
        action: &str,
        arguments: Value,
        timeout: Option<Duration>,
        progress: &mut dyn FnMut(Value),
    ) -> Result<Value> {
        let mut stream = self
            .connect()
            .with_context(|| format!("no ehpc-store answers in {}", self.directory.display()))?;
        stream.set_read_timeout(timeout)?;
        let mut line = serde_json::to_vec(&Request { action: action.to_owned(), arguments })?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut reader = BufReader::new(stream);
        loop {
            let mut line = Vec::new();
            let read = (&mut reader).take(MAX_REPLY).read_until(b'\n', &mut line);
            let read = read.with_context(|| format!("waiting for the answer to `{action}`"))?;
            if read == 0 {
                bail!("the node ended before `{action}` was done; its log says why");
            }
            let reply = serde_json::from_slice(&line)
                .context("the answer is not understood: is the node another version?")?;
            match reply {
                Reply::Progress(step) => progress(step),
                Reply::Result(value) => return Ok(value),
                Reply::Error(text) => bail!("{text}"),
            }
        }
    }
}
