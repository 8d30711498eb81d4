//! Which lineages and files there are, as everybody sees it: lengths are those of durable bytes.

use super::lineage::LineageRecord;
use ehpc_proto::replication::database::ArchivedFile;

/// A file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct FileEntry {
    pub(super) name: String,
    /// Durable bytes.
    pub(super) len: u64,
    /// Another file follows it, or the server said so.
    pub(super) closed: bool,
    /// Neither pruned nor lost.
    pub(super) there: bool,
    /// It is gone, and nobody pruned it.
    pub(super) lost: bool,
}

/// A lineage; the file with ordinal n is number n - 1 of its files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct LineageEntry {
    pub(super) record: LineageRecord,
    pub(super) files: Vec<FileEntry>,
}

impl LineageEntry {
    /// Its files that are there.
    pub(super) fn archived(&self) -> impl DoubleEndedIterator<Item = ArchivedFile> {
        self.listed().filter(|file| file.len > 0)
    }

    /// Its files that are there or should be: one that is lost has no bytes.
    pub(super) fn listed(&self) -> impl DoubleEndedIterator<Item = ArchivedFile> {
        let lineage = self.record.lineage.number;
        let numbered = self.files.iter().enumerate();
        numbered.filter(|(_, file)| file.lost || (file.there && file.len > 0)).map(move |(at, file)| {
            ArchivedFile {
                lineage,
                ordinal: at as u32 + 1,
                name: file.name.clone(),
                len: if file.lost { 0 } else { file.len },
                closed: file.closed,
            }
        })
    }
}
