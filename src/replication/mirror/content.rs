//! Content of a file: all of it, what differs between two manifests, or given ranges. At most one chunk and
//! one manifest page are in memory.

use super::MirrorError;
use super::disk::Disk;
use super::view::ContentSource;
use crate::store::manifest::{Index, for_each_difference};
use ehpc_proto::replication::{Extent, Hash, Manifest, ObjectId};
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;

/// From this length on, a chunk that lies uncompressed in a pack is copied as it is; its name is not checked on the way.
const COPY_FROM: u32 = 16 * 1024;

const EVERYTHING: Range<u64> = 0..u64::MAX;

/// Which bytes have to be written.
pub(super) enum Patch<'a> {
    /// None.
    Nothing,
    /// The file is new and empty.
    Fresh,
    /// Whatever the file holds now.
    All,
    /// What differs from this manifest.
    From(&'a Manifest),
    /// These, merged and in order.
    Ranges(Vec<Range<u64>>),
}

/// Writes to one file.
pub(super) struct Writer<'a> {
    pub(super) disk: &'a mut Disk,
    pub(super) content: &'a dyn ContentSource,
    pub(super) object: ObjectId,
    pub(super) fd: BorrowedFd<'a>,
    pub(super) written: u64,
    /// End of the furthest byte written.
    end: u64,
}

impl<'a> Writer<'a> {
    pub(super) fn new(
        disk: &'a mut Disk,
        content: &'a dyn ContentSource,
        object: ObjectId,
        fd: BorrowedFd<'a>,
    ) -> Writer<'a> {
        disk.begin_content();
        Writer { disk, content, object, fd, written: 0, end: 0 }
    }

    /// Brings the content to `manifest`; `size_now` is the file's size before, `size` the one it shall have.
    pub(super) fn write(
        &mut self,
        manifest: &Manifest,
        patch: &Patch<'_>,
        size_now: u64,
        size: u64,
    ) -> Result<(), MirrorError> {
        if size < size_now {
            self.truncate(size)?;
        }
        let content = self.content;
        let mut fetch = |hash: &Hash| content.blob(hash);
        match patch {
            Patch::Nothing => {}
            Patch::Fresh => self.ranges(manifest, std::slice::from_ref(&EVERYTHING), true)?,
            Patch::All => self.ranges(manifest, std::slice::from_ref(&EVERYTHING), false)?,
            Patch::From(old) => {
                for_each_difference(old, manifest, &mut fetch, &mut |at, extent| {
                    self.extent(at, extent, false)
                })?;
            }
            Patch::Ranges(ranges) => self.ranges(manifest, ranges, false)?,
        }
        let now = size_now.min(size).max(self.end);
        if now != size {
            self.truncate(size)?;
        }
        Ok(())
    }

    fn truncate(&mut self, size: u64) -> Result<(), MirrorError> {
        let result = self.disk.truncate(self.fd, size);
        result.map_err(|source| self.fault("set the size of", source))
    }

    fn fault(&self, what: &'static str, source: io::Error) -> MirrorError {
        MirrorError::Io { what, path: format!("object {}", self.object.0), source }
    }

    fn ranges(&mut self, manifest: &Manifest, ranges: &[Range<u64>], fresh: bool) -> Result<(), MirrorError> {
        if let Manifest::Inline(extents) = manifest {
            return self.page(0, extents, ranges, fresh);
        }
        let content = self.content;
        let mut fetch = |hash: &Hash| content.blob(hash);
        let index = Index::open(manifest, &mut fetch)?;
        for page in 0..index.page_count() {
            let (start, end) = (index.page_start(page), index.page_start(page + 1));
            if overlaps(ranges, start, end) {
                let extents = index.page(page, &mut fetch)?;
                self.page(start, &extents, ranges, fresh)?;
            }
        }
        Ok(())
    }

    fn page(
        &mut self,
        start: u64,
        extents: &[Extent],
        ranges: &[Range<u64>],
        fresh: bool,
    ) -> Result<(), MirrorError> {
        let mut at = start;
        for extent in extents {
            let end = at + extent.len();
            if overlaps(ranges, at, end) {
                self.extent(at, *extent, fresh)?;
            }
            at = end;
        }
        Ok(())
    }

    fn extent(&mut self, at: u64, extent: Extent, fresh: bool) -> Result<(), MirrorError> {
        match extent {
            Extent::Data { hash, len } => self.data(at, hash, len),
            Extent::Hole { .. } if fresh => Ok(()),
            Extent::Hole { len } => self.hole(at, len),
        }
    }

    fn data(&mut self, at: u64, hash: Hash, len: u32) -> Result<(), MirrorError> {
        let object = self.object;
        let lost = |source| MirrorError::Chunk { object, hash, source };
        self.end = self.end.max(at + u64::from(len));
        self.written += u64::from(len);
        if len >= COPY_FROM
            && let Some(place) = self.content.raw(&hash).map_err(lost)?
        {
            let copied = self.disk.copy(&place, self.fd, at, len);
            if copied.map_err(|source| self.fault("copy content to", source))? {
                return Ok(());
            }
        }
        let bytes = self.content.blob(&hash).map_err(lost)?;
        if bytes.len() != len as usize {
            let reason = format!("it has {} bytes, the manifest says {len}", bytes.len());
            return Err(lost(reason.into()));
        }
        self.disk.write(self.fd, &bytes, at).map_err(|source| self.fault("write content of", source))
    }

    fn hole(&mut self, at: u64, len: u64) -> Result<(), MirrorError> {
        let punched = self.disk.punch(self.fd, at, len);
        if punched.map_err(|source| self.fault("punch a hole in", source))? {
            return Ok(());
        }
        let zeros = vec![0u8; 64 * 1024];
        let (mut at, end) = (at, at + len);
        while at < end {
            let n = (end - at).min(zeros.len() as u64);
            let piece = zeros.get(..n as usize).unwrap_or_default();
            self.disk.write(self.fd, piece, at).map_err(|source| self.fault("write zeros to", source))?;
            at += n;
        }
        self.end = self.end.max(end);
        Ok(())
    }
}

/// Does any of the ordered `ranges` overlap `start..end`?
fn overlaps(ranges: &[Range<u64>], start: u64, end: u64) -> bool {
    let first = ranges.partition_point(|range| range.end <= start);
    ranges.get(first).is_some_and(|range| range.start < end)
}

/// What differs between each of `versions` and the next, as ranges of bytes, merged and in order.
pub(super) fn changed_ranges(
    versions: &[&Manifest],
    content: &dyn ContentSource,
) -> Result<Vec<Range<u64>>, MirrorError> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let mut fetch = |hash: &Hash| content.blob(hash);
    for pair in versions.windows(2) {
        let [old, new] = pair else { continue };
        for_each_difference::<MirrorError>(old, new, &mut fetch, &mut |at, extent| {
            let end = at + extent.len();
            match ranges.last_mut() {
                Some(last) if last.end == at => last.end = end,
                _ => ranges.push(at..end),
            }
            Ok(())
        })?;
    }
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::mirror::disk::{Step, Verdict};
    use crate::replication::mirror::model::Chunks;
    use crate::replication::mirror::view::{RawPlace, SourceError};
    use std::cell::Cell;
    use std::os::fd::AsFd;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Counts what is fetched.
    struct Counted<'a>(&'a Chunks, Cell<u64>);

    impl ContentSource for Counted<'_> {
        fn blob(&self, hash: &Hash) -> Result<Vec<u8>, SourceError> {
            self.1.set(self.1.get() + 1);
            self.0.blob(hash)
        }
        fn raw(&self, hash: &Hash) -> Result<Option<RawPlace>, SourceError> {
            self.0.raw(hash)
        }
    }

    fn extents(chunks: &mut Chunks, count: u32) -> Vec<Extent> {
        let data =
            |chunks: &mut Chunks, n: u32| Extent::Data { hash: chunks.put(n.to_be_bytes().to_vec()), len: 4 };
        (0..count).map(|n| data(chunks, n)).collect()
    }

    #[test]
    fn an_append_to_a_long_file_costs_what_was_appended() {
        let mut chunks = Chunks::new();
        let mut extents = extents(&mut chunks, 20_000);
        let before = chunks.manifest(&extents);
        extents.push(Extent::Data { hash: chunks.put(b"appended".to_vec()), len: 8 });
        let after = chunks.manifest(&extents);
        let file = tempfile::tempfile().unwrap();
        let mut disk = Disk::default();
        let source = Counted(&chunks, Cell::new(0));
        let mut writer = Writer::new(&mut disk, &source, ObjectId(2), file.as_fd());
        writer.write(&before, &Patch::Fresh, 0, 80_000).unwrap();
        let writes = Arc::new(AtomicU64::new(0));
        let counted = writes.clone();
        disk.gate = Some(Box::new(move |step| {
            assert_eq!(step, Step::Content);
            counted.fetch_add(1, Ordering::Relaxed);
            Verdict::Go
        }));
        source.1.set(0);
        let mut writer = Writer::new(&mut disk, &source, ObjectId(2), file.as_fd());
        writer.write(&after, &Patch::From(&before), 80_000, 80_008).unwrap();
        assert_eq!(writer.written, 8);
        assert_eq!(writes.load(Ordering::Relaxed), 1);
        // Two roots, the last page of each, the chunk.
        assert!(source.1.get() <= 5, "{} blobs were read", source.1.get());
        assert_eq!(
            chunks.bytes(&after),
            std::fs::read(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file))).unwrap()
        );
    }

    #[test]
    fn ranges_changed_on_the_way_are_merged() {
        let mut chunks = Chunks::new();
        let all = extents(&mut chunks, 10);
        let other = Extent::Data { hash: chunks.put(b"else".to_vec()), len: 4 };
        let (mut second, mut third) = (all.clone(), all.clone());
        second[3] = other;
        third[4] = other;
        let manifests = [chunks.manifest(&all), chunks.manifest(&second), chunks.manifest(&third)];
        let versions: Vec<&Manifest> = manifests.iter().collect();
        // Extent 3 is as it was in the end, but was something else on the way.
        assert_eq!(changed_ranges(&versions, &chunks).unwrap(), vec![12..20]);
        let ranges = [12..20, 30..31];
        assert!(overlaps(&ranges, 19, 20) && overlaps(&ranges, 0, 99));
        assert!(!overlaps(&ranges, 20, 30) && !overlaps(&ranges, 8, 12) && !overlaps(&ranges, 31, 40));
    }
}
