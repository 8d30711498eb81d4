//! A stock MySQL 5.6 as a replica, by position and by GTID.

use super::archive::TestArchive;
use super::maria::seed;
use super::{assert_same_data, change_master, replica_status, serve, wait};
use crate::database::binlog_server::Identity;
use ehpc_proto::binlog::Flavor;
use ehpc_tools::database::{MySql56, Options, Work, Workload};

fn identity(server: &MySql56) -> Identity {
    let value = |what: &str| server.sql(&format!("SELECT {what}")).unwrap()[0][0].clone();
    Identity {
        version: value("@@version"),
        flavor: Flavor::MySql,
        server_id: value("@@server_id").parse().unwrap(),
        server_uuid: Some(value("@@server_uuid")),
    }
}

async fn follows(options: Options, start: &str) {
    let seed = seed();
    let server = MySql56::start(options.clone()).unwrap();
    let archive = TestArchive::new(identity(&server));
    Workload::start(&server.access(), Work::mysql(seed).pieces(40)).unwrap().finish().unwrap();
    archive.copy(&server.binlog_files().unwrap());
    let ours = serve(&archive);
    let replica = MySql56::start(options.server_id(2)).unwrap();
    replica.sql(&change_master(ours.address().port(), start)).unwrap();
    replica.sql("START SLAVE").unwrap();
    let access = replica.access();
    // Rotation and what comes live.
    server.sql("FLUSH LOGS; CREATE DATABASE shop; CREATE TABLE shop.a (a INT PRIMARY KEY); INSERT INTO shop.a VALUES (1)").unwrap();
    archive.copy(&server.binlog_files().unwrap());
    let there = |access: &ehpc_tools::database::Access, rows: &str| {
        access.sql("SELECT COUNT(*) FROM shop.a").is_ok_and(|found| found[0][0] == rows)
    };
    wait("the replica catches up", || {
        assert_eq!(replica_status(&access, "Last_Error"), "");
        assert_eq!(replica_status(&access, "Last_IO_Error"), "");
        there(&access, "1")
    })
    .await;
    replica.sql("STOP SLAVE; START SLAVE").unwrap();
    server.sql("INSERT INTO shop.a VALUES (2)").unwrap();
    archive.copy(&server.binlog_files().unwrap());
    wait("it goes on", || {
        assert_eq!(replica_status(&access, "Last_Error"), "");
        assert_eq!(replica_status(&access, "Last_IO_Error"), "");
        there(&access, "2")
    })
    .await;
    assert_same_data(&access, &server.access());
    ours.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_position() {
    follows(Options::default(), "MASTER_LOG_FILE='bin.000001', MASTER_LOG_POS=4").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_gtid() {
    let options = Options::default().with("--gtid-mode=ON").with("--log-slave-updates");
    follows(options.with("--enforce-gtid-consistency"), "MASTER_AUTO_POSITION=1").await;
}
