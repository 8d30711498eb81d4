//! Tests of `overlay`.

use super::*;
use crate::host::KeyKind;
use ehpc_proto::replication::{Kind, StreamId, Timestamp};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use smallvec::SmallVec;
use std::collections::BTreeMap;

fn key(number: u64) -> ObjectKey {
    ObjectKey { kind: KeyKind::Handle, handle_type: 1, bytes: SmallVec::from_slice(&number.to_be_bytes()) }
}

fn row(id: u64, key_number: u64, size: u64) -> Row {
    Row {
        id: ObjectId(id),
        key: key(key_number),
        kind: Kind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        size,
        mtime: Timestamp::default(),
        ctime: Timestamp::default(),
        rdev: (0, 0),
        meta: Hash([0; 32]),
        manifest: Manifest::EMPTY,
        racy: false,
        fuzzy: false,
    }
}

fn position(number: u64) -> Position {
    Position { stream: StreamId([1; 16]), number, chain: Hash([number as u8; 32]) }
}

/// What the view should say, without layers.
#[derive(Clone, Default, PartialEq, Debug)]
struct Plain {
    rows: BTreeMap<u64, Row>,
    entries: BTreeMap<(u64, Vec<u8>), u64>,
}

fn check(view: &View, plain: &Plain, context: &str) {
    for id in 1..12 {
        let expected = plain.rows.get(&id).cloned();
        assert_eq!(
            view.row(ObjectId(id)).unwrap().map(|row| Row::clone(&row)),
            expected,
            "{context}: row {id}"
        );
        let by_key = view.row_by_key(&key(id)).unwrap().map(|row| row.id.0);
        let holder = plain.rows.values().find(|row| row.key == key(id)).map(|row| row.id.0);
        assert_eq!(by_key, holder, "{context}: key {id}");
        let mut names: Vec<(u64, Vec<u8>)> = view
            .names_of(ObjectId(id))
            .unwrap()
            .into_iter()
            .map(|(parent, name)| (parent.0, name.to_vec()))
            .collect();
        names.sort();
        let expected: Vec<(u64, Vec<u8>)> =
            plain.entries.iter().filter(|(_, child)| **child == id).map(|(name, _)| name.clone()).collect();
        assert_eq!(names, expected, "{context}: names of {id}");
    }
    for parent in 1..4 {
        let listed: Vec<(Vec<u8>, u64)> = view
            .entries(ObjectId(parent))
            .unwrap()
            .into_iter()
            .map(|(name, child)| (name, child.0))
            .collect();
        let expected: Vec<(Vec<u8>, u64)> = plain
            .entries
            .iter()
            .filter(|((holder, _), _)| *holder == parent)
            .map(|((_, name), child)| (name.clone(), *child))
            .collect();
        assert_eq!(listed, expected, "{context}: entries of {parent}");
        for name in [b"a", b"b", b"c"] {
            let child = view.entry(ObjectId(parent), name).unwrap().map(|child| child.0);
            assert_eq!(child, plain.entries.get(&(parent, name.to_vec())).copied(), "{context}");
        }
    }
}

#[test]
fn layers_say_what_plain_maps_say() {
    for seed in 0..40 {
        let mut random = StdRng::seed_from_u64(seed);
        let dir = tempfile::tempdir().unwrap();
        let mut view = View::new(Shadow::open(&dir.path().join("s")).unwrap(), 1);
        // states[0] is acknowledged, the last is under construction.
        let mut states = vec![Plain::default(), Plain::default()];
        let (mut acknowledged, mut sealed) = (0u64, 0u64);
        for step in 0..300 {
            let context = format!("seed {seed} step {step}");
            let open = states.last_mut().unwrap();
            match random.random_range(0..20) {
                0..6 => {
                    let id = random.random_range(1..12);
                    let row = row(id, id, random.random_range(0..100));
                    view.put(row.clone());
                    open.rows.insert(id, row);
                }
                6..8 => {
                    let id = random.random_range(2..12);
                    if let Some(row) = open.rows.remove(&id) {
                        view.destroy(&row);
                    }
                }
                8..14 => {
                    let parent = random.random_range(1..4);
                    let name = [b"a", b"b", b"c"][random.random_range(0..3)];
                    let child = random.random_bool(0.7).then(|| random.random_range(1..12));
                    view.set_entry(ObjectId(parent), name, child.map(ObjectId));
                    match child {
                        Some(child) => open.entries.insert((parent, name.to_vec()), child),
                        None => open.entries.remove(&(parent, name.to_vec())),
                    };
                }
                14..17 => {
                    sealed += 1;
                    assert_eq!(view.open_number(), sealed);
                    let before = &states[states.len() - 2];
                    let shipped = view.changed_entries().unwrap();
                    let now = states.last().unwrap();
                    let differing = |name: &(u64, Vec<u8>)| before.entries.get(name) != now.entries.get(name);
                    let names = before.entries.keys().chain(now.entries.keys());
                    let expected: std::collections::BTreeSet<_> =
                        names.filter(|name| differing(name)).cloned().collect();
                    let got: std::collections::BTreeSet<_> =
                        shipped.iter().map(|entry| (entry.parent.0, entry.name.clone())).collect();
                    assert_eq!(got, expected, "{context}: entries to ship");
                    let gone: Vec<u64> =
                        before.rows.keys().filter(|id| !now.rows.contains_key(id)).copied().collect();
                    let mut destroyed: Vec<u64> = view.destroyed().unwrap().iter().map(|id| id.0).collect();
                    destroyed.sort_unstable();
                    assert_eq!(destroyed, gone, "{context}: destroyed");
                    view.seal(position(sealed));
                    let open = states.last().unwrap().clone();
                    states.push(open);
                }
                17..19 if sealed > acknowledged => {
                    let number = random.random_range(acknowledged + 1..=sealed);
                    let positions = view.acknowledge(number).unwrap();
                    assert_eq!(positions.last(), Some(&position(number)));
                    states.drain(..(number - acknowledged) as usize);
                    acknowledged = number;
                    let shadow = view.shadow();
                    for id in 1..12 {
                        assert_eq!(
                            shadow.by_id(ObjectId(id)).unwrap(),
                            states[0].rows.get(&id).cloned(),
                            "{context}"
                        );
                    }
                    assert_eq!(shadow.meta().position, Some(position(number)));
                }
                _ => {
                    let first = random.random_range(acknowledged + 1..=sealed + 1);
                    view.abandon(first).unwrap();
                    states.truncate((first - acknowledged) as usize);
                    states.push(states.last().unwrap().clone());
                    sealed = first - 1;
                    assert_eq!(view.open_number(), first);
                }
            }
            check(&view, states.last().unwrap(), &context);
        }
        view.abandon(acknowledged + 1).unwrap();
        assert!(view.objects.is_empty() && view.keys.is_empty() && view.names.is_empty(), "seed {seed}");
        assert!(view.by_parent.is_empty() && view.by_child.is_empty(), "seed {seed}: nothing lingers");
    }
}

#[test]
fn what_is_noted_beside_a_state_goes_to_where_the_state_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut view = View::new(Shadow::open(&dir.path().join("s")).unwrap(), 1);
    view.put(row(5, 5, 1));
    view.seal(position(1));
    let noted = Row { racy: true, ..row(5, 5, 1) };
    view.put_unshipped(noted.clone()).unwrap();
    assert_eq!(view.shadow().by_id(ObjectId(5)).unwrap(), None, "its state is not acknowledged");
    assert_eq!(view.row(ObjectId(5)).unwrap().as_deref(), Some(&noted));
    view.acknowledge(1).unwrap();
    assert_eq!(view.shadow().by_id(ObjectId(5)).unwrap(), Some(noted));
    view.put_unshipped(row(5, 5, 1)).unwrap();
    assert_eq!(view.shadow().by_id(ObjectId(5)).unwrap(), Some(row(5, 5, 1)));
}

#[test]
fn abandoned_batches_say_what_to_look_at_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut view = View::new(Shadow::open(&dir.path().join("s")).unwrap(), 1);
    view.put(row(1, 1, 0));
    view.seal(position(1));
    view.put(row(2, 2, 0));
    view.set_entry(ObjectId(1), b"a", Some(ObjectId(2)));
    view.seal(position(2));
    view.set_entry(ObjectId(1), b"b", Some(ObjectId(2)));
    let abandoned = view.abandon(2).unwrap();
    assert_eq!(abandoned.keys, [key(2)]);
    let mut names = abandoned.names;
    names.sort();
    assert_eq!(names, [(key(1), Box::from(*b"a")), (key(1), Box::from(*b"b"))]);
    assert!(view.row(ObjectId(1)).unwrap().is_some() && view.row(ObjectId(2)).unwrap().is_none());
}

#[test]
fn pages_are_kept_while_a_row_refers_to_them() {
    use crate::store::manifest::build;
    use ehpc_proto::replication::Extent;
    let extents = |from: u64| {
        (from..from + 3000)
            .map(|n| Extent::Data { hash: Hash::of(&n.to_be_bytes()), len: 100 })
            .collect::<Vec<_>>()
    };
    let dir = tempfile::tempdir().unwrap();
    let mut view = View::new(Shadow::open(&dir.path().join("s")).unwrap(), 1);
    let mut roots = Vec::new();
    for from in [0, 1500] {
        let (manifest, blobs) = build(extents(from)).unwrap();
        for (hash, bytes) in blobs {
            view.shadow().put_page(&hash, &bytes).unwrap();
        }
        let Manifest::Paged { root } = manifest else { panic!("many extents") };
        roots.push(root);
        view.put(Row { manifest, ..row(7, 7, 1) });
        let number = view.open_number();
        view.seal(position(number));
        view.acknowledge(number).unwrap();
        assert!(view.shadow().holds_page(&root).unwrap());
    }
    assert!(view.page(&roots[0]).is_err(), "the former root is gone");
    view.destroy(&row(7, 7, 1));
    view.seal(position(3));
    view.acknowledge(3).unwrap();
    assert!(view.page(&roots[1]).is_err());
}
