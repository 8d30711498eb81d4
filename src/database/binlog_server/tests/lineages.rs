//! A failover of the source: the archive goes on with another server's files.

use super::archive::TestArchive;
use super::maria::identity;
use super::{assert_same_data, change_master, replica_status, serve, wait};
use ehpc_tools::database::{Maria, Options};

#[tokio::test(flavor = "multi_thread")]
async fn by_gtid_a_replica_follows_into_another_server_s_log_and_by_position_it_is_told() {
    let first = Maria::start(Options::default().tcp()).unwrap();
    let second = Maria::start(Options::default().server_id(2).with("--log-slave-updates=1")).unwrap();
    first.sql("GRANT REPLICATION SLAVE ON *.* TO 'replica'@'127.0.0.1' IDENTIFIED BY 'x'").unwrap();
    let port = first.port().unwrap();
    second
        .sql(&format!(
            "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={port}, MASTER_USER='replica', MASTER_PASSWORD='x', \
             MASTER_USE_GTID=slave_pos; START SLAVE"
        ))
        .unwrap();
    first.sql("CREATE DATABASE shop; CREATE TABLE shop.a (a INT PRIMARY KEY); INSERT INTO shop.a VALUES (1), (2); FLUSH BINARY LOGS; INSERT INTO shop.a VALUES (3)").unwrap();
    let position = |server: &Maria, what: &str| server.value(&format!("SELECT @@{what}")).unwrap();
    let end = position(&first, "gtid_binlog_pos");
    wait("the second server follows the first", || position(&second, "gtid_slave_pos") == end).await;

    let archive = TestArchive::new(identity(&first));
    archive.copy(&first.binlog_files().unwrap());
    let ours = serve(&archive);
    let port = ours.address().port();
    let replicas = [3, 4].map(|id| Maria::start(Options::default().server_id(id)).unwrap());
    let [by_gtid, by_position] = &replicas;
    by_gtid.sql(&change_master(port, "MASTER_USE_GTID=slave_pos")).unwrap();
    let place = "MASTER_USE_GTID=no, MASTER_LOG_FILE='bin.000001', MASTER_LOG_POS=4";
    by_position.sql(&change_master(port, place)).unwrap();
    for replica in &replicas {
        replica.sql("START SLAVE").unwrap();
        wait("it has the first server's log", || position(replica, "gtid_slave_pos") == end).await;
    }

    // The first server is gone; the second one writes on. Its files hold all from the beginning.
    drop(first);
    second.sql("STOP SLAVE; RESET SLAVE ALL; INSERT INTO shop.a VALUES (4); FLUSH BINARY LOGS; INSERT INTO shop.a VALUES (5)").unwrap();
    archive.lineage(identity(&second));
    archive.copy(&second.binlog_files().unwrap());
    let end = position(&second, "gtid_binlog_pos");
    wait("the replica follows", || position(by_gtid, "gtid_slave_pos") == end).await;
    assert_same_data(&by_gtid.access(), &second.access());
    let told = by_position.access();
    wait("the other one ends", || replica_status(&told, "Slave_IO_Running") == "No").await;
    assert_eq!(replica_status(&told, "Last_IO_Errno"), "1236");
    assert!(replica_status(&told, "Last_IO_Error").contains("standby --init"));

    // Started anew, by GTID: in the new lineage; by position: the name says too little.
    by_gtid.sql("STOP SLAVE; START SLAVE").unwrap();
    second.sql("INSERT INTO shop.a VALUES (6)").unwrap();
    archive.copy(&second.binlog_files().unwrap());
    let end = position(&second, "gtid_binlog_pos");
    wait("the replica goes on", || position(by_gtid, "gtid_slave_pos") == end).await;
    by_position.sql("STOP SLAVE; START SLAVE").unwrap();
    wait("it is refused", || replica_status(&told, "Last_IO_Error").contains("more than one server")).await;

    // One that has what nobody logged.
    by_gtid.sql("STOP SLAVE; SET GLOBAL gtid_slave_pos='0-9-4'; START SLAVE").unwrap();
    let told = by_gtid.access();
    wait("it has diverged", || replica_status(&told, "Last_IO_Error").contains("has diverged")).await;
    by_gtid.sql("STOP SLAVE; SET GLOBAL gtid_slave_pos='0-2-99'; START SLAVE").unwrap();
    wait("it is ahead", || replica_status(&told, "Last_IO_Error").contains("is not in the master's binlog"))
        .await;
    ours.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_been_pruned_is_not_served() {
    let server = Maria::start(Options::default()).unwrap();
    server.sql("CREATE DATABASE shop; FLUSH BINARY LOGS; CREATE TABLE shop.a (a INT PRIMARY KEY)").unwrap();
    let archive = TestArchive::new(identity(&server));
    archive.copy(&server.binlog_files().unwrap());
    archive.prune(0);
    let ours = serve(&archive);
    let port = ours.address().port();
    let replica = Maria::start(Options::default().server_id(2)).unwrap();
    let access = replica.access();
    replica.sql(&change_master(port, "MASTER_USE_GTID=slave_pos")).unwrap();
    replica.sql("START SLAVE").unwrap();
    wait("by GTID", || replica_status(&access, "Last_IO_Error").contains("have been purged")).await;
    replica.sql("STOP SLAVE").unwrap();
    replica
        .sql(&change_master(port, "MASTER_USE_GTID=no, MASTER_LOG_FILE='bin.000001', MASTER_LOG_POS=4"))
        .unwrap();
    replica.sql("START SLAVE").unwrap();
    wait("by position", || replica_status(&access, "Last_IO_Error").contains("Could not find first log"))
        .await;
    replica.sql("STOP SLAVE").unwrap();
    replica
        .sql(&change_master(port, "MASTER_USE_GTID=no, MASTER_LOG_FILE='bin.000002', MASTER_LOG_POS=4"))
        .unwrap();
    replica.sql("CREATE DATABASE shop; START SLAVE").unwrap();
    wait("what is left", || replica.sql("SELECT * FROM shop.a").is_ok()).await;
    ours.stop().await;
}
