//! A replica's connection of a test's own, to the binlog server or to a real one.

use super::{PASSWORD, USER};
use ehpc_proto::binlog::{EventHeader, Flavor};
use ehpc_proto::mysql::packet::Assembler;
use ehpc_proto::mysql::replica::{Credentials, Plan, ReplicaDialogue, Say, Start, TlsWish};
use ehpc_proto::mysql::response::ServerError;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// One event as it came.
pub(super) type Received = (EventHeader, Vec<u8>);

/// A plan: from `start` to the end of what is there.
pub(super) fn plan(dialect: Flavor, start: Start) -> Plan {
    let dialect = match dialect {
        Flavor::MariaDb => ehpc_proto::mysql::Flavor::MariaDb,
        Flavor::MySql => ehpc_proto::mysql::Flavor::MySql,
    };
    let heartbeat = Duration::from_secs(1);
    Plan { dialect, server_id: 77, start, heartbeat, semi_sync: false, annotate: true, non_blocking: true }
}

/// A connection that has asked for the log.
pub(super) fn follow(port: u16, plan: Plan) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let credentials = Credentials { user: USER.into(), password: PASSWORD.into() };
    let mut dialogue = ReplicaDialogue::new(plan, credentials, TlsWish::Off);
    let (mut assembler, mut byte) = (Assembler::new(1 << 20), [0; 1]);
    loop {
        stream.read_exact(&mut byte).unwrap();
        let Some(packet) = assembler.feed(&mut &byte[..]).unwrap() else { continue };
        for say in dialogue.received(&packet).unwrap() {
            match say {
                Say::Packet(bytes) => stream.write_all(&bytes).unwrap(),
                Say::Streaming { .. } => return stream,
                other => panic!("{other:?}"),
            }
        }
    }
}

/// What the server at `port` sends until EOF, or the error at the end.
pub(super) fn dump(port: u16, plan: Plan) -> (Vec<Received>, Option<ServerError>) {
    let mut stream = follow(port, plan);
    let (mut assembler, mut block) = (Assembler::new(1 << 30), vec![0; 1 << 16]);
    let mut events = Vec::new();
    loop {
        let read = stream.read(&mut block).unwrap();
        assert!(read > 0, "closed without a word after {} events", events.len());
        let mut rest = &block[..read];
        while let Some(packet) = assembler.feed(&mut rest).unwrap() {
            match packet.payload[0] {
                0 => {
                    let header = EventHeader::decode(&packet.payload[1..]).unwrap();
                    events.push((header, packet.payload[1..].to_vec()));
                }
                0xff => return (events, Some(ServerError::decode(&packet.payload).unwrap())),
                _ => return (events, None),
            }
        }
    }
}
