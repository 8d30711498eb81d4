//! Whole requests to a live server, mutated: records, fragments, RPC headers, credentials, arguments. A process of
//! its own, so that a panic of any thread and every byte of memory are the server's.
//!
//! Runs for EHPC_FUZZ_SECONDS (1 if unset) from a seed that is printed (EHPC_FUZZ_SEED repeats one). Requests
//! that once found something are kept in proto/fuzz/corpus/requests and sent first.

mod mutate;

use super::table::{Cause, World};
use super::wire;
use ehpc_proto::codec::{Decoder, Encoder};
use ehpc_proto::mount;
use ehpc_proto::nfs3::{self, Procedure};
use ehpc_proto::nfsacl::{self, Getacl, Setacl};
use ehpc_proto::record::{self, MAX_RECORD};
use ehpc_proto::rpc::{AuthSys, Call, CallError, Credential, Reply};
use ehpc_proto::xdr::Decode;
use ehpc_tools::nfs_client::{Answer, Client, Error};
use mutate::{mutated, sent_in_fragments};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::fs;
use std::io::Read;
use std::net::Shutdown;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const CHILD: &str = "EHPC_FUZZ_CHILD";
const NAME: &str = "nfs::tests::fuzz::mutated_requests_to_a_live_server";
/// What the process may hold at its peak: its program and stacks, and what `Options` lets clients make it hold.
const MOST_MEMORY: u64 = 128 << 20;

static PANICKED: AtomicBool = AtomicBool::new(false);

fn from_environment(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap())
}

#[test]
fn mutated_requests_to_a_live_server() {
    if std::env::var_os(CHILD).is_some() {
        return fuzz();
    }
    let done = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&done.stdout);
    println!("{output}");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(output.contains("1 passed"), "nothing ran in the child");
}

/// Says what was sent, should the test end here.
struct Sent<'a> {
    seed: u64,
    number: u64,
    record: &'a [u8],
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let hex: String = self.record.iter().take(2000).map(|byte| format!("{byte:02x}")).collect();
            println!("seed {}, request {}, {} bytes: {hex}", self.seed, self.number, self.record.len());
        }
    }
}

fn fuzz() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICKED.store(true, Ordering::SeqCst);
        usual(info);
    }));
    let seconds = from_environment("EHPC_FUZZ_SECONDS").unwrap_or(1);
    let seed = from_environment("EHPC_FUZZ_SEED").unwrap_or_else(rand::random);
    println!("seed {seed}, {seconds} s");
    let mut random = StdRng::seed_from_u64(seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut number = 0;
    let mut answered = 0;
    while number == 0 || Instant::now() < end {
        // A new server now and then: mutated requests remove and rename what they were made for.
        let mut world = World::new(&Cause::Plain);
        let seeds = valid_requests(&mut world);
        let kept = if number == 0 { kept_requests() } else { Vec::new() };
        for record in seeds.iter().chain(&kept) {
            answered += u64::from(send(&mut world, record, Sent { seed, number, record }, None));
        }
        for _ in 0..4000 {
            number += 1;
            let record = mutated(&mut random, &seeds);
            let framing = if random.random_bool(0.9) { None } else { Some(&mut random) };
            answered += u64::from(send(&mut world, &record, Sent { seed, number, record: &record }, framing));
            if Instant::now() >= end {
                break;
            }
        }
        world.onlooker.null().unwrap();
        assert!(!PANICKED.load(Ordering::SeqCst), "a thread of the server panicked; seed {seed}");
    }
    let peak = peak_memory();
    println!("{number} mutated requests, {answered} answers, {} MiB at the peak", peak >> 20);
    assert!(peak < MOST_MEMORY, "{peak} bytes at the peak; seed {seed}");
    assert!(answered > number / 4, "hardly anything was answered");
}

/// VmHWM of this process.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn request(program: u32, version: u32, procedure: u32, arguments: &[u8]) -> Vec<u8> {
    let mut out = Encoder::new();
    let credential = Credential::Sys(AuthSys::new(b"fuzz", 0, 0, &[1, 2]));
    Call { xid: 0x1234_5678, program, version, procedure, credential }.encode(&mut out);
    out.bytes(arguments);
    out.finish()
}

/// A request of each procedure that succeeds in this world.
fn valid_requests(world: &mut World) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = Procedure::ALL
        .into_iter()
        .map(|procedure| {
            let call = world.calls(procedure, &Cause::Plain).remove(0);
            request(nfs3::PROGRAM, nfs3::VERSION, procedure as u32, &call.arguments)
        })
        .collect();
    let file = world.calls(Procedure::Getattr, &Cause::Plain).remove(0).arguments;
    let getacl = [&file[..], &[0, 0, 0, 0xf]].concat();
    // One list of four entries, as setfacl sends it, and an empty one.
    let list = [1, 4, 4, 1, 0, 6, 4, 0, 4, 0x10, 0, 7, 0x20, 0, 4, 0, 0].map(u32::to_be_bytes).concat();
    let setacl = [&file[..], &list].concat();
    for (procedure, arguments) in [(0, &[][..]), (1, &getacl[..]), (2, &setacl[..])] {
        all.push(request(nfsacl::PROGRAM, nfsacl::VERSION, procedure, arguments));
    }
    for procedure in mount::Procedure::ALL {
        let path = [&[0, 0, 0, 6][..], b"/share\0\0"].concat();
        let arguments: &[u8] = match procedure {
            mount::Procedure::Mnt | mount::Procedure::Umnt => &path,
            _ => &[],
        };
        all.push(request(mount::PROGRAM, mount::VERSION, procedure as u32, arguments));
    }
    all
}

fn kept_requests() -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/proto/fuzz/corpus/requests");
    let files = fs::read_dir(folder).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
    let kept: Vec<_> = files.collect();
    assert!(!kept.is_empty(), "{folder} is empty");
    kept
}

/// Sends a record on a connection that may be closed for it; true if there was an answer. Afterwards the server
/// answers others as before.
fn send(world: &mut World, request: &[u8], _sent: Sent<'_>, framing: Option<&mut StdRng>) -> bool {
    let expected = Expected::of(request);
    let answer = match framing {
        Some(random) => {
            // What is left of the connection is not used again.
            let mut client = world.another_client();
            let whole = sent_in_fragments(&mut client, random, request);
            let _ = client.stream().shutdown(Shutdown::Write);
            if !whole {
                drain(&client);
                world.onlooker.null().unwrap();
                return false;
            }
            client.receive()
        }
        None => {
            let sent = world.client.send_raw(&[&record::mark(request.len())[..], request].concat());
            sent.and_then(|()| world.client.receive())
        }
    };
    let answered = match (answer, expected) {
        (Ok(answer), Some(expected)) => {
            expected.check(&answer);
            true
        }
        (Err(Error::Closed | Error::Io(_)), None) => false,
        (answer, expected) => {
            panic!("{answer:?}, expected {}", if expected.is_some() { "an answer" } else { "the end" })
        }
    };
    if !answered {
        world.client = world.another_client();
        // Somebody else on an older connection.
        world.onlooker.null().unwrap();
    }
    answered
}

/// Reads until the server closes.
fn drain(client: &Client) {
    let mut bytes = [0; 4096];
    while client.stream().read(&mut bytes).is_ok_and(|count| count > 0) {}
}

/// What must come for a whole record: an answer to this transaction. None for what is no call at all.
struct Expected {
    xid: u32,
    refused: Option<Reply>,
    program: u32,
    version: u32,
    procedure: u32,
}

impl Expected {
    fn of(request: &[u8]) -> Option<Expected> {
        if request.len() > MAX_RECORD {
            return None;
        }
        let mut input = Decoder::new(request);
        match Call::decode(&mut input) {
            Ok(Call { xid, program, version, procedure, .. }) => {
                Some(Expected { xid, refused: None, program, version, procedure })
            }
            Err(CallError::Refused { xid, reply }) => {
                Some(Expected { xid, refused: Some(reply), program: 0, version: 0, procedure: 0 })
            }
            Err(CallError::Malformed(_)) => None,
        }
    }

    fn check(&self, answer: &Answer) {
        assert_eq!(answer.xid, self.xid, "the transaction is echoed");
        assert_ne!(answer.reply, Reply::SystemError, "a fault in the server");
        if let Some(refused) = self.refused {
            assert_eq!(answer.reply, refused);
        }
        if answer.reply != Reply::Success {
            assert!(answer.body().is_empty(), "bytes after {:?}", answer.reply);
            return;
        }
        let mut input = Decoder::new(answer.body());
        match (self.program, self.version) {
            (nfs3::PROGRAM, nfs3::VERSION) => {
                let procedure =
                    Procedure::from_number(self.procedure).expect("success of a procedure that is none");
                wire::decode(procedure, &mut input);
                assert!(input.rest().is_empty(), "{procedure:?}: bytes after the result");
            }
            (mount::PROGRAM, mount::VERSION) if self.procedure == mount::Procedure::Mnt as u32 => {
                answer.result::<mount::MountReply>().unwrap().ok();
            }
            (nfsacl::PROGRAM, nfsacl::VERSION) if self.procedure == nfsacl::Procedure::Getacl as u32 => {
                let _ = Getacl::decode(&mut input).expect("a result of GETACL");
                assert!(input.rest().is_empty(), "GETACL: bytes after the result");
            }
            (nfsacl::PROGRAM, nfsacl::VERSION) if self.procedure == nfsacl::Procedure::Setacl as u32 => {
                let _ = Setacl::decode(&mut input).expect("a result of SETACL");
                assert!(input.rest().is_empty(), "SETACL: bytes after the result");
            }
            _ => {}
        }
    }
}
