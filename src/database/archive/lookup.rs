//! Where in the history a moment, a position or a transaction is. Everything is answered from the indexes.

use super::catalog::LineageEntry;
use super::check::{DamagedFile, GONE};
use super::disk::ArchiveDisk;
use super::error::ArchiveError;
use super::index::{self, Entry, IndexFault, IndexedKind};
use super::tail::{file_name, read_head};
use super::{Archive, Stop};
use crate::database::moment::rfc3339;
use crate::store::pack::disk::PackFile;
use ehpc_proto::binlog::{FileScan, Flavor, Group, GroupGtid, GroupKind, Grouper, GtidState, Xid};
use ehpc_proto::replication::Timestamp;
use ehpc_proto::replication::database::{ArchivedFile, Place};
use std::io;
use std::ops::Range;

/// Longest group that ends a branch: a GTID and a statement.
const MAX_END: u64 = 64 << 10;

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

/// GTID state in a file at an offset, or at its end, when `index` is its index.
pub(super) fn gtid_in(
    disk: &dyn ArchiveDisk,
    path: &str,
    index: &dyn PackFile,
    flavor: Flavor,
    offset: u64,
) -> Result<GtidState, IndexFault> {
    let head = read_head(&*disk.open(path)?, u64::MAX)?;
    let mut gtid = head.and_then(|head| head.initial).unwrap_or_else(|| GtidState::empty(flavor));
    index::walk_sound(index, offset, &mut |entry| {
        if let Some(of) = &entry.gtid {
            gtid.add(of);
        }
    })?;
    Ok(gtid)
}

impl Archive {
    pub(super) fn io(&self, action: &'static str, name: &str) -> impl Fn(io::Error) -> ArchiveError {
        let path = self.disk.path(name);
        move |source| ArchiveError::Io { action, path: path.clone(), source }
    }

    fn behind(&self, file: &ArchivedFile, entry: &Entry) -> Result<Stop, ArchiveError> {
        let place = Place { lineage: file.lineage, file: file.ordinal, offset: entry.end };
        Ok(Stop { place, gtid: self.gtid_at(place)?, at: entry.time, file: file.name.clone() })
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
        let (mut first, mut lost) = (None, None);
        let files = self.listed();
        for file in files.iter().rev() {
            if file.len == 0 {
                lost = Some(file);
                continue;
            }
            let found = self.ask_index(file, &mut |index, count| {
                if count == 0 {
                    return Ok(None);
                }
                let behind = index::first(index, count, &|entry| entry.time > time)?;
                Ok(Some(match behind.checked_sub(1) {
                    Some(number) => Ok((index::entry(index, number)?, behind == count)),
                    None => Err(index::entry(index, 0)?.time),
                }))
            })?;
            match found {
                // It may be in the one that is lost.
                Some(Ok((_, true))) if lost.is_some() => break,
                Some(Ok((entry, true))) if first.is_none() => {
                    let last = files.last().unwrap_or(file);
                    return match self.shared.damages.behind(last.lineage, last.ordinal) {
                        // It may be in one that the archive does not list until the server has sent it again.
                        Some(DamagedFile { lineage, name, damage, .. }) => Err(ArchiveError::Damaged {
                            name: file_name(lineage, &name),
                            reason: format!("{damage}; --position and --gtid reach what comes before it"),
                        }),
                        None => self.end_behind(file, &entry, &files),
                    };
                }
                Some(Ok((entry, _))) => return self.behind(file, &entry),
                Some(Err(later)) => first = Some(later),
                None => {}
            }
        }
        match (lost, first) {
            (Some(file), _) => Err(ArchiveError::Damaged {
                name: file_name(file.lineage, &file.name),
                reason: self
                    .known_damage(file.lineage, file.ordinal)
                    .map_or(GONE.to_owned(), |d| d.to_string()),
            }),
            (None, Some(first)) => Err(ArchiveError::BeforeStart { first: rfc3339(first) }),
            (None, None) => Err(ArchiveError::Empty),
        }
    }

    /// Where the archive ends, when `entry` is its last group: files that began behind it and hold no group yet may be
    /// where a base begins.
    fn end_behind(
        &self,
        file: &ArchivedFile,
        entry: &Entry,
        files: &[ArchivedFile],
    ) -> Result<Stop, ArchiveError> {
        let stop = self.behind(file, entry)?;
        let newest = files.last().filter(|newest| newest.lineage == file.lineage && *newest != file);
        let Some(newest) = newest else { return Ok(stop) };
        let durable = self.shared.durable.borrow().clone();
        let same = (durable.place.lineage, durable.place.file) == (newest.lineage, newest.ordinal);
        let offset = if same { durable.settled } else { newest.len };
        let place = Place { lineage: newest.lineage, file: newest.ordinal, offset };
        Ok(Stop { place, file: newest.name.clone(), ..stop })
    }

    fn position(&self, name: &str, offset: u64) -> Result<Stop, ArchiveError> {
        let file = self.files().into_iter().rev().find(|file| file.name == name);
        let file = file.ok_or_else(|| ArchiveError::NoName(name.to_owned()))?;
        if offset > file.len {
            let (name, end) = (name.to_owned(), file.len);
            return Err(ArchiveError::PastEnd { name, position: offset, end });
        }
        // The last group at or before the position, and the first that ends behind it.
        let (last, next) = self.ask_index(&file, &mut |index, count| {
            let behind = index::first(index, count, &|entry| entry.end > offset)?;
            let last = behind.checked_sub(1).map(|number| index::entry(index, number)).transpose()?;
            let next = (behind < count).then(|| index::entry(index, behind)).transpose()?;
            Ok((last, next))
        })?;
        if let Some(entry) = next.filter(|entry| entry.start < offset) {
            let (start, end) = (entry.start, entry.end);
            return Err(ArchiveError::InsideGroup { name: name.to_owned(), position: offset, start, end });
        }
        let at = last.map_or_else(Timestamp::default, |entry| entry.time);
        // Before the first group: where that begins, so that the file's format description is part of what comes before.
        let first = next.filter(|_| last.is_none()).map_or(offset, |entry| entry.start);
        let place = Place { lineage: file.lineage, file: file.ordinal, offset: first };
        Ok(Stop { place, gtid: self.gtid_at(place)?, at, file: file.name })
    }

    fn transaction(&self, gtid: &GroupGtid) -> Result<Stop, ArchiveError> {
        for file in self.files().into_iter().rev() {
            let found = self.last_of(&file, file.len, &|entry| entry.gtid.as_ref() == Some(gtid))?;
            if let Some(entry) = found {
                return self.behind(&file, &entry);
            }
        }
        Err(ArchiveError::NoGtid(gtid.to_string()))
    }

    /// The last group of a file up to `end` that is wanted.
    fn last_of(
        &self,
        file: &ArchivedFile,
        end: u64,
        wanted: &dyn Fn(&Entry) -> bool,
    ) -> Result<Option<Entry>, ArchiveError> {
        self.ask_index(file, &mut |index, _| {
            let mut found = None;
            index::walk_sound(index, end, &mut |entry| {
                if wanted(entry) {
                    found = Some(*entry);
                }
            })?;
            Ok(found)
        })
    }

    /// The last group of a file.
    pub(super) fn last_group(&self, file: &ArchivedFile) -> Result<Option<Entry>, ArchiveError> {
        self.ask_index(file, &mut |index, count| {
            count.checked_sub(1).map(|last| index::entry(index, last)).transpose()
        })
    }

    /// The first group of a file.
    pub(super) fn first_group(&self, file: &ArchivedFile) -> Result<Option<Entry>, ArchiveError> {
        self.ask_index(file, &mut |index, count| (count > 0).then(|| index::entry(index, 0)).transpose())
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
        self.ask_index(&file, &mut |index, _| gtid_in(&*self.disk, &path, index, flavor, place.offset))
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
            let prepares = |entry: &Entry| entry.kind == IndexedKind::XaPrepare && entry.branch == branch;
            if let Some(entry) = self.last_of(&file, end, &prepares)? {
                return Ok(Some((file, entry.start..entry.end)));
            }
        }
        Ok(None)
    }

    /// The branch that a group ends; `range`: the group's bytes.
    ///
    /// # Errors
    ///
    /// The file is not in the archive, or cannot be read.
    pub fn ended_branch(
        &self,
        lineage: u32,
        ordinal: u32,
        range: Range<u64>,
    ) -> Result<Option<Xid>, ArchiveError> {
        let path = file_name(lineage, &self.file(lineage, ordinal)?.name);
        let read = || -> io::Result<Option<Xid>> {
            let file = self.disk.open(&path)?;
            let Some(head) = read_head(&*file, u64::MAX)? else { return Ok(None) };
            let len = range.end.saturating_sub(range.start).min(MAX_END) as usize;
            let mut bytes = vec![0; len];
            let count = file.read_at(&mut bytes, range.start)?;
            let (mut scan, mut grouper) = (FileScan::resume(range.start, &head.format), Grouper::new());
            let mut rest = &bytes[..count];
            while let Ok(Some(event)) = scan.next(&mut rest) {
                if let Ok(Some(Group { kind: GroupKind::XaEnd(xid), .. })) = grouper.event(&event) {
                    return Ok(Some(xid));
                }
            }
            Ok(None)
        };
        read().map_err(self.io("read", &path))
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
        // First whether it is sound: then each group is told once.
        self.ask_index(&file, &mut |index, _| index::walk_sound(index, file.len, &mut |_| ()))?;
        self.ask_index(&file, &mut |index, _| index::walk_sound(index, file.len, each)).map(drop)
    }
}
