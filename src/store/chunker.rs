//! Content-defined chunk boundaries: FastCDC v2020 with 16/64/256 KiB.
//!
//! A boundary depends on the bytes since the boundary before it **and on the two bytes after it**: FastCDC tests the
//! hash that already holds the next byte, and takes bytes in pairs, so that the second must exist. So after a change at
//! offset `x` chunking starts again at the chunk that holds byte `x - 2`; see [`restart`]. Two streams that agree from a common boundary on agree in every later one.

pub use ehpc_proto::replication::MAX_CHUNK;
use ehpc_proto::replication::{Extent, Hash};
use fastcdc::v2020::{self, Normalization};
use std::sync::LazyLock;

/// Files (and data segments) up to this length are one chunk.
pub const MIN_CHUNK: usize = 16 * 1024;
/// What the boundaries aim at.
pub const AVERAGE_CHUNK: usize = 64 * 1024;

static MASKS: LazyLock<(u64, u64)> =
    LazyLock::new(|| v2020::select_masks(AVERAGE_CHUNK, Normalization::Level1));

/// Length of the first chunk of `data`, which starts at a boundary. `eof`: the data segment ends with `data`.
///
/// `None`: more bytes are needed to tell (never with `eof`, nor with [`MAX_CHUNK`] bytes or more), or `data` is empty.
pub fn cut(data: &[u8], eof: bool) -> Option<usize> {
    if data.is_empty() {
        return None;
    }
    let (small, large) = *MASKS;
    let (_, len) =
        v2020::cut(data, MIN_CHUNK, AVERAGE_CHUNK, MAX_CHUNK, small, large, small << 1, large << 1);
    (eof || len < data.len() || len == MAX_CHUNK).then_some(len)
}

/// The chunks of a whole data segment.
pub fn split(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (chunk, rest) = data.split_at(cut(data, true)?);
        data = rest;
        Some(chunk)
    })
}

/// The extents of a whole data segment.
pub fn extents(data: &[u8]) -> Vec<Extent> {
    split(data).map(|chunk| Extent::Data { hash: Hash::of(chunk), len: chunk.len() as u32 }).collect()
}

/// The byte whose chunk is the first that a change at `offset` can alter (the new length, if the file was cut):
/// chunking starts again at that chunk's start.
pub fn restart(offset: u64) -> u64 {
    offset.saturating_sub(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngCore, SeedableRng, rngs::StdRng};

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        StdRng::seed_from_u64(seed).fill_bytes(&mut data);
        data
    }

    #[test]
    fn short_segments_are_one_chunk() {
        for len in [1, 2, 4095, MIN_CHUNK - 1, MIN_CHUNK] {
            assert_eq!(cut(&noise(1, len), true), Some(len));
        }
        assert_eq!(cut(&[], true), None);
        assert_eq!(cut(&noise(1, MIN_CHUNK), false), None);
    }

    #[test]
    fn zeros_end_at_the_longest_chunk() {
        assert_eq!(cut(&vec![0; 3 * MAX_CHUNK], false), Some(MAX_CHUNK));
        assert_eq!(cut(&vec![0; MAX_CHUNK], false), Some(MAX_CHUNK));
        assert_eq!(cut(&vec![0; MAX_CHUNK - 1], false), None);
    }

    #[test]
    fn feeding_in_pieces_gives_the_same_boundaries() {
        for seed in 0..8 {
            let data = noise(seed, 700_001 + seed as usize * 7777);
            let whole: Vec<usize> = split(&data).map(<[u8]>::len).collect();
            assert!(whole.iter().all(|&len| len <= MAX_CHUNK));
            let (mut lens, mut start, mut fed) = (Vec::new(), 0, 0);
            let step = 4001 + (seed as usize * 13_337) % 90_000;
            while start < data.len() {
                let eof = fed == data.len();
                match cut(&data[start..fed], eof) {
                    Some(len) => {
                        lens.push(len);
                        start += len;
                    }
                    None => fed = (fed + step).min(data.len()),
                }
            }
            assert_eq!(lens, whole, "seed {seed}");
        }
    }

    #[test]
    fn a_change_never_moves_an_earlier_boundary_than_restart_says() {
        for seed in 0..60 {
            let data = noise(seed, 900_000);
            let bounds: Vec<usize> = boundaries(&data);
            // The hardest offsets: the first byte of a chunk, and its neighbours.
            let at = bounds[1 + seed as usize % (bounds.len() - 2)] + (seed as usize % 3) - 1;
            let mut changed = data.clone();
            changed[at] ^= 0x5a;
            let keep = restart(at as u64) as usize;
            let kept = |bounds: &[usize]| bounds.iter().copied().filter(|&b| b <= keep).collect::<Vec<_>>();
            assert_eq!(kept(&bounds), kept(&boundaries(&changed)), "seed {seed} offset {at}");
        }
    }

    #[test]
    fn a_cut_never_moves_an_earlier_boundary_than_restart_says() {
        for seed in 0..60 {
            let data = noise(seed, 900_000);
            let bounds: Vec<usize> = boundaries(&data);
            let len = bounds[1 + seed as usize % (bounds.len() - 2)] + seed as usize % 4;
            let keep = restart(len as u64) as usize;
            let kept = |bounds: &[usize]| bounds.iter().copied().filter(|&b| b <= keep).collect::<Vec<_>>();
            assert_eq!(kept(&bounds), kept(&boundaries(&data[..len])), "seed {seed} length {len}");
        }
    }

    #[test]
    fn an_insert_is_forgotten_soon() {
        let data = noise(7, 4_000_000);
        let mut shifted = data.clone();
        shifted.splice(1_000_000..1_000_000, *b"seventeen bytes!!");
        let old: std::collections::HashSet<_> = extents(&data).into_iter().collect();
        let new = extents(&shifted);
        let fresh = new.iter().filter(|extent| !old.contains(extent)).count();
        assert!(fresh <= 6, "{fresh} of {} chunks changed", new.len());
    }

    fn boundaries(data: &[u8]) -> Vec<usize> {
        let mut end = 0;
        split(data)
            .map(|chunk| {
                end += chunk.len();
                end - chunk.len()
            })
            .collect()
    }
}
