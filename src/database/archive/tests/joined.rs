//! A real server, the source, a lane that is cut, and the archive, which is closed and opened again meanwhile: in the end
//! both have the same bytes.

use super::super::{ArchiveDesk, Target};
use super::*;
use crate::database::dsn::Dsn;
use crate::database::link::{BoxFuture, Dial, Wire, WireIn, WireOut};
use crate::database::source::{Source, SourceOptions};
use ehpc_proto::replication::wire::Payload;
use ehpc_tools::database::{Maria, Work, Workload};
use parking_lot::Mutex;
use rand::SeedableRng;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(90);

/// Where connections go: to nobody, while the archive is closed.
#[derive(Default)]
struct Backup {
    desk: Mutex<Option<(ArchiveDesk, CancellationToken)>>,
    cut: Mutex<CancellationToken>,
}

struct Pipe {
    from: mpsc::Receiver<Bytes>,
    to: mpsc::Sender<Bytes>,
    cut: CancellationToken,
}

impl Dial for Backup {
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn Wire>, String>> {
        Box::pin(async {
            let open = self.desk.lock().clone();
            let Some((desk, stop)) = open else { return Err("the backup is down".to_owned()) };
            let cut = self.cut.lock().clone();
            let (to_far, far) = mpsc::channel(8);
            let (to_near, near) = mpsc::channel(8);
            let wire = Pipe { from: far, to: to_near, cut: cut.clone() };
            tokio::spawn(desk.serve(Box::new(wire), "nfs1".to_owned(), stop.child_token()));
            Ok(Box::new(Pipe { from: near, to: to_far, cut }) as Box<dyn Wire>)
        })
    }
}

impl Wire for Pipe {
    fn split(self: Box<Self>) -> (Box<dyn WireIn>, Box<dyn WireOut>) {
        (Box::new(In(self.from, self.cut.clone())), Box::new(Out(self.to, self.cut)))
    }
}

struct In(mpsc::Receiver<Bytes>, CancellationToken);

impl WireIn for In {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, String>> {
        Box::pin(async {
            tokio::select! {
                () = self.1.cancelled() => Err("cut".to_owned()),
                bytes = self.0.recv() => Ok(bytes),
            }
        })
    }
}

struct Out(mpsc::Sender<Bytes>, CancellationToken);

impl WireOut for Out {
    fn send(&mut self, message: Payload) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async {
            tokio::select! {
                () = self.1.cancelled() => Err("cut".to_owned()),
                sent = self.0.send(message.joined().into()) => sent.map_err(|_| "gone".to_owned()),
            }
        })
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}

impl Backup {
    fn open(&self, directory: &Path) -> Arc<Archive> {
        let (archive, recovered) = open_patiently(directory, Options::default());
        assert_eq!(recovered.damage, []);
        let others = Arc::new(|_| Box::pin(async { Vec::new() }) as BoxFuture<'static, _>);
        let desk = ArchiveDesk::new(archive.clone(), Arc::new(|_| {}), others);
        *self.desk.lock() = Some((desk, CancellationToken::new()));
        archive
    }

    fn close(&self, archive: Arc<Archive>) {
        if let Some((_, stop)) = self.desk.lock().take() {
            stop.cancel();
        }
        archive.stop();
        let deadline = Instant::now() + DEADLINE;
        // The lock goes with the last of those who hold it.
        let last = Arc::downgrade(&archive);
        drop(archive);
        while last.strong_count() > 0 {
            assert!(Instant::now() < deadline, "somebody holds the archive");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    fn cut(&self) {
        std::mem::take(&mut *self.cut.lock()).cancel();
    }
}

fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {DEADLINE:?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn the_archive_of_a_busy_server_is_equal_whatever_is_cut_or_restarted() {
    let mut server = Maria::start(ehpc_tools::database::Options::default()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let backup = Arc::new(Backup::default());
    let mut archive = backup.open(directory.path());
    let options = SourceOptions {
        servers: vec![Dsn::socket(server.socket(), "root")],
        server_id: 4_200_001,
        semi_sync: false,
        over_gaps: false,
        dial: backup.clone(),
    };
    let source = Source::start(runtime.handle(), options);
    let work = Workload::start(&server.access(), Work::maria(3)).unwrap();
    let mut rng = StdRng::seed_from_u64(3);
    for round in 1..=10 {
        work.wait_for(round * 25).unwrap();
        match rng.random_range(0..3) {
            0 => backup.cut(),
            1 => {
                backup.close(archive);
                archive = backup.open(directory.path());
            }
            _ => drop(server.sql("FLUSH BINARY LOGS").unwrap()),
        }
    }
    let seen = work.stop().unwrap();
    assert!(seen.count() > 100);
    let settle = |archive: &Archive| {
        let place = runtime.block_on(source.fresh(DEADLINE)).unwrap();
        wait("everything is durable", || archive.durable().borrow().place >= place);
    };
    settle(&archive);
    let gtid = server.value("SELECT @@gtid_binlog_pos").unwrap();
    let latest = archive.find(&Target::Latest).unwrap();
    assert_eq!(latest.gtid.to_string(), gtid);
    // The server is killed: its file stays open for ever, the next one goes on.
    server.kill9().unwrap();
    server.restart().unwrap();
    server.sql("CREATE TABLE work.last_words (a INT)").unwrap();
    settle(&archive);
    let files = archive.files();
    let theirs = server.binlog_files().unwrap();
    assert_eq!(files.len(), theirs.len());
    assert_eq!(archive.lineages().len(), 1);
    for (file, path) in files.iter().zip(&theirs) {
        let mut bytes = std::fs::read(path).unwrap();
        bytes[21] &= !1;
        let ours = std::fs::read(archive.path(1, file.ordinal).unwrap()).unwrap();
        assert!(ours == bytes, "{}: {} bytes here, {} there", file.name, ours.len(), bytes.len());
    }
    assert_eq!(archive.maintain(&|| false).unwrap(), []);
    for file in files {
        assert_eq!(archive.check(1, file.ordinal, &|| false).unwrap(), []);
    }
    runtime.block_on(source.stop());
    backup.close(archive);
}
