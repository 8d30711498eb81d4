//! One file of the server, or a range of it, read once more beside the stream: to compare it with the archive's, or to
//! repair that.

use super::connect::{Stream, connect};
use super::fault::{Blame, SourceFault};
use super::session::StreamSession;
use super::ship::{Ship, StreamFault};
use super::stream::SILENT_READING;
use crate::database::dsn::Dsn;
use crate::database::sql::Sql;
use bytes::Bytes;
use ehpc_proto::binlog::Flavor;
use ehpc_proto::mysql::packet::StreamAssembler;
use ehpc_proto::mysql::replica::{Plan, Start};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

const READ: usize = 256 * 1024;

/// Bytes of a file as the server has them, without the bit of a file in use; every checksum and position is checked.
pub struct Dump {
    stream: Stream,
    assembler: StreamAssembler,
    session: StreamSession,
    blame: Blame,
    from: u64,
    to: Option<u64>,
    ready: VecDeque<Ship>,
    over: bool,
    /// The server went on to another file.
    rotated: bool,
    /// What ended the stream, behind what is `ready`.
    failed: Option<SourceFault>,
}

/// Where the last whole event of a file ends that the server has closed.
pub(super) async fn end(dsn: &Dsn, file: &str) -> Result<u64, SourceFault> {
    let mut dump = Dump::open(dsn, file, 0, None).await?;
    loop {
        match dump.next().await {
            Ok(Some(_)) => {}
            // A server that shuts down, or kills this thread, ends in order, too.
            Ok(None) if !dump.rotated => {
                return Err(dump.blame.lost(format!("it ended the stream at {} of {file}", dump.from)));
            }
            Ok(None) | Err(SourceFault::Torn { .. }) => return Ok(dump.from),
            Err(fault) => return Err(fault),
        }
    }
}

impl Dump {
    /// Begins to read `file` at `from` (0, or a border of events) up to `to`, or up to its present end. It shows itself
    /// without a number of its own, so that it throws no replica out.
    ///
    /// # Errors
    ///
    /// See [`SourceFault`].
    pub async fn open(dsn: &Dsn, file: &str, from: u64, to: Option<u64>) -> Result<Dump, SourceFault> {
        let blame = Blame::new(dsn, 0);
        let sql = Sql::connect(dsn).await.map_err(|error| blame.sql(error))?;
        let mariadb = sql.dialect().is_mariadb();
        sql.close().await;
        let plan = Plan {
            dialect: if mariadb { Flavor::MariaDb } else { Flavor::MySql },
            server_id: 0,
            start: Start::File { name: file.to_owned(), position: StreamSession::dump_from(from) },
            heartbeat: Duration::from_secs(1),
            semi_sync: false,
            annotate: true,
            non_blocking: true,
        };
        let stream = connect(dsn, plan).await?;
        let session = StreamSession::at(file, from, None, false);
        let assembler = StreamAssembler::new();
        Ok(Dump {
            stream,
            assembler,
            session,
            blame,
            from,
            to,
            ready: VecDeque::new(),
            over: false,
            rotated: false,
            failed: None,
        })
    }

    /// The next bytes and where they stand; `None` at the end.
    ///
    /// # Errors
    ///
    /// The file is damaged, ends before `to`, or the connection was lost.
    pub async fn next(&mut self) -> Result<Option<(u64, Bytes)>, SourceFault> {
        loop {
            while let Some(ship) = self.ready.pop_front() {
                match ship {
                    Ship::Bytes { offset, mut bytes } => {
                        if let Some(to) = self.to {
                            bytes.truncate(usize::try_from(to.saturating_sub(offset)).unwrap_or(usize::MAX));
                        }
                        if bytes.is_empty() {
                            continue;
                        }
                        self.from = offset + bytes.len() as u64;
                        return Ok(Some((offset, bytes)));
                    }
                    Ship::Rotated { .. } => {
                        (self.over, self.rotated) = (true, true);
                        self.ready.clear();
                    }
                    _ => {}
                }
            }
            if self.to.is_some_and(|to| self.from >= to) {
                return Ok(None);
            }
            if let Some(fault) = self.failed.take() {
                return Err(fault);
            }
            match self.to {
                Some(to) if self.over => {
                    return Err(self
                        .blame
                        .damaged(format!("its file ends at {} instead of {to}", self.from)));
                }
                None if self.over => return Ok(None),
                _ => self.read().await?,
            }
        }
    }

    async fn read(&mut self) -> Result<(), SourceFault> {
        if self.stream.rest.is_empty() {
            self.stream.rest.reserve(READ);
            match timeout(SILENT_READING, self.stream.reader.read_buf(&mut self.stream.rest)).await {
                Err(_) => {
                    return Err(self.blame.lost(format!("it was silent for {} s", SILENT_READING.as_secs())));
                }
                Ok(Err(error)) => return Err(self.blame.lost(error)),
                Ok(Ok(0)) => return Err(self.blame.lost("the server closed the connection")),
                Ok(Ok(_)) => {}
            }
        }
        let chunk = self.stream.rest.split();
        let (mut bytes, mut out) = (&chunk[..], Vec::new());
        while let Some(piece) = self.assembler.push(&mut bytes).map_err(|error| self.blame.damaged(error))? {
            match self.session.piece(piece, &mut out) {
                Ok(()) => {}
                Err(StreamFault::Ended) => {
                    self.over = true;
                    break;
                }
                // What came before it may be all that is wanted: a server says so of half an event that follows.
                Err(fault) => {
                    self.failed = Some(self.blame.stream(fault));
                    break;
                }
            }
        }
        self.session.flush(&mut out);
        self.ready.extend(out);
        Ok(())
    }
}
