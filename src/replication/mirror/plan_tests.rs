//! The cases by name; the simulation covers their mixtures.

use super::*;
use crate::replication::mirror::model::{Model, state_of};
use ehpc_proto::replication::{EntryState, Hash, Timestamp};

const ROOT: ObjectId = ObjectId::ROOT;

/// Number, `d` or `f`, names.
type Named<'a> = (u64, char, &'a [(u64, &'a str)]);

/// A tree of directories (`d`) and files (`f`).
fn tree(objects: &[Named<'_>]) -> Model {
    let mut batch = batch(&[]);
    batch.objects.push(state_of(ROOT, Kind::Directory));
    for (id, kind, names) in objects {
        let kind = if *kind == 'd' { Kind::Directory } else { Kind::File };
        batch.objects.push(state_of(ObjectId(*id), kind));
        batch.entries.extend(names.iter().map(|(parent, name)| entry(*parent, name, Some(*id))));
    }
    let mut model = Model::default();
    model.apply(&batch);
    model
}

fn entry(parent: u64, name: &str, child: Option<u64>) -> EntryState {
    EntryState { parent: ObjectId(parent), name: name.into(), child: child.map(ObjectId) }
}

fn batch(entries: &[(u64, &str, Option<u64>)]) -> Batch {
    Batch {
        number: 1,
        previous: Hash([0; 32]),
        cut: 1,
        time: Timestamp::default(),
        objects: Vec::new(),
        entries: entries.iter().map(|(parent, name, child)| entry(*parent, name, *child)).collect(),
        destroyed: Vec::new(),
    }
}

/// One word an operation.
fn words(model: &Model, batch: &Batch) -> Vec<String> {
    let spot = |spot: &Spot| format!("{}/{}", spot.parent.0, String::from_utf8_lossy(&spot.name));
    let place = |at: &Place| match at {
        Place::Limbo => "limbo".to_owned(),
        Place::At(at) => spot(at),
    };
    plan(model, batch)
        .unwrap()
        .iter()
        .map(|op| match op {
            Op::Vacate { id, from } => format!("vacate {} {}", id.0, spot(from)),
            Op::Keep { id, from } => format!("keep {} {}", id.0, spot(from)),
            Op::Unlink { at } => format!("unlink {}", spot(at)),
            Op::Create { state, to, replaces: false } => format!("create {} {}", state.id.0, place(to)),
            Op::Create { state, to, replaces: true } => format!("create {} over {}", state.id.0, place(to)),
            Op::Move { id, from, to, .. } => format!("move {} {} {}", id.0, place(from), spot(to)),
            Op::Link { id, from, to } => format!("link {} {} {}", id.0, place(from), spot(to)),
            Op::Update { state, at } => format!("update {} {}", state.id.0, place(at)),
            Op::Discard { id } => format!("discard {}", id.0),
            Op::RemoveDirectory { id, at } => format!("rmdir {} {}", id.0, place(at)),
            Op::Finish { id, .. } => format!("finish {}", id.0),
        })
        .collect()
}

#[test]
fn a_directory_is_renamed_by_one_rename() {
    let model = tree(&[(2, 'd', &[(1, "a")]), (3, 'd', &[(1, "b")]), (4, 'f', &[(2, "x")])]);
    let moved = batch(&[(1, "a", None), (3, "c", Some(2))]);
    assert_eq!(words(&model, &moved), ["move 2 1/a 3/c", "finish 3", "finish 1"]);
}

#[test]
fn two_directories_are_swapped_through_limbo() {
    let model = tree(&[(2, 'd', &[(1, "a")]), (3, 'd', &[(1, "b")])]);
    let swapped = batch(&[(1, "a", Some(3)), (1, "b", Some(2))]);
    assert_eq!(
        words(&model, &swapped),
        ["vacate 2 1/a", "vacate 3 1/b", "move 2 limbo 1/b", "move 3 limbo 1/a", "finish 1"]
    );
}

#[test]
fn files_that_rotate_keep_a_link_and_replace_each_other() {
    let model = tree(&[(2, 'f', &[(1, "a")]), (3, 'f', &[(1, "b")])]);
    let rotated = batch(&[(1, "a", None), (1, "b", Some(2)), (1, "c", Some(3))]);
    assert_eq!(words(&model, &rotated), ["keep 3 1/b", "move 2 1/a 1/b", "move 3 limbo 1/c", "finish 1"]);
}

#[test]
fn a_directory_moves_below_its_former_child() {
    let model = tree(&[(2, 'd', &[(1, "a")]), (3, 'd', &[(2, "b")])]);
    let turned = batch(&[(1, "a", None), (2, "b", None), (1, "b", Some(3)), (3, "a", Some(2))]);
    let words = words(&model, &turned);
    assert_eq!(&words[..2], ["vacate 2 1/a", "vacate 3 2/b"]);
    assert_eq!(&words[2..4], ["move 2 limbo 3/a", "move 3 limbo 1/b"]);
}

#[test]
fn a_new_file_replaces_a_destroyed_one_by_a_rename() {
    let model = tree(&[(2, 'f', &[(1, "a")])]);
    let mut saved = batch(&[(1, "a", Some(3))]);
    saved.objects.push(state_of(ObjectId(3), Kind::File));
    saved.destroyed.push(ObjectId(2));
    assert_eq!(words(&model, &saved), ["create 3 over 1/a", "finish 1"]);
}

#[test]
fn a_file_becomes_a_directory() {
    let model = tree(&[(2, 'f', &[(1, "a")])]);
    let mut turned = batch(&[(1, "a", Some(3))]);
    turned.objects.push(state_of(ObjectId(3), Kind::Directory));
    turned.destroyed.push(ObjectId(2));
    assert_eq!(words(&model, &turned), ["unlink 1/a", "create 3 1/a", "finish 3", "finish 1"]);
}

#[test]
fn a_link_to_a_file_whose_only_name_vanishes_is_a_rename() {
    let model = tree(&[(2, 'f', &[(1, "a")])]);
    let linked = batch(&[(1, "a", None), (1, "b", Some(2)), (1, "c", Some(2))]);
    assert_eq!(words(&model, &linked), ["move 2 1/a 1/b", "link 2 1/b 1/c", "finish 1"]);
}

#[test]
fn a_tree_is_deleted_from_the_leaves() {
    let model = tree(&[(2, 'd', &[(1, "a")]), (3, 'd', &[(2, "b")]), (4, 'f', &[(3, "c")])]);
    let mut removed = batch(&[(1, "a", None), (2, "b", None), (3, "c", None)]);
    removed.destroyed = vec![ObjectId(2), ObjectId(3), ObjectId(4)];
    assert_eq!(words(&model, &removed), ["unlink 3/c", "rmdir 3 2/b", "rmdir 2 1/a", "finish 1"]);
}

#[test]
fn what_loses_its_name_and_lives_waits_in_limbo() {
    let model = tree(&[(2, 'd', &[(1, "a")]), (3, 'f', &[(1, "b")])]);
    let gone = batch(&[(1, "a", None), (1, "b", None)]);
    assert_eq!(words(&model, &gone), ["vacate 2 1/a", "vacate 3 1/b", "finish 1"]);
    let mut model = model;
    model.apply(&gone);
    let back = batch(&[(1, "c", Some(2)), (2, "d", Some(3))]);
    assert_eq!(words(&model, &back), ["move 2 limbo 1/c", "move 3 limbo 2/d", "finish 2", "finish 1"]);
    let mut destroyed = batch(&[]);
    destroyed.destroyed = vec![ObjectId(2), ObjectId(3)];
    assert_eq!(words(&model, &destroyed), ["discard 3", "rmdir 2 limbo"]);
}

#[test]
fn thousands_of_new_entries_are_made_in_place_parents_first() {
    let model = tree(&[]);
    let mut many = batch(&[]);
    for id in (2..5002).rev() {
        let kind = if id % 50 == 2 { Kind::Directory } else { Kind::File };
        let parent = if kind == Kind::Directory { 1 } else { id - (id - 2) % 50 };
        many.objects.push(state_of(ObjectId(id), kind));
        many.entries.push(entry(parent, &id.to_string(), Some(id)));
    }
    let words = words(&model, &many);
    assert_eq!(words.iter().filter(|word| word.starts_with("create")).count(), 5000);
    assert_eq!(words.iter().filter(|word| word.starts_with("finish")).count(), 101);
    let first_file = words.iter().position(|word| word == "create 5001 4952/5001").unwrap();
    let parent = words.iter().position(|word| word == "create 4952 1/4952").unwrap();
    assert!(parent < first_file);
}

#[test]
fn what_cannot_be_is_refused() {
    let model = tree(&[(2, 'd', &[(1, "a")])]);
    let second = batch(&[(1, "b", Some(2))]);
    let two = plan(&model, &second);
    assert!(matches!(two, Err(PlanError::TwoPlaces { id: ObjectId(2), .. })), "{two:?}");
    let stranger = batch(&[(1, "b", Some(9))]);
    let unknown = plan(&model, &stranger);
    assert!(matches!(unknown, Err(PlanError::Unknown { id: ObjectId(9), .. })), "{unknown:?}");
    let mut cycle = batch(&[(8, "x", Some(9)), (9, "y", Some(8))]);
    cycle.objects = vec![state_of(ObjectId(8), Kind::Directory), state_of(ObjectId(9), Kind::Directory)];
    let cycle = plan(&model, &cycle);
    assert!(matches!(cycle, Err(PlanError::Cycle { .. })), "{cycle:?}");
}
