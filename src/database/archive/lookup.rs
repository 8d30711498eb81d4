//! Where in the history a moment, a position or a transaction is. Everything is answered from the indexes.

use super::catalog::LineageEntry;
use super::disk::ArchiveDisk;
use super::error::ArchiveError;
use super::index::{self, Entry, IndexedKind};
use super::tail::{file_name, read_head};
use super::{Archive, Stop};
use crate::database::moment::rfc3339;
use crate::store::pack::disk::PackFile;
use ehpc_proto::binlog::{Flavor, GroupGtid, GtidState, Xid};
use ehpc_proto::replication::Timestamp;
use ehpc_proto::replication::database::{ArchivedFile, Place};
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// What to look for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// The newest group.
    Latest,
    /// The last group at or before this time.
    Time(Timestamp),
    /// The group that ends there, in the newest lineage that has the file.
    Position {
        /// Name of the file.
        file: String,
        /// Offset; 4 or less: before the file's first group.
        offset: u64,
    },
    /// That group, in the newest lineage that has it.
    Gtid(GroupGtid),
}

/// GTID state in a file at an offset, or at its end.
pub(super) fn gtid_in(
    disk: &dyn ArchiveDisk,
    path: &str,
    flavor: Flavor,
    offset: u64,
) -> io::Result<GtidState> {
    let head = read_head(&*disk.open(path)?, u64::MAX)?;
    let mut gtid = head.and_then(|head| head.initial).unwrap_or_else(|| GtidState::empty(flavor));
    match disk.open(&format!("{path}.index")) {
        Ok(index) => {
            index::walk(&*index, offset, &mut |entry| {
                if let Some(of) = &entry.gtid {
                    gtid.add(of);
                }
            })?;
            Ok(gtid)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(gtid),
        Err(error) => Err(error),
    }
}

struct Indexed {
    file: ArchivedFile,
    index: Arc<dyn PackFile>,
    /// Entries.
    count: u64,
}

impl Archive {
    fn io(&self, action: &'static str, name: &str) -> impl Fn(io::Error) -> ArchiveError {
        let path = self.disk.path(name);
        move |source| ArchiveError::Io { action, path: path.clone(), source }
    }

    fn indexed(&self, file: ArchivedFile) -> Result<Indexed, ArchiveError> {
        let name = format!("{}.index", file_name(file.lineage, &file.name));
        let opened = self.disk.open(&name).and_then(|index| {
            let count = index::count(&*index)?;
            Ok((index, count))
        });
        let (index, count) = opened.map_err(self.io("read", &name))?;
        Ok(Indexed { file, index, count })
    }

    fn entry(&self, of: &Indexed, number: u64) -> Result<Entry, ArchiveError> {
        let name = file_name(of.file.lineage, &of.file.name);
        let entry = index::nth(&*of.index, number).map_err(self.io("read the index of", &name))?;
        entry.ok_or_else(|| ArchiveError::Damaged { name, reason: format!("entry {number} of its index") })
    }

    fn first(&self, of: &Indexed, after: &dyn Fn(&Entry) -> bool) -> Result<u64, ArchiveError> {
        let name = file_name(of.file.lineage, &of.file.name);
        index::first(&*of.index, of.count, after).map_err(self.io("read the index of", &name))
    }

    fn behind(&self, of: &Indexed, entry: &Entry) -> Result<Stop, ArchiveError> {
        let place = Place { lineage: of.file.lineage, file: of.file.ordinal, offset: entry.end };
        Ok(Stop { place, gtid: self.gtid_at(place)?, at: entry.time, file: of.file.name.clone() })
    }

    /// Where `target` is.
    ///
    /// # Errors
    ///
    /// It is before the archive's start, past its end, inside a group, or nowhere; the index cannot be read.
    pub fn find(&self, target: &Target) -> Result<Stop, ArchiveError> {
        match target {
            Target::Latest => self.at(Timestamp { seconds: i64::MAX, nanos: 0 }),
            Target::Time(time) => self.at(*time),
            Target::Position { file, offset } => self.position(file, *offset),
            Target::Gtid(gtid) => self.transaction(gtid),
        }
    }

    /// The last group at or before `time`.
    fn at(&self, time: Timestamp) -> Result<Stop, ArchiveError> {
        let mut first = None;
        for file in self.files().into_iter().rev() {
            let of = self.indexed(file)?;
            if of.count == 0 {
                continue;
            }
            let behind = self.first(&of, &|entry| entry.time > time)?;
            match behind.checked_sub(1) {
                Some(number) => return self.behind(&of, &self.entry(&of, number)?),
                None => first = Some(self.entry(&of, 0)?.time),
            }
        }
        match first {
            Some(first) => Err(ArchiveError::BeforeStart { first: rfc3339(first) }),
            None => Err(ArchiveError::Empty),
        }
    }

    fn position(&self, name: &str, offset: u64) -> Result<Stop, ArchiveError> {
        let file = self.files().into_iter().rev().find(|file| file.name == name);
        let of = self.indexed(file.ok_or_else(|| ArchiveError::NoName(name.to_owned()))?)?;
        if offset > of.file.len {
            let (name, end) = (name.to_owned(), of.file.len);
            return Err(ArchiveError::PastEnd { name, position: offset, end });
        }
        // The first group that ends behind the position: what is before it is applied.
        let behind = self.first(&of, &|entry| entry.end > offset)?;
        if behind < of.count {
            let entry = self.entry(&of, behind)?;
            if entry.start < offset {
                let (start, end) = (entry.start, entry.end);
                return Err(ArchiveError::InsideGroup {
                    name: name.to_owned(),
                    position: offset,
                    start,
                    end,
                });
            }
        }
        let at = match behind.checked_sub(1) {
            Some(number) => self.entry(&of, number)?.time,
            None => Timestamp::default(),
        };
        let place = Place { lineage: of.file.lineage, file: of.file.ordinal, offset };
        Ok(Stop { place, gtid: self.gtid_at(place)?, at, file: of.file.name })
    }

    fn transaction(&self, gtid: &GroupGtid) -> Result<Stop, ArchiveError> {
        for file in self.files().into_iter().rev() {
            let of = self.indexed(file)?;
            let mut found = None;
            let name = file_name(of.file.lineage, &of.file.name);
            index::walk(&*of.index, of.file.len, &mut |entry| {
                if entry.gtid.as_ref() == Some(gtid) {
                    found = Some(*entry);
                }
            })
            .map_err(self.io("read the index of", &name))?;
            if let Some(entry) = found {
                return self.behind(&of, &entry);
            }
        }
        Err(ArchiveError::NoGtid(gtid.to_string()))
    }

    /// GTID state after the groups that end at or before `place`.
    ///
    /// # Errors
    ///
    /// The file is not in the archive, or cannot be read.
    pub fn gtid_at(&self, place: Place) -> Result<GtidState, ArchiveError> {
        let Some((flavor, file)) = self.flavored(place.lineage, place.file) else {
            return Err(ArchiveError::NoFile { lineage: place.lineage, file: place.file });
        };
        let path = file_name(file.lineage, &file.name);
        gtid_in(&*self.disk, &path, flavor, place.offset).map_err(self.io("read", &path))
    }

    fn flavored(&self, lineage: u32, ordinal: u32) -> Option<(Flavor, ArchivedFile)> {
        let lineages = self.shared.lineages.read();
        let entry: &LineageEntry = lineages.iter().find(|entry| entry.record.lineage.number == lineage)?;
        let file = entry.archived().find(|file| file.ordinal == ordinal)?;
        Some((entry.record.lineage.flavor, file))
    }

    /// The newest group before `before` that prepares `xid`: its lineage, its file and its bytes there.
    ///
    /// # Errors
    ///
    /// An index cannot be read.
    pub fn prepare_group(
        &self,
        xid: &Xid,
        before: Place,
    ) -> Result<Option<(ArchivedFile, Range<u64>)>, ArchiveError> {
        let branch = index::branch(xid);
        let files = self.files().into_iter().rev();
        for file in files.filter(|file| (file.lineage, file.ordinal) <= (before.lineage, before.file)) {
            let same = (file.lineage, file.ordinal) == (before.lineage, before.file);
            let end = if same { before.offset } else { file.len };
            let of = self.indexed(file)?;
            let mut found = None;
            let name = file_name(of.file.lineage, &of.file.name);
            index::walk(&*of.index, end, &mut |entry| {
                if entry.kind == IndexedKind::XaPrepare && entry.branch == branch {
                    found = Some(entry.start..entry.end);
                }
            })
            .map_err(self.io("read the index of", &name))?;
            if let Some(range) = found {
                return Ok(Some((of.file, range)));
            }
        }
        Ok(None)
    }

    /// The groups of a file, in order.
    ///
    /// # Errors
    ///
    /// The file is not in the archive, or its index cannot be read.
    pub fn groups(
        &self,
        lineage: u32,
        ordinal: u32,
        each: &mut dyn FnMut(&Entry),
    ) -> Result<(), ArchiveError> {
        let file = self.file(lineage, ordinal)?;
        let (name, len) = (file_name(lineage, &file.name), file.len);
        let of = self.indexed(file)?;
        index::walk(&*of.index, len, each).map(|_| ()).map_err(self.io("read the index of", &name))
    }
}
