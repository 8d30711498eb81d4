//! The sender against a backup in memory, on real directories.

mod random;
mod recovery;
mod shipping;

use super::fake_backup::{Backup, FakeConnector};
use super::*;
use crate::change::Change;
use crate::host::{ObjectKey, Stat};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};

/// A sender that is driven by hand.
struct Bench {
    state: tempfile::TempDir,
    export: tempfile::TempDir,
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
            state,
            export,
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
        let deadline = Instant::now() + Duration::from_secs(60);
        let (_open, never) = crossbeam_channel::bounded::<()>(0);
        while Instant::now() < deadline {
            let current = self.dirty.current();
            self.turn();
            let acknowledged = *self.dirty.acknowledged().borrow();
            let sender = self.sender.as_mut().unwrap();
            let idle = self.dirty.pending() == 0
                && sender.resolver.queue.is_idle()
                && sender.resolver.view.in_flight() == 0
                && sender.orphans.is_none()
                && self.link.is_some();
            if idle && acknowledged >= current {
                return;
            }
            if idle {
                // Something was put off.
                let _ = never.recv_timeout(Duration::from_millis(1));
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
        let split = |path: &str| {
            path.rsplit_once('/')
                .map_or((String::new(), path.to_owned()), |(d, n)| (d.to_owned(), n.to_owned()))
        };
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
                assert!(
                    !self.tree.opens_by_handle()
                        || self.tree.open_path(&ObjectKey::from_bytes(&state.key).unwrap()).is_ok(),
                    "{id:?} lingers"
                );
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
    let fd = rustix::fs::open(
        &full,
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW,
        rustix::fs::Mode::empty(),
    )
    .unwrap();
    let stat: Stat = Tree::stat(fd.as_fd()).unwrap();
    let state = model.at(path).unwrap_or_else(|| panic!("{path} is not on the backup"));
    let key = tree.key_of(fd.as_fd()).unwrap();
    let same = seen.insert(state.id, key.clone());
    assert!(same.is_none_or(|other| other == key), "{path}: one object on the backup, two on the disk");
    assert_eq!(state.key, key.to_bytes().to_vec(), "{path}: key");
    assert_eq!(
        (state.kind, state.mode, state.uid, state.gid),
        (stat.kind, stat.mode, stat.uid, stat.gid),
        "{path}"
    );
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
