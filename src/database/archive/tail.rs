//! The file at the archive's end: what is appended is read as it passes, so that nothing but whole, sound events counts,
//! and the index grows with it.

use super::disk::{ArchiveDisk, folder};
use super::error::Fault;
use super::index::{self, Entry};
use super::mending::{self, Source};
use crate::database::moment::{Running, of_header};
use crate::store::pack::disk::PackFile;
use ehpc_proto::binlog::header::{FLAG_ARTIFICIAL, FLAG_IN_USE};
use ehpc_proto::binlog::{FileScan, Flavor, FormatDescription, Group, Grouper, GtidState, Kind};
use ehpc_proto::replication::Timestamp;
use ehpc_proto::replication::database::MAX_HEAD;
use std::io;
use std::sync::Arc;

/// Bytes read at once.
const READ: usize = 256 * 1024;

/// The open file.
pub(super) struct Tail {
    pub(super) lineage: u32,
    pub(super) ordinal: u32,
    pub(super) name: String,
    file: Arc<dyn PackFile>,
    index: Arc<dyn PackFile>,
    /// Entries in the index.
    indexed: u64,
    /// Groups that are not in the index yet.
    pending: Vec<Entry>,
    scan: FileScan,
    grouper: Grouper,
    clock: Running,
    /// First bytes: magic and format description.
    head: Vec<u8>,
    /// Bytes in the file.
    pub(super) written: u64,
    /// End of the last whole event among them.
    pub(super) boundary: u64,
    /// GTID state there.
    pub(super) gtid: GtidState,
    /// Time of the newest group, or of what arrived last.
    pub(super) newest: Timestamp,
    /// End of the last whole event that is on the disk.
    pub(super) durable: u64,
    /// Bytes written since the last sync.
    pub(super) unsynced: u64,
    /// The file's name is not surely on the disk.
    fresh: bool,
    /// The server went on to another file.
    pub(super) closed: bool,
}

/// What a file begins with, and how its lineage's history stood before it.
pub(super) struct Before {
    pub(super) gtid: GtidState,
    pub(super) clock: Running,
}

impl Before {
    /// Before the first file.
    pub(super) fn nothing(flavor: Flavor) -> Before {
        Before { gtid: GtidState::empty(flavor), clock: Running::default() }
    }
}

/// A file's first bytes, and what they say.
pub(super) struct Head {
    pub(super) bytes: Vec<u8>,
    pub(super) format: FormatDescription,
    /// GTID state before the file's first group, when it tells.
    pub(super) initial: Option<GtidState>,
}

/// `FOLDER/NAME` of a file of the archive.
pub(super) fn file_name(lineage: u32, name: &str) -> String {
    format!("{}/{name}", folder(lineage))
}

/// Reads a file's first events; `None`: there is no whole format description.
pub(super) fn read_head(file: &dyn PackFile, end: u64) -> io::Result<Option<Head>> {
    let (mut scan, mut grouper) = (FileScan::new(), Grouper::new());
    let mut buffer = vec![0; READ];
    let mut bytes = Vec::new();
    let mut events = 0;
    // The list of GTIDs is the second event; MariaDB may have a START_ENCRYPTION between, which is refused.
    while events < 2 && scan.position() < end {
        let wanted = (end - scan.position()).min(READ as u64) as usize;
        let read = file.read_at(&mut buffer[..wanted], scan.position())?;
        if read == 0 {
            break;
        }
        let mut rest = &buffer[..read];
        if bytes.is_empty() {
            bytes.extend_from_slice(&rest[..read.min(MAX_HEAD)]);
        }
        while events < 2
            && let Ok(Some(event)) = scan.next(&mut rest)
        {
            events += 1;
            if events == 1 {
                bytes.truncate(event.end() as usize);
            }
            // What is wrong with a body is found when the whole file is read.
            let _ = grouper.event(&event);
        }
        if !rest.is_empty() {
            break;
        }
    }
    let format = scan.format().cloned();
    Ok(format.map(|format| Head { bytes, format, initial: grouper.initial().cloned() }))
}

impl Tail {
    /// Begins a new file in a folder that is there.
    pub(super) fn create(
        disk: &dyn ArchiveDisk,
        (lineage, ordinal): (u32, u32),
        name: &str,
        before: Before,
    ) -> Result<Tail, Fault> {
        let path = file_name(lineage, name);
        let file = disk.create(&path).map_err(|error| Fault::io("create", &path, &error))?;
        // After a power cut an index may be there whose file is not.
        let index = open_index(disk, &path).and_then(|index| index.truncate(0).map(|()| index));
        let index = index.map_err(|error| Fault::io("create the index of", &path, &error))?;
        Ok(Tail::over(file, index, (lineage, ordinal), name, before))
    }

    fn over(
        file: Arc<dyn PackFile>,
        index: Arc<dyn PackFile>,
        (lineage, ordinal): (u32, u32),
        name: &str,
        before: Before,
    ) -> Tail {
        Tail {
            lineage,
            ordinal,
            name: name.to_owned(),
            file,
            index,
            indexed: 0,
            pending: Vec::new(),
            scan: FileScan::new(),
            grouper: Grouper::new(),
            clock: before.clock,
            head: Vec::new(),
            written: 0,
            boundary: 0,
            gtid: before.gtid,
            newest: Timestamp::default(),
            durable: 0,
            unsynced: 0,
            fresh: true,
            closed: false,
        }
    }

    /// Opens the file after a start or a fault. Only what comes before `limit` is looked at; what follows the last whole,
    /// sound event is cut, everything else is on the disk and in the index when this returns. Gives the number of bytes
    /// cut as well; `None`: not even the first event is whole.
    pub(super) fn reopen(
        disk: &dyn ArchiveDisk,
        (lineage, ordinal): (u32, u32),
        name: &str,
        before: Before,
        limit: Option<u64>,
    ) -> io::Result<(Option<Tail>, u64)> {
        let path = file_name(lineage, name);
        let file = disk.open(&path)?;
        let length = file.len()?;
        let end = limit.map_or(length, |limit| limit.min(length));
        let Some(head) = read_head(&*file, end)? else { return Ok((None, length)) };
        let index = open_index(disk, &path)?;
        let mut tail = Tail::over(file, index, (lineage, ordinal), name, before);
        tail.resume(head, end, true)?;
        tail.written = tail.boundary;
        tail.unsynced = 1;
        tail.index.truncate(tail.indexed * index::LEN as u64)?;
        if tail.boundary < length {
            tail.file.truncate(tail.boundary)?;
        }
        tail.file.sync()?;
        disk.sync_folder(&folder(lineage))?;
        (tail.unsynced, tail.fresh, tail.durable) = (0, false, tail.boundary);
        tail.write_index()?;
        let cut = length.saturating_sub(tail.boundary);
        Ok((Some(tail), cut))
    }

    /// Completes the index of a file that is not the last one any more. Gives what the next one begins with, and what is
    /// wrong with the file's end, if anything is.
    pub(super) fn mend(
        disk: &dyn ArchiveDisk,
        (lineage, ordinal): (u32, u32),
        name: &str,
        before: Before,
    ) -> io::Result<(Before, Option<String>)> {
        let path = file_name(lineage, name);
        let file = disk.open(&path)?;
        let length = file.len()?;
        let Some(head) = read_head(&*file, length)? else {
            return Ok((before, Some("it has no sound format description".to_owned())));
        };
        let index = open_index(disk, &path)?;
        if index::walk(&*index, length, &mut |_| ())?.rotten {
            // Records behind a rotten one are worth more than what the file tells. What is wrong with it is said below.
            let _ = mending::mend(disk, (&path, length), before.clock, Source::Archive, &|| false)?;
        }
        let mut tail = Tail::over(file, index, (lineage, ordinal), name, before);
        tail.resume(head, length, false)?;
        tail.index.truncate(tail.indexed * index::LEN as u64)?;
        tail.write_index()?;
        tail.index.sync()?;
        let damage = (tail.boundary < length)
            .then(|| format!("after {} of {length} bytes no sound event follows", tail.boundary));
        Ok((tail.before_next(), damage))
    }

    /// Reads a file that has bytes, with the help of its index.
    fn resume(&mut self, head: Head, end: u64, anew: bool) -> io::Result<()> {
        self.head = head.bytes;
        let mut gtid = head.initial.unwrap_or_else(|| self.gtid.clone());
        let (mut last, mut newest) = (0, None);
        let walked = index::walk(&*self.index, end, &mut |entry| {
            last = entry.end;
            newest = Some(entry.time);
            if let Some(of) = &entry.gtid {
                gtid.add(of);
            }
        })?;
        self.indexed = walked.count;
        self.gtid = gtid;
        if let Some(newest) = newest {
            self.newest = self.clock.next(newest);
            self.scan = FileScan::resume(last, &head.format);
        }
        self.read_on(end, anew)
    }

    /// Reads what the index does not tell of, up to the first byte that is not sound. With `anew` it is also written
    /// again: a sync that failed in an earlier life leaves bytes in the page cache that count as clean, are read as if they
    /// were there, and are not on the disk.
    fn read_on(&mut self, end: u64, anew: bool) -> io::Result<()> {
        let mut buffer = vec![0; READ];
        self.boundary = self.scan.boundary();
        while self.scan.position() < end {
            let at = self.scan.position();
            let wanted = (end - at).min(READ as u64) as usize;
            let read = self.file.read_at(&mut buffer[..wanted], at)?;
            if read == 0 {
                break;
            }
            let sound = self.take(&buffer[..read], Timestamp::default());
            self.commit(sound.groups, sound.initial, sound.boundary);
            let keep = if sound.fault.is_some() { self.boundary.saturating_sub(at) as usize } else { read };
            if anew && keep > 0 {
                self.file.write_at([&buffer[..keep.min(read)], &[]], at)?;
            }
            if sound.fault.is_some() {
                break;
            }
        }
        // What is not a whole event is not there; the scan goes on from the boundary.
        self.cut_scan();
        Ok(())
    }

    /// Reads bytes that follow; nothing of the tail but the readers moves.
    fn take(&mut self, bytes: &[u8], arrived: Timestamp) -> Taken {
        let mut taken = Taken { groups: Vec::new(), initial: None, boundary: self.boundary, fault: None };
        let mut rest = bytes;
        loop {
            let event = match self.scan.next(&mut rest) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(fault) => {
                    taken.fault = Some(fault.into());
                    break;
                }
            };
            let (header, end) = (event.header, event.end());
            let in_use = header.kind == Kind::FORMAT_DESCRIPTION && header.flags & FLAG_IN_USE != 0;
            if in_use || header.flags & FLAG_ARTIFICIAL != 0 {
                let at = event.start;
                let what = if in_use { "says that its file is open" } else { "stands in no file" };
                taken.fault = Some(Fault::rejected(format!("the event at {at} {what}")));
                break;
            }
            let listed = matches!(header.kind, Kind::GTID_LIST | Kind::PREVIOUS_GTIDS);
            match self.grouper.event(&event) {
                Ok(Some(group)) => taken.groups.push((group, arrived)),
                Ok(None) if listed => taken.initial = self.grouper.initial().cloned(),
                Ok(None) => {}
                Err(fault) => {
                    taken.fault = Some(fault.into());
                    break;
                }
            }
            taken.boundary = end;
        }
        taken
    }

    /// What was taken is in the file.
    fn commit(&mut self, groups: Vec<(Group, Timestamp)>, initial: Option<GtidState>, boundary: u64) {
        if let Some(initial) = initial {
            self.gtid = initial;
        }
        for (group, arrived) in groups {
            let live = arrived != Timestamp::default();
            let time = self.clock.next(measured(&group, arrived));
            if let Some(gtid) = &group.gtid {
                self.gtid.add(gtid);
            }
            self.newest = time;
            self.pending.push(Entry::of(&group, time, live));
        }
        self.boundary = boundary;
    }

    /// Appends bytes; only whole events among them count as soon as they are synced. After an error the tail must be
    /// reopened.
    pub(super) fn append(&mut self, bytes: &[u8], arrived: Timestamp) -> Result<(), Fault> {
        if self.head.len() < MAX_HEAD && self.scan.format().is_none() {
            let room = MAX_HEAD - self.head.len();
            self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
        let taken = self.take(bytes, arrived);
        if let Some(fault) = taken.fault {
            return Err(fault);
        }
        let written = self.file.write_at([bytes, &[]], self.written);
        written.map_err(|error| Fault::io("write", &self.path(), &error))?;
        self.written += bytes.len() as u64;
        self.unsynced += bytes.len() as u64;
        self.commit(taken.groups, taken.initial, taken.boundary);
        Ok(())
    }

    /// Everything written is on the disk when this returns; whether more whole events are than before.
    pub(super) fn sync(&mut self, disk: &dyn ArchiveDisk) -> Result<bool, Fault> {
        if self.unsynced == 0 {
            return Ok(false);
        }
        let path = self.path();
        self.file.sync().map_err(|error| Fault::io("sync", &path, &error))?;
        if self.fresh {
            disk.sync_folder(&folder(self.lineage))
                .map_err(|error| Fault::io("sync the folder of", &path, &error))?;
            self.fresh = false;
        }
        self.unsynced = 0;
        // Before it is told: whoever is told looks into the index.
        self.write_index().map_err(|error| Fault::io("write the index of", &path, &error))?;
        let news = self.boundary > self.durable;
        self.durable = self.boundary;
        Ok(news)
    }

    fn write_index(&mut self) -> io::Result<()> {
        if !self.pending.is_empty() {
            index::append(&*self.index, self.indexed, &self.pending)?;
            self.indexed += self.pending.len() as u64;
            self.pending.clear();
        }
        Ok(())
    }

    /// The connection that wrote is gone: an event that is not whole will be sent anew.
    pub(super) fn cut(&mut self) -> Result<(), Fault> {
        if self.written > self.boundary {
            let cut = self.file.truncate(self.boundary);
            cut.map_err(|error| Fault::io("cut", &self.path(), &error))?;
            self.written = self.boundary;
            self.unsynced = self.unsynced.max(1);
        }
        self.cut_scan();
        Ok(())
    }

    fn cut_scan(&mut self) {
        if let Some(format) = self.scan.format().cloned()
            && self.boundary > 0
        {
            self.scan = FileScan::resume(self.boundary, &format);
        } else {
            (self.scan, self.head) = (FileScan::new(), Vec::new());
            (self.boundary, self.grouper) = (0, Grouper::new());
        }
    }

    /// The file is complete: its index is on the disk, too.
    pub(super) fn seal_index(&self) -> io::Result<()> {
        self.index.sync()
    }

    /// Up to here no group is begun and not ended, and all is durable.
    pub(super) fn settled(&self) -> u64 {
        self.grouper.open().map_or(self.durable, |open| open.min(self.durable))
    }

    /// What the next file begins with.
    pub(super) fn before_next(&self) -> Before {
        Before { gtid: self.gtid.clone(), clock: self.clock }
    }

    /// Magic and format description, as far as they are there.
    pub(super) fn head(&self) -> Vec<u8> {
        let format = self.scan.format().map_or(0, |format| format.bytes().len() + 4);
        self.head[..self.head.len().min(format)].to_vec()
    }

    pub(super) fn path(&self) -> String {
        file_name(self.lineage, &self.name)
    }
}

/// The index of a file, made anew if it is not there.
pub(super) fn open_index(disk: &dyn ArchiveDisk, path: &str) -> io::Result<Arc<dyn PackFile>> {
    let path = format!("{path}.index");
    match disk.open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => disk.create(&path),
        opened => opened,
    }
}

/// What was read in bytes that are not written yet.
struct Taken {
    groups: Vec<(Group, Timestamp)>,
    initial: Option<GtidState>,
    boundary: u64,
    fault: Option<Fault>,
}

/// When a group was: its arrival, or what it says itself where it was not seen live (zero).
pub(super) fn measured(group: &Group, arrived: Timestamp) -> Timestamp {
    match (arrived != Timestamp::default(), group.commit_micros) {
        (true, _) => arrived,
        (false, Some(micros)) => of_micros(micros),
        (false, None) => of_header(group.time),
    }
}

fn of_micros(micros: u64) -> Timestamp {
    let seconds = i64::try_from(micros / 1_000_000).unwrap_or(i64::MAX);
    Timestamp { seconds, nanos: (micros % 1_000_000) as u32 * 1000 }
}
