//! Both ends of the lane with everything between them slow, late or cut, by seeds: session, writing thread (stepped), disk.

use super::super::session::{Action, ArchiveSession};
use super::super::writer::{Outcome, Party, Work, Writer};
use super::*;
use ehpc_proto::replication::database::{CREDIT, DATABASE_VERSION, MAX_PIECE, Place, ToArchive, ToSource};
use ehpc_proto::replication::wire;
use rand::SeedableRng;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// nfs1's end, as simple as it can be.
#[derive(Default)]
struct Courier {
    /// Where it is, once it is welcomed: ordinal, offset, the file is closed.
    at: Option<(u32, u64, bool)>,
    credit: u64,
    durable: Place,
    finished: bool,
}

impl Courier {
    fn next(&mut self, files: &[MadeFile], rng: &mut StdRng) -> Option<ToArchive> {
        let (ordinal, offset, closed) = self.at?;
        let file = ordinal.checked_sub(1).map(|at| &files[at as usize]);
        let Some(file) = file.filter(|_| !closed) else {
            let name = files.get(ordinal as usize)?.name.clone();
            self.at = Some((ordinal + 1, 0, false));
            return Some(ToArchive::Open { lineage: lineage(1), name, ordinal: ordinal + 1, joined: None });
        };
        let len = file.bytes.len() as u64;
        if offset == len {
            if ordinal as usize == files.len() {
                self.finished = true;
                return None;
            }
            self.at = Some((ordinal, offset, true));
            return Some(ToArchive::Closed { name: file.name.clone(), len });
        }
        let most = [50, 5_000, MAX_PIECE][rng.random_range(0..3)];
        let size = (rng.random_range(1..=most) as u64).min(len - offset);
        self.credit = self.credit.checked_sub(size)?;
        self.at = Some((ordinal, offset + size, false));
        let bytes = file.bytes.slice(offset as usize..(offset + size) as usize);
        Some(ToArchive::Bytes { offset, arrived: Timestamp::default(), bytes })
    }

    fn received(&mut self, message: ToSource) {
        match message {
            ToSource::Welcome { file, credit, head, .. } => {
                assert_eq!(head.is_empty(), file.is_none());
                let file = file.map(|file| (file.ordinal, file.len, file.closed));
                let at = file.unwrap_or((0, 0, true));
                let place = Place { lineage: 1, file: at.0, offset: at.1 };
                assert!(
                    self.durable.lineage == 0 || place >= self.durable,
                    "{place:?} after {:?}",
                    self.durable
                );
                (self.at, self.credit) = (Some(at), credit);
            }
            ToSource::Durable(place) => {
                assert!(place > self.durable, "{place:?} after {:?}", self.durable);
                self.durable = place;
            }
            ToSource::Credit { bytes } => {
                self.credit += bytes;
                assert!(self.credit <= CREDIT);
            }
            ToSource::Refused { .. } => self.at = None,
            other => panic!("{other:?}"),
        }
    }
}

/// A connection as both see it.
struct Connection {
    id: u64,
    session: ArchiveSession,
    outcomes: UnboundedReceiver<Outcome>,
    party: Party,
    up: VecDeque<Vec<u8>>,
    down: VecDeque<Vec<u8>>,
    over: bool,
}

impl Connection {
    fn new(id: u64) -> Connection {
        let (outcomes, queue) = unbounded_channel();
        let hello = ToArchive::Hello { version: DATABASE_VERSION, source: "db".to_owned() };
        Connection {
            id,
            session: ArchiveSession::start(Duration::ZERO),
            outcomes: queue,
            party: Party { id, outcomes },
            up: [wire::encode_to_archive(&hello).joined()].into(),
            down: VecDeque::new(),
            over: false,
        }
    }

    fn perform(&mut self, actions: Vec<Action>, works: &mut VecDeque<Work>) {
        for action in actions {
            match action {
                Action::Send(message) => self.down.push_back(wire::encode_to_source(&message)),
                Action::Begin => works.push_back(Work::Begin(self.party.clone())),
                Action::Append(append) => works.push_back(Work::Append(self.id, append)),
                Action::End { .. } => self.over = true,
                other => panic!("{other:?}"),
            }
        }
    }
}

fn open_writer(disk: &SimulatedDisk) -> (Arc<Archive>, Writer) {
    let disk: Arc<dyn ArchiveDisk> = Arc::new(disk.clone());
    let options = Options { sync_every: 50_000 };
    let (archive, writer, _, _) = Archive::over(Path::new("/"), disk, options).unwrap();
    (archive, writer)
}

struct World {
    rng: StdRng,
    disk: SimulatedDisk,
    archive: Arc<Archive>,
    writer: Writer,
    works: VecDeque<Work>,
    connection: Connection,
    courier: Courier,
    connections: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let disk = SimulatedDisk::new(seed);
        let (archive, writer) = open_writer(&disk);
        World {
            rng: StdRng::seed_from_u64(seed),
            disk,
            archive,
            writer,
            works: VecDeque::new(),
            connection: Connection::new(1),
            courier: Courier::default(),
            connections: 1,
        }
    }

    fn reconnect(&mut self) {
        self.connections += 1;
        self.connection = Connection::new(self.connections);
        self.courier.at = None;
    }

    fn power_cut(&mut self) {
        self.works.clear();
        self.disk.crash();
        (self.archive, self.writer) = open_writer(&self.disk);
        self.reconnect();
    }

    fn step(&mut self, files: &[MadeFile]) {
        let connection = &mut self.connection;
        match self.rng.random_range(0..100) {
            0..30 => {
                if let Some(message) = self.courier.next(files, &mut self.rng) {
                    connection.up.push_back(wire::encode_to_archive(&message).joined());
                }
            }
            30..55 => {
                if let Some(bytes) = connection.up.pop_front() {
                    let message = wire::decode_to_archive(bytes.into()).unwrap();
                    let actions = connection.session.received(Duration::ZERO, message);
                    connection.perform(actions, &mut self.works);
                }
            }
            55..75 => match self.works.pop_front() {
                Some(work) => assert!(self.writer.work(work)),
                None => self.writer.sync(),
            },
            75..98 => {
                while let Ok(outcome) = connection.outcomes.try_recv() {
                    let actions = match outcome {
                        Outcome::Begun(end) => connection.session.begun(end),
                        Outcome::Written(bytes) => connection.session.written(bytes),
                        Outcome::Durable(place) => connection.session.durable(place),
                        Outcome::Failed(fault) => connection.session.refuse(fault.to_string()),
                        other => panic!("{other:?}"),
                    };
                    connection.perform(actions, &mut self.works);
                }
                if let Some(bytes) = connection.down.pop_front() {
                    self.courier.received(wire::decode_to_source(&bytes).unwrap());
                } else if connection.over {
                    self.reconnect();
                }
            }
            98 if self.rng.random_bool(0.3) => self.reconnect(),
            99 if self.rng.random_bool(0.1) => self.power_cut(),
            99 if self.rng.random_bool(0.1) => self.disk.fail_syncs(1),
            _ => {}
        }
        let durable = self.archive.durable().borrow().place;
        assert!(self.courier.durable <= durable, "{:?} was told, {durable:?} is", self.courier.durable);
    }
}

#[test]
fn everything_arrives_and_nothing_is_told_before_it_is_on_the_disk() {
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let files = {
            let count = rng.random_range(1..4);
            history(count, &mut rng)
        };
        let mut world = World::new(seed);
        let last = files.last().unwrap();
        let end = Place { lineage: 1, file: files.len() as u32, offset: last.bytes.len() as u64 };
        let mut steps = 0;
        while world.archive.durable().borrow().place < end {
            world.step(&files);
            steps += 1;
            assert!(steps < 200_000, "seed {seed}: no end at {:?}", world.archive.durable().borrow().place);
        }
        for file in &files {
            assert!(on_disk(&world.disk, file) == file.bytes, "seed {seed}: {} differs", file.name);
        }
        check_index(&world.archive, &files);
    }
}

#[test]
fn a_connection_may_be_cut_between_any_two_messages() {
    let mut rng = StdRng::seed_from_u64(1);
    let files = vec![made("bin.000001", 0, &[10, 100], &mut rng), made("bin.000002", 2, &[10], &mut rng)];
    for cut in 0..60 {
        let mut world = World::new(cut);
        world.rng = StdRng::seed_from_u64(7);
        let mut delivered = 0;
        while !world.courier.finished {
            let before = world.connection.up.len();
            world.step(&files);
            delivered += usize::from(world.connection.up.len() < before);
            if delivered as u64 == cut {
                delivered += 1;
                world.reconnect();
            }
        }
        let last = files.last().unwrap();
        let mut steps = 0;
        while world.archive.durable().borrow().place.offset < last.bytes.len() as u64
            || world.archive.durable().borrow().place.file < 2
        {
            world.step(&files);
            steps += 1;
            assert!(steps < 100_000, "cut {cut}: no end");
        }
        assert!(on_disk(&world.disk, last) == last.bytes);
    }
}

#[test]
fn a_source_that_breaks_the_rules_is_told_why() {
    let refused = |messages: Vec<ToArchive>| {
        let mut session = ArchiveSession::start(Duration::ZERO);
        let end = End { lineage: None, file: None, head: Vec::new(), gtid: String::new() };
        for message in messages {
            for action in session.received(Duration::ZERO, message) {
                match action {
                    Action::Begin => drop(session.begun(end.clone())),
                    Action::Send(ToSource::Refused { reason }) => return reason,
                    _ => {}
                }
            }
        }
        String::new()
    };
    let hello = |version| ToArchive::Hello { version, source: String::new() };
    let bytes =
        ToArchive::Bytes { offset: 0, arrived: Timestamp::default(), bytes: vec![0; MAX_PIECE].into() };
    assert!(refused(vec![hello(2)]).contains("version 2"));
    assert!(refused(vec![ToArchive::Ping(1)]).contains("hello"));
    assert!(refused(vec![hello(1), hello(1)]).contains("second hello"));
    let mut flood = vec![hello(1)];
    flood.extend(std::iter::repeat_n(bytes, (CREDIT as usize / MAX_PIECE) + 1));
    assert!(refused(flood.clone()).contains("0 were allowed"));
    flood.pop();
    assert_eq!(refused(flood), "");
    let ask = |id| {
        let query = ehpc_proto::replication::database::DbQuery::Files { from: (0, 0) };
        ToArchive::Ask { id, query }
    };
    assert!(refused(vec![hello(1), ask(1), ask(1)]).contains("asked twice"));
    assert!(refused(std::iter::once(hello(1)).chain((0..65).map(ask)).collect()).contains("too many"));
}

#[test]
fn a_silent_source_is_given_up() {
    let mut session = ArchiveSession::start(Duration::from_secs(5));
    assert_eq!(session.tick(Duration::from_secs(14)), []);
    assert!(matches!(&session.tick(Duration::from_secs(15))[..], [Action::End { .. }]));
    let mut session = ArchiveSession::start(Duration::ZERO);
    session.received(
        Duration::from_secs(1),
        ToArchive::Hello { version: DATABASE_VERSION, source: String::new() },
    );
    assert_eq!(session.tick(Duration::from_secs(1000)), [], "the archive may take its time");
    session.begun(End { lineage: None, file: None, head: Vec::new(), gtid: String::new() });
    session.received(Duration::from_secs(1000), ToArchive::Ping(1));
    assert_eq!(session.tick(Duration::from_secs(1019)), []);
    assert!(matches!(&session.tick(Duration::from_secs(1020))[..], [Action::End { .. }]));
}
