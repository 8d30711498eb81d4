//! Rotten files of the archive: the replica is told, and nothing hangs.

use super::archive::TestArchive;
use super::client::{dump, follow, plan};
use super::maria::{caught_up, identity};
use super::{assert_same_data, change_master, replica_status, serve, wait};
use crate::database::binlog_server::Identity;
use ehpc_proto::binlog::{EventHeader, Flavor};
use ehpc_proto::mysql::replica::Start;
use ehpc_tools::database::{Maria, Options};
use std::io::Read;
use std::path::Path;

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_reaches_past_the_end_is_told_and_does_not_hang() {
    let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/binlog/mariadb.000001"));
    let bytes = std::fs::read(file).unwrap();
    let mut starts = vec![4];
    while let Some(header) = bytes.get(starts[starts.len() - 1]..).filter(|rest| !rest.is_empty()) {
        starts.push(starts[starts.len() - 1] + EventHeader::decode(header).unwrap().size as usize);
    }
    let last = starts[starts.len() - 2];
    let version = "10.11.6-MariaDB".to_owned();
    let identity = Identity { version, flavor: Flavor::MariaDb, server_id: 7, server_uuid: None };
    let archive = TestArchive::new(identity);
    archive.copy(&[file.to_owned()]);
    let server = serve(&archive);
    let name = file.file_name().unwrap().to_str().unwrap().to_owned();
    let whole = |file: &Path| {
        let start = Start::File { name: name.clone(), position: 4 };
        let port = server.address().port();
        assert_eq!(std::fs::metadata(file).unwrap().len(), bytes.len() as u64);
        dump(port, plan(Flavor::MariaDb, start)).1
    };
    assert_eq!(whole(&archive.newest()), None);
    let size = (bytes.len() - last) as u32;
    let rot = |size: u32| {
        let mut copy = bytes.clone();
        copy[last + 9..last + 13].copy_from_slice(&size.to_le_bytes());
        // Its position fits, so that nothing but the end of the file contradicts it.
        copy[last + 13..last + 17].copy_from_slice(&(last as u32 + size).to_le_bytes());
        std::fs::write(archive.newest(), &copy).unwrap();
    };
    // A little, and so that less than a header is left behind it.
    for rotten in [size + 100, size - 5] {
        rot(rotten);
        let error = whole(&archive.newest()).unwrap_or_else(|| panic!("size {rotten} is taken for sound"));
        assert_eq!(error.code, 1024, "{error:?}");
        assert!(error.message.contains(&name), "{error:?}");
    }
    // More than is read at once: its beginning is sent already, and the connection is closed within it.
    rot(size + (1 << 20));
    let start = Start::File { name: name.clone(), position: 4 };
    let mut stream = follow(server.address().port(), plan(Flavor::MariaDb, start));
    stream.read_to_end(&mut Vec::new()).unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_waits_for_a_damaged_file_and_goes_on_when_it_is_mended() {
    let server = Maria::start(Options::default()).unwrap();
    let archive = TestArchive::new(identity(&server));
    server
        .sql("CREATE DATABASE shop; CREATE TABLE shop.a (a INT PRIMARY KEY); INSERT INTO shop.a VALUES (1)")
        .unwrap();
    archive.copy(&server.binlog_files().unwrap());
    let (path, whole) = (archive.newest(), std::fs::read(archive.newest()).unwrap());
    let ours = serve(&archive);
    let replica = Maria::start(Options::default().server_id(2)).unwrap();
    replica.sql(&change_master(ours.address().port(), "MASTER_USE_GTID=slave_pos")).unwrap();
    let access = replica.access();
    let told = || std::fs::read_to_string(replica.log()).unwrap().matches("server_errno=1024").count();
    // In its first event, so that nothing is sent; and in its last one, behind others that are.
    for (round, rotten) in [40, whole.len() - 20].into_iter().enumerate() {
        let mut bytes = whole.clone();
        bytes[rotten] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        if round > 0 {
            replica.sql("STOP SLAVE; SET GLOBAL gtid_slave_pos = ''; DROP DATABASE shop").unwrap();
        }
        let before = told();
        replica.sql("START SLAVE").unwrap();
        wait("it comes again and again", || {
            assert_ne!(replica_status(&access, "Slave_IO_Running"), "No");
            told() > before + 1
        })
        .await;
        // It does not come more often than once in a while.
        assert!(told() < before + 4, "{}", told());
        std::fs::write(&path, &whole).unwrap();
        caught_up(&server, &replica).await;
        assert_same_data(&access, &server.access());
    }
    ours.stop().await;
}
