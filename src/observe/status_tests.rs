//! The screen word for word, and what counts as healthy.

use super::*;

/// A node with every section filled.
pub(crate) fn full() -> NodeStatus {
    NodeStatus {
        process: ProcessStatus {
            pid: 42,
            version: "0.1.0".into(),
            roles: vec!["nfs1".into(), "backup".into()],
            uptime_ms: 200_000,
            rss_bytes: 50 << 20,
            now_ms: 1_795_428_010_000,
            listening: vec![
                ("nfs".into(), "127.0.0.1:12049".into()),
                ("dashboard".into(), "127.0.0.1:8900".into()),
            ],
        },
        nfs: Some(NfsStatus {
            export: "/share".into(),
            path: "/d/share".into(),
            durability: "local".into(),
            clients: vec![NfsClient {
                address: "10.182.15.51:700".into(),
                host: Some("web1".into()),
                connections: 2,
                operations: 1234,
                read_bytes: 2048,
                written_bytes: 0,
            }],
            operations: 12_345,
            operations_per_second: 17.25,
            errors: 3,
            read_bytes: 1 << 30,
            written_bytes: 1536,
            procedures: vec![
                NfsProcedure {
                    name: "lookup".into(),
                    latency: LatencyCounts {
                        count: 12_000,
                        sum_us: 48_000,
                        p50_us: 3,
                        p99_us: 7168,
                        octaves: [vec![11_000, 900], vec![0; 23], vec![100]].concat(),
                    },
                    errors: [("NOENT".into(), 2), ("STALE".into(), 1)].into(),
                },
                NfsProcedure { name: "acl_getacl".into(), ..NfsProcedure::default() },
            ],
            exports: vec![
                NfsExport {
                    name: "/other".into(),
                    clients: vec!["*(rw,async,insecure,all_squash)".into()],
                    implied: true,
                    ..NfsExport::default()
                },
                NfsExport {
                    name: "/sh\"are\\\n".into(),
                    clients: vec![
                        "web1(rw,sync,secure,root_squash)".into(),
                        "*(ro,sync,secure,root_squash)".into(),
                    ],
                    backed_up: true,
                    implied: false,
                    operations: 12_345,
                    read_bytes: 1 << 30,
                    written_bytes: 1536,
                },
            ],
            connections: 2,
            connections_max: 1024,
            reply_cache_bytes: 4096,
            in_flight_waits: 3,
            memory_waits: 0,
            notes: vec!["not root: clients cannot make device nodes".into()],
        }),
        capture: Some(CaptureStatus {
            watcher: "fanotify".into(),
            reason: "permitted".into(),
            watched_directories: Some(1000),
            events: 99,
            overflows: 0,
            mount_points: vec!["a/mnt\n".into()],
            scan: Some(ScanStatus {
                running: false,
                finished_ms: Some(1_795_428_000_000),
                objects: 4321,
                differing: 7,
                problem: None,
            }),
        }),
        sender: Some(SenderStatus {
            state: "idle".into(),
            dirty: 5,
            lag_ms: 12,
            acknowledged_batch: Some(77),
            acknowledged_ms: Some(1_795_428_000_000),
            batches_sent: 78,
            objects_sent: 4321,
            unreadable: vec!["a/secret: permission denied".into()],
            unreadable_total: 2,
            fuzzy_total: 1,
        }),
        link: Some(LinkStatus {
            up: true,
            state: "connected".into(),
            peer: "127.0.0.1:12090".into(),
            since_ms: Some(1_795_428_000_000),
            bytes_sent: 4096,
            last_error: None,
        }),
        backup: Some(BackupStatus {
            directory: "/d/backup".into(),
            stream: None,
            durable: 77,
            applied: 76,
            packs_bytes: 1 << 20,
            free_bytes: 1 << 40,
            mirror: Some("/d/backup/mirror".into()),
            notes: vec!["not root: owners are kept in the packs only".into()],
            error: None,
        }),
        children: vec![ChildStatus {
            name: "web1".to_owned(),
            pid: Some(4711),
            since_ms: 1_795_428_005_000,
            ..ChildStatus::default()
        }],
        database: Some(database::tests::full()),
        verify: Some(VerifyStatus {
            running: false,
            finished_ms: Some(1_795_427_000_000),
            equal: Some(true),
            summary: "equal, 4,321 objects".into(),
        }),
        attention: Vec::new(),
    }
}

#[test]
fn one_screen() {
    assert_eq!(
        full().render(),
        "\
node          nfs1 + backup healthy, up 3 min 20 s, pid 42, 50.0 MiB of memory, version 0.1.0
listening     nfs 127.0.0.1:12049, dashboard 127.0.0.1:8900
web1          runs, pid 4711, started 5.0 s ago
export        /share = /d/share (durability local)
              /other (crossmnt) NOT BACKED UP *(rw,async,insecure,all_squash)
              /sh\"are\\? web1(rw,sync,secure,root_squash) *(ro,sync,secure,root_squash)
nfs           1 client, 2 connections, 17.2 operations/s, 12,345 operations (3 with an error status), 1.0 GiB read, 1.5 KiB written
              10.182.15.51:700 (web1): 1,234 operations, 2.0 KiB read, 0 B written
note          not root: clients cannot make device nodes
limits        in_flight reached 3 times, memory 0 times
procedures    lookup: 12,000, p50 3 us, p99 7.2 ms, 3 errors (2 NOENT, 1 STALE)
              acl_getacl: 0, p50 0 us, p99 0 us
watcher       fanotify (permitted), 1,000 directories, 99 events, 0 overflows
scan          10.0 s ago, 4,321 objects compared, 7 changes found
not shared    a/mnt? is another file system mounted below the export
changes       idle; 5 not yet on the backup, lag 12 ms
acknowledged  batch 77 at 2026-11-23 10:00:00 UTC (10.0 s ago)
sent          4,321 objects in 78 batches since the start
fuzzy         1 files were shipped while they changed without pause
unreadable    a/secret: permission denied
              2 objects could not be read
link          127.0.0.1:12090 connected since 2026-11-23 10:00:00 UTC, 4.0 KiB sent
backup        /d/backup: batch 77 durable, 76 applied; packs 1.0 MiB, 1.0 TiB free
mirror        /d/backup/mirror
              not root: owners are kept in the packs only
database      /run/mysqld/mysqld.sock 10.11.6-MariaDB streaming, bin.000007:1234, lag none, 5,000 events, 4.0 KiB
semi-sync     on since 2026-11-23 10:00:01 UTC, fell back 0 times, 0 commits without the backup
base snapshot last taken 1 min 0 s ago
binary logs   /b/database: 7 files, 1.0 GiB, up to bin.000007:1234, newest event 2.0 s ago
              GTID 0-1-99
bases         2 kept, 1.0 MiB on the disk; number 2 is 1 min 0 s old, 5.0 MiB of SQL
standby       /b/database/standby/mysqld.sock running, lag 1.5 s
replica       server_id 7 at 127.0.0.1:5000, bin.000007:1200
one moment    files and database of 2026-11-23 10:00:05 UTC (5.0 s ago)
verify of it  1 min 0 s ago: equal, 7 binary logs, 4 tables
verify        16 min 50 s ago: equal, 4,321 objects
"
    );
}

#[test]
fn an_empty_node_renders() {
    assert_eq!(
        NodeStatus::default().render(),
        "node           healthy, up 0 ms, pid 0, 0 B of memory, version \n"
    );
}

#[test]
fn what_is_wrong_is_unhealthy_and_on_the_screen() {
    assert_eq!(full().unhealthy(), Vec::<String>::new());
    let mut node = full();
    node.link = Some(LinkStatus {
        state: "connecting".into(),
        peer: "b:1".into(),
        last_error: Some("connection refused".into()),
        ..LinkStatus::default()
    });
    node.attention.push("the scan would remove 5,000 of 6,000 objects".into());
    if let Some(backup) = &mut node.backup {
        backup.error = Some("no space left".into());
    }
    if let Some(verify) = &mut node.verify {
        verify.equal = Some(false);
        verify.summary = "2 differences".into();
    }
    assert_eq!(
        node.unhealthy(),
        [
            "the scan would remove 5,000 of 6,000 objects",
            "the replication link is down (connecting): connection refused",
            "no space left",
            "the last verification found differences: 2 differences"
        ]
    );
    let screen = node.render();
    for text in [
        "NOT HEALTHY",
        "ATTENTION     the scan would",
        "last error: connection refused",
        "ERROR         no space",
    ] {
        assert!(screen.contains(text), "{text} in\n{screen}");
    }
}

#[test]
fn a_backup_that_acknowledges_nothing_is_unhealthy() {
    let mut node = full();
    let later = node.process.now_ms + 200_000;
    node.process.now_ms = later;
    assert_eq!(node.unhealthy(), Vec::<String>::new(), "nothing waits for long");
    if let Some(sender) = &mut node.sender {
        sender.lag_ms = 200_000;
    }
    assert_eq!(
        node.unhealthy(),
        ["the backup has acknowledged nothing for 3 min 20 s although changes wait"]
    );
    if let Some(sender) = &mut node.sender {
        sender.acknowledged_ms = Some(later - 1000);
    }
    assert_eq!(node.unhealthy(), Vec::<String>::new(), "it is behind, and catching up");
}

#[test]
fn json_goes_both_ways() {
    let node = full();
    let text = serde_json::to_string(&node).expect("serializes");
    assert_eq!(serde_json::from_str::<NodeStatus>(&text).expect("parses"), node);
}

#[test]
fn this_process_has_memory() {
    assert!(resident_bytes() > 1 << 20);
}
