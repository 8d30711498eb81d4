//! The server on a real socket, over a real directory.

mod acl;
mod admission;
mod bad_input;
mod engine;
mod fuzz;
mod hooked;
mod identity;
mod listing;
mod listing_bytes;
mod metering;
mod model;
mod procedures;
mod promises;
mod retransmission;
mod serving;
mod table;
mod udp;
mod wire;
mod wire_vfs;

use super::{Export, HandleKey, Options, Server, Table, serve};
use crate::host::Tree;
use crate::settings::exports::{self, Rule};
use crate::vfs::Vfs;
use crate::vfs::local::{LocalOptions, LocalVfs};
use ehpc_tools::nfs_client::{Client, Error, Handle};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

pub(super) const ID: u32 = 7;
pub(super) const WAIT: Duration = Duration::from_secs(20);

/// A server that runs for one test.
pub(super) struct Fixture {
    dir: TempDir,
    pub(super) runtime: Runtime,
    pub(super) server: Server,
    shutdown: CancellationToken,
}

pub(super) fn options() -> Options {
    Options::new(HandleKey::from_bytes([3; 32]))
}

fn local(path: &Path) -> Arc<dyn Vfs> {
    let tree = Tree::open(path).expect("the test's directory opens");
    Arc::new(LocalVfs::new(Arc::new(tree), LocalOptions::default()))
}

impl Fixture {
    fn start() -> Fixture {
        Fixture::with(options(), |_| {}, |vfs| vfs)
    }

    /// With other options, another export, and something around the file system.
    pub(super) fn with(
        options: Options,
        change: impl FnOnce(&mut Export),
        wrap: impl FnOnce(Arc<dyn Vfs>) -> Arc<dyn Vfs>,
    ) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let everybody = vec![Rule::everybody(exports::Options::open())];
        let mut export = Export::whole(ID, "/share", wrap(local(dir.path())), everybody);
        change(&mut export);
        let table = Table::new(vec![export]).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let shutdown = CancellationToken::new();
        let server = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            serve(listener, table, options, shutdown.clone()).unwrap()
        });
        Fixture { dir, runtime, server, shutdown }
    }

    fn client(&self) -> Client {
        Client::connect(self.server.address()).unwrap()
    }

    /// A client, and the root's handle.
    pub(super) fn mounted(&self) -> (Client, Handle) {
        let mut client = self.client();
        let root = client.mount("/share").unwrap();
        (client, root)
    }

    pub(super) fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Stops the server and waits until it has.
    pub(super) fn stop(&self) {
        self.shutdown.cancel();
        self.runtime
            .block_on(async { tokio::time::timeout(WAIT, self.server.stopped()).await })
            .expect("stops");
    }
}

/// The NFS status of a call that failed.
fn status<T>(result: Result<T, Error>) -> u32 {
    match result {
        Ok(_) => 0,
        Err(error) => match error.status() {
            Some(status) => status,
            None => panic!("{error}"),
        },
    }
}

/// Waits for a condition, at most `WAIT`.
pub(super) fn wait_until(what: &str, mut met: impl FnMut() -> bool) {
    let start = Instant::now();
    while !met() {
        assert!(start.elapsed() < WAIT, "waited too long: {what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// Words as bytes.
fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// A record of these bytes.
fn record(body: &[u8]) -> Vec<u8> {
    [&ehpc_proto::record::mark(body.len())[..], body].concat()
}
