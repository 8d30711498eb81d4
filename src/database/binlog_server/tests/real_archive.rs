//! The archive itself as the feed: shipped to as nfs1 does it, served while it grows, and one lineage alone.

use super::maria::identity;
use super::{assert_same_data, change_master, replica_status, serve_feed, wait};
use crate::database::archive::{Archive, ArchiveDesk, Options as ArchiveOptions};
use crate::database::binlog_server::{Feed, OneLineage};
use crate::database::link::{BoxFuture, Wire, WireIn, WireOut};
use bytes::Bytes;
use ehpc_proto::binlog::Flavor;
use ehpc_proto::replication::database::{DATABASE_VERSION, Lineage, ToArchive};
use ehpc_proto::replication::wire::{Payload, encode_to_archive};
use ehpc_tools::database::{Maria, Options, Work, Workload};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

struct In(mpsc::Receiver<Bytes>);
struct Out(Arc<AtomicBool>);
struct Halves(In, Out);

impl Wire for Halves {
    fn split(self: Box<Self>) -> (Box<dyn WireIn>, Box<dyn WireOut>) {
        (Box::new(self.0), Box::new(self.1))
    }
}

impl WireIn for In {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, String>> {
        Box::pin(async move { Ok(self.0.recv().await) })
    }
}

impl WireOut for Out {
    fn send(&mut self, _: Payload) -> BoxFuture<'_, Result<(), String>> {
        self.0.store(true, Ordering::Release);
        Box::pin(async { Ok(()) })
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}

/// Ships servers' files.
struct Shipper {
    out: mpsc::Sender<Bytes>,
    lineage: Lineage,
    shipped: BTreeMap<String, u64>,
}

impl Shipper {
    async fn start(archive: &Arc<Archive>, server: &Maria) -> Shipper {
        let (out, inbox) = mpsc::channel(4);
        let welcome = Arc::new(AtomicBool::new(false));
        let others = Arc::new(|_| Box::pin(async { Vec::new() }) as BoxFuture<'static, _>);
        let desk = ArchiveDesk::new(Arc::clone(archive), Arc::new(|_| {}), others);
        let wire = Box::new(Halves(In(inbox), Out(Arc::clone(&welcome))));
        tokio::spawn(desk.serve(wire, "test".into(), CancellationToken::new()));
        let shipper = Shipper { out, lineage: lineage(server, 1), shipped: BTreeMap::new() };
        shipper.say(&ToArchive::Hello { version: DATABASE_VERSION, source: "test".into() }).await;
        wait("the welcome", || welcome.load(Ordering::Acquire)).await;
        shipper
    }

    async fn say(&self, message: &ToArchive) {
        self.out.send(encode_to_archive(message).joined().into()).await.unwrap();
    }

    fn next_lineage(&mut self, server: &Maria) {
        self.lineage = lineage(server, self.lineage.number + 1);
        self.shipped.clear();
    }

    /// Ships what is new in whole events' files; the last file is left open.
    async fn ship(&mut self, server: &Maria) {
        let files = server.binlog_files().unwrap();
        for (at, path) in files.iter().enumerate() {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let mut bytes = std::fs::read(path).unwrap();
            bytes[4 + 17] &= !1; // on the wire no file is in use
            if !self.shipped.contains_key(&name) {
                let (lineage, ordinal) = (self.lineage.clone(), self.shipped.len() as u32 + 1);
                self.say(&ToArchive::Open { lineage, name: name.clone(), ordinal, joined: None }).await;
            }
            let mut offset = self.shipped.get(&name).copied().unwrap_or(0);
            for piece in bytes[offset as usize..].chunks(100_000) {
                let bytes = Bytes::copy_from_slice(piece);
                self.say(&ToArchive::Bytes { offset, arrived: Default::default(), bytes }).await;
                offset += piece.len() as u64;
            }
            let before = self.shipped.insert(name.clone(), offset);
            let last = at + 1 == files.len();
            if !last && (before != Some(offset) || at + 2 == files.len()) {
                self.say(&ToArchive::Closed { name, len: offset }).await;
            }
        }
    }
}

fn lineage(server: &Maria, number: u32) -> Lineage {
    let identity = identity(server);
    let first = std::fs::read(&server.binlog_files().unwrap()[0]).unwrap();
    let mut first_event = [0; 19];
    first_event.copy_from_slice(&first[4..23]);
    first_event[17] &= !1;
    Lineage {
        number,
        flavor: Flavor::MariaDb,
        server_id: identity.server_id,
        server_uuid: None,
        version: identity.version,
        first_file: "bin.000001".into(),
        first_event,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn served_while_it_grows_and_into_the_next_lineage() {
    let directory = tempfile::tempdir().unwrap();
    let (archive, _) = Archive::open(directory.path(), ArchiveOptions::default()).unwrap();
    assert_eq!(archive.identity(), None);
    let ours = serve_feed(Arc::clone(&archive) as Arc<dyn Feed>, 0);
    let replica = Maria::start(Options::default().server_id(9)).unwrap();
    let access = replica.access();
    replica.sql(&change_master(ours.address().port(), "MASTER_USE_GTID=slave_pos")).unwrap();
    replica.sql("START SLAVE").unwrap();
    wait("it is told why", || replica_status(&access, "Last_IO_Error").contains("archive is empty")).await;

    let server = Maria::start(Options::default().with("--max-binlog-size=64K")).unwrap();
    let mut shipper = Shipper::start(&archive, &server).await;
    for round in 0..3 {
        let work = Work::maria(100 + round).pieces(10);
        Workload::start(&server.access(), work).unwrap().finish().unwrap();
        shipper.ship(&server).await;
        let end = server.value("SELECT @@gtid_binlog_pos").unwrap();
        wait("the replica follows", || {
            assert_eq!(replica_status(&access, "Last_SQL_Error"), "");
            replica.value("SELECT @@gtid_slave_pos").unwrap() == end
        })
        .await;
        assert_same_data(&access, &server.access());
    }

    // Another server goes on: a copy of the first one.
    drop(shipper);
    let first_end = server.value("SELECT @@gtid_binlog_pos").unwrap();
    let mut server = server;
    server.stop().unwrap();
    let second = Maria::start_on(&server.datadir(), Options::default().server_id(2)).unwrap();
    second.sql("CREATE DATABASE shop; CREATE TABLE shop.a (a INT PRIMARY KEY)").unwrap();
    let mut shipper = Shipper::start(&archive, &second).await;
    shipper.next_lineage(&second);
    shipper.ship(&second).await;
    let end = second.value("SELECT @@gtid_binlog_pos").unwrap();
    wait("it follows there", || replica.value("SELECT @@gtid_slave_pos").unwrap() == end).await;
    assert_same_data(&access, &second.access());

    // The first lineage alone: for a restore it ends where it ended.
    let only = Arc::new(OneLineage::new(Arc::clone(&archive), 1));
    assert_eq!(only.end().1.to_string(), first_end);
    let alone = serve_feed(only, 0);
    let other = Maria::start(Options::default().server_id(8)).unwrap();
    let place = "MASTER_USE_GTID=no, MASTER_LOG_FILE='bin.000001', MASTER_LOG_POS=4";
    other.sql(&change_master(alone.address().port(), place)).unwrap();
    other.sql("START SLAVE").unwrap();
    wait("it has the first lineage", || other.value("SELECT @@gtid_slave_pos").unwrap() == first_end).await;
    assert_eq!(replica_status(&other.access(), "Slave_IO_Running"), "Yes");
    alone.stop().await;
    ours.stop().await;
    archive.stop();
}
