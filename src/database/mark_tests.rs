//! Marks on disk: torn tails, damage, order.

use super::*;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

fn mark(n: u64) -> Mark {
    Mark {
        time: Timestamp { seconds: 1000 + n as i64 * 5, nanos: n as u32 },
        place: Place { lineage: 1 + (n / 40) as u32, file: 1 + (n % 40 / 10) as u32, offset: 4 + n * 100 },
        batch: n,
        cut: n * 3,
        kind: if n.is_multiple_of(7) { MarkKind::Fence } else { MarkKind::Periodic },
    }
}

fn time(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 999_999_999 }
}

#[test]
fn marks_are_found_by_time_and_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("marks");
    let (marks, torn) = Marks::open(&path).unwrap();
    assert_eq!((torn, marks.newest(), marks.at_or_before(time(9999)).unwrap()), (0, None, None));
    for n in 0..100 {
        assert!(marks.append(mark(n)).unwrap());
    }
    drop(marks);
    let (marks, torn) = Marks::open(&path).unwrap();
    assert_eq!((torn, marks.count(), marks.newest()), (0, 100, Some(mark(99))));
    assert_eq!(marks.oldest().unwrap(), Some(mark(0)));
    assert_eq!(marks.at_or_before(time(999)).unwrap(), None);
    for n in 0..100 {
        assert_eq!(marks.at_or_before(mark(n).time).unwrap(), Some(mark(n)));
        assert_eq!(marks.at_or_before(time(1004 + n as i64 * 5)).unwrap(), Some(mark(n)));
        assert_eq!(marks.covered_by(mark(n).place).unwrap(), Some(mark(n)));
    }
    assert_eq!(marks.forget_before(mark(30).place).unwrap(), 30);
    assert_eq!((marks.count(), marks.oldest().unwrap()), (70, Some(mark(30))));
    assert!(marks.append(mark(100)).unwrap());
    drop(marks);
    let (marks, _) = Marks::open(&path).unwrap();
    assert_eq!(
        (marks.count(), marks.oldest().unwrap(), marks.newest()),
        (71, Some(mark(30)), Some(mark(100)))
    );
    assert_eq!(marks.forget_before(Place { lineage: 9, file: 0, offset: 0 }).unwrap(), 71);
    assert_eq!((marks.newest(), marks.count()), (None, 0));
}

#[test]
fn order_never_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (marks, _) = Marks::open(&dir.path().join("marks")).unwrap();
    assert!(marks.append(mark(5)).unwrap());
    assert!(!marks.append(mark(4)).unwrap(), "sent twice");
    let mut early = mark(6);
    early.time.seconds = 3;
    assert!(marks.append(early).unwrap());
    // The clock was set back: it counts as being at the time of the one before.
    assert_eq!(marks.at_or_before(mark(5).time).unwrap().unwrap().batch, 6);
    assert_eq!(marks.at_or_before(time(3)).unwrap(), None);
}

#[test]
fn a_torn_tail_is_cut_wherever_it_is_torn() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("marks");
    let (marks, _) = Marks::open(&path).unwrap();
    for n in 0..3 {
        marks.append(mark(n)).unwrap();
    }
    drop(marks);
    let whole = std::fs::read(&path).unwrap();
    for len in 0..=whole.len() {
        std::fs::write(&path, &whole[..len]).unwrap();
        let (marks, torn) = Marks::open(&path).unwrap();
        assert_eq!((marks.count(), torn), ((len as u64) / 56, (len as u64) % 56));
        let next = marks.count();
        assert!(marks.append(mark(next)).unwrap());
        assert_eq!(Marks::open(&path).unwrap().0.newest(), Some(mark(next)));
    }
    // A file that grew without its bytes (a power cut): zeros.
    let mut zeros = whole.clone();
    zeros.resize(whole.len() + 112, 0);
    std::fs::write(&path, &zeros).unwrap();
    let (marks, torn) = Marks::open(&path).unwrap();
    assert_eq!((marks.newest(), torn), (Some(mark(2)), 112));
}

#[test]
fn damage_is_passed_over() {
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("marks");
    let (marks, _) = Marks::open(&path).unwrap();
    for n in 0..60 {
        marks.append(mark(n)).unwrap();
    }
    let whole = std::fs::read(&path).unwrap();
    for _ in 0..200 {
        let mut bytes = whole.clone();
        let mut bad = std::collections::BTreeSet::new();
        for _ in 0..random.random_range(1..20) {
            let at = random.random_range(0..bytes.len());
            if bad.insert(at / 56) {
                bytes[at] ^= 1 << random.random_range(0..8);
            }
        }
        std::fs::write(&path, &bytes).unwrap();
        let (marks, _) = Marks::open(&path).unwrap();
        for n in 0..60_usize {
            let expected = (0..=n).rev().find(|good| !bad.contains(good)).map(|good| mark(good as u64));
            assert_eq!(marks.at_or_before(mark(n as u64).time).unwrap(), expected, "{n} of {bad:?}");
        }
    }
}
