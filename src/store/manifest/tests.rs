//! Splice equals build; decoders refuse what is not theirs.

use super::encoding::{encode_page, encode_root};
use super::*;
use ehpc_proto::replication::{INLINE_EXTENTS, PAGE_EXTENTS};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::collections::HashMap;

#[derive(Default)]
struct Shelf(HashMap<Hash, Vec<u8>>, usize);

impl Shelf {
    fn put(&mut self, blobs: Vec<NamedBlob>) {
        for (hash, bytes) in blobs {
            assert_eq!(hash, Hash::of(&bytes));
            self.0.insert(hash, bytes);
        }
    }

    fn get(&mut self, hash: &Hash) -> Result<Vec<u8>, BoxError> {
        self.1 += 1;
        self.0.get(hash).cloned().ok_or_else(|| "not on the shelf".into())
    }
}

fn data(rng: &mut StdRng) -> Extent {
    Extent::Data { hash: Hash(rng.random()), len: rng.random_range(1..=100) }
}

fn some_extents(rng: &mut StdRng, count: usize, holes: bool) -> Vec<Extent> {
    (0..count)
        .map(|_| match holes && rng.random_bool(0.4) {
            true => Extent::Hole { len: rng.random_range(1..1000) },
            false => data(rng),
        })
        .collect()
}

/// What the file's extents are once adjacent holes are one.
fn normal(extents: &[Extent]) -> Vec<Extent> {
    let mut out: Vec<Extent> = Vec::new();
    for extent in extents {
        match (out.last_mut(), extent) {
            (Some(Extent::Hole { len }), Extent::Hole { len: more }) => *len += more,
            _ => out.push(*extent),
        }
    }
    out
}

#[test]
fn build_then_load_gives_the_extents() {
    let mut rng = StdRng::seed_from_u64(1);
    for count in [0, 1, 15, 16, 17, 255, 256, 257, 1023, 1024, 1025, 5000] {
        for holes in [false, true] {
            let extents = some_extents(&mut rng, count, holes);
            let mut shelf = Shelf::default();
            let (manifest, blobs) = build(extents.clone()).unwrap();
            shelf.put(blobs);
            let expected = normal(&extents);
            assert_eq!(matches!(manifest, Manifest::Inline(_)), expected.len() <= INLINE_EXTENTS);
            assert_eq!(load(&manifest, &mut |hash| shelf.get(hash)).unwrap(), expected);
            let len = total_len(&manifest, &mut |hash| shelf.get(hash)).unwrap();
            assert_eq!(len, expected.iter().map(Extent::len).sum::<u64>());
        }
    }
}

#[test]
fn splice_equals_build_from_scratch() {
    for seed in 0..400 {
        let mut rng = StdRng::seed_from_u64(seed);
        let holes = seed % 3 != 0;
        let count = match seed % 4 {
            0 => rng.random_range(0..40),
            1 => rng.random_range(200..1300),
            _ => rng.random_range(0..6000),
        };
        let mut extents = normal(&some_extents(&mut rng, count, holes));
        // A page that is full with a hole as its last extent is the hard case.
        if holes && extents.len() > PAGE_EXTENTS && rng.random_bool(0.5) {
            extents[PAGE_EXTENTS - 1] = Extent::Hole { len: 5 };
            extents = normal(&extents);
        }
        let mut shelf = Shelf::default();
        let (manifest, blobs) = build(extents.clone()).unwrap();
        shelf.put(blobs);

        let from = rng.random_range(0..=extents.len());
        let to = match rng.random_range(0..4) {
            0 => extents.len(),
            1 => from,
            _ => rng.random_range(from..=extents.len().min(from + 1500)),
        };
        let fresh = match rng.random_range(0..3) {
            0 => Vec::new(),
            1 => some_extents(&mut rng, 2, holes),
            _ => {
                let count = rng.random_range(0..2000);
                some_extents(&mut rng, count, holes)
            }
        };
        let at = |index: usize| extents[..index].iter().map(Extent::len).sum::<u64>();
        let mut expected = extents[..from].to_vec();
        expected.extend_from_slice(&fresh);
        expected.extend_from_slice(&extents[to..]);
        let scratch = build(expected.clone()).unwrap();

        let (spliced, blobs) =
            splice(&manifest, at(from)..at(to), &fresh, &mut |hash| shelf.get(hash)).unwrap();
        assert_eq!(spliced, scratch.0, "seed {seed}");
        let new = blobs.len();
        shelf.put(blobs);
        assert_eq!(load(&spliced, &mut |hash| shelf.get(hash)).unwrap(), normal(&expected), "seed {seed}");
        assert!(new <= scratch.1.len(), "seed {seed}");
    }
}

#[test]
fn splice_within_holes_and_refusal_within_chunks() {
    let mut rng = StdRng::seed_from_u64(3);
    let chunk = Extent::Data { hash: Hash([7; 32]), len: 10 };
    let mut extents = vec![Extent::Hole { len: 100 }, chunk];
    extents.extend((0..3000).map(|_| data(&mut rng)));
    let mut shelf = Shelf::default();
    let (manifest, blobs) = build(extents.clone()).unwrap();
    shelf.put(blobs);
    let (punched, blobs) = splice(&manifest, 40..60, &[data(&mut rng)], &mut |h| shelf.get(h)).unwrap();
    shelf.put(blobs);
    let got = load(&punched, &mut |hash| shelf.get(hash)).unwrap();
    assert_eq!((got[0], got[2], got[3]), (Extent::Hole { len: 40 }, Extent::Hole { len: 40 }, chunk));
    for range in [100..105, 105..110, 0..u64::MAX] {
        let refused = splice(&manifest, range, &[], &mut |hash| shelf.get(hash));
        assert!(matches!(refused, Err(ManifestError::Range { .. })));
    }
}

#[test]
fn a_small_change_to_a_huge_file_costs_one_page_and_the_root() {
    let mut rng = StdRng::seed_from_u64(4);
    let extents: Vec<Extent> = (0..131_072).map(|_| data(&mut rng)).collect();
    let mut shelf = Shelf::default();
    let (manifest, blobs) = build(extents.clone()).unwrap();
    shelf.put(blobs);
    let len = total_len(&manifest, &mut |hash| shelf.get(hash)).unwrap();
    let middle = extents[..70_000].iter().map(Extent::len).sum::<u64>();
    for (range, most) in [(len..len, 2), (middle..middle + extents[70_000].len(), 5)] {
        shelf.1 = 0;
        let fresh = [data(&mut rng), data(&mut rng)];
        let (_, blobs) = splice(&manifest, range, &fresh, &mut |hash| shelf.get(hash)).unwrap();
        assert!(blobs.len() <= most, "{} new blobs", blobs.len());
        assert!(shelf.1 <= most, "{} look-ups", shelf.1);
    }
}

#[test]
fn difference_shows_what_moved_and_reads_no_equal_page() {
    for seed in 0..100 {
        let mut rng = StdRng::seed_from_u64(seed);
        let count = rng.random_range(0..4000);
        let old: Vec<Extent> = (0..count).map(|_| data(&mut rng)).collect();
        let mut new = old.clone();
        for _ in 0..rng.random_range(0..4) {
            if let Some(index) = (!new.is_empty()).then(|| rng.random_range(0..new.len())) {
                let len = new[index].len() as u32;
                new[index] = Extent::Data { hash: Hash(rng.random()), len };
            }
        }
        new.extend((0..rng.random_range(0..3)).map(|_| data(&mut rng)));
        let mut shelf = Shelf::default();
        let (a, blobs) = build(old.clone()).unwrap();
        shelf.put(blobs);
        let (b, blobs) = build(new.clone()).unwrap();
        shelf.put(blobs);
        let placed = |extents: &[Extent]| {
            let mut end = 0;
            let place = |extent: &Extent| {
                end += extent.len();
                (end - extent.len(), *extent)
            };
            extents.iter().map(place).collect::<Vec<_>>()
        };
        let before = placed(&old);
        let expected: Vec<_> = placed(&new).into_iter().filter(|row| !before.contains(row)).collect();
        let mut got = Vec::new();
        for_each_difference::<ManifestError>(&a, &b, &mut |hash| shelf.get(hash), &mut |start, extent| {
            got.push((start, extent));
            Ok(())
        })
        .unwrap();
        assert_eq!(got, expected, "seed {seed}");
    }
}

#[test]
fn overlapping_is_what_a_full_scan_finds() {
    let mut rng = StdRng::seed_from_u64(9);
    let extents = normal(&some_extents(&mut rng, 3000, true));
    let mut shelf = Shelf::default();
    let (manifest, blobs) = build(extents.clone()).unwrap();
    shelf.put(blobs);
    let index = Index::open(&manifest, &mut |hash| shelf.get(hash)).unwrap();
    for _ in 0..300 {
        let start = rng.random_range(0..index.len() + 10);
        let end = start + rng.random_range(0..5000);
        let mut at = 0;
        let mut expected = Vec::new();
        for extent in &extents {
            if at < end && at + extent.len() > start && start < end {
                expected.push((at, *extent));
            }
            at += extent.len();
        }
        assert_eq!(index.overlapping(start..end, &mut |hash| shelf.get(hash)).unwrap(), expected);
    }
}

#[test]
fn decoders_refuse_garbage() {
    let hash = Hash([1; 32]);
    let mut rng = StdRng::seed_from_u64(5);
    let page = encode_page(&[data(&mut rng), Extent::Hole { len: 9 }]);
    assert_eq!(decode_page(&hash, &page).unwrap().len(), 2);
    let root = encode_root(&[PageRef { hash, bytes: 70, extents: 700 }]);
    assert_eq!(decode_root(&hash, &root).unwrap().len(), 1);
    for len in 0..page.len() {
        assert!(decode_page(&hash, &page[..len]).is_err());
    }
    for len in 0..root.len() {
        assert!(decode_root(&hash, &root[..len]).is_err());
    }
    let long = |mut bytes: Vec<u8>| {
        bytes.push(0);
        bytes
    };
    assert!(decode_page(&hash, &long(page.clone())).is_err());
    assert!(decode_root(&hash, &long(root.clone())).is_err());
    assert!(decode_page(&hash, &encode_page(&[])).is_err());
    assert!(decode_page(&hash, &encode_page(&[Extent::Hole { len: 0 }])).is_err());
    assert!(decode_page(&hash, &encode_page(&[Extent::Data { hash, len: 262_145 }])).is_err());
    let twice = [Extent::Hole { len: u64::MAX }, Extent::Hole { len: 1 }];
    assert!(decode_page(&hash, &encode_page(&twice)).is_err());
    assert!(decode_root(&hash, &encode_root(&[PageRef { hash, bytes: 0, extents: 700 }])).is_err());
    assert!(decode_root(&hash, &encode_root(&[PageRef { hash, bytes: 5, extents: 16 }])).is_err());
    assert!(decode_root(&hash, &[b'R', 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
    assert!(matches!(build([Extent::Hole { len: 0 }]), Err(ManifestError::ExtentLength { len: 0 })));
    assert!(matches!(
        build([Extent::Hole { len: u64::MAX }, Extent::Hole { len: 1 }]),
        Err(ManifestError::TooLong)
    ));
}
