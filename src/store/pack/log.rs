//! One series of packs: appending to the newest, reading from all.

use super::disk::{Disk, PackFile};
use super::record::{Content, FILE_HEAD, FileHead, HEAD, Head, decode_blob};
use super::{PackError, PackId, Place, Series};
use crate::store::Options;
use ehpc_proto::replication::Hash;
use ehpc_proto::replication::message::Codec;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;

/// Descriptors kept open for reading.
const OPEN_FILES: usize = 32;

/// What is to be appended; the log adds what only it knows.
#[derive(Clone, Copy)]
pub(crate) struct Item<'a> {
    pub(crate) content: Content,
    pub(crate) codec: Codec,
    pub(crate) raw_len: u32,
    pub(crate) number: u64,
    pub(crate) hash: Hash,
    pub(crate) payload: &'a [u8],
}

/// Where a record is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Located {
    pub(crate) series: Series,
    /// The record's header.
    pub(crate) place: Place,
    pub(crate) stored_len: u32,
    pub(crate) raw_len: u32,
    pub(crate) codec: Codec,
}

impl Located {
    pub(crate) fn pack(&self) -> PackId {
        PackId { series: self.series, number: self.place.pack }
    }

    /// First byte of the payload.
    pub(crate) fn payload(&self) -> u64 {
        self.place.offset + HEAD as u64
    }
}

/// The newest pack.
pub(crate) struct Newest {
    pub(crate) head: FileHead,
    pub(crate) file: Arc<dyn PackFile>,
    /// End of the last whole record.
    pub(crate) len: u64,
    /// Known to be on the disk up to here.
    pub(crate) durable: u64,
}

struct Tail {
    newest: Option<Newest>,
    /// A sync or an undo failed: nothing is appended until [`PackLog::give_up_unsynced`] succeeds.
    broken: bool,
    /// Bytes in all packs but the newest.
    sealed_bytes: u64,
}

/// One series.
pub(crate) struct PackLog {
    series: Series,
    disk: Arc<dyn Disk>,
    /// A pack takes no further record once it is this long.
    limit: u64,
    drop_cached: bool,
    /// Held while syncing and while going on to the next pack: an error of fsync is told only once for a file, so there
    /// must be only one who asks.
    syncing: Mutex<()>,
    tail: Mutex<Tail>,
    open: Mutex<Vec<(u32, Arc<dyn PackFile>)>>,
}

impl PackLog {
    /// Goes on with `newest` as `scan::recover` found it.
    pub(crate) fn new(
        series: Series,
        disk: Arc<dyn Disk>,
        options: Options,
        newest: Option<Newest>,
        sealed_bytes: u64,
    ) -> PackLog {
        let tail = Mutex::new(Tail { newest, broken: false, sealed_bytes });
        let Options { pack_bytes: limit, drop_cached, .. } = options;
        PackLog {
            series,
            disk,
            limit,
            drop_cached,
            syncing: Mutex::new(()),
            tail,
            open: Mutex::new(Vec::new()),
        }
    }

    fn id(&self, number: u32) -> PackId {
        PackId { series: self.series, number }
    }

    /// Appends one record; it is not durable before [`PackLog::sync`].
    pub(crate) fn append(&self, item: &Item<'_>) -> Result<Located, PackError> {
        loop {
            let mut tail = self.tail.lock();
            if tail.broken {
                return Err(PackError::Refused { pack: self.id(number_of(&tail)) });
            }
            match &mut tail.newest {
                Some(newest) if newest.len < self.limit => {
                    let result = self.append_to(newest, item);
                    if let Err((error, undone)) = result {
                        tail.broken |= !undone;
                        return Err(error);
                    }
                    return result.map_err(|(error, _)| error);
                }
                _ => {
                    let full = number_of(&tail);
                    drop(tail);
                    self.next_pack(full)?;
                }
            }
        }
    }

    /// On an error: whether the file again ends with its last whole record.
    fn append_to(&self, newest: &mut Newest, item: &Item<'_>) -> Result<Located, (PackError, bool)> {
        let head = Head {
            content: item.content,
            codec: item.codec,
            raw_len: item.raw_len,
            stored_len: item.payload.len() as u32,
            number: item.number,
            durable: newest.durable,
            hash: item.hash,
        };
        let bytes = head.encode(&newest.head, newest.len);
        if let Err(source) = newest.file.write_at([&bytes, item.payload], newest.len) {
            let undone = newest.file.truncate(newest.len).is_ok();
            return Err((write_error(newest.head.id, "append to it", source), undone));
        }
        let place = Place { pack: newest.head.id.number, offset: newest.len };
        newest.len += head.record_len();
        Ok(Located {
            series: self.series,
            place,
            stored_len: head.stored_len,
            raw_len: head.raw_len,
            codec: head.codec,
        })
    }

    /// Seals pack `full` (0 = there is none yet) and creates the next.
    fn next_pack(&self, full: u32) -> Result<(), PackError> {
        let _syncing = self.syncing.lock();
        let mut tail = self.tail.lock();
        if number_of(&tail) != full {
            return Ok(());
        }
        if tail.broken {
            return Err(PackError::Refused { pack: self.id(full) });
        }
        if let Some(newest) = tail.newest.as_mut().filter(|newest| newest.durable < newest.len) {
            if let Err(source) = newest.file.sync() {
                let error = sync_error(newest.head.id, source);
                tail.broken = true;
                return Err(error);
            }
            newest.durable = newest.len;
            if self.drop_cached {
                newest.file.drop_cached();
            }
        }
        let newest = create(&*self.disk, self.id(full + 1))?;
        tail.sealed_bytes += tail.newest.as_ref().map_or(0, |newest| newest.len);
        tail.newest = Some(newest);
        Ok(())
    }

    /// Everything appended before the call is durable when this returns. After an error call
    /// [`PackLog::give_up_unsynced`]: the kernel may have dropped what it could not write, and say so only once.
    pub(crate) fn sync(&self) -> Result<(), PackError> {
        let _syncing = self.syncing.lock();
        let (file, id, len) = {
            let tail = self.tail.lock();
            match &tail.newest {
                _ if tail.broken => return Err(PackError::Refused { pack: self.id(number_of(&tail)) }),
                Some(newest) if newest.durable < newest.len => {
                    (newest.file.clone(), newest.head.id, newest.len)
                }
                _ => return Ok(()),
            }
        };
        let result = file.sync();
        let mut tail = self.tail.lock();
        match result {
            Ok(()) => {
                if let Some(newest) = &mut tail.newest {
                    newest.durable = newest.durable.max(len);
                }
                drop(tail);
                if self.drop_cached {
                    file.drop_cached();
                }
                Ok(())
            }
            Err(source) => {
                tail.broken = true;
                Err(sync_error(id, source))
            }
        }
    }

    /// Cuts the newest pack back to what is known to be durable: after a failed fsync its cached pages look
    /// written and are not. Returns where it ends now.
    pub(crate) fn give_up_unsynced(&self) -> Result<Place, PackError> {
        // A sync under way would call durable what is cut here.
        let _syncing = self.syncing.lock();
        let mut tail = self.tail.lock();
        let Some(newest) = &mut tail.newest else { return Ok(Place::default()) };
        let failed = |source| PackError::Io { pack: newest.head.id, action: "cut it back", source };
        newest.file.truncate(newest.durable).map_err(failed)?;
        newest.file.sync().map_err(failed)?;
        newest.len = newest.durable;
        let place = Place { pack: newest.head.id.number, offset: newest.len };
        tail.broken = false;
        Ok(place)
    }

    /// A failed sync or undo has to be dealt with first.
    pub(crate) fn is_broken(&self) -> bool {
        self.tail.lock().broken
    }

    /// Where the next record goes.
    #[cfg(test)]
    pub(crate) fn end(&self) -> Place {
        let tail = self.tail.lock();
        tail.newest
            .as_ref()
            .map_or(Place::default(), |newest| Place { pack: newest.head.id.number, offset: newest.len })
    }

    /// Everything before this place is on the disk.
    pub(crate) fn durable(&self) -> Place {
        let tail = self.tail.lock();
        tail.newest
            .as_ref()
            .map_or(Place::default(), |newest| Place { pack: newest.head.id.number, offset: newest.durable })
    }

    /// Bytes appended and not yet synced.
    pub(crate) fn unsynced(&self) -> u64 {
        self.tail.lock().newest.as_ref().map_or(0, |newest| newest.len - newest.durable)
    }

    /// Bytes of the series.
    pub(crate) fn bytes(&self) -> u64 {
        let tail = self.tail.lock();
        tail.sealed_bytes + tail.newest.as_ref().map_or(0, |newest| newest.len)
    }

    fn file(&self, number: u32) -> Result<Arc<dyn PackFile>, PackError> {
        if let Some(newest) =
            self.tail.lock().newest.as_ref().filter(|newest| newest.head.id.number == number)
        {
            return Ok(newest.file.clone());
        }
        let mut open = self.open.lock();
        if let Some(at) = open.iter().position(|(held, _)| *held == number) {
            let found = open.remove(at);
            let file = found.1.clone();
            open.push(found);
            return Ok(file);
        }
        let id = self.id(number);
        let file = self.disk.open(&id.to_string()).map_err(|source| PackError::Io {
            pack: id,
            action: "open it",
            source,
        })?;
        if open.len() == OPEN_FILES {
            open.remove(0);
        }
        open.push((number, file.clone()));
        Ok(file)
    }

    /// The decoded payload of a record, checked against its name.
    pub(crate) fn read(&self, at: &Located, hash: &Hash) -> Result<Vec<u8>, PackError> {
        read_payload(&*self.file(at.place.pack)?, at, hash)
    }
}

/// [`PackLog::read`] without a log.
pub(crate) fn read_located(disk: &dyn Disk, at: &Located, hash: &Hash) -> Result<Vec<u8>, PackError> {
    let failed = |source| PackError::Io { pack: at.pack(), action: "open it", source };
    read_payload(&*disk.open(&at.pack().to_string()).map_err(failed)?, at, hash)
}

fn read_payload(file: &dyn PackFile, at: &Located, hash: &Hash) -> Result<Vec<u8>, PackError> {
    let id = at.pack();
    let mut stored = vec![0; at.stored_len as usize];
    let read = file.read_at(&mut stored, at.payload()).map_err(|source| PackError::Io {
        pack: id,
        action: "read it",
        source,
    })?;
    let damaged = |reason| PackError::Damaged { pack: id, offset: at.place.offset, reason };
    if read != stored.len() {
        return Err(damaged("the pack ends within the record"));
    }
    decode_blob(at.codec, at.raw_len, hash, stored).map_err(damaged)
}

fn number_of(tail: &Tail) -> u32 {
    tail.newest.as_ref().map_or(0, |newest| newest.head.id.number)
}

/// A new pack whose header and name are durable before anything is appended.
pub(super) fn create(disk: &dyn Disk, id: PackId) -> Result<Newest, PackError> {
    let head = FileHead { id, salt: rand::random() };
    let name = id.to_string();
    let make = || -> io::Result<Arc<dyn PackFile>> {
        let file = disk.create(&name)?;
        file.write_at([&head.encode(), &[]], 0)?;
        file.sync()?;
        disk.sync_directory()?;
        Ok(file)
    };
    match make() {
        Ok(file) => Ok(Newest { head, file, len: FILE_HEAD as u64, durable: FILE_HEAD as u64 }),
        Err(source) => {
            // What is left of it would be taken for a torn creation, and would be in the way of the next try.
            let _ = disk.remove(&name);
            Err(write_error(id, "create it", source))
        }
    }
}

fn write_error(pack: PackId, action: &'static str, source: io::Error) -> PackError {
    if is_full(&source) { PackError::NoSpace { pack } } else { PackError::Io { pack, action, source } }
}

fn sync_error(pack: PackId, source: io::Error) -> PackError {
    if is_full(&source) { PackError::NoSpace { pack } } else { PackError::SyncFailed { pack, source } }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
