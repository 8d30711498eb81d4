//! What the writing thread does, one call after the other: files begin, bytes are appended, everything is synced, and only
//! then published.

use super::catalog::{FileEntry, LineageEntry};
use super::disk::{ArchiveDisk, folder};
use super::error::{Fault, shown};
use super::lineage::{self, LineageRecord, list_name};
use super::recover::{self, Recovered};
use super::tail::{Before, Tail};
use super::{Durable, Shared};
use ehpc_proto::replication::Timestamp;
use ehpc_proto::replication::database::{ArchivedFile, Joined, Lineage, Place};
use std::io;
use std::sync::Arc;

/// What is to be appended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Append {
    /// A file begins.
    Open {
        /// Whose.
        lineage: Lineage,
        /// The server's name for it.
        name: String,
        /// In its lineage.
        ordinal: u32,
        /// Where a new lineage goes on from.
        joined: Option<Joined>,
    },
    /// Bytes of it.
    Bytes {
        /// Where the file must end before them.
        offset: u64,
        /// When they arrived at nfs1; zero: not live.
        arrived: Timestamp,
        /// The bytes.
        bytes: bytes::Bytes,
    },
    /// The server went on to another file.
    Closed {
        /// The open file.
        name: String,
        /// Its length.
        len: u64,
    },
}

/// Where the archive ends, for the welcome.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct End {
    /// The newest lineage.
    pub lineage: Option<Lineage>,
    /// Its last file.
    pub file: Option<ArchivedFile>,
    /// That file's first bytes.
    pub head: Vec<u8>,
    /// GTID state at the end.
    pub gtid: String,
}

pub(super) struct Appender {
    disk: Arc<dyn ArchiveDisk>,
    shared: Arc<Shared>,
    tail: Option<Tail>,
    /// Something failed: what is on the disk must be looked at before it goes on.
    broken: bool,
    /// There was no space, and nothing was written since.
    full: bool,
}

impl Appender {
    pub(super) fn new(disk: Arc<dyn ArchiveDisk>, shared: Arc<Shared>, tail: Option<Tail>) -> Appender {
        let appender = Appender { disk, shared, tail, broken: false, full: false };
        appender.publish();
        appender
    }

    /// A connection begins: what the one before left half is taken back, the rest made durable.
    pub(super) fn begin(&mut self) -> Result<End, Fault> {
        if let Some(tail) = &mut self.tail
            && !self.broken
        {
            let cut = tail.cut();
            self.broken = cut.is_err() || tail.boundary == 0;
            cut?;
        }
        if self.broken {
            self.reopen()?;
        }
        self.sync()?;
        // Whether there is space again is known when something was written.
        if !self.full {
            self.shared.set_error(None);
        }
        Ok(self.end())
    }

    fn reopen(&mut self) -> Result<(), Fault> {
        let durable = self.shared.durable.borrow().place;
        self.tail = None;
        let mut recovered = Recovered::default();
        let broken = |error: super::ArchiveError| match &error {
            super::ArchiveError::Io { action, path, source } => {
                Fault::io(action, &path.display().to_string(), source)
            }
            _ => Fault::Broken { reason: error.to_string() },
        };
        // What a file that is written anew or pruned right now is on the disk would not be what it is behind that.
        let shared = self.shared.clone();
        let _alone = shared.mending.lock();
        let mut lineages = recover::load(&*self.disk, &mut recovered).map_err(broken)?;
        let settled = recover::settle(&*self.disk, &mut lineages, Some(durable), &mut recovered);
        self.tail = settled.map_err(broken)?;
        *self.shared.lineages.write() = lineages;
        for file in recovered.damage {
            match self.shared.file(file.lineage, file.ordinal) {
                Some(_) => self.shared.damages.keep(file),
                None => self.shared.damages.add(file),
            }
        }
        self.broken = false;
        self.publish();
        Ok(())
    }

    /// Where it ends.
    pub(super) fn end(&self) -> End {
        let lineages = self.shared.lineages.read();
        let newest = lineages.last();
        let file = newest.and_then(|newest| newest.archived().next_back());
        End {
            lineage: newest.map(|newest| newest.record.lineage.clone()),
            file,
            head: self.tail.as_ref().map(Tail::head).unwrap_or_default(),
            gtid: self.tail.as_ref().map(|tail| tail.gtid.to_string()).unwrap_or_default(),
        }
    }

    /// Does it. After a fault only [`Appender::begin`] helps; what came before it is synced.
    pub(super) fn append(&mut self, work: Append) -> Result<(), Fault> {
        if self.broken {
            return Err(Fault::rejected("the archive has failed, and was not begun anew"));
        }
        let done = match work {
            Append::Open { lineage, name, ordinal, joined } => self.open(lineage, name, ordinal, joined),
            Append::Bytes { offset, arrived, bytes } => self.bytes(offset, arrived, &bytes),
            Append::Closed { name, len } => self.closed(&name, len),
        };
        if let Err(fault) = &done {
            // What came before is good, if the disk still takes it.
            if matches!(fault, Fault::Rejected { .. }) {
                let _ = self.sync();
            }
            self.failed(fault);
        }
        done
    }

    fn failed(&mut self, fault: &Fault) {
        self.broken = true;
        self.full = matches!(fault, Fault::Full { .. });
        self.shared.set_error(Some(fault.to_string()));
    }

    fn open(
        &mut self,
        lineage: Lineage,
        name: String,
        ordinal: u32,
        joined: Option<Joined>,
    ) -> Result<(), Fault> {
        let number = lineage.number;
        self.begin_again(&lineage, &name, ordinal)?;
        let new = self.may_open(&lineage, &name, ordinal)?;
        self.sync()?;
        let before = match &self.tail {
            Some(tail) => {
                let path = tail.path();
                tail.seal_index().map_err(|error| Fault::io("sync the index of", &path, &error))?;
                let before = tail.before_next();
                if new { Before { clock: before.clock, ..Before::nothing(lineage.flavor) } } else { before }
            }
            None => Before::nothing(lineage.flavor),
        };
        self.tail = None;
        let folder = folder(number);
        let failed = |action: &'static str| move |error: io::Error| Fault::io(action, &folder, &error);
        if new {
            let record = LineageRecord { lineage, joined };
            lineage::create(&*self.disk, &record).map_err(failed("begin"))?;
            let mut lineages = self.shared.lineages.write();
            if let Some(last) = lineages.last_mut().and_then(|entry| entry.files.last_mut()) {
                last.closed = true;
            }
            lineages.push(LineageEntry { record, files: Vec::new() });
        }
        // Of one that was lost, and comes again.
        self.shared.damages.forget(number, ordinal);
        list(&*self.disk, number, &name).map_err(|error| Fault::io("write", &list_name(number), &error))?;
        self.tail = Some(Tail::create(&*self.disk, (number, ordinal), &name, before)?);
        if let Some(newest) = self.shared.lineages.write().last_mut() {
            if let Some(last) = newest.files.last_mut() {
                last.closed = true;
            }
            newest.files.push(FileEntry { name, len: 0, closed: false, there: true, lost: false });
        }
        Ok(())
    }

    /// A lineage of which no file is there any more begins again with its first one.
    fn begin_again(&self, lineage: &Lineage, name: &str, ordinal: u32) -> Result<(), Fault> {
        let mut lineages = self.shared.lineages.write();
        let Some(newest) = lineages.last_mut().filter(|newest| newest.record.lineage == *lineage) else {
            return Ok(());
        };
        let is_first = ordinal == 1 && newest.files.first().is_some_and(|first| first.name == name);
        if !is_first || newest.files.iter().any(|file| file.there) {
            return Ok(());
        }
        while let Some(file) = newest.files.last() {
            recover::take_back(&*self.disk, lineage.number, &file.name)
                .map_err(|error| Fault::io("take back", &file.name, &error))?;
            newest.files.pop();
        }
        Ok(())
    }

    /// Is it the file that comes next? True: it begins a lineage.
    fn may_open(&self, lineage: &Lineage, name: &str, ordinal: u32) -> Result<bool, Fault> {
        let lineages = self.shared.lineages.read();
        let newest = lineages.last();
        let next = newest.map_or(1, |newest| newest.record.lineage.number + 1);
        if lineage.number == next {
            if ordinal != 1 {
                return Err(Fault::rejected(format!("lineage {next} would begin with file {ordinal}")));
            }
            return Ok(true);
        }
        let Some(newest) = newest.filter(|newest| newest.record.lineage == *lineage) else {
            return Err(Fault::rejected(format!(
                "lineage {} is neither the newest of this archive nor lineage {next}",
                lineage.number
            )));
        };
        if newest.files.iter().any(|file| file.name == name) {
            return Err(Fault::rejected(format!(
                "{name} is in lineage {} already: the server begins its files anew (RESET MASTER), which takes a new \
                 lineage",
                lineage.number
            )));
        }
        let expected = newest.files.len() as u32 + 1;
        let closed = self.tail.as_ref().is_none_or(|tail| tail.closed);
        if ordinal != expected || !closed {
            return Err(Fault::rejected(format!(
                "{name} is to be file {ordinal} of lineage {}, where file {expected} comes next{}",
                lineage.number,
                if closed { "" } else { " when the one before it is complete" }
            )));
        }
        Ok(false)
    }

    fn bytes(&mut self, offset: u64, arrived: Timestamp, bytes: &[u8]) -> Result<(), Fault> {
        let Some(tail) = self.tail.as_mut().filter(|tail| !tail.closed) else {
            return Err(Fault::rejected("bytes without an open file"));
        };
        if offset != tail.written {
            let (name, end) = (&tail.name, tail.written);
            return Err(Fault::rejected(format!("bytes for offset {offset} of {name}, which ends at {end}")));
        }
        tail.append(bytes, arrived)
    }

    fn closed(&mut self, name: &str, len: u64) -> Result<(), Fault> {
        let Some(tail) = self.tail.as_mut().filter(|tail| tail.name == name) else {
            return Err(Fault::rejected(format!("{name} is closed, which is not the open file")));
        };
        if len != tail.written || len != tail.boundary {
            return Err(Fault::rejected(format!(
                "{name} is closed with {len} bytes; the archive has {} of it, {} of them whole events",
                tail.written, tail.boundary
            )));
        }
        tail.closed = true;
        self.sync()?;
        if let Some(last) = self.shared.lineages.write().last_mut().and_then(|newest| newest.files.last_mut())
        {
            last.closed = true;
        }
        Ok(())
    }

    /// The published end.
    pub(super) fn durable(&self) -> Place {
        self.shared.durable.borrow().place
    }

    /// Bytes that wait for a sync.
    pub(super) fn unsynced(&self) -> u64 {
        if self.broken { 0 } else { self.tail.as_ref().map_or(0, |tail| tail.unsynced) }
    }

    /// Everything appended is on the disk when this returns, and published; the new end, if there is one.
    pub(super) fn sync(&mut self) -> Result<Option<Place>, Fault> {
        let Some(tail) = self.tail.as_mut().filter(|_| !self.broken) else { return Ok(None) };
        match tail.sync(&*self.disk) {
            Ok(false) => Ok(None),
            Ok(true) => {
                if std::mem::take(&mut self.full) {
                    self.shared.set_error(None);
                }
                self.publish();
                Ok(Some(self.shared.durable.borrow().place))
            }
            Err(fault) => {
                self.failed(&fault);
                Err(fault)
            }
        }
    }

    fn publish(&self) {
        let Some(tail) = self.tail.as_ref().filter(|tail| tail.durable > 0) else { return };
        if let Some(last) = self.shared.lineages.write().last_mut().and_then(|newest| newest.files.last_mut())
        {
            last.len = tail.durable;
        }
        let place = Place { lineage: tail.lineage, file: tail.ordinal, offset: tail.durable };
        let was = self.shared.durable.borrow().place;
        if place < was {
            tracing::error!("the archive ends at {} and did at {}", shown(place), shown(was));
        }
        let gtid = Some(tail.gtid.clone());
        let settled = tail.settled();
        self.shared.durable.send_replace(Durable { place, gtid, arrived: tail.newest, settled });
    }
}

/// Appends a name to a lineage's list; it is on the disk when this returns.
fn list(disk: &dyn ArchiveDisk, number: u32, name: &str) -> io::Result<()> {
    let path = list_name(number);
    let file = match disk.open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => disk.create(&path)?,
        opened => opened?,
    };
    let end = file.len()?;
    file.write_at([name.as_bytes(), b"\n"], end)?;
    file.sync()?;
    if end == 0 { disk.sync_folder(&folder(number)) } else { Ok(()) }
}
