//! The promises of the cut, of joined places and of bounds.

use super::*;
use crate::host::ObjectKey;
use crate::host::object::KeyKind;
use smallvec::SmallVec;

fn key(n: u64) -> ObjectKey {
    ObjectKey { kind: KeyKind::Handle, handle_type: 1, bytes: SmallVec::from_slice(&n.to_be_bytes()) }
}

fn object(n: u64) -> Change {
    Change::Object(key(n), Touch::ATTRIBUTES)
}

fn entry(dir: u64, name: &str) -> Change {
    Change::entry(&key(dir), name.as_bytes())
}

fn pair(from: (u64, &str), to: (u64, &str)) -> Change {
    Change::pair((&key(from.0), from.1.as_bytes()), (&key(to.0), to.1.as_bytes()))
}

fn names(change: &Change) -> Vec<String> {
    match change {
        Change::Entries(entries) => {
            let mut names: Vec<_> =
                entries.iter().map(|entry| String::from_utf8_lossy(&entry.name).into_owned()).collect();
            names.sort();
            names
        }
        Change::Object(..) => panic!("an object: {change:?}"),
    }
}

#[test]
fn the_cut_is_the_number_before_the_first_that_waits() {
    let dirty = DirtySet::new();
    assert_eq!(dirty.take(10).cut, 0);
    assert_eq!(dirty.note(object(1)), 1);
    assert_eq!(dirty.note(object(2)), 2);
    assert_eq!(dirty.note(object(1)), 3, "joined, and still numbered");
    assert_eq!(dirty.current(), 3);
    assert_eq!(dirty.pending(), 2);
    let taken = dirty.take(1);
    assert_eq!(taken.changes, [object(1)]);
    assert_eq!(taken.cut, 1, "2 waits");
    let taken = dirty.take(1);
    assert_eq!(taken.changes, [object(2)]);
    assert_eq!(taken.cut, 3);
}

#[test]
fn a_change_after_its_predecessor_was_taken_has_its_own_place() {
    let dirty = DirtySet::new();
    dirty.note(object(1));
    dirty.note(entry(9, "a"));
    assert_eq!(dirty.take(2).cut, 2);
    dirty.note(object(1));
    dirty.note(entry(9, "a"));
    assert_eq!(dirty.pending(), 2);
    let taken = dirty.take(9);
    assert_eq!(taken.changes, [object(1), entry(9, "a")]);
    assert_eq!(taken.cut, 4);
}

#[test]
fn touches_of_one_object_merge() {
    let dirty = DirtySet::new();
    dirty.note(Change::Object(key(1), Touch::range(0..10)));
    dirty.note(Change::Object(key(1), Touch::range(10..20)));
    dirty.note(Change::Object(key(1), Touch { settle_pages: true, ..Touch::ATTRIBUTES }));
    let merged = Touch { content: Content::range(0..20), settle_pages: true, listing: false };
    assert_eq!(dirty.take(9).changes, [Change::Object(key(1), merged)]);
}

#[test]
fn both_ends_of_a_rename_are_taken_together() {
    let dirty = DirtySet::new();
    dirty.note(entry(1, "b"));
    dirty.note(object(5));
    dirty.note(entry(1, "a"));
    dirty.note(pair((1, "a"), (1, "b")));
    let taken = dirty.take(1);
    assert_eq!(names(&taken.changes[0]), ["a", "b"]);
    assert_eq!(taken.cut, 1);
    let taken = dirty.take(1);
    assert_eq!(taken.changes, [object(5)]);
    assert_eq!(taken.cut, 4, "the place of a alone joined the pair");
    assert_eq!(dirty.pending(), 0);
}

#[test]
fn a_chain_of_renames_is_one_change() {
    let dirty = DirtySet::new();
    dirty.note(pair((1, "a"), (1, "b")));
    dirty.note(pair((1, "c"), (1, "d")));
    dirty.note(pair((1, "b"), (1, "c")));
    dirty.note(entry(1, "d"));
    let taken = dirty.take(1);
    assert_eq!(names(&taken.changes[0]), ["a", "b", "c", "d"]);
    assert_eq!(taken.cut, 4);
}

#[test]
fn a_long_chain_is_bounded_but_never_split_inside_a_pair() {
    let dirty = DirtySet::new();
    for n in 0..500 {
        dirty.note(pair((1, &format!("{n}")), (1, &format!("{}", n + 1))));
    }
    let taken = dirty.take(usize::MAX);
    assert_eq!(taken.cut, 500);
    for n in 0..500 {
        let (from, to) = (format!("{n}"), format!("{}", n + 1));
        let together = taken.changes.iter().any(|change| {
            let names = names(change);
            names.len() <= MAX_JOINED_ENTRIES && names.contains(&from) && names.contains(&to)
        });
        assert!(together, "{from} -> {to}");
    }
}

#[test]
fn a_listing_that_waits_covers_its_names_but_no_rename() {
    let dirty = DirtySet::new();
    dirty.note(Change::Object(key(1), Touch::LISTING));
    dirty.note(entry(1, "a"));
    assert_eq!(dirty.pending(), 1);
    dirty.note(pair((1, "x"), (2, "y")));
    assert_eq!(dirty.pending(), 2);
    assert_eq!(dirty.take(9).cut, 3);
}

#[test]
fn a_crowd_of_names_becomes_listings_and_then_a_scan() {
    let dirty = DirtySet { queue: Mutex::new(Queue::new(10, 20)), ..DirtySet::default() };
    for n in 0..100 {
        dirty.note(entry(1, &format!("{n}")));
    }
    assert_eq!(dirty.pending(), 11, "ten names and one listing");
    assert!(!dirty.spilled());
    for n in 100..150 {
        dirty.note(object(n));
    }
    assert!(dirty.spilled());
    assert_eq!(dirty.pending(), 20);
    let taken = dirty.take(usize::MAX);
    assert_eq!(taken.cut, 109, "nothing after the first dropped change counts as taken");
    let began = dirty.current();
    dirty.note(object(7));
    dirty.scanned(began);
    assert!(!dirty.spilled());
    assert_eq!(dirty.take(usize::MAX).cut, 151);
}

#[test]
fn a_scan_that_began_too_early_does_not_lift_the_hold() {
    let dirty = DirtySet { queue: Mutex::new(Queue::new(1, 1)), ..DirtySet::default() };
    dirty.note(object(1));
    let began = dirty.current();
    dirty.note(object(2));
    dirty.scanned(began);
    assert!(dirty.spilled());
    assert_eq!(dirty.take(usize::MAX).cut, 1);
}

#[test]
fn acknowledgement_never_goes_back_and_sets_the_lag() {
    let dirty = DirtySet::new();
    assert!(dirty.oldest_unacknowledged().is_none());
    dirty.note(object(1));
    dirty.note(object(2));
    assert!(dirty.oldest_unacknowledged().is_some());
    let acknowledged = dirty.acknowledged();
    dirty.acknowledge(2);
    dirty.acknowledge(1);
    assert_eq!(*acknowledged.borrow(), 2);
    assert!(dirty.oldest_unacknowledged().is_none());
}

#[test]
fn while_changes_may_have_been_missed_no_source_is_believed() {
    let dirty = DirtySet::new();
    let noted = |source, touch| {
        dirty.note_from(source, Change::Object(key(1), touch));
        match dirty.take(1).changes.pop() {
            Some(Change::Object(_, touch)) => touch,
            other => panic!("{other:?}"),
        }
    };
    let range = Touch::range(0..10);
    assert_eq!(noted(Source::Nfs, range.clone()), range);
    dirty.trust(Trust::Loose);
    assert_eq!(noted(Source::Nfs, range.clone()), Touch::CONTENT);
    assert_eq!(noted(Source::Watcher, Touch::ATTRIBUTES), Touch::ATTRIBUTES);
    dirty.trust(Trust::Uncertain);
    assert_eq!(noted(Source::Nfs, range.clone()), Touch::CONTENT);
    assert_eq!(noted(Source::Watcher, Touch::ATTRIBUTES), Touch::CONTENT);
    assert_eq!(noted(Source::Scan, Touch::ATTRIBUTES), Touch::ATTRIBUTES);
    dirty.trust(Trust::Exact);
    assert_eq!(noted(Source::Nfs, range.clone()), range);
}

#[test]
fn counts_tell_who_noticed() {
    let dirty = DirtySet::new();
    dirty.note_from(Source::Nfs, object(1));
    dirty.note_from(Source::Watcher, object(1));
    dirty.note_from(Source::Watcher, object(2));
    assert_eq!(dirty.noted(), NotedCounts { nfs: 1, watcher: 2, scan: 0, other: 0 });
}

#[tokio::test]
async fn the_sender_learns_of_a_lifted_hold() {
    let dirty = DirtySet { queue: Mutex::new(Queue::new(1, 1)), ..DirtySet::default() };
    dirty.note(object(1));
    dirty.note(object(2));
    assert_eq!(dirty.take(9).cut, 1);
    dirty.scanned(dirty.current());
    // Nothing is pending, and still there is something to take: the cut.
    dirty.wait().await;
    let taken = dirty.take(9);
    assert_eq!((taken.cut, taken.changes.len()), (2, 0));
}

#[tokio::test]
async fn the_sender_is_woken() {
    let dirty = DirtySet::new();
    let waiter = {
        let dirty = Arc::clone(&dirty);
        tokio::spawn(async move {
            dirty.wait().await;
            dirty.take(1).changes
        })
    };
    tokio::task::yield_now().await;
    dirty.note(object(3));
    assert_eq!(waiter.await.unwrap(), [object(3)]);
}

/// Against a plain model: every note is in a taken change at or after its own time, and no cut passes a
/// change that was not taken.
#[test]
fn random_notes_and_takes_keep_the_promise_of_the_cut() {
    use rand::{Rng, SeedableRng};
    for seed in 0..300u64 {
        let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
        let dirty = DirtySet::new();
        let mut untaken: Vec<(u64, Change)> = Vec::new();
        for _ in 0..200 {
            if rng.random_range(0..4) > 0 {
                let mut name = || format!("{}", rng.random_range(0..6));
                let (one, two) = (name(), name());
                let change = match rng.random_range(0..3) {
                    0 => object(rng.random_range(0..6)),
                    1 => entry(1, &one),
                    _ if one == two => continue,
                    _ => pair((1, &one), (1, &two)),
                };
                untaken.push((dirty.note(change.clone()), change));
                continue;
            }
            let taken = dirty.take(rng.random_range(1..4));
            let covers = |change: &Change| {
                taken.changes.iter().any(|taken| match (taken, change) {
                    (Change::Object(taken, _), Change::Object(key, _)) => taken == key,
                    (Change::Entries(taken), Change::Entries(entries)) => {
                        entries.iter().all(|entry| taken.contains(entry))
                    }
                    _ => false,
                })
            };
            untaken.retain(|(_, change)| !covers(change));
            let first = untaken.iter().map(|(number, _)| *number).min();
            assert!(first.is_none_or(|first| taken.cut < first), "seed {seed}: {} {first:?}", taken.cut);
        }
        assert_eq!(dirty.take(usize::MAX).cut, dirty.current(), "seed {seed}");
    }
}
