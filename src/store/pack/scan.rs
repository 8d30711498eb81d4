//! Reading packs from a place on after a start: whole records are visited, a torn tail is cut, damage is an error.

use super::disk::{Disk, PackFile};
use super::log::{Located, Newest};
use super::record::{FILE_HEAD, FileHead, HEAD, Head};
use super::{PackError, PackId, Place, Series};
use std::io;
use std::sync::Arc;

/// Bytes read at once.
const WINDOW: usize = 256 * 1024;

/// Which payloads are read and checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Payloads {
    /// All from the start of the scan.
    All,
    /// Those of the newest pack, which alone may have a torn tail; of sealed ones the headers will do.
    Newest,
}

/// What a scan found.
pub(crate) struct Recovered {
    /// To go on with; `None` = no pack yet.
    pub(crate) newest: Option<Newest>,
    /// Bytes in all packs but the newest.
    pub(crate) sealed_bytes: u64,
    /// The torn tail that was cut: where, and how many bytes.
    pub(crate) cut: Option<(PackId, u64, u64)>,
}

/// Called for every whole record, in order; the stored payload is there if it was asked for.
pub(crate) type Visit<'a, E> = dyn FnMut(&Located, &Head, Option<&[u8]>) -> Result<(), E> + 'a;

/// Scans `series` from `from` on. What was durable at `from` (it is a record's end, or the start) must be there.
pub(crate) fn recover<E: From<PackError>>(
    series: Series,
    disk: &dyn Disk,
    from: Place,
    payloads: Payloads,
    visit: &mut Visit<'_, E>,
) -> Result<Recovered, E> {
    let mut packs = existing(series, disk)?;
    remove_empty_tail(series, disk, &mut packs, from)?;
    let id = |number| PackId { series, number };
    if from.pack > 0 && !packs.iter().any(|(number, _)| *number == from.pack) {
        let reason = "the pack is missing, though the catalog has applied it";
        return Err(PackError::Damaged { pack: id(from.pack), offset: from.offset, reason }.into());
    }
    if let Some(pair) = packs.windows(2).find(|pair| pair[0].0 + 1 != pair[1].0 && pair[0].0 >= from.pack) {
        let reason = "the pack is missing, though there are later ones";
        return Err(PackError::Damaged { pack: id(pair[0].0 + 1), offset: 0, reason }.into());
    }
    let mut recovered = Recovered { newest: None, sealed_bytes: 0, cut: None };
    let last = packs.last().map_or(0, |(number, _)| *number);
    for (number, bytes) in packs {
        if number < from.pack {
            recovered.sealed_bytes += bytes;
            continue;
        }
        let start = if number == from.pack { from.offset.max(FILE_HEAD as u64) } else { FILE_HEAD as u64 };
        let mut walk = Walk::open(disk, id(number))?;
        if walk.len < start {
            let reason = "the pack ends before what the catalog has applied";
            return Err(PackError::Damaged { pack: id(number), offset: walk.len, reason }.into());
        }
        let check = payloads == Payloads::All || number == last;
        let end = walk.visit_all(start, check, visit)?;
        if number < last {
            if end < walk.len {
                let reason = "a record is not what was written";
                return Err(PackError::Damaged { pack: id(number), offset: end, reason }.into());
            }
            recovered.sealed_bytes += walk.len;
            continue;
        }
        if end < walk.len {
            walk.refuse_damage(end)?;
            recovered.cut = Some((id(number), end, walk.len - end));
            walk.cut(end)?;
        }
        walk.make_durable(start.max(walk.last_durable), end)?;
        recovered.newest = Some(Newest { head: walk.head, file: walk.file, len: end, durable: end });
    }
    Ok(recovered)
}

/// Numbers and lengths of the packs, in order.
fn existing(series: Series, disk: &dyn Disk) -> Result<Vec<(u32, u64)>, PackError> {
    let names = disk.list().map_err(|source| PackError::Directory { action: "list it", source })?;
    let mut packs = Vec::new();
    for name in names {
        if let Some(id) = PackId::parse(&name).filter(|id| id.series == series) {
            let failed = |source| PackError::Io { pack: id, action: "open it", source };
            packs.push((id.number, disk.open(&name).and_then(|file| file.len()).map_err(failed)?));
        }
    }
    packs.sort_unstable();
    Ok(packs)
}

/// A pack without records is a creation that was interrupted, or was about to be used: removed, so that the pack
/// before it is the newest again.
fn remove_empty_tail(
    series: Series,
    disk: &dyn Disk,
    packs: &mut Vec<(u32, u64)>,
    from: Place,
) -> Result<(), PackError> {
    let mut removed = false;
    while let Some((number, _)) =
        packs.last().copied().filter(|(number, len)| *len <= FILE_HEAD as u64 && *number > from.pack)
    {
        let name = PackId { series, number }.to_string();
        disk.remove(&name)
            .map_err(|source| PackError::Directory { action: "remove an empty pack", source })?;
        packs.pop();
        removed = true;
    }
    if removed {
        disk.sync_directory().map_err(|source| PackError::Directory { action: "sync it", source })?;
    }
    Ok(())
}

/// One pack being read.
struct Walk {
    head: FileHead,
    file: Arc<dyn PackFile>,
    len: u64,
    window: Vec<u8>,
    window_at: u64,
    /// What the last whole record says was durable before it.
    last_durable: u64,
}

impl Walk {
    fn open(disk: &dyn Disk, id: PackId) -> Result<Walk, PackError> {
        let failed = |source| PackError::Io { pack: id, action: "open it", source };
        let file = disk.open(&id.to_string()).map_err(failed)?;
        let len = file.len().map_err(failed)?;
        let mut bytes = [0; FILE_HEAD];
        file.read_at(&mut bytes, 0).map_err(failed)?;
        let reason = "its header is not that of this pack";
        let head = FileHead::decode(id, &bytes).ok_or(PackError::Damaged { pack: id, offset: 0, reason })?;
        Ok(Walk { head, file, len, window: Vec::new(), window_at: 0, last_durable: 0 })
    }

    /// `len` bytes at `offset`, or fewer at the end of the pack.
    fn bytes(&mut self, offset: u64, len: usize) -> Result<&[u8], PackError> {
        let held = self.window_at..self.window_at + self.window.len() as u64;
        if !(held.contains(&offset) && offset + len as u64 <= held.end) {
            self.window.resize(len.max(WINDOW), 0);
            let read = self.file.read_at(&mut self.window, offset).map_err(|source: io::Error| {
                PackError::Io { pack: self.head.id, action: "read it", source }
            })?;
            self.window.truncate(read);
            self.window_at = offset;
        }
        let from = (offset - self.window_at) as usize;
        let held = &self.window[from..];
        Ok(&held[..len.min(held.len())])
    }

    /// The record at `offset`, if one is there and fits the pack.
    fn record(&mut self, offset: u64) -> Result<Option<Head>, PackError> {
        let (file, len) = (self.head, self.len);
        let bytes = self.bytes(offset, HEAD)?;
        let head = bytes.first_chunk().and_then(|bytes| Head::decode(&file, offset, bytes));
        Ok(head.filter(|head| offset + head.record_len() <= len))
    }

    /// Visits the whole records from `start` on; returns where they end.
    fn visit_all<E: From<PackError>>(
        &mut self,
        start: u64,
        check: bool,
        visit: &mut Visit<'_, E>,
    ) -> Result<u64, E> {
        let mut offset = start;
        while offset < self.len {
            let Some(head) = self.record(offset)? else { break };
            let id = self.head.id;
            let located = Located {
                series: id.series,
                place: Place { pack: id.number, offset },
                stored_len: head.stored_len,
                raw_len: head.raw_len,
                codec: head.codec,
            };
            if check {
                let payload = self.bytes(located.payload(), head.stored_len as usize)?;
                if head.check(payload).is_err() {
                    break;
                }
                visit(&located, &head, Some(payload))?;
            } else {
                visit(&located, &head, None)?;
            }
            self.last_durable = head.durable;
            offset += head.record_len();
        }
        Ok(offset)
    }

    /// What the process before wrote may be in the page cache only, and even count as clean if its fsync failed and it
    /// died of that: it is written again, and synced.
    fn make_durable(&mut self, start: u64, end: u64) -> Result<(), PackError> {
        let (id, mut at) = (self.head.id, start);
        while at < end {
            let len = (end - at).min(WINDOW as u64) as usize;
            let piece = self.bytes(at, len)?.to_vec();
            if piece.is_empty() {
                break;
            }
            self.file.write_at([&piece, &[]], at).map_err(|source| PackError::Io {
                pack: id,
                action: "write its tail again",
                source,
            })?;
            at += piece.len() as u64;
        }
        self.file.sync().map_err(|source| PackError::SyncFailed { pack: id, source })
    }

    /// What does not read at `bad` is a torn tail only if nothing after it was written when it was already durable.
    fn refuse_damage(&mut self, bad: u64) -> Result<(), PackError> {
        let mut offset = bad + 1;
        while offset + HEAD as u64 <= self.len {
            let Some(head) = self.record(offset)? else {
                offset += 1;
                continue;
            };
            if head.durable > bad {
                let reason = "a record is not what was written";
                return Err(PackError::Damaged { pack: self.head.id, offset: bad, reason });
            }
            offset += head.record_len();
        }
        Ok(())
    }

    fn cut(&self, end: u64) -> Result<(), PackError> {
        let failed = |source| PackError::Io { pack: self.head.id, action: "cut its torn tail", source };
        self.file.truncate(end).map_err(failed)
    }
}
