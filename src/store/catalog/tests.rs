//! The catalog's answers are compared with a plain model of the same history.

use crate::store::tests::world::{Moment, World};
use crate::store::tests::{Place, deliver};
use ehpc_proto::replication::digest::{bucket_digest, listing_digest, object_digest};
use ehpc_proto::replication::message::{BUCKET, LiveEntry, Version};
use ehpc_proto::replication::{Hash, Kind, ObjectId};
use rand::Rng;
use std::collections::BTreeSet;

fn listing(moment: &Moment, directory: ObjectId) -> Vec<(Vec<u8>, ObjectId)> {
    let of = moment.entries.iter().filter(|((parent, _), _)| *parent == directory);
    of.map(|((_, name), child)| (name.clone(), *child)).collect()
}

fn version(moment: &Moment, batch: u64, id: ObjectId) -> Version {
    let state = moment.objects.get(&id).cloned();
    let entries = state.as_ref().map_or(Vec::new(), |_| listing(moment, id));
    Version { batch, state, entries }
}

#[test]
fn answers_are_those_of_the_model() {
    for seed in 0..25 {
        let mut world = World::new(seed);
        let place = Place::new();
        let store = place.open().0;
        let mut writer = store.writer().unwrap();
        for _ in 0..40 {
            deliver(&store, &world.step()).unwrap();
            store.sync().unwrap();
            let batch = store.read_batch(store.position().unwrap().number).unwrap();
            writer.apply(&batch).unwrap();
            if world.rng.random_bool(0.3) {
                writer.commit().unwrap();
            }
        }
        writer.commit().unwrap();
        let reader = store.reader().unwrap();
        let rows = reader.rows();
        check_live(&world, &rows, seed);
        check_touched(&mut world, &rows, seed);
        check_versions(&mut world, &rows, seed);
        check_buckets(&world, &rows, seed);
    }
}

fn check_live(world: &World, rows: &super::Rows<'_>, seed: u64) {
    let now = world.now();
    let (mut after, mut objects, mut entries) = (ObjectId(0), Vec::new(), Vec::new());
    loop {
        let (mut more, mut names) = rows.live(after, 7).unwrap();
        let Some(last) = more.last() else { break };
        after = last.id;
        objects.append(&mut more);
        entries.append(&mut names);
    }
    assert!(objects.iter().eq(now.objects.values()), "seed {seed}");
    entries.sort();
    let expected: Vec<LiveEntry> = now
        .entries
        .iter()
        .map(|((parent, name), child)| LiveEntry { parent: *parent, name: name.clone(), child: *child })
        .collect();
    assert_eq!(entries, expected, "seed {seed}");
    assert_eq!(rows.count().unwrap(), now.objects.len() as u64);

    for (id, state) in &now.objects {
        assert_eq!(rows.live_object(*id).unwrap().unwrap().state, *state);
        assert_eq!(rows.children(*id, None, 1000).unwrap(), listing(now, *id));
        let names = rows.entries_of(*id).unwrap();
        let expected = expected.iter().filter(|entry| entry.child == *id);
        assert!(names.iter().eq(expected), "seed {seed}");
        let Some(path) = rows.path_of(*id).unwrap() else {
            assert!(!has_path(now, *id), "seed {seed}");
            continue;
        };
        let mut at = ObjectId::ROOT;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            at = rows.entry(at, name).unwrap().unwrap();
        }
        assert_eq!(at, *id, "seed {seed}: {path:?}");
    }
}

/// By its first names, as the catalog walks.
fn has_path(moment: &Moment, id: ObjectId) -> bool {
    let mut at = id;
    while at != ObjectId::ROOT {
        let Some(((parent, _), _)) = moment.entries.iter().find(|(_, child)| **child == at) else {
            return false;
        };
        at = *parent;
    }
    true
}

fn check_touched(world: &mut World, rows: &super::Rows<'_>, seed: u64) {
    let last = world.moments.len() - 1;
    let since = world.rng.random_range(0..=last);
    let (mut after, mut objects, mut entries) = (ObjectId(0), BTreeSet::new(), BTreeSet::new());
    loop {
        let (more, names) = rows.touched(since as u64, after, 3).unwrap();
        let Some((id, _)) = more.last() else { break };
        after = *id;
        for (id, key) in more {
            // An object that came and went within one batch has no key; there is none here.
            assert_eq!(key, id.0.to_be_bytes());
            assert!(objects.insert(id), "seed {seed}: {id:?} twice");
        }
        entries.extend(names);
    }
    // All that differs between any two neighbouring moments must be named.
    for pair in world.moments[since..].windows(2) {
        for id in pair[0].objects.keys().chain(pair[1].objects.keys()) {
            if pair[0].objects.get(id) != pair[1].objects.get(id) {
                assert!(objects.contains(id), "seed {seed}: {id:?} since {since}");
            }
        }
        for slot in pair[0].entries.keys().chain(pair[1].entries.keys()) {
            if pair[0].entries.get(slot) != pair[1].entries.get(slot) {
                assert!(entries.contains(slot) && objects.contains(&slot.0), "seed {seed}: {slot:?}");
            }
        }
    }
    if since == last {
        assert!(objects.is_empty() && entries.is_empty());
    }
}

fn check_versions(world: &mut World, rows: &super::Rows<'_>, seed: u64) {
    let last = world.moments.len() - 1;
    for _ in 0..5 {
        let from = world.rng.random_range(0..=last);
        let to = world.rng.random_range(from..=last);
        let mut ids: Vec<ObjectId> =
            world.moments.iter().flat_map(|moment| moment.objects.keys().copied()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.push(ObjectId(1 << 40));
        let answers = rows.versions(&ids, from as u64, to as u64).unwrap();
        assert_eq!(answers.len(), ids.len());
        for (id, versions) in ids.iter().zip(answers) {
            // At every batch of the range, the last version at or before it is what the model says.
            for batch in from..=to {
                let expected = version(&world.moments[batch], 0, *id);
                let got = versions.iter().rev().find(|version| version.batch <= batch as u64).unwrap();
                let got = Version { batch: 0, ..got.clone() };
                assert_eq!(got, expected, "seed {seed}: {id:?} at {batch} of {from}..={to}");
            }
            let changes = (from + 1..=to).filter(|batch| {
                version(&world.moments[*batch], 0, *id) != version(&world.moments[batch - 1], 0, *id)
            });
            assert!(versions.len() > changes.count(), "seed {seed}");
        }
    }
}

fn check_buckets(world: &World, rows: &super::Rows<'_>, seed: u64) {
    let now = world.now();
    let highest = now.objects.last_key_value().map_or(ObjectId(0), |(id, _)| *id);
    let expected: Vec<Hash> = (0..highest.0 / BUCKET + 3)
        .map(|bucket| {
            let of = now.objects.range(ObjectId(bucket * BUCKET)..ObjectId((bucket + 1) * BUCKET));
            bucket_digest(of.map(|(id, state)| {
                let names = listing(now, *id);
                let names = listing_digest(names.iter().map(|(name, child)| (&name[..], *child)));
                let is_directory = state.kind == Kind::Directory;
                (*id, object_digest(state.digest(), is_directory.then_some(names)))
            }))
        })
        .collect();
    let got = rows.buckets(0, expected.len() as u32).unwrap();
    assert_eq!((got.highest, got.objects), (highest, now.objects.len() as u64));
    assert_eq!(got.digests, expected, "seed {seed}");
    let part = rows.buckets(1, 2).unwrap();
    assert_eq!(part.digests, expected[1..3], "seed {seed}");
}

#[test]
fn a_batch_out_of_order_is_refused_and_a_rollback_forgets() {
    let mut world = World::new(1);
    let place = Place::new();
    let store = place.open().0;
    let shipments: Vec<_> = (0..3).map(|_| world.step()).collect();
    for shipment in &shipments {
        deliver(&store, shipment).unwrap();
    }
    store.sync().unwrap();
    let mut writer = store.writer().unwrap();
    assert!(writer.apply(&shipments[1].batch).is_err());
    writer.apply(&shipments[0].batch).unwrap();
    writer.apply(&shipments[1].batch).unwrap();
    writer.rollback().unwrap();
    assert_eq!((writer.applied(), writer.rows().unwrap().count().unwrap()), (0, 0));
    for shipment in &shipments {
        writer.apply(&shipment.batch).unwrap();
    }
    let reader = store.reader().unwrap();
    assert_eq!(reader.rows().applied().unwrap(), 0, "not committed");
    writer.commit().unwrap();
    assert_eq!(reader.rows().applied().unwrap(), 3);
    let held: Vec<Hash> = shipments.iter().flat_map(|s| s.blobs.iter().map(|blob| blob.hash)).collect();
    assert!(store.lacking(&held).unwrap().iter().all(|lacks| !lacks));
}

#[test]
fn the_mirrors_inode_survives_a_new_version() {
    let mut world = World::new(2);
    let place = Place::new();
    let store = place.open().0;
    let mut writer = store.writer().unwrap();
    let root = ObjectId::ROOT;
    let first = world.step();
    let mut second = world.step();
    let state = world.now().objects[&root].clone();
    if !second.batch.objects.iter().any(|object| object.id == root) {
        second.batch.objects.push(state);
    }
    second.encoded = ehpc_proto::replication::wire::encode_batch(&second.batch);
    for shipment in [&first, &second] {
        deliver(&store, shipment).unwrap();
        store.sync().unwrap();
        writer.apply(&shipment.batch).unwrap();
        if shipment.batch.number == 1 {
            writer.set_mirror_inode(root, Some(u64::MAX)).unwrap();
        }
    }
    assert_eq!(writer.rows().unwrap().mirror_inode(root).unwrap(), Some(u64::MAX));
    let live = writer.rows().unwrap().live_object(root).unwrap().unwrap();
    assert_eq!((live.batch, live.mirror_inode), (2, Some(u64::MAX)));
    writer.set_mirror_inode(root, None).unwrap();
    assert_eq!(writer.rows().unwrap().mirror_inode(root).unwrap(), None);
}
