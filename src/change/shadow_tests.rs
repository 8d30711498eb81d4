//! Tests of `shadow`.

use super::*;
use crate::host::object::KeyKind;
use ehpc_proto::replication::{Extent, Kind, Manifest, StreamId};
use smallvec::SmallVec;

fn key(number: u64) -> ObjectKey {
    ObjectKey { kind: KeyKind::Handle, handle_type: 1, bytes: SmallVec::from_slice(&number.to_be_bytes()) }
}

fn row(id: u64) -> Row {
    Row {
        id: ObjectId(id),
        key: key(id),
        kind: Kind::File,
        mode: 0o4755,
        uid: u32::MAX - 1,
        gid: 7,
        size: u64::MAX >> 1,
        mtime: Timestamp { seconds: -5, nanos: 999_999_999 },
        ctime: Timestamp { seconds: 1_700_000_000, nanos: 1 },
        rdev: (0xffff_fff0, 0x8000_0001),
        meta: Hash([9; 32]),
        manifest: Manifest::Inline(vec![
            Extent::Data { hash: Hash([3; 32]), len: 77 },
            Extent::Hole { len: 1 << 40 },
            Extent::Data { hash: Hash([4; 32]), len: 262_144 },
        ]),
        racy: true,
        fuzzy: false,
    }
}

#[test]
fn rows_come_back_as_they_were_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shadow.sqlite");
    let mut shadow = Shadow::open(&path).unwrap();
    let mut other = row(3);
    other.manifest = Manifest::Paged { root: Hash([5; 32]) };
    other.meta = Hash([0; 32]);
    (other.racy, other.fuzzy, other.ctime) = (false, true, Row::UNREAD);
    shadow.put(&row(2)).unwrap();
    shadow.put(&other).unwrap();
    assert_eq!(shadow.by_id(ObjectId(2)).unwrap(), Some(row(2)));
    assert_eq!(shadow.by_key(&key(3)).unwrap(), Some(other.clone()));
    let reader = shadow.reader().unwrap();
    assert_eq!(reader.by_id(ObjectId(2)).unwrap(), None, "not committed yet");
    shadow.commit().unwrap();
    assert_eq!(reader.by_key(&key(2)).unwrap(), Some(row(2)));
    assert_eq!(reader.objects_after(ObjectId(2), 10).unwrap(), vec![other]);
    assert_eq!(reader.object_count().unwrap(), 2);
    shadow.remove(ObjectId(2)).unwrap();
    assert_eq!(shadow.by_key(&key(2)).unwrap(), None);
}

#[test]
fn entries_paths_and_counts() {
    let dir = tempfile::tempdir().unwrap();
    let mut shadow = Shadow::open(&dir.path().join("s")).unwrap();
    for id in 1..=5 {
        let mut row = row(id);
        row.kind = if id <= 2 { Kind::Directory } else { Kind::File };
        shadow.put(&row).unwrap();
    }
    shadow.put_entry(ObjectId(1), b"dir", Some(ObjectId(2))).unwrap();
    shadow.put_entry(ObjectId(2), b"b\xff", Some(ObjectId(3))).unwrap();
    shadow.put_entry(ObjectId(2), b"a", Some(ObjectId(4))).unwrap();
    shadow.put_entry(ObjectId(1), b"link", Some(ObjectId(3))).unwrap();
    shadow.commit().unwrap();
    let reader = shadow.reader().unwrap();
    assert_eq!(
        reader.entries(ObjectId(2)).unwrap(),
        vec![(b"a".to_vec(), ObjectId(4)), (b"b\xff".to_vec(), ObjectId(3))]
    );
    let with_rows = reader.entries_with_rows(ObjectId(2)).unwrap();
    assert_eq!(
        with_rows.iter().map(|(name, row)| (name.as_slice(), row.id.0)).collect::<Vec<_>>(),
        [(b"a".as_slice(), 4), (b"b\xff".as_slice(), 3)]
    );
    assert_eq!(reader.path_of(ObjectId(4)).unwrap(), Some(b"dir/a".to_vec()));
    assert_eq!(reader.path_of(ObjectId(1)).unwrap(), Some(Vec::new()));
    assert_eq!(reader.path_of(ObjectId(5)).unwrap(), None);
    assert_eq!(reader.descendants_count(ObjectId(1)).unwrap(), 3);
    assert_eq!(shadow.orphans(ObjectId(0), 10).unwrap(), vec![ObjectId(5)]);
    let hints = EntryHints::entries_of(&reader, &key(3));
    assert_eq!(hints, vec![(key(1), b"link".to_vec()), (key(2), b"b\xff".to_vec())]);
    shadow.put_entry(ObjectId(1), b"link", None).unwrap();
    assert_eq!(shadow.entries_of(ObjectId(3)).unwrap(), vec![(ObjectId(2), b"b\xff".to_vec())]);
    shadow.kill_keys().unwrap();
    assert_eq!(shadow.by_key(&key(3)).unwrap(), None);
    assert!(shadow.by_id(ObjectId(3)).unwrap().is_some(), "dead keys still decode");
    assert!(shadow.by_key(&key(1)).unwrap().is_some(), "the root keeps its key");
}

#[test]
fn meta_survives_and_numbers_are_not_reused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let position = Position { stream: StreamId([8; 16]), number: 42, chain: Hash([1; 32]) };
    let watermark = Timestamp { seconds: 12, nanos: 34 };
    {
        let mut shadow = Shadow::open(&path).unwrap();
        assert_eq!(shadow.meta().position, None);
        assert_eq!(shadow.new_id(), ObjectId(2));
        assert_eq!(shadow.new_id(), ObjectId(3));
        shadow.set_position(position).unwrap();
        shadow.set_watermark(watermark).unwrap();
        shadow.set_boot_id(b"boot").unwrap();
        shadow.set_clean_stop(true).unwrap();
        shadow.set_export(&key(1), b"filesys1").unwrap();
        shadow.commit().unwrap();
        shadow.set_boot_id(b"never committed").unwrap();
    }
    let mut shadow = Shadow::open(&path).unwrap();
    let expected = Meta {
        position: Some(position),
        boot_id: b"boot".to_vec(),
        clean_stop: true,
        watermark: Some(watermark),
        root_key: Some(key(1)),
        filesystem_id: b"filesys1".to_vec(),
        next_id: 4,
    };
    assert_eq!(*shadow.meta(), expected);
    assert_eq!(shadow.reader().unwrap().meta().unwrap(), expected);
    shadow.discard().unwrap();
    assert_eq!(shadow.meta().position, None);
    assert_eq!(shadow.new_id(), ObjectId(4), "numbers go on after a discard");
}

#[test]
fn pages_live_as_long_as_a_row_refers_to_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let (kept, dropped) = (Hash([1; 32]), Hash([2; 32]));
    {
        let mut shadow = Shadow::open(&path).unwrap();
        shadow.put_page(&kept, b"page").unwrap();
        shadow.put_page(&dropped, b"other").unwrap();
        shadow.retain_page(&kept).unwrap();
        shadow.retain_page(&kept).unwrap();
        shadow.release_page(&kept).unwrap();
        assert_eq!(shadow.page(&dropped).unwrap().as_deref(), Some(b"other".as_slice()));
        shadow.commit().unwrap();
    }
    let mut shadow = Shadow::open(&path).unwrap();
    assert_eq!(shadow.page(&dropped).unwrap(), None, "unreferenced pages go at the next start");
    assert_eq!(shadow.page(&kept).unwrap().as_deref(), Some(b"page".as_slice()));
    shadow.release_page(&kept).unwrap();
    assert_eq!(shadow.page(&kept).unwrap(), None);
}

#[test]
fn a_damaged_index_is_replaced_by_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    std::fs::write(&path, vec![0x5a; 8192]).unwrap();
    let shadow = Shadow::open(&path).unwrap();
    assert_eq!(shadow.meta().position, None);
    assert_eq!(shadow.object_count().unwrap(), 0);
}
