//! What a start, and a connection after a fault, find on the disk, and what they make of it.
//!
//! A file's name is in `files` before the file is made, so that a name without a file at the list's end, and a file
//! without one whole event, were never acknowledged: both are taken back. A lineage without files is none. Any other file
//! that is not there, or is empty, and was not pruned is lost, and one that is shorter than it was is damaged. Where those
//! that are lost are a lineage's end, the server is asked for them again: the archive ends before them.

use super::catalog::{FileEntry, LineageEntry};
use super::check::{Damage, DamagedFile, EMPTY, GONE, mark_name, marked, unopened};
use super::disk::{ArchiveDisk, folder, lineage_of};
use super::error::ArchiveError;
use super::index::{self, IndexFault};
use super::lineage::{self, LineageRecord, list_name, record_name};
use super::lookup::gtid_in;
use super::mending::{self, Source};
use super::prune;
use super::refetch::BESIDE;
use super::seal;
use super::tail::{Before, Tail, file_name, open_index};
use crate::database::moment::Running;
use ehpc_proto::replication::database::{Place, name_is_valid};
use std::collections::BTreeSet;
use std::io;

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recovered {
    /// File, and bytes cut from its end: none of them had been acknowledged.
    pub cut: Option<(String, u64)>,
    /// Files that are not sound; all else is served.
    pub damage: Vec<DamagedFile>,
}

impl Recovered {
    fn damaged(&mut self, (lineage, ordinal): (u32, u32), name: &str, damage: Damage) {
        self.damage.push(DamagedFile { lineage, ordinal, name: name.to_owned(), damage });
    }

    fn knows(&self, key: (u32, u32)) -> bool {
        self.damage.iter().any(|file| (file.lineage, file.ordinal) == key)
    }
}

fn failed<'a>(
    disk: &'a dyn ArchiveDisk,
    action: &'static str,
    name: &'a str,
) -> impl Fn(io::Error) -> ArchiveError + 'a {
    move |source| ArchiveError::Io { action, path: disk.path(name), source }
}

/// Reads every lineage's records, and takes back what was never finished.
pub(super) fn load(
    disk: &dyn ArchiveDisk,
    recovered: &mut Recovered,
) -> Result<Vec<LineageEntry>, ArchiveError> {
    let folders = disk.folders().map_err(failed(disk, "list", ""))?;
    let numbers: BTreeSet<u32> = folders.iter().filter_map(|name| lineage_of(name)).collect();
    let (mut lineages, mut pruned) = (Vec::new(), None);
    for number in numbers.into_iter().rev() {
        // Only what comes last may have been left unfinished.
        let last = lineages.is_empty();
        if let Some((entry, until)) = load_lineage(disk, number, last, recovered)? {
            pruned = pruned.max(until.map(|ordinal| (number, ordinal)));
            lineages.push(entry);
        }
    }
    lineages.reverse();
    // Nothing is appended to a lineage that another one follows.
    for entry in lineages.iter_mut().rev().skip(1) {
        entry.files.iter_mut().for_each(|file| file.closed = true);
    }
    let newest = lineages.last().map(|entry| (entry.record.lineage.number, entry.files.len() as u32));
    for entry in &mut lineages {
        for (file, ordinal) in entry.files.iter_mut().zip(1..) {
            let key = (entry.record.lineage.number, ordinal);
            // What the newest is worth is seen when it is opened.
            let is_empty = file.there && file.len == 0 && Some(key) != newest;
            file.there &= !is_empty;
            file.lost = !file.there && Some(key) > pruned;
            if file.lost {
                let reason = if is_empty { EMPTY } else { GONE };
                recovered.damaged(key, &file.name, Damage::somewhere(reason));
            }
        }
    }
    Ok(lineages)
}

/// Its files, and up to which of them it was pruned.
type Loaded = (LineageEntry, Option<u32>);

fn load_lineage(
    disk: &dyn ArchiveDisk,
    number: u32,
    last: bool,
    recovered: &mut Recovered,
) -> Result<Option<Loaded>, ArchiveError> {
    let (of, list) = (folder(number), list_name(number));
    let there = disk.files(&of).map_err(failed(disk, "list", &of))?;
    for copy in there.iter().filter(|name| name.ends_with(BESIDE)) {
        remove(disk, &format!("{of}/{copy}")).map_err(failed(disk, "remove", copy))?;
    }
    let all: BTreeSet<&str> = there.iter().map(String::as_str).collect();
    let there: BTreeSet<&str> = all.iter().copied().filter(|name| name_is_valid(name)).collect();
    let (mut names, used) = lineage::names(disk, number).map_err(failed(disk, "read", &list))?;
    let mut keep = used;
    // One at most; a group is in an index only when the file that has it is on the disk.
    let is_indexed = |name: &str| {
        let index = disk.open(&format!("{}.index", file_name(number, name)));
        index.and_then(|index| index.len()).is_ok_and(|len| len > 0)
    };
    if let Some(name) = names.pop_if(|name| last && !there.contains(name.as_str()) && !is_indexed(name)) {
        keep -= name.len() as u64 + 1;
    }
    if let Some(name) = there.iter().find(|name| !names.iter().any(|listed| listed == *name)) {
        let reason = format!("{} does not name {name}, which lies beside it; add it in its order", list);
        return Err(ArchiveError::Lineage { path: disk.path(&list), reason });
    }
    let Some(record) = lineage::load(disk, number)? else {
        if names.is_empty() {
            discard(disk, number).map_err(failed(disk, "clear", &of))?;
            return Ok(None);
        }
        let reason = "torn, or not there".to_owned();
        return Err(ArchiveError::Lineage { path: lineage::record_path(disk, number), reason });
    };
    if names.is_empty() {
        discard(disk, number).map_err(failed(disk, "clear", &of))?;
        return Ok(None);
    }
    cut_list(disk, number, keep).map_err(failed(disk, "cut", &list))?;
    let has = |name: &String, mark: fn(&str) -> String| all.contains(mark(name).as_str());
    for (name, ordinal) in names.iter().zip(1..) {
        if there.contains(name.as_str()) && has(name, mark_name) {
            let mark = disk.open(&mark_name(&file_name(number, name)));
            let text = mark.and_then(|mark| lineage::read_whole(&*mark)).unwrap_or_default();
            recovered.damaged((number, ordinal), name, marked(&text));
        }
    }
    let pruned = names.iter().rposition(|name| has(name, prune::mark_name)).map(|at| at as u32 + 1);
    Ok(Some((entry(disk, record, names, &there)?, pruned)))
}

fn entry(
    disk: &dyn ArchiveDisk,
    record: LineageRecord,
    names: Vec<String>,
    there: &BTreeSet<&str>,
) -> Result<LineageEntry, ArchiveError> {
    let number = record.lineage.number;
    let count = names.len();
    let mut files: Vec<FileEntry> = Vec::with_capacity(count);
    for (at, name) in names.into_iter().enumerate() {
        let path = file_name(number, &name);
        let is_there = there.contains(name.as_str());
        let len = match is_there {
            true => disk.open(&path).and_then(|file| file.len()).map_err(failed(disk, "open", &path))?,
            false => 0,
        };
        files.push(FileEntry { name, len, closed: at + 1 < count, there: is_there, lost: false });
    }
    Ok(LineageEntry { record, files })
}

/// Removes what there is of a lineage that never had a file.
fn discard(disk: &dyn ArchiveDisk, number: u32) -> io::Result<()> {
    for name in [list_name(number), record_name(number)] {
        remove(disk, &name)?;
    }
    disk.sync_folder(&folder(number))
}

fn remove(disk: &dyn ArchiveDisk, name: &str) -> io::Result<()> {
    match disk.remove(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn cut_list(disk: &dyn ArchiveDisk, number: u32, keep: u64) -> io::Result<()> {
    let file = disk.open(&list_name(number))?;
    if file.len()? > keep {
        file.truncate(keep)?;
        file.sync()?;
    }
    Ok(())
}

/// Completes the indexes of files that are not the last, where they were not sealed.
pub(super) fn mend(
    disk: &dyn ArchiveDisk,
    lineages: &[LineageEntry],
    recovered: &mut Recovered,
) -> Result<(), ArchiveError> {
    let last = lineages.last().map(|entry| (entry.record.lineage.number, entry.files.len()));
    for entry in lineages {
        let number = entry.record.lineage.number;
        let mut before = Before::nothing(entry.record.lineage.flavor);
        before.clock = clock_before(disk, lineages, (number, 1));
        for (at, file) in entry.files.iter().enumerate() {
            let key = (number, at as u32 + 1);
            if !file.there || last == Some((number, at + 1)) || recovered.knows(key) {
                continue;
            }
            let path = file_name(number, &file.name);
            if seal::is_sealed(disk, &path) {
                continue;
            }
            // Nothing is taken from what remains: its index tells more than it does.
            if let Some(reason) = shortened(disk, &path, file.len) {
                recovered.damaged(key, &file.name, Damage::somewhere(reason));
                continue;
            }
            before.clock = clock_before(disk, lineages, key);
            let mended = Tail::mend(disk, key, &file.name, before);
            let damage;
            (before, damage) = match mended {
                Ok(mended) => mended,
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    return Err(failed(disk, "write the index of", &path)(error));
                }
                Err(error) => (Before::nothing(entry.record.lineage.flavor), Some(unopened(&error))),
            };
            if let Some(damage) = damage {
                recovered.damaged(key, &file.name, Damage::somewhere(damage));
            }
        }
    }
    Ok(())
}

/// That a complete file is not as long as its seal says, or as the last group in its index, which was written only when
/// the group was on the disk.
fn shortened(disk: &dyn ArchiveDisk, path: &str, len: u64) -> Option<String> {
    if let Some(seal) = seal::load(disk, path) {
        return (seal.len != len).then(|| seal::other_length(&seal, len));
    }
    let index = disk.open(&format!("{path}.index")).ok()?;
    let last = index::count(&*index).ok()?.checked_sub(1)?;
    let end = index::nth(&*index, last).ok()??.end;
    (end > len).then(|| format!("it has {len} bytes, and its index tells of {end}"))
}

/// The running clock at the beginning of a file: the time of the last group before it.
pub(super) fn clock_before(
    disk: &dyn ArchiveDisk,
    lineages: &[LineageEntry],
    (lineage, ordinal): (u32, u32),
) -> Running {
    let mut clock = Running::default();
    let files = lineages.iter().flat_map(|entry| {
        let number = entry.record.lineage.number;
        entry.files.iter().enumerate().map(move |(at, file)| (number, at as u32 + 1, file))
    });
    let before: Vec<_> = files.filter(|(number, at, _)| (*number, *at) < (lineage, ordinal)).collect();
    for (number, _, file) in before.into_iter().rev().filter(|(_, _, file)| file.there) {
        let last = disk.open(&format!("{}.index", file_name(number, &file.name))).and_then(|file| {
            let count = index::count(&*file)?;
            count.checked_sub(1).map_or(Ok(None), |last| index::nth(&*file, last))
        });
        // A file may hold no group at all.
        if let Ok(Some(last)) = last {
            clock.next(last.time);
            break;
        }
    }
    clock
}

/// Opens the last file. Nothing behind `limit` is kept, when there is one; files that begin behind it, and files
/// without a whole event, are taken back.
pub(super) fn settle(
    disk: &dyn ArchiveDisk,
    lineages: &mut Vec<LineageEntry>,
    limit: Option<Place>,
    recovered: &mut Recovered,
) -> Result<Option<Tail>, ArchiveError> {
    loop {
        let Some(newest) = lineages.last() else { return Ok(None) };
        let number = newest.record.lineage.number;
        let ordinal = newest.files.len() as u32;
        let Some(file) = newest.files.last().cloned() else { return Ok(None) };
        let path = file_name(number, &file.name);
        if !file.there {
            if !file.lost || newest.files.iter().all(|file| !file.there) {
                return Ok(None);
            }
            take_back(disk, number, &file.name).map_err(failed(disk, "take back", &path))?;
            lineages.last_mut().map(|newest| newest.files.pop());
            continue;
        }
        let clock = clock_before(disk, lineages, (number, ordinal));
        let limit = limit.map(|limit| match (limit.lineage, limit.file).cmp(&(number, ordinal)) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Equal => limit.offset,
            std::cmp::Ordering::Greater => u64::MAX,
        });
        let before = Before { clock, ..before_last(disk, lineages, newest, recovered)? };
        let opened = Tail::reopen(disk, (number, ordinal), &file.name, before, limit);
        let (tail, cut) = opened.map_err(failed(disk, "open", &path))?;
        if cut > 0 {
            recovered.cut = Some((path.clone(), cut));
        }
        if let Some(tail) = tail {
            if let Some(last) = lineages.last_mut().and_then(|entry| entry.files.last_mut()) {
                (last.len, last.closed) = (tail.durable, false);
            }
            return Ok(Some(tail));
        }
        take_back(disk, number, &file.name).map_err(failed(disk, "take back", &path))?;
        if let Some(newest) = lineages.last_mut() {
            newest.files.pop();
            if newest.files.is_empty() {
                lineages.pop();
                discard(disk, number).map_err(failed(disk, "clear", &folder(number)))?;
            }
        }
    }
}

/// GTID state before the newest lineage's last file; the file's own list counts more, where it has one.
fn before_last(
    disk: &dyn ArchiveDisk,
    lineages: &[LineageEntry],
    entry: &LineageEntry,
    recovered: &mut Recovered,
) -> Result<Before, ArchiveError> {
    let (number, flavor) = (entry.record.lineage.number, entry.record.lineage.flavor);
    let mut before = Before::nothing(flavor);
    let ordinal = entry.files.len().saturating_sub(1) as u32;
    let earlier = entry.files.len().checked_sub(2).and_then(|at| entry.files.get(at));
    let Some(file) = earlier.filter(|file| file.there) else { return Ok(before) };
    let path = file_name(number, &file.name);
    let gtid = || gtid_in(disk, &path, &*open_index(disk, &path)?, flavor, u64::MAX);
    let mut found = gtid();
    if matches!(found, Err(IndexFault::Rotten(_))) {
        let clock = clock_before(disk, lineages, (number, ordinal));
        let mended = mending::mend(disk, (&path, file.len), clock, Source::Archive, &|| false);
        if let Err(damage) = mended.map_err(failed(disk, "read", &path))? {
            if !recovered.knows((number, ordinal)) {
                recovered.damaged((number, ordinal), &file.name, damage);
            }
            return Ok(before);
        }
        found = gtid();
    }
    before.gtid = match found {
        Ok(gtid) => gtid,
        Err(IndexFault::Io(error)) => return Err(failed(disk, "read", &path)(error)),
        Err(IndexFault::Rotten(record)) => {
            return Err(ArchiveError::Index { path: disk.path(&format!("{path}.index")), record });
        }
    };
    Ok(before)
}

/// Removes what there is of a file that was never acknowledged, or is lost, and its name from the list.
pub(super) fn take_back(disk: &dyn ArchiveDisk, number: u32, name: &str) -> io::Result<()> {
    let path = file_name(number, name);
    for derived in
        [format!("{path}.index"), seal::seal_name(&path), mark_name(&path), prune::mark_name(&path)]
    {
        remove(disk, &derived)?;
    }
    remove(disk, &path)?;
    disk.sync_folder(&folder(number))?;
    let (names, used) = lineage::names(disk, number)?;
    match names.last() {
        Some(last) if last == name => cut_list(disk, number, used - name.len() as u64 - 1),
        _ => Ok(()),
    }
}
