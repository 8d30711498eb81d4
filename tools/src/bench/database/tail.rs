//! A replica that only looks at the clock: it follows the backup's binlog server.

use crate::database::Stack;
use anyhow::{Context, Result, bail};
use ehpc_proto::mysql::Flavor;
use ehpc_proto::mysql::packet::{Assembler, Piece, StreamAssembler};
use ehpc_proto::mysql::replica::{Credentials, Plan, ReplicaDialogue, Say, Start, TlsWish};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// `XID_EVENT`: a transaction's commit.
const XID_EVENT: u8 = 16;
/// Bytes that say what a packet is.
const HEAD: usize = 6;

/// The connection, in the stream of events.
pub(super) struct Tail {
    stream: TcpStream,
    assembler: StreamAssembler,
    buffer: Vec<u8>,
    at: usize,
    /// First bytes of the packet at hand: a zero, the event's time, its kind.
    head: Vec<u8>,
}

impl Tail {
    /// From `place` on.
    pub(super) fn connect(stack: &Stack, place: &(String, u64)) -> Result<Tail> {
        let sql = stack.ok("backup", &["db", "standby", "--print-sql"])?.replace(" = ", "=");
        let word = |name: &str| -> Result<String> {
            let start = sql.find(&format!("{name}=")).with_context(|| format!("no {name} in {sql}"))?;
            let value = sql[start + name.len() + 1..].trim_start_matches('\'');
            let end = value.find(['\'', ',', ';', ' ']).unwrap_or(value.len());
            Ok(value[..end].to_owned())
        };
        let address = format!("{}:{}", word("MASTER_HOST")?, word("MASTER_PORT")?);
        let mut stream = TcpStream::connect(&address).with_context(|| address.clone())?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let plan = Plan {
            dialect: Flavor::MariaDb,
            server_id: 990_001,
            start: Start::File { name: place.0.clone(), position: u32::try_from(place.1)? },
            heartbeat: Duration::from_secs(5),
            semi_sync: false,
            annotate: false,
            non_blocking: false,
        };
        let credentials =
            Credentials { user: word("MASTER_USER")?, password: word("MASTER_PASSWORD")?.into_bytes() };
        let mut dialogue = ReplicaDialogue::new(plan, credentials, TlsWish::Off);
        let mut assembler = Assembler::new(1 << 20);
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = stream.read(&mut buffer)?;
            if count == 0 {
                bail!("the binlog server closed the connection");
            }
            let mut rest = &buffer[..count];
            while let Some(packet) = assembler.feed(&mut rest)? {
                for say in dialogue.received(&packet)? {
                    match say {
                        Say::Packet(bytes) => stream.write_all(&bytes)?,
                        Say::Streaming { .. } => {
                            let rest = rest.to_vec();
                            return Ok(Tail {
                                stream,
                                assembler: StreamAssembler::new(),
                                buffer: rest,
                                at: 0,
                                head: Vec::new(),
                            });
                        }
                        other => bail!("not expected on loopback: {other:?}"),
                    }
                }
            }
        }
    }

    /// Waits for the next commit.
    pub(super) fn next_commit(&mut self) -> Result<()> {
        loop {
            while self.at < self.buffer.len() {
                let mut rest = &self.buffer[self.at..];
                let piece = self.assembler.push(&mut rest)?;
                match piece {
                    Some(Piece::Start { first }) => self.head = first[..first.len().min(HEAD)].to_vec(),
                    Some(Piece::More(more)) if self.head.len() < HEAD => {
                        self.head.extend_from_slice(&more[..more.len().min(HEAD - self.head.len())]);
                    }
                    _ => {}
                }
                let (new, none) = (!matches!(piece, Some(Piece::End) | None), piece.is_none());
                self.at = self.buffer.len() - rest.len();
                if new && self.head.first().is_some_and(|&status| status != 0) {
                    bail!("the stream ends: {:?}", self.head);
                }
                if new && self.head.len() == HEAD {
                    let kind = self.head[5];
                    self.head.push(0); // looked at
                    if kind == XID_EVENT {
                        return Ok(());
                    }
                }
                if none {
                    break;
                }
            }
            self.buffer.resize(256 << 10, 0);
            let count = self.stream.read(&mut self.buffer)?;
            if count == 0 {
                bail!("the binlog server closed the connection");
            }
            self.buffer.truncate(count);
            self.at = 0;
        }
    }
}
