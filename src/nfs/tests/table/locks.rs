//! NLM's part of the table: nlm4_stats (RFC 1813 section 6.1.4), procedure by procedure. Messages, callbacks and
//! NSM have tests of their own beside the lock manager.

use super::super::wire::forged;
use super::super::{Fixture, options};
use crate::nfs::LockOptions;
use ehpc_proto::codec::{Decoder, Encoder};
use ehpc_proto::nlm::{
    self, Form, Lock, LockArguments, LockResult, Procedure, ShareArguments, ShareResult, Status, TestResult,
    Width,
};
use ehpc_proto::xdr::{Decode, Encode};
use ehpc_tools::nfs_client::Client;
use std::time::Duration;

const VERSION: u32 = 4;
const MOMENT: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(3600);

struct World {
    fixture: Fixture,
    client: Client,
    state: tempfile::TempDir,
    file: Vec<u8>,
    directory: Vec<u8>,
    dead: Vec<u8>,
}

/// A request of one of two owners on two hosts, for ten bytes from `offset` of `file`.
struct Ask {
    owner: u32,
    file: Vec<u8>,
    offset: u64,
    block: bool,
    reclaim: bool,
}

struct Raw(Vec<u8>);

impl Encode for Raw {
    fn encode(&self, out: &mut Encoder) {
        out.bytes(&self.0);
    }
}

fn serving(state: &std::path::Path, grace: Duration) -> Fixture {
    let mut options = options();
    // Nobody answers at port 1: callbacks go nowhere.
    options.locks = Some(LockOptions { grace, mapper_port: 1, ..LockOptions::new(state.to_path_buf()) });
    Fixture::with(options, |_| {}, |vfs| vfs)
}

impl World {
    fn new() -> World {
        let state = tempfile::tempdir().unwrap();
        let fixture = serving(state.path(), MOMENT);
        World::on(fixture, state)
    }

    fn on(fixture: Fixture, state: tempfile::TempDir) -> World {
        let (mut client, root) = fixture.mounted();
        let file = client.create(&root, b"file").unwrap().data;
        let directory = client.mkdir(&root, b"directory").unwrap().data;
        let dead = client.create(&root, b"dead").unwrap().data;
        client.remove(&root, b"dead").unwrap();
        World { fixture, client, state, file, directory, dead }
    }

    /// A server that was restarted while somebody held a lock.
    fn in_grace() -> World {
        let mut world = World::new();
        assert_eq!(world.ask(Procedure::Lock, &world.by(1)), Status::Granted);
        world.fixture.stop();
        let fixture = serving(world.state.path(), LONG);
        World::on(fixture, world.state)
    }

    fn by(&self, owner: u32) -> Ask {
        Ask { owner, file: self.file.clone(), offset: 0, block: false, reclaim: false }
    }

    fn ask(&mut self, procedure: Procedure, ask: &Ask) -> Status {
        let name: &[u8] = if ask.owner == 1 { b"one" } else { b"two" };
        let arguments = if matches!(procedure, Procedure::Share | Procedure::Unshare) {
            let mut out = Encoder::new();
            // Both want to write and let nobody else.
            ShareArguments {
                cookie: b"c",
                caller: name,
                file: &ask.file,
                owner: name,
                deny: 2,
                access: 2,
                reclaim: ask.reclaim,
            }
            .encode(&mut out);
            out.finish()
        } else {
            let lock =
                Lock { caller: name, file: &ask.file, owner: name, svid: 7, offset: ask.offset, length: 10 };
            let all = LockArguments {
                cookie: b"c",
                block: ask.block,
                exclusive: true,
                lock,
                reclaim: ask.reclaim,
                state: 1,
            };
            let form = match procedure {
                Procedure::Test => Form::Test,
                Procedure::Cancel => Form::Cancel,
                Procedure::Unlock => Form::Unlock,
                _ => Form::Lock,
            };
            let mut out = Encoder::new();
            all.encode(form, Width::Bits64, &mut out);
            out.finish()
        };
        let answer = self.client.call(nlm::PROGRAM, VERSION, procedure as u32, &Raw(arguments)).unwrap();
        let mut input = Decoder::new(answer.body());
        let (cookie, status) = match procedure {
            Procedure::Test => {
                let told = TestResult::decode(Width::Bits64, &mut input).unwrap();
                assert_eq!(told.holder.is_some(), told.status == Status::Denied, "the holder of a refusal");
                (told.cookie, told.status)
            }
            Procedure::Share | Procedure::Unshare => {
                let told = ShareResult::decode(&mut input).unwrap();
                (told.cookie, told.status)
            }
            _ => {
                let told = LockResult::decode(&mut input).unwrap();
                (told.cookie, told.status)
            }
        };
        assert_eq!(cookie, b"c");
        assert!(input.rest().is_empty(), "bytes after the result");
        status
    }

    /// Somebody else has what is asked for next.
    fn taken(mut self, procedure: Procedure) -> World {
        let by = if procedure == Procedure::Share { Procedure::Share } else { Procedure::Lock };
        assert_eq!(self.ask(by, &self.by(2)), Status::Granted);
        self
    }
}

/// What comes of the plain request in another world, or of another request; or why it never comes.
enum Cause {
    Is(fn(Procedure) -> (World, Ask)),
    Never(&'static str),
}

use Cause::{Is, Never};

fn plain(change: impl FnOnce(&World, &mut Ask)) -> (World, Ask) {
    let world = World::new();
    let mut ask = world.by(1);
    change(&world, &mut ask);
    (world, ask)
}

fn cause(procedure: Procedure, status: Status) -> Cause {
    use Procedure::{Cancel, Lock, NmLock, Share, Test, Unlock, Unshare};
    let takes = matches!(procedure, Lock | NmLock | Share);
    match (status, procedure) {
        (Status::Granted, Cancel) => Is(|_| {
            let mut world = World::new().taken(Lock);
            let ask = Ask { block: true, ..world.by(1) };
            assert_eq!(world.ask(Lock, &ask), Status::Blocked);
            (world, ask)
        }),
        (Status::Granted, _) => Is(|_| plain(|_, _| {})),
        (_, Unlock | Unshare) => Never("giving back is never refused: a client could do nothing about it"),
        (Status::ReadOnly, _) => {
            Never("locks are the server's own: a read-only export takes them like others")
        }
        (Status::Denied, Cancel) => Is(|_| plain(|_, _| {})),
        (Status::Denied, procedure) if takes || procedure == Test => Is(|procedure| {
            let world = World::new().taken(procedure);
            let ask = world.by(1);
            (world, ask)
        }),
        (Status::DeniedNoLocks, Lock | Share) => Is(|_| {
            let (world, ask) = plain(|_, _| {});
            // Its holder could not be remembered: the directory for that is gone.
            std::fs::remove_dir_all(world.state.path()).unwrap();
            std::fs::write(world.state.path(), b"").unwrap();
            (world, ask)
        }),
        (Status::DeniedNoLocks, NmLock) => {
            Never("only the table's limits, which have a test of the table alone")
        }
        (Status::DeniedNoLocks, _) => Never("nothing is allocated, nobody is remembered"),
        (Status::Blocked, Lock | NmLock) => Is(|_| {
            let world = World::new().taken(Lock);
            let ask = Ask { block: true, ..world.by(1) };
            (world, ask)
        }),
        (Status::Blocked, _) => Never("this procedure does not wait"),
        (Status::DeniedGracePeriod, Test) => Is(|_| {
            let world = World::in_grace();
            let ask = world.by(1);
            (world, ask)
        }),
        (Status::DeniedGracePeriod, Lock | NmLock | Share) => Is(|_| plain(|_, ask| ask.reclaim = true)),
        (Status::DeniedGracePeriod, _) => Never("what waits may be given up at any time"),
        (Status::Deadlock, Lock | NmLock) => Is(|_| {
            let mut world = World::new().taken(Lock);
            assert_eq!(world.ask(Lock, &Ask { offset: 100, ..world.by(1) }), Status::Granted);
            let waits = Ask { offset: 100, block: true, ..world.by(2) };
            assert_eq!(world.ask(Lock, &waits), Status::Blocked);
            let ask = Ask { block: true, ..world.by(1) };
            (world, ask)
        }),
        (Status::Deadlock, _) => Never("who does not wait is in nobody's way"),
        (Status::StaleHandle, _) => Is(|_| plain(|_, ask| ask.file = forged().data)),
        (Status::TooBig, Share) => Never("a share is of the whole file: it has no range"),
        (Status::TooBig, _) => Is(|_| plain(|_, ask| ask.offset = u64::MAX - 3)),
        (Status::Failed, Cancel) => Never("what was never locked cannot be waited for: it is denied"),
        (Status::Failed, _) => Is(|_| plain(|world, ask| ask.file = world.directory.clone())),
        (status, procedure) => panic!("{procedure:?} {status:?}: without a row in the table"),
    }
}

#[test]
fn every_status_of_every_lock_procedure_is_provoked_or_explained() {
    use Procedure::{Cancel, Lock, NmLock, Share, Test, Unlock, Unshare};
    for procedure in [Test, Lock, Cancel, Unlock, Share, Unshare, NmLock] {
        for status in Status::ALL {
            match cause(procedure, status) {
                Never(why) => assert!(why.len() > 20, "{procedure:?} {status:?}: a real reason"),
                Is(make) => {
                    let (mut world, ask) = make(procedure);
                    assert_eq!(world.ask(procedure, &ask), status, "{procedure:?}");
                }
            }
        }
    }
}

/// The handle of a removed file, which was a good one.
#[test]
fn a_file_that_is_gone_cannot_be_locked() {
    let mut world = World::new();
    let ask = Ask { file: world.dead.clone(), ..world.by(1) };
    assert_eq!(world.ask(Procedure::Lock, &ask), Status::StaleHandle);
    assert_eq!(world.ask(Procedure::Test, &ask), Status::StaleHandle);
    assert_eq!(world.ask(Procedure::Unlock, &ask), Status::Granted);
}

/// A lock that was held before the restart is taken back; others wait for the end of the grace period.
#[test]
fn only_reclaims_are_granted_in_the_grace_period() {
    let mut world = World::in_grace();
    for procedure in [Procedure::Lock, Procedure::NmLock, Procedure::Share] {
        assert_eq!(world.ask(procedure, &world.by(1)), Status::DeniedGracePeriod, "{procedure:?}");
    }
    let ask = Ask { reclaim: true, ..world.by(1) };
    assert_eq!(world.ask(Procedure::Lock, &ask), Status::Granted);
}
