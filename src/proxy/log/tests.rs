//! Real sockets on the other side.

use super::*;
use crate::proxy::config::model::SyslogFormat;
use crate::settings::Site;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Instant;

fn target(address: LogAddress, level: u8) -> LogTarget {
    LogTarget {
        site: Site::Default("log"),
        address,
        length: 1024,
        format: SyslogFormat::Priority,
        facility: 16,
        level,
        min_level: 0,
    }
}

fn logs(targets: Vec<LogTarget>) -> Logs {
    let mut config = Config::default();
    config.global.logs = targets;
    let (logs, warnings) = Logs::open(&config, 7, 1).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    logs
}

fn receiver(path: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

fn next(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 4096];
    let length = socket.recv(&mut bytes).expect("a line in time");
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

#[test]
fn each_target_gets_what_its_level_lets_through() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (directory.path().join("a"), directory.path().join("b"));
    let (on_a, on_b) = (receiver(&a), receiver(&b));
    let mut notice = target(LogAddress::Unix(b), 5);
    notice.min_level = 4;
    let logs = logs(vec![target(LogAddress::Unix(a), 7), notice]);
    let mut logger = logs.logger().unwrap();
    logger.send_global(Severity::Info, b"traffic");
    logger.send_global(Severity::Alert, b"no server");
    assert_eq!(next(&on_a), "<134>traffic\n");
    assert_eq!(next(&on_a), "<129>no server\n");
    assert_eq!(next(&on_b), "<132>no server\n");
}

#[test]
fn datagrams_go_to_udp() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let logs = logs(vec![target(LogAddress::Udp(socket.local_addr().unwrap()), 7)]);
    logs.logger().unwrap().send_global(Severity::Info, b"hello");
    let mut bytes = [0; 64];
    let length = socket.recv(&mut bytes).unwrap();
    assert_eq!(&bytes[..length], b"<134>hello\n");
}

#[test]
fn a_receiver_that_is_made_again_is_found_and_told_of_what_was_lost() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let first = receiver(&path);
    let logs = logs(vec![target(LogAddress::Unix(path.clone()), 7)]);
    logs.keep_connected().unwrap();
    let mut logger = logs.logger().unwrap();
    logger.send_global(Severity::Info, b"one");
    assert_eq!(next(&first), "<134>one\n");
    drop(first);
    std::fs::remove_file(&path).unwrap();
    logger.send_global(Severity::Info, b"two");
    assert_eq!(logs.dropped(), 1);
    let second = receiver(&path);
    let until = Instant::now() + Duration::from_secs(20);
    let mut sent = 1;
    second.set_nonblocking(true).unwrap();
    let mut bytes = [0; 256];
    let length = loop {
        assert!(Instant::now() < until, "not connected again");
        logger.send_global(Severity::Info, b"more");
        sent += 1;
        if let Ok(length) = second.recv(&mut bytes) {
            break length;
        }
    };
    assert_eq!(&bytes[..length], b"<134>more\n");
    second.set_nonblocking(false).unwrap();
    let told = next(&second);
    assert_eq!(
        told,
        format!("<132>{} log lines were dropped before this one: connection refused\n", sent - 1)
    );
}

#[test]
fn a_receiver_that_does_not_read_stops_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let socket = receiver(&path);
    let logs = logs(vec![target(LogAddress::Unix(path), 7)]);
    let mut logger = logs.logger().unwrap();
    while logs.dropped() < 10 {
        logger.send_global(Severity::Info, b"line");
    }
    socket.set_nonblocking(true).unwrap();
    let mut bytes = [0; 256];
    while socket.recv(&mut bytes).is_ok() {}
    logger.send_global(Severity::Info, b"after");
    socket.set_nonblocking(false).unwrap();
    assert_eq!(next(&socket), "<134>after\n");
    assert_eq!(next(&socket), "<132>10 log lines were dropped before this one: operation would block\n");
}

#[test]
fn a_target_that_cannot_be_opened_is_told_and_counted() {
    let mut config = Config::default();
    config.global.logs = vec![target(LogAddress::Descriptor(1_000_000), 7)];
    let (logs, warnings) = Logs::open(&config, 7, 2).unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("log fd@1000000: "), "{warnings:?}");
    logs.logger().unwrap().send_global(Severity::Info, b"x");
    assert_eq!(logs.dropped(), 1);
}
