//! Both ends of the replication session over a link that is cut at any byte, with crashes of either side, a disk
//! that forgets what was not synced, and a disk that fills up.
//!
//! Always: what was acknowledged is on the backup's disk and stays there; batches are stored once and in order.
//! After the faults end: the backup has what the primary has.

use ehpc_proto::replication::message::{Answer, Blob, BlobKind, Codec, Query, ToBackup, ToPrimary};
use ehpc_proto::replication::wire::{self, FrameAssembler, FrameKind, frame};
use ehpc_proto::replication::{
    Batch, Extent, Hash, Kind, Manifest, ObjectId, ObjectState, Position, StreamId, Timestamp,
};
use ehpc_store::replication::link::{Hello, LinkDown, Welcome};
use ehpc_store::replication::session::{Action, Backoff, BackupSession, Event, PrimarySession, Tick, cost};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

const STREAM: StreamId = StreamId([7; 16]);

/// What the primary's file system holds: object number to version.
type Objects = BTreeMap<u64, u64>;

fn content(object: u64, version: u64) -> Vec<u8> {
    [object.to_be_bytes(), version.to_be_bytes()].concat()
}

fn blob(object: u64, version: u64) -> Blob {
    let bytes = content(object, version);
    Blob {
        kind: BlobKind::Chunk,
        hash: Hash::of(&bytes),
        raw_len: 16,
        codec: Codec::Raw,
        bytes: bytes.into(),
    }
}

fn state(object: u64, version: u64) -> ObjectState {
    ObjectState {
        id: ObjectId(object),
        key: vec![1],
        kind: Kind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        size: 16,
        mtime: Timestamp { seconds: version as i64, nanos: 0 },
        rdev: (0, 0),
        target: vec![],
        xattrs: vec![],
        content: Manifest::Inline(vec![Extent::Data { hash: Hash::of(&content(object, version)), len: 16 }]),
        fuzzy: false,
    }
}

fn versions(states: &[ObjectState]) -> Vec<(u64, u64)> {
    states.iter().map(|state| (state.id.0, state.mtime.seconds as u64)).collect()
}

/// One direction of a connection.
#[derive(Default)]
struct Pipe {
    in_transit: VecDeque<(Duration, Vec<u8>)>,
    closed: bool,
}

impl Pipe {
    fn send(&mut self, random: &mut StdRng, now: Duration, kind: FrameKind, payload: &[u8]) {
        if self.closed {
            return;
        }
        let arrives = now + Duration::from_millis(random.random_range(0..40));
        let earliest = self.in_transit.back().map_or(now, |(at, _)| *at);
        let mut bytes = frame::header(kind, false, payload.len()).unwrap().to_vec();
        bytes.extend_from_slice(payload);
        let cut = random.random_range(0..=bytes.len());
        let rest = bytes.split_off(cut);
        for piece in [bytes, rest] {
            self.in_transit.push_back((arrives.max(earliest), piece));
        }
    }

    fn arrived(&mut self, now: Duration) -> Option<Vec<u8>> {
        if self.in_transit.front()?.0 > now {
            None
        } else {
            self.in_transit.pop_front().map(|(_, bytes)| bytes)
        }
    }

    /// Closes it after a random number of the bytes under way.
    fn cut(&mut self, random: &mut StdRng) {
        self.closed = true;
        let keep = random.random_range(0..=self.in_transit.len());
        self.in_transit.truncate(keep);
        if let Some((_, last)) = self.in_transit.back_mut() {
            let keep = random.random_range(0..=last.len());
            last.truncate(keep);
        }
    }

    fn at_end(&self) -> bool {
        self.closed && self.in_transit.is_empty()
    }
}

/// The backup's disk. What is in `volatile` and `volatile_blobs` was written and not synced.
#[derive(Default)]
struct Disk {
    durable: Vec<Vec<u8>>,
    volatile: Vec<Vec<u8>>,
    blobs: BTreeSet<Hash>,
    volatile_blobs: BTreeSet<Hash>,
    live: Objects,
    full: bool,
}

impl Disk {
    fn position(&self) -> Option<Position> {
        let last = self.durable.last()?;
        let number = self.durable.len() as u64;
        Some(Position { stream: STREAM, number, chain: wire::chain(last) })
    }

    fn knows(&self, position: &Position) -> bool {
        let Some(index) = position.number.checked_sub(1) else { return true };
        self.durable.get(index as usize).is_some_and(|encoded| wire::chain(encoded) == position.chain)
    }

    fn holds(&self, hash: &Hash) -> bool {
        self.blobs.contains(hash) || self.volatile_blobs.contains(hash)
    }

    /// As the real store does, it trusts nobody: a batch in the wrong place, or without its blobs, ends the test.
    fn append(&mut self, encoded: Vec<u8>, batch: &Batch) {
        let last = self.volatile.last().or(self.durable.last());
        let previous = last.map_or(Position::start(STREAM).chain, |encoded| wire::chain(encoded));
        assert_eq!(batch.number, (self.durable.len() + self.volatile.len()) as u64 + 1, "order of batches");
        assert_eq!(batch.previous, previous, "chain of batches");
        for object in &batch.objects {
            let Manifest::Inline(extents) = &object.content else { unreachable!() };
            for extent in extents {
                let Extent::Data { hash, .. } = extent else { unreachable!() };
                assert!(self.holds(hash), "batch {} came before a chunk that it needs", batch.number);
            }
        }
        self.volatile.push(encoded);
    }

    fn sync(&mut self) -> u64 {
        self.blobs.append(&mut self.volatile_blobs);
        for encoded in self.volatile.drain(..) {
            self.live.extend(versions(&wire::decode_batch(&encoded).unwrap().objects));
            self.durable.push(encoded);
        }
        self.durable.len() as u64
    }

    /// Power cut: a random part of what was not synced is there all the same.
    fn crash(&mut self, random: &mut StdRng) {
        if random.random_bool(0.5) {
            let keep = random.random_range(0..=self.volatile.len());
            self.volatile.truncate(keep);
            self.sync();
        } else {
            self.volatile.clear();
            self.volatile_blobs.retain(|_| random.random_bool(0.5));
            self.blobs.append(&mut self.volatile_blobs);
        }
    }
}

enum Job {
    Store(Vec<Blob>),
    Append(Vec<u8>, Batch),
}

struct Backup {
    disk: Disk,
    session: Option<BackupSession>,
    assembler: FrameAssembler,
    jobs: VecDeque<Job>,
    lookups: VecDeque<Vec<Hash>>,
    questions: Vec<(u64, Query)>,
}

struct InFlight {
    number: u64,
    chain: Hash,
    changes: Vec<(u64, u64)>,
}

struct Primary {
    files: Objects,
    /// What the backup acknowledged, and where it stands; the second of each is what is on disk.
    shadow: (Objects, Objects),
    position: (Option<Position>, Option<Position>),
    session: Option<PrimarySession>,
    assembler: FrameAssembler,
    backoff: Backoff,
    connect_at: Duration,
    overlay: VecDeque<InFlight>,
    /// The chosen objects, while an offer for them is out.
    offered: Option<(u64, Vec<(u64, u64)>)>,
    /// The shadow is being rebuilt by this question.
    rebuilding: Option<u64>,
}

struct World {
    random: StdRng,
    now: Duration,
    up: Pipe,
    down: Pipe,
    primary: Primary,
    backup: Backup,
    /// Highest batch that any primary ever saw acknowledged, with its chain.
    promised: Option<(u64, Hash)>,
    acknowledged: u64,
    connections: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let primary = Primary {
            files: Objects::new(),
            shadow: Default::default(),
            position: (None, None),
            session: None,
            assembler: FrameAssembler::new(wire::MAX_FRAME),
            backoff: Backoff::default(),
            connect_at: Duration::ZERO,
            overlay: VecDeque::new(),
            offered: None,
            rebuilding: None,
        };
        let backup = Backup {
            disk: Disk::default(),
            session: None,
            assembler: FrameAssembler::new(wire::MAX_FRAME),
            jobs: VecDeque::new(),
            lookups: VecDeque::new(),
            questions: Vec::new(),
        };
        let closed = || Pipe { closed: true, ..Pipe::default() };
        World {
            random: StdRng::seed_from_u64(seed),
            now: Duration::ZERO,
            up: closed(),
            down: closed(),
            primary,
            backup,
            promised: None,
            acknowledged: 0,
            connections: 0,
        }
    }

    fn chance(&mut self, one_in: u32) -> bool {
        self.random.random_ratio(1, one_in)
    }

    fn send_up(&mut self, message: &ToBackup) {
        self.up.send(
            &mut self.random,
            self.now,
            FrameKind::ToBackup,
            &wire::encode_to_backup(message).joined(),
        );
    }

    fn send_down(&mut self, message: &ToPrimary) {
        self.down.send(&mut self.random, self.now, FrameKind::ToPrimary, &wire::encode_to_primary(message));
    }

    // ---- the primary

    fn primary_down(&mut self, why: &LinkDown) {
        assert!(!matches!(why, LinkDown::Protocol { .. }), "{why}");
        self.primary.session = None;
        match why {
            LinkDown::Refused { .. } => self.primary.backoff.failed(),
            _ => self.primary.backoff.worked(),
        }
        let delay = self.primary.backoff.delay(&mut self.random);
        self.primary.connect_at = self.now + delay;
        self.primary.overlay.clear();
        self.primary.offered = None;
        self.primary.rebuilding = None;
        self.up.closed = true;
    }

    fn connect(&mut self) {
        self.connections += 1;
        self.up = Pipe::default();
        self.down = Pipe::default();
        self.backup.jobs.clear();
        self.backup.lookups.clear();
        self.backup.questions.clear();
        self.backup.session = Some(BackupSession::start(self.now));
        self.backup.assembler = FrameAssembler::new(wire::MAX_FRAME);
        self.primary.assembler = FrameAssembler::new(wire::MAX_FRAME);
        let hello = Hello { export: "share".into(), stream: STREAM, position: self.primary.position.0 };
        let (session, first) = PrimarySession::start(self.now, hello);
        self.primary.session = Some(session);
        self.send_up(&first);
    }

    fn primary_events(&mut self) {
        while let Some(bytes) = self.down.arrived(self.now) {
            let mut bytes = &bytes[..];
            while let Some(frame) = self.primary.assembler.push(&mut bytes).unwrap() {
                let message = wire::decode_to_primary(&frame.payload).unwrap();
                let Some(session) = &mut self.primary.session else { continue };
                if let Some(event) = session.received(self.now, message) {
                    self.primary_event(event);
                }
            }
        }
        if self.down.at_end()
            && let Some(session) = &mut self.primary.session
        {
            let why = session.end(LinkDown::Lost { reason: "end of stream".into() });
            self.primary_down(&why);
        }
    }

    fn primary_event(&mut self, event: Event) {
        match event {
            Event::Welcome(Welcome { position, shadow_known }) => {
                assert_eq!(
                    shadow_known,
                    self.primary.position.0.is_some(),
                    "an acknowledged position is forgotten"
                );
                if position != self.primary.position.0 {
                    let id = self.primary.session.as_mut().unwrap().ask().unwrap().unwrap();
                    self.primary.rebuilding = Some(id);
                    self.primary.position.0 = position;
                    self.send_up(&ToBackup::Ask {
                        id,
                        query: Query::Live { after: ObjectId(0), limit: 4096 },
                    });
                }
            }
            Event::Answer { id, more, answer } => {
                let Answer::Live { objects, .. } = answer else { panic!("{answer:?}") };
                assert_eq!((Some(id), more), (self.primary.rebuilding, false));
                self.primary.rebuilding = None;
                self.primary.shadow.0 = versions(&objects).into_iter().collect();
            }
            Event::Acked(number) => self.acked(number),
            Event::Lacking { ticket, flags } => {
                let (offered, chosen) = self.primary.offered.take().unwrap();
                assert_eq!(ticket, offered);
                let lacking =
                    chosen.iter().zip(flags).filter(|(_, lacking)| *lacking).map(|(c, _)| *c).collect();
                self.ship(lacking, chosen);
            }
            Event::Credit => {}
            Event::Down(why) => self.primary_down(&why),
        }
    }

    fn acked(&mut self, number: u64) {
        assert!(
            number <= self.backup.disk.durable.len() as u64,
            "batch {number} is acknowledged, not durable"
        );
        self.acknowledged += 1;
        while let Some(first) = self.primary.overlay.front()
            && first.number <= number
        {
            let batch = self.primary.overlay.pop_front().unwrap();
            self.primary.shadow.0.extend(batch.changes);
            self.primary.position.0 =
                Some(Position { stream: STREAM, number: batch.number, chain: batch.chain });
            self.promised = Some((batch.number, batch.chain));
        }
    }

    /// One batch of what differs from shadow and overlay.
    fn primary_sends(&mut self) {
        let Some(session) = &mut self.primary.session else { return };
        if session.check() != Ok(true) || self.primary.offered.is_some() || self.primary.rebuilding.is_some()
        {
            return;
        }
        let mut known = self.primary.shadow.0.clone();
        for batch in &self.primary.overlay {
            known.extend(batch.changes.iter().copied());
        }
        let dirty = self.primary.files.iter().filter(|&(object, version)| known.get(object) != Some(version));
        let most = self.random.random_range(1..4);
        let chosen: Vec<(u64, u64)> = dirty.map(|(&o, &v)| (o, v)).take(most).collect();
        if chosen.is_empty() || session.batches_in_flight() == 8 {
            return;
        }
        if self.random.random_bool(0.5) {
            let ticket = session.offer(chosen.len()).unwrap().unwrap();
            let hashes = chosen.iter().map(|&(o, v)| blob(o, v).hash).collect();
            self.primary.offered = Some((ticket, chosen));
            self.send_up(&ToBackup::Offer { hashes });
        } else {
            self.ship(chosen.clone(), chosen);
        }
    }

    fn ship(&mut self, lacking: Vec<(u64, u64)>, chosen: Vec<(u64, u64)>) {
        let blobs: Vec<Blob> = lacking.into_iter().map(|(o, v)| blob(o, v)).collect();
        let last = self.primary.overlay.back().map(|batch| (batch.number, batch.chain));
        let last = last.or(self.primary.position.0.map(|position| (position.number, position.chain)));
        let (number, previous) = last.unwrap_or((0, Position::start(STREAM).chain));
        let batch = Batch {
            number: number + 1,
            previous,
            cut: 0,
            time: Timestamp::default(),
            objects: chosen.iter().map(|&(o, v)| state(o, v)).collect(),
            entries: vec![],
            destroyed: vec![],
        };
        let encoded = wire::encode_batch(&batch);
        let session = self.primary.session.as_mut().unwrap();
        assert_eq!(session.take_credit(cost(&blobs)), Ok(true), "credit leaks");
        assert_eq!(session.batch(batch.number, encoded.len()), Ok(true));
        let chain = wire::chain(&encoded);
        self.primary.overlay.push_back(InFlight { number: batch.number, chain, changes: chosen });
        self.send_up(&ToBackup::Blobs(blobs));
        self.send_up(&ToBackup::Batch(encoded.into()));
    }

    // ---- the backup

    fn backup_actions(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(message) => self.send_down(&message),
                Action::Greet(hello) => {
                    self.backup.disk.sync();
                    let position = self.backup.disk.position();
                    let known = hello.position.is_some_and(|position| self.backup.disk.knows(&position));
                    let actions = self.backup.session.as_mut().unwrap().greeted(position, known);
                    self.backup_actions(actions);
                }
                Action::Lookup(hashes) => self.backup.lookups.push_back(hashes),
                Action::Store(blobs) => self.backup.jobs.push_back(Job::Store(blobs)),
                Action::Append { encoded, batch } => {
                    self.backup.jobs.push_back(Job::Append(encoded.to_vec(), batch))
                }
                Action::Answer { id, query } => self.backup.questions.push((id, query)),
                Action::End { reason } => {
                    assert!(reason.contains("disk is full"), "{reason}");
                    self.backup_ends();
                }
            }
        }
    }

    fn backup_ends(&mut self) {
        self.backup.session = None;
        self.backup.jobs.clear();
        self.backup.lookups.clear();
        self.backup.questions.clear();
        self.down.closed = true;
    }

    fn backup_events(&mut self) {
        while let Some(bytes) = self.up.arrived(self.now) {
            let mut bytes = &bytes[..];
            while let Some(frame) = self.backup.assembler.push(&mut bytes).unwrap() {
                let message = wire::decode_to_backup(frame.payload).unwrap();
                let Some(session) = &mut self.backup.session else { continue };
                let actions = session.received(self.now, message);
                self.backup_actions(actions);
            }
        }
        if self.up.at_end() && self.backup.session.is_some() {
            self.backup_ends();
        }
    }

    fn backup_works(&mut self) {
        let Some(session) = &mut self.backup.session else { return };
        let disk = &mut self.backup.disk;
        let mut actions = Vec::new();
        if self.random.random_bool(0.6)
            && let Some(job) = self.backup.jobs.pop_front()
        {
            if disk.full {
                actions.extend(session.refuse("the backup's disk is full".into()));
            } else {
                match job {
                    Job::Store(blobs) => {
                        disk.volatile_blobs.extend(blobs.iter().map(|blob| blob.hash));
                        actions.extend(session.written(cost(&blobs)));
                    }
                    Job::Append(encoded, batch) => disk.append(encoded, &batch),
                }
            }
        }
        if self.random.random_bool(0.3) {
            let number = disk.sync();
            actions.extend(session.durable(number));
        }
        if self.random.random_bool(0.7)
            && let Some(hashes) = self.backup.lookups.pop_front()
        {
            actions.extend(session.lacking(hashes.iter().map(|hash| !disk.holds(hash)).collect()));
        }
        if let Some((id, _)) = self.backup.questions.pop() {
            let objects = disk.live.iter().map(|(&o, &v)| state(o, v)).collect();
            actions.extend(session.answer(id, false, Answer::Live { objects, entries: vec![] }));
        }
        self.backup_actions(actions);
    }

    // ---- faults and time

    fn cut(&mut self) {
        self.up.cut(&mut self.random);
        self.down.cut(&mut self.random);
    }

    fn faults(&mut self) {
        if self.chance(60) {
            self.cut();
        }
        if self.chance(120) {
            self.cut();
            self.primary.session = None;
            self.primary.shadow.0 = self.primary.shadow.1.clone();
            self.primary.position.0 = self.primary.position.1;
            self.primary_down(&LinkDown::Closed);
        }
        if self.chance(120) {
            self.cut();
            self.backup_ends();
            self.backup.disk.crash(&mut self.random);
        }
        if self.chance(100) {
            self.backup.disk.full = !self.backup.disk.full;
        }
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(self.random.random_range(1..60));
        if self.primary.session.is_none() && self.now >= self.primary.connect_at {
            self.connect();
        }
        self.backup_events();
        self.backup_works();
        self.primary_events();
        self.primary_sends();
        if self.chance(8) {
            self.primary.shadow.1 = self.primary.shadow.0.clone();
            self.primary.position.1 = self.primary.position.0;
        }
        if let Some(session) = &mut self.primary.session {
            match session.tick(self.now) {
                Tick::Quiet => {}
                Tick::Send(message) => self.send_up(&message),
                Tick::Down(why) => self.primary_down(&why),
            }
        }
        if let Some((number, chain)) = self.promised {
            let kept = self.backup.disk.durable.get(number as usize - 1).map(|encoded| wire::chain(encoded));
            assert_eq!(kept, Some(chain), "batch {number} was acknowledged and is lost");
        }
    }
}

fn run(seed: u64) -> World {
    let mut world = World::new(seed);
    for _ in 0..150 {
        if world.chance(2) {
            let object = world.random.random_range(2..12);
            *world.primary.files.entry(object).or_default() += 1;
        }
        world.step();
        world.faults();
    }
    world.backup.disk.full = false;
    let mut left = 2_000;
    while world.backup.disk.live != world.primary.files || world.primary.shadow.0 != world.primary.files {
        world.step();
        left -= 1;
        assert!(left > 0, "no progress after the faults ended");
    }
    world
}

#[test]
fn nothing_acknowledged_is_lost_and_the_backup_catches_up() {
    let worked = std::cell::Cell::new((0, 0));
    super::seeds(2_000, |seed| {
        let world = run(seed);
        let (acknowledged, connections) = worked.get();
        worked.set((acknowledged + world.acknowledged, connections + world.connections));
    });
    let (acknowledged, connections) = worked.get();
    assert!(acknowledged > 0 && connections > 0, "the simulation did nothing");
    println!("{acknowledged} acknowledgements over {connections} connections");
}

/// Both sessions, welcomed, and the batch that comes first.
fn open() -> (PrimarySession, BackupSession, Batch) {
    let hello = Hello { export: "share".into(), stream: STREAM, position: None };
    let (mut primary, first) = PrimarySession::start(Duration::ZERO, hello);
    let mut backup = BackupSession::start(Duration::ZERO);
    assert!(matches!(&backup.received(Duration::ZERO, first)[..], [Action::Greet(_)]));
    let [Action::Send(welcome)] = &backup.greeted(None, false)[..] else { panic!("no welcome") };
    assert!(matches!(primary.received(Duration::ZERO, welcome.clone()), Some(Event::Welcome(_))));
    let batch = Batch {
        number: 1,
        previous: Position::start(STREAM).chain,
        cut: 0,
        time: Timestamp::default(),
        objects: vec![],
        entries: vec![],
        destroyed: vec![],
    };
    (primary, backup, batch)
}

/// The reason with which `message` is refused.
fn refused(backup: &mut BackupSession, message: ToBackup) -> String {
    let actions = backup.received(Duration::ZERO, message);
    let [Action::Send(ToPrimary::Refused { reason }), Action::End { .. }] = &actions[..] else {
        panic!("not refused: {actions:?}")
    };
    assert!(backup.received(Duration::ZERO, ToBackup::Ping(1)).is_empty(), "the session goes on");
    reason.clone()
}

#[test]
fn batches_out_of_order_or_of_another_stream_are_refused() {
    let encoded = |batch: &Batch| ToBackup::Batch(wire::encode_batch(batch).into());
    let (_, mut backup, batch) = open();
    assert!(refused(&mut backup, encoded(&Batch { number: 2, ..batch })).contains("out of order"));

    let (_, mut backup, batch) = open();
    let again = encoded(&batch);
    assert!(matches!(&backup.received(Duration::ZERO, again.clone())[..], [Action::Append { .. }]));
    assert!(refused(&mut backup, again).contains("out of order"));

    let (_, mut backup, batch) = open();
    let other = Position::start(StreamId([8; 16])).chain;
    assert!(refused(&mut backup, encoded(&Batch { previous: other, ..batch })).contains("another stream"));

    let (_, mut backup, mut batch) = open();
    for _ in 0..8 {
        let bytes = wire::encode_batch(&batch);
        let actions = backup.received(Duration::ZERO, ToBackup::Batch(bytes.clone().into()));
        assert!(matches!(&actions[..], [Action::Append { .. }]), "{actions:?}");
        batch = Batch { number: batch.number + 1, previous: wire::chain(&bytes), ..batch };
    }
    assert!(refused(&mut backup, encoded(&batch)).contains("more than 8 in flight"));
}

#[test]
fn what_does_not_begin_with_a_hello_of_this_version_is_refused() {
    let mut backup = BackupSession::start(Duration::ZERO);
    assert!(refused(&mut backup, ToBackup::Ping(1)).contains("hello"));
    let mut backup = BackupSession::start(Duration::ZERO);
    let hello = ToBackup::Hello { version: 2, export: String::new(), stream: STREAM, position: None };
    assert!(refused(&mut backup, hello.clone()).contains("version 2"));
    let (_, mut backup, _) = open();
    assert!(refused(&mut backup, hello).contains("second hello"));
}

#[test]
fn credit_bounds_what_is_under_way_on_both_sides() {
    let (mut primary, mut backup, _) = open();
    let big = Blob { raw_len: 262_144, bytes: vec![0; 262_144].into(), ..blob(2, 1) };
    let message = vec![big; 16];
    let mut sent = 0;
    while primary.take_credit(cost(&message)).unwrap() {
        let actions = backup.received(Duration::ZERO, ToBackup::Blobs(message.clone()));
        assert!(matches!(&actions[..], [Action::Store(_)]), "{actions:?}");
        sent += 1;
    }
    assert_eq!(sent, 7, "32 MiB hold 7 messages of 4 MiB and their overhead");
    let returned = backup.written(cost(&message));
    let [Action::Send(credit)] = &returned[..] else { panic!("no credit") };
    assert_eq!(primary.received(Duration::ZERO, credit.clone()), Some(Event::Credit));
    assert_eq!(primary.take_credit(cost(&message)), Ok(true));
    assert!(matches!(
        &backup.received(Duration::ZERO, ToBackup::Blobs(message.clone()))[..],
        [Action::Store(_)]
    ));
    assert!(refused(&mut backup, ToBackup::Blobs(message)).contains("were allowed"));
    let forged = primary.received(Duration::ZERO, ToPrimary::Credit { bytes: 64 << 20 });
    assert!(matches!(forged, Some(Event::Down(LinkDown::Protocol { .. }))));
}

#[test]
fn silence_is_asked_about_and_then_ends_the_session() {
    let (mut primary, mut backup, _) = open();
    let seconds = Duration::from_secs;
    assert_eq!(primary.tick(seconds(4)), Tick::Quiet);
    assert_eq!(primary.tick(seconds(5)), Tick::Send(ToBackup::Ping(1)));
    assert_eq!(primary.tick(seconds(6)), Tick::Quiet, "one ping at a time");
    let [Action::Send(pong)] = &backup.received(seconds(6), ToBackup::Ping(1))[..] else { panic!() };
    assert_eq!(primary.received(seconds(7), pong.clone()), None);
    assert_eq!(primary.tick(seconds(11)), Tick::Quiet);
    assert_eq!(primary.tick(seconds(12)), Tick::Send(ToBackup::Ping(2)));
    assert!(matches!(primary.tick(seconds(27)), Tick::Down(LinkDown::Lost { .. })));
    assert!(primary.take_credit(1).is_err());
    assert!(backup.tick(seconds(25)).is_empty());
    assert!(matches!(&backup.tick(seconds(26))[..], [Action::End { .. }]));
}

#[test]
fn a_backup_that_acknowledges_what_was_not_sent_is_not_believed() {
    let (mut primary, _, _) = open();
    assert_eq!(primary.batch(1, 10), Ok(true));
    let forged = primary.received(Duration::ZERO, ToPrimary::Ack { number: 2 });
    assert!(matches!(forged, Some(Event::Down(LinkDown::Protocol { .. }))));
}
