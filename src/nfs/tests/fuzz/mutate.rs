//! Changes to valid requests: a few at a time, of the kinds that decoders stumble over.

use ehpc_proto::record::{MAX_FRAGMENTS, MAX_RECORD};
use ehpc_tools::nfs_client::Client;
use rand::Rng;
use rand::rngs::StdRng;

/// Numbers at which something begins or ends.
const WORDS: [u32; 18] = [
    0,
    1,
    2,
    3,
    4,
    7,
    17,
    63,
    64,
    65,
    255,
    4096,
    4097,
    1 << 20,
    (1 << 20) + 1,
    0x7fff_ffff,
    0x8000_0000,
    u32::MAX,
];

/// Bytes before the arguments of the seeds: header, AUTH_SYS with two groups, verifier.
const HEADER: usize = 24 + 8 + 32 + 8;

/// One of the seeds with up to four changes, and a transaction of its own.
pub(super) fn mutated(random: &mut StdRng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seeds[random.random_range(0..seeds.len())].clone();
    let xid: u32 = random.random();
    bytes[..4].copy_from_slice(&xid.to_be_bytes());
    for _ in 0..random.random_range(0..=4) {
        change(random, &mut bytes, seeds);
    }
    bytes
}

fn change(random: &mut StdRng, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    if bytes.is_empty() {
        bytes.push(random.random());
    }
    let len = bytes.len();
    // Mostly in the arguments: a broken header is refused before much is done.
    let from = if random.random_bool(0.8) { HEADER.min(len - 1) } else { 0 };
    let at = random.random_range(from..len);
    // XDR counts in words: most fields begin at one.
    let word = at & !3;
    match random.random_range(0..11) {
        0 => bytes[at] ^= 1 << random.random_range(0..8),
        1 => bytes[at] = random.random(),
        2..5 if word + 4 <= len => {
            let value = WORDS[random.random_range(0..WORDS.len())];
            bytes[word..word + 4].copy_from_slice(&value.to_be_bytes());
        }
        5 if word + 4 <= len => {
            let mut value = [0; 4];
            value.copy_from_slice(&bytes[word..word + 4]);
            let near = u32::from_be_bytes(value).wrapping_add_signed(random.random_range(-4..=4));
            bytes[word..word + 4].copy_from_slice(&near.to_be_bytes());
        }
        6 => bytes.truncate(at),
        7 => {
            let more = random.random_range(1..64);
            let value = random.random();
            bytes.splice(at..at, std::iter::repeat_n(value, more));
        }
        8 => {
            let end = len.min(at + random.random_range(1..32));
            let again = bytes[at..end].to_vec();
            bytes.splice(word..word, again);
        }
        9 => {
            // The head of this one, the rest of another.
            let other = &seeds[random.random_range(0..seeds.len())];
            let from = random.random_range(0..other.len()) & !3;
            bytes.truncate(word);
            bytes.extend_from_slice(&other[from..]);
        }
        _ => {
            let end = len.min(at + random.random_range(1..16));
            bytes.drain(at..end);
        }
    }
}

/// Sends a record in pieces, or with a frame that is wrong; true if it arrives as it is.
pub(super) fn sent_in_fragments(client: &mut Client, random: &mut StdRng, request: &[u8]) -> bool {
    let mut bytes = Vec::new();
    let whole = match random.random_range(0..6) {
        // Every cut, empty fragments among them.
        0..3 => {
            let pieces = random.random_range(1..12);
            let mut rest = request;
            for _ in 1..pieces {
                let (piece, after) = rest.split_at(random.random_range(0..=rest.len()));
                bytes.extend((piece.len() as u32).to_be_bytes());
                bytes.extend(piece);
                rest = after;
            }
            bytes.extend((0x8000_0000 | rest.len() as u32).to_be_bytes());
            bytes.extend(rest);
            true
        }
        3 => {
            // Longer than it is: the end never comes.
            bytes.extend((0x8000_0000 | (request.len() as u32 + 1)).to_be_bytes());
            bytes.extend(request);
            false
        }
        4 => {
            let too_long = random.random_range(MAX_RECORD as u32 + 1..0x8000_0000);
            bytes.extend((too_long | (random.random::<u32>() & 0x8000_0000)).to_be_bytes());
            bytes.extend(request);
            false
        }
        _ => {
            bytes.extend(vec![0; 4 * (MAX_FRAGMENTS + 1)]);
            bytes.extend(request);
            false
        }
    };
    // The server may close before everything is sent.
    client.send_raw(&bytes).is_ok() && whole
}
