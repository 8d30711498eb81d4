//! `NAME.sealed`: length and BLAKE3 of a file that is complete. Made when the whole file was read and found sound; later
//! a rotten byte is found by it even where the server wrote no checksums.
//!
//! Once it is there, only the server's own bytes, fetched again, may say otherwise: what else differs from it is damage.
//! A newer seal is a line behind the older one, so that a power cut leaves one of them; the last whole line counts.

use super::disk::ArchiveDisk;
use super::lineage::read_whole;
use crate::store::pack::disk::PackFile;
use ehpc_proto::binlog::{Event, FileScan};
use ehpc_proto::replication::Hash;
use serde::{Deserialize, Serialize};
use std::io;

const READ: usize = 1024 * 1024;

/// What was true when the file was sealed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Seal {
    pub(super) len: u64,
    pub(super) blake3: String,
    /// Bytes of its index.
    pub(super) index: u64,
}

pub(super) fn seal_name(path: &str) -> String {
    format!("{path}.sealed")
}

/// The seal of a file; `None`: it has none, or a torn one.
pub(super) fn load(disk: &dyn ArchiveDisk, path: &str) -> Option<Seal> {
    let bytes = disk.open(&seal_name(path)).and_then(|file| read_whole(&*file)).ok()?;
    newest(&bytes).map(|(seal, _)| seal)
}

/// The last whole line, and where it ends.
fn newest(bytes: &[u8]) -> Option<(Seal, u64)> {
    let mut end = 0;
    let lines = bytes.split_inclusive(|&byte| byte == b'\n').map(|line| {
        end += line.len() as u64;
        (line, end)
    });
    let seals = lines.filter(|(line, _)| line.ends_with(b"\n"));
    seals.filter_map(|(line, end)| Some((serde_json::from_slice(line).ok()?, end))).last()
}

/// In what the file that was read differs from its seal, if it has one and does.
pub(super) fn contradiction(disk: &dyn ArchiveDisk, path: &str, read: &Read) -> Option<String> {
    let seal = load(disk, path)?;
    if seal.len != read.len {
        return Some(other_length(&seal, read.len));
    }
    (seal.blake3 != read.hash.to_string()).then(|| "its bytes are not those that were sealed".to_owned())
}

pub(super) fn other_length(seal: &Seal, len: u64) -> String {
    format!("it has {len} bytes, and had {} when it was sealed", seal.len)
}

/// Its file and its index have still the lengths that they were sealed with.
pub(super) fn is_sealed(disk: &dyn ArchiveDisk, path: &str) -> bool {
    let length = |name: &str| disk.open(name).and_then(|file| file.len()).ok();
    load(disk, path).is_some_and(|seal| {
        length(path) == Some(seal.len) && length(&format!("{path}.index")) == Some(seal.index)
    })
}

/// Seals a file that was read whole.
pub(super) fn write(disk: &dyn ArchiveDisk, path: &str, read: &Read) -> io::Result<()> {
    let index = disk.open(&format!("{path}.index"))?.len()?;
    let seal = Seal { len: read.len, blake3: read.hash.to_string(), index };
    let mut text = serde_json::to_vec(&seal).map_err(io::Error::other)?;
    text.push(b'\n');
    let name = seal_name(path);
    let (file, fresh) = match disk.open(&name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => (disk.create(&name)?, true),
        opened => (opened?, false),
    };
    let end = newest(&read_whole(&*file)?).map_or(0, |(_, end)| end);
    if file.len()? > end {
        file.truncate(end)?;
    }
    file.write_at([&text, &[]], end)?;
    file.sync()?;
    match path.split_once('/').filter(|_| fresh) {
        Some((folder, _)) => disk.sync_folder(folder),
        None => Ok(()),
    }
}

/// A file, read from end to end.
pub(super) struct Read {
    pub(super) len: u64,
    pub(super) hash: Hash,
    /// Where its events stop being sound, or it cannot be read any more, and why.
    pub(super) fault: Option<(u64, String)>,
}

/// Reads `len` bytes: every event's checksum, every position, and the hash of all. `each` gets every sound event, and may
/// find it wrong. An error is one of `each`, or `stop`.
pub(super) fn read(
    file: &dyn PackFile,
    len: u64,
    stop: &dyn Fn() -> bool,
    each: &mut dyn FnMut(&Event<'_>) -> io::Result<Result<(), String>>,
) -> io::Result<Read> {
    let (mut scan, mut hasher) = (FileScan::new(), blake3::Hasher::new());
    let mut buffer = vec![0; READ];
    let (mut at, mut fault) = (0, None);
    while at < len {
        if stop() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let wanted = (len - at).min(READ as u64) as usize;
        let got = match file.read_at(&mut buffer[..wanted], at) {
            Ok(got) => got,
            Err(error) => {
                fault.get_or_insert((at, format!("it cannot be read: {error}")));
                break;
            }
        };
        if got == 0 {
            fault.get_or_insert((at, format!("it ends after {at} of {len} bytes")));
            break;
        }
        hasher.update(&buffer[..got]);
        let mut rest = &buffer[..got];
        while fault.is_none() {
            match scan.next(&mut rest) {
                Ok(Some(event)) => {
                    let start = event.start;
                    if let Err(reason) = each(&event)? {
                        fault = Some((start, reason));
                    }
                }
                Ok(None) => break,
                Err(found) => fault = Some((scan.boundary(), found.to_string())),
            }
        }
        at += got as u64;
    }
    if fault.is_none() && !scan.is_at_boundary() {
        fault = Some((scan.boundary(), "its last event is cut".to_owned()));
    }
    Ok(Read { len: at, hash: Hash(*hasher.finalize().as_bytes()), fault })
}
