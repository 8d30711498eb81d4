//! The next operation: mostly one that can succeed, on what is there.

use super::{Act, Guard, Name, Step, Twins, one_of};
use crate::host::ObjectKey;
use crate::vfs::{CreateHow, SetAcls, SetAttributes, SetTime, Stability};
use ehpc_proto::posix_acl::{Acl, Entry, NO_ID, Tag};
use ehpc_proto::replication::{Kind, Timestamp};
use rand::Rng;
use rand::rngs::StdRng;

/// Around these a file is written and read: within it, past 4 GiB, past what 40 bits hold.
const PLACES: [u64; 8] = [0, 0, 0, 0, 0, 0, (4 << 30) - 1500, 1 << 40];

impl Twins {
    pub(super) fn generate(&self, random: &mut StdRng, number: u32) -> Step {
        let caller = random.random_range(0..self.callers.len());
        let what = random.random_range(0..104);
        // Operations on names mostly get a directory, the others anything.
        let (object, other) = match what {
            0..57 | 84..90 | 97..100 => (self.pick_directory(random), self.pick_directory(random)),
            57..62 => (self.pick(random), self.pick_directory(random)),
            _ => (self.pick(random), self.pick(random)),
        };
        let (mut name, second) = (self.name(random), self.name(random));
        if let 36..57 | 84..88 = what {
            let dir = self.keys(object).map(|(_, model)| model);
            name = dir.and_then(|dir| self.existing_name(random, &dir)).unwrap_or(name);
        }
        let set = attributes(random);
        let act = match what {
            0..16 => Act::Create(name, create_how(random, set)),
            16..26 => Act::Mkdir(name, set),
            26..32 => Act::Symlink(name, target(second), set),
            32..36 => Act::Mknod(name, one_of(random, &[Kind::Fifo, Kind::Socket, Kind::CharDevice]), set),
            36..42 => Act::Remove(name),
            42..47 => Act::Rmdir(name),
            47..57 => Act::Rename(name, second),
            57..62 => Act::Link(name),
            62..70 => {
                let guards = [Guard::Absent, Guard::Absent, Guard::Absent, Guard::Right, Guard::Wrong];
                Act::Setattr(set, one_of(random, &guards))
            }
            70..78 => write(random),
            78..84 => {
                let offset = one_of(random, &PLACES) + random.random_range(0..8000);
                Act::Read { offset, count: random.random_range(0..8000) }
            }
            84..88 => Act::Lookup(name),
            88..90 => Act::Parent,
            90..95 => Act::Access,
            95..97 => Act::Readlink,
            100.. => Act::SetAcls(acls(random)),
            _ => Act::Readdir { plus: random.random_bool(0.5) },
        };
        Step { number, caller, object, other, act }
    }

    /// Mostly something that exists; sometimes long gone.
    fn pick(&self, random: &mut StdRng) -> u32 {
        let recent = self.known.len().saturating_sub(60);
        let from = if random.random_bool(0.8) { recent } else { 0 };
        if random.random_bool(0.15) {
            return 0;
        }
        self.known[random.random_range(from..self.known.len())].0
    }

    fn pick_directory(&self, random: &mut StdRng) -> u32 {
        for _ in 0..20 {
            let picked = self.pick(random);
            let keys = self.keys(picked);
            let found = keys.and_then(|(_, key)| self.stage.model.getattr(&self.callers[0], &key).ok());
            if found.is_some_and(|found| found.kind == Kind::Directory) || random.random_bool(0.05) {
                return picked;
            }
        }
        0
    }

    /// Mostly a name that is there.
    fn existing_name(&self, random: &mut StdRng, dir: &ObjectKey) -> Option<Name> {
        let mut names = Vec::new();
        let _ = self.stage.model.readdir(&self.callers[0], dir, 2, false, &mut |entry| {
            names.push(entry.name.to_vec());
            true
        });
        if random.random_bool(0.2) || names.is_empty() {
            return None;
        }
        let at = random.random_range(0..names.len());
        Some(Name(names.swap_remove(at)))
    }

    fn name(&self, random: &mut StdRng) -> Name {
        let name = match random.random_range(0..40) {
            0 => vec![b'x'; 256],
            1 => vec![b'y'; 255],
            2 => vec![0xff, 0xfe, b' ', b'\n'],
            3 if self.stage.wire => {
                let hostile: [&[u8]; 7] = [b"", b".", b"..", b"a/b", b"/", b"a\0b", b"../n1"];
                one_of(random, &hostile).to_vec()
            }
            n => format!("n{}", n % 12).into_bytes(),
        };
        Name(name)
    }
}

/// What a symlink can hold.
fn target(name: Name) -> Name {
    Name(name.0.into_iter().filter(|byte| *byte != 0).collect())
}

fn create_how(random: &mut StdRng, set: SetAttributes) -> CreateHow {
    match random.random_range(0..3) {
        0 => CreateHow::Guarded(set),
        1 => CreateHow::Unchecked(set),
        _ => CreateHow::Exclusive([random.random_range(0..3) * 100; 8]),
    }
}

fn write(random: &mut StdRng) -> Act {
    let stable = one_of(random, &[Stability::Unstable, Stability::DataSync, Stability::FileSync]);
    let (len, fill) = (random.random_range(0..3000), random.random());
    if random.random_bool(0.02) {
        let offset = one_of(random, &[i64::MAX as u64, u64::MAX, u64::MAX - 10]);
        return Act::Write { offset, len: len + 1, fill, stable };
    }
    Act::Write { offset: one_of(random, &PLACES) + random.random_range(0..6000), len, fill, stable }
}

fn attributes(random: &mut StdRng) -> SetAttributes {
    let mut set = SetAttributes::default();
    let modes = [0o777, 0o777, 0o777, 0o755, 0o770, 0o640, 0o444, 0o000, 0o711, 0o070];
    let mode = one_of(random, &modes);
    set.mode = random.random_bool(0.7).then_some(mode);
    if random.random_bool(0.2) {
        set.size = Some(one_of(random, &[0, 1, 10, 5000, 5 << 30, (1 << 40) + 7, u64::MAX]));
    }
    if random.random_bool(0.1) {
        set.uid = Some(one_of(random, &[0, 71_001, 71_002, u32::MAX]));
    }
    if random.random_bool(0.1) {
        set.gid = Some(one_of(random, &[81_001, 81_002, 81_009]));
    }
    let mut time = || match random.random_range(0..8) {
        0 => SetTime::ServerTime,
        1 => SetTime::To(Timestamp {
            seconds: random.random_range(0..2_000_000_000),
            nanos: random.random_range(0..1_000_000_000),
        }),
        _ => SetTime::Keep,
    };
    (set.atime, set.mtime) = (time(), time());
    set
}

fn acls(random: &mut StdRng) -> SetAcls {
    let mut one = || match random.random_range(0..8) {
        0 | 1 => None,
        2 => Some(Acl::default()),
        3 => Some(Acl::from_mode(random.random_range(0..0o1000))),
        _ => {
            let mut acl = Acl::from_mode(random.random_range(0..0o1000));
            let mut named = |tag, id| {
                let permissions = if random.random_bool(0.5) { 7 } else { random.random_range(0..8) };
                if random.random_bool(0.5) {
                    acl.0.push(Entry { tag, id, permissions });
                }
            };
            named(Tag::User, 71_001);
            named(Tag::User, 71_002);
            named(Tag::Group, 81_003);
            named(Tag::Group, 81_009);
            named(Tag::Mask, NO_ID);
            acl.0.sort();
            Some(acl)
        }
    };
    SetAcls { access: one(), default: one() }
}
