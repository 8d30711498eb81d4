//! What is said of the source is true, whatever fails, and it neither spins nor ends.

use super::far_end::Dialled;
use super::*;
use ehpc_proto::replication::database::Place;

#[test]
fn an_outage_is_a_lag_and_a_defect_is_no_end() {
    let runtime = runtime();
    let mut server = server(Options::default());
    let end = FarEnd::new();
    *end.dialled.lock() = Dialled::Panic;
    let source = start(&runtime, &server, &end);
    let status = wait_state(&source, "failed");
    let said = status.last_error.unwrap();
    assert!(!status.well && said.contains("a defect of this program"), "{said}");
    // It begins anew by itself.
    server.sql("CREATE DATABASE d; CREATE TABLE d.t (a INT)").unwrap();
    caught_up(&runtime, &source);
    wait("no lag", || source.status().lag_ms == 0);

    // The backup is away.
    *end.dialled.lock() = Dialled::Away;
    end.cut_connections();
    wait("a lag", || source.status().lag_ms > 300);
    *end.dialled.lock() = Dialled::Answer;
    wait("no lag", || source.status().lag_ms == 0);
    // The server is.
    server.kill9().unwrap();
    wait("a lag", || source.status().lag_ms > 300);
    server.restart().unwrap();
    caught_up(&runtime, &source);
    wait("no lag", || source.status().lag_ms == 0);

    // An archive that takes nothing is asked less and less often: 200, 400, 800, 1600 ms, each less a quarter.
    end.contents.lock().full = true;
    let before = end.contents.lock().connections;
    let began = Instant::now();
    server.sql("INSERT INTO d.t VALUES (1)").unwrap();
    wait("four more connections", || end.contents.lock().connections >= before + 4);
    assert!(began.elapsed() > Duration::from_millis(2250), "{:?}", began.elapsed());
    let said = wait_state(&source, "backup").last_error.unwrap();
    assert!(said.contains("no space left on the disk"), "{said}");
    end.contents.lock().full = false;
    source.shared.again.notify_one();
    caught_up(&runtime, &source);
    assert_equal(&server.binlog_files().unwrap(), &end);
}

#[test]
fn the_end_of_whole_groups_is_never_within_one() {
    use super::super::lane::ArchiveEnd;
    use super::super::shared::Shared;
    use super::super::shell::start_at;
    use ehpc_proto::replication::database::ArchivedFile;
    let shared = Shared::new(options(Vec::new(), &FarEnd::new()));
    let archive = |lineage, len| ArchiveEnd {
        file: Some(ArchivedFile { lineage, ordinal: 1, name: "bin.000001".to_owned(), len, closed: false }),
        ..ArchiveEnd::default()
    };
    let place = |lineage, offset| Place { lineage, file: 1, offset };
    start_at(&shared, &archive(1, 700));
    assert_eq!(*shared.end.borrow(), None, "it may end within a group");
    shared.whole(place(1, 800));
    shared.whole(place(1, 600));
    start_at(&shared, &archive(1, 950));
    assert_eq!(*shared.end.borrow(), Some(place(1, 800)), "what is known of whole ones stays");
    start_at(&shared, &archive(1, 750));
    assert_eq!(*shared.end.borrow(), None, "the archive has less");
    shared.whole(place(1, 800));
    start_at(&shared, &archive(2, 900));
    assert_eq!(*shared.end.borrow(), None, "another lineage");
}
