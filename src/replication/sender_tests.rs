//! The sender against a backup in memory, on real directories.

use super::fake_backup::{Backup, FakeConnector};
use super::*;
use crate::change::Change;
use crate::host::Stat;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};

/// A sender that is driven by hand.
struct Bench {
    _state: tempfile::TempDir,
    _export: tempfile::TempDir,
    root: PathBuf,
    tree: Arc<Tree>,
    dirty: Arc<DirtySet>,
    directories: Arc<DirectorySet>,
    backup: Arc<Mutex<Backup>>,
    shadow: PathBuf,
    control: SenderControl,
    sender: Option<Sender>,
    link: Option<Box<dyn Link>>,
    scans: Arc<std::sync::atomic::AtomicU64>,
}

impl Bench {
    fn new(seed: u64) -> Bench {
        Bench::with_tree(seed, |root| Tree::open(root).unwrap())
    }

    fn with_tree(seed: u64, open: impl FnOnce(&Path) -> Tree) -> Bench {
        let export = tempfile::tempdir().unwrap();
        let state = tempfile::tempdir().unwrap();
        let root = export.path().join("share");
        fs::create_dir(&root).unwrap();
        let tree = Arc::new(open(&root));
        let shadow = state.path().join("shadow.sqlite");
        let mut bench = Bench {
            root,
            tree,
            dirty: DirtySet::new(),
            directories: DirectorySet::new(),
            backup: Backup::new(seed),
            shadow,
            control: SenderControl::new().0,
            sender: None,
            link: None,
            scans: Arc::default(),
            _state: state,
            _export: export,
        };
        bench.start();
        bench
    }

    /// A new process: nothing but the shadow's file is left.
    fn start(&mut self) {
        self.link = None;
        self.sender = None;
        self.dirty = DirtySet::new();
        self.directories = DirectorySet::new();
        let (control, seat) = SenderControl::new();
        let reader = prepare_shadow(&self.shadow).unwrap();
        self.tree.set_hints(Arc::new(reader));
        let scans = Arc::clone(&self.scans);
        let parts = SenderParts {
            export: "share".to_owned(),
            tree: Arc::clone(&self.tree),
            dirty: Arc::clone(&self.dirty),
            directories: Arc::clone(&self.directories),
            shadow: self.shadow.clone(),
            connector: Box::new(FakeConnector(Arc::clone(&self.backup))),
            scan: Arc::new(move || {
                scans.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }),
        };
        let shadow = Shadow::open(&self.shadow).unwrap();
        self.control = control;
        self.sender = Some(Sender::new(parts, seat, shadow));
    }

    fn sender(&mut self) -> &mut Sender {
        self.sender.as_mut().unwrap()
    }

    /// One round of the sender's thread; false if the link broke.
    fn turn(&mut self) -> bool {
        let sender = self.sender.as_mut().unwrap();
        if self.link.is_none() {
            match sender.connect().unwrap() {
                Ok(link) => self.link = Some(link),
                Err(_) => return false,
            }
        }
        let link = self.link.as_mut().unwrap();
        match sender.turn(&mut **link) {
            Ok(Ok(_)) => true,
            Ok(Err(End::Rebuild)) => {
                sender.rebuild = true;
                self.link = None;
                false
            }
            Ok(Err(_)) => panic!("stopped"),
            Err(Fault::Link(_)) => {
                sender.link_broke(&mut **link).unwrap();
                self.link = None;
                false
            }
            Err(fault) => panic!("{fault}"),
        }
    }

    /// Works until everything noted is acknowledged.
    fn settle(&mut self) {
        for _ in 0..100_000 {
            let current = self.dirty.current();
            self.turn();
            let acknowledged = *self.dirty.acknowledged().borrow();
            let sender = self.sender.as_mut().unwrap();
            if acknowledged >= current
                && self.dirty.pending() == 0
                && sender.resolver.queue.is_idle()
                && sender.resolver.view.in_flight() == 0
                && self.link.is_some()
            {
                return;
            }
        }
        panic!("the sender does not come to an end");
    }

    fn key(&self, path: &str) -> ObjectKey {
        let mut fd = self.tree.open_path(self.tree.root_key()).unwrap();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            fd = self.tree.lookup_open(fd.as_fd(), part.as_bytes()).unwrap().unwrap().0;
        }
        self.tree.key_of(fd.as_fd()).unwrap()
    }

    fn note_entry(&self, path: &str) {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        self.dirty.note(Change::entry(&self.key(dir), name.as_bytes()));
    }

    fn note_content(&self, path: &str) {
        self.dirty.note(Change::Object(self.key(path), Touch::CONTENT));
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        fs::write(self.root.join(path), bytes).unwrap();
        self.note_entry(path);
        self.note_content(path);
    }

    fn mkdir(&self, path: &str) {
        fs::create_dir(self.root.join(path)).unwrap();
        self.note_entry(path);
    }

    fn rename(&self, from: &str, to: &str) {
        let split = |path: &str| path.rsplit_once('/').map_or((String::new(), path.to_owned()), |(d, n)| (d.to_owned(), n.to_owned()));
        let ((from_dir, from_name), (to_dir, to_name)) = (split(from), split(to));
        let (a, b) = (self.key(&from_dir), self.key(&to_dir));
        fs::rename(self.root.join(from), self.root.join(to)).unwrap();
        self.dirty.note(Change::pair((&a, from_name.as_bytes()), (&b, to_name.as_bytes())));
    }

    /// What a scan notes, at its coarsest: look at everything that is known.
    fn scan(&self) {
        let reader = ShadowReader::open(&self.shadow).unwrap();
        let mut after = ObjectId(0);
        loop {
            let rows = reader.objects_after(after, 1000).unwrap();
            let Some(last) = rows.last() else { break };
            after = last.id;
            for row in &rows {
                self.dirty.note(Change::Object(row.key.clone(), Touch { listing: true, ..Touch::CONTENT }));
            }
        }
        self.dirty.note(Change::Object(self.tree.root_key().clone(), Touch::LISTING));
        self.control.note(ShadowNote::Scanned { current: self.dirty.current() });
    }

    /// Compares disk and backup, object by object.
    fn assert_equal(&mut self) {
        let backup = self.backup.lock();
        let model = backup.model();
        let mut seen = std::collections::HashMap::new();
        let mut entries = 0;
        compare_dir(&self.tree, &backup, &model, &self.root, "", &mut seen, &mut entries);
        // Objects without a name are allowed only while they exist, or until a scan without handles.
        let named: std::collections::HashSet<ObjectId> = model.entries.values().copied().collect();
        for (id, state) in &model.objects {
            if *id != ObjectId::ROOT && !named.contains(id) {
                assert!(!self.tree.opens_by_handle() || self.tree.open_path(&ObjectKey::from_bytes(&state.key).unwrap()).is_ok(), "{id:?} lingers");
            }
        }
        let reachable = model.entries.keys().filter(|(parent, _)| seen.contains_key(parent)).count();
        assert_eq!(entries, reachable, "the backup has names that the disk has not");
    }
}

fn compare_dir(
    tree: &Tree,
    backup: &Backup,
    model: &super::fake_backup::Model,
    root: &Path,
    path: &str,
    seen: &mut std::collections::HashMap<ObjectId, ObjectKey>,
    entries: &mut usize,
) {
    let full = if path.is_empty() { root.to_owned() } else { root.join(path) };
    let fd = rustix::fs::open(&full, rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW, rustix::fs::Mode::empty()).unwrap();
    let stat: Stat = Tree::stat(fd.as_fd()).unwrap();
    let state = model.at(path).unwrap_or_else(|| panic!("{path} is not on the backup"));
    let key = tree.key_of(fd.as_fd()).unwrap();
    let same = seen.insert(state.id, key.clone());
    assert!(same.is_none_or(|other| other == key), "{path}: one object on the backup, two on the disk");
    assert_eq!(state.key, key.to_bytes().to_vec(), "{path}: key");
    assert_eq!((state.kind, state.mode, state.uid, state.gid), (stat.kind, stat.mode, stat.uid, stat.gid), "{path}");
    assert_eq!(state.mtime, stat.mtime, "{path}: mtime");
    assert!(!state.fuzzy, "{path}: fuzzy");
    assert_eq!(state.xattrs, tree.xattrs(fd.as_fd(), stat.kind).unwrap(), "{path}: xattrs");
    match stat.kind {
        Kind::File => {
            assert_eq!(state.size, stat.size, "{path}: size");
            assert!(backup.content(state) == fs::read(&full).unwrap(), "{path}: content");
        }
        Kind::Symlink => assert_eq!(state.target, fs::read_link(&full).unwrap().as_os_str().as_bytes()),
        Kind::Directory => {
            for entry in fs::read_dir(&full).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                let below = if path.is_empty() { name } else { format!("{path}/{name}") };
                *entries += 1;
                compare_dir(tree, backup, model, root, &below, seen, entries);
            }
        }
        _ => {}
    }
}

use ehpc_proto::replication::Kind;

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

#[test]
fn a_tree_that_was_there_before_is_shipped_whole() {
    let mut bench = Bench::new(1);
    fs::create_dir_all(bench.root.join("a/b/c")).unwrap();
    for n in 0..300 {
        fs::write(bench.root.join(format!("a/b/file{n}")), noise(n, 100 * n as usize)).unwrap();
    }
    fs::write(bench.root.join("a/big"), noise(7, 3_000_000)).unwrap();
    std::os::unix::fs::symlink("nowhere/at/all", bench.root.join("a/link")).unwrap();
    fs::hard_link(bench.root.join("a/big"), bench.root.join("a/b/c/hard")).unwrap();
    fs::set_permissions(bench.root.join("a/b"), fs::Permissions::from_mode(0o2751)).unwrap();
    let sparse = fs::File::create(bench.root.join("sparse")).unwrap();
    sparse.write_all_at(b"end", 50_000_000).unwrap();
    bench.settle();
    bench.assert_equal();
    let backup = bench.backup.lock();
    assert!(backup.blob_bytes < 12_000_000, "holes are not sent: {}", backup.blob_bytes);
    assert_eq!(backup.history[0].1.objects[0].id, ObjectId::ROOT, "the root comes first");
    drop(backup);
    let batches = bench.backup.lock().history.len();
    bench.scan();
    bench.settle();
    assert_eq!(bench.backup.lock().history.len(), batches, "nothing differs, nothing is shipped");
}

#[test]
fn an_appended_hundred_bytes_cost_one_chunk_one_page_and_the_root() {
    let mut bench = Bench::new(2);
    bench.write("big", &noise(3, 60_000_000));
    let sparse = fs::File::create(bench.root.join("sparse")).unwrap();
    sparse.set_len(8 << 30).unwrap();
    for n in 0..40 {
        sparse.write_all_at(&noise(n, 5000), n << 26).unwrap();
    }
    bench.note_entry("sparse");
    bench.settle();
    bench.assert_equal_but_huge();
    for (path, chunks) in [("big", 1..=2), ("sparse", 1..=1)] {
        let file = fs::OpenOptions::new().append(true).open(bench.root.join(path)).unwrap();
        let end = file.metadata().unwrap().len();
        bench.backup.lock().blobs_received.clear();
        let read_before = bench.control.status().report().read_bytes;
        std::io::Write::write_all(&mut &file, &[b'x'; 100]).unwrap();
        bench.dirty.note(Change::Object(bench.key(path), Touch::range(end..end + 100)));
        bench.settle();
        let backup = bench.backup.lock();
        let received = &backup.blobs_received;
        let pages = received.iter().filter(|(kind, _, _)| *kind == ehpc_proto::replication::message::BlobKind::Page).count();
        assert!(pages <= 2, "{path}: {received:?}");
        assert!(chunks.contains(&(received.len() - pages)), "{path}: {received:?}");
        let _ = read_before;
        let model = backup.model();
        assert_eq!(model.at(path).unwrap().size, end + 100);
        let content = &model.at(path).unwrap().content;
        let whole = {
            drop(backup);
            bench.whole_manifest(path)
        };
        assert_eq!(*content, whole, "{path}: as if it had been read whole");
    }
}

impl Bench {
    /// The manifest of a file as made from scratch.
    fn whole_manifest(&self, path: &str) -> ehpc_proto::replication::Manifest {
        crate::replication::read_content::manifest_of_file(&fs::File::open(self.root.join(path)).unwrap())
    }

    /// Compares attributes and manifests only.
    fn assert_equal_but_huge(&self) {
        let model = self.backup.lock().model();
        for name in ["big", "sparse"] {
            assert_eq!(model.at(name).unwrap().content, self.whole_manifest(name), "{name}");
        }
    }
}

#[test]
fn renaming_a_directory_of_ten_thousand_files_ships_a_handful_of_states() {
    let mut bench = Bench::new(3);
    fs::create_dir_all(bench.root.join("from/deep/er")).unwrap();
    fs::create_dir(bench.root.join("to")).unwrap();
    for n in 0..10_000 {
        fs::write(bench.root.join(format!("from/deep/er/{n}")), b"same").unwrap();
    }
    bench.settle();
    assert_eq!(bench.backup.lock().blobs_received.len(), 1, "equal content is sent once");
    let before = bench.backup.lock().history.len();
    bench.rename("from/deep", "to/moved");
    bench.settle();
    let backup = bench.backup.lock();
    let (objects, entries) = backup.history[before..]
        .iter()
        .fold((0, 0), |(o, e), (_, batch, _)| (o + batch.objects.len(), e + batch.entries.len()));
    assert!(objects <= 3 && entries == 2, "{objects} states, {entries} entries");
    drop(backup);
    bench.assert_equal();
}

#[test]
fn both_ends_of_moves_share_a_batch_whatever_was_noted() {
    let mut bench = Bench::new(4);
    for dir in ["a", "b", "a/x", "b/y"] {
        bench.mkdir(dir);
    }
    bench.write("a/file", b"one");
    bench.settle();
    // Swapped directories, one of them noted by one end only.
    fs::rename(bench.root.join("a/x"), bench.root.join("tmp")).unwrap();
    fs::rename(bench.root.join("b/y"), bench.root.join("a/x")).unwrap();
    fs::rename(bench.root.join("tmp"), bench.root.join("b/y")).unwrap();
    bench.note_entry("tmp");
    bench.note_entry("a/x");
    bench.settle();
    bench.assert_equal();
    // A directory under what was its own child; only the new place is noted.
    bench.mkdir("p");
    bench.mkdir("p/q");
    bench.settle();
    fs::rename(bench.root.join("p/q"), bench.root.join("q")).unwrap();
    fs::rename(bench.root.join("p"), bench.root.join("q/p")).unwrap();
    bench.note_entry("q/p");
    bench.settle();
    assert!(bench.backup.lock().model().at("q/p").is_some());
    // A file's old name, noted alone.
    fs::rename(bench.root.join("a/file"), bench.root.join("b/file")).unwrap();
    bench.note_entry("a/file");
    bench.note_entry("b/file");
    bench.note_entry("p");
    bench.settle();
    bench.assert_equal();
    let backup = bench.backup.lock();
    for (_, _, model) in &backup.history {
        let named: Vec<&ObjectId> = model.entries.values().collect();
        assert!(model.objects.keys().all(|id| *id == ObjectId::ROOT || named.contains(&id)), "an object was without a name");
    }
}

/// Random changes to a small tree, each noted as a watcher would.
struct Mutator {
    random: StdRng,
    dirs: Vec<String>,
    files: Vec<String>,
    counter: u64,
}

impl Mutator {
    fn new(seed: u64) -> Mutator {
        Mutator { random: StdRng::seed_from_u64(seed), dirs: vec![String::new()], files: Vec::new(), counter: 0 }
    }

    fn pick(&mut self, from: &[String]) -> Option<String> {
        if from.is_empty() { None } else { Some(from[self.random.random_range(0..from.len())].clone()) }
    }

    fn fresh(&mut self) -> String {
        self.counter += 1;
        let dirs = self.dirs.clone();
        let dir = self.pick(&dirs).unwrap();
        // Few names, so that they are used again.
        let name = format!("n{}", self.random.random_range(0..12));
        if dir.is_empty() { name } else { format!("{dir}/{name}") }
    }

    /// Paths after a move of `from` to `to`.
    fn moved(&mut self, from: &str, to: &str) {
        for path in self.dirs.iter_mut().chain(self.files.iter_mut()) {
            if path == from {
                *path = to.to_owned();
            } else if let Some(rest) = path.strip_prefix(&format!("{from}/")) {
                *path = format!("{to}/{rest}");
            }
        }
    }

    fn step(&mut self, bench: &Bench) {
        let (dirs, files) = (self.dirs.clone(), self.files.clone());
        let free = |path: &str| !dirs.iter().any(|d| d == path) && !files.iter().any(|f| f == path);
        match self.random.random_range(0..100) {
            0..20 => {
                let path = self.fresh();
                if dirs.contains(&path) {
                    return;
                }
                let len = [10, 3000, 70_000, 400_000][self.random.random_range(0..4)];
                bench.write(&path, &noise(self.counter, self.random.random_range(0..len)));
                if !self.files.contains(&path) {
                    self.files.push(path);
                }
            }
            20..32 => {
                let path = self.fresh();
                if free(&path) {
                    bench.mkdir(&path);
                    self.dirs.push(path);
                }
            }
            32..44 => {
                let Some(from) = self.pick(&files) else { return };
                let to = self.fresh();
                if dirs.contains(&to) || from == to {
                    return;
                }
                bench.rename(&from, &to);
                // Two names of one object: rename does nothing.
                if !bench.root.join(&from).exists() {
                    self.files.retain(|path| *path != to);
                    self.moved(&from, &to);
                }
            }
            44..54 => {
                let Some(from) = self.pick(&dirs[1..]) else { return };
                let to = self.fresh();
                if !free(&to) || to.starts_with(&format!("{from}/")) {
                    return;
                }
                bench.rename(&from, &to);
                self.moved(&from, &to);
            }
            54..64 => {
                let Some(path) = self.pick(&files) else { return };
                fs::remove_file(bench.root.join(&path)).unwrap();
                bench.note_entry(&path);
                self.files.retain(|file| *file != path);
            }
            64..70 => {
                let Some(path) = self.pick(&dirs[1..]) else { return };
                // rm -r, of which only some is noted name by name.
                fs::remove_dir_all(bench.root.join(&path)).unwrap();
                bench.note_entry(&path);
                let below = format!("{path}/");
                self.dirs.retain(|dir| *dir != path && !dir.starts_with(&below));
                self.files.retain(|file| !file.starts_with(&below));
            }
            70..78 => {
                let Some(from) = self.pick(&files) else { return };
                let to = self.fresh();
                if free(&to) {
                    fs::hard_link(bench.root.join(&from), bench.root.join(&to)).unwrap();
                    bench.note_entry(&to);
                    self.files.push(to);
                }
            }
            78..90 => {
                let Some(path) = self.pick(&files) else { return };
                let file = fs::OpenOptions::new().write(true).open(bench.root.join(&path)).unwrap();
                let len = file.metadata().unwrap().len();
                let at = self.random.random_range(0..=len + 20_000);
                let count = self.random.random_range(1..30_000);
                self.counter += 1;
                file.write_all_at(&noise(self.counter, count), at).unwrap();
                bench.dirty.note(Change::Object(bench.key(&path), Touch::range(at..at + count as u64)));
            }
            90..95 => {
                let Some(path) = self.pick(&files) else { return };
                let file = fs::OpenOptions::new().write(true).open(bench.root.join(&path)).unwrap();
                let len = self.random.random_range(0..=file.metadata().unwrap().len() + 10_000);
                file.set_len(len).unwrap();
                bench.dirty.note(Change::Object(bench.key(&path), Touch::range(len..u64::MAX)));
            }
            _ => {
                let all = if self.random.random_bool(0.5) { &files } else { &dirs };
                let Some(path) = self.pick(all) else { return };
                let mode = 0o700 | self.random.random_range(0..0o100);
                fs::set_permissions(bench.root.join(&path), fs::Permissions::from_mode(mode)).unwrap();
                bench.dirty.note(Change::Object(bench.key(&path), Touch::ATTRIBUTES));
            }
        }
    }
}

fn mutate(seed: u64, failing: f64, crashes: bool, steps: u32) {
    let mut bench = Bench::new(seed);
    mutate_on(&mut bench, seed, failing, crashes, steps);
}

fn mutate_on(bench: &mut Bench, seed: u64, failing: f64, crashes: bool, steps: u32) {
    let mut mutator = Mutator::new(seed);
    bench.backup.lock().failing = failing;
    bench.backup.lock().lazy = seed % 2 == 1;
    let mut random = StdRng::seed_from_u64(seed ^ 0xabcd);
    for step in 0..steps {
        for _ in 0..random.random_range(1..8) {
            mutator.step(bench);
        }
        for _ in 0..random.random_range(0..4) {
            bench.turn();
        }
        if crashes && random.random_bool(0.03) {
            bench.start();
            if random.random_bool(0.3) {
                mutator.step(bench);
            }
            // What was noted before is lost; the scan of the start finds it.
            bench.start_scan();
        }
        if step % 40 == 39 {
            bench.settle();
            bench.assert_equal();
        }
    }
    bench.settle();
    bench.assert_equal();
}

impl Bench {
    fn start_scan(&mut self) {
        // The shadow must be where the backup is, as the scan compares with it.
        for _ in 0..1000 {
            if self.turn() {
                break;
            }
        }
        self.sender().resolver.view.shadow().commit().unwrap();
        self.scan();
    }
}

#[test]
fn random_changes_between_rounds() {
    for seed in 0..12 {
        eprintln!("seed {seed}");
        mutate(seed, 0.0, false, 60);
    }
}

#[test]
fn random_changes_while_the_link_breaks_at_any_message() {
    for seed in 100..112 {
        eprintln!("seed {seed}");
        mutate(seed, 0.15, false, 60);
    }
}

#[test]
fn random_changes_while_the_sender_dies() {
    for seed in 200..212 {
        eprintln!("seed {seed}");
        mutate(seed, 0.05, true, 60);
    }
}

#[test]
fn a_lost_shadow_is_rebuilt_from_the_backup() {
    let mut bench = Bench::new(5);
    let mut mutator = Mutator::new(5);
    bench.mkdir("kept");
    for n in 0..100 {
        bench.write(&format!("kept/{n}"), &noise(n, 20_000));
    }
    for _ in 0..200 {
        mutator.step(&bench);
    }
    bench.settle();
    bench.assert_equal();
    let (ids, blobs) = {
        let backup = bench.backup.lock();
        let ids = backup.model().objects.values().map(|state| (state.key.clone(), state.id)).collect::<Vec<_>>();
        (ids, backup.blobs_received.len())
    };
    bench.sender = None;
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{suffix}", bench.shadow.display()));
    }
    bench.start();
    for _ in 0..20 {
        mutator.step(&bench);
    }
    assert!(bench.turn());
    assert_eq!(bench.scans.load(std::sync::atomic::Ordering::Relaxed), 1, "a scan was asked for");
    let current = bench.dirty.current();
    for _ in 0..50 {
        bench.turn();
    }
    assert!(*bench.dirty.acknowledged().borrow() < current, "the cut waits for the scan");
    bench.start_scan();
    bench.settle();
    bench.assert_equal();
    let backup = bench.backup.lock();
    let now: std::collections::HashMap<_, _> =
        backup.model().objects.values().map(|state| (state.key.clone(), state.id)).collect();
    let kept: Vec<_> = ids.iter().filter_map(|(key, id)| now.get(key).map(|now| (now, id))).collect();
    assert!(kept.len() > 100 && kept.iter().all(|(now, id)| now == id), "objects keep their numbers: {kept:?}");
    assert!(backup.blobs_received.len() < blobs + 60, "content is not sent again");
}

#[test]
fn a_backup_restored_from_an_older_copy_is_brought_up_to_date() {
    let mut bench = Bench::new(6);
    let mut mutator = Mutator::new(6);
    for _ in 0..30 {
        for _ in 0..8 {
            mutator.step(&bench);
        }
        bench.settle();
    }
    let half = bench.backup.lock().history.len() / 2;
    bench.backup.lock().restore_older(half);
    bench.link = None;
    assert!(bench.turn());
    bench.start_scan();
    bench.settle();
    bench.assert_equal();
}

#[test]
fn an_empty_backup_gets_everything_anew() {
    let mut bench = Bench::new(8);
    let mut mutator = Mutator::new(8);
    for _ in 0..100 {
        mutator.step(&bench);
    }
    bench.settle();
    {
        let mut backup = bench.backup.lock();
        backup.restore_older(0);
        backup.blobs.clear();
    }
    bench.link = None;
    for _ in 0..10 {
        mutator.step(&bench);
    }
    bench.settle();
    bench.assert_equal();
}

#[test]
fn without_handles_objects_go_at_the_end_of_a_scan() {
    let mut bench = Bench::with_tree(9, |root| Tree::open_without_handles(root).unwrap());
    mutate_on(&mut bench, 9, 0.05, false, 40);
    bench.scan();
    bench.settle();
    for _ in 0..50 {
        bench.turn();
    }
    bench.settle();
    bench.assert_equal();
    let model = bench.backup.lock().model();
    let named: Vec<&ObjectId> = model.entries.values().collect();
    let lingering = model.objects.keys().filter(|id| **id != ObjectId::ROOT && !named.contains(id)).count();
    assert_eq!(lingering, 0);
}

#[test]
fn a_new_root_is_refused_until_it_is_accepted() {
    let mut bench = Bench::new(10);
    bench.mkdir("dir");
    bench.write("dir/file", b"content");
    bench.settle();
    let former = bench.root.with_extension("former");
    fs::rename(&bench.root, &former).unwrap();
    fs::create_dir(&bench.root).unwrap();
    fs::write(bench.root.join("other"), b"new disk").unwrap();
    bench.tree = Arc::new(Tree::open(&bench.root).unwrap());
    bench.start();
    assert!(!bench.turn(), "another root");
    assert!(bench.backup.lock().model().at("dir/file").is_some());
    let (root_key, filesystem_id) = (bench.tree.root_key().clone(), bench.tree.filesystem_id().to_vec());
    bench.control.note(ShadowNote::Export { root_key, filesystem_id, keys_are_dead: true });
    let _ = bench.sender().handle_requests();
    bench.settle();
    bench.scan();
    bench.settle();
    bench.assert_equal();
    assert!(bench.backup.lock().model().at("dir").is_none());
}

#[test]
fn the_thread_ships_stops_and_leaves_a_shadow_that_is_in_step() {
    let mut bench = Bench::new(11);
    bench.sender = None;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (control, seat) = SenderControl::new();
    let parts = SenderParts {
        export: "share".to_owned(),
        tree: Arc::clone(&bench.tree),
        dirty: Arc::clone(&bench.dirty),
        directories: Arc::clone(&bench.directories),
        shadow: bench.shadow.clone(),
        connector: Box::new(FakeConnector(Arc::clone(&bench.backup))),
        scan: Arc::new(|| {}),
    };
    let thread = spawn(parts, seat).unwrap();
    for n in 0..50 {
        bench.write(&format!("f{n}"), &noise(n, 10_000));
        let number = bench.dirty.current();
        let mut acknowledged = bench.dirty.acknowledged();
        let wait = async { acknowledged.wait_for(|reached| *reached >= number).await.map(|_| ()) };
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(10), wait).await }).unwrap().unwrap();
        assert!(bench.backup.lock().model().at(&format!("f{n}")).is_some());
    }
    assert!(control.status().is_running());
    control.note(ShadowNote::CleanStop(true));
    runtime.block_on(control.stop());
    thread.join().unwrap();
    let meta = ShadowReader::open(&bench.shadow).unwrap().meta().unwrap();
    assert_eq!(meta.position, bench.backup.lock().position());
    assert!(meta.clean_stop);
    assert_eq!(control.status().report().state, SenderState::Stopped);
    bench.assert_equal();
}
