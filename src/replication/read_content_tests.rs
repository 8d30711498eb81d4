//! Tests of `read_content`.

use super::super::read::SinkError;
use super::*;
use crate::store::manifest::{BoxError, load};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

/// Keeps everything.
#[derive(Default)]
struct Kept {
    chunks: HashMap<Hash, Vec<u8>>,
    pages: HashMap<Hash, Vec<u8>>,
    given: usize,
}

impl ContentSink for Kept {
    fn chunk(&mut self, hash: Hash, bytes: Bytes, _: bool) -> Result<(), SinkError> {
        assert_eq!(Hash::of(&bytes), hash);
        self.chunks.insert(hash, bytes.to_vec());
        self.given += 1;
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

fn whole(file: &File, old: Option<&Manifest>, sink: &mut Kept) -> Manifest {
    let size = file.metadata().unwrap().len();
    let (manifest, len) = super::whole(file.as_fd(), size, false, old, sink).unwrap();
    assert_eq!(len, size);
    manifest
}

/// The manifest of a file, made from scratch.
pub(in super::super) fn manifest_of_file(file: &File) -> Manifest {
    whole(file, None, &mut Kept::default())
}

fn noise(random: &mut StdRng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    random.fill_bytes(&mut bytes);
    bytes
}

fn bytes_of(manifest: &Manifest, sink: &mut Kept) -> Vec<u8> {
    let extents = load(manifest, &mut |hash| sink.fetch(hash)).unwrap();
    let mut out = Vec::new();
    for extent in extents {
        match extent {
            Extent::Data { hash, .. } => out.extend_from_slice(&sink.chunks[&hash]),
            Extent::Hole { len } => out.resize(out.len() + len as usize, 0),
        }
    }
    out
}

#[test]
fn holes_are_found_and_short_ones_are_data() {
    let file = tempfile::tempfile().unwrap();
    let mut random = StdRng::seed_from_u64(1);
    file.write_all_at(&noise(&mut random, 10_000), 1 << 20).unwrap();
    file.write_all_at(&noise(&mut random, 10), 3 << 20).unwrap();
    file.set_len(5 << 20).unwrap();
    let mut sink = Kept::default();
    let manifest = whole(&file, None, &mut sink);
    let Manifest::Inline(extents) = &manifest else { panic!("few extents") };
    assert_eq!(
        extents.iter().filter(|extent| matches!(extent, Extent::Hole { .. })).count(),
        3,
        "{extents:?}"
    );
    assert_eq!(extents.len(), 5, "{extents:?}");
    let mut content = vec![0; 5 << 20];
    file.read_exact_at(&mut content, 0).unwrap();
    assert!(bytes_of(&manifest, &mut sink) == content);
    file.set_len(0).unwrap();
    assert_eq!(whole(&file, None, &mut sink), Manifest::EMPTY);
}

#[test]
fn known_chunks_are_not_given_again() {
    let file = tempfile::tempfile().unwrap();
    let mut random = StdRng::seed_from_u64(2);
    file.write_all_at(&noise(&mut random, 4_000_000), 0).unwrap();
    let mut sink = Kept::default();
    let first = whole(&file, None, &mut sink);
    let given = sink.given;
    assert!(given > 20);
    assert_eq!(whole(&file, Some(&first), &mut sink), first);
    assert_eq!(sink.given, given);
    file.write_all_at(b"x", 2_000_000).unwrap();
    let second = whole(&file, Some(&first), &mut sink);
    assert_ne!(second, first);
    assert!(sink.given <= given + 3, "{} chunks for one byte", sink.given - given);
}

/// After any change within the ranges the manifest is that of the whole file.
#[test]
fn ranges_give_what_reading_the_whole_file_gives() {
    for seed in 0..60u64 {
        let mut random = StdRng::seed_from_u64(seed);
        let file = tempfile::tempfile().unwrap();
        let mut sink = Kept::default();
        let scale = [200_000, 2_000_000, 12_000_000][(seed % 3) as usize];
        for _ in 0..random.random_range(1..6) {
            let len = random.random_range(1..scale / 2);
            let at = random.random_range(0..scale as u64);
            file.write_all_at(&noise(&mut random, len), at).unwrap();
        }
        let mut manifest = whole(&file, None, &mut sink);
        for round in 0..6 {
            let old_size = file.metadata().unwrap().len();
            let mut ranges: Vec<Range<u64>> = Vec::new();
            for _ in 0..random.random_range(1..4) {
                let len = random.random_range(1..50_000u64);
                let at = match random.random_range(0..5) {
                    0 => old_size,
                    1 => chunk_edge(&manifest, &mut sink, &mut random),
                    _ => random.random_range(0..old_size + 100_000),
                };
                match random.random_range(0..4) {
                    0 if at < old_size => {
                        let end = (at + len).min(old_size);
                        crate::host::punch_hole(file.as_fd(), at, end - at).unwrap();
                        ranges.push(at..end);
                    }
                    1 if round % 2 == 1 => {
                        file.set_len(at).unwrap();
                        ranges.push(at..u64::MAX);
                    }
                    _ => {
                        file.write_all_at(&noise(&mut random, len as usize), at).unwrap();
                        ranges.push(at..at + len);
                    }
                }
            }
            let size = file.metadata().unwrap().len();
            if size == 0 {
                break;
            }
            let longest = old_size.max(size);
            ranges.push(old_size.min(size)..longest);
            // As `read` prepares them.
            let mut sorted: Vec<Range<u64>> =
                ranges.iter().map(|r| r.start..r.end.min(longest)).filter(|r| r.start < r.end).collect();
            sorted.sort_by_key(|range| range.start);
            let mut merged: Vec<Range<u64>> = Vec::new();
            for range in sorted {
                match merged.last_mut() {
                    Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                    _ => merged.push(range),
                }
            }
            let given = sink.given;
            let changed = super::ranges(file.as_fd(), size, &manifest, &merged, &mut sink).unwrap();
            let given = sink.given - given;
            let changed = changed.unwrap_or_else(|| panic!("seed {seed} round {round}: gave up"));
            let mut scratch = Kept::default();
            let expected = whole(&file, None, &mut scratch);
            assert!(changed == expected, "seed {seed} round {round} {merged:?} of {size}");
            let total: u64 = merged.iter().map(|range| range.end - range.start).sum();
            assert!(
                given as u64 <= 8 * merged.len() as u64 + total / 8_000,
                "seed {seed}: {given} chunks for {merged:?}"
            );
            manifest = changed;
        }
    }
}

/// The first byte of some extent, or a neighbour: the hardest places.
fn chunk_edge(manifest: &Manifest, sink: &mut Kept, random: &mut StdRng) -> u64 {
    let extents = load(manifest, &mut |hash| sink.fetch(hash)).unwrap();
    let count = random.random_range(0..=extents.len());
    let edge: u64 = extents[..count].iter().map(Extent::len).sum();
    (edge + random.random_range(0..3)).saturating_sub(1)
}
