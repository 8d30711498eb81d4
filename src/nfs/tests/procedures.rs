//! Every procedure, with success and its main errors, as the RFC has them.

use super::{Fixture, status};
use ehpc_proto::nfs3::arguments::{self, CreateHow, NodeKind};
use ehpc_proto::nfs3::{
    self, MAX_IO, Procedure, StableHow, access, ftype3, nfs_fh3, nfstime3, post_op_attr, pre_op_attr,
    results, sattr3, set_mtime, set_size3, specdata3, wcc_data,
};
use ehpc_proto::xdr::Opaque;
use ehpc_tools::nfs_client::{Client, Handle, mode, place};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

const NOENT: u32 = 2;
const ACCES: u32 = 13;
const EXIST: u32 = 17;
const NOTDIR: u32 = 20;
const ISDIR: u32 = 21;
const INVAL: u32 = 22;
const FBIG: u32 = 27;
const ROFS: u32 = 30;
const NOTEMPTY: u32 = 66;
const STALE: u32 = 70;
const NOT_SYNC: u32 = 10_002;
const BADTYPE: u32 = 10_007;

fn attributes(of: post_op_attr) -> nfs3::fattr3 {
    match of {
        post_op_attr::attributes(attributes) => attributes,
        post_op_attr::Void => panic!("no attributes"),
    }
}

/// Attributes after; and before them, where given, something older or equal.
fn check_wcc(wcc: &wcc_data) -> nfs3::fattr3 {
    let after = attributes(wcc.after);
    if let pre_op_attr::attributes(before) = wcc.before {
        assert!((before.ctime.seconds, before.ctime.nseconds) <= (after.ctime.seconds, after.ctime.nseconds));
    }
    after
}

#[test]
fn null_answers_everybody() {
    let fixture = Fixture::start();
    let mut client = fixture.client();
    client.null().unwrap();
    client.act_as_nobody();
    client.null().unwrap();
}

#[test]
fn attributes_are_those_of_the_file() {
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    fs::write(fixture.path("f"), b"hello").unwrap();
    let (file, found) = client.lookup(&root, b"f").unwrap();
    let got = client.getattr(&file).unwrap();
    let real = fs::metadata(fixture.path("f")).unwrap();
    assert_eq!(got.size, 5);
    assert_eq!((got.fileid, got.uid, got.gid), (real.ino(), real.uid(), real.gid()));
    assert_eq!(u64::from(got.mtime.seconds), real.mtime() as u64);
    assert_eq!(i64::from(got.mtime.nseconds), real.mtime_nsec());
    assert_eq!(attributes(found).fileid, got.fileid);
    assert!(matches!(client.getattr(&root).unwrap().ftype, ftype3::NF3DIR));
}

#[test]
fn setattr_and_its_guard() {
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    let file = client.create(&root, b"f").unwrap();
    client.write(&file, 0, b"0123456789").unwrap();
    let before = client.getattr(&file).unwrap();
    let set = |guard| arguments::Setattr {
        object: file.clone(),
        attributes: sattr3 {
            size: set_size3::size(4),
            mtime: set_mtime::SET_TO_CLIENT_TIME(nfstime3 { seconds: 1_000_000, nseconds: 5 }),
            ..mode(0o600)
        },
        guard,
    };
    let wrong = Some(nfstime3 { seconds: before.ctime.seconds.wrapping_sub(1), nseconds: 0 });
    let answer = client.nfs(Procedure::Setattr, &set(wrong)).unwrap();
    let (refused, wcc) = answer.result::<results::Changed>().unwrap().unwrap_err();
    assert_eq!(refused as u32, NOT_SYNC);
    assert_eq!(check_wcc(&wcc).size, 10);
    let answer = client.nfs(Procedure::Setattr, &set(Some(before.ctime))).unwrap();
    let after = check_wcc(&answer.result::<results::Changed>().unwrap().unwrap());
    assert_eq!((after.size, after.mode, after.mtime.seconds, after.mtime.nseconds), (4, 0o600, 1_000_000, 5));
    assert_eq!(fs::read(fixture.path("f")).unwrap(), b"0123");
    let bad_time = sattr3 {
        mtime: set_mtime::SET_TO_CLIENT_TIME(nfstime3 { seconds: 1, nseconds: 1_000_000_000 }),
        ..sattr3::default()
    };
    assert_eq!(status(client.setattr(&file, bad_time)), INVAL);
}

#[test]
fn lookup_of_dot_dot_never_leaves_the_export() {
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    let dir = client.mkdir(&root, b"d").unwrap();
    assert_eq!(client.lookup(&root, b"..").unwrap().0.data, root.data);
    assert_eq!(client.lookup(&root, b".").unwrap().0.data, root.data);
    assert_eq!(client.lookup(&dir, b"..").unwrap().0.data, root.data);
    assert_eq!(client.lookup(&dir, b".").unwrap().0.data, dir.data);
    let file = client.create(&root, b"f").unwrap();
    for name in [&b"x"[..], b".", b".."] {
        assert_eq!(status(client.lookup(&file, name)), NOTDIR, "{name:?}");
    }
    let answer = client.nfs(Procedure::Lookup, &place(&root, b"none")).unwrap();
    let (missing, dir_attributes) = answer.result::<results::Lookup>().unwrap().unwrap_err();
    assert_eq!(missing as u32, NOENT);
    assert!(matches!(attributes(dir_attributes).ftype, ftype3::NF3DIR));
}

#[test]
fn access_tells_what_the_kernel_allows() {
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    fs::set_permissions(fixture.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let all = access::READ | access::LOOKUP | access::MODIFY | access::EXTEND;
    assert_eq!(client.access(&root, all).unwrap(), all);
    assert_eq!(client.access(&root, access::READ).unwrap(), access::READ);
    let file = client.create(&root, b"f").unwrap();
    assert_eq!(client.access(&file, access::EXECUTE).unwrap(), 0);
    assert_eq!(client.access(&file, access::READ | 0x8000_0000).unwrap(), access::READ);
}

#[test]
fn symlinks_are_read_and_never_followed() {
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    let link = client.symlink(&root, b"l", b"/etc/passwd").unwrap();
    assert_eq!(client.readlink(&link).unwrap(), b"/etc/passwd");
    assert!(matches!(client.getattr(&link).unwrap().ftype, ftype3::NF3LNK));
    assert!(client.read(&link, 0, 10).is_err());
    let file = client.create(&root, b"f").unwrap();
    assert_eq!(status(client.readlink(&file)), INVAL);
    assert_eq!(status(client.readlink(&root)), INVAL);
    assert_eq!(status(client.symlink(&root, b"l", b"x")), EXIST);
    assert_eq!(status(client.symlink(&root, b"m", b"")), INVAL);
    assert_eq!(status(client.symlink(&root, b"m", b"a\0b")), INVAL);
}

#[test]
fn read_and_write() {
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    let file = client.create(&root, b"f").unwrap();
    let data: Vec<u8> = (0..MAX_IO + 1001).map(|i| (i % 251) as u8).collect();
    client.write(&file, 0, &data).unwrap();
    assert_eq!(fs::read(fixture.path("f")).unwrap(), data);
    assert_eq!(client.read_all(&file).unwrap(), data);
    let part = client.read(&file, 1, 3).unwrap();
    assert_eq!((&part.data[..], part.eof), (&data[1..4], false));
    assert_eq!(attributes(part.attributes).size, data.len() as u64);
    let end = client.read(&file, data.len() as u64 - 2, 10).unwrap();
    assert_eq!((end.data.len(), end.eof), (2, true));
    for offset in [data.len() as u64, 1 << 40, i64::MAX as u64, u64::MAX] {
        let past = client.read(&file, offset, 10).unwrap();
        assert_eq!((past.data.len(), past.eof), (0, true), "offset {offset}");
    }
    let more_than_allowed = client.read(&file, 0, u32::MAX).unwrap();
    assert_eq!(more_than_allowed.data.len(), MAX_IO);
    assert_eq!(status(client.read(&root, 0, 10)), INVAL);
}

#[test]
fn write_says_what_is_on_disk() {
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    let file = client.create(&root, b"f").unwrap();
    let unstable = client.write_stable(&file, 0, b"abc", StableHow::Unstable).unwrap();
    let stable = client.write_stable(&file, 3, b"def", StableHow::FileSync).unwrap();
    let data = client.write_stable(&file, 6, b"ghi", StableHow::DataSync).unwrap();
    assert_eq!(stable.committed, StableHow::FileSync);
    assert!(data.committed >= StableHow::DataSync);
    assert_eq!((unstable.count, stable.count), (3, 3));
    assert_eq!(check_wcc(&stable.wcc).size, 6);
    let committed = client.commit(&file).unwrap();
    assert_eq!([unstable.verifier, stable.verifier], [committed, committed]);
    assert_eq!(client.write_stable(&file, 0, b"", StableHow::Unstable).unwrap().count, 0);
}

#[test]
fn write_refuses_what_cannot_be() {
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    let file = client.create(&root, b"f").unwrap();
    for offset in [u64::MAX, i64::MAX as u64, i64::MAX as u64 - 1] {
        assert_eq!(status(client.write(&file, offset, b"abc")), FBIG, "offset {offset}");
    }
    let lying = arguments::Write {
        file: file.clone(),
        offset: 0,
        count: 4,
        stable: StableHow::Unstable,
        data: Opaque(b"abc"),
    };
    let answer = client.nfs(Procedure::Write, &lying).unwrap();
    let (refused, wcc) = answer.result::<results::Write>().unwrap().unwrap_err();
    assert_eq!(refused as u32, INVAL);
    assert_eq!(check_wcc(&wcc).size, 0);
    assert!(client.write(&root, 0, b"abc").is_err());
}

#[test]
fn the_three_ways_to_create() {
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    let file = client.create(&root, b"f").unwrap();
    client.write(&file, 0, b"abc").unwrap();
    assert_eq!(fs::metadata(fixture.path("f")).unwrap().permissions().mode() & 0o7777, 0o644);
    let again = client.create_as(&root, b"f", CreateHow::Unchecked(sattr3::default())).unwrap();
    assert_eq!((again.data == file.data, client.getattr(&file).unwrap().size), (true, 3));
    let truncate = sattr3 { size: set_size3::size(0), ..sattr3::default() };
    client.create_as(&root, b"f", CreateHow::Unchecked(truncate)).unwrap();
    assert_eq!(client.getattr(&file).unwrap().size, 0);
    assert_eq!(status(client.create_as(&root, b"f", CreateHow::Guarded(mode(0o600)))), EXIST);
    client.create_as(&root, b"g", CreateHow::Guarded(mode(0o640))).unwrap();
    let exclusive = CreateHow::Exclusive([1, 2, 3, 4, 5, 6, 7, 8]);
    let made = client.create_as(&root, b"e", exclusive).unwrap();
    assert_eq!(client.create_as(&root, b"e", exclusive).unwrap().data, made.data, "sent again");
    assert_eq!(status(client.create_as(&root, b"e", CreateHow::Exclusive([9; 8]))), EXIST);
    assert_eq!(status(client.create_as(&file, b"x", CreateHow::Guarded(mode(0o600)))), NOTDIR);
    client.mkdir(&root, b"d").unwrap();
    assert_eq!(status(client.create(&root, b"d")), EXIST);
}

#[test]
fn a_new_object_comes_with_its_attributes_and_the_directorys() {
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    let args = arguments::Mkdir { place: place(&root, b"d"), attributes: mode(0o711) };
    let answer = client.nfs(Procedure::Mkdir, &args).unwrap();
    let ok = answer.result::<results::Created>().unwrap().unwrap();
    assert_eq!(attributes(ok.attributes).mode, 0o711);
    assert!(matches!(check_wcc(&ok.dir_wcc).ftype, ftype3::NF3DIR));
    let answer = client.nfs(Procedure::Mkdir, &args).unwrap();
    let (refused, wcc) = answer.result::<results::Created>().unwrap().unwrap_err();
    assert_eq!(refused as u32, EXIST);
    check_wcc(&wcc);
}

#[test]
fn special_files() {
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    let special = |socket| NodeKind::Special { socket, attributes: mode(0o600) };
    client.mknod(&root, b"pipe", special(false)).unwrap();
    assert!(fs::symlink_metadata(fixture.path("pipe")).unwrap().file_type().is_fifo());
    client.mknod(&root, b"socket", special(true)).unwrap();
    assert!(fs::symlink_metadata(fixture.path("socket")).unwrap().file_type().is_socket());
    assert_eq!(status(client.mknod(&root, b"pipe", special(false))), EXIST);
    assert_eq!(status(client.mknod(&root, b"x", NodeKind::Other(ftype3::NF3REG))), BADTYPE);
    // Without root a device is refused, with it made as asked.
    let device = specdata3 { specdata1: 1, specdata2: 3 };
    match client.mknod(&root, b"null", NodeKind::Device { block: false, attributes: mode(0o600), device }) {
        Ok(_) => {
            let made = fs::symlink_metadata(fixture.path("null")).unwrap();
            assert!(made.file_type().is_char_device());
            assert_eq!(made.rdev(), 0x0103);
        }
        Err(error) => assert_eq!(error.status(), Some(1), "{error}"),
    }
}

#[test]
fn remove_and_rmdir() {
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    client.create(&root, b"f").unwrap();
    let dir = client.mkdir(&root, b"d").unwrap();
    client.create(&dir, b"g").unwrap();
    assert_eq!(status(client.rmdir(&root, b"f")), NOTDIR);
    assert_eq!(status(client.rmdir(&root, b"d")), NOTEMPTY);
    assert_eq!(status(client.remove(&root, b"d")), ISDIR);
    assert_eq!(status(client.remove(&root, b"none")), NOENT);
    assert_eq!(status(client.rmdir(&root, b"none")), NOENT);
    client.remove(&root, b"f").unwrap();
    client.remove(&dir, b"g").unwrap();
    let answer = client.nfs(Procedure::Rmdir, &place(&root, b"d")).unwrap();
    check_wcc(&answer.result::<results::Changed>().unwrap().unwrap());
    assert_eq!(fs::read_dir(fixture.dir.path()).unwrap().count(), 0);
}

#[test]
fn handles_survive_rename_and_die_with_the_object() {
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    let dir = client.mkdir(&root, b"d").unwrap();
    let file = client.create(&root, b"f").unwrap();
    client.rename((&root, b"f"), (&dir, b"g")).unwrap();
    client.rename((&root, b"d"), (&root, b"e")).unwrap();
    client.write(&file, 0, b"abc").unwrap();
    assert_eq!(fs::read(fixture.path("e/g")).unwrap(), b"abc");
    client.remove(&dir, b"g").unwrap();
    assert_eq!(status(client.getattr(&file)), STALE);
    assert_eq!(status(client.read(&file, 0, 1)), STALE);
    assert_eq!(status(client.write(&file, 0, b"x")), STALE);
    client.rmdir(&root, b"e").unwrap();
    assert_eq!(status(client.getattr(&dir)), STALE);
    assert_eq!(status(client.create(&dir, b"x")), STALE);
    assert_eq!(status(client.readdir(&dir, 0, 1000)), STALE);
}

#[test]
fn rename_errors_show_both_directories() {
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    let dir = client.mkdir(&root, b"d").unwrap();
    client.create(&root, b"f").unwrap();
    client.create(&dir, b"g").unwrap();
    let mut rename = |from: (&Handle, &[u8]), to: (&Handle, &[u8])| {
        let args = arguments::Rename { from: place(from.0, from.1), to: place(to.0, to.1) };
        let answer = client.nfs(Procedure::Rename, &args).unwrap();
        let (refused, wcc) = answer.result::<results::Rename>().unwrap().unwrap_err();
        check_wcc(&wcc.from);
        check_wcc(&wcc.to);
        refused as u32
    };
    assert_eq!(rename((&root, b"none"), (&dir, b"x")), NOENT);
    assert_eq!(rename((&root, b"d"), (&dir, b"x")), INVAL, "into itself");
    assert!([ISDIR, EXIST].contains(&rename((&root, b"f"), (&root, b"d"))));
    assert_eq!(rename((&root, b"."), (&dir, b"x")), INVAL);
    assert_eq!(rename((&root, b"f"), (&dir, b"a/b")), ACCES);
}

#[test]
fn hard_links() {
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    let file = client.create(&root, b"f").unwrap();
    let args = arguments::Link { file: file.clone(), place: place(&root, b"g") };
    let answer = client.nfs(Procedure::Link, &args).unwrap();
    let ok = answer.result::<results::Link>().unwrap().unwrap();
    assert_eq!(attributes(ok.attributes).nlink, 2);
    check_wcc(&ok.dir_wcc);
    assert_eq!(client.lookup(&root, b"g").unwrap().0.data, file.data);
    assert_eq!(status(client.link(&file, &root, b"g")), EXIST);
    assert_eq!(status(client.link(&file, &file, b"h")), NOTDIR);
    assert!(client.link(&root, &root, b"h").is_err(), "a directory has one name");
    client.remove(&root, b"f").unwrap();
    assert_eq!(client.getattr(&file).unwrap().nlink, 1);
}

#[test]
fn the_file_system_as_a_whole() {
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    let stat = client.fsstat(&root).unwrap();
    assert!(stat.total_bytes > 0 && stat.available_bytes <= stat.total_bytes);
    let info = client.fsinfo(&root).unwrap();
    assert_eq!((info.rtmax, info.wtmax), (1 << 20, 1 << 20));
    assert_eq!(info.properties, 0x1b);
    assert!(info.maxfilesize > 1 << 40);
    let conf = client.pathconf(&root).unwrap();
    assert_eq!(conf.name_max, 255);
    assert!(conf.no_trunc && conf.case_preserving && !conf.case_insensitive && conf.chown_restricted);
    let stale = nfs_fh3 { data: vec![1; 20] };
    assert_eq!(status(client.fsstat(&stale)), 10_001);
    assert_eq!(status(client.fsinfo(&stale)), 10_001);
    assert_eq!(status(client.pathconf(&stale)), 10_001);
}

#[test]
fn a_read_only_export_changes_nothing() {
    let fixture =
        Fixture::with(super::options(), |export| export.rules[0].options.read_only = true, |vfs| vfs);
    fs::write(fixture.path("f"), b"abc").unwrap();
    let (mut client, root) = fixture.mounted();
    let (file, _) = client.lookup(&root, b"f").unwrap();
    assert_eq!(client.read_all(&file).unwrap(), b"abc");
    let attempts: [fn(&mut Client, &Handle, &Handle) -> u32; 9] = [
        |client, root, _| status(client.create(root, b"x")),
        |client, root, _| status(client.mkdir(root, b"x")),
        |client, root, _| status(client.symlink(root, b"x", b"y")),
        |client, root, _| status(client.remove(root, b"f")),
        |client, root, _| status(client.rmdir(root, b"f")),
        |client, root, _| status(client.rename((root, b"f"), (root, b"g"))),
        |client, root, file| status(client.link(file, root, b"g")),
        |client, _, file| status(client.write(file, 0, b"x")),
        |client, _, file| status(client.setattr(file, mode(0o777))),
    ];
    for (number, attempt) in attempts.into_iter().enumerate() {
        assert_eq!(attempt(&mut client, &root, &file), ROFS, "attempt {number}");
    }
    let changing = access::MODIFY | access::EXTEND | access::DELETE;
    assert_eq!(client.access(&root, access::READ | changing).unwrap(), access::READ);
    assert_eq!(fs::read(fixture.path("f")).unwrap(), b"abc");
}
