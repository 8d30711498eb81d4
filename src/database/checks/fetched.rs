//! A file of the archive against the server's own, which the server sends once more: its files are on another host, or are
//! not for us to read. Checksums and positions of all events are checked on the way.

use super::archive::{ArchiveCheckError, Archived, Found};
use crate::database::source::dump::Dump;
use crate::database::source::fault::SourceFault;
use crate::database::sql::Dsn;
use std::sync::atomic::Ordering;

/// A difference is told down to a range of this many bytes.
const PIECE: u64 = 64 * 1024;

/// Compares the file with what the server at `dsn` sends. `listed`: its length as the server tells it.
pub(super) async fn compare(
    archived: &Archived<'_>,
    dsn: &Dsn,
    listed: u64,
) -> Result<Found, ArchiveCheckError> {
    let file = archived.file;
    if listed < file.len {
        return Ok(Found::Differs(vec![format!(
            "{} bytes on the backup, {listed} on the server: the server has lost what it sent",
            file.len
        )]));
    }
    let sent = match Sent::read(archived, dsn).await? {
        Ok(sent) => sent,
        Err(reason) => return Ok(Found::Unknown(format!("the server does not send it: {reason}"))),
    };
    let mut differs = Vec::new();
    if file.closed && listed > file.len {
        match sends_more(dsn, &file.name, file.len).await {
            Ok(false) => {}
            Ok(true) => differs.push(format!(
                "{} bytes on the backup, {listed} on the server, which has closed the file",
                file.len
            )),
            Err(fault) => return Ok(Found::Unknown(format!("the server does not send its end: {fault}"))),
        }
    }
    if archived.hash(0, file.len).await?.0 != *sent.whole.finalize().as_bytes() {
        let (from, to) = sent.differs_at(archived).await?;
        differs.push(format!("bytes {from} to {to} are not those that the server sends"));
    }
    Ok(if differs.is_empty() { Found::Equal } else { Found::Differs(differs) })
}

/// Whether a whole event follows; what a killed server left half written is not one.
async fn sends_more(dsn: &Dsn, name: &str, from: u64) -> Result<bool, SourceFault> {
    let more = match Dump::open(dsn, name, from, None).await {
        Ok(mut dump) => dump.next().await.map(|bytes| bytes.is_some()),
        Err(fault) => Err(fault),
    };
    match more {
        Err(SourceFault::Torn { .. }) => Ok(false),
        more => more,
    }
}

/// BLAKE3 of what was sent: of all, and of its pieces.
struct Sent {
    whole: blake3::Hasher,
    piece: blake3::Hasher,
    pieces: Vec<blake3::Hash>,
    len: u64,
}

impl Sent {
    async fn read(archived: &Archived<'_>, dsn: &Dsn) -> Result<Result<Sent, String>, ArchiveCheckError> {
        let file = archived.file;
        let mut dump = match Dump::open(dsn, &file.name, 0, Some(file.len)).await {
            Ok(dump) => dump,
            Err(fault) => return Ok(Err(fault.to_string())),
        };
        let (whole, piece) = (blake3::Hasher::new(), blake3::Hasher::new());
        let mut sent = Sent { whole, piece, pieces: Vec::new(), len: 0 };
        loop {
            if archived.stop.load(Ordering::Relaxed) {
                return Err(ArchiveCheckError::Stopped);
            }
            match dump.next().await {
                Ok(Some((offset, bytes))) if offset == sent.len => sent.add(&bytes),
                Ok(Some((offset, _))) => {
                    return Ok(Err(format!("bytes of {offset} came where {} is next", sent.len)));
                }
                Ok(None) => break,
                Err(fault) => return Ok(Err(fault.to_string())),
            }
        }
        sent.pieces.push(sent.piece.finalize());
        Ok(Ok(sent))
    }

    fn add(&mut self, mut bytes: &[u8]) {
        self.whole.update(bytes);
        while !bytes.is_empty() {
            let room = PIECE - self.len % PIECE;
            let (now, rest) = bytes.split_at(bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
            self.piece.update(now);
            self.len += now.len() as u64;
            if self.len.is_multiple_of(PIECE) {
                self.pieces.push(self.piece.finalize());
                self.piece.reset();
            }
            bytes = rest;
        }
    }

    /// The first piece that differs.
    async fn differs_at(&self, archived: &Archived<'_>) -> Result<(u64, u64), ArchiveCheckError> {
        let len = archived.file.len;
        for (from, hash) in (0..len).step_by(PIECE as usize).zip(&self.pieces) {
            let to = (from + PIECE).min(len);
            if archived.hash(from, to).await?.0 != *hash.as_bytes() {
                return Ok((from, to));
            }
        }
        Ok((0, len))
    }
}
