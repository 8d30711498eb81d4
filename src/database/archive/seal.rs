//! `NAME.sealed`: length and BLAKE3 of a file that is complete. Made when the whole file was read and found sound; later
//! a rotten byte is found by it even where the server wrote no checksums.

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

fn seal_name(path: &str) -> String {
    format!("{path}.sealed")
}

/// The seal of a file; `None`: it has none, or a torn one.
pub(super) fn load(disk: &dyn ArchiveDisk, path: &str) -> Option<Seal> {
    let bytes = disk.open(&seal_name(path)).and_then(|file| read_whole(&*file)).ok()?;
    serde_json::from_slice(&bytes).ok().filter(|_| bytes.ends_with(b"\n"))
}

/// Its file and its index have still the lengths that they were sealed with.
pub(super) fn is_sealed(disk: &dyn ArchiveDisk, path: &str) -> bool {
    let length = |name: &str| disk.open(name).and_then(|file| file.len()).ok();
    load(disk, path).is_some_and(|seal| {
        length(path) == Some(seal.len) && length(&format!("{path}.index")) == Some(seal.index)
    })
}

/// Writes the seal of a file that was read whole.
pub(super) fn write(disk: &dyn ArchiveDisk, path: &str, read: &Read) -> io::Result<()> {
    let index = disk.open(&format!("{path}.index"))?.len()?;
    let seal = Seal { len: read.len, blake3: read.hash.to_string(), index };
    let mut text = serde_json::to_vec(&seal).map_err(io::Error::other)?;
    text.push(b'\n');
    let name = seal_name(path);
    let file = match disk.create(&name) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => disk.open(&name)?,
        made => made?,
    };
    file.truncate(0)?;
    file.write_at([&text, &[]], 0)?;
    file.sync()
}

/// A file, read from end to end.
pub(super) struct Read {
    pub(super) len: u64,
    pub(super) hash: Hash,
    /// Where its events stop being sound, and why.
    pub(super) fault: Option<(u64, String)>,
}

/// Reads `len` bytes: every event's checksum, every position, and the hash of all. `each` gets every sound event, and may
/// find it wrong.
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
        let got = file.read_at(&mut buffer[..wanted], at)?;
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
