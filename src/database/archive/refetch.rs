//! A damaged range of a complete file is written anew: the bytes collect beside the file, and take the range's place when
//! all are there and are whole, sound events.

use super::Shared;
use super::disk::ArchiveDisk;
use super::tail::{file_name, read_head};
use crate::store::pack::disk::PackFile;
use ehpc_proto::binlog::FileScan;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;

const READ: usize = 1024 * 1024;
/// Most ranges at once.
const OPEN_MAX: usize = 4;

/// Which range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Wanted {
    pub(super) lineage: u32,
    pub(super) ordinal: u32,
    pub(super) from: u64,
    pub(super) to: u64,
}

struct Open {
    wanted: Wanted,
    path: String,
    beside: String,
    copy: Arc<dyn PackFile>,
    at: u64,
}

pub(super) struct Refetches {
    disk: Arc<dyn ArchiveDisk>,
    shared: Arc<Shared>,
    open: HashMap<u64, Open>,
}

impl Refetches {
    pub(super) fn new(disk: Arc<dyn ArchiveDisk>, shared: Arc<Shared>) -> Refetches {
        Refetches { disk, shared, open: HashMap::new() }
    }

    /// A new connection: ranges that are not complete are dropped.
    pub(super) fn forget(&mut self) {
        for (_, open) in self.open.drain() {
            // Overwritten by the next one, if it stays.
            let _ = self.disk.remove(&open.beside);
        }
    }

    /// Patches for this range follow.
    pub(super) fn begin(&mut self, id: u64, wanted: Wanted) -> Result<(), String> {
        if self.open.len() >= OPEN_MAX {
            return Err("too many ranges are written anew at once".to_owned());
        }
        let Some(file) = self.shared.file(wanted.lineage, wanted.ordinal) else {
            return Err(format!("file {} of lineage {} is not here", wanted.ordinal, wanted.lineage));
        };
        if !file.closed || wanted.to > file.len {
            return Err(format!(
                "{} is {} and has {} bytes: only closed files are written anew",
                file.name,
                if file.closed { "closed" } else { "open" },
                file.len
            ));
        }
        let path = file_name(wanted.lineage, &file.name);
        let beside = format!("{path}.patch");
        let made = match self.disk.create(&beside) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.disk.open(&beside),
            made => made,
        };
        let copy = made.and_then(|copy| copy.truncate(0).map(|()| copy));
        let copy = copy.map_err(|error| format!("cannot write {beside}: {error}"))?;
        self.open.insert(id, Open { wanted, path, beside, copy, at: wanted.from });
        Ok(())
    }

    /// The next bytes; the outcome when it is decided.
    pub(super) fn patch(&mut self, id: u64, offset: u64, bytes: &[u8]) -> Option<Result<(), String>> {
        // One that was refused is told once; its patches may still be on their way.
        let open = self.open.get_mut(&id)?;
        let fits = offset == open.at && offset + bytes.len() as u64 <= open.wanted.to;
        let written = match fits {
            true => open.copy.write_at([bytes, &[]], offset - open.wanted.from).map_err(|e| e.to_string()),
            false => Err(format!("bytes for offset {offset}, expected are those from {}", open.at)),
        };
        open.at += bytes.len() as u64;
        if written.is_ok() && open.at < open.wanted.to {
            return None;
        }
        let open = self.open.remove(&id)?;
        let done = written.and_then(|()| replace(&*self.disk, &open));
        // As in `forget`.
        let _ = self.disk.remove(&open.beside);
        Some(done)
    }
}

/// Checks the copy and writes it over the range.
fn replace(disk: &dyn ArchiveDisk, open: &Open) -> Result<(), String> {
    let Wanted { from, to, .. } = open.wanted;
    let failed = |error: io::Error| format!("{}: {error}", open.path);
    let file = disk.open(&open.path).map_err(failed)?;
    let mut scan = match from {
        0 => FileScan::new(),
        _ => {
            let head = read_head(&*file, from).map_err(failed)?;
            let head = head.ok_or("its format description is damaged: fetch it again from 0")?;
            FileScan::resume(from, &head.format)
        }
    };
    each(&*open.copy, to - from, |_, mut bytes| {
        while scan.next(&mut bytes).map_err(|fault| fault.to_string())?.is_some() {}
        Ok(())
    })?;
    if scan.boundary() != to || scan.position() != to {
        return Err(format!("the range ends at {to}, where no event ends"));
    }
    each(&*open.copy, to - from, |at, bytes| file.write_at([bytes, &[]], from + at).map_err(failed))?;
    file.sync().map_err(failed)
}

fn each(
    file: &dyn PackFile,
    len: u64,
    mut take: impl FnMut(u64, &[u8]) -> Result<(), String>,
) -> Result<(), String> {
    let mut buffer = vec![0; READ];
    let mut at = 0;
    while at < len {
        let wanted = (len - at).min(READ as u64) as usize;
        let read = file.read_at(&mut buffer[..wanted], at).map_err(|error| error.to_string())?;
        if read == 0 {
            return Err("the copy is too short".to_owned());
        }
        take(at, &buffer[..read])?;
        at += read as u64;
    }
    Ok(())
}
