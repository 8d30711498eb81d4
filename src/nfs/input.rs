//! Records as they come in on one connection.
//!
//! Reads go to a buffer that all connections of a thread share; what is left of it when a connection's turn is over is
//! kept here, and so is a record that has arrived in part.

use bytes::BufMut;
use ehpc_proto::record::{Assembler, RecordError};
use std::borrow::Cow;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::time::Instant;

/// A fragment that lacks more than this is read straight into its record.
const DIRECT: usize = 16 * 1024;

/// Why nothing more can be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("the connection ended in the middle of a record")]
    Truncated,
    #[error("a record took longer than {0:?} to arrive")]
    Stalled(Duration),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What a read brought.
pub(super) enum Read {
    /// So many bytes in the shared buffer.
    Bytes(usize),
    /// More of a large record.
    Part,
    /// The rest of a large record.
    Record(Vec<u8>),
    /// The client closed between two records.
    End,
}

/// See the module.
#[derive(Default)]
pub(super) struct Input {
    assembler: Assembler,
    rest: Vec<u8>,
    start: usize,
    /// By when the record that has begun must be complete.
    read_by: Option<Instant>,
}

impl Input {
    /// The next record from the front of `bytes`, if it is complete.
    pub(super) fn record<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Cow<'a, [u8]>>, RecordError> {
        let record = self.assembler.feed_borrowed(bytes)?;
        if record.is_some() {
            self.read_by = None;
        }
        Ok(record)
    }

    /// Bytes that the record being read will occupy.
    pub(super) fn announced(&self) -> usize {
        self.assembler.announced()
    }

    /// What was left of an earlier read, from [`Input::rest_start`] on. To be put back.
    pub(super) fn take_rest(&mut self) -> Option<Vec<u8>> {
        (!self.rest.is_empty()).then(|| std::mem::take(&mut self.rest))
    }

    /// Something is left of an earlier read.
    pub(super) fn has_rest(&self) -> bool {
        !self.rest.is_empty()
    }

    /// See [`Input::take_rest`].
    pub(super) fn rest_start(&self) -> usize {
        self.start
    }

    /// `used` bytes more of it are done with.
    pub(super) fn put_rest(&mut self, rest: Vec<u8>, used: usize) {
        self.start += used;
        if self.start < rest.len() {
            self.rest = rest;
        } else {
            self.start = 0;
        }
    }

    /// These bytes of the shared buffer have not been dealt with.
    pub(super) fn keep_rest(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.rest = bytes.to_vec();
            self.start = 0;
        }
    }

    /// By when more must arrive.
    pub(super) fn read_by(&self) -> Option<Instant> {
        self.read_by
    }

    /// It is our own doing that nothing is read: no time runs.
    pub(super) fn not_waiting(&mut self) {
        self.read_by = None;
    }

    /// Reads once: into `buffer`, or straight into a large record. A record that has begun has `stall` to arrive.
    pub(super) fn poll_read(
        &mut self,
        mut stream: Pin<&mut (impl AsyncRead + Unpin)>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        stall: Duration,
    ) -> Poll<Result<Read, ReadError>> {
        let read = match self.assembler.body().filter(|body| body.missing > DIRECT) {
            Some(body) => {
                let mut into = body.record.limit(body.missing);
                let reading = stream.read_buf(&mut into);
                pin!(reading).poll(cx).map_ok(|read| (read, true))
            }
            None => {
                let mut into = ReadBuf::new(buffer);
                stream.poll_read(cx, &mut into).map_ok(|()| (into.filled().len(), false))
            }
        };
        if read.is_pending() && !self.assembler.is_between_records() {
            self.read_by.get_or_insert_with(|| Instant::now() + stall);
        }
        let (read, direct) = ready!(read)?;
        if read == 0 {
            let between = self.assembler.is_between_records();
            return Poll::Ready(if between { Ok(Read::End) } else { Err(ReadError::Truncated) });
        }
        if !direct {
            return Poll::Ready(Ok(Read::Bytes(read)));
        }
        Poll::Ready(Ok(match self.assembler.take_complete() {
            Some(record) => {
                self.read_by = None;
                Read::Record(record)
            }
            None => Read::Part,
        }))
    }
}
