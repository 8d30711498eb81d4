//! From a file's bytes to its manifest: holes by SEEK_HOLE, chunks by content, each handed on as it is found.
//!
//! Chunking starts afresh at each data segment. A hole counts from [`LEAST_HOLE`] bytes on; a shorter one is data.
//! After a change only the bytes from the chunk before it are read, until a boundary is one of the old manifest's
//! and lies past the change: from there on nothing can differ.

use super::read::{ContentSink, ReadError, io};
use crate::host::cache::ReadOnce;
use crate::host::{seek_data, seek_hole};
use crate::store::chunker;
use crate::store::manifest::{Builder, Index, ManifestError, decode_root, splice};
use bytes::Bytes;
use ehpc_proto::replication::{Extent, Hash, MAX_CHUNK, Manifest, wire};
use std::collections::HashMap;
use std::ops::Range;
use std::os::fd::BorrowedFd;

/// Shorter holes are read as zeros.
const LEAST_HOLE: u64 = 4096;
/// Bytes read at once.
const BUFFER: usize = 2 * MAX_CHUNK;
/// A stretch of data from this length on is read with the page cache in mind.
const READ_ONCE_FROM: u64 = 16 << 20;
/// Files larger than this are worth asking about their chunks.
const ASK_FROM: u64 = 64 * 1024;

/// A stretch of the file as it is found.
enum Piece {
    /// A chunk at `at`.
    Data { at: u64, bytes: Bytes },
    /// A hole; the visitor may end the scan within it.
    Hole(Range<u64>),
}

/// What the visitor of a [`Piece`] wants.
enum Next {
    Go,
    /// The scan ends here: at the end of the piece, or within a hole.
    StopAt(u64),
}

/// What the pieces are given to.
type Visit<'v> = dyn FnMut(Piece) -> Result<Next, ReadError> + 'v;

/// The manifest of the whole file and its length (shorter than `size` if the file has shrunk). Chunks that `old`
/// has at the same place are not given to the sink. `dense`: it has no holes.
pub(super) fn whole(
    file: BorrowedFd<'_>,
    size: u64,
    dense: bool,
    old: Option<&Manifest>,
    sink: &mut dyn ContentSink,
) -> Result<(Manifest, u64), ReadError> {
    let mut builder = Builder::default();
    let index = old.and_then(|old| Index::open(old, &mut |hash| sink.fetch(hash)).ok());
    let mut held = Held::of(index.as_ref());
    let mut visit = |piece: Piece| {
        match piece {
            Piece::Hole(hole) => builder.push(Extent::Hole { len: hole.end - hole.start })?,
            Piece::Data { at, bytes } => {
                let extent = take_chunk(at, bytes, size > ASK_FROM, &mut held, sink)?;
                builder.push(extent)?;
                for (hash, page) in builder.take_blobs() {
                    sink.page(hash, page)?;
                }
                sink.progress(at + extent.len())?;
            }
        }
        Ok(Next::Go)
    };
    let end = scan(file, 0, size, dense, &mut visit)?;
    let (manifest, pages) = builder.finish()?;
    for (hash, page) in pages {
        give_page(hash, page, sink)?;
    }
    Ok((manifest, end))
}

/// The manifest after a change within `ranges` (sorted, apart), from the one before. `None`: the file ended before
/// `size`, or `old` is not at hand: read it whole.
pub(super) fn ranges(
    file: BorrowedFd<'_>,
    size: u64,
    old: &Manifest,
    ranges: &[Range<u64>],
    sink: &mut dyn ContentSink,
) -> Result<Option<Manifest>, ReadError> {
    let Ok(index) = Index::open(old, &mut |hash| sink.fetch(hash)) else { return Ok(None) };
    let mut edits: Vec<Edit> = Vec::new();
    let mut ranges = ranges.iter().cloned().peekable();
    while let Some(range) = ranges.next() {
        let Some(from) = restart(&index, file, range.start, size, sink)? else { return Ok(None) };
        // Within a hole the edit before may have ended after the hole's start.
        let from = from.max(edits.last().map_or(0, |edit| edit.old.end)).min(size);
        let mut pass = Pass {
            range,
            ranges: &mut ranges,
            held: Held::of(Some(&index)),
            extents: Vec::new(),
            stop: None,
        };
        let end = scan(file, from, size, false, &mut |piece| pass.piece(piece, size, sink))?;
        if pass.stop.is_none() && end < size {
            return Ok(None);
        }
        let old_end = pass.stop.unwrap_or(index.len());
        edits.push(Edit { old: from..old_end, extents: pass.extents });
    }
    apply(old, edits, sink)
}

/// Gives the pieces from `from` (a boundary) to `visit` until it stops or the file ends; returns where it ended.
fn scan(
    file: BorrowedFd<'_>,
    from: u64,
    size: u64,
    dense: bool,
    visit: &mut Visit<'_>,
) -> Result<u64, ReadError> {
    let mut at = from;
    while at < size {
        let segment = if dense { at..size } else { segment(file, at, size)? };
        if segment.start > at {
            match visit(Piece::Hole(at..segment.start))? {
                Next::StopAt(stop) => return Ok(stop),
                Next::Go => at = segment.start,
            }
        }
        match chunks(file, segment.clone(), visit)? {
            Ok(()) => at = segment.end.max(at),
            Err(stop) => return Ok(stop),
        }
    }
    Ok(at)
}

/// The chunks of one data segment. `Err`: stopped there, or the file ended there.
fn chunks(
    file: BorrowedFd<'_>,
    segment: Range<u64>,
    visit: &mut Visit<'_>,
) -> Result<Result<(), u64>, ReadError> {
    let (mut at, mut data) = (segment.start, Bytes::new());
    let mut once =
        (segment.end - segment.start >= READ_ONCE_FROM).then(|| ReadOnce::new(file, segment.clone()));
    while at < segment.end {
        let rest = segment.end - at;
        if let Some(len) = chunker::cut(&data, data.len() as u64 == rest) {
            let bytes = data.split_to(len);
            if let Next::StopAt(stop) = visit(Piece::Data { at, bytes })? {
                return Ok(Err(stop));
            }
            at += len as u64;
            continue;
        }
        if let Some(once) = &mut once {
            once.at(at);
        }
        let Some(longer) = read_on(file, &data, at, rest)? else {
            // Shorter than it was: what is here is its last chunks.
            while let Some(len) = chunker::cut(&data, true) {
                visit(Piece::Data { at, bytes: data.split_to(len) })?;
                at += len as u64;
            }
            return Ok(Err(at));
        };
        data = longer;
    }
    Ok(Ok(()))
}

/// `data`, which lies at `at`, and what follows it, in a new buffer: those who hold slices of the old one keep it.
/// `None`: the file ends after `data`.
fn read_on(file: BorrowedFd<'_>, data: &[u8], at: u64, rest: u64) -> Result<Option<Bytes>, ReadError> {
    let mut buffer = Vec::with_capacity(usize::try_from(rest).unwrap_or(BUFFER).min(BUFFER));
    buffer.extend_from_slice(data);
    let offset = at + data.len() as u64;
    let got = rustix::io::pread(file, rustix::buffer::spare_capacity(&mut buffer), offset);
    let got = io("read it", got.map_err(Into::into))?;
    buffer.truncate(usize::try_from(rest).unwrap_or(usize::MAX)); // its capacity may be larger than asked for
    Ok((got > 0).then(|| buffer.into()))
}

/// Bytes of the old file, and the extents that take their place.
struct Edit {
    old: Range<u64>,
    extents: Vec<Extent>,
}

/// Reading on from the chunk before a change until nothing can differ any more.
struct Pass<'a, 'i, R: Iterator<Item = Range<u64>>> {
    /// The change; grows when the reading reaches the next one.
    range: Range<u64>,
    ranges: &'a mut std::iter::Peekable<R>,
    held: Held<'i>,
    extents: Vec<Extent>,
    /// Where it ended, if before the end of the file.
    stop: Option<u64>,
}

impl<R: Iterator<Item = Range<u64>>> Pass<'_, '_, R> {
    fn piece(&mut self, piece: Piece, size: u64, sink: &mut dyn ContentSink) -> Result<Next, ReadError> {
        let end = match piece {
            Piece::Hole(hole) => {
                self.absorb(hole.end);
                let same_from = hole.start.max(self.range.end);
                let stops = same_from < hole.end && self.held.is_hole(same_from, sink);
                let end = if stops { same_from } else { hole.end };
                if end > hole.start {
                    self.extents.push(Extent::Hole { len: end - hole.start });
                }
                if stops {
                    self.stop = Some(end);
                    return Ok(Next::StopAt(end));
                }
                end
            }
            Piece::Data { at, bytes } => {
                let extent = take_chunk(at, bytes, true, &mut self.held, sink)?;
                self.extents.push(extent);
                at + extent.len()
            }
        };
        self.absorb(end);
        sink.progress(end)?;
        if end >= self.range.end && end < size && self.held.starts_at(end, sink) {
            self.stop = Some(end);
            return Ok(Next::StopAt(end));
        }
        Ok(Next::Go)
    }

    /// Changes that begin at or before `end` are part of this one.
    fn absorb(&mut self, end: u64) {
        while let Some(next) = self.ranges.next_if(|next| next.start <= end) {
            self.range.end = self.range.end.max(next.end);
        }
    }
}

/// A root may be longer than a message.
fn give_page(hash: Hash, bytes: Vec<u8>, sink: &mut dyn ContentSink) -> Result<(), ReadError> {
    if bytes.len() > wire::check::MAX_PAGE {
        return Err(ReadError::TooLarge);
    }
    Ok(sink.page(hash, bytes)?)
}

/// The extent of a chunk; the sink gets it unless the old manifest has it here.
fn take_chunk(
    at: u64,
    mut bytes: Bytes,
    of_large: bool,
    held: &mut Held<'_>,
    sink: &mut dyn ContentSink,
) -> Result<Extent, ReadError> {
    let hash = Hash::of(&bytes);
    let extent = Extent::Data { hash, len: bytes.len() as u32 };
    if !held.has(at, extent, sink) {
        // A slice keeps the whole buffer; here most of that may be as it was.
        if held.index.is_some() {
            bytes = Bytes::copy_from_slice(&bytes);
        }
        sink.chunk(hash, bytes, of_large)?;
    }
    Ok(extent)
}

/// The manifest with all edits made, the last first: it alone may change the length, and the places of the others stay.
fn apply(
    old: &Manifest,
    edits: Vec<Edit>,
    sink: &mut dyn ContentSink,
) -> Result<Option<Manifest>, ReadError> {
    let mut manifest = old.clone();
    let mut made: HashMap<Hash, Vec<u8>> = HashMap::new();
    for edit in edits.into_iter().rev() {
        let mut fetch = |hash: &Hash| match made.get(hash) {
            Some(bytes) => Ok(bytes.clone()),
            None => sink.fetch(hash),
        };
        let (next, blobs) = match splice(&manifest, edit.old, &edit.extents, &mut fetch) {
            Ok(done) => done,
            Err(ManifestError::Range { .. } | ManifestError::Fetch { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        manifest = next;
        made.extend(blobs);
    }
    // Pages of the manifests between are of no use.
    if let Manifest::Paged { root } = &manifest
        && let Some(bytes) = made.remove(root)
    {
        for page in decode_root(root, &bytes)? {
            if let Some(bytes) = made.remove(&page.hash) {
                sink.page(page.hash, bytes)?;
            }
        }
        give_page(*root, bytes, sink)?;
    }
    Ok(Some(manifest))
}

/// The next data at or after `at`, short holes joined. An empty range at `size`: none.
fn segment(file: BorrowedFd<'_>, at: u64, size: u64) -> Result<Range<u64>, ReadError> {
    let data_from = |at| match seek_data(file, at) {
        Ok(data) => Ok(data.unwrap_or(size).min(size)),
        // A file system that knows no holes.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(at),
        Err(error) => io("look for holes in it", Err(error)),
    };
    let mut start = data_from(at)?;
    if start - at < LEAST_HOLE {
        start = at;
    }
    let mut end = start;
    while end < size {
        let from = data_from(end)?;
        end = match seek_hole(file, from) {
            Ok(hole) => hole.unwrap_or(size).min(size),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => size,
            Err(error) => return io("look for holes in it", Err(error)),
        };
        let next = if end < size { data_from(end)? } else { size };
        if next - end >= LEAST_HOLE {
            break;
        }
        // A short hole, or a short one at the end of the file.
        end = next;
    }
    Ok(start..end)
}

/// Where chunking must start again for a change at `offset`: a boundary of the old manifest at or before it.
fn restart(
    index: &Index,
    file: BorrowedFd<'_>,
    offset: u64,
    size: u64,
    sink: &mut dyn ContentSink,
) -> Result<Option<u64>, ReadError> {
    let mut held = Held::of(Some(index));
    // One byte more than `chunker` says: the chunker looks at pairs of bytes, so that the end of a segment (a file cut
    // short, a hole) moves a boundary one byte before it. Past the end: the last extent may grow.
    let before = chunker::restart(offset).saturating_sub(1).min(index.len().saturating_sub(1));
    let Some((start, extent)) = held.at(before, sink) else {
        return Ok(index.is_empty().then_some(0));
    };
    // A hole that does not begin with a hole any more: its data belongs to the segment before it.
    if matches!(extent, Extent::Hole { .. })
        && start > 0
        && start < size
        && segment(file, start, size)?.start == start
    {
        return Ok(held.at(start - 1, sink).map(|(start, _)| start));
    }
    Ok(Some(start))
}

/// The old manifest, one page at a time. What cannot be looked up counts as not there.
struct Held<'a> {
    index: Option<&'a Index>,
    page: Option<(usize, Vec<(u64, Extent)>)>,
}

impl<'a> Held<'a> {
    fn of(index: Option<&'a Index>) -> Held<'a> {
        Held { index, page: None }
    }

    /// The extent that covers `offset`, with its start.
    fn at(&mut self, offset: u64, sink: &mut dyn ContentSink) -> Option<(u64, Extent)> {
        let index = self.index.filter(|index| offset < index.len())?;
        let page = index.page_at(offset);
        if self.page.as_ref().is_none_or(|(number, _)| *number != page) {
            let range = index.page_start(page)..index.page_start(page + 1);
            let extents = index.overlapping(range, &mut |hash| sink.fetch(hash)).unwrap_or_default();
            self.page = Some((page, extents));
        }
        let (_, extents) = self.page.as_ref()?;
        let after = extents.partition_point(|(start, _)| *start <= offset);
        let (start, extent) = extents.get(after.checked_sub(1)?)?;
        (offset < start + extent.len()).then_some((*start, *extent))
    }

    /// Is this very extent there?
    fn has(&mut self, start: u64, extent: Extent, sink: &mut dyn ContentSink) -> bool {
        self.at(start, sink) == Some((start, extent))
    }

    /// Does an extent start at `offset`?
    fn starts_at(&mut self, offset: u64, sink: &mut dyn ContentSink) -> bool {
        self.at(offset, sink).is_some_and(|(start, _)| start == offset)
    }

    /// Is `offset` in a hole?
    fn is_hole(&mut self, offset: u64, sink: &mut dyn ContentSink) -> bool {
        matches!(self.at(offset, sink), Some((_, Extent::Hole { .. })))
    }
}

#[cfg(test)]
pub(super) use tests::manifest_of_file;

#[cfg(test)]
#[path = "read_content_tests.rs"]
mod tests;
