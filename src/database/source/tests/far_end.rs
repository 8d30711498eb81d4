//! An archive in memory at the far end of a lane, as strict as the real one: bytes at its end only, whole events when a
//! connection falls.

use super::super::lane::PATCHES;
use crate::database::link::{BoxFuture, Dial, Wire, WireIn, WireOut};
use bytes::Bytes;
use ehpc_proto::binlog::{FileScan, Flavor, FormatDescription, Grouper, GtidState};
use ehpc_proto::replication::database::{
    ArchivedFile, CREDIT, DATABASE_VERSION, DbAnswer, DbQuery, Joined, Lineage, MAX_HEAD, Mark, Place,
    ToArchive, ToSource,
};
use ehpc_proto::replication::wire::{Payload, decode_to_archive, encode_to_source};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// A file of the archive.
#[derive(Clone, Debug)]
pub(super) struct ArchiveFile {
    pub(super) lineage: u32,
    pub(super) ordinal: u32,
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    pub(super) closed: bool,
}

#[derive(Default)]
pub(super) struct Contents {
    pub(super) lineages: Vec<(Lineage, Option<Joined>)>,
    pub(super) files: Vec<ArchiveFile>,
    pub(super) marks: Vec<Mark>,
    pub(super) connections: u32,
    /// Bytes that came with a time of arrival.
    pub(super) live: u64,
    /// Bytes for a range that is written anew.
    pub(super) patch: Vec<u8>,
    /// Most of them, in pieces and bytes, that came although nothing was answered for a moment.
    pub(super) patch_ahead: (usize, usize),
    /// Connections that ended in order.
    pub(super) finished: u32,
    /// Its disk is full: it takes nothing.
    pub(super) full: bool,
    /// What broke the rules.
    pub(super) faults: Vec<String>,
}

/// The archive; connections of the lane are made to it.
#[derive(Clone)]
pub(super) struct FarEnd {
    pub(super) contents: Arc<Mutex<Contents>>,
    /// While true nothing becomes durable.
    pub(super) hold: watch::Sender<bool>,
    /// Counts up to cut all connections.
    pub(super) cut: watch::Sender<u64>,
    /// What happens to who dials.
    pub(super) dialled: Arc<Mutex<Dialled>>,
}

/// What happens to who dials.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) enum Dialled {
    #[default]
    Answer,
    /// Nobody is there.
    Away,
    /// The dialling itself panics, once.
    Panic,
}

impl FarEnd {
    pub(super) fn new() -> FarEnd {
        FarEnd {
            contents: Arc::new(Mutex::new(Contents::default())),
            hold: watch::channel(false).0,
            cut: watch::channel(0).0,
            dialled: Arc::default(),
        }
    }

    pub(super) fn files(&self) -> Vec<ArchiveFile> {
        self.contents.lock().files.clone()
    }

    pub(super) fn cut_connections(&self) {
        self.cut.send_modify(|cut| *cut += 1);
    }
}

impl Contents {
    /// As after a restart: the last file is cut behind its last whole event.
    fn recover(&mut self) -> ToSource {
        if let Some(file) = self.files.last_mut()
            && !file.closed
        {
            let end = whole(&file.bytes).0;
            file.bytes.truncate(end as usize);
        }
        let lineage = self.lineages.last().map(|(lineage, _)| lineage.clone());
        let file = self.files.last();
        let gtid = lineage.as_ref().map(|lineage| self.state(lineage)).unwrap_or_default();
        ToSource::Welcome {
            version: DATABASE_VERSION,
            lineage,
            file: file.map(entry),
            head: file.map(|file| file.bytes[..file.bytes.len().min(MAX_HEAD)].to_vec()).unwrap_or_default(),
            gtid,
            credit: CREDIT,
        }
    }

    /// GTID state at the end: whole groups.
    pub(super) fn state(&self, lineage: &Lineage) -> String {
        let mut state = GtidState::empty(Flavor::MariaDb);
        if lineage.flavor == Flavor::MySql {
            state = GtidState::empty(Flavor::MySql);
        }
        for file in &self.files {
            let (mut scan, mut grouper) = (FileScan::new(), Grouper::new());
            let mut rest = file.bytes.as_slice();
            while let Ok(Some(event)) = scan.next(&mut rest) {
                let group = grouper.event(&event).unwrap();
                if let Some(initial) = grouper.initial() {
                    state.merge(initial);
                }
                if let Some(gtid) = group.and_then(|group| group.gtid) {
                    state.add(&gtid);
                }
            }
        }
        state.to_string()
    }

    fn take(&mut self, message: ToArchive) -> Result<(), String> {
        match message {
            ToArchive::Open { lineage, name, ordinal, joined } => {
                let newest = self.lineages.last().map(|(lineage, _)| lineage.clone());
                let number = newest.as_ref().map_or(0, |lineage| lineage.number);
                if newest.as_ref() != Some(&lineage) {
                    if lineage.number != number + 1 || ordinal != 1 {
                        return Err(format!("lineage {} after {number}, file {ordinal}", lineage.number));
                    }
                    self.lineages.push((lineage.clone(), joined));
                } else {
                    let last = self.files.last().map(|file| (file.closed, file.ordinal));
                    if last != Some((true, ordinal - 1)) {
                        return Err(format!("file {ordinal} after {last:?}"));
                    }
                }
                let lineage = lineage.number;
                self.files.push(ArchiveFile { lineage, ordinal, name, bytes: Vec::new(), closed: false });
            }
            ToArchive::Bytes { offset, bytes, arrived } => {
                let file = self.files.last_mut().ok_or("bytes without a file")?;
                if file.closed || offset != file.bytes.len() as u64 {
                    return Err(format!("bytes at {offset} of {} that has {}", file.name, file.bytes.len()));
                }
                file.bytes.extend_from_slice(&bytes);
                if arrived.seconds != 0 {
                    self.live += bytes.len() as u64;
                }
            }
            ToArchive::Closed { name, len } => {
                let file = self.files.last_mut().ok_or("an end without a file")?;
                if file.name != name || file.bytes.len() as u64 != len || whole(&file.bytes).0 != len {
                    return Err(format!("{name} ends at {len}, but {} has {}", file.name, file.bytes.len()));
                }
                file.closed = true;
            }
            ToArchive::Mark(mark) => self.marks.push(mark),
            _ => {}
        }
        Ok(())
    }

    fn durable(&self) -> Option<Place> {
        let file = self.files.last()?;
        let offset = whole(&file.bytes).0;
        (offset > 0).then_some(Place { lineage: file.lineage, file: file.ordinal, offset })
    }
}

fn entry(file: &ArchiveFile) -> ArchivedFile {
    ArchivedFile {
        lineage: file.lineage,
        ordinal: file.ordinal,
        name: file.name.clone(),
        len: file.bytes.len() as u64,
        closed: file.closed,
    }
}

/// End of the last whole event, and the format.
pub(super) fn whole(bytes: &[u8]) -> (u64, Option<FormatDescription>) {
    let mut scan = FileScan::new();
    let mut rest = bytes;
    while scan.next(&mut rest).unwrap().is_some() {}
    (scan.boundary(), scan.format().cloned())
}

/// One end of a connection in memory; an empty message is its orderly end.
pub(super) struct Halves {
    out: mpsc::Sender<Bytes>,
    input: mpsc::Receiver<Bytes>,
}

/// Both ends.
pub(super) fn connection() -> (Halves, Halves) {
    let (to_archive, received) = mpsc::channel(4);
    let (answers, from_archive) = mpsc::channel(64);
    (Halves { out: to_archive, input: from_archive }, Halves { out: answers, input: received })
}

struct In(mpsc::Receiver<Bytes>);
struct Out(mpsc::Sender<Bytes>);

impl Wire for Halves {
    fn split(self: Box<Self>) -> (Box<dyn WireIn>, Box<dyn WireOut>) {
        (Box::new(In(self.input)), Box::new(Out(self.out)))
    }
}

impl WireIn for In {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, String>> {
        Box::pin(async {
            match self.0.recv().await {
                Some(message) if message.is_empty() => Ok(None),
                Some(message) => Ok(Some(message)),
                None => Err("the lane was cut".to_owned()),
            }
        })
    }
}

impl WireOut for Out {
    fn send(&mut self, message: Payload) -> BoxFuture<'_, Result<(), String>> {
        let bytes = Bytes::from(message.joined());
        Box::pin(async { self.0.send(bytes).await.map_err(|_| "the lane was cut".to_owned()) })
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }

    fn finish(&mut self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { self.0.send(Bytes::new()).await.map_err(|_| "the lane was cut".to_owned()) })
    }
}

impl Dial for FarEnd {
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn Wire>, String>> {
        Box::pin(async {
            let dialled = *self.dialled.lock();
            match dialled {
                Dialled::Answer => {}
                Dialled::Away => return Err("nobody is there".to_owned()),
                Dialled::Panic => {
                    *self.dialled.lock() = Dialled::Answer;
                    panic!("a defect, made by the test");
                }
            }
            let (here, there) = connection();
            tokio::spawn(serve(self.clone(), there.input, there.out));
            Ok(Box::new(here) as Box<dyn Wire>)
        })
    }
}

async fn serve(end: FarEnd, mut received: mpsc::Receiver<Bytes>, answers: mpsc::Sender<Bytes>) {
    let (mut hold, mut cut) = (end.hold.subscribe(), end.cut.subscribe());
    let (mut told, mut patched, mut ahead) = (None, (0, 0), Vec::new());
    // Questions about what has arrived of a repair.
    let mut held = Vec::new();
    let mut number = 0;
    loop {
        let message = tokio::select! {
            message = received.recv() => message,
            _ = cut.changed() => return,
            _ = hold.changed() => {
                if !tell(&end, &hold, &mut told, &answers).await {
                    return;
                }
                continue;
            }
        };
        let Some(message) = message else { return };
        if message.is_empty() {
            end.contents.lock().finished += 1;
            return;
        }
        let mut say = Vec::new();
        match decode_to_archive(message).unwrap() {
            ToArchive::Hello { .. } => {
                let mut contents = end.contents.lock();
                contents.connections += 1;
                number = contents.connections;
                say.push(contents.recover());
            }
            ToArchive::Ping(n) => say.push(ToSource::Pong(n)),
            ToArchive::Ask { id, query: DbQuery::Files { from: (u32::MAX, u32::MAX) } } => {
                held.push(id);
                let missing = patched.0 + (end.contents.lock().patch.len() as u64) < patched.1;
                if !missing || held.len() == PATCHES {
                    // What more comes now is not bounded.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    let mut contents = end.contents.lock();
                    let now = (ahead.len() + received.len(), ahead.drain(..).sum());
                    contents.patch_ahead = contents.patch_ahead.max(now);
                    let nothing =
                        |id| ToSource::Answer { id, more: false, answer: DbAnswer::Files(Vec::new()) };
                    say.extend(held.drain(..).map(nothing));
                }
            }
            ToArchive::Ask { id, query: DbQuery::Files { from } } => {
                let files = end.files();
                let from = files.iter().filter(|file| (file.lineage, file.ordinal) >= from);
                let mut answers: Vec<_> = from.map(|file| DbAnswer::Files(vec![entry(file)])).collect();
                answers.push(DbAnswer::Files(Vec::new()));
                let last = answers.len() - 1;
                let parts = answers.into_iter().enumerate();
                say.extend(parts.map(|(n, answer)| ToSource::Answer { id, more: n < last, answer }));
            }
            ToArchive::Ask { query: DbQuery::Refetch { from, to, .. }, .. } => {
                patched = (from, to);
                (ahead, held) = (Vec::new(), Vec::new());
            }
            ToArchive::Ask { .. } => {}
            ToArchive::Patch { id, offset, bytes } => {
                let mut contents = end.contents.lock();
                assert_eq!(offset, patched.0 + contents.patch.len() as u64);
                contents.patch.extend_from_slice(&bytes);
                ahead.push(bytes.len());
                say.push(ToSource::Credit { bytes: bytes.len() as u64 });
                if patched.0 + contents.patch.len() as u64 == patched.1 {
                    say.push(ToSource::Answer { id, more: false, answer: DbAnswer::Refetched });
                }
            }
            message => {
                if let ToArchive::Bytes { bytes, .. } = &message {
                    say.push(ToSource::Credit { bytes: bytes.len() as u64 });
                }
                let mut contents = end.contents.lock();
                // Since the hello of a newer one nothing of this connection counts.
                if number != contents.connections {
                    return;
                }
                if contents.full {
                    say.push(ToSource::Refused { reason: "no space left on the disk".to_owned() });
                } else if let Err(reason) = contents.take(message) {
                    contents.faults.push(reason.clone());
                    say.push(ToSource::Refused { reason });
                }
            }
        }
        for message in say {
            if answers.send(Bytes::from(encode_to_source(&message))).await.is_err() {
                return;
            }
        }
        if !tell(&end, &hold, &mut told, &answers).await {
            return;
        }
    }
}

/// Says what is durable, when it is more than was said.
async fn tell(
    end: &FarEnd,
    hold: &watch::Receiver<bool>,
    told: &mut Option<Place>,
    answers: &mpsc::Sender<Bytes>,
) -> bool {
    if *hold.borrow() {
        return true;
    }
    let durable = end.contents.lock().durable();
    if durable == *told {
        return true;
    }
    *told = durable;
    match durable {
        Some(place) => answers.send(Bytes::from(encode_to_source(&ToSource::Durable(place)))).await.is_ok(),
        None => true,
    }
}
