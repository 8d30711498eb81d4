//! What exports(5) says is asked on every call of every procedure, not only at MOUNT.

use super::{Fixture, local, options, status};
use crate::nfs::{Crossing, Export, Table};
use crate::settings::Site;
use crate::settings::exports::{Client as Who, Options, Rule};
use ehpc_proto::codec::{Decoder, Encoder};
use ehpc_proto::mount::{self, MountError};
use ehpc_proto::nfs3::{Procedure, arguments, directory, post_op_attr, results};
use ehpc_proto::nfsacl;
use ehpc_proto::xdr::{Decode, Encode, Opaque};
use ehpc_tools::nfs_client::{Client, Error, Handle, mode, place};
use socket2::{Domain, Socket, Type};
use std::fs;
use std::net::SocketAddr;

const PERM: u32 = 1;
const NOENT: u32 = 2;
const ACCES: u32 = 13;
const XDEV: u32 = 18;
const ROFS: u32 = 30;
const STALE: u32 = 70;
const NOTSUPP: u32 = 10_004;

/// Arguments that are encoded already.
struct Raw(Vec<u8>);

impl Encode for Raw {
    fn encode(&self, out: &mut Encoder) {
        out.bytes(&self.0);
    }
}

fn raw(arguments: &impl Encode) -> Raw {
    let mut out = Encoder::new();
    arguments.encode(&mut out);
    Raw(out.finish())
}

/// A sensible call of every procedure but NULL. In this order all of them succeed where `name` is new.
fn every_call(dir: &Handle, file: &Handle) -> Vec<(Procedure, Raw)> {
    use Procedure::*;
    let at = |name: &'static [u8]| place(dir, name);
    let how = arguments::CreateHow::Unchecked(mode(0o644));
    let (dir, file) = (dir.clone(), file.clone());
    let read = arguments::Read { file: file.clone(), offset: 0, count: 10 };
    let stable = ehpc_proto::nfs3::StableHow::FileSync;
    let data = Opaque(b"abc");
    let write = arguments::Write { file: file.clone(), offset: 0, count: 3, stable, data };
    let fifo = arguments::NodeKind::Special { socket: false, attributes: mode(0o644) };
    let list = arguments::Readdir { dir: dir.clone(), cookie: 0, verifier: [0; 8], count: 4096 };
    let plus = arguments::Readdirplus {
        dir: dir.clone(),
        cookie: 0,
        verifier: [0; 8],
        dir_count: 4096,
        max_count: 8192,
    };
    let set = arguments::Setattr { object: file.clone(), attributes: mode(0o666), guard: None };
    let link = arguments::Link { file: file.clone(), place: at(b"link") };
    let symlink = arguments::Symlink { place: at(b"s"), attributes: mode(0o777), target: Opaque(b"t") };
    vec![
        (Getattr, raw(&file)),
        (Setattr, raw(&set)),
        (Lookup, raw(&at(b"file"))),
        (Access, raw(&arguments::Access { object: file.clone(), access: 0x3f })),
        (Read, raw(&read)),
        (Write, raw(&write)),
        (Create, raw(&arguments::Create { place: at(b"new"), how })),
        (Mkdir, raw(&arguments::Mkdir { place: at(b"d"), attributes: mode(0o755) })),
        (Symlink, raw(&symlink)),
        (Mknod, raw(&arguments::Mknod { place: at(b"fifo"), what: fifo })),
        (Rename, raw(&arguments::Rename { from: at(b"new"), to: at(b"renamed") })),
        (Link, raw(&link)),
        (Remove, raw(&at(b"renamed"))),
        (Rmdir, raw(&at(b"d"))),
        (Readdir, raw(&list)),
        (Readdirplus, raw(&plus)),
        (Fsstat, raw(&dir)),
        (Fsinfo, raw(&dir)),
        (Pathconf, raw(&dir)),
        (Commit, raw(&arguments::Commit { file, offset: 0, count: 0 })),
        // On an object that is no symlink; of the right form all the same.
        (Readlink, raw(&dir)),
    ]
}

/// The status of a result, which must be well formed to its last byte.
fn result_status(procedure: Procedure, body: &[u8]) -> u32 {
    fn read<'a, T: Decode<'a>>(body: &'a [u8], procedure: Procedure) {
        let mut input = Decoder::new(body);
        T::decode(&mut input).unwrap_or_else(|error| panic!("{}: {error}", procedure.name()));
        assert!(input.rest().is_empty(), "{}: {} bytes too many", procedure.name(), input.rest().len());
    }
    use Procedure::*;
    match procedure {
        Null => {}
        Getattr => read::<results::Getattr>(body, procedure),
        Setattr | Remove | Rmdir => read::<results::Changed>(body, procedure),
        Lookup => read::<results::Lookup>(body, procedure),
        Access => read::<results::Access>(body, procedure),
        Readlink => read::<results::Readlink<'_>>(body, procedure),
        Read => read::<results::Read<'_>>(body, procedure),
        Write => read::<results::Write>(body, procedure),
        Create | Mkdir | Symlink | Mknod => read::<results::Created>(body, procedure),
        Rename => read::<results::Rename>(body, procedure),
        Link => read::<results::Link>(body, procedure),
        Readdir => read::<directory::Readdir<'_>>(body, procedure),
        Readdirplus => read::<directory::Readdirplus<'_>>(body, procedure),
        Fsstat => read::<results::Fsstat>(body, procedure),
        Fsinfo => read::<results::Fsinfo>(body, procedure),
        Pathconf => read::<results::Pathconf>(body, procedure),
        Commit => read::<results::Commit>(body, procedure),
    }
    Decoder::new(body).u32().unwrap()
}

/// The status of every procedure's sensible call.
fn statuses(client: &mut Client, dir: &Handle, file: &Handle) -> Vec<(Procedure, u32)> {
    let calls = every_call(dir, file);
    assert_eq!(calls.len(), Procedure::ALL.len() - 1, "every procedure but NULL");
    calls
        .into_iter()
        .map(|(procedure, arguments)| {
            let answer = client.nfs(procedure, &arguments).unwrap();
            (procedure, result_status(procedure, answer.body()))
        })
        .collect()
}

/// Every call got this status, those of NFSACL too.
fn all_refused(client: &mut Client, dir: &Handle, file: &Handle, expected: u32) {
    for procedure in [nfsacl::Procedure::Getacl, nfsacl::Procedure::Setacl] {
        // SETACL's failure and GETACL's have the same form.
        let answer = client.call(nfsacl::PROGRAM, 3, procedure as u32, &raw(file)).unwrap();
        let result = answer.result::<nfsacl::Setacl>().unwrap();
        assert_eq!(result.err().map(|(status, _)| status as u32), Some(expected), "{}", procedure.name());
    }
    for (procedure, status) in statuses(client, dir, file) {
        assert_eq!(status, expected, "{}", procedure.name());
    }
}

/// A client with this address of the loopback network.
fn client_at(fixture: &Fixture, address: [u8; 4]) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((address, 0)).into()).unwrap();
    socket.connect(&fixture.server.address().into()).unwrap();
    Client::over(socket.into()).unwrap()
}

fn rule(client: Who, options: Options) -> Rule {
    Rule { client, options, site: Site::Default("test") }
}

fn host(address: [u8; 4]) -> Who {
    Who::Address(address.into())
}

fn mount_error(client: &mut Client, path: &str) -> MountError {
    match client.mount(path) {
        Err(Error::Mount { error, .. }) => error,
        other => panic!("{other:?}"),
    }
}

const FRIEND: [u8; 4] = [127, 0, 0, 2];
const READER: [u8; 4] = [127, 0, 0, 3];
const STRANGER: [u8; 4] = [127, 0, 0, 9];

/// One export: FRIEND may write, READER may read, others may nothing. A file "file" is in it.
fn guarded() -> Fixture {
    let read = Options { read_only: true, ..Options::open() };
    let rules = vec![rule(host(FRIEND), Options::open()), rule(host(READER), read)];
    let fixture = Fixture::with(options(), |export| export.rules = rules, |vfs| vfs);
    fs::write(fixture.path("file"), b"content").unwrap();
    fixture
}

#[test]
fn every_procedure_serves_whom_the_rules_name_and_refuses_everybody_else() {
    let fixture = guarded();
    let mut friend = client_at(&fixture, FRIEND);
    let root = friend.mount("/share").unwrap();
    let (file, _) = friend.lookup(&root, b"file").unwrap();

    // The handles are good: whoever has overheard them may do nothing with them.
    let mut stranger = client_at(&fixture, STRANGER);
    assert_eq!(mount_error(&mut stranger, "/share"), MountError::Access);
    all_refused(&mut stranger, &root, &file, ACCES);
    assert_eq!(fs::read(fixture.path("file")).unwrap(), b"content");

    let mut reader = client_at(&fixture, READER);
    assert_eq!(reader.mount("/share").unwrap().data, root.data);
    for (procedure, status) in statuses(&mut reader, &root, &file) {
        let expected = match procedure {
            Procedure::Readlink => 22,
            procedure if procedure.is_replayed() => ROFS,
            _ => 0,
        };
        assert_eq!(status, expected, "{}", procedure.name());
    }
    assert_eq!(fs::read_dir(fixture.dir.path()).unwrap().count(), 1, "nothing was made");

    for (procedure, status) in statuses(&mut friend, &root, &file) {
        let expected = if procedure == Procedure::Readlink { 22 } else { 0 };
        assert_eq!(status, expected, "{}", procedure.name());
    }
}

#[test]
fn secure_is_asked_on_every_call() {
    let rules = vec![rule(Who::Everybody, Options { secure: true, ..Options::open() })];
    let fixture = Fixture::with(options(), |export| export.rules = rules, |vfs| vfs);
    fs::write(fixture.path("file"), b"content").unwrap();
    let mut client = fixture.client();
    assert_eq!(mount_error(&mut client, "/share"), MountError::Access);
    // Handles from before the export was made secure.
    let earlier = Fixture::with(options(), |export| export.vfs = local(fixture.dir.path()), |vfs| vfs);
    let mut elsewhere = earlier.client();
    let handle = ehpc_proto::nfs3::nfs_fh3 { data: elsewhere.mount("/share").unwrap().data };
    all_refused(&mut client, &handle, &handle, PERM);
}

#[test]
fn a_table_is_replaced_under_a_working_client() {
    let fixture = guarded();
    let table = |exports: Vec<Export>| Table::new(exports).unwrap();
    let before = fixture.server.exports().snapshot().exports().to_vec();
    let mut friend = client_at(&fixture, FRIEND);
    let mut stranger = client_at(&fixture, STRANGER);
    let root = friend.mount("/share").unwrap();
    let (file, _) = friend.lookup(&root, b"file").unwrap();

    // Changed: now it is the other who may.
    let changed = Export { rules: vec![rule(host(STRANGER), Options::open())], ..before[0].clone() };
    fixture.server.exports().replace(table(vec![changed]));
    all_refused(&mut friend, &root, &file, ACCES);
    assert_eq!(stranger.read_all(&file).unwrap(), b"content", "the handle is the same");

    // Removed: its handles are stale to everybody.
    fixture.server.exports().replace(Table::default());
    all_refused(&mut friend, &root, &file, STALE);
    all_refused(&mut stranger, &root, &file, STALE);
    assert_eq!(mount_error(&mut friend, "/share"), MountError::NoEnt);

    // Added again, beside another: the old handles work.
    let other = tempfile::tempdir().unwrap();
    let everybody = vec![rule(Who::Everybody, Options::open())];
    let more = Export::whole(99, "/other", local(other.path()), everybody);
    fixture.server.exports().replace(table(vec![before[0].clone(), more]));
    assert_eq!(friend.read_all(&file).unwrap(), b"content");
    let elsewhere = stranger.mount("/other").unwrap();
    stranger.create(&elsewhere, b"x").unwrap();
    assert!(other.path().join("x").exists());
    assert_eq!(status(stranger.getattr(&root)), ACCES);
}

#[test]
fn exports_of_one_file_system_are_separate() {
    let fixture = Fixture::start();
    fs::create_dir_all(fixture.path("in/below")).unwrap();
    fs::create_dir(fixture.path("outside")).unwrap();
    let whole = fixture.server.exports().snapshot().exports()[0].clone();
    let mut client = fixture.client();
    let top = client.mount("/share").unwrap();
    let key = {
        let caller = crate::vfs::Caller { uid: 0, gid: 0, groups: Default::default() };
        whole.vfs.lookup(&caller, &whole.root, b"in").0.unwrap().key
    };
    let inner = Export { id: 8, name: b"/share/in".to_vec(), root: key, ..whole.clone() };
    fixture.server.exports().replace(Table::new(vec![whole, inner]).unwrap());

    let root = client.mount("/share/in").unwrap();
    let below = client.mount("/share/in/below").unwrap();
    assert_ne!(root.data, client.lookup(&top, b"in").unwrap().0.data, "another export, other handles");
    assert_eq!(client.lookup(&below, b"..").unwrap().0.data, root.data);
    assert_eq!(client.lookup(&root, b"..").unwrap().0.data, root.data, "nothing above");
    let (entries, _) = client.readdirplus(&root, 0, 8192).unwrap();
    let above = entries.iter().find(|entry| entry.name == b"..").unwrap();
    assert_eq!(above.fileid, client.getattr(&root).unwrap().fileid);
    assert!(above.handle.is_none());

    // A directory that is moved out must not become a way up.
    fs::rename(fixture.path("in/below"), fixture.path("outside/below")).unwrap();
    assert_eq!(status(client.lookup(&below, b"..")), STALE);
    let (entries, _) = client.readdirplus(&below, 0, 8192).unwrap();
    assert!(entries.iter().all(|entry| entry.name != b".." || entry.handle.is_none()));

    // Nothing is renamed or linked from one export into another.
    let file = client.create(&root, b"f").unwrap();
    assert_eq!(status(client.rename((&root, b"f"), (&top, b"f"))), XDEV);
    assert_eq!(status(client.link(&file, &top, b"g")), XDEV);
    assert_eq!(status(client.lookup(&top, b"f")), NOENT);
}

#[test]
fn no_acl_answers_that_there_are_none() {
    let fixture = Fixture::with(options(), |export| export.rules[0].options.acl = false, |vfs| vfs);
    let (mut client, root) = fixture.mounted();
    for procedure in [nfsacl::Procedure::Getacl, nfsacl::Procedure::Setacl] {
        let answer = client.call(nfsacl::PROGRAM, 3, procedure as u32, &raw(&root)).unwrap();
        let result = answer.result::<nfsacl::Setacl>().unwrap();
        assert_eq!(result.err().map(|(status, _)| status as u32), Some(NOTSUPP), "{}", procedure.name());
    }
}

#[test]
fn nordirplus_refuses_readdirplus_alone() {
    let fixture = Fixture::with(options(), |export| export.rules[0].options.readdirplus = false, |vfs| vfs);
    let (mut client, root) = fixture.mounted();
    assert_eq!(status(client.readdirplus(&root, 0, 8192)), NOTSUPP);
    client.readdir(&root, 0, 8192).unwrap();
}

#[test]
fn file_systems_mounted_below_are_entered_where_that_is_allowed() {
    let fixture = Fixture::start();
    let inner_dir = tempfile::tempdir().unwrap();
    fs::write(inner_dir.path().join("inside"), b"").unwrap();
    // What the mount hides; a test has no need of a real mount to see which of the two is shown.
    fs::create_dir(fixture.path("mnt")).unwrap();
    let outer = fixture.server.exports().snapshot().exports()[0].clone();
    let (mut client, root) = fixture.mounted();
    let served = |crossmnt: bool, hide: bool, inner_rules: Option<Vec<Rule>>| {
        let rules =
            inner_rules.unwrap_or_else(|| vec![rule(Who::Everybody, Options { hide, ..Options::open() })]);
        let inner = Export::whole(99, "/share/mnt", local(inner_dir.path()), rules);
        let way = Crossing { dir: outer.root.clone(), name: b"mnt".to_vec(), to: 99 };
        let mut outer = Export { crossings: vec![way], ..outer.clone() };
        outer.rules[0].options.crossmnt = crossmnt;
        fixture.server.exports().replace(Table::new(vec![outer, inner]).unwrap());
    };
    for (crossmnt, hide, entered) in [(false, true, false), (true, true, true), (false, false, true)] {
        served(crossmnt, hide, None);
        let (mnt, attributes) = client.lookup(&root, b"mnt").unwrap();
        assert_eq!(client.lookup(&mnt, b"inside").is_ok(), entered, "crossmnt {crossmnt} hide {hide}");
        assert_eq!(mnt.data == client.mount("/share/mnt").unwrap().data, entered);
        let post_op_attr::attributes(told) = attributes else { panic!("no attributes") };
        assert_eq!(told.fileid, client.getattr(&mnt).unwrap().fileid);
        if entered {
            assert_eq!(client.lookup(&mnt, b"..").unwrap().0.data, mnt.data, "each export ends at its root");
        }
    }
    // Whom the inner export does not know does not get in by this way.
    served(true, true, Some(vec![rule(host(STRANGER), Options::open())]));
    let (mnt, _) = client.lookup(&root, b"mnt").unwrap();
    assert_eq!(status(client.lookup(&mnt, b"inside")), NOENT);
    // Nor does somebody who may not search the directory that the mount point lies in.
    served(true, true, None);
    fs::set_permissions(fixture.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    client.act_as(77_001, 77_001, &[]);
    assert_eq!(status(client.lookup(&root, b"mnt")), ACCES);
}

#[test]
fn clients_are_known_by_name() {
    let fixture = Fixture::start();
    let before = fixture.server.exports().snapshot().exports()[0].clone();
    let mut client = fixture.client();
    for (names, known) in [
        (&["localhost"][..], true),
        (&["l?calhos[st]"], true),
        (&["no-such-host.invalid", "localhost"], true),
        (&["@no-such-netgroup", "other*"], false),
    ] {
        let rules = names.iter().map(|name| rule(Who::parse(name).unwrap(), Options::open())).collect();
        let export = Export { rules, ..before.clone() };
        fixture.server.exports().replace(Table::new(vec![export]).unwrap());
        // The first question may take the name service longer than one MNT waits.
        let mut answer = client.mount("/share");
        let until = std::time::Instant::now() + super::WAIT;
        while let Err(Error::Mount { error: MountError::ServerFault, .. }) = answer {
            assert!(std::time::Instant::now() < until, "{names:?}: the name service does not answer");
            answer = client.mount("/share");
        }
        assert_eq!(answer.is_ok(), known, "{names:?}: {answer:?}");
        if let Ok(root) = answer {
            client.getattr(&root).unwrap();
        }
    }
}

#[test]
fn export_names_who_may_mount() {
    let fixture = guarded();
    let before = fixture.server.exports().snapshot().exports()[0].clone();
    let rules = ["web1", "10.0.0.0/8", "*.example.org", "@web"];
    let rules = rules.iter().map(|name| rule(Who::parse(name).unwrap(), Options::open())).collect();
    let named = Export { id: 50, name: b"/named".to_vec(), rules, ..before.clone() };
    let implied = Export { id: 51, name: b"/implied".to_vec(), implied: true, ..before.clone() };
    let everybody = vec![rule(host(FRIEND), Options::open()), rule(Who::Everybody, Options::open())];
    let open = Export { id: 52, name: b"/open".to_vec(), rules: everybody, ..before.clone() };
    fixture.server.exports().replace(Table::new(vec![before, named, implied, open]).unwrap());
    let answer = fixture.client().mount_call(mount::Procedure::Export, &()).unwrap();
    let list = answer.result::<mount::List<mount::ExportEntry<'_>>>().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let lines: Vec<String> = list
        .0
        .iter()
        .map(|line| {
            let groups: Vec<String> = line.groups.0.iter().map(|group| text(group.0)).collect();
            format!("{} {}", text(line.directory.0), groups.join(","))
        })
        .collect();
    assert_eq!(lines, ["/named web1,10.0.0.0/8,*.example.org,@web", "/open ", "/share 127.0.0.2,127.0.0.3"]);
}
