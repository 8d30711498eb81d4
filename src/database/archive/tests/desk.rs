//! The desk with its thread, on a real disk, over a wire in memory; and a process that is killed while it appends.

use super::super::{ArchiveDesk, Target};
use super::*;
use crate::database::link::{BoxFuture, Wire, WireIn, WireOut};
use ehpc_proto::replication::Hash;
use ehpc_proto::replication::database::{
    DATABASE_VERSION, DbAnswer, DbQuery, Mark, MarkKind, Place, ToArchive, ToSource,
};
use ehpc_proto::replication::wire::{self, Payload};
use parking_lot::Mutex;
use rand::SeedableRng;
use std::process::{Command, Stdio};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

struct Memory(mpsc::Receiver<Bytes>, mpsc::Sender<Bytes>);

impl Wire for Memory {
    fn split(self: Box<Self>) -> (Box<dyn WireIn>, Box<dyn WireOut>) {
        (Box::new(In(self.0)), Box::new(Out(self.1)))
    }
}

struct In(mpsc::Receiver<Bytes>);

impl WireIn for In {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, String>> {
        Box::pin(async { Ok(self.0.recv().await) })
    }
}

struct Out(mpsc::Sender<Bytes>);

impl WireOut for Out {
    fn send(&mut self, message: Payload) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { self.0.send(message.joined().into()).await.map_err(|_| "gone".to_owned()) })
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}

/// nfs1's end.
struct Source {
    to: mpsc::Sender<Bytes>,
    from: mpsc::Receiver<Bytes>,
    stop: CancellationToken,
}

impl Source {
    fn connect(desk: &ArchiveDesk) -> Source {
        let (to, inbox) = mpsc::channel(4);
        let (outbox, from) = mpsc::channel(64);
        let stop = CancellationToken::new();
        tokio::spawn(desk.serve(Box::new(Memory(inbox, outbox)), "nfs1".to_owned(), stop.clone()));
        Source { to, from, stop }
    }

    async fn say(&self, message: ToArchive) {
        self.to.send(wire::encode_to_archive(&message).joined().into()).await.unwrap();
    }

    async fn hear(&mut self) -> Option<ToSource> {
        let heard = tokio::time::timeout(Duration::from_secs(20), self.from.recv()).await;
        heard.expect("an answer within 20 s").map(|bytes| wire::decode_to_source(&bytes).unwrap())
    }

    async fn welcome(&mut self) -> (u32, u64) {
        self.say(ToArchive::Hello { version: DATABASE_VERSION, source: "db".to_owned() }).await;
        match self.hear().await.unwrap() {
            ToSource::Welcome { file, .. } => file.map_or((0, 0), |file| (file.ordinal, file.len)),
            other => panic!("{other:?}"),
        }
    }

    /// Waits until the archive has told that it is durable up to there.
    async fn durable(&mut self, file: u32, offset: u64) {
        loop {
            match self.hear().await.unwrap() {
                ToSource::Durable(place) if place == (Place { lineage: 1, file, offset }) => return,
                ToSource::Durable(_) | ToSource::Credit { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn ask(&mut self, query: DbQuery) -> DbAnswer {
        self.say(ToArchive::Ask { id: 9, query }).await;
        self.answer().await
    }

    async fn answer(&mut self) -> DbAnswer {
        loop {
            match self.hear().await.unwrap() {
                ToSource::Answer { id: 9, more: false, answer } => return answer,
                ToSource::Credit { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn ship(&self, bytes: &Bytes, from: u64, piece: usize) {
        let mut offset = from;
        for piece in bytes[from as usize..].chunks(piece) {
            let bytes = Bytes::copy_from_slice(piece);
            self.say(ToArchive::Bytes { offset, arrived: Timestamp::default(), bytes }).await;
            offset += piece.len() as u64;
        }
    }
}

fn opening(name: &str, ordinal: u32) -> ToArchive {
    ToArchive::Open { lineage: lineage(1), name: name.to_owned(), ordinal, joined: None }
}

fn no_others() -> super::super::Others {
    Arc::new(|_| Box::pin(async { Vec::new() }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_files_travel_through_the_desk_byte_for_byte() {
    let directory = tempfile::tempdir().unwrap();
    let (archive, _) = Archive::open(directory.path(), Options::default()).unwrap();
    let marks = Arc::new(Mutex::new(Vec::new()));
    let keep = marks.clone();
    let desk = ArchiveDesk::new(archive.clone(), Arc::new(move |mark| keep.lock().push(mark)), no_others());
    let mut source = Source::connect(&desk);
    assert_eq!(source.welcome().await, (0, 0));
    let names: Vec<String> = (1..=5).map(|n| format!("mariadb.{n:06}")).collect();
    for (at, name) in names.iter().enumerate() {
        let mut bytes = real(name);
        bytes[21] &= !1;
        let len = bytes.len() as u64;
        source.say(opening(name, at as u32 + 1)).await;
        source.ship(&bytes.clone().into(), 0, 333).await;
        source.durable(at as u32 + 1, len).await;
        source.say(ToArchive::Closed { name: name.clone(), len }).await;
        assert_eq!(std::fs::read(archive.path(1, at as u32 + 1).unwrap()).unwrap(), bytes);
    }
    // Questions, a mark, a refetch.
    let time = Timestamp::default();
    let place = Place { lineage: 1, file: 1, offset: 4 };
    let mark = Mark { time, place, batch: 1, cut: 2, kind: MarkKind::Fence };
    source.say(ToArchive::Mark(mark)).await;
    let DbAnswer::Files(files) = source.ask(DbQuery::Files { from: (1, 4) }).await else { panic!() };
    assert_eq!(files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), [&names[3], &names[4]]);
    assert_eq!(*marks.lock(), [mark]);
    let first = real(&names[0]);
    let (from, to) = (4, first.len() as u64);
    let answer = source.ask(DbQuery::Hash { lineage: 1, ordinal: 1, from, to }).await;
    assert_eq!(answer, DbAnswer::Hash(Hash::of(&first[4..])));
    let answer = source.ask(DbQuery::Hash { lineage: 1, ordinal: 1, from, to: to + 1 }).await;
    assert!(matches!(answer, DbAnswer::Failed { reason } if reason.contains("ends at")));
    assert!(matches!(source.ask(DbQuery::NewestBase).await, DbAnswer::Failed { .. }));
    let path = archive.path(1, 1).unwrap();
    let mut rotten = first.clone();
    rotten[900] ^= 4;
    std::fs::write(&path, &rotten).unwrap();
    source
        .say(ToArchive::Ask { id: 9, query: DbQuery::Refetch { lineage: 1, ordinal: 1, from: 0, to } })
        .await;
    for (at, piece) in first.chunks(1000).enumerate() {
        let bytes = Bytes::copy_from_slice(piece);
        source.say(ToArchive::Patch { id: 9, offset: at as u64 * 1000, bytes }).await;
    }
    assert_eq!(source.answer().await, DbAnswer::Refetched);
    assert_eq!(std::fs::read(&path).unwrap(), first);
    assert!(archive.status().connected);
    archive.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_connection_takes_over_and_a_stop_acknowledges_what_arrived() {
    let directory = tempfile::tempdir().unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    let file = made("bin.000001", 0, &[100, 200, 300], &mut rng);
    let (archive, _) = Archive::open(directory.path(), Options::default()).unwrap();
    assert!(Archive::open(directory.path(), Options::default()).is_err(), "one process at a time");
    let desk = ArchiveDesk::new(archive.clone(), Arc::new(|_| {}), no_others());
    let mut older = Source::connect(&desk);
    assert_eq!(older.welcome().await, (0, 0));
    older.say(opening("bin.000001", 1)).await;
    let (half, whole) = (file.groups[1].end, file.bytes.len() as u64);
    // It ends within an event.
    older.ship(&file.bytes.slice(..half as usize + 30), 0, 100).await;
    older.durable(1, half).await;
    let mut newer = Source::connect(&desk);
    assert_eq!(newer.welcome().await, (1, half), "what is no whole event is sent anew");
    // What the older one still says changes nothing.
    older.ship(&file.bytes.slice(..half as usize + 80), half + 30, 100).await;
    newer.ship(&file.bytes, half, 64).await;
    newer.say(ToArchive::Ping(1)).await;
    let mut last = Place::default();
    while let Some(message) = newer.hear().await {
        match message {
            ToSource::Durable(place) => last = place,
            // All of it has arrived.
            ToSource::Pong(1) => newer.stop.cancel(),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(last, Place { lineage: 1, file: 1, offset: whole });
    assert_eq!(std::fs::read(archive.path(1, 1).unwrap()).unwrap(), file.bytes);
    archive.stop();
}

#[tokio::test]
async fn garbage_is_refused_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let (archive, _) = Archive::open(directory.path(), Options::default()).unwrap();
    let desk = ArchiveDesk::new(archive, Arc::new(|_| {}), no_others());
    for garbage in [vec![0xff; 100], vec![], vec![2, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]] {
        let mut source = Source::connect(&desk);
        source.welcome().await;
        source.to.send(garbage.into()).await.unwrap();
        assert!(matches!(source.hear().await, Some(ToSource::Refused { .. })));
        assert_eq!(source.hear().await, None);
    }
}

/// Appends to the archive that the environment names, and says on its output what is durable, until it is killed.
#[test]
fn child_that_appends() {
    use std::io::Write as _;
    let Some(directory) = std::env::var_os("EHPC_ARCHIVE_CHILD") else { return };
    let (archive, recovered) = open_patiently(Path::new(&directory), Options { sync_every: 20_000 });
    assert_eq!(recovered.damage, []);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let files = killed_history();
        let desk = ArchiveDesk::new(archive, Arc::new(|_| {}), no_others());
        let mut source = Source::connect(&desk);
        let (mut ordinal, mut offset) = source.welcome().await;
        loop {
            let len = files.get((ordinal as usize).wrapping_sub(1)).map_or(0, |file| file.bytes.len() as u64);
            if ordinal == 0 || offset == len {
                if ordinal > 0 {
                    let name = files[ordinal as usize - 1].name.clone();
                    source.say(ToArchive::Closed { name, len }).await;
                }
                let Some(next) = files.get(ordinal as usize) else { return };
                (ordinal, offset) = (ordinal + 1, 0);
                source.say(opening(&next.name, ordinal)).await;
            }
            let file = &files[ordinal as usize - 1];
            let group = file.groups.iter().find(|group| group.end > offset);
            let to = group.map_or(file.bytes.len() as u64, |group| group.end);
            source.ship(&file.bytes.slice(..to as usize), offset, 1000).await;
            source.durable(ordinal, to).await;
            offset = to;
            println!("durable {ordinal} {offset}");
            std::io::stdout().flush().unwrap();
        }
    });
}

fn killed_history() -> Vec<MadeFile> {
    let mut rng = StdRng::seed_from_u64(11);
    let mut before = 0;
    (1..=400)
        .map(|n| {
            let sizes: Vec<usize> = (0..20).map(|_| rng.random_range(0..5000)).collect();
            let file = made(&format!("bin.{n:06}"), before, &sizes, &mut rng);
            before += 20;
            file
        })
        .collect()
}

#[test]
fn a_killed_process_loses_nothing_that_it_acknowledged() {
    use std::io::BufRead as _;
    let directory = tempfile::tempdir().unwrap();
    let files = killed_history();
    let mut rng = StdRng::seed_from_u64(12);
    let mut acked = (0, 0);
    for round in 0..12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "database::archive::tests::desk::child_that_appends"])
            .env("EHPC_ARCHIVE_CHILD", directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let wanted = rng.random_range(1..60);
        let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut seen = 0;
        for line in lines {
            let Some((_, place)) = line.split_once("durable ") else { continue };
            let (ordinal, offset) = place.split_once(' ').unwrap();
            acked = (ordinal.parse().unwrap(), offset.parse().unwrap());
            seen += 1;
            // What it acknowledges until it is dead is in the pipe, and read.
            if seen == wanted {
                child.kill().unwrap();
            }
            assert!(Instant::now() < deadline);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(seen >= wanted, "round {round}: the child ended by itself after {seen} of {wanted}");
        let (archive, recovered) = open_patiently(directory.path(), Options::default());
        assert_eq!(recovered.damage, []);
        let place = archive.durable().borrow().place;
        assert!((place.file, place.offset) >= acked, "{acked:?} was acknowledged, {place:?} is there");
        check_index(&archive, &files);
        for file in archive.files() {
            let there = std::fs::read(archive.path(1, file.ordinal).unwrap()).unwrap();
            let made = &files[file.ordinal as usize - 1].bytes;
            assert!(there[..] == made[..file.len as usize], "{} differs", file.name);
        }
        assert!(archive.find(&Target::Latest).is_ok());
    }
}
