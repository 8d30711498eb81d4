//! One connection: login, questions, then the log.

use super::answers::{Answer, Identity, Now, Wishes, answer, error, ok};
use super::feed::{Feed, limit, state_at};
use super::login::{Account, LoginDialogue, Step};
use super::packets::PacketWriter;
use super::registry::{Registry, Visit};
use super::start::{Request, Start, StartFault, find, open};
use super::stream::{StreamEnd, Streamer};
use ehpc_proto::binlog::{Checksum, Flavor, GtidState, MySqlSet};
use ehpc_proto::mysql::command::{Command, DUMP_ANNOTATE, DUMP_NON_BLOCK};
use ehpc_proto::mysql::packet::{Assembler, Packet};
use ehpc_proto::mysql::response::{Response, ServerError};
use ehpc_proto::mysql::{MAX_LOGIN, MAX_QUERY};
use ehpc_proto::replication::database::Place;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

/// Time for a login.
const LOGIN: Duration = Duration::from_secs(10);
/// Time between two questions.
const IDLE: Duration = Duration::from_secs(60);
/// Before a replica that has had events is told that a file cannot be read now: it comes again at once.
const AGAIN: Duration = Duration::from_secs(3);
/// Bytes read at once.
const READ: usize = 4096;

/// What all connections share.
pub struct Shared {
    /// What is served.
    pub feed: Arc<dyn Feed>,
    /// Who may have it.
    pub account: Account,
    /// Who is connected.
    pub registry: Arc<Registry>,
}

/// Why a connection ends that is not a stream.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionEnd {
    /// Closed, or broken.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Not the protocol.
    #[error("what came is not the protocol: {0}")]
    Protocol(String),
    /// Nothing came in time.
    #[error("nothing came for {0:?}")]
    Slow(Duration),
    /// The login failed.
    #[error("{0}")]
    Refused(ServerError),
    /// The archive is empty.
    #[error("the archive is empty")]
    Empty,
    /// It said that it goes.
    #[error("it has gone")]
    Quit,
    /// The stream.
    #[error(transparent)]
    Stream(#[from] StreamEnd),
}

struct Connection<R, W> {
    shared: Arc<Shared>,
    visit: Visit,
    input: R,
    assembler: Assembler,
    /// Bytes that were read and belong to later packets.
    pending: Vec<u8>,
    output: PacketWriter<W>,
    wishes: Wishes,
    identity: Identity,
    /// How the newest file's events are summed.
    checksum: Checksum,
}

/// Serves a connection to its end.
pub async fn serve<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    shared: Arc<Shared>,
    visit: Visit,
    input: R,
    output: W,
) -> ConnectionEnd {
    let mut output = PacketWriter::new(output);
    let Some(identity) = shared.feed.identity() else {
        // An error in place of a greeting: replicas come again.
        let error = ServerError::new(1040, "08004", "The archive is empty: no binary log has arrived yet");
        output.packet(&error.encode_greeting());
        return output.flush().await.map_or_else(ConnectionEnd::Io, |()| ConnectionEnd::Empty);
    };
    let mut connection = Connection {
        shared,
        visit,
        input,
        assembler: Assembler::new(MAX_LOGIN),
        pending: Vec::new(),
        output,
        wishes: Wishes::default(),
        identity,
        checksum: Checksum::Crc32,
    };
    match connection.run().await {
        Ok(never) => match never {},
        Err(end) => end,
    }
}

type Never = std::convert::Infallible;

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Connection<R, W> {
    async fn run(&mut self) -> Result<Never, ConnectionEnd> {
        tokio::time::timeout(LOGIN, self.login()).await.map_err(|_| ConnectionEnd::Slow(LOGIN))??;
        self.assembler.set_limit(MAX_QUERY);
        self.checksum = newest_checksum(Arc::clone(&self.shared.feed)).await?;
        loop {
            let packet =
                tokio::time::timeout(IDLE, self.packet()).await.map_err(|_| ConnectionEnd::Slow(IDLE))??;
            self.output.set_sequence(packet.last.wrapping_add(1));
            let command = Command::decode(&packet.payload)
                .map_err(|fault| ConnectionEnd::Protocol(fault.to_string()))?;
            self.command(command).await?;
            self.output.flush().await?;
        }
    }

    /// The next whole packet.
    async fn packet(&mut self) -> Result<Packet, ConnectionEnd> {
        loop {
            let mut rest = self.pending.as_slice();
            let packet = self.assembler.feed(&mut rest);
            let taken = self.pending.len() - rest.len();
            self.pending.drain(..taken);
            if let Some(packet) = packet.map_err(|fault| ConnectionEnd::Protocol(fault.to_string()))? {
                return Ok(packet);
            }
            let mut bytes = [0; READ];
            match self.input.read(&mut bytes).await? {
                0 => return Err(ConnectionEnd::Quit),
                read => self.pending.extend_from_slice(&bytes[..read]),
            }
        }
    }

    async fn login(&mut self) -> Result<(), ConnectionEnd> {
        let mut login = LoginDialogue::new(self.shared.account.clone(), rand::random());
        self.output.packet(&login.greeting(&self.identity.banner(), self.visit.id));
        self.output.flush().await?;
        loop {
            let packet = self.packet().await?;
            self.output.set_sequence(packet.last.wrapping_add(1));
            match login.received(&packet) {
                Step::Ask(payload) => self.output.packet(&payload),
                Step::In(payload) => {
                    self.output.packet(&payload);
                    return Ok(self.output.flush().await?);
                }
                Step::Refused(error) => {
                    self.output.packet(&error.encode());
                    self.output.flush().await?;
                    return Err(ConnectionEnd::Refused(error));
                }
            }
            self.output.flush().await?;
        }
    }

    async fn command(&mut self, command: Command) -> Result<(), ConnectionEnd> {
        match command {
            Command::Quit => return Err(ConnectionEnd::Quit),
            Command::Ping | Command::RegisterReplica(_) => self.say(&Answer::Ok),
            Command::Query(sql) => self.query(&sql).await?,
            Command::BinlogDump(dump) => {
                let position = u64::from(dump.position);
                let request = match self.wishes.connect_state.clone() {
                    Some(state) => {
                        Request::Gtid { state: GtidState::Maria(state), until: self.wishes.until.clone() }
                    }
                    None => Request::Position { file: dump.file, position },
                };
                self.dump(request, dump.server_id, dump.flags).await?;
            }
            // File and position mean nothing: replicas send what was left of an earlier start there.
            Command::BinlogDumpGtid(dump) => {
                let set = MySqlSet::decode(&dump.set)
                    .map_err(|fault| ConnectionEnd::Protocol(fault.to_string()))?;
                let request = Request::Gtid { state: GtidState::MySql(set), until: None };
                self.dump(request, dump.server_id, dump.flags & !DUMP_ANNOTATE).await?;
            }
            Command::Other(_) => self.say(&error(1047, "Unknown command")),
        }
        Ok(())
    }

    fn say(&mut self, answer: &Answer) {
        answer.packets().iter().for_each(|packet| self.output.packet(packet));
    }

    async fn query(&mut self, sql: &[u8]) -> Result<(), ConnectionEnd> {
        let (_, state) = self.shared.feed.end();
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let now = Now { unix, identity: &self.identity, checksum: self.checksum, state: &state };
        match answer(sql, now, &mut self.wishes) {
            Answer::GtidPosition { file, position } => {
                let state = gtid_position(Arc::clone(&self.shared.feed), file, position).await?;
                self.say(&Answer::one("binlog_gtid_pos", &state));
            }
            Answer::Kill(id) if self.shared.registry.kill(id) => self.output.packet(&ok().encode()),
            Answer::Kill(id) => self.say(&error(1094, format!("Unknown thread id: {id}"))),
            answer => self.say(&answer),
        }
        Ok(())
    }

    /// Sends the log; returns with its end only.
    async fn dump(&mut self, request: Request, server_id: u32, flags: u16) -> Result<(), ConnectionEnd> {
        let end = match self.start(request, flags).await {
            Ok(start) => {
                self.visit.serves(server_id, &start.opened.at, start.position);
                let mut streamer = Streamer {
                    feed: Arc::clone(&self.shared.feed),
                    input: &mut self.input,
                    output: &mut self.output,
                    selection: start.selection,
                    heartbeat: self.wishes.heartbeat,
                    non_blocking: flags & DUMP_NON_BLOCK != 0,
                    identity: &self.identity,
                    visit: &self.visit,
                    name: String::new(),
                    skipped: false,
                    end: Place::default(),
                };
                let end = streamer.run(start.opened, start.position, self.checksum).await;
                if end.may_pass() {
                    self.pause().await?;
                }
                end
            }
            Err(end) => end,
        };
        if let Some(error) = end.told() {
            self.output.packet(&error.encode());
        } else if matches!(end, StreamEnd::Done) {
            self.output.packet(&Response::Eof.encode());
        }
        self.output.flush().await?;
        Err(end.into())
    }

    /// Sends what is ready, and waits until the replica should come again, or we or it end this.
    async fn pause(&mut self) -> io::Result<()> {
        self.output.flush().await?;
        let mut word = [0; 1];
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = self.visit.cancelled() => {}
            _ = self.input.read(&mut word) => {}
        }
        Ok(())
    }

    async fn start(&self, request: Request, flags: u16) -> Result<Start, StreamEnd> {
        let (feed, annotate) = (Arc::clone(&self.shared.feed), flags & DUMP_ANNOTATE != 0);
        let start = tokio::task::spawn_blocking(move || find(feed.as_ref(), request, annotate));
        let start = start.await.map_err(io::Error::other)??;
        let maria = self.identity.flavor == Flavor::MariaDb;
        if !self.wishes.checksums && start.opened.head.format.checksum == Checksum::Crc32 {
            return Err(StartFault::NoChecksums.into());
        }
        if maria && self.wishes.capability < 4 {
            return Err(StartFault::Capability(self.wishes.capability).into());
        }
        Ok(start)
    }
}

/// How events are summed in the newest file that says. (Of one that cannot be read a replica is told when it asks for it.)
async fn newest_checksum(feed: Arc<dyn Feed>) -> io::Result<Checksum> {
    let found = tokio::task::spawn_blocking(move || {
        let (end, _) = feed.end();
        for at in feed.files()?.iter().rev() {
            if let Ok(Some(opened)) = open(feed.as_ref(), at, end) {
                return Ok(opened.head.format.checksum);
            }
        }
        Ok(Checksum::Crc32)
    });
    found.await.map_err(io::Error::other)?
}

/// The GTID state at a place, as text; empty when it is not known.
async fn gtid_position(feed: Arc<dyn Feed>, name: String, position: u64) -> io::Result<String> {
    let found = tokio::task::spawn_blocking(move || {
        let Some(at) = feed.files()?.into_iter().rev().find(|file| file.name == name) else {
            return Ok(String::new());
        };
        let (end, _) = feed.end();
        let file = feed.open(at.lineage, at.file)?;
        let (limit, _) = limit(feed.as_ref(), &at, end).map_err(io::Error::other)?;
        let state = state_at(&file, &at.name, position.min(limit)).map_err(io::Error::other)?;
        Ok(state.map_or_else(String::new, |state| state.to_string()))
    });
    found.await.map_err(io::Error::other)?
}
