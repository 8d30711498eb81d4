//! What a server's dump says before its first transaction: which file it begins in. Asked on a connection of its own, and
//! never by a statement that waits with the commits that wait for us (`SHOW BINARY LOGS` takes `LOCK_log`).

use super::connect::{Stream, connect};
use super::dump::Dump;
use super::fault::{Blame, SourceFault};
use super::session::fake_rotate;
use super::ship::StreamFault;
use crate::database::dsn::Dsn;
use crate::database::sql::CONNECT_WITHIN;
use ehpc_proto::binlog::{EventHeader, FileScan, Flavor, Grouper, GtidState, Kind};
use ehpc_proto::mysql::packet::{Piece, StreamAssembler};
use ehpc_proto::mysql::replica::{Plan, Start};
use ehpc_proto::mysql::response::ServerError;
use std::io;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

/// Bytes of a packet that are looked at: an error's text, an event's header, a fake ROTATE.
const HEAD: usize = 1024;
/// The server reads a file up to the place that was asked for, which may be its end.
const SEARCHED_WITHIN: Duration = Duration::from_secs(120);

/// A dump's answer: the file that it begins in, or the server's refusal.
pub type Begins = Result<String, ServerError>;

fn plan(flavor: Flavor, server_id: u32, start: Start) -> Plan {
    Plan {
        dialect: flavor,
        server_id,
        start,
        heartbeat: Duration::from_secs(1),
        semi_sync: false,
        annotate: false,
        non_blocking: true,
    }
}

/// The name of the server's oldest file: a dump that names none begins there.
///
/// # Errors
///
/// The server refuses, or the connection failed.
pub async fn oldest(dsn: &Dsn, flavor: Flavor, blame: &Blame) -> Result<String, SourceFault> {
    let start = Start::File { name: String::new(), position: 4 };
    let stream = connect(dsn, plan(flavor, 0, start)).await?;
    match timeout(CONNECT_WITHIN, begins(stream, false)).await {
        Ok(Ok(answer)) => answer.map_err(|error| blame.stream(StreamFault::Server(error))),
        Ok(Err(error)) => Err(blame.lost(error)),
        Err(_) => Err(blame.lost(format!("no file within {} s", CONNECT_WITHIN.as_secs()))),
    }
}

/// The file in which the history goes on behind these transactions, asked as a replica asks that has them: MariaDB's looks
/// each of them up (`gtid_strict_mode`), so that they are known to be its own history.
///
/// # Errors
///
/// The connection failed.
pub async fn behind(
    dsn: &Dsn,
    server_id: u32,
    state: &GtidState,
    blame: &Blame,
) -> Result<Begins, SourceFault> {
    let (flavor, start) = match state {
        GtidState::Maria(_) => (Flavor::MariaDb, Start::MariaGtid(state.to_string())),
        GtidState::MySql(set) => (Flavor::MySql, Start::MySqlGtid(set.encode())),
    };
    let stream = connect(dsn, plan(flavor, server_id, start)).await?;
    match timeout(SEARCHED_WITHIN, begins(stream, flavor == Flavor::MariaDb)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(blame.lost(error)),
        Err(_) => Err(blame.lost(format!("no events within {} s", SEARCHED_WITHIN.as_secs()))),
    }
}

/// The file of the first fake ROTATE. `on`: an error may still follow, up to the first group or the end.
async fn begins(mut stream: Stream, on: bool) -> io::Result<Begins> {
    let nothing = || io::Error::other("a dump that names no file");
    let mut assembler = StreamAssembler::new();
    let mut file = None;
    // More of a packet is not looked at.
    let mut head = Vec::new();
    loop {
        let mut bytes = &stream.rest[..];
        while let Some(piece) = assembler.push(&mut bytes).map_err(io::Error::other)? {
            match piece {
                Piece::Start { first } => head = first[..first.len().min(HEAD)].to_vec(),
                Piece::More(more) => {
                    head.extend_from_slice(&more[..more.len().min(HEAD - head.len().min(HEAD))]);
                }
                Piece::End => match head.split_first() {
                    Some((0xff, _)) => return Ok(Err(ServerError::decode(&head).map_err(io::Error::other)?)),
                    // The end: there is nothing after them.
                    Some((0xfe, _)) => return file.map(Ok).ok_or_else(nothing),
                    other => {
                        let event = other.map_or(&[][..], |(_, event)| event);
                        let header = EventHeader::decode(event).map_err(io::Error::other)?;
                        if header.kind == Kind::ROTATE && header.is_artificial() && file.is_none() {
                            file = Some(fake_rotate(event).ok_or_else(nothing)?.next);
                        }
                        if file.is_some() && (!on || header.kind == Kind::MARIA_GTID) {
                            return file.map(Ok).ok_or_else(nothing);
                        }
                    }
                },
            }
        }
        stream.rest.clear();
        if stream.reader.read_buf(&mut stream.rest).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// What a file says of the time before it (GTID_LIST, PREVIOUS_GTIDS); `None`: it says nothing.
///
/// # Errors
///
/// There is no such file ([`SourceFault::Place`]), or the connection failed.
pub async fn state_before(dsn: &Dsn, file: &str, blame: &Blame) -> Result<Option<GtidState>, SourceFault> {
    let mut dump = Dump::open(dsn, file, 0, None).await?;
    let (mut scan, mut grouper) = (FileScan::new(), Grouper::new());
    while let Some((_, bytes)) = dump.next().await? {
        let mut rest = &bytes[..];
        while let Some(event) = scan.next(&mut rest).map_err(|fault| blame.damaged(fault))? {
            let group = grouper.event(&event).map_err(|fault| blame.damaged(fault))?;
            if grouper.initial().is_some() || group.is_some() {
                return Ok(grouper.initial().cloned());
            }
        }
    }
    Ok(None)
}
