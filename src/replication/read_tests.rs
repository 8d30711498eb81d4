//! Tests of `read`.

use super::*;
use crate::change::dirty::{Change, DirtySet};
use crate::change::recording::{Durability, Recording};
use crate::host::KeyKind;
use crate::vfs::{Caller, LocalOptions, LocalVfs, SetAcls, Vfs};
use ehpc_proto::posix_acl::{Acl, Entry, NO_ID, Tag};
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Does something to the file while it is read.
struct Meddling<'a> {
    file: &'a File,
    times: u32,
    pages: HashMap<Hash, Vec<u8>>,
    chunks: u32,
}

impl ContentSink for Meddling<'_> {
    fn chunk(&mut self, _: Hash, _: Bytes, _: bool) -> Result<(), SinkError> {
        self.chunks += 1;
        if self.times > 0 {
            self.times -= 1;
            let len = self.file.metadata().unwrap().len();
            self.file.write_all_at(b"more", len).unwrap();
        }
        Ok(())
    }
    fn page(&mut self, hash: Hash, bytes: Vec<u8>) -> Result<(), SinkError> {
        self.pages.insert(hash, bytes);
        Ok(())
    }
    fn fetch(&mut self, hash: &Hash) -> Result<Vec<u8>, BoxError> {
        self.pages.get(hash).cloned().ok_or_else(|| "no such page".into())
    }
    fn progress(&mut self, _: u64) -> Result<(), SinkError> {
        Ok(())
    }
}

struct Bench {
    _dir: tempfile::TempDir,
    tree: Tree,
    file: File,
    key: ObjectKey,
}

impl Bench {
    fn new(content: &[u8]) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), content).unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        let file = File::options().read(true).write(true).open(dir.path().join("f")).unwrap();
        let key = tree.key_of(file.as_fd()).unwrap();
        Bench { _dir: dir, tree, file, key }
    }

    fn read(&self, old: Option<&Row>, touch: &Touch, meddle: u32) -> (Reading, u32) {
        let mut sink = Meddling { file: &self.file, times: meddle, pages: HashMap::new(), chunks: 0 };
        let path = self.tree.open_path(&self.key).unwrap();
        let subject = Subject { fd: path.as_fd(), id: ObjectId(9), key: &self.key, old, touch, seen: None };
        let reading = ObjectReader::default().read(&self.tree, &subject, &mut sink).unwrap();
        (reading, sink.chunks)
    }

    fn row(&self, reading: &Reading) -> Row {
        Row::of_state(&reading.state, self.key.clone(), reading.ctime, reading.racy)
    }
}

#[test]
fn a_file_that_moves_once_is_read_again() {
    let bench = Bench::new(b"content");
    let (reading, _) = bench.read(None, &Touch::CONTENT, 1);
    assert_eq!((reading.state.size, reading.state.fuzzy), (11, false));
    let expected = Manifest::Inline(vec![ehpc_proto::replication::Extent::Data {
        hash: Hash::of(b"contentmore"),
        len: 11,
    }]);
    assert_eq!(reading.state.content, expected);
}

#[test]
fn a_file_that_never_holds_still_is_shipped_fuzzy_with_content_that_fits_its_size() {
    let bench = Bench::new(b"content");
    let (reading, _) = bench.read(None, &Touch::CONTENT, u32::MAX);
    assert!(reading.state.fuzzy && reading.racy);
    let Manifest::Inline(extents) = &reading.state.content else { panic!("a short file") };
    assert_eq!(extents.iter().map(|extent| extent.len()).sum::<u64>(), reading.state.size);
    // Once it holds still, it is as it is.
    let old = bench.row(&reading);
    let (reading, _) = bench.read(Some(&old), &Touch::CONTENT, 0);
    assert!(!reading.state.fuzzy);
    assert_eq!(reading.state.size, bench.file.metadata().unwrap().len());
}

#[test]
fn content_is_read_only_when_the_touch_or_the_times_say_so() {
    let bench = Bench::new(&[7; 100_000]);
    let (first, chunks) = bench.read(None, &Touch::ATTRIBUTES, 0);
    assert!(chunks > 0 && first.read_bytes == 100_000, "what is unknown is read");
    let old = bench.row(&first);
    let (same, chunks) = bench.read(Some(&old), &Touch::ATTRIBUTES, 0);
    assert_eq!((same.read_bytes, chunks), (0, 0));
    assert!(old.equals_state(&same.state));
    let (again, chunks) = bench.read(Some(&old), &Touch::SETTLED_CONTENT, 0);
    assert_eq!((again.read_bytes, chunks), (100_000, 0), "read, and found to be known");
    let unread = Row { ctime: Row::UNREAD, ..old.clone() };
    assert_eq!(
        bench.read(Some(&unread), &Touch::ATTRIBUTES, 0).0.read_bytes,
        100_000,
        "never compared with a disk"
    );
    // A change that no one noted, but that the times show.
    bench.file.write_all_at(b"x", 50_000).unwrap();
    bench.file.set_len(99_000).unwrap();
    let (changed, _) = bench.read(Some(&old), &Touch::ATTRIBUTES, 0);
    assert_eq!(changed.read_bytes, 99_000);
    assert!(!old.equals_state(&changed.state));
}

#[test]
fn racy_is_what_was_written_a_moment_ago_and_stays_until_content_is_read() {
    let bench = Bench::new(b"content");
    let (reading, _) = bench.read(None, &Touch::CONTENT, 0);
    assert!(reading.racy, "written in the same tick");
    let racy = bench.row(&reading);
    let deadline = Instant::now() + Duration::from_secs(5);
    let (_keep, never) = crossbeam_channel::bounded::<()>(0);
    while is_racy(reading.ctime, coarse_now()) {
        assert!(Instant::now() < deadline);
        let _ = never.recv_timeout(Duration::from_millis(2));
    }
    assert!(bench.read(Some(&racy), &Touch::ATTRIBUTES, 0).0.racy, "its content was not looked at");
    assert!(!bench.read(Some(&racy), &Touch::CONTENT, 0).0.racy);
}

#[test]
fn ranges_are_clipped_merged_and_completed() {
    assert_eq!(merge_ranges(&[10..20, 15..30, 40..u64::MAX], 100, 100), [10..30, 40..100]);
    let merged = |range: Range<u64>, old, new| merge_ranges(&Vec::from_iter([range]), old, new);
    assert_eq!(merged(5..6, 100, 150), [5..6, 100..150]);
    assert_eq!(merged(5..6, 150, 100), [5..6, 100..150]);
    assert_eq!(merged(200..300, 100, 100), []);
    assert!(is_racy(Timestamp { seconds: 4, nanos: 995_000_000 }, Timestamp { seconds: 5, nanos: 1 }));
    assert!(!is_racy(Timestamp { seconds: 4, nanos: 980_000_000 }, Timestamp { seconds: 5, nanos: 1 }));
}

#[test]
fn symlinks_attributes_and_gone_objects() {
    let bench = Bench::new(b"x");
    let root = bench.tree.root_path().clone();
    std::os::unix::fs::symlink("to/where", root.join("l")).unwrap();
    rustix::fs::setxattr(root.join("f"), "user.colour", b"red", rustix::fs::XattrFlags::empty()).unwrap();
    let dir = bench.tree.open_path(bench.tree.root_key()).unwrap();
    let (fd, found) = bench.tree.lookup_open(dir.as_fd(), b"l").unwrap().unwrap();
    let mut sink = Meddling { file: &bench.file, times: 0, pages: HashMap::new(), chunks: 0 };
    let touch = Touch::ATTRIBUTES;
    let subject =
        Subject { fd: fd.as_fd(), id: ObjectId(3), key: &found.key, old: None, touch: &touch, seen: None };
    let link = ObjectReader::default().read(&bench.tree, &subject, &mut sink).unwrap().state;
    assert_eq!((link.kind, link.target.as_slice(), link.size), (Kind::Symlink, b"to/where".as_slice(), 0));
    let (file, _) = bench.read(None, &touch, 0);
    assert_eq!(file.state.xattrs, [Xattr { name: b"user.colour".to_vec(), value: b"red".to_vec() }]);
    assert_eq!(bench.key.kind, KeyKind::Handle);
    assert!(matches!(
        io::<()>("x", Err(std::io::Error::from_raw_os_error(libc::ESTALE))),
        Err(ReadError::Gone)
    ));
}

#[test]
fn an_acl_set_over_nfs_is_noted_and_shipped() {
    let bench = Bench::new(b"content");
    let old = bench.row(&bench.read(None, &Touch::CONTENT, 0).0);
    let dirty = DirtySet::new();
    let tree = Arc::new(Tree::open(bench._dir.path()).unwrap());
    let local = LocalVfs::new(tree, LocalOptions::default());
    let vfs = Recording::new(local, Arc::clone(&dirty), Durability::Local);
    let mut acl = Acl::from_mode(0o640);
    acl.0.insert(1, Entry { tag: Tag::User, id: 1001, permissions: 4 });
    acl.0.insert(3, Entry { tag: Tag::Mask, id: NO_ID, permissions: 4 });
    let root = Caller { uid: 0, gid: 0, groups: smallvec::SmallVec::new() };
    let set = SetAcls { access: Some(acl.clone()), default: None };
    vfs.set_acls(&root, &bench.key, &set).result.unwrap();
    let noted = dirty.take(usize::MAX).changes;
    let [Change::Object(key, touch)] = &noted[..] else { panic!("{noted:?}") };
    assert_eq!((key, touch), (&bench.key, &Touch::attributes_only()));
    let (reading, _) = bench.read(Some(&old), touch, 0);
    assert!(!old.equals_state(&reading.state), "it differs from what the backup has");
    let xattr = Xattr { name: b"system.posix_acl_access".to_vec(), value: acl.encode() };
    assert_eq!(reading.state.xattrs, [xattr]);
}
