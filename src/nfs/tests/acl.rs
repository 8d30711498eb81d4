//! NFSACL over the wire: what getfacl and setfacl of a client need.

use super::{Fixture, options, status};
use crate::host::Tree;
use crate::host::xattr::{self, POSIX_ACL_ACCESS, POSIX_ACL_DEFAULT};
use ehpc_proto::nfs3::{nfs_fh3, post_op_attr};
use ehpc_proto::nfsacl::{
    self, Getacl, GetaclArgs, GetaclOk, List, ListEntry, Procedure, SecAttr, Setacl, SetaclArgs, mask,
};
use ehpc_proto::posix_acl::{Acl, Entry, NO_ID, Tag};
use ehpc_proto::rpc::Reply;
use ehpc_proto::xdr::Encode;
use ehpc_tools::nfs_client::{Client, Handle, mode};
use std::ffi::CStr;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;

const PERM: u32 = 1;
const ACCES: u32 = 13;
const INVAL: u32 = 22;
const NOSPC: u32 = 28;
const ROFS: u32 = 30;
const STALE: u32 = 70;
const BADHANDLE: u32 = 10_001;
const NOTSUPP: u32 = 10_004;
const LISTS: u32 = mask::ACL | mask::DEFAULT;

fn getacl(client: &mut Client, object: &Handle, mask: u32) -> Result<GetaclOk, u32> {
    let args = GetaclArgs { object: object.clone(), mask };
    let answer = client.call(nfsacl::PROGRAM, 3, Procedure::Getacl as u32, &args).unwrap();
    answer.result::<Getacl>().unwrap().map_err(|(status, _)| status as u32)
}

/// The mode after.
fn setacl(client: &mut Client, object: &Handle, acls: SecAttr) -> Result<u32, u32> {
    let args = SetaclArgs { object: object.clone(), acls };
    let answer = client.call(nfsacl::PROGRAM, 3, Procedure::Setacl as u32, &args).unwrap();
    match answer.result::<Setacl>().unwrap() {
        Ok(after) => Ok(mode_of(&after)),
        Err((status, _)) => Err(status as u32),
    }
}

fn mode_of(attributes: &post_op_attr) -> u32 {
    match attributes {
        post_op_attr::attributes(attributes) => attributes.mode,
        post_op_attr::Void => panic!("no attributes"),
    }
}

fn list(acl: &Acl, default: bool) -> List {
    List::from_posix(Some(acl), (0, 0), default, true).unwrap()
}

fn access_only(acl: &Acl) -> SecAttr {
    SecAttr { mask: mask::ACL, access: list(acl, false), default: List::default() }
}

fn entry(tag: Tag, id: u32, permissions: u8) -> Entry {
    Entry { tag, id, permissions }
}

/// u::rw, u:1001:r, g::-, m::r, o::-
fn extended() -> Acl {
    Acl(vec![
        entry(Tag::UserObj, NO_ID, 6),
        entry(Tag::User, 1001, 4),
        entry(Tag::GroupObj, NO_ID, 0),
        entry(Tag::Mask, NO_ID, 4),
        entry(Tag::Other, NO_ID, 0),
    ])
}

impl Fixture {
    /// What the kernel has.
    fn on_disk(&self, name: &str, which: &CStr) -> Option<Acl> {
        let tree = Tree::open(self.dir.path()).unwrap();
        let root = tree.open_path(tree.root_key()).unwrap();
        let (fd, _) = tree.lookup_open(root.as_fd(), name.as_bytes()).unwrap().unwrap();
        xattr::get(fd.as_fd(), which).unwrap().map(|value| Acl::decode(&value).unwrap())
    }
}

#[test]
fn without_an_acl_the_mode_is_told_as_one() {
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    let file = client.create(&root, b"f").unwrap();
    client.setattr(&file, mode(0o640)).unwrap();
    let got = getacl(&mut client, &file, mask::ALL).unwrap();
    assert_eq!(mode_of(&got.attributes), 0o640);
    let wire = |tag, permissions| ListEntry { tag, id: 0, permissions };
    assert_eq!(got.acls.mask, mask::ALL);
    assert_eq!(got.acls.access.count, 4);
    assert_eq!(got.acls.access.entries, [wire(1, 6), wire(4, 4), wire(0x10, 4), wire(0x20, 0)]);
    assert_eq!(got.acls.default, List::default());
    let counts = getacl(&mut client, &file, mask::ACL_COUNT | mask::DEFAULT_COUNT).unwrap().acls;
    assert_eq!((counts.access.count, counts.access.entries.len(), counts.default.count), (4, 0, 0));
    let nothing = getacl(&mut client, &file, 0).unwrap().acls;
    assert_eq!((nothing.access, nothing.default), (List::default(), List::default()));
    let link = client.symlink(&root, b"l", b"f").unwrap();
    assert_eq!(getacl(&mut client, &link, LISTS).unwrap().acls.access.count, 4);
}

#[test]
fn an_acl_is_set_read_enforced_and_removed() {
    let fixture = Fixture::start();
    fs::set_permissions(fixture.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (mut client, root) = fixture.mounted();
    let file = client.create(&root, b"f").unwrap();
    client.write(&file, 0, b"text").unwrap();
    client.setattr(&file, mode(0o600)).unwrap();
    let mut other = fixture.client();
    other.act_as(1001, 1001, &[]);
    assert_eq!(status(other.read(&file, 0, 10)), ACCES);
    let after = setacl(&mut client, &file, access_only(&extended())).unwrap();
    assert_eq!(after, 0o640, "the group's bits show the mask");
    assert_eq!(fixture.on_disk("f", POSIX_ACL_ACCESS), Some(extended()));
    assert_eq!(getacl(&mut client, &file, LISTS).unwrap().acls.access, list(&extended(), false));
    assert_eq!(other.read(&file, 0, 10).unwrap().data, b"text");
    assert_eq!(status(other.write(&file, 0, b"x")), ACCES);
    other.act_as(1002, 1001, &[]);
    assert_eq!(status(other.read(&file, 0, 10)), ACCES);
    // What a mode can say needs no list.
    let after = setacl(&mut client, &file, access_only(&Acl::from_mode(0o664))).unwrap();
    assert_eq!((after, fixture.on_disk("f", POSIX_ACL_ACCESS)), (0o664, None));
    setacl(&mut client, &file, access_only(&extended())).unwrap();
    // No entries at all: the list goes, the mode stays.
    let after = setacl(&mut client, &file, access_only(&Acl::default())).unwrap();
    assert_eq!((after, fixture.on_disk("f", POSIX_ACL_ACCESS)), (0o640, None));
}

#[test]
fn new_objects_inherit_the_default_acl() {
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    let dir = client.mkdir(&root, b"d").unwrap();
    let mut default = extended();
    default.0.iter_mut().for_each(|entry| entry.permissions |= 4);
    let both =
        SecAttr { mask: LISTS, access: list(&Acl::from_mode(0o750), false), default: list(&default, true) };
    assert_eq!(setacl(&mut client, &dir, both).unwrap(), 0o750);
    let got = getacl(&mut client, &dir, LISTS).unwrap().acls;
    assert_eq!(got.default, list(&default, true));
    assert!(got.default.entries.iter().all(|entry| entry.tag & nfsacl::DEFAULT_ENTRY != 0));
    client.create(&dir, b"f").unwrap();
    assert_eq!(fixture.on_disk("d", POSIX_ACL_DEFAULT), Some(default.clone()));
    let (file, _) = client.lookup(&dir, b"f").unwrap();
    let of_file = getacl(&mut client, &file, LISTS).unwrap().acls;
    assert!(of_file.access.entries.iter().any(|entry| (entry.tag, entry.id) == (2, 1001)), "{of_file:?}");
    // The mask names one list: the other is left alone.
    let only_access = access_only(&extended());
    setacl(&mut client, &dir, only_access).unwrap();
    assert_eq!(fixture.on_disk("d", POSIX_ACL_DEFAULT), Some(default));
    let no_default = SecAttr { mask: mask::DEFAULT, access: List::default(), default: List::default() };
    setacl(&mut client, &dir, no_default).unwrap();
    assert_eq!(fixture.on_disk("d", POSIX_ACL_DEFAULT), None);
    assert_eq!(fixture.on_disk("d", POSIX_ACL_ACCESS), Some(extended()));
}

#[test]
fn who_may_not_and_what_cannot_be() {
    let fixture = Fixture::start();
    fs::set_permissions(fixture.dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let (mut client, root) = fixture.mounted();
    let file = client.create(&root, b"f").unwrap();
    let link = client.symlink(&root, b"l", b"f").unwrap();
    let mut other = fixture.client();
    other.act_as(1001, 1001, &[]);
    assert_eq!(setacl(&mut other, &file, access_only(&extended())), Err(PERM));
    let own = other.create(&root, b"own").unwrap();
    assert!(setacl(&mut other, &own, access_only(&extended())).is_ok());
    assert_eq!(setacl(&mut client, &link, access_only(&extended())), Err(NOTSUPP));
    let default = SecAttr { mask: LISTS, access: list(&extended(), false), default: list(&extended(), true) };
    assert_eq!(setacl(&mut client, &file, default), Err(ACCES));
    assert_eq!(fixture.on_disk("f", POSIX_ACL_ACCESS), None, "nothing is done by halves");
    let mut no_mask = extended();
    no_mask.0.remove(3);
    assert_eq!(setacl(&mut client, &file, access_only(&no_mask)), Err(INVAL));
    let mut bad_tag = access_only(&extended());
    bad_tag.access.entries[0].tag = 64;
    assert_eq!(setacl(&mut client, &file, bad_tag), Err(INVAL));
    let unknown = SecAttr { mask: 0x10, ..access_only(&extended()) };
    assert_eq!(setacl(&mut client, &file, unknown), Err(INVAL));
    assert_eq!(getacl(&mut client, &file, 0x10).unwrap_err(), INVAL);
    let mut long = access_only(&extended());
    long.access.count = 1025;
    let args = SetaclArgs { object: file.clone(), acls: long };
    let answer = client.call(nfsacl::PROGRAM, 3, Procedure::Setacl as u32, &args).unwrap();
    assert_eq!(answer.reply, Reply::GarbageArguments);
    client.remove(&root, b"f").unwrap();
    assert_eq!(getacl(&mut client, &file, LISTS).unwrap_err(), STALE);
    assert_eq!(setacl(&mut client, &file, access_only(&extended())), Err(STALE));
    let nonsense = nfs_fh3 { data: vec![1, 2, 3] };
    assert_eq!(getacl(&mut client, &nonsense, LISTS).unwrap_err(), BADHANDLE);
}

#[test]
fn a_read_only_export_tells_acls_and_keeps_them() {
    let fixture = Fixture::with(options(), |export| export.rules[0].options.read_only = true, |vfs| vfs);
    let (mut client, root) = fixture.mounted();
    assert_eq!(getacl(&mut client, &root, LISTS).unwrap().acls.access.count, 4);
    assert_eq!(setacl(&mut client, &root, access_only(&extended())), Err(ROFS));
}

#[test]
fn a_setacl_that_is_sent_again_is_not_done_again() {
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    let file = client.create(&root, b"f").unwrap();
    let first = access_only(&extended());
    client.set_next_xid(500);
    setacl(&mut client, &file, first.clone()).unwrap();
    setacl(&mut client, &file, access_only(&Acl::from_mode(0o600))).unwrap();
    client.set_next_xid(500);
    setacl(&mut client, &file, first).unwrap();
    assert_eq!(fixture.on_disk("f", POSIX_ACL_ACCESS), None, "the later call counts");
    assert_eq!(fixture.server.stats().replayed, 1);
    assert_eq!(fixture.server.stats().operations().get("acl_setacl"), Some(&2));
}

#[test]
fn the_largest_acl_travels() {
    let fixture = Fixture::start();
    let (mut client, root) = fixture.mounted();
    let dir = client.mkdir(&root, b"d").unwrap();
    // ext4 keeps what fits into one block: about 500 entries; the wire takes 1,024.
    let users = |count: u32| {
        let mut acl = extended();
        acl.0.splice(1..2, (0..count).map(|n| entry(Tag::User, 2000 + n, 4)));
        acl
    };
    let stored = users(400);
    let both = SecAttr { mask: LISTS, access: list(&stored, false), default: List::default() };
    setacl(&mut client, &dir, both).unwrap();
    assert_eq!(getacl(&mut client, &dir, LISTS).unwrap().acls.access, list(&stored, false));
    let most = users(1020);
    let both = SecAttr { mask: LISTS, access: list(&most, false), default: list(&most, true) };
    let mut bytes = ehpc_proto::codec::Encoder::new();
    both.encode(&mut bytes);
    assert_eq!(bytes.len(), 4 + nfsacl::MAX_LISTS);
    // Stored or refused for want of room, as the file system can: never garbage.
    let answer = setacl(&mut client, &dir, both);
    assert!(matches!(answer, Ok(_) | Err(NOSPC)), "{answer:?}");
}
