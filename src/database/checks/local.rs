//! A file of the archive against the server's own, which is read where it is.
//!
//! The one bit that is not part of the log is masked: a file that is in use says so in its header (and goes on saying so
//! for ever when its server was killed).

use super::archive::{ArchiveCheckError, Archived, Found};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Offset of the low byte of the flags of the first event, behind the four bytes of the magic.
const FLAGS_AT: u64 = MAGIC + 17;
/// LOG_EVENT_BINLOG_IN_USE_F.
const IN_USE: u8 = 1;
/// Bytes that are read at once.
const PIECE: usize = 1024 * 1024;
/// A difference is looked for down to a range of this many bytes.
pub(super) const NARROW: u64 = 4096;
const MAGIC: u64 = 4;
/// Bytes of an event's header, and where its size stands in it.
const HEADER: u64 = 19;
const SIZE_AT: usize = 9;
/// Events at the start of a file by which it is known: its format with the time at which it was begun, and what came before.
const KNOWN_BY: usize = 2;
/// Such events are not longer, bytes.
const MAX_HEAD: u64 = 1024 * 1024;

/// Compares the file with that at `path`; `None`: that cannot be read, or is another server's.
pub(super) async fn compare(
    archived: &Archived<'_>,
    path: &Path,
) -> Result<Option<Found>, ArchiveCheckError> {
    let file = archived.file;
    // The length first: a file that is in use grows, and what is in the archive was in the file before.
    let Ok(len) = std::fs::metadata(path).map(|metadata| metadata.len()) else { return Ok(None) };
    let Ok(head) = head(path, len) else { return Ok(None) };
    if equal(archived, path, (0, head.min(file.len))).await? != Some(true) {
        return Ok(None);
    }
    if len < file.len {
        return Ok(Some(Found::Differs(vec![format!(
            "{} bytes on the backup, {len} on the server: the server has lost what it sent",
            file.len
        )])));
    }
    let mut differs = Vec::new();
    if file.closed && len > file.len && !is_torn(path, file.len, len) {
        differs.push(format!(
            "{} bytes on the backup, {len} on the server, which has closed the file",
            file.len
        ));
    }
    match equal(archived, path, (0, file.len)).await? {
        Some(true) => {}
        Some(false) => {
            let (from, to) = narrowed(archived, path).await?;
            differs.push(format!("bytes {from} to {to} are not those of the server's {}", path.display()));
        }
        None => return Ok(Some(Found::Unknown(format!("{} went away while it was read", path.display())))),
    }
    Ok(Some(if differs.is_empty() { Found::Equal } else { Found::Differs(differs) }))
}

/// Where the events end by which a file is known.
fn head(path: &Path, len: u64) -> io::Result<u64> {
    let file = File::open(path)?;
    let mut at = MAGIC;
    for _ in 0..KNOWN_BY {
        if len < at + HEADER {
            break;
        }
        at = at.saturating_add(event_size(&file, at)?.max(HEADER));
    }
    Ok(at.min(len).min(MAX_HEAD))
}

fn event_size(file: &File, at: u64) -> io::Result<u64> {
    let mut header = [0; HEADER as usize];
    file.read_exact_at(&mut header, at)?;
    Ok(header[SIZE_AT..].first_chunk().map_or(0, |bytes| u64::from(u32::from_le_bytes(*bytes))))
}

/// Whether what is behind `from` is not a whole event: a server that was killed leaves one half written, and never
/// sends it.
fn is_torn(path: &Path, from: u64, len: u64) -> bool {
    if len - from < HEADER {
        return true;
    }
    match File::open(path).and_then(|file| event_size(&file, from)) {
        Ok(size) => size > len - from || size == 0,
        Err(_) => false,
    }
}

/// Whether a range is the same on both sides; `None` when the server's file cannot be read (any more).
async fn equal(
    archived: &Archived<'_>,
    path: &Path,
    (from, to): (u64, u64),
) -> Result<Option<bool>, ArchiveCheckError> {
    let (path, stop) = (path.to_owned(), Arc::clone(archived.stop));
    let ours = tokio::task::spawn_blocking(move || hash(&path, from, to, &stop));
    let (theirs, ours) = tokio::join!(archived.hash(from, to), ours);
    let ours = match ours {
        Ok(Ok(hash)) => hash,
        Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {
            return Err(ArchiveCheckError::Stopped);
        }
        Ok(Err(_)) => return Ok(None),
        Err(error) => return Err(ArchiveCheckError::Backup(error.to_string())),
    };
    Ok(Some(theirs?.0 == *ours.as_bytes()))
}

/// Halves a range that differs until it is short.
async fn narrowed(archived: &Archived<'_>, path: &Path) -> Result<(u64, u64), ArchiveCheckError> {
    let (mut from, mut to) = (0, archived.file.len);
    while to - from > NARROW {
        let middle = from + (to - from) / 2;
        match equal(archived, path, (from, middle)).await? {
            Some(true) => from = middle,
            _ => to = middle,
        }
    }
    Ok((from, to))
}

/// BLAKE3 of a range of a file of the server, the bit of its being in use masked.
fn hash(path: &Path, from: u64, to: u64, stop: &AtomicBool) -> io::Result<blake3::Hash> {
    let file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; PIECE];
    let mut at = from;
    while at < to {
        if stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = usize::try_from(to - at).unwrap_or(PIECE).min(PIECE);
        let bytes = &mut piece[..len];
        file.read_exact_at(bytes, at)?;
        if let Some(flags) =
            FLAGS_AT.checked_sub(at).and_then(|offset| bytes.get_mut(usize::try_from(offset).ok()?))
        {
            *flags &= !IN_USE;
        }
        hasher.update(bytes);
        at += len as u64;
    }
    Ok(hasher.finalize())
}
