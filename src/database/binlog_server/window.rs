//! The part of a file that is in memory while it is served: whole events, or a piece of one that is larger.

use super::feed::{BLOCK, FileFault};
use super::start::Opened;
use ehpc_proto::binlog::{Event, EventHeader, FileScan};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Reads one file from an event's boundary on.
pub struct Window {
    name: String,
    file: Arc<File>,
    scan: FileScan,
    /// Bytes from `base` on.
    bytes: Vec<u8>,
    base: u64,
}

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// A whole event is in memory.
    Whole,
    /// An event that is larger than the window; its beginning is in memory.
    Large(EventHeader),
    /// Nothing whole: more bytes must be read.
    More,
}

impl Window {
    /// A file from `offset` on.
    pub fn new(opened: &Opened, offset: u64) -> Window {
        Window {
            name: opened.at.name.clone(),
            file: Arc::clone(&opened.file),
            scan: FileScan::resume(offset, &opened.head.format),
            bytes: Vec::new(),
            base: offset,
        }
    }

    /// Where the next event begins.
    pub fn position(&self) -> u64 {
        self.scan.position()
    }

    /// Bytes in memory that were not taken.
    fn ahead(&self) -> &[u8] {
        let taken = usize::try_from(self.scan.position() - self.base).unwrap_or(usize::MAX);
        self.bytes.get(taken..).unwrap_or_default()
    }

    /// Reads more, up to `limit`; on a thread of its own. Gives the window back.
    ///
    /// # Errors
    ///
    /// The disk; a file that ends before `limit`.
    pub async fn fill(mut self, limit: u64) -> Result<Window, FileFault> {
        let name = self.name.clone();
        let failed = move |error| FileFault::Io { name, error };
        let filled = tokio::task::spawn_blocking(move || {
            let keep = self.ahead().len();
            let from = self.bytes.len() - keep;
            self.bytes.drain(..from);
            self.base = self.scan.position();
            let start = self.base + keep as u64;
            let wanted =
                usize::try_from(limit.saturating_sub(start)).unwrap_or(BLOCK).min(BLOCK - keep.min(BLOCK));
            if wanted == 0 {
                // The header at hand, or the one whose pieces are taken, claims bytes that will not come.
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "an event reaches past the end of the file",
                ));
            }
            self.bytes.resize(keep + wanted, 0);
            self.file.read_exact_at(&mut self.bytes[keep..], start).map(|()| self)
        });
        filled.await.unwrap_or_else(|join| Err(io::Error::other(join))).map_err(failed)
    }

    /// What is in memory.
    ///
    /// # Errors
    ///
    /// A header that cannot be.
    pub fn next(&self) -> Result<Next, FileFault> {
        let ahead = self.ahead();
        if ahead.len() < EventHeader::LEN {
            return Ok(Next::More);
        }
        let at = self.position();
        let header = EventHeader::decode(ahead).map_err(|fault| FileFault::Scan {
            name: self.name.clone(),
            fault: ehpc_proto::binlog::ScanFault::Header { at, fault },
        })?;
        Ok(match header.size as usize {
            size if size <= ahead.len() => Next::Whole,
            size if size > BLOCK => Next::Large(header),
            _ => Next::More,
        })
    }

    /// Takes the next event, which is whole in memory: it, and its bytes.
    ///
    /// # Errors
    ///
    /// It is damaged, or does not follow.
    pub fn take(&mut self) -> Result<Option<(Event<'_>, &[u8])>, FileFault> {
        let taken = usize::try_from(self.scan.position() - self.base).unwrap_or(usize::MAX);
        let ahead = self.bytes.get(taken..).unwrap_or_default();
        let mut rest = ahead;
        match self.scan.next(&mut rest) {
            Ok(Some(event)) => Ok(Some((event, &ahead[..ahead.len() - rest.len()]))),
            Ok(None) => Ok(None),
            Err(fault) => Err(FileFault::Scan { name: self.name.clone(), fault }),
        }
    }

    /// The beginning of a large event's body.
    pub fn large(&self, header: EventHeader) -> Event<'_> {
        let body = self.ahead().get(EventHeader::LEN..).unwrap_or_default();
        let body = &body[..body.len().min(ehpc_proto::binlog::scan::KEPT_MAX)];
        Event { start: self.position(), header, body, complete: false }
    }

    /// Takes a piece of a large event: its bytes, and whether they are the last.
    ///
    /// # Errors
    ///
    /// The event is damaged, or does not follow.
    pub fn piece(&mut self) -> Result<(&[u8], bool), FileFault> {
        match self.take_piece() {
            Ok((from, to, ends)) => Ok((&self.bytes[from..to], ends)),
            Err(fault) => Err(FileFault::Scan { name: self.name.clone(), fault }),
        }
    }

    fn take_piece(&mut self) -> Result<(usize, usize, bool), ehpc_proto::binlog::ScanFault> {
        let from =
            usize::try_from(self.scan.position() - self.base).unwrap_or(usize::MAX).min(self.bytes.len());
        let mut rest = &self.bytes[from..];
        let ends = self.scan.next(&mut rest)?.is_some();
        Ok((from, self.bytes.len() - rest.len(), ends))
    }
}
