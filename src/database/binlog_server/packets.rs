//! Events to packets on a connection: many small ones in one write, one of gigabytes in pieces.

use ehpc_proto::mysql::packet::{MAX_PART, write_packet};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Bytes that are collected before they are written.
const FULL: usize = 256 * 1024;
/// A replica that takes nothing for so long is gone.
const STALLED: Duration = Duration::from_secs(60);

/// The sending half of a connection.
pub struct PacketWriter<W> {
    out: W,
    buffer: Vec<u8>,
    sequence: u8,
    /// Bytes of the open packet that have no part yet.
    unannounced: u64,
    /// Bytes missing of the open part.
    part: usize,
    /// That part has the greatest length: another follows.
    full: bool,
}

impl<W: AsyncWrite + Unpin> PacketWriter<W> {
    /// Nothing sent yet.
    pub fn new(out: W) -> PacketWriter<W> {
        PacketWriter { out, buffer: Vec::new(), sequence: 0, unannounced: 0, part: 0, full: false }
    }

    /// The number of the next packet.
    pub fn set_sequence(&mut self, sequence: u8) {
        self.sequence = sequence;
    }

    /// One whole small packet.
    pub fn packet(&mut self, payload: &[u8]) {
        write_packet(&mut self.buffer, &mut self.sequence, payload);
    }

    /// One event whose bytes are all there.
    pub fn event(&mut self, bytes: &[u8]) {
        self.begin_event(bytes.len() as u64);
        self.more(bytes);
    }

    /// One event of `size` bytes, which follow by `more`.
    pub fn begin_event(&mut self, size: u64) {
        self.unannounced = 1 + size;
        self.begin_part();
        self.more(&[0]); // OK
    }

    /// Bytes of the event that was begun; no more than were announced.
    pub fn more(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.part > 0 {
            let (now, later) = bytes.split_at(bytes.len().min(self.part));
            self.buffer.extend_from_slice(now);
            self.part -= now.len();
            bytes = later;
            if self.part == 0 && self.full {
                self.begin_part(); // an empty one when nothing is left: a full part is never the last
            }
        }
    }

    fn begin_part(&mut self) {
        let length = usize::try_from(self.unannounced).unwrap_or(MAX_PART).min(MAX_PART);
        self.buffer.extend_from_slice(&(length as u32).to_le_bytes()[..3]);
        self.buffer.push(self.sequence);
        self.sequence = self.sequence.wrapping_add(1);
        self.unannounced -= length as u64;
        self.part = length;
        self.full = length == MAX_PART;
    }

    /// Enough is collected to be written.
    pub fn is_full(&self) -> bool {
        self.buffer.len() >= FULL
    }

    /// Writes what is collected.
    ///
    /// # Errors
    ///
    /// The connection is gone, or takes nothing.
    pub async fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let written = tokio::time::timeout(STALLED, self.out.write_all(&self.buffer)).await;
        self.buffer.clear();
        written.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "it takes no more bytes")))
    }
}

#[cfg(test)]
#[path = "packets_tests.rs"]
mod tests;
