//! The database on the screen, and when it wants a person.

use super::super::{NodeStatus, ProcessStatus};
use super::*;

const NOW: u64 = 1_795_428_010_000;

fn node(database: DatabaseStatus) -> NodeStatus {
    let mut node = NodeStatus {
        process: ProcessStatus { now_ms: NOW, ..ProcessStatus::default() },
        ..NodeStatus::default()
    };
    node.add_database(database);
    node
}

fn source() -> DatabaseSourceStatus {
    DatabaseSourceStatus {
        state: "streaming".into(),
        well: true,
        address: "/run/mysqld/mysqld.sock".into(),
        version: "10.11.6-MariaDB".into(),
        file: "bin.000007".into(),
        offset: 1234,
        events: 5000,
        bytes: 4096,
        ..DatabaseSourceStatus::default()
    }
}

/// Every section filled.
pub(in super::super) fn full() -> DatabaseStatus {
    DatabaseStatus {
        source: Some(DatabaseSourceStatus {
            semi_sync: Some(DatabaseSemiSyncStatus {
                state: "on".into(),
                holds: true,
                since_ms: NOW - 9000,
                ..DatabaseSemiSyncStatus::default()
            }),
            ..source()
        }),
        snapshot: Some(DatabaseSnapshotStatus { last_ms: Some(NOW - 60_000), ..Default::default() }),
        archive: Some(archive()),
        bases: Some(DatabaseBasesStatus {
            count: 2,
            newest: Some(2),
            newest_ms: Some(NOW - 60_000),
            newest_bytes: 5 << 20,
            stored_bytes: 1 << 20,
            every_ms: 86_400_000,
            error: None,
        }),
        standby: Some(DatabaseStandbyStatus {
            state: "running".into(),
            well: true,
            address: "/b/database/standby/mysqld.sock".into(),
            lag_ms: 1500,
            ..DatabaseStandbyStatus::default()
        }),
        replicas: vec![DatabaseReplicaStatus {
            server_id: 7,
            address: "127.0.0.1:5000".into(),
            file: "bin.000007".into(),
            offset: 1200,
        }],
        newest_mark_ms: Some(NOW - 5000),
        verify: Some(VerifyStatus {
            finished_ms: Some(NOW - 60_000),
            equal: Some(true),
            summary: "equal, 7 binary logs, 4 tables".into(),
            ..VerifyStatus::default()
        }),
    }
}

fn archive() -> DatabaseArchiveStatus {
    DatabaseArchiveStatus {
        directory: "/b/database".into(),
        connected: true,
        lineages: 1,
        files: 7,
        bytes: 1 << 30,
        file: "bin.000007".into(),
        offset: 1234,
        gtid: "0-1-99".into(),
        newest_ms: Some(NOW - 2000),
        error: None,
    }
}

#[test]
fn what_nfs1_and_the_backup_know_stands_on_one_screen() {
    let mut node = node(DatabaseStatus { source: Some(source()), ..DatabaseStatus::default() });
    node.add_database(DatabaseStatus {
        archive: Some(archive()),
        newest_mark_ms: Some(NOW - 5000),
        ..DatabaseStatus::default()
    });
    let screen = node.render();
    for line in [
        "database      /run/mysqld/mysqld.sock 10.11.6-MariaDB streaming, bin.000007:1234, lag none, 5,000 events, 4.0 KiB",
        "binary logs   /b/database: 7 files, 1.0 GiB, up to bin.000007:1234, newest event 2.0 s ago",
        "              GTID 0-1-99",
    ] {
        assert!(screen.lines().any(|seen| seen == line), "`{line}` is not in\n{screen}");
    }
    assert!(node.unhealthy().is_empty(), "{:?}", node.unhealthy());
}

#[test]
fn a_database_that_was_proved_different_needs_a_person() {
    let mut status = full();
    let proved = node(status.clone());
    assert!(
        proved.render().contains("verify of it  1 min 0 s ago: equal, 7 binary logs, 4 tables"),
        "{}",
        proved.render()
    );
    if let Some(verify) = &mut status.verify {
        (verify.equal, verify.summary) = (Some(false), "DIFFERENT: 1 of 7".into());
    }
    let found = node(status).unhealthy();
    assert_eq!(found, ["the last verification of the database found differences: DIFFERENT: 1 of 7"]);
}

#[test]
fn what_needs_a_person_is_said() {
    let source = DatabaseSourceStatus {
        state: "gap".into(),
        well: false,
        last_error: Some("the server has purged bin.000003".into()),
        semi_sync: Some(DatabaseSemiSyncStatus { state: "fallen back".into(), ..Default::default() }),
        findings: vec!["binlog_format is STATEMENT: SET GLOBAL binlog_format = ROW".into()],
        ..source()
    };
    let bases = DatabaseBasesStatus { newest_ms: Some(NOW - 3000), every_ms: 1000, ..Default::default() };
    let standby = DatabaseStandbyStatus { state: "stopped".into(), ..DatabaseStandbyStatus::default() };
    let node = node(DatabaseStatus {
        source: Some(source),
        bases: Some(bases),
        standby: Some(standby),
        ..DatabaseStatus::default()
    });
    let reasons = node.unhealthy().join("\n");
    for words in [
        "(gap): the server has purged bin.000003",
        "semi-sync is fallen back",
        "SET GLOBAL binlog_format = ROW",
        "the newest base snapshot of the database is 3.0 s old",
        "the standby of the database is stopped",
    ] {
        assert!(reasons.contains(words), "`{words}` is not in\n{reasons}");
    }
}

#[test]
fn moments_in_the_future_are_said_with_what_helps() {
    let hour_ahead = DatabaseStatus { newest_mark_ms: Some(NOW + 3_600_000), ..full() };
    let said = node(hour_ahead).unhealthy().join("\n");
    assert!(said.contains("lies 1 h 0 min in the future") && said.contains("--gtid"), "{said}");
    let groups = DatabaseArchiveStatus { newest_ms: Some(NOW + 61_000), ..archive() };
    assert!(DatabaseStatus { archive: Some(groups), ..full() }.ahead(NOW).is_some());
    let a_little = DatabaseStatus { newest_mark_ms: Some(NOW + 59_000), ..full() };
    assert_eq!(node(a_little).unhealthy(), Vec::<String>::new());
}
