//! Strangers: garbage, packets of every size, silence, crowds. Nobody gets in, nothing panics, others are served.

use super::archive::TestArchive;
use super::client::{dump, plan};
use super::serve;
use crate::database::binlog_server::Identity;
use crate::database::binlog_server::listener::MAX_CONNECTIONS;
use ehpc_proto::binlog::{Flavor, Kind};
use ehpc_proto::mysql::packet::{Assembler, Packet, write_packet};
use ehpc_proto::mysql::replica::Start;
use ehpc_proto::mysql::response::{Response, ServerError};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

fn archive() -> Arc<TestArchive> {
    let identity = Identity {
        version: "10.11.19-MariaDB-log".into(),
        flavor: Flavor::MariaDb,
        server_id: 7,
        server_uuid: None,
    };
    let archive = TestArchive::new(identity);
    let data = format!(
        "{}/../../../../tests/data/binlog",
        std::path::Path::new(file!()).parent().unwrap().display()
    );
    let files: Vec<_> = (1..=5).map(|n| PathBuf::from(format!("{data}/mariadb.00000{n}"))).collect();
    archive.copy(&files);
    archive
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

/// The next packet; `None` when the connection is closed.
fn packet(stream: &mut TcpStream) -> Option<Packet> {
    let mut assembler = Assembler::new(1 << 24);
    let mut byte = [0; 1];
    loop {
        match stream.read(&mut byte) {
            Ok(1) => {
                if let Some(packet) = assembler.feed(&mut &byte[..]).unwrap() {
                    return Some(packet);
                }
            }
            Ok(_) => return None,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
            Err(error) => panic!("neither closed nor answered: {error}"),
        }
    }
}

/// Reads until the connection is closed by the other side.
fn closes(stream: &mut TcpStream) {
    while packet(stream).is_some() {}
}

/// A good client still gets everything.
fn serves(port: u16) {
    let start = Start::File { name: "mariadb.000001".into(), position: 4 };
    let (events, error) = dump(port, plan(Flavor::MariaDb, start));
    assert_eq!(error, None);
    assert!(events.len() > 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_oversized_packets_close_the_connection() {
    let ours = serve(&archive());
    let port = ours.address().port();
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut state = seed;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    for round in 0..60 {
        let mut stream = connect(port);
        assert_eq!(packet(&mut stream).unwrap().payload[0], 10);
        let garbage: Vec<u8> = (0..200 + round * 10).map(|_| random()).collect();
        let mut bytes = Vec::new();
        match round % 4 {
            0 => bytes = garbage, // no packets at all
            1 => write_packet(&mut bytes, &mut 1, &garbage),
            2 => bytes = vec![0xff, 0xff, 0xff, 1], // a login of 16 MiB
            _ => bytes = b"GET / HTTP/1.1\r\nHost: backup\r\n\r\n".to_vec(),
        }
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        closes(&mut stream);
    }
    serves(port);
    ours.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_answered_before_the_login() {
    let ours = serve(&archive());
    let mut stream = connect(ours.address().port());
    packet(&mut stream).unwrap();
    // A dump in place of a login.
    let dump = ehpc_proto::mysql::command::BinlogDump {
        position: 4,
        flags: 2,
        server_id: 9,
        file: "mariadb.000001".into(),
    };
    let mut bytes = Vec::new();
    write_packet(&mut bytes, &mut 0, &ehpc_proto::mysql::command::Command::BinlogDump(dump).encode());
    stream.write_all(&bytes).unwrap();
    let answer = packet(&mut stream).unwrap();
    assert!(matches!(Response::decode(&answer.payload), Ok(Response::Err(ServerError { code: 1043, .. }))));
    closes(&mut stream);
    ours.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_is_bounded_and_goes_when_it_says_nothing() {
    let ours = serve(&archive());
    let port = ours.address().port();
    let mut crowd: Vec<_> = (0..MAX_CONNECTIONS).map(|_| connect(port)).collect();
    for stream in &mut crowd {
        assert_eq!(packet(stream).unwrap().payload[0], 10);
    }
    let mut further = connect(port);
    let answer = packet(&mut further).unwrap();
    assert_eq!(answer.payload[..3], [0xff, 0x10, 0x04], "too many connections (1040)");
    closes(&mut further);
    // They never log in: each is closed by us, and then there is room again.
    crowd.iter_mut().for_each(closes);
    super::wait("there is room", || {
        let mut stream = connect(port);
        packet(&mut stream).is_some_and(|packet| packet.payload[0] == 10)
    })
    .await;
    serves(port);
    super::wait("nobody is served any more", || ours.status().is_empty()).await;
    ours.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_not_sent_as_a_good_one() {
    let archive = archive();
    let path = archive.newest().with_file_name("mariadb.000001");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[1100] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let ours = serve(&archive);
    let start = Start::File { name: "mariadb.000001".into(), position: 4 };
    let (events, error) = dump(ours.address().port(), plan(Flavor::MariaDb, start));
    let error = error.unwrap();
    // No end for good: it can be mended.
    assert_eq!(error.code, 1024);
    assert!(
        error.message.contains("damaged") && error.message.contains("mariadb.000001"),
        "{}",
        error.message
    );
    assert!(events.iter().all(|(header, _)| header.log_pos < 1100));
    ours.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_leaves_is_forgotten_at_once() {
    let ours = serve(&archive());
    let port = ours.address().port();
    let start = Start::File { name: "mariadb.000005".into(), position: 4 };
    let mut wish = plan(Flavor::MariaDb, start);
    // No sign of life is sent that would find out.
    (wish.non_blocking, wish.heartbeat) = (false, Duration::ZERO);
    let stream = super::client::follow(port, wish);
    super::wait("it is served", || ours.status().iter().any(|replica| replica.file == "mariadb.000005"))
        .await;
    drop(stream);
    super::wait("it is forgotten", || ours.status().is_empty()).await;
    ours.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_missing_in_between_ends_the_stream() {
    let archive = archive();
    archive.prune(1);
    let ours = serve(&archive);
    let start = Start::File { name: "mariadb.000001".into(), position: 4 };
    let (events, error) = dump(ours.address().port(), plan(Flavor::MariaDb, start));
    let error = error.unwrap();
    assert!(error.code == 1236 && error.message.contains("could not find next log"), "{}", error.message);
    assert_eq!(events.last().unwrap().0.kind, Kind::ROTATE);
    ours.stop().await;
}
