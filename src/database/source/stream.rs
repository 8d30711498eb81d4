//! One connection to the server, from its first event to whatever ends it: a task reads, this one ships, a third
//! acknowledges.

use super::acks::Acks;
use super::connect::{Reader, Stream, Writer};
use super::fault::{Blame, SourceFault};
use super::lane::Lane;
use super::locate::Located;
use super::session::StreamSession;
use super::shared::{Cursor, Shared};
use super::ship::{Ship, StreamFault};
use crate::observe::metrics;
use bytes::{Bytes, BytesMut};
use ehpc_proto::binlog::GtidState;
use ehpc_proto::mysql::packet::{StreamAssembler, write_packet};
use ehpc_proto::replication::database::{Joined, Lineage, Place, ToArchive};
use ehpc_proto::replication::state::Timestamp;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;

/// The server says "alive" after so long a silence.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(1);
/// Silence after which the connection is given up. (A server that syncs a slow disk may skip a heartbeat or two.)
const SILENT: Duration = Duration::from_secs(8);
/// The same while the server sends what is older: it reads each event whole before it sends it, from a disk that may be
/// slow, and says nothing meanwhile. An event may have 1 GiB.
pub(super) const SILENT_READING: Duration = Duration::from_secs(120);
/// Bytes of one read.
const READ: usize = 256 * 1024;
/// A buffer with less room than this is not read into.
const SMALL: usize = 32 * 1024;
/// Reads that wait to be shipped.
const READS: usize = 4;
/// Events so old by the server's clock are not live.
const LIVE: u64 = 2;

/// Reads until the server has sent the format description of that place's file: whether it is the place that the archive
/// means. What was read stays in the stream.
pub(super) async fn begins(
    stream: &mut Stream,
    located: &Located,
    semi_sync: bool,
    blame: &Blame,
) -> Result<(), SourceFault> {
    let mut assembler = StreamAssembler::new();
    let mut session = StreamSession::at(&located.file, located.offset, located.expected.clone(), semi_sync);
    let mut looked_at = 0;
    loop {
        let mut bytes = &stream.rest[looked_at..];
        while let Some(piece) = assembler.push(&mut bytes).map_err(|error| blame.damaged(error))? {
            session.piece(piece, &mut Vec::new()).map_err(|fault| blame.stream(fault))?;
            if session.is_described() {
                return Ok(());
            }
        }
        looked_at = stream.rest.len();
        if looked_at > READ {
            return Err(blame.damaged("no format description at its start"));
        }
        stream.rest.reserve(SMALL);
        match timeout(SILENT_READING, stream.reader.read_buf(&mut stream.rest)).await {
            Ok(Ok(0)) => return Err(blame.lost("the server closed the connection")),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(blame.lost(error)),
            Err(_) => return Err(blame.lost(format!("it was silent for {} s", SILENT_READING.as_secs()))),
        }
    }
}

/// Ships until something ends it; what, and how far the stream had come in whole events.
pub(super) async fn ship(
    shared: &Arc<Shared>,
    lane: &mut Lane,
    located: Located,
    stream: Stream,
    blame: &Blame,
) -> (SourceFault, Place) {
    let (chunks, arriving) = mpsc::channel(READS);
    let acks = Arc::new(Mutex::new(Acks::default()));
    let wanted = Arc::new(Notify::new());
    let mut tasks: JoinSet<io::Error> = JoinSet::new();
    tasks.spawn(read(stream.reader, stream.rest, chunks));
    tasks.spawn(acknowledge(stream.writer, shared.clone(), acks.clone(), wanted.clone()));
    let closing = located.closing.clone();
    let mut shipper = Shipper::new(shared, lane, located, acks, wanted);
    let fault = match closing {
        Some((name, len)) => shipper.send(ToArchive::Closed { name, len }).await.err(),
        None => None,
    };
    let fault = match fault {
        Some(ended) => ended.fault(blame),
        None => relay(&mut shipper, arriving, tasks, blame).await,
    };
    (fault, shipper.place(shipper.session.end()))
}

/// Hands over what arrives.
async fn relay(
    shipper: &mut Shipper<'_>,
    mut arriving: mpsc::Receiver<Bytes>,
    mut tasks: JoinSet<io::Error>,
    blame: &Blame,
) -> SourceFault {
    loop {
        let patience = patience(shipper.live);
        let arrived = tokio::select! {
            biased;
            fault = shipper.lane.fell() => return fault,
            // What has arrived first: a server that ends the connection says why before.
            arrived = timeout(patience, arriving.recv()) => arrived,
            ended = tasks.join_next() => return blame.lost(reason(ended)),
        };
        let chunk = match arrived {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return blame.lost(reason(tasks.join_next().await)),
            Err(_) => return blame.lost(format!("it was silent for {} s", patience.as_secs())),
        };
        if let Err(ended) = shipper.chunk(&chunk, arriving.is_empty()).await {
            return ended.fault(blame);
        }
    }
}

/// Why a task of the connection has ended.
fn reason(ended: Option<Result<io::Error, JoinError>>) -> String {
    match ended {
        Some(Ok(error)) => error.to_string(),
        Some(Err(error)) => format!("its task ended abnormally: {error}"),
        None => "its tasks ended".to_owned(),
    }
}

/// How long a silence is borne. A server that has nothing to send says so every [`HEARTBEAT`].
fn patience(live: bool) -> Duration {
    if live { SILENT } else { SILENT_READING }
}

/// Reads, without a time-out around a read: one that is cut could lose bytes.
async fn read(mut reader: Reader, rest: BytesMut, chunks: mpsc::Sender<Bytes>) -> io::Error {
    let gone = || io::Error::other("nobody reads any more");
    if !rest.is_empty() && chunks.send(rest.freeze()).await.is_err() {
        return gone();
    }
    let mut buffer = BytesMut::with_capacity(READ);
    loop {
        if buffer.capacity() < SMALL {
            buffer.reserve(READ);
        }
        match reader.read_buf(&mut buffer).await {
            Ok(0) => return io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection"),
            Ok(_) => {}
            Err(error) => return error,
        }
        if chunks.send(buffer.split().freeze()).await.is_err() {
            return gone();
        }
    }
}

/// Tells the server what is on the backup's disk, where it waits for that.
async fn acknowledge(
    mut writer: Writer,
    shared: Arc<Shared>,
    acks: Arc<Mutex<Acks>>,
    wanted: Arc<Notify>,
) -> io::Error {
    let mut durable = shared.exchange.durable();
    loop {
        let place = *durable.borrow_and_update();
        let answer = place.and_then(|place| acks.lock().answer(place));
        if let Some((ack, commits)) = answer {
            let mut packet = Vec::new();
            write_packet(&mut packet, &mut 0, &ack.encode());
            let sent = async {
                writer.write_all(&packet).await?;
                writer.flush().await
            };
            if let Err(error) = sent.await {
                return error;
            }
            metrics::DATABASE_COMMITS.add(commits);
        }
        tokio::select! {
            changed = durable.changed() => if changed.is_err() {
                return io::Error::other("the source ended");
            },
            () = wanted.notified() => {}
        }
    }
}

/// Why shipping ends.
enum Ended {
    Stream(StreamFault),
    Packets(String),
    Lane(SourceFault),
}

impl Ended {
    fn fault(self, blame: &Blame) -> SourceFault {
        match self {
            Ended::Stream(fault) => blame.stream(fault),
            Ended::Packets(text) => blame.damaged(text),
            Ended::Lane(fault) => fault,
        }
    }
}

struct Shipper<'a> {
    shared: &'a Arc<Shared>,
    lane: &'a mut Lane,
    assembler: StreamAssembler,
    session: StreamSession,
    out: Vec<Ship>,
    lineage: Lineage,
    joined: Option<Joined>,
    /// The lineage is a new one that the archive has not heard of.
    unborn: bool,
    name: String,
    ordinal: u32,
    gtid: GtidState,
    /// What happened before the lineage is not in `gtid` yet.
    begins: bool,
    /// Ends of groups that are not handed over yet.
    groups: VecDeque<u64>,
    acks: Arc<Mutex<Acks>>,
    wanted: Arc<Notify>,
    /// The server has nothing older to send than what it sends.
    live: bool,
    /// Whether it wants acknowledgements was told.
    told: bool,
    events: u64,
}

impl<'a> Shipper<'a> {
    fn new(
        shared: &'a Arc<Shared>,
        lane: &'a mut Lane,
        located: Located,
        acks: Arc<Mutex<Acks>>,
        wanted: Arc<Notify>,
    ) -> Shipper<'a> {
        let flavor = located.lineage.flavor;
        let known = if located.new { String::new() } else { lane.end.gtid.clone() };
        let gtid = GtidState::parse(flavor, &known).unwrap_or_else(|_| GtidState::empty(flavor));
        let semi = shared.options.semi_sync;
        Shipper {
            shared,
            lane,
            assembler: StreamAssembler::new(),
            session: StreamSession::at(&located.file, located.offset, located.expected, semi),
            out: Vec::new(),
            lineage: located.lineage,
            joined: located.joined,
            unborn: located.new,
            name: located.file,
            ordinal: located.ordinal,
            gtid,
            begins: located.new,
            groups: VecDeque::new(),
            acks,
            wanted,
            live: false,
            told: false,
            events: 0,
        }
    }

    fn place(&self, offset: u64) -> Place {
        Place { lineage: self.lineage.number, file: self.ordinal, offset }
    }

    /// Ships what a read brought. `last`: nothing more is there at the moment.
    async fn chunk(&mut self, chunk: &Bytes, last: bool) -> Result<(), Ended> {
        metrics::DATABASE_BYTES.add(chunk.len() as u64);
        self.shared.bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        let taken = self.pieces(chunk);
        match &taken {
            Ok(()) if last => self.session.flush(&mut self.out),
            Ok(()) => {}
            // What came whole before the fault is the archive's.
            Err(_) => self.session.flush_whole(&mut self.out),
        }
        if !self.told
            && let Some(acknowledges) = self.session.acknowledges()
        {
            self.shared.acknowledges(acknowledges);
            self.told = true;
        }
        let events = self.session.events();
        metrics::DATABASE_EVENTS.add(events - self.events);
        self.shared.events.fetch_add(events - self.events, Ordering::Relaxed);
        self.events = events;
        let mut out = std::mem::take(&mut self.out);
        for ship in out.drain(..) {
            self.hand(ship).await?;
        }
        self.out = out;
        if last {
            self.initial();
            self.shared.grown(self.gtid.to_string());
        }
        taken
    }

    fn pieces(&mut self, mut bytes: &[u8]) -> Result<(), Ended> {
        loop {
            let piece = self.assembler.push(&mut bytes).map_err(|error| Ended::Packets(error.to_string()))?;
            let Some(piece) = piece else { return Ok(()) };
            self.session.piece(piece, &mut self.out).map_err(Ended::Stream)?;
        }
    }

    /// A lineage begins with what its first file says of the time before it.
    fn initial(&mut self) {
        if self.begins
            && let Some(initial) = self.session.initial()
        {
            self.gtid.merge(initial);
            self.begins = false;
        }
    }

    async fn hand(&mut self, ship: Ship) -> Result<(), Ended> {
        match ship {
            Ship::Begin { file, first_event } => {
                if self.unborn {
                    self.lineage.first_event = first_event;
                    self.unborn = false;
                }
                let (lineage, ordinal) = (self.lineage.clone(), self.ordinal);
                let open = ToArchive::Open { lineage, name: file, ordinal, joined: self.joined.take() };
                self.send(open).await
            }
            Ship::Bytes { offset, bytes } => self.bytes(offset, bytes).await,
            Ship::Group(group) => {
                self.initial();
                if let Some(gtid) = &group.gtid {
                    self.gtid.add(gtid);
                }
                self.groups.push_back(group.end);
                self.groups_end();
                Ok(())
            }
            Ship::AckWanted { end } => {
                self.acks.lock().want(self.place(end), &self.name);
                self.wanted.notify_one();
                Ok(())
            }
            Ship::Rotated { len, next } => {
                let name = std::mem::replace(&mut self.name, next);
                self.send(ToArchive::Closed { name, len }).await?;
                self.ordinal += 1;
                self.groups.clear();
                Ok(())
            }
            Ship::Alive => {
                self.live = true;
                self.shared.live();
                Ok(())
            }
        }
    }

    async fn bytes(&mut self, offset: u64, bytes: Bytes) -> Result<(), Ended> {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let credit = self.lane.credit.clone();
        let permit = match credit.try_acquire_many(len) {
            Ok(permit) => permit,
            Err(_) => {
                // The archive's disk is slower than the server: what waits is no longer live.
                self.live = false;
                self.shared.behind();
                tokio::select! {
                    permit = credit.acquire_many(len) => {
                        permit.map_err(|_| Ended::Lane(SourceFault::Lane("it is closed".to_owned())))?
                    }
                    fault = self.lane.fell() => return Err(Ended::Lane(fault)),
                }
            }
        };
        permit.forget();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if !self.live && now.as_secs() <= u64::from(self.session.newest()) + LIVE {
            self.live = true;
            self.shared.live();
        }
        let arrived = match self.live {
            true => Timestamp { seconds: now.as_secs() as i64, nanos: now.subsec_nanos() },
            false => Timestamp::default(),
        };
        let end = self.place(offset + u64::from(len));
        self.send(ToArchive::Bytes { offset, arrived, bytes }).await?;
        self.shared.handed(end, self.session.newest());
        self.shared.cursor.send_replace(Some(Cursor { name: self.name.clone(), place: end }));
        self.groups_end();
        Ok(())
    }

    /// Groups that are handed over whole.
    fn groups_end(&mut self) {
        let handed = self.shared.cursor.borrow().as_ref().map(|cursor| cursor.place);
        let mut newest = None;
        while self.groups.front().is_some_and(|end| handed.is_some_and(|handed| self.place(*end) <= handed)) {
            newest = self.groups.pop_front();
        }
        if let Some(end) = newest {
            self.shared.whole(self.place(end));
        }
    }

    async fn send(&mut self, message: ToArchive) -> Result<(), Ended> {
        let out = self.lane.out.clone();
        tokio::select! {
            sent = out.send(message) => {
                sent.map_err(|_| Ended::Lane(SourceFault::Lane("it is closed".to_owned())))
            }
            fault = self.lane.fell() => Err(Ended::Lane(fault)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_reads_from_a_slow_disk_is_not_given_up() {
        let longest_event: u64 = 1 << 30;
        let slow_disk = 10_000_000;
        assert!(patience(false) > Duration::from_secs(longest_event / slow_disk));
        assert!(patience(true) < Duration::from_secs(10));
    }
}
