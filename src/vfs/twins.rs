//! Two file systems under the same random operations: a subject, and the model that it must answer like. A
//! failure is shrunk to the least sequence that still fails.

mod compare;
mod generate;
mod shrink;

use super::{Caller, CreateHow, SetAcls, SetAttributes, Stability, Vfs};
use crate::host::ObjectKey;
use ehpc_proto::replication::Kind;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use smallvec::SmallVec;
use std::any::Any;

/// The mode of both roots.
pub(crate) const ROOT_MODE: u16 = 0o777;

/// What a run is played on. Fields are dropped in this order.
pub(crate) struct Stage {
    pub(crate) subject: Box<dyn Vfs>,
    pub(crate) model: Box<dyn Vfs>,
    /// Directories, mounts and servers below them.
    pub(crate) _below: Vec<Box<dyn Any>>,
    /// The two are seen through NFS: names that are none may be used, and every reply has its attributes.
    pub(crate) wire: bool,
}

/// One operation. Objects go by the number of the step that made or found them first; the root is 0.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) number: u32,
    /// Index in [`callers`].
    pub(crate) caller: usize,
    pub(crate) object: u32,
    /// RENAME's and LINK's second directory.
    pub(crate) other: u32,
    pub(crate) act: Act,
}

#[derive(Clone, Debug)]
pub(crate) enum Act {
    Create(Name, CreateHow),
    Mkdir(Name, SetAttributes),
    Symlink(Name, Name, SetAttributes),
    Mknod(Name, Kind, SetAttributes),
    Remove(Name),
    Rmdir(Name),
    Rename(Name, Name),
    Link(Name),
    Setattr(SetAttributes, Guard),
    Write { offset: u64, len: usize, fill: u8, stable: Stability },
    Read { offset: u64, count: u32 },
    Lookup(Name),
    Parent,
    Access,
    Readlink,
    Readdir { plus: bool },
    SetAcls(SetAcls),
}

/// A name or a symlink's target.
#[derive(Clone)]
pub(crate) struct Name(pub(crate) Vec<u8>);

impl std::ops::Deref for Name {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = &self.0[..self.0.len().min(12)];
        write!(f, "\"{}\"", shown.escape_ascii())?;
        if shown.len() < self.0.len() { write!(f, "... ({} bytes)", self.0.len()) } else { Ok(()) }
    }
}

/// SETATTR's guard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Guard {
    Absent,
    /// The ctime that the object has.
    Right,
    Wrong,
}

/// Root, and users who share groups.
pub(crate) fn callers() -> [Caller; 4] {
    let caller = |uid, gid, groups: &[u32]| Caller { uid, gid, groups: SmallVec::from_slice(groups) };
    [
        caller(0, 0, &[]),
        caller(71_001, 81_001, &[]),
        caller(71_002, 81_002, &[81_001, 81_009]),
        caller(71_003, 81_003, &[81_009]),
    ]
}

/// The subject, the model, and what is known of both.
struct Twins {
    stage: Stage,
    callers: [Caller; 4],
    /// Objects ever seen: number, key in the subject, key in the model. Deleted ones stay: they must be stale
    /// on both sides.
    known: Vec<(u32, ObjectKey, ObjectKey)>,
}

impl Twins {
    fn new(stage: Stage) -> Twins {
        let known = vec![(0, stage.subject.root(), stage.model.root())];
        Twins { stage, callers: callers(), known }
    }

    fn keys(&self, number: u32) -> Option<(ObjectKey, ObjectKey)> {
        let found = self.known.iter().find(|(known, ..)| *known == number);
        found.map(|(_, subject, model)| (subject.clone(), model.clone()))
    }
}

/// Plays these steps on a fresh stage, and compares the two trees at the end.
fn replay(stage: &dyn Fn() -> Stage, steps: &[Step]) -> Result<(), String> {
    let mut twins = Twins::new(stage());
    steps.iter().try_for_each(|step| twins.step(step))?;
    twins.trees_are_equal().map(|_| ())
}

/// A failure that was found and shrunk once.
pub(crate) fn run_case(stage: &dyn Fn() -> Stage, name: &str, steps: &[Step]) {
    if let Err(difference) = replay(stage, steps) {
        panic!("{name}: {difference}");
    }
}

/// Random operations from `seed` (a new one if `None`; printed).
pub(crate) fn run(stage: &dyn Fn() -> Stage, seed: Option<u64>, count: usize) {
    let seed = seed.unwrap_or_else(rand::random);
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut twins = Twins::new(stage());
    let mut steps = Vec::new();
    let outcome = (1..=count as u32).try_for_each(|number| {
        let step = twins.generate(&mut random, number);
        steps.push(step.clone());
        twins.step(&step)
    });
    let outcome = outcome.and_then(|()| twins.trees_are_equal());
    let met = twins.known.len();
    drop(twins);
    match outcome {
        Ok(entries) => {
            println!("{met} objects met, {entries} entries at the end");
            assert!(met > count / 50, "the run did not do much: {met} objects");
        }
        Err(difference) => {
            let (least, last) = shrink::shrink(stage, steps);
            let lines: Vec<String> = least.iter().map(|step| format!("{step:?}")).collect();
            panic!(
                "seed {seed}: {difference}\nshrunk to {} steps:\n{}\n{last}",
                least.len(),
                lines.join("\n")
            );
        }
    }
}

/// One of several, by chance.
fn one_of<T: Copy>(random: &mut StdRng, of: &[T]) -> T {
    of[random.random_range(0..of.len())]
}
