//! What is sent is what the real server sends, event by event, wherever a replica begins.

use super::archive::TestArchive;
use super::client::{Received, dump, plan};
use super::{PASSWORD, USER, serve, wait};
use crate::database::binlog_server::Identity;
use ehpc_proto::binlog::{Flavor, GtidList, Kind};
use ehpc_proto::mysql::replica::Start;
use ehpc_tools::database::{Maria, MySql56, Options, Work, Workload};

/// Without what may differ: nothing of an event's own bytes; of those that are made up, time and position.
fn comparable(events: &[Received]) -> Vec<String> {
    events
        .iter()
        .map(|(header, bytes)| {
            let made = header.is_artificial();
            let body = &bytes[19..bytes.len() - 4]; // the checksum covers time and position
            let place = if made { 0 } else { header.log_pos };
            if header.kind == Kind::GTID_LIST {
                // MariaDB's order of domains is that of a hash table.
                let mut list = GtidList::decode(body).or_else(|_| GtidList::decode(&bytes[19..])).unwrap();
                list.gtids.sort();
                return format!("{list:?} {place}");
            }
            format!("{} {place} {:02x?}", header.kind.0, &body[..body.len().min(2000)])
        })
        .collect()
}

fn same(ours: u16, real: u16, dialect: Flavor, start: &Start) {
    let (mine, mine_end) = dump(ours, plan(dialect, start.clone()));
    let (theirs, their_end) = dump(real, plan(dialect, start.clone()));
    let (mine, theirs) = (comparable(&mine), comparable(&theirs));
    for (at, (a, b)) in mine.iter().zip(&theirs).enumerate() {
        assert_eq!(a, b, "event {at} from {start:?}");
    }
    assert_eq!(mine.len(), theirs.len(), "from {start:?}");
    assert_eq!(mine_end.map(|error| error.code), their_end.map(|error| error.code), "from {start:?}");
}

fn account() -> String {
    let password = PASSWORD.replace('\\', "\\\\").replace('\'', "\\'");
    format!("GRANT REPLICATION SLAVE ON *.* TO '{USER}'@'127.0.0.1' IDENTIFIED BY '{password}';")
}

#[tokio::test(flavor = "multi_thread")]
async fn as_mariadb_sends_it() {
    let mut server = Maria::start(Options::default().server_id(7).tcp()).unwrap();
    server.sql(&account()).unwrap();
    Workload::start(&server.access(), Work::maria(11).pieces(30)).unwrap().finish().unwrap();
    server.sql("FLUSH BINARY LOGS; CREATE DATABASE shop; SET GLOBAL binlog_checksum=NONE; CREATE TABLE shop.a (a INT); SET GLOBAL binlog_checksum=CRC32").unwrap();
    server.kill9().unwrap();
    server.restart().unwrap();
    server.sql("INSERT INTO shop.a VALUES (1); SET gtid_domain_id=5; INSERT INTO shop.a VALUES (2)").unwrap();
    let identity = Identity {
        version: server.value("SELECT @@version").unwrap(),
        flavor: Flavor::MariaDb,
        server_id: 7,
        server_uuid: None,
    };
    let archive = TestArchive::new(identity);
    archive.copy(&server.binlog_files().unwrap());
    let ours = serve(&archive);
    let port = ours.address().port();
    let real = server.port().unwrap();

    for name in ["bin.000001", "bin.000002", "bin.000005"] {
        same(port, real, Flavor::MariaDb, &Start::File { name: name.into(), position: 4 });
    }
    let end = server.value("SELECT @@gtid_binlog_pos").unwrap();
    let last: u64 = end.split(',').next().unwrap().rsplit('-').next().unwrap().parse().unwrap();
    for gtid in ["", "0-7-1", "0-7-17", "5-7-1"] {
        same(port, real, Flavor::MariaDb, &Start::MariaGtid(gtid.into()));
    }
    for seq in [last / 3, last / 2, last - 2, last - 1, last, last + 1] {
        same(port, real, Flavor::MariaDb, &Start::MariaGtid(format!("0-7-{seq}")));
        same(port, real, Flavor::MariaDb, &Start::MariaGtid(format!("0-7-{seq},5-7-1")));
    }
    // A replica that has diverged is refused by both; by us when its place is reached, without any group.
    let diverged = Start::MariaGtid(format!("0-9-{}", last / 2));
    let (mine, mine_end) = dump(port, plan(Flavor::MariaDb, diverged.clone()));
    assert!(mine.iter().all(|(header, _)| header.kind != Kind::MARIA_GTID));
    let (_, their_end) = dump(real, plan(Flavor::MariaDb, diverged));
    assert_eq!((mine_end.unwrap().code, their_end.unwrap().code), (1236, 1236));
    same(port, real, Flavor::MariaDb, &Start::File { name: "bin.000099".into(), position: 4 });
    same(port, real, Flavor::MariaDb, &Start::File { name: "bin.000002".into(), position: 1 << 30 });
    // At a group's start in the middle of a file.
    let (events, _) =
        dump(real, plan(Flavor::MariaDb, Start::File { name: "bin.000001".into(), position: 4 }));
    let groups: Vec<_> = events.iter().filter(|(header, _)| header.kind == Kind::MARIA_GTID).collect();
    let (header, _) = groups[groups.len() / 2];
    let position = header.log_pos - header.size;
    let name = "bin.000001";
    if position < std::fs::metadata(server.datadir().join(name)).unwrap().len() as u32 {
        same(port, real, Flavor::MariaDb, &Start::File { name: name.into(), position });
    }
    wait("nobody is served any more", || ours.status().is_empty()).await;
    ours.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn as_mysql_sends_it() {
    let options = Options::default().server_id(8).tcp();
    let options =
        options.with("--gtid-mode=ON").with("--enforce-gtid-consistency").with("--log-slave-updates");
    let server = MySql56::start(options).unwrap();
    server.sql(&account()).unwrap();
    server.sql("CREATE DATABASE shop; CREATE TABLE shop.a (a INT PRIMARY KEY); INSERT INTO shop.a VALUES (1); FLUSH LOGS; INSERT INTO shop.a VALUES (2); UPDATE shop.a SET a = a + 10").unwrap();
    let uuid = server.sql("SELECT @@server_uuid").unwrap()[0][0].clone();
    let identity = Identity {
        version: server.sql("SELECT @@version").unwrap()[0][0].clone(),
        flavor: Flavor::MySql,
        server_id: 8,
        server_uuid: Some(uuid.clone()),
    };
    let archive = TestArchive::new(identity);
    archive.copy(&server.binlog_files().unwrap());
    let ours = serve(&archive);
    let (port, real) = (ours.address().port(), server.port().unwrap());
    for name in ["bin.000001", "bin.000002", "bin.000009"] {
        same(port, real, Flavor::MySql, &Start::File { name: name.into(), position: 4 });
    }
    for set in ["", ":1", ":1-3", ":1-5", ":1-6"] {
        let set = if set.is_empty() { String::new() } else { format!("{uuid}{set}") };
        let set: ehpc_proto::binlog::MySqlSet = set.parse().unwrap();
        same(port, real, Flavor::MySql, &Start::MySqlGtid(set.encode()));
    }
    ours.stop().await;
}
