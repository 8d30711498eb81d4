//! Byte for byte, whatever happens on the way.

use super::super::lane::{PATCH, PATCHES};
use super::*;
use ehpc_tools::database::MySql56;

fn survives(arguments: &[&str]) {
    let runtime = runtime();
    let mut server =
        server(arguments.iter().fold(Options::default(), |options, argument| options.with(*argument)));
    let end = FarEnd::new();
    let begin = |server: &Maria| start(&runtime, server, &end);
    let source = all_fall(&runtime, &mut server, &begin, &|| end.cut_connections());
    assert_equal(&server.binlog_files().unwrap(), &end);
    let files = end.files();
    assert!(files.len() >= 5 && files[..files.len() - 1].iter().all(|file| file.closed), "{}", files.len());
    let contents = end.contents.lock();
    assert_eq!(contents.lineages.len(), 1);
    // One that falls while the next is being made is none of its own.
    assert!(contents.connections > 1, "{} connections", contents.connections);
    assert_eq!(source.status().gtid, server.value("SELECT @@gtid_binlog_pos").unwrap());
    assert_eq!(contents.state(&contents.lineages[0].0), source.status().gtid);
}

#[test]
fn files_are_equal_after_kills_of_everybody() {
    survives(&["--binlog-checksum=CRC32", "--log-bin-compress=1", "--log-bin-compress-min-len=10"]);
}

#[test]
fn files_are_equal_without_checksums() {
    survives(&["--binlog-checksum=NONE", "--max-binlog-size=65536"]);
}

#[test]
fn a_checksum_that_is_switched_changes_with_the_file() {
    let runtime = runtime();
    let server = server(Options::default().with("--binlog-checksum=CRC32"));
    let end = FarEnd::new();
    server
        .sql("CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY); INSERT INTO d.t VALUES (1)")
        .unwrap();
    server.sql("SET GLOBAL binlog_checksum = NONE; INSERT INTO d.t VALUES (2); FLUSH BINARY LOGS").unwrap();
    let source = start(&runtime, &server, &end);
    caught_up(&runtime, &source);
    server
        .sql("INSERT INTO d.t VALUES (3); SET GLOBAL binlog_checksum = CRC32; INSERT INTO d.t VALUES (4)")
        .unwrap();
    server.sql("FLUSH BINARY LOGS; INSERT INTO d.t VALUES (5); FLUSH BINARY LOGS").unwrap();
    caught_up(&runtime, &source);
    assert_equal(&server.binlog_files().unwrap(), &end);
    assert!(end.files().len() >= 6);
}

#[test]
fn a_long_event_goes_through_in_pieces() {
    let (runtime, server, end, source) = streamed(Options::default());
    server.sql("CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY, b LONGBLOB)").unwrap();
    server
        .sql("INSERT INTO d.t VALUES (1, REPEAT('0123456789', 4000000)), (2, 'x'); FLUSH BINARY LOGS")
        .unwrap();
    caught_up(&runtime, &source);
    assert_equal(&server.binlog_files().unwrap(), &end);
    assert!(end.files()[0].bytes.len() > 40_000_000);
    // What is behind is not live; what comes after it is.
    server.sql("INSERT INTO d.t VALUES (3, 'y')").unwrap();
    caught_up(&runtime, &source);
    assert!(end.contents.lock().live > 0);
    let shipped = source.end().unwrap();
    assert_eq!(Some(shipped), *source.durable().borrow());
    assert_eq!(source.status().lag_ms, 0);
}

#[test]
fn mysql_is_archived_byte_for_byte() {
    let seed = rand::random();
    println!("seed {seed}");
    let runtime = runtime();
    let mut server = MySql56::start(gtids()).unwrap();
    let end = FarEnd::new();
    let source = start_from(&runtime, root(&server.socket()), &end);
    let work = Workload::start(&server.access(), Work::mysql(seed)).unwrap();
    work.wait_for(40).unwrap();
    server.sql("FLUSH BINARY LOGS").unwrap();
    work.wait_for(work.done() + 20).unwrap();
    // A server of this age does not always start again when it was killed within a CREATE TABLE.
    work.stop().unwrap();
    server.kill9().unwrap();
    server.restart().unwrap();
    let work = Workload::start(&server.access(), Work::mysql(seed ^ 1)).unwrap();
    work.wait_for(20).unwrap();
    end.cut_connections();
    work.wait_for(work.done() + 20).unwrap();
    work.stop().unwrap();
    server.sql("FLUSH BINARY LOGS").unwrap();
    caught_up(&runtime, &source);
    assert_equal(&server.binlog_files().unwrap(), &end);
    let gtid: String = server.sql("SELECT @@GLOBAL.gtid_executed").unwrap()[0][0]
        .replace("\\n", "")
        .split_whitespace()
        .collect();
    assert_eq!(source.status().gtid, gtid);
}

#[test]
fn questions_and_marks_go_the_same_way() {
    use ehpc_proto::replication::database::{DbAnswer, DbQuery, Mark, MarkKind, Place};
    use ehpc_proto::replication::state::Timestamp;
    let (runtime, _server, end, source) = streamed(Options::default());
    caught_up(&runtime, &source);
    let answers = runtime.block_on(source.ask(DbQuery::Files { from: (1, 1) })).unwrap();
    assert!(
        matches!(&answers[..], [DbAnswer::Files(one), DbAnswer::Files(none)] if one.len() == 1 && none.is_empty())
    );
    let place = Place { lineage: 1, file: 1, offset: 4 };
    let mark = Mark { time: Timestamp::default(), place, batch: 1, cut: 1, kind: MarkKind::Fence };
    runtime.block_on(source.mark(mark)).unwrap();
    assert_eq!(end.contents.lock().marks, [mark]);
}

#[test]
fn a_range_is_fetched_anew() {
    let (runtime, server, end, source) = streamed(Options::default());
    server.sql("CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY, b LONGBLOB)").unwrap();
    server.sql("INSERT INTO d.t VALUES (1, REPEAT('x', 3000000)); INSERT INTO d.t VALUES (2, 'y')").unwrap();
    server.sql("FLUSH BINARY LOGS; INSERT INTO d.t VALUES (3, 'z')").unwrap();
    caught_up(&runtime, &source);
    let file = end.files().remove(0);
    let events: Vec<u64> = {
        let (mut scan, mut rest, mut ends) = (ehpc_proto::binlog::FileScan::new(), &file.bytes[..], vec![0]);
        while let Some(event) = scan.next(&mut rest).unwrap() {
            ends.push(event.end());
        }
        ends
    };
    let last = *events.last().unwrap();
    for (from, to) in [(0, last), (events[3], last), (events[2], events[events.len() - 3]), (0, events[1])] {
        end.contents.lock().patch.clear();
        runtime.block_on(source.shared.refetch(1, 1, from, to)).unwrap();
        assert!(end.contents.lock().patch == file.bytes[from as usize..to as usize], "{from}..{to}");
    }
    let (pieces, bytes) = end.contents.lock().patch_ahead;
    // A sign of life may be behind them; one more piece would be two messages.
    let bounded = pieces == PATCHES || pieces == PATCHES + 1;
    assert!(bounded, "{pieces} are in the way of an acknowledgement, {PATCHES} should be");
    assert!(bytes <= PATCHES * PATCH, "{bytes}");
    end.contents.lock().patch.clear();
    let error = runtime.block_on(source.shared.refetch(1, 1, events[1], last + 1)).unwrap_err();
    assert!(error.contains(&format!("ends at {last}")), "{error}");
    assert!(runtime.block_on(source.shared.refetch(2, 1, 0, 4)).is_err());
    assert!(runtime.block_on(source.shared.refetch(1, 9, 0, 4)).is_err());
    let status = wait_state(&source, "streaming");
    assert_eq!(status.reconnects, 0, "the stream was not disturbed: {:?}", status.last_error);
    runtime.block_on(source.stop());
    wait("the orderly end", || end.contents.lock().finished == 1);
}

#[test]
fn a_fence_does_not_take_another_servers_file_for_its_own() {
    use super::super::shared::Cursor;
    use ehpc_proto::replication::database::Place;
    let runtime = runtime();
    let end = FarEnd::new();
    let shared = Arc::new(super::super::shared::Shared::new(options(Vec::new(), &end)));
    let at = |lineage, name: &str, offset| {
        let place = Place { lineage, file: 1, offset };
        shared.cursor.send_replace(Some(Cursor { name: name.to_owned(), place }));
    };
    at(1, "bin.000003", 500);
    let waiting = |lineage| {
        let shared = shared.clone();
        runtime.spawn(async move { shared.handed_over(lineage, "bin.000003", 400).await })
    };
    // The server's end in the lineage that is to begin, while the stream has still to leave the old one.
    let (old, new) = (waiting(1), waiting(2));
    let found = |lineage| Some(Ok(Place { lineage, file: 1, offset: 400 }));
    assert_eq!(runtime.block_on(old).unwrap(), found(1));
    assert!(!new.is_finished());
    at(2, "bin.000003", 900);
    assert_eq!(runtime.block_on(new).unwrap(), found(2));
    assert_eq!(runtime.block_on(waiting(1)).unwrap(), None, "asked of the server before");
}
