//! Locks over real sockets: clients with port mappers, lock managers and status monitors of their own.

use super::LockOptions;
use crate::nfs::portmap::{Network, Portmap, Service, serve_on};
use crate::nfs::rpc::client::{Function, Peer, call, call_as};
use crate::nfs::rpc::{Answerer, Arrival, Reply, datagrams, streams};
use crate::nfs::tests::{Fixture, WAIT, options, wait_until};
use ehpc_proto::codec::{Decoder, Encoder};
use ehpc_proto::nlm::{
    self, Form, FreeAll, Lock, LockArguments, LockResult, Procedure, ShareArguments, ShareResult, Status,
    TestResult, Width,
};
use ehpc_proto::nsm;
use ehpc_proto::rpc::{Call, Reply as Header};
use ehpc_proto::xdr::{Decode, Encode, Opaque};
use parking_lot::Mutex;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// A call that a client got.
#[derive(Debug)]
struct Received {
    program: u32,
    version: u32,
    procedure: u32,
    arguments: Vec<u8>,
}

/// A client's lock manager and status monitor.
struct Callee {
    calls: Mutex<mpsc::Sender<Received>>,
    script: Arc<Mutex<Script>>,
}

/// How it answers.
struct Script {
    /// So many calls are not answered at all.
    deaf: usize,
    status: Status,
}

impl Answerer for Callee {
    fn answer(&self, _: Arrival, message: Vec<u8>, reply: Reply) {
        let mut input = Decoder::new(&message);
        let call = Call::decode(&mut input).expect("a call");
        let (program, version, procedure) = (call.program, call.version, call.procedure);
        let arguments = input.rest().to_vec();
        let mut out = Encoder::new();
        Header::Success.encode(call.xid, &mut out);
        if (program, procedure) == (nlm::PROGRAM, Procedure::Granted as u32) {
            let told =
                LockArguments::decode(Form::Test, Width::of_version(version), &mut input).expect("arguments");
            LockResult { cookie: told.cookie, status: self.script.lock().status }.encode(&mut out);
        }
        let deaf = {
            let mut script = self.script.lock();
            let deaf = script.deaf > 0;
            script.deaf = script.deaf.saturating_sub(1);
            deaf
        };
        let _ = self.calls.lock().send(Received { program, version, procedure, arguments });
        if !deaf {
            reply(out.finish());
        }
    }
}

/// A host that is a client.
struct Host {
    address: IpAddr,
    name: &'static [u8],
    calls: mpsc::Receiver<Received>,
    script: Arc<Mutex<Script>>,
    stop: CancellationToken,
    services: Vec<Service>,
    _mapper: Option<Portmap>,
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A server, and what is needed to be its clients.
struct World {
    fixture: Fixture,
    /// The clients' own.
    runtime: Runtime,
    state: tempfile::TempDir,
    mapper_port: u16,
    file: Vec<u8>,
    udp: SocketAddr,
    stop: CancellationToken,
}

const SHORT: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(3600);

/// A port that is free on both client addresses, over TCP and UDP.
fn free_port() -> u16 {
    loop {
        let listener = std::net::TcpListener::bind("127.0.0.2:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let free = |host: &str| {
            std::net::UdpSocket::bind((host, port)).is_ok()
                && (host == "127.0.0.2" || std::net::TcpListener::bind((host, port)).is_ok())
        };
        if free("127.0.0.2") && free("127.0.0.3") {
            return port;
        }
    }
}

fn serving(state: &Path, mapper_port: u16, grace: Duration) -> (Fixture, SocketAddr, CancellationToken) {
    let mut options = options();
    options.locks = Some(LockOptions { grace, mapper_port, ..LockOptions::new(state.to_path_buf()) });
    let fixture = Fixture::with(options, |_| {}, |vfs| vfs);
    let stop = CancellationToken::new();
    let udp = fixture.runtime.block_on(async {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let udp = socket.local_addr().unwrap();
        fixture.server.serve_datagrams(socket, stop.clone()).unwrap();
        udp
    });
    (fixture, udp, stop)
}

impl World {
    fn new() -> World {
        let state = tempfile::tempdir().unwrap();
        let mapper_port = free_port();
        let (fixture, udp, stop) = serving(state.path(), mapper_port, SHORT);
        std::fs::write(fixture.path("file"), b"content").unwrap();
        let file = World::handle(&fixture, b"file");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        World { fixture, runtime, state, mapper_port, file, udp, stop }
    }

    fn handle(fixture: &Fixture, name: &[u8]) -> Vec<u8> {
        let (mut client, root) = fixture.mounted();
        client.lookup(&root, name).unwrap().0.data
    }

    fn host(&self, address: &str, name: &'static [u8]) -> Host {
        let mut host = self.unreachable(address, name);
        self.map(&mut host);
        host
    }

    /// The host's port mapper begins to answer.
    fn map(&self, host: &mut Host) {
        let at = SocketAddr::new(host.address, self.mapper_port);
        let mapper = self.runtime.block_on(serve_on(at, host.services.clone()));
        host._mapper = Some(mapper.expect("the port is free"));
    }

    /// A host whose port mapper does not run.
    fn unreachable(&self, address: &str, name: &'static [u8]) -> Host {
        self.runtime.block_on(async {
            let address: IpAddr = address.parse().unwrap();
            let listener = TcpListener::bind((address, 0)).await.unwrap();
            let at = listener.local_addr().unwrap();
            let socket = UdpSocket::bind((address, 0)).await.unwrap();
            let udp = socket.local_addr().unwrap();
            let programs = [(nlm::PROGRAM, 1), (nlm::PROGRAM, 3), (nlm::PROGRAM, 4), (nsm::PROGRAM, 1)];
            let mut services = Service::at(at, Network::Tcp, &programs);
            services.extend(Service::at(udp, Network::Udp, &programs));
            let (calls, received) = mpsc::channel();
            let script = Arc::new(Mutex::new(Script { deaf: 0, status: Status::Granted }));
            let callee: Arc<dyn Answerer> =
                Arc::new(Callee { calls: Mutex::new(calls), script: Arc::clone(&script) });
            let stop = CancellationToken::new();
            tokio::spawn(streams::serve(listener, Arc::clone(&callee), stop.clone()));
            tokio::spawn(datagrams::serve(socket, callee, stop.clone()));
            Host { address, name, calls: received, script, stop, services, _mapper: None }
        })
    }

    /// The server was killed; another one starts on the same directories.
    fn restart(&mut self, grace: Duration) {
        self.stop.cancel();
        self.fixture.stop();
        let dir = self.fixture.path("");
        let (fixture, udp, stop) = serving(self.state.path(), self.mapper_port, grace);
        // The same files: a bind mount would need root; the handles are what matters.
        std::fs::copy(dir.join("file"), fixture.path("file")).unwrap();
        self.file = World::handle(&fixture, b"file");
        (self.fixture, self.udp, self.stop) = (fixture, udp, stop);
    }

    fn ask(&self, host: &Host, udp: bool, function: Function, arguments: &impl Encode) -> Vec<u8> {
        let from = Some(host.address);
        let peer =
            if udp { Peer::Udp(self.udp, from) } else { Peer::Tcp(self.fixture.server.address(), from) };
        self.runtime.block_on(call(&peer, function, arguments, WAIT)).expect("answered")
    }

    fn nlm(&self, host: &Host, version: u32, procedure: Procedure, arguments: &LockArguments<'_>) -> Vec<u8> {
        let form = match procedure {
            Procedure::Lock | Procedure::LockMsg | Procedure::NmLock => Form::Lock,
            Procedure::Cancel | Procedure::CancelMsg => Form::Cancel,
            Procedure::Unlock | Procedure::UnlockMsg => Form::Unlock,
            _ => Form::Test,
        };
        let mut out = Encoder::new();
        arguments.encode(form, Width::of_version(version), &mut out);
        let function = Function { program: nlm::PROGRAM, version, procedure: procedure as u32 };
        // Every other call over UDP: it makes no difference.
        self.ask(host, arguments.lock.svid % 2 == 1, function, &super::callbacks::Encoded(out.finish()))
    }

    fn status(&self, host: &Host, procedure: Procedure, wanted: &Wanted) -> Status {
        self.status_in(4, host, procedure, wanted)
    }

    fn status_in(&self, version: u32, host: &Host, procedure: Procedure, wanted: &Wanted) -> Status {
        let result = self.nlm(host, version, procedure, &wanted.of(host, &self.file));
        if procedure == Procedure::Test {
            return TestResult::decode(Width::of_version(version), &mut Decoder::new(&result))
                .unwrap()
                .status;
        }
        let result = LockResult::decode(&mut Decoder::new(&result)).unwrap();
        assert_eq!(result.cookie, b"cookie");
        result.status
    }

    fn notify(&self, host: &Host, state: u32) {
        let function =
            Function { program: nsm::PROGRAM, version: 1, procedure: nsm::Procedure::Notify as u32 };
        let notify = nsm::Notify { name: Opaque(host.name), state };
        assert!(self.ask(host, true, function, &notify).is_empty());
    }
}

/// A lock that is asked for.
#[derive(Clone, Copy)]
struct Wanted {
    svid: u32,
    offset: u64,
    length: u64,
    exclusive: bool,
    block: bool,
    reclaim: bool,
    state: u32,
}

const WRITE: Wanted =
    Wanted { svid: 1, offset: 0, length: 10, exclusive: true, block: false, reclaim: false, state: 3 };
const READ: Wanted = Wanted { exclusive: false, ..WRITE };
const BLOCK: Wanted = Wanted { block: true, ..WRITE };

impl Wanted {
    fn of<'a>(&self, host: &'a Host, file: &'a [u8]) -> LockArguments<'a> {
        let Wanted { svid, offset, length, exclusive, block, reclaim, state } = *self;
        let lock = Lock { caller: host.name, file, owner: b"owner", svid, offset, length };
        LockArguments { cookie: b"cookie", block, exclusive, lock, reclaim, state }
    }
}

#[test]
fn locks_exclude_one_another_over_tcp_and_udp_in_every_version() {
    let world = World::new();
    let (a, b) = (world.host("127.0.0.2", b"web1"), world.host("127.0.0.3", b"web2"));
    for version in nlm::VERSIONS {
        for svid in [1, 2] {
            let [write, read] = [WRITE, READ].map(|wanted| Wanted { svid, ..wanted });
            let status = |host, procedure, wanted| world.status_in(version, host, procedure, &wanted);
            assert_eq!(status(&a, Procedure::Test, write), Status::Granted);
            assert_eq!(status(&a, Procedure::Lock, read), Status::Granted);
            assert_eq!(
                status(&b, Procedure::Lock, read),
                Status::Granted,
                "readers do not exclude one another"
            );
            assert_eq!(status(&b, Procedure::Lock, write), Status::Denied);
            assert_eq!(status(&b, Procedure::Unlock, read), Status::Granted);
            assert_eq!(status(&a, Procedure::Lock, write), Status::Granted, "an upgrade");
            assert_eq!(status(&b, Procedure::Lock, read), Status::Denied);
            assert_eq!(status(&b, Procedure::Lock, Wanted { offset: 10, ..write }), Status::Granted);
            let width = Width::of_version(version);
            let result = world.nlm(&b, version, Procedure::Test, &write.of(&b, &world.file));
            let test = TestResult::decode(width, &mut Decoder::new(&result)).unwrap();
            let holder = test.holder.expect("somebody");
            assert_eq!(
                (holder.exclusive, holder.svid, holder.owner, holder.offset, holder.length),
                (true, svid, &b"owner"[..], 0, 10)
            );
            for host in [&a, &b] {
                let all = Wanted { offset: 0, length: 0, ..write };
                assert_eq!(status(host, Procedure::Unlock, all), Status::Granted);
            }
            assert_eq!(status(&b, Procedure::Cancel, write), Status::Denied, "nothing waits");
        }
    }
    assert_eq!(world.status(&a, Procedure::NmLock, &WRITE), Status::Granted);
    assert_eq!(world.status(&b, Procedure::Lock, &READ), Status::Denied);
    let function = Function { program: nlm::PROGRAM, version: 4, procedure: Procedure::FreeAll as u32 };
    world.ask(&b, false, function, &FreeAll { caller: b"web1", state: 0 });
    assert_eq!(world.status(&b, Procedure::Lock, &READ), Status::Denied, "nobody frees another host's locks");
    world.ask(&a, false, function, &FreeAll { caller: b"web1", state: 0 });
    assert_eq!(world.status(&b, Procedure::Lock, &READ), Status::Granted);
}

fn next(host: &Host) -> Received {
    host.calls.recv_timeout(WAIT).expect("a call comes")
}

#[test]
fn who_waits_is_told_and_told_again_until_he_knows() {
    let world = World::new();
    let (a, b) = (world.host("127.0.0.2", b"web1"), world.host("127.0.0.3", b"web2"));
    for version in nlm::VERSIONS {
        assert_eq!(world.status(&a, Procedure::Lock, &WRITE), Status::Granted);
        b.script.lock().deaf = 1;
        assert_eq!(world.status_in(version, &b, Procedure::Lock, &BLOCK), Status::Blocked);
        assert_eq!(world.status_in(version, &b, Procedure::Lock, &BLOCK), Status::Blocked, "asked again");
        assert_eq!(world.status(&a, Procedure::Unlock, &WRITE), Status::Granted);
        for _ in 0..2 {
            let told = next(&b);
            assert_eq!((told.program, told.version, told.procedure), (nlm::PROGRAM, version, 5));
            let width = Width::of_version(version);
            let told = LockArguments::decode(Form::Test, width, &mut Decoder::new(&told.arguments)).unwrap();
            assert_eq!((told.lock.file, told.lock.owner), (&world.file[..], &b"owner"[..]));
            assert_eq!(
                (told.lock.svid, told.lock.offset, told.lock.length, told.exclusive),
                (1, 0, 10, true)
            );
        }
        assert_eq!(world.status(&a, Procedure::Lock, &READ), Status::Denied, "it has it");
        assert_eq!(world.status(&b, Procedure::Unlock, &WRITE), Status::Granted);
    }
    assert!(b.calls.try_recv().is_err(), "who knows is not told again");
}

#[test]
fn who_cannot_be_reached_is_told_later() {
    let world = World::new();
    let (a, mut b) = (world.host("127.0.0.2", b"web1"), world.unreachable("127.0.0.3", b"web2"));
    let mapper = std::net::TcpListener::bind((b.address, world.mapper_port)).unwrap();
    assert_eq!(world.status(&a, Procedure::Lock, &WRITE), Status::Granted);
    assert_eq!(world.status(&b, Procedure::Lock, &BLOCK), Status::Blocked);
    assert_eq!(world.status(&a, Procedure::Unlock, &WRITE), Status::Granted);
    // The first attempt meets a port mapper that hangs up.
    drop(mapper.accept().unwrap());
    drop(mapper);
    assert_eq!(world.status(&a, Procedure::Lock, &READ), Status::Denied, "it has it all the same");
    world.map(&mut b);
    assert_eq!(next(&b).procedure, Procedure::Granted as u32);
}

#[test]
fn a_lock_takes_a_permission_on_its_file() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    let host = world.host("127.0.0.2", b"web1");
    let ask = |id: u32, procedure: Procedure, form: Form| {
        let mut out = Encoder::new();
        WRITE.of(&host, &world.file).encode(form, Width::Bits64, &mut out);
        let function = Function { program: nlm::PROGRAM, version: 4, procedure: procedure as u32 };
        let peer = Peer::Tcp(world.fixture.server.address(), Some(host.address));
        let arguments = super::callbacks::Encoded(out.finish());
        let result = world.runtime.block_on(call_as(&peer, id, function, &arguments, WAIT)).unwrap();
        LockResult::decode(&mut Decoder::new(&result)).unwrap().status
    };
    let lock = |id| ask(id, Procedure::Lock, Form::Lock);
    let mode = |mode| {
        std::fs::set_permissions(world.fixture.path("file"), PermissionsExt::from_mode(mode)).unwrap();
    };
    std::os::unix::fs::chown(world.fixture.path("file"), Some(33), Some(33)).unwrap();
    mode(0o600);
    assert_eq!(lock(34), Status::Denied);
    for readable in [0o604, 0o602] {
        mode(readable);
        assert_eq!(lock(34), Status::Granted, "{readable:o}");
        mode(0o600);
        assert_eq!(
            ask(34, Procedure::Unlock, Form::Unlock),
            Status::Granted,
            "nothing is needed to give it back"
        );
    }
    mode(0o000);
    assert_eq!(lock(33), Status::Granted, "the owner, whatever the mode says");
    assert_eq!(lock(0), Status::Granted);
}

#[test]
fn a_lock_that_is_not_wanted_any_more_goes_to_the_next() {
    let world = World::new();
    let (a, b) = (world.host("127.0.0.2", b"web1"), world.host("127.0.0.3", b"web2"));
    assert_eq!(world.status(&a, Procedure::Lock, &WRITE), Status::Granted);
    b.script.lock().status = Status::Denied;
    assert_eq!(world.status(&b, Procedure::Lock, &BLOCK), Status::Blocked);
    let second = Wanted { svid: 2, ..BLOCK };
    assert_eq!(world.status(&a, Procedure::Lock, &second), Status::Blocked);
    let third = Wanted { svid: 4, ..BLOCK };
    assert_eq!(world.status(&a, Procedure::Lock, &third), Status::Blocked);
    assert_eq!(world.status(&a, Procedure::Cancel, &third), Status::Granted);
    assert_eq!(world.status(&a, Procedure::Unlock, &WRITE), Status::Granted);
    assert_eq!(next(&b).procedure, Procedure::Granted as u32);
    let told = next(&a);
    let told = LockArguments::decode(Form::Test, Width::Bits64, &mut Decoder::new(&told.arguments)).unwrap();
    assert_eq!(told.lock.svid, 2);
    assert_eq!(world.status(&a, Procedure::Unlock, &second), Status::Granted);
    assert_eq!(world.status(&b, Procedure::Lock, &WRITE), Status::Granted);
    assert!(a.calls.try_recv().is_err(), "who cancelled is not told");
}

#[test]
fn what_a_client_gives_for_a_lock_goes_to_the_next_once_it_knows() {
    let world = World::new();
    let (a, b) = (world.host("127.0.0.2", b"web1"), world.host("127.0.0.3", b"web2"));
    let behind = Wanted { offset: 10, svid: 3, ..WRITE };
    assert_eq!(world.status(&a, Procedure::Lock, &WRITE), Status::Granted);
    assert_eq!(world.status(&b, Procedure::Lock, &behind), Status::Granted);
    // All of it for reading; and what it has for writing is waited for.
    let all = Wanted { length: 20, exclusive: false, ..BLOCK };
    assert_eq!(world.status(&a, Procedure::Lock, &all), Status::Blocked);
    let reader = Wanted { svid: 4, exclusive: false, ..BLOCK };
    assert_eq!(world.status(&b, Procedure::Lock, &reader), Status::Blocked);
    assert_eq!(world.status(&b, Procedure::Unlock, &behind), Status::Granted);
    assert_eq!(next(&a).procedure, Procedure::Granted as u32);
    assert_eq!(next(&b).procedure, Procedure::Granted as u32);
}

#[test]
fn messages_are_answered_by_calls() {
    let world = World::new();
    let (a, b) = (world.host("127.0.0.2", b"web1"), world.host("127.0.0.3", b"web2"));
    let send = |host: &Host, procedure, wanted: &Wanted| {
        assert!(world.nlm(host, 4, procedure, &wanted.of(host, &world.file)).is_empty(), "a void reply");
    };
    let answered = |host: &Host, procedure: Procedure| {
        let received = next(host);
        assert_eq!(received.procedure, procedure as u32);
        LockResult::decode(&mut Decoder::new(&received.arguments)).unwrap().status
    };
    send(&a, Procedure::LockMsg, &WRITE);
    assert_eq!(answered(&a, Procedure::LockRes), Status::Granted);
    send(&b, Procedure::TestMsg, &READ);
    let received = next(&b);
    assert_eq!(received.procedure, Procedure::TestRes as u32);
    let test = TestResult::decode(Width::Bits64, &mut Decoder::new(&received.arguments)).unwrap();
    assert_eq!((test.status, test.holder.map(|holder| holder.svid)), (Status::Denied, Some(1)));
    send(&b, Procedure::LockMsg, &BLOCK);
    assert_eq!(answered(&b, Procedure::LockRes), Status::Blocked);
    send(&a, Procedure::UnlockMsg, &WRITE);
    assert_eq!(answered(&a, Procedure::UnlockRes), Status::Granted);
    let granted = next(&b);
    assert_eq!(granted.procedure, Procedure::GrantedMsg as u32);
    let told =
        LockArguments::decode(Form::Test, Width::Bits64, &mut Decoder::new(&granted.arguments)).unwrap();
    let result = LockResult { cookie: told.cookie, status: Status::Denied };
    let function = Function { program: nlm::PROGRAM, version: 4, procedure: Procedure::GrantedRes as u32 };
    world.ask(&a, false, function, &result);
    assert_eq!(world.status(&a, Procedure::Lock, &READ), Status::Denied, "another's answer is no answer");
    world.ask(&b, false, function, &result);
    assert_eq!(world.status(&a, Procedure::Lock, &READ), Status::Granted, "given back");
    send(&b, Procedure::CancelMsg, &BLOCK);
    wait_until("the cancellation is answered", || {
        b.calls.try_recv().is_ok_and(|received| received.procedure == Procedure::CancelRes as u32)
    });
}

#[test]
fn a_client_that_restarts_loses_what_it_had_and_only_that() {
    let world = World::new();
    let (a, b) = (world.host("127.0.0.2", b"web1"), world.host("127.0.0.3", b"web2"));
    assert_eq!(world.status(&a, Procedure::Lock, &WRITE), Status::Granted);
    assert_eq!(world.status(&b, Procedure::Lock, &BLOCK), Status::Blocked);
    world.notify(&b, 99);
    assert_eq!(world.status(&b, Procedure::Lock, &BLOCK), Status::Blocked, "it restarted, and waits again");
    world.notify(&a, 5);
    assert_eq!(next(&b).procedure, Procedure::Granted as u32);
    assert_eq!(world.status(&b, Procedure::Unlock, &WRITE), Status::Granted);
    assert_eq!(world.status(&a, Procedure::Lock, &Wanted { state: 5, ..WRITE }), Status::Granted);
    world.notify(&a, 5);
    assert_eq!(world.status(&b, Procedure::Lock, &WRITE), Status::Denied, "told twice, released once");
    assert_eq!(world.status(&a, Procedure::Unlock, &WRITE), Status::Granted);
    // Locked again before its monitor got through: that stays.
    assert_eq!(world.status(&a, Procedure::Lock, &Wanted { state: 7, ..WRITE }), Status::Granted);
    world.notify(&a, 7);
    assert_eq!(world.status(&b, Procedure::Lock, &WRITE), Status::Denied);
    assert_eq!(world.status(&a, Procedure::Unlock, &WRITE), Status::Granted);
    // A client that does not tell its state with a lock.
    world.notify(&a, 9);
    assert_eq!(world.status(&a, Procedure::Lock, &Wanted { state: 0, ..WRITE }), Status::Granted);
    world.notify(&a, 9);
    assert_eq!(world.status(&b, Procedure::Lock, &WRITE), Status::Denied, "told twice, released once");
    world.notify(&a, 11);
    assert_eq!(world.status(&b, Procedure::Lock, &WRITE), Status::Granted);
    let stat = Function { program: nsm::PROGRAM, version: 1, procedure: nsm::Procedure::Stat as u32 };
    let result = world.ask(&a, true, stat, &Opaque::<1024>(b"web1"));
    let result = nsm::StatResult::decode(&mut Decoder::new(&result)).unwrap();
    assert_eq!(result, nsm::StatResult { refused: true, state: 1 });
}

#[test]
fn after_a_restart_clients_are_told_and_only_take_back_what_they_had() {
    let mut world = World::new();
    let (a, b) = (world.host("127.0.0.2", b"web1"), world.host("127.0.0.3", b"web2"));
    assert_eq!(world.status(&b, Procedure::NmLock, &READ), Status::Granted);
    assert_eq!(world.status(&b, Procedure::Unlock, &READ), Status::Granted);
    assert_eq!(world.status(&a, Procedure::Lock, &WRITE), Status::Granted);
    a.script.lock().deaf = 1;
    world.restart(LONG);
    for _ in 0..2 {
        let told = next(&a);
        assert_eq!((told.program, told.procedure), (nsm::PROGRAM, nsm::Procedure::Notify as u32));
        let notify = nsm::Notify::decode(&mut Decoder::new(&told.arguments)).unwrap();
        assert_eq!(notify.state, 3);
    }
    for procedure in [Procedure::Lock, Procedure::Test] {
        assert_eq!(world.status(&b, procedure, &READ), Status::DeniedGracePeriod, "it may be another's");
    }
    assert_eq!(world.status(&b, Procedure::Unlock, &READ), Status::Granted);
    let reclaim = Wanted { reclaim: true, ..WRITE };
    assert_eq!(world.status(&a, Procedure::Lock, &reclaim), Status::Granted);
    assert_eq!(world.status(&b, Procedure::Lock, &reclaim), Status::Denied, "it is taken back already");
    assert!(b.calls.try_recv().is_err(), "who held no monitored lock is not told");

    // A restart after which nobody takes anything back: everybody gets locks when the grace period is over.
    world.restart(SHORT);
    wait_until("the grace period is over", || world.status(&b, Procedure::Lock, &WRITE) == Status::Granted);
    assert_eq!(world.status(&a, Procedure::Lock, &reclaim), Status::DeniedGracePeriod, "too late");
}

#[test]
fn what_cannot_be_locked_is_told_apart() {
    let mut world = World::new();
    let a = world.host("127.0.0.2", b"web1");
    let good = world.file.clone();
    assert_eq!(world.status(&a, Procedure::Lock, &Wanted { offset: u64::MAX, ..WRITE }), Status::TooBig);
    let huge = Wanted { offset: 5, length: u64::MAX, ..WRITE };
    assert_eq!(world.status(&a, Procedure::Lock, &huge), Status::TooBig);
    assert_eq!(world.status(&a, Procedure::Unlock, &huge), Status::Granted);
    std::fs::create_dir(world.fixture.path("dir")).unwrap();
    world.file = World::handle(&world.fixture, b"dir");
    assert_eq!(world.status(&a, Procedure::Lock, &WRITE), Status::Failed);
    assert_eq!(world.status_in(3, &a, Procedure::Lock, &WRITE), Status::DeniedNoLocks);
    world.file = b"no handle".to_vec();
    assert_eq!(world.status(&a, Procedure::Lock, &WRITE), Status::StaleHandle);
    assert_eq!(world.status(&a, Procedure::Test, &WRITE), Status::StaleHandle);
    world.file = good;
    assert_eq!(world.status(&a, Procedure::Lock, &WRITE), Status::Granted);
    std::fs::remove_file(world.fixture.path("file")).unwrap();
    assert_eq!(world.status(&a, Procedure::Lock, &READ), Status::StaleHandle);
    assert_eq!(world.status(&a, Procedure::Unlock, &WRITE), Status::Granted, "what is gone is given back");
    // Granted is a client's procedure, and garbage is none.
    assert_eq!(world.status(&a, Procedure::Granted, &WRITE), Status::Denied);
    let function = Function { program: nlm::PROGRAM, version: 2, procedure: 0 };
    let peer = Peer::Tcp(world.fixture.server.address(), None);
    for (function, arguments, expected) in [
        (function, 0, Header::ProgramMismatch { low: 1, high: 4 }),
        (Function { version: 1, procedure: 20, ..function }, 0, Header::ProcedureUnavailable),
        (Function { version: 4, procedure: 16, ..function }, 0, Header::ProcedureUnavailable),
        (Function { version: 4, procedure: 2, ..function }, 7, Header::GarbageArguments),
    ] {
        let refused = world.fixture.runtime.block_on(call(&peer, function, &(arguments as u32), WAIT));
        match refused {
            Err(crate::nfs::rpc::client::CallFailed::Refused(reply)) => assert_eq!(reply, expected),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn dos_shares() {
    let world = World::new();
    let (a, b) = (world.host("127.0.0.2", b"web1"), world.host("127.0.0.3", b"web2"));
    let share = |host: &Host, procedure: Procedure, deny, access| {
        let (caller, file) = (host.name, &world.file[..]);
        let arguments =
            ShareArguments { cookie: b"c", caller, file, owner: b"o", deny, access, reclaim: false };
        let function = Function { program: nlm::PROGRAM, version: 3, procedure: procedure as u32 };
        let result = world.ask(host, false, function, &arguments);
        ShareResult::decode(&mut Decoder::new(&result)).unwrap().status
    };
    assert_eq!(share(&a, Procedure::Share, 2, 1), Status::Granted);
    assert_eq!(share(&b, Procedure::Share, 0, 2), Status::Denied);
    assert_eq!(share(&b, Procedure::Share, 0, 1), Status::Granted);
    assert_eq!(share(&a, Procedure::Unshare, 2, 1), Status::Granted);
    assert_eq!(share(&b, Procedure::Share, 0, 2), Status::Granted);
    world.notify(&b, 9);
    assert_eq!(share(&a, Procedure::Share, 3, 3), Status::Granted, "a share ends with its client");
}
