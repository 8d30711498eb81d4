//! What a change says: "look at this object", "look at these names". Merging two gives what either says.

use crate::host::ObjectKey;
use smallvec::{SmallVec, smallvec};
use std::ops::Range;

/// More ranges than this are joined across their smallest gaps.
const MAX_RANGES: usize = 16;

/// A name in a directory.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)]
pub struct Entry {
    pub dir: ObjectKey,
    pub name: Box<[u8]>,
}

/// What may differ about an object's content.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Content {
    /// Only attributes; content is read again only if size or mtime differ from the shadow's.
    #[default]
    Keep,
    /// These byte ranges (a truncation is `new_size..u64::MAX`): sorted, apart, at most 16. With none at
    /// all, the content is as it was though the times may differ.
    Ranges(SmallVec<[Range<u64>; 2]>),
    /// Anywhere: read it all even when the times are equal.
    All,
}

impl Content {
    /// One range.
    pub fn range(range: Range<u64>) -> Content {
        Content::Ranges(smallvec![range])
    }

    /// Makes `self` say what either says.
    pub fn merge(&mut self, other: Content) {
        match (&mut *self, other) {
            (Content::All, _) | (_, Content::Keep) => {}
            (Content::Keep, other) | (_, other @ Content::All) => *self = other,
            (Content::Ranges(mine), Content::Ranges(theirs)) => {
                for range in theirs {
                    insert_range(mine, range);
                }
            }
        }
    }
}

/// Keeps `ranges` sorted, apart and few.
fn insert_range(ranges: &mut SmallVec<[Range<u64>; 2]>, new: Range<u64>) {
    if new.is_empty() {
        return;
    }
    // The first that ends at or after the new start, and the first that starts after the new end.
    let first = ranges.partition_point(|range| range.end < new.start);
    let past = ranges.partition_point(|range| range.start <= new.end);
    if first == past {
        ranges.insert(first, new);
    } else {
        let joined = new.start.min(ranges[first].start)..new.end.max(ranges[past - 1].end);
        ranges[first] = joined;
        ranges.drain(first + 1..past);
    }
    if ranges.len() > MAX_RANGES {
        let gap = |at: usize| ranges[at].start - ranges[at - 1].end;
        if let Some(at) = (1..ranges.len()).min_by_key(|&at| gap(at)) {
            ranges[at - 1].end = ranges[at].end;
            ranges.remove(at);
        }
    }
}

/// What may differ about an object. Merging two touches gives what either says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct Touch {
    pub content: Content,
    /// A store through mmap may be unrecorded: sync_file_range before reading.
    pub settle_pages: bool,
    /// For directories: the whole listing may differ.
    pub listing: bool,
}

impl Touch {
    /// Attributes only.
    pub const ATTRIBUTES: Touch = Touch { content: Content::Keep, settle_pages: false, listing: false };
    /// All of a file's content.
    pub const CONTENT: Touch = Touch { content: Content::All, settle_pages: false, listing: false };
    /// All of a file's content, which may have been stored through mmap.
    pub const SETTLED_CONTENT: Touch = Touch { content: Content::All, settle_pages: true, listing: false };
    /// A directory's whole listing.
    pub const LISTING: Touch = Touch { content: Content::Keep, settle_pages: false, listing: true };

    /// Attributes, times among them, and surely no content.
    pub fn attributes_only() -> Touch {
        Touch { content: Content::Ranges(SmallVec::new()), ..Touch::default() }
    }

    /// These bytes of a file.
    pub fn range(range: Range<u64>) -> Touch {
        Touch { content: Content::range(range), ..Touch::default() }
    }

    /// Makes `self` say what either says.
    pub fn merge(&mut self, other: Touch) {
        self.content.merge(other.content);
        self.settle_pages |= other.settle_pages;
        self.listing |= other.listing;
    }
}

/// "Look here."
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Change {
    Object(ObjectKey, Touch),
    /// Entries that must be read and shipped together (both ends of a rename, else one).
    Entries(SmallVec<[Entry; 2]>),
}

impl Change {
    /// One name may differ.
    pub fn entry(dir: &ObjectKey, name: &[u8]) -> Change {
        Change::Entries(smallvec![Entry { dir: dir.clone(), name: name.into() }])
    }

    /// Two names that must be read together.
    pub fn pair(from: (&ObjectKey, &[u8]), to: (&ObjectKey, &[u8])) -> Change {
        let entry = |(dir, name): (&ObjectKey, &[u8])| Entry { dir: dir.clone(), name: name.into() };
        Change::Entries(smallvec![entry(from), entry(to)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(content: &Content) -> Vec<(u64, u64)> {
        match content {
            Content::Ranges(ranges) => ranges.iter().map(|range| (range.start, range.end)).collect(),
            other => panic!("no ranges: {other:?}"),
        }
    }

    #[test]
    fn ranges_join_when_they_touch_and_stay_apart_otherwise() {
        let mut content = Content::range(100..200);
        content.merge(Content::range(300..400));
        content.merge(Content::range(0..50));
        assert_eq!(ranges(&content), [(0, 50), (100, 200), (300, 400)]);
        content.merge(Content::range(200..210));
        assert_eq!(ranges(&content), [(0, 50), (100, 210), (300, 400)]);
        content.merge(Content::range(40..350));
        assert_eq!(ranges(&content), [(0, 400)]);
        content.merge(Content::range(120..130));
        content.merge(Content::range(7..7));
        assert_eq!(ranges(&content), [(0, 400)]);
        content.merge(Content::range(390..u64::MAX));
        assert_eq!(ranges(&content), [(0, u64::MAX)]);
    }

    #[test]
    fn many_ranges_are_joined_across_the_smallest_gap() {
        let mut content = Content::Keep;
        for n in 0..16 {
            content.merge(Content::range(n * 100..n * 100 + 10));
        }
        assert_eq!(ranges(&content).len(), 16);
        content.merge(Content::range(5_000..5_001));
        content.merge(Content::range(5_003..5_004));
        let joined = ranges(&content);
        assert_eq!(joined.len(), 16);
        assert!(joined.contains(&(5_000, 5_004)), "{joined:?}");
        assert!(joined.iter().any(|&(from, to)| from == 0 && to >= 10), "{joined:?}");
    }

    #[test]
    fn random_ranges_cover_what_was_noted() {
        use rand::{Rng, SeedableRng};
        for seed in 0..200u64 {
            let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
            let mut content = Content::Keep;
            let mut noted = Vec::new();
            for _ in 0..rng.random_range(1..60) {
                let start = rng.random_range(0..1000u64);
                let range = start..start + rng.random_range(1..40);
                noted.push(range.clone());
                content.merge(Content::range(range));
            }
            let kept = ranges(&content);
            assert!(kept.len() <= MAX_RANGES, "seed {seed}");
            assert!(kept.windows(2).all(|pair| pair[0].1 < pair[1].0), "seed {seed}: {kept:?}");
            for range in noted {
                let covered = kept.iter().any(|&(from, to)| from <= range.start && range.end <= to);
                assert!(covered, "seed {seed}: {range:?} not in {kept:?}");
            }
        }
    }

    #[test]
    fn all_wins_and_keep_adds_nothing() {
        let mut content = Content::range(1..2);
        content.merge(Content::Keep);
        assert_eq!(content, Content::range(1..2));
        content.merge(Content::All);
        content.merge(Content::range(5..6));
        assert_eq!(content, Content::All);
        let mut touch = Touch::ATTRIBUTES;
        touch.merge(Touch::LISTING);
        touch.merge(Touch::SETTLED_CONTENT);
        assert_eq!(touch, Touch { content: Content::All, settle_pages: true, listing: true });
    }
}
