//! Under whose identity calls are done: squashing, and many identities in flight at once, on real files.

use super::{Fixture, options, status};
use crate::settings::exports::{Options, Squash};
use ehpc_proto::nfs3::{Procedure, arguments, results};
use ehpc_tools::nfs_client::{Client, Handle, mode, place};
use rand::{Rng, SeedableRng};
use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

const ACCES: u32 = 13;

/// Makes a file of this owner and mode.
fn file(path: &Path, owner: (u32, u32), mode: u32, content: &[u8]) {
    fs::write(path, content).unwrap();
    chown(path, Some(owner.0), Some(owner.1)).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn open_to_all(fixture: &Fixture) {
    fs::set_permissions(fixture.dir.path(), Permissions::from_mode(0o777)).unwrap();
}

fn squashing(squash: Squash) -> Fixture {
    let fixture = Fixture::with(
        options(),
        |export| {
            export.rules[0].options = Options { squash, anonuid: 7001, anongid: 7002, ..Options::open() }
        },
        |vfs| vfs,
    );
    open_to_all(&fixture);
    file(&fixture.path("of-root"), (0, 0), 0o600, b"");
    file(&fixture.path("of-user"), (5001, 5002), 0o600, b"");
    file(&fixture.path("of-nobody"), (7001, 7002), 0o600, b"");
    file(&fixture.path("of-group-0"), (1, 0), 0o040, b"");
    file(&fixture.path("of-group-5003"), (1, 5003), 0o040, b"");
    file(&fixture.path("of-group-7002"), (1, 7002), 0o040, b"");
    fixture
}

/// Who calls: root, root with groups, a user, a user of group 0, one who adds group 0, nobody.
const CALLERS: [Option<(u32, u32, &[u32])>; 6] = [
    Some((0, 0, &[])),
    Some((0, 0, &[0, 5003])),
    Some((5001, 5002, &[5003])),
    Some((5001, 0, &[])),
    Some((5001, 5002, &[0])),
    None,
];

/// Owner of what a caller makes, and which files he may read.
type Seen = ((u32, u32), Vec<&'static str>);

fn seen(fixture: &Fixture, caller: Option<(u32, u32, &[u32])>) -> Seen {
    let mut client = fixture.client();
    match caller {
        Some((uid, gid, groups)) => client.act_as(uid, gid, groups),
        None => client.act_as_nobody(),
    }
    let root = client.mount("/share").unwrap();
    client.create(&root, b"made").unwrap();
    let made = fs::metadata(fixture.path("made")).unwrap();
    fs::remove_file(fixture.path("made")).unwrap();
    let names = ["of-root", "of-user", "of-nobody", "of-group-0", "of-group-5003", "of-group-7002"];
    let readable = names.into_iter().filter(|name| {
        let (handle, _) = client.lookup(&root, name.as_bytes()).unwrap();
        match status(client.read(&handle, 0, 10)) {
            0 => true,
            ACCES => false,
            other => panic!("{name}: {other}"),
        }
    });
    ((made.uid(), made.gid()), readable.collect())
}

#[test]
fn squashing_decides_who_makes_and_reads_files() {
    let all = ["of-root", "of-user", "of-nobody", "of-group-0", "of-group-5003", "of-group-7002"];
    let nobody: Seen = ((7001, 7002), vec!["of-nobody", "of-group-7002"]);
    let user = |groups: &[&'static str]| [&["of-user"][..], groups].concat();
    let expected: [(Squash, [Seen; 6]); 3] = [
        (
            Squash::Nobody,
            [
                ((0, 0), all.to_vec()),
                ((0, 0), all.to_vec()),
                ((5001, 5002), user(&["of-group-5003"])),
                ((5001, 0), user(&["of-group-0"])),
                ((5001, 5002), user(&["of-group-0"])),
                nobody.clone(),
            ],
        ),
        (
            Squash::Root,
            [
                nobody.clone(),
                ((7001, 7002), vec!["of-nobody", "of-group-5003", "of-group-7002"]),
                ((5001, 5002), user(&["of-group-5003"])),
                ((5001, 7002), user(&["of-group-7002"])),
                ((5001, 5002), user(&["of-group-7002"])),
                nobody.clone(),
            ],
        ),
        (Squash::Everybody, std::array::from_fn(|_| nobody.clone())),
    ];
    for (squash, expected) in expected {
        let fixture = squashing(squash);
        for (caller, expected) in CALLERS.into_iter().zip(expected) {
            assert_eq!(seen(&fixture, caller), expected, "{squash:?} {caller:?}");
        }
    }
}

const USERS: u32 = 24;
const CONNECTIONS: usize = 6;
const ROUNDS: usize = 12;
const IN_FLIGHT: usize = 100;

fn uid(user: u32) -> u32 {
    30_000 + user
}

fn group(user: u32) -> u32 {
    40_000 + user
}

/// What a call in flight must come to.
enum Expected {
    /// READ of a file: allowed, or not.
    Read(bool),
    /// CREATE: the new file's name, user and group.
    Created(String, u32, u32),
}

/// One connection with calls of many users in flight, again and again.
fn many_users(mut client: Client, root: &Handle, files: &[(Handle, Handle)], seed: u64, dir: &Path) {
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    for round in 0..ROUNDS {
        let mut expected = HashMap::new();
        for call in 0..IN_FLIGHT {
            let (user, owner) = (random.random_range(0..USERS), random.random_range(0..USERS));
            // Every user is in one group: the one of the user before him.
            let member_of = (user + USERS - 1) % USERS;
            client.act_as(uid(user), uid(user), &[group(member_of)]);
            let (own, of_group) = &files[owner as usize];
            let (xid, outcome) = match random.random_range(0..3) {
                0 => (read(&mut client, own), Expected::Read(owner == user)),
                1 => (read(&mut client, of_group), Expected::Read(owner == member_of)),
                _ => {
                    let name = format!("{seed}-{round}-{call}");
                    let how = arguments::CreateHow::Guarded(mode(0o600));
                    let args = arguments::Create { place: place(root, name.as_bytes()), how };
                    let xid = client.queue_nfs(Procedure::Create, &args);
                    (xid, Expected::Created(name, uid(user), uid(user)))
                }
            };
            expected.insert(xid, outcome);
        }
        client.flush().unwrap();
        while !expected.is_empty() {
            let answer = client.receive().unwrap();
            match expected.remove(&answer.xid).unwrap() {
                Expected::Read(true) => drop(answer.result::<results::Read<'_>>().unwrap().unwrap()),
                Expected::Read(false) => {
                    let status = answer.result::<results::Read<'_>>().unwrap().unwrap_err().0;
                    assert_eq!(status as u32, ACCES, "seed {seed}: read another's file");
                }
                Expected::Created(name, uid, gid) => {
                    answer.result::<results::Created>().unwrap().unwrap();
                    let made = fs::metadata(dir.join(&name)).unwrap();
                    assert_eq!((made.uid(), made.gid()), (uid, gid), "seed {seed}: {name}");
                }
            }
        }
    }
}

fn read(client: &mut Client, file: &Handle) -> u32 {
    client.queue_nfs(Procedure::Read, &arguments::Read { file: file.clone(), offset: 0, count: 10 })
}

/// Reads that only one user or group may do and files that show who made them, by users who take turns call by
/// call on many connections at once. One call under another's identity shows as a read that should have failed
/// or failed for no reason, or as a file of the wrong owner.
#[test]
fn no_call_runs_under_anothers_identity() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut options = options();
    options.workers = 4;
    let fixture = Fixture::with(options, |_| {}, |vfs| vfs);
    open_to_all(&fixture);
    for user in 0..USERS {
        file(&fixture.path(&format!("own-{user}")), (uid(user), 1), 0o400, b"own");
        file(&fixture.path(&format!("group-{user}")), (1, group(user)), 0o040, b"group");
    }
    let (mut client, root) = fixture.mounted();
    let handles: Vec<(Handle, Handle)> = (0..USERS)
        .map(|user| {
            let mut find = |name: String| client.lookup(&root, name.as_bytes()).unwrap().0;
            (find(format!("own-{user}")), find(format!("group-{user}")))
        })
        .collect();
    std::thread::scope(|scope| {
        for connection in 0..CONNECTIONS {
            let (client, root, handles) = (fixture.client(), &root, &handles);
            let dir = fixture.dir.path();
            scope.spawn(move || many_users(client, root, handles, seed.wrapping_add(connection as u64), dir));
        }
    });
}
