//! What no client should send: each gets the protocol's own answer, or a closed connection, and the server
//! goes on.

use super::{Fixture, ID, local, options, record, status, words};
use ehpc_proto::nfs3::{self, Procedure, arguments, nfs_fh3, results};
use ehpc_proto::rpc::{AuthStatus, Reply};
use ehpc_proto::xdr::Opaque;
use ehpc_proto::{mount, nfsacl, record as marking};
use ehpc_tools::nfs_client::{Client, Error, Handle, mode};
use std::io::{ErrorKind, Read};

const ACCES: u32 = 13;
const EXIST: u32 = 17;
const ISDIR: u32 = 21;
const INVAL: u32 = 22;
const NAMETOOLONG: u32 = 63;
const STALE: u32 = 70;
const BADHANDLE: u32 = 10_001;

/// The server has closed this connection.
fn assert_closed(client: &Client) {
    match client.stream().read(&mut [0; 1]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("not closed: {other:?}"),
    }
}

#[test]
fn programs_versions_and_procedures_that_are_not_served() {
    let fixture = Fixture::start();
    let mut client = fixture.client();
    let mut reply =
        |program, version, procedure| client.call(program, version, procedure, &()).unwrap().reply;
    assert_eq!(reply(100_228, 3, 0), Reply::ProgramUnavailable);
    assert_eq!(reply(0, 0, 0), Reply::ProgramUnavailable);
    let three = Reply::ProgramMismatch { low: 3, high: 3 };
    for version in [0, 1, 2, 4, u32::MAX] {
        assert_eq!(reply(nfs3::PROGRAM, version, 0), three, "NFS version {version}");
        assert_eq!(reply(mount::PROGRAM, version, 1), three, "MOUNT version {version}");
        assert_eq!(reply(nfsacl::PROGRAM, version, 1), three, "NFSACL version {version}");
    }
    for procedure in [22, 1000, u32::MAX] {
        assert_eq!(reply(nfs3::PROGRAM, 3, procedure), Reply::ProcedureUnavailable);
    }
    assert_eq!(reply(mount::PROGRAM, 3, 6), Reply::ProcedureUnavailable);
    assert_eq!(reply(nfsacl::PROGRAM, 3, 3), Reply::ProcedureUnavailable);
    assert_eq!(reply(nfsacl::PROGRAM, 3, 0), Reply::Success);
    assert_eq!(reply(nfs3::PROGRAM, 3, 0), Reply::Success);
}

#[test]
fn rpc_headers_that_are_refused() {
    let fixture = Fixture::start();
    let mut client = fixture.client();
    let mut reply = |call: &[u32]| {
        client.send_raw(&record(&words(call))).unwrap();
        let answer = client.receive().unwrap();
        assert_eq!(answer.xid, 9);
        answer.reply
    };
    assert_eq!(reply(&[9, 0, 3, 100_003, 3, 0]), Reply::RpcMismatch { low: 2, high: 2 });
    let bad = Reply::AuthError(AuthStatus::BadCredential);
    // RPCSEC_GSS, an unknown flavour, AUTH_SYS with nothing in it, a credential longer than allowed
    assert_eq!(reply(&[9, 0, 2, 100_003, 3, 0, 6, 0, 0, 0]), bad);
    assert_eq!(reply(&[9, 0, 2, 100_003, 3, 0, 77, 0, 0, 0]), bad);
    assert_eq!(reply(&[9, 0, 2, 100_003, 3, 0, 1, 0, 0, 0]), bad);
    assert_eq!(reply(&[9, 0, 2, 100_003, 3, 0, 1, 0x7fff_ffff]), bad);
    // seventeen groups
    let groups = [&[9, 0, 2, 100_003, 3, 1, 1, 88, 0, 0, 0, 0, 17][..], &[0; 17], &[0, 0]].concat();
    assert_eq!(reply(&groups), bad);
}

#[test]
fn what_is_no_call_closes_the_connection() {
    let fixture = Fixture::start();
    let bodies: [Vec<u8>; 4] = [
        Vec::new(),
        vec![1, 2, 3],
        words(&[9, 1, 0, 0, 0, 0]), // a reply
        words(&[9, 0, 2, 100_003]),
    ];
    for body in bodies {
        let mut client = fixture.client();
        client.send_raw(&record(&body)).unwrap();
        assert_closed(&client);
    }
    fixture.client().null().unwrap();
    assert_eq!(fixture.server.stats().bad_requests, 4);
}

#[test]
fn records_that_are_too_long_close_the_connection() {
    let fixture = Fixture::start();
    let too_long = (marking::MAX_RECORD + 1) as u32;
    let heads: [Vec<u8>; 4] = [
        words(&[0xffff_ffff]), // 2 GiB in one fragment
        words(&[0x7fff_ffff]),
        words(&[0x8000_0000 | too_long]),
        vec![0; 4 * (marking::MAX_FRAGMENTS + 1)], // fragments without end
    ];
    for head in heads {
        let mut client = fixture.client();
        client.send_raw(&head).unwrap();
        assert_closed(&client);
    }
    // In two fragments that are too long together.
    let mut client = fixture.client();
    client.send_raw(&words(&[1])).unwrap();
    client.send_raw(&[0]).unwrap();
    client.send_raw(&words(&[0x8000_0000 | marking::MAX_RECORD as u32])).unwrap();
    assert_closed(&client);
    fixture.client().null().unwrap();
}

#[test]
fn fragments_are_put_together() {
    let fixture = Fixture::start();
    let mut client = fixture.client();
    let call = words(&[9, 0, 2, 100_003, 3, 0, 0, 0, 0, 0]);
    let mut bytes = Vec::new();
    for (number, piece) in call.chunks(7).enumerate() {
        let last = if (number + 1) * 7 >= call.len() { 0x8000_0000 } else { 0 };
        bytes.extend(words(&[last | piece.len() as u32]));
        bytes.extend(piece);
    }
    for byte in bytes {
        client.send_raw(&[byte]).unwrap();
    }
    assert_eq!(client.receive().unwrap().reply, Reply::Success);
}

#[test]
fn arguments_that_cannot_be_decoded_are_garbage() {
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    struct Raw(Vec<u8>);
    impl ehpc_proto::xdr::Encode for Raw {
        fn encode(&self, out: &mut ehpc_proto::codec::Encoder) {
            out.bytes(&self.0);
        }
    }
    for procedure in Procedure::ALL.into_iter().skip(1) {
        for body in [vec![], vec![0, 0], words(&[65]), words(&[0x7fff_ffff]), words(&[8, 1])] {
            let answer = client.nfs(procedure, &Raw(body.clone())).unwrap();
            assert_eq!(answer.reply, Reply::GarbageArguments, "{procedure:?} {body:?}");
        }
    }
    // A handle over its limit; a name over any limit; a boolean that is none; a record of zeros.
    let long_handle = [words(&[68]), vec![7; 68]].concat();
    assert_eq!(client.nfs(Procedure::Getattr, &Raw(long_handle)).unwrap().reply, Reply::GarbageArguments);
    let handle = |rest: &[u32]| {
        let mut out = ehpc_proto::codec::Encoder::new();
        ehpc_proto::xdr::encode_opaque(&mut out, &root.data);
        out.bytes(&words(rest));
        Raw(out.finish())
    };
    let huge_name = handle(&[0x4000_0000, 0, 0]);
    assert_eq!(client.nfs(Procedure::Lookup, &huge_name).unwrap().reply, Reply::GarbageArguments);
    let bad_guard = handle(&[0, 0, 0, 0, 0, 0, 2]);
    assert_eq!(client.nfs(Procedure::Setattr, &bad_guard).unwrap().reply, Reply::GarbageArguments);
    let bad_mode = handle(&[1, 0x6100_0000, 3]);
    assert_eq!(client.nfs(Procedure::Create, &bad_mode).unwrap().reply, Reply::GarbageArguments);
    let large = Raw(vec![0; 100_000]);
    assert_eq!(client.nfs(Procedure::Getattr, &large).unwrap().reply, Reply::GarbageArguments);
    let path = Raw([words(&[1025]), vec![b'a'; 1028]].concat());
    assert_eq!(client.mount_call(mount::Procedure::Mnt, &path).unwrap().reply, Reply::GarbageArguments);
    client.getattr(&root).unwrap();
}

#[test]
fn handles_that_were_never_given() {
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    let mut forged: Vec<Vec<u8>> =
        vec![vec![], vec![0], vec![0; 64], root.data[..root.data.len() - 1].to_vec()];
    for at in [0, 1, 2, 6, root.data.len() - 1] {
        let mut data = root.data.clone();
        data[at] ^= 0x40;
        forged.push(data);
    }
    for data in forged {
        let handle = nfs_fh3 { data };
        assert_eq!(status(client.getattr(&handle)), BADHANDLE, "{handle:?}");
        assert_eq!(status(client.lookup(&handle, b"x")), BADHANDLE);
        assert_eq!(status(client.write(&handle, 0, b"x")), BADHANDLE);
        assert_eq!(status(client.create(&handle, b"x")), BADHANDLE);
        assert_eq!(status(client.rename((&root, b"x"), (&handle, b"y"))), BADHANDLE);
        assert_eq!(status(client.link(&handle, &root, b"y")), BADHANDLE);
        assert_eq!(status(client.readdir(&handle, 0, 1000)), BADHANDLE);
        assert_eq!(status(client.commit(&handle)), BADHANDLE);
    }
}

#[test]
fn handles_of_another_export_are_stale_and_of_another_key_bad() {
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    let path = fixture.dir.path().to_owned();
    let other_export = Fixture::with(
        options(),
        |export| {
            export.id = ID + 1;
            export.vfs = local(&path);
        },
        |vfs| vfs,
    );
    assert_eq!(status(other_export.client().getattr(&root)), STALE);
    let key = super::HandleKey::from_bytes([4; 32]);
    let other_key = Fixture::with(super::Options::new(key), |_| {}, |vfs| vfs);
    assert_eq!(status(other_key.client().getattr(&root)), BADHANDLE);
    client.getattr(&root).unwrap();
}

#[test]
fn names_that_are_none() {
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    let file = client.create(&root, b"f").unwrap();
    let long = [b'a'; 256];
    let longer = [b'a'; 4096];
    let cases: [(&[u8], u32); 6] = [
        (b"", ACCES),
        (b"a/b", ACCES),
        (b"/", ACCES),
        (b"a\0", ACCES),
        (&long, NAMETOOLONG),
        (&longer, NAMETOOLONG),
    ];
    for (name, expected) in cases {
        check_everywhere(&mut client, &root, &file, name, expected);
    }
    for name in [&b"."[..], b".."] {
        assert_eq!(status(client.create(&root, name)), EXIST);
        assert_eq!(status(client.mkdir(&root, name)), EXIST);
        assert_eq!(status(client.symlink(&root, name, b"x")), EXIST);
        assert_eq!(status(client.link(&file, &root, name)), EXIST);
        assert_eq!(status(client.remove(&root, name)), ISDIR);
        assert_eq!(status(client.rename((&root, name), (&root, b"x"))), INVAL);
        assert_eq!(status(client.rename((&root, b"f"), (&root, name))), INVAL);
    }
    assert_eq!(status(client.rmdir(&root, b".")), INVAL);
    assert_eq!(status(client.rmdir(&root, b"..")), EXIST);
    let longest = [b'a'; 255];
    client.create(&root, &longest).unwrap();
    client.lookup(&root, b"f").unwrap();
    assert_eq!(client.list(&root).unwrap().len(), 2);
}

fn check_everywhere(client: &mut Client, root: &Handle, file: &Handle, name: &[u8], expected: u32) {
    let what = String::from_utf8_lossy(&name[..name.len().min(5)]).into_owned();
    assert_eq!(status(client.lookup(root, name)), expected, "lookup {what}");
    assert_eq!(status(client.create(root, name)), expected, "create {what}");
    assert_eq!(status(client.mkdir(root, name)), expected, "mkdir {what}");
    assert_eq!(status(client.symlink(root, name, b"x")), expected, "symlink {what}");
    let pipe = arguments::NodeKind::Special { socket: false, attributes: mode(0o600) };
    assert_eq!(status(client.mknod(root, name, pipe)), expected, "mknod {what}");
    assert_eq!(status(client.remove(root, name)), expected, "remove {what}");
    assert_eq!(status(client.rmdir(root, name)), expected, "rmdir {what}");
    assert_eq!(status(client.rename((root, name), (root, b"x"))), expected, "rename from {what}");
    assert_eq!(status(client.rename((root, b"f"), (root, name))), expected, "rename to {what}");
    assert_eq!(status(client.link(file, root, name)), expected, "link {what}");
}

#[test]
fn a_failure_by_name_still_shows_the_directory() {
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    let args = arguments::DirOp { dir: root, name: Opaque(b"a/b") };
    let answer = client.nfs(Procedure::Remove, &args).unwrap();
    let (_, wcc) = answer.result::<results::Changed>().unwrap().unwrap_err();
    assert!(matches!(wcc.after, nfs3::post_op_attr::attributes(_)));
}

#[test]
fn a_symlink_target_over_the_limit() {
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    assert_eq!(status(client.symlink(&root, b"l", &[b'a'; 4096])), NAMETOOLONG);
    client.symlink(&root, b"l", &[b'a'; 4095]).unwrap();
    match client.symlink(&root, b"m", &[b'a'; 4097]) {
        Err(Error::Rpc(Reply::GarbageArguments)) => {}
        other => panic!("{other:?}"),
    }
}

/// Random bytes in the place of arguments: an answer to each, and a server that goes on.
#[test]
fn noise_is_answered() {
    use rand::{Rng, RngCore, SeedableRng};
    let seed = 20_261_123;
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    struct Noise(Vec<u8>);
    impl ehpc_proto::xdr::Encode for Noise {
        fn encode(&self, out: &mut ehpc_proto::codec::Encoder) {
            out.bytes(&self.0);
        }
    }
    for round in 0..3000 {
        let procedure = Procedure::ALL[random.random_range(0..22)];
        let mut body = Vec::new();
        if random.random_bool(0.7) {
            let mut out = ehpc_proto::codec::Encoder::new();
            ehpc_proto::xdr::encode_opaque(&mut out, &root.data);
            body = out.finish();
        }
        let mut tail = vec![0; random.random_range(0..80)];
        random.fill_bytes(&mut tail);
        // Mostly small numbers: they get further.
        tail.iter_mut().for_each(|byte| {
            if random.random_bool(0.7) {
                *byte = 0
            }
        });
        body.extend(tail);
        let answer = client
            .nfs(procedure, &Noise(body))
            .unwrap_or_else(|error| panic!("seed {seed}, round {round}: {error}"));
        assert!(
            matches!(answer.reply, Reply::Success | Reply::GarbageArguments),
            "seed {seed}, round {round}"
        );
    }
    fixture.client().null().unwrap();
}
