//! An object's state as one compact value of a row. Version 1: integers are LEB128, byte strings have their length first.

use ehpc_proto::replication::{
    Extent, Hash, INLINE_EXTENTS, Kind, Manifest, ObjectId, ObjectState, Timestamp, Xattr,
};

const VERSION: u8 = 1;
const FUZZY: u8 = 1;
const SPECIAL: u8 = 2;
const PAGED: u8 = 4;

pub(super) fn kind_byte(kind: Kind) -> u8 {
    match kind {
        Kind::File => 1,
        Kind::Directory => 2,
        Kind::Symlink => 3,
        Kind::Fifo => 4,
        Kind::Socket => 5,
        Kind::CharDevice => 6,
        Kind::BlockDevice => 7,
    }
}

fn kind_of(byte: u8) -> Option<Kind> {
    Some(match byte {
        1 => Kind::File,
        2 => Kind::Directory,
        3 => Kind::Symlink,
        4 => Kind::Fifo,
        5 => Kind::Socket,
        6 => Kind::CharDevice,
        7 => Kind::BlockDevice,
        _ => return None,
    })
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The state without its number, which is the row's key. `out` is cleared first.
pub(super) fn encode(state: &ObjectState, out: &mut Vec<u8>) {
    out.clear();
    let special = state.rdev != (0, 0) || !state.target.is_empty() || !state.xattrs.is_empty();
    let paged = matches!(state.content, Manifest::Paged { .. });
    let flags = [(state.fuzzy, FUZZY), (special, SPECIAL), (paged, PAGED)];
    let flags = flags.iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum();
    out.extend_from_slice(&[VERSION, kind_byte(state.kind), flags]);
    put_bytes(out, &state.key);
    put(out, u64::from(state.mode));
    put(out, u64::from(state.uid));
    put(out, u64::from(state.gid));
    put(out, state.size);
    let seconds = state.mtime.seconds;
    put(out, ((seconds << 1) ^ (seconds >> 63)) as u64);
    put(out, u64::from(state.mtime.nanos));
    if special {
        put(out, u64::from(state.rdev.0));
        put(out, u64::from(state.rdev.1));
        put_bytes(out, &state.target);
        put(out, state.xattrs.len() as u64);
        for xattr in &state.xattrs {
            put_bytes(out, &xattr.name);
            put_bytes(out, &xattr.value);
        }
    }
    match &state.content {
        Manifest::Paged { root } => out.extend_from_slice(&root.0),
        Manifest::Inline(extents) => {
            put(out, extents.len() as u64);
            for extent in extents {
                match extent {
                    Extent::Data { hash, len } => {
                        put(out, u64::from(*len) << 1);
                        out.extend_from_slice(&hash.0);
                    }
                    // Nearly every hole fits; the rest is told by the marker of an empty hole.
                    Extent::Hole { len } if *len < 1 << 62 => put(out, (*len << 1) | 1),
                    Extent::Hole { len } => {
                        put(out, 1);
                        put(out, *len);
                    }
                }
            }
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.number()?).ok()?;
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    fn hash(&mut self) -> Option<Hash> {
        let (head, rest) = self.0.split_first_chunk::<32>()?;
        self.0 = rest;
        Some(Hash(*head))
    }

    fn extent(&mut self) -> Option<Extent> {
        let number = self.number()?;
        Some(match number {
            1 => Extent::Hole { len: self.number()? },
            _ if number & 1 == 1 => Extent::Hole { len: number >> 1 },
            _ => Extent::Data { len: u32::try_from(number >> 1).ok()?, hash: self.hash()? },
        })
    }
}

/// The reverse of [`encode`]; `None` if malformed.
pub(super) fn decode(id: ObjectId, bytes: &[u8]) -> Option<ObjectState> {
    let mut reader = Reader(bytes);
    if reader.byte()? != VERSION {
        return None;
    }
    let kind = kind_of(reader.byte()?)?;
    let flags = reader.byte()?;
    let mut state = ObjectState {
        id,
        key: reader.bytes()?.to_vec(),
        kind,
        mode: u16::try_from(reader.number()?).ok()?,
        uid: u32::try_from(reader.number()?).ok()?,
        gid: u32::try_from(reader.number()?).ok()?,
        size: reader.number()?,
        mtime: {
            let seconds = reader.number()?;
            let seconds = (seconds >> 1) as i64 ^ -((seconds & 1) as i64);
            Timestamp { seconds, nanos: u32::try_from(reader.number()?).ok()? }
        },
        rdev: (0, 0),
        target: Vec::new(),
        xattrs: Vec::new(),
        content: Manifest::EMPTY,
        fuzzy: flags & FUZZY != 0,
    };
    if flags & SPECIAL != 0 {
        state.rdev = (u32::try_from(reader.number()?).ok()?, u32::try_from(reader.number()?).ok()?);
        state.target = reader.bytes()?.to_vec();
        for _ in 0..reader.number()? {
            let name = reader.bytes()?.to_vec();
            state.xattrs.push(Xattr { name, value: reader.bytes()?.to_vec() });
        }
    }
    state.content = if flags & PAGED != 0 {
        Manifest::Paged { root: reader.hash()? }
    } else {
        let count = reader.number()?;
        if count > INLINE_EXTENTS as u64 {
            return None;
        }
        Manifest::Inline((0..count).map(|_| reader.extent()).collect::<Option<_>>()?)
    };
    reader.0.is_empty().then_some(state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    fn some_state(rng: &mut StdRng) -> ObjectState {
        let kinds = [Kind::File, Kind::Directory, Kind::Symlink, Kind::Fifo, Kind::Socket, Kind::CharDevice];
        let bytes = |rng: &mut StdRng, most: usize| -> Vec<u8> {
            (0..rng.random_range(0..=most)).map(|_| rng.random()).collect()
        };
        let wide = |rng: &mut StdRng| rng.random::<u64>() >> rng.random_range(0..64);
        let content = if rng.random_bool(0.3) {
            Manifest::Paged { root: Hash(rng.random()) }
        } else {
            let extent = |rng: &mut StdRng| match rng.random_bool(0.5) {
                true => Extent::Data { hash: Hash(rng.random()), len: rng.random_range(1..=262_144) },
                false => Extent::Hole { len: wide(rng).max(1) },
            };
            Manifest::Inline((0..rng.random_range(0..=INLINE_EXTENTS)).map(|_| extent(rng)).collect())
        };
        ObjectState {
            id: ObjectId(7),
            key: bytes(rng, 40),
            kind: kinds[rng.random_range(0..kinds.len())],
            mode: rng.random_range(0..=0o7777),
            uid: wide(rng) as u32,
            gid: wide(rng) as u32,
            size: wide(rng),
            mtime: Timestamp { seconds: rng.random::<i64>() >> rng.random_range(0..64), nanos: rng.random() },
            rdev: if rng.random_bool(0.5) { (0, 0) } else { (rng.random(), rng.random()) },
            target: if rng.random_bool(0.5) { Vec::new() } else { bytes(rng, 300) },
            xattrs: (0..rng.random_range(0..3))
                .map(|_| Xattr { name: bytes(rng, 20), value: bytes(rng, 300) })
                .collect(),
            content,
            fuzzy: rng.random(),
        }
    }

    #[test]
    fn decode_gives_what_was_encoded_and_refuses_the_rest() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut row = Vec::new();
        for _ in 0..2000 {
            let state = some_state(&mut rng);
            encode(&state, &mut row);
            assert_eq!(decode(state.id, &row).as_ref(), Some(&state));
            let short = rng.random_range(0..row.len());
            assert_eq!(decode(state.id, &row[..short]), None);
            row.push(0);
            assert_eq!(decode(state.id, &row), None);
        }
    }
}
