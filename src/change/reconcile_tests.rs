//! The scan against a shadow that holds what the tree was.

use super::*;
use crate::change::dirty::{Content, Entry};
use crate::change::shadow::Shadow;
use ehpc_proto::replication::{Hash, Manifest, Position, StreamId};
use std::collections::HashMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// An export and a shadow that holds what the export was when `acknowledge` was called.
pub(in crate::change) struct Bench {
    pub(in crate::change) root: TempDir,
    pub(in crate::change) tree: Tree,
    pub(in crate::change) shadow: Shadow,
    dirty: std::sync::Arc<DirtySet>,
    directories: std::sync::Arc<DirectorySet>,
}

impl Bench {
    pub(in crate::change) fn new() -> Bench {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("export")).unwrap();
        let tree = Tree::open(&root.path().join("export")).unwrap();
        let shadow = Shadow::open(&root.path().join("shadow.sqlite")).unwrap();
        Bench { root, tree, shadow, dirty: DirtySet::new(), directories: DirectorySet::new() }
    }

    pub(in crate::change) fn at(&self, path: &str) -> PathBuf {
        self.root.path().join("export").join(path)
    }

    pub(in crate::change) fn key(&self, path: &str) -> ObjectKey {
        self.found(&self.at(path)).key
    }

    fn found(&self, path: &Path) -> crate::host::Found {
        let dir = File::open(path.parent().unwrap()).unwrap();
        self.tree.lookup(dir.as_fd(), path.file_name().unwrap().as_bytes()).unwrap().unwrap()
    }

    fn row(&self, id: ObjectId, key: ObjectKey, stat: &Stat) -> Row {
        Row {
            id,
            key,
            kind: stat.kind,
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            size: if stat.kind == Kind::File { stat.size } else { 0 },
            mtime: stat.mtime,
            ctime: stat.ctime,
            rdev: stat.rdev,
            meta: Hash([0; 32]),
            manifest: Manifest::EMPTY,
            racy: false,
            fuzzy: false,
        }
    }

    /// The backup now has the tree as it is.
    pub(in crate::change) fn acknowledge(&mut self) {
        let fd = self.tree.open_path(self.tree.root_key()).unwrap();
        let row = self.row(ObjectId::ROOT, self.tree.root_key().clone(), &Tree::stat(fd.as_fd()).unwrap());
        self.shadow.put(&row).unwrap();
        self.shadow.set_position(Position::start(StreamId([1; 16]))).unwrap();
        self.shadow.set_boot_id(crate::host::boot_id().unwrap().as_bytes()).unwrap();
        let root = self.root.path().join("export");
        let mut ids = HashMap::new();
        self.acknowledge_dir(ObjectId::ROOT, &root, &mut ids);
        self.shadow.commit().unwrap();
        // What happens next bears a later time.
        let now = crate::host::now();
        while crate::host::coarse_now() <= now {
            std::thread::yield_now();
        }
    }

    fn acknowledge_dir(&mut self, id: ObjectId, path: &Path, ids: &mut HashMap<ObjectKey, ObjectId>) {
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            let found = self.found(&entry.path());
            let child = match ids.get(&found.key) {
                Some(id) => *id,
                None => self.shadow.id_of(&found.key).unwrap().unwrap_or_else(|| self.shadow.new_id()),
            };
            ids.insert(found.key.clone(), child);
            let row = self.row(child, found.key, &found.stat);
            self.shadow.put(&row).unwrap();
            self.shadow.put_entry(id, entry.file_name().as_bytes(), Some(child)).unwrap();
            if found.stat.kind == Kind::Directory {
                self.acknowledge_dir(child, &entry.path(), ids);
            }
        }
    }

    fn scan(&self, options: ScanOptions) -> (Result<ScanOutcome, ScanError>, Vec<Change>) {
        let (progress, stop) = (ScanProgress::default(), AtomicBool::new(false));
        let shadow = self.shadow.reader().unwrap();
        let scan = Scan {
            tree: &self.tree,
            shadow: &shadow,
            dirty: &self.dirty,
            directories: &self.directories,
            options,
            progress: &progress,
            stop: &stop,
        };
        let outcome = scan.run();
        (outcome, self.dirty.take(usize::MAX).changes)
    }

    fn changes(&self) -> Vec<Change> {
        let (outcome, changes) = self.scan(ScanOptions::default());
        assert!(matches!(outcome, Ok(ScanOutcome::Finished(_))), "{outcome:?}");
        changes
    }

    fn has_entry(&self, changes: &[Change], dir: &ObjectKey, name: &str) -> bool {
        let wanted = Entry { dir: dir.clone(), name: name.as_bytes().into() };
        changes.iter().any(|change| matches!(change, Change::Entries(entries) if entries.contains(&wanted)))
    }
}

fn touch_of(changes: &[Change], wanted: &ObjectKey) -> Option<Touch> {
    changes.iter().find_map(|change| match change {
        Change::Object(key, touch) if key == wanted => Some(touch.clone()),
        _ => None,
    })
}

#[test]
fn an_empty_shadow_makes_everything_new() {
    let bench = Bench::new();
    fs::write(bench.at("file"), b"x").unwrap();
    assert_eq!(bench.changes(), [Change::Object(bench.tree.root_key().clone(), Touch::LISTING)]);
    assert!(bench.directories.contains(bench.tree.root_key()));
}

#[test]
fn what_is_as_it_was_is_left_alone() {
    let mut bench = Bench::new();
    fs::create_dir(bench.at("dir")).unwrap();
    fs::write(bench.at("dir/file"), b"x").unwrap();
    fs::hard_link(bench.at("dir/file"), bench.at("link")).unwrap();
    std::os::unix::fs::symlink("nowhere", bench.at("symlink")).unwrap();
    bench.acknowledge();
    assert_eq!(bench.changes(), []);
    assert!(bench.directories.contains(&bench.key("dir")));
    assert!(bench.directories.may_know(&bench.key("dir/file")));
}

#[test]
fn each_difference_is_noted() {
    let mut bench = Bench::new();
    for dir in ["dir", "dir/sub", "leaves"] {
        fs::create_dir(bench.at(dir)).unwrap();
    }
    for file in ["grown", "same-size", "chmod", "gone", "replaced", "dir/moved", "dir/sub/deep"] {
        fs::write(bench.at(file), b"12345").unwrap();
    }
    bench.acknowledge();
    let (root, dir) = (bench.tree.root_key().clone(), bench.key("dir"));
    let old_times = fs::metadata(bench.at("same-size")).unwrap().modified().unwrap();
    fs::write(bench.at("grown"), b"123456").unwrap();
    fs::write(bench.at("same-size"), b"54321").unwrap();
    File::options().write(true).open(bench.at("same-size")).unwrap().set_modified(old_times).unwrap();
    fs::set_permissions(bench.at("chmod"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(bench.at("gone")).unwrap();
    fs::write(bench.at("new-inode"), b"12345").unwrap();
    fs::rename(bench.at("new-inode"), bench.at("replaced")).unwrap();
    fs::rename(bench.at("dir/moved"), bench.at("moved")).unwrap();
    fs::rename(bench.at("leaves"), bench.at("dir/sub/arrived")).unwrap();
    fs::write(bench.at("dir/sub/deep"), b"deeper").unwrap();
    let sub = bench.key("dir/sub");
    let changes = bench.changes();

    let content = Touch { content: Content::All, settle_pages: true, listing: false };
    for file in ["grown", "same-size", "chmod", "dir/sub/deep"] {
        assert_eq!(touch_of(&changes, &bench.key(file)), Some(content.clone()), "{file}");
    }
    for (dir, name) in [
        (&root, "gone"),
        (&root, "replaced"),
        (&dir, "moved"),
        (&root, "moved"),
        (&root, "leaves"),
        (&sub, "arrived"),
    ] {
        assert!(bench.has_entry(&changes, dir, name), "{name}: {changes:?}");
    }
    assert_eq!(touch_of(&changes, &root), Some(Touch::ATTRIBUTES));
    assert_eq!(touch_of(&changes, &bench.key("replaced")), None, "the sender reads it by its entry");
}

#[test]
fn racy_fuzzy_and_suspicious_rows_are_read_again() {
    let mut bench = Bench::new();
    for file in ["racy", "fuzzy", "old", "plain"] {
        fs::write(bench.at(file), b"12345").unwrap();
    }
    bench.acknowledge();
    let reader = bench.shadow.reader().unwrap();
    for file in ["racy", "fuzzy"] {
        let mut row = reader.by_key(&bench.key(file)).unwrap().unwrap();
        (row.racy, row.fuzzy) = (file == "racy", file == "fuzzy");
        bench.shadow.put(&row).unwrap();
    }
    bench.shadow.commit().unwrap();
    let content = Some(Touch::SETTLED_CONTENT);
    let changes = bench.changes();
    assert_eq!(touch_of(&changes, &bench.key("racy")), content);
    assert_eq!(touch_of(&changes, &bench.key("fuzzy")), content);
    assert_eq!(changes.len(), 2);
    // After a power cut: equal times prove nothing from the watermark on.
    let ctime = reader.by_key(&bench.key("plain")).unwrap().unwrap().ctime;
    let since = |time| ScanOptions { suspicious_since: Some(time), ..ScanOptions::default() };
    let (_, changes) = bench.scan(since(ctime));
    assert_eq!(touch_of(&changes, &bench.key("plain")), content);
    let later = Timestamp { seconds: ctime.seconds + 60, nanos: 0 };
    let (_, changes) = bench.scan(since(later));
    assert_eq!(changes.len(), 2, "stable rows are believed: {changes:?}");
}

#[test]
fn another_root_is_refused_until_it_is_accepted() {
    let mut bench = Bench::new();
    fs::write(bench.at("file"), b"x").unwrap();
    bench.acknowledge();
    fs::rename(bench.at(""), bench.root.path().join("unmounted")).unwrap();
    fs::create_dir(bench.at("")).unwrap();
    bench.tree = Tree::open(&bench.at("")).unwrap();
    let (outcome, changes) = bench.scan(ScanOptions::default());
    let error = outcome.unwrap_err();
    assert!(matches!(error, ScanError::ForeignRoot { .. }), "{error}");
    assert!(error.to_string().contains("--accept-new-export"), "{error}");
    assert_eq!(changes, []);
    let (outcome, changes) = bench.scan(ScanOptions { accept_new_export: true, ..ScanOptions::default() });
    assert!(matches!(outcome, Ok(ScanOutcome::Finished(_))));
    assert_eq!(changes, [Change::Object(bench.tree.root_key().clone(), Touch::LISTING)]);
}

#[test]
fn another_file_system_is_refused() {
    let mut bench = Bench::new();
    bench.acknowledge();
    let key = bench.tree.root_key().clone();
    bench.shadow.set_export(&key, &[9; 8]).unwrap();
    bench.shadow.commit().unwrap();
    let (outcome, _) = bench.scan(ScanOptions::default());
    assert!(matches!(outcome, Err(ScanError::ForeignRoot { what: "its file system", .. })), "{outcome:?}");
}

/// 12 directories of 100 files.
fn crowd(bench: &Bench) {
    for dir in 0..12 {
        fs::create_dir(bench.at(&format!("d{dir}"))).unwrap();
        for file in 0..100 {
            fs::write(bench.at(&format!("d{dir}/{file}")), b"").unwrap();
        }
    }
}

#[test]
fn most_of_a_tree_missing_stops_and_asks() {
    let mut bench = Bench::new();
    crowd(&bench);
    bench.acknowledge();
    for dir in 0..7 {
        fs::remove_dir_all(bench.at(&format!("d{dir}"))).unwrap();
    }
    fs::write(bench.at("new"), b"").unwrap();
    let (outcome, changes) = bench.scan(ScanOptions::default());
    let root = bench.tree.root_key().clone();
    assert_eq!(outcome.unwrap(), ScanOutcome::NeedsConsent { would_remove: 707, known: 1213 });
    assert!(bench.has_entry(&changes, &root, "new"), "what is new may be shipped");
    assert!(!bench.has_entry(&changes, &root, "d3"), "{changes:?}");
    let (outcome, changes) = bench.scan(ScanOptions { accept_removal: true, ..ScanOptions::default() });
    assert!(matches!(outcome, Ok(ScanOutcome::Finished(_))));
    assert!((0..7).all(|dir| bench.has_entry(&changes, &root, &format!("d{dir}"))));
}

#[test]
fn half_of_a_tree_or_a_small_one_may_go() {
    let mut bench = Bench::new();
    crowd(&bench);
    bench.acknowledge();
    for dir in 0..5 {
        fs::remove_dir_all(bench.at(&format!("d{dir}"))).unwrap();
    }
    assert_eq!(bench.changes().len(), 6, "five names and the root");
    let mut small = Bench::new();
    fs::create_dir(small.at("dir")).unwrap();
    (0..500).for_each(|n| fs::write(small.at(&format!("dir/{n}")), b"").unwrap());
    small.acknowledge();
    fs::remove_dir_all(small.at("dir")).unwrap();
    assert!(small.has_entry(&small.changes(), small.tree.root_key(), "dir"));
}

#[test]
fn what_was_moved_within_the_export_is_not_missing() {
    let mut bench = Bench::new();
    crowd(&bench);
    bench.acknowledge();
    fs::create_dir(bench.at("new")).unwrap();
    for dir in 0..5 {
        fs::rename(bench.at(&format!("d{dir}")), bench.at(&format!("new/d{dir}"))).unwrap();
        fs::rename(bench.at(&format!("d{}", dir + 5)), bench.at(&format!("renamed{dir}"))).unwrap();
    }
    let root = bench.tree.root_key().clone();
    let changes = bench.changes();
    assert!(bench.has_entry(&changes, &root, "d0") && bench.has_entry(&changes, &root, "new"));
    // Moved out of it, they are.
    for dir in 0..5 {
        let (from, to) = (bench.at(&format!("new/d{dir}")), bench.root.path().join(format!("out{dir}")));
        fs::rename(from, to).unwrap();
        let to = bench.root.path().join(format!("out{}", dir + 5));
        fs::rename(bench.at(&format!("renamed{dir}")), to).unwrap();
    }
    let (outcome, _) = bench.scan(ScanOptions::default());
    assert_eq!(outcome.unwrap(), ScanOutcome::NeedsConsent { would_remove: 1010, known: 1213 });
}

#[test]
fn a_crowd_of_names_is_one_listing() {
    let mut bench = Bench::new();
    fs::create_dir(bench.at("new")).unwrap();
    fs::create_dir(bench.at("lost")).unwrap();
    fs::create_dir(bench.at("both")).unwrap();
    for n in 0..400 {
        fs::write(bench.at(&format!("lost/{n}")), b"").unwrap();
    }
    fs::write(bench.at("both/lost"), b"").unwrap();
    bench.acknowledge();
    for n in 0..400 {
        fs::write(bench.at(&format!("new/{n}")), b"").unwrap();
        fs::write(bench.at(&format!("both/{n}")), b"").unwrap();
        fs::remove_file(bench.at(&format!("lost/{n}"))).unwrap();
    }
    fs::remove_file(bench.at("both/lost")).unwrap();
    let changes = bench.changes();
    for dir in ["new", "lost", "both"] {
        assert!(touch_of(&changes, &bench.key(dir)).unwrap().listing, "{dir}: {changes:?}");
    }
    assert!(changes.len() < 10, "{changes:?}");
}
