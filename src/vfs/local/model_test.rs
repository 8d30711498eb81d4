//! Random operations by several identities on a real directory and on the model: same answers, same tree.

use super::*;
use crate::vfs::{MemoryVfs, SetTime};
use ehpc_proto::posix_acl::{Acl, Entry, NO_ID, Tag};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use smallvec::SmallVec;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::os::unix::fs::PermissionsExt;

const ROOT_MODE: u16 = 0o777;

struct Twins {
    local: LocalVfs,
    model: MemoryVfs,
    /// Objects ever seen: (key here, key in the model). Deleted ones stay: they must be stale on both sides.
    known: Vec<(ObjectKey, ObjectKey)>,
    /// The last steps, for a failure's message.
    log: VecDeque<String>,
    callers: Vec<Caller>,
    random: StdRng,
}

fn caller(uid: u32, gid: u32, groups: &[u32]) -> Caller {
    Caller { uid, gid, groups: SmallVec::from_slice(groups) }
}

impl Twins {
    fn new(tree: Tree, options: LocalOptions, seed: u64) -> Twins {
        let local = LocalVfs::new(Arc::new(tree), options);
        let path = local.tree().root_path().clone();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(u32::from(ROOT_MODE))).unwrap();
        let protected = std::fs::read_to_string("/proc/sys/fs/protected_hardlinks").unwrap();
        let model = MemoryVfs::new((0, 0, ROOT_MODE), protected.trim() == "1");
        let known = vec![(local.root(), model.root())];
        let callers = vec![
            caller(0, 0, &[]),
            caller(71_001, 81_001, &[]),
            caller(71_002, 81_002, &[81_001, 81_009]),
            caller(71_003, 81_003, &[81_009]),
        ];
        Twins { local, model, known, log: VecDeque::new(), callers, random: StdRng::seed_from_u64(seed) }
    }

    fn step(&mut self, number: usize) {
        let caller = self.callers.choose(&mut self.random).unwrap().clone();
        let what = self.random.random_range(0..104);
        // Operations on names mostly get a directory, the others anything.
        let (a, b) = match what {
            0..57 | 84..90 | 97..100 => (self.pick_directory(), self.pick_directory()),
            57..62 => (self.pick(), self.pick_directory()),
            _ => (self.pick(), self.pick()),
        };
        let (mut name, other) = (self.name(), self.name());
        if let 36..57 | 84..88 = what {
            name = self.existing_name(&a.1).unwrap_or(name);
        }
        let set = self.attributes();
        let line = format!(
            "{number}: op {what} uid {} on {:?} / {:?} names {} {} {set:?}",
            caller.uid,
            a.0,
            b.0,
            String::from_utf8_lossy(&name[..name.len().min(9)]),
            String::from_utf8_lossy(&other[..other.len().min(9)])
        );
        self.log.push_back(line);
        if self.log.len() > 12 {
            self.log.pop_front();
        }
        match what {
            0..16 => self.create(&caller, &a, &name, set),
            16..26 => {
                let one = self.local.mkdir(&caller, &a.0, &name, &set);
                let two = self.model.mkdir(&caller, &a.1, &name, &set);
                self.same_node(one, two);
            }
            26..32 => {
                let one = self.local.symlink(&caller, &a.0, &name, &other, &set);
                let two = self.model.symlink(&caller, &a.1, &name, &other, &set);
                self.same_node(one, two);
            }
            32..36 => {
                let kind = *[Kind::Fifo, Kind::Socket, Kind::CharDevice].choose(&mut self.random).unwrap();
                let one = self.local.mknod(&caller, &a.0, &name, kind, (1, 3), &set);
                let two = self.model.mknod(&caller, &a.1, &name, kind, (1, 3), &set);
                self.same_node(one, two);
            }
            36..42 => {
                let one = self.local.remove(&caller, &a.0, &name);
                let two = self.model.remove(&caller, &a.1, &name);
                self.same_mutation(one, two);
            }
            42..47 => {
                let one = self.local.rmdir(&caller, &a.0, &name);
                let two = self.model.rmdir(&caller, &a.1, &name);
                self.same_mutation(one, two);
            }
            47..57 => {
                let one = self.local.rename(&caller, (&a.0, &name), (&b.0, &other));
                let two = self.model.rename(&caller, (&a.1, &name), (&b.1, &other));
                self.same("rename", one.result, two.result);
            }
            57..62 => {
                let (one, _) = self.local.link(&caller, &a.0, &b.0, &name);
                let (two, _) = self.model.link(&caller, &a.1, &b.1, &name);
                self.same_mutation(one, two);
            }
            62..70 => {
                let guard = self.random.random_bool(0.1).then_some(Timestamp { seconds: 1, nanos: 1 });
                let one = self.local.setattr(&caller, &a.0, &set, guard);
                let two = self.model.setattr(&caller, &a.1, &set, guard);
                // Several attributes are several system calls: the first may succeed, the second not.
                self.same("setattr", one.result, two.result);
            }
            70..78 => self.write(&caller, &a),
            78..84 => self.read(&caller, &a),
            84..88 => {
                let one = self.local.lookup(&caller, &a.0, &name).0;
                let two = self.model.lookup(&caller, &a.1, &name).0;
                self.same_found(one, two);
            }
            88..90 => {
                let one = self.local.parent(&caller, &a.0).0;
                let two = self.model.parent(&caller, &a.1).0;
                self.same_found(one, two);
            }
            90..95 => {
                let one = self.local.access(&caller, &a.0, 0x3f).map(|(granted, _)| granted);
                let two = self.model.access(&caller, &a.1, 0x3f).map(|(granted, _)| granted);
                self.same("access", one, two);
            }
            95..97 => {
                let one = self.local.readlink(&caller, &a.0).0;
                let two = self.model.readlink(&caller, &a.1).0;
                self.same("readlink", one, two);
            }
            100..104 => {
                let acls = self.acls();
                self.log.push_back(format!("{acls:?}"));
                let one = self.local.set_acls(&caller, &a.0, &acls);
                let two = self.model.set_acls(&caller, &a.1, &acls);
                self.same_mutation(one, two);
            }
            _ => {
                let names = |vfs: &dyn Vfs, key: &ObjectKey| {
                    let mut names = BTreeMap::new();
                    let result = vfs.readdir(&caller, key, 0, true, &mut |entry| {
                        let known = entry.node.and_then(|node| node.attributes).map(|found| found.kind);
                        names.insert(entry.name.to_vec(), known).is_none()
                    });
                    result.map(|end| (end, names))
                };
                let (one, two) = (names(&self.local, &a.0), names(&self.model, &a.1));
                self.same("readdir", one, two);
            }
        }
        let one = self.local.getattr(&caller, &a.0).map(comparable);
        let two = self.model.getattr(&caller, &a.1).map(comparable);
        self.same("attributes afterwards", one, two);
        let acls = |vfs: &dyn Vfs, key| vfs.acls(&caller, key).map(|(acls, found)| (acls, comparable(found)));
        self.same("ACLs afterwards", acls(&self.local, &a.0), acls(&self.model, &a.1));
    }

    /// Mostly something that exists; sometimes long gone.
    fn pick(&mut self) -> (ObjectKey, ObjectKey) {
        let recent = self.known.len().saturating_sub(60);
        let from = if self.random.random_bool(0.8) { recent } else { 0 };
        if self.random.random_bool(0.15) {
            return self.known[0].clone();
        }
        self.known[from..].choose(&mut self.random).unwrap().clone()
    }

    fn pick_directory(&mut self) -> (ObjectKey, ObjectKey) {
        let root = self.callers[0].clone();
        for _ in 0..20 {
            let picked = self.pick();
            let found = self.model.getattr(&root, &picked.1);
            if found.is_ok_and(|found| found.kind == Kind::Directory) || self.random.random_bool(0.05) {
                return picked;
            }
        }
        self.known[0].clone()
    }

    /// Mostly a name that is there.
    fn existing_name(&mut self, dir: &ObjectKey) -> Option<Vec<u8>> {
        let mut names = Vec::new();
        let root = self.callers[0].clone();
        let _ = self.model.readdir(&root, dir, 2, false, &mut |entry| {
            names.push(entry.name.to_vec());
            true
        });
        if self.random.random_bool(0.2) { None } else { names.choose(&mut self.random).cloned() }
    }

    fn name(&mut self) -> Vec<u8> {
        match self.random.random_range(0..40) {
            0 => vec![b'x'; 256],
            1 => vec![b'y'; 255],
            2 => vec![0xff, 0xfe, b' ', b'\n'],
            n => format!("n{}", n % 12).into_bytes(),
        }
    }

    fn attributes(&mut self) -> SetAttributes {
        let random = &mut self.random;
        let mut set = SetAttributes::default();
        let mode =
            *[0o777, 0o777, 0o777, 0o755, 0o770, 0o640, 0o444, 0o000, 0o711, 0o070].choose(random).unwrap();
        set.mode = random.random_bool(0.7).then_some(mode);
        if random.random_bool(0.2) {
            set.size = Some(*[0, 1, 10, 5000].choose(random).unwrap());
        }
        if random.random_bool(0.1) {
            set.uid = Some(*[0, 71_001, 71_002].choose(random).unwrap());
        }
        if random.random_bool(0.1) {
            set.gid = Some(*[81_001, 81_002, 81_009].choose(random).unwrap());
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

    fn acls(&mut self) -> SetAcls {
        let random = &mut self.random;
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

    fn create(&mut self, caller: &Caller, dir: &(ObjectKey, ObjectKey), name: &[u8], set: SetAttributes) {
        let how = match self.random.random_range(0..3) {
            0 => CreateHow::Guarded(set),
            1 => CreateHow::Unchecked(set),
            _ => CreateHow::Exclusive([self.random.random_range(0..3) * 100; 8]),
        };
        let one = self.local.create(caller, &dir.0, name, how);
        let two = self.model.create(caller, &dir.1, name, how);
        self.same_node(one, two);
    }

    fn write(&mut self, caller: &Caller, file: &(ObjectKey, ObjectKey)) {
        let offset = self.random.random_range(0..6000);
        let data = vec![self.random.random(); self.random.random_range(0..3000)];
        let stable = *[Stability::Unstable, Stability::DataSync, Stability::FileSync]
            .choose(&mut self.random)
            .unwrap();
        let one = self.local.write(caller, &file.0, offset, &data, stable);
        let two = self.model.write(caller, &file.1, offset, &data, stable);
        self.same("write", one.result, two.result);
        let one = self.local.commit(caller, &file.0, 0, 0);
        let two = self.model.commit(caller, &file.1, 0, 0);
        self.same_mutation(one, two);
    }

    fn read(&mut self, caller: &Caller, file: &(ObjectKey, ObjectKey)) {
        let (offset, count) = (self.random.random_range(0..8000), self.random.random_range(0..8000));
        let read = |vfs: &dyn Vfs, key: &ObjectKey| {
            let mut bytes = b"before".to_vec();
            let done = vfs.read(caller, key, offset, count, &mut bytes);
            (done.map(|done| (done.bytes, done.eof)), bytes)
        };
        let (one, two) = (read(&self.local, &file.0), read(&self.model, &file.1));
        self.same("read", one, two);
    }

    fn same<T: PartialEq + std::fmt::Debug>(&self, what: &str, here: T, model: T) {
        assert_eq!(
            here,
            model,
            "{what}: local on the left, model on the right; last steps:\n{}",
            self.steps()
        );
    }

    fn steps(&self) -> String {
        self.log.iter().cloned().collect::<Vec<_>>().join("\n")
    }

    fn same_mutation(&self, one: Mutation<()>, two: Mutation<()>) {
        self.same("result", one.result, two.result);
        if let Some(before) = one.wcc.before {
            let after = one.wcc.after.unwrap();
            if one.result.is_err() {
                assert_eq!(
                    before,
                    (after.size, after.mtime, after.ctime),
                    "a failure changed it\n{}",
                    self.steps()
                );
            }
        }
    }

    fn same_node(&mut self, one: Mutation<Node>, two: Mutation<Node>) {
        if one.result.is_ok() {
            assert!(one.wcc.before.is_some() && one.wcc.after.is_some());
        }
        self.same_found(one.result, two.result);
    }

    fn same_found(&mut self, one: Result<Node, VfsError>, two: Result<Node, VfsError>) {
        let view = |result: &Result<Node, VfsError>| {
            result.as_ref().map(|node| comparable(node.attributes.unwrap())).map_err(|error| *error)
        };
        self.same("node", view(&one), view(&two));
        if let (Ok(one), Ok(two)) = (one, two) {
            match self.known.iter().find(|(here, there)| *here == one.key || *there == two.key) {
                Some((here, there)) => {
                    assert_eq!((here, there), (&one.key, &two.key), "identity mixed up\n{}", self.steps());
                }
                None => self.known.push((one.key, two.key)),
            }
        }
    }

    fn final_trees_are_equal(&mut self) -> usize {
        let root = self.callers[0].clone();
        let walk = |vfs: &dyn Vfs| {
            let mut found: BTreeMap<Vec<u8>, String> = BTreeMap::new();
            let mut numbers: Vec<ObjectKey> = Vec::new();
            let mut queue = vec![(Vec::new(), vfs.root())];
            while let Some((path, key)) = queue.pop() {
                let mut below = Vec::new();
                vfs.readdir(&root, &key, 0, true, &mut |entry| {
                    if entry.name != b"." && entry.name != b".." {
                        let path = [path.as_slice(), b"/", entry.name].concat();
                        below.push((path, entry.node.unwrap()));
                    }
                    true
                })
                .unwrap();
                below.sort_by(|a, b| a.0.cmp(&b.0));
                for (path, node) in below {
                    let mut content = Vec::new();
                    let attributes = node.attributes.unwrap();
                    match attributes.kind {
                        Kind::Directory => queue.push((path.clone(), node.key.clone())),
                        Kind::File => {
                            vfs.read(&root, &node.key, 0, 100_000, &mut content).unwrap();
                        }
                        Kind::Symlink => content = vfs.readlink(&root, &node.key).0.unwrap(),
                        _ => {}
                    }
                    // Hard links: the same number again.
                    let number = numbers.iter().position(|key| *key == node.key).unwrap_or_else(|| {
                        numbers.push(node.key.clone());
                        numbers.len() - 1
                    });
                    let acls = vfs.acls(&root, &node.key).unwrap().0;
                    found.insert(path, format!("{number} {:?} {acls:?} {content:?}", comparable(attributes)));
                }
            }
            found
        };
        let (one, two) = (walk(&self.local), walk(&self.model));
        assert_eq!(one, two);
        one.len()
    }
}

/// What the model and a real file system must agree on.
fn comparable(a: Attributes) -> (Kind, u16, u32, u32, u32, u64, (u32, u32)) {
    let (nlink, size) = if a.kind == Kind::Directory { (0, 0) } else { (a.nlink, a.size) };
    (a.kind, a.mode, nlink, a.uid, a.gid, size, a.rdev)
}

fn run(open: impl Fn(&std::path::Path) -> Tree, options: LocalOptions, seed: Option<u64>, steps: usize) {
    let dir = super::tests::directory_for_all();
    run_in(dir.path(), open, options, seed, steps);
}

fn run_in(
    path: &std::path::Path,
    open: impl Fn(&std::path::Path) -> Tree,
    options: LocalOptions,
    seed: Option<u64>,
    steps: usize,
) {
    let seed = seed.unwrap_or_else(rand::random);
    println!("seed {seed}");
    let mut twins = Twins::new(open(path), options, seed);
    for number in 0..steps {
        twins.step(number);
    }
    let entries = twins.final_trees_are_equal();
    let distinct: HashSet<_> = twins.known.iter().map(|(here, _)| here).collect();
    println!("{} objects met, {entries} entries at the end", distinct.len());
    assert!(distinct.len() > steps / 20, "the run did not do much: {} objects", distinct.len());
}

const QUICK: LocalOptions = LocalOptions { sync: false, read_only: false, fsid: None };

#[test]
fn a_local_directory_behaves_as_the_model_by_handle() {
    for seed in [Some(1), Some(2), None] {
        run(|path| Tree::open(path).unwrap(), QUICK, seed, 6000);
    }
}

#[test]
fn a_local_directory_behaves_as_the_model_with_sync() {
    run(|path| Tree::open(path).unwrap(), LocalOptions::default(), None, 600);
}

#[test]
fn a_local_directory_behaves_as_the_model_by_name() {
    for seed in [Some(3), None] {
        run(|path| Tree::open_without_handles(path).unwrap(), QUICK, seed, 4000);
    }
}

#[test]
fn a_local_directory_behaves_as_the_model_without_kernel_handles() {
    for seed in [Some(4), None] {
        run(|path| Tree::open_with_inode_keys(path).unwrap(), QUICK, seed, 4000);
    }
}

/// tmpfs has handles of another shape and cookies of its own.
#[test]
fn a_tmpfs_behaves_as_the_model() {
    let dir = super::tests::directory_for_all();
    let _mount = super::tests::Mount::new("tmpfs", dir.path(), "size=64m");
    run_in(dir.path(), |path| Tree::open(path).unwrap(), QUICK, None, 4000);
}

/// overlayfs has no handles, and its files may have device numbers of their own.
#[test]
fn an_overlayfs_behaves_as_the_model() {
    let dir = super::tests::directory_for_all();
    let _below = super::tests::Mount::new("tmpfs", dir.path(), "size=64m");
    for name in ["lower", "upper", "work", "merged"] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
    }
    let options =
        ["lower", "upper", "work"].map(|name| format!("{name}dir={}", dir.path().join(name).display()));
    let merged = dir.path().join("merged");
    let _mount = super::tests::Mount::new("overlay", &merged, &options.join(","));
    let tree = Tree::open(&merged).unwrap();
    assert!(!tree.opens_by_handle());
    run_in(&merged, |path| Tree::open(path).unwrap(), QUICK, None, 3000);
}
