//! Both watchers on a real file system: nothing lost, nothing of ours, nothing of strangers.

use super::*;
use crate::change::dirty::{Content, Entry};
use crate::host::fanotify::store_through_mmap;
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// An export, a directory beside it on the same file system, and a watcher.
pub(in crate::change) struct Rig {
    pub(in crate::change) root: TempDir,
    pub(in crate::change) tree: Arc<Tree>,
    pub(in crate::change) sink: Arc<Sink>,
    pub(in crate::change) watch: Arc<Watch>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub(in crate::change) enum Use {
    /// fanotify that takes this process for a stranger.
    Fanotify,
    /// fanotify as in production.
    FanotifyButForUs,
    Inotify,
    None,
}

impl Rig {
    pub(in crate::change) fn new(which: Use) -> Rig {
        let root = tempfile::tempdir().unwrap();
        for dir in ["export", "outside", "fence", "aliases"] {
            fs::create_dir(root.path().join(dir)).unwrap();
        }
        let tree = Arc::new(Tree::open(&root.path().join("export")).unwrap());
        let sink = Sink::new(DirtySet::new(), DirectorySet::new(), Scans::new());
        let fence = root.path().join("fence");
        let aliases = root.path().join("aliases");
        let watch = match which {
            Use::Fanotify => {
                let group = crate::host::fanotify::Fanotify::open().unwrap();
                let running = fanotify::Group::mark(group, &tree, &fence).unwrap().run(-1, &sink).unwrap();
                Watch { running: Running::Fanotify { _watch: running }, why: None, sink: Arc::clone(&sink) }
            }
            Use::FanotifyButForUs => start(&tree, &sink, &fence, &aliases, WatchChoice::Best),
            Use::Inotify => start(&tree, &sink, &fence, &aliases, WatchChoice::Inotify),
            Use::None => start(&tree, &sink, &fence, &aliases, WatchChoice::None),
        };
        sink.directories.insert(tree.root_key());
        Rig { root, tree, sink, watch: Arc::new(watch) }
    }

    pub(in crate::change) fn at(&self, path: &str) -> PathBuf {
        self.root.path().join("export").join(path)
    }

    fn outside(&self, path: &str) -> PathBuf {
        self.root.path().join("outside").join(path)
    }

    pub(in crate::change) fn key(&self, path: &Path) -> ObjectKey {
        let (dir, name) = (fs::File::open(path.parent().unwrap()).unwrap(), path.file_name().unwrap());
        use std::os::unix::ffi::OsStrExt;
        self.tree.lookup(dir.as_fd(), name.as_bytes()).unwrap().unwrap().key
    }

    /// Makes a directory that is a member of the set.
    fn known_dir(&self, path: &str) -> ObjectKey {
        fs::create_dir(self.at(path)).unwrap();
        let key = self.key(&self.at(path));
        self.sink.directories.insert(&key);
        key
    }

    /// Takes changes until `enough` says so.
    fn until(&self, what: &str, mut enough: impl FnMut(&[Change]) -> bool) -> Vec<Change> {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut seen = Vec::new();
        let (_never, pause) = crossbeam_channel::bounded::<()>(0);
        loop {
            seen.extend(self.sink.dirty.take(usize::MAX).changes);
            if enough(&seen) {
                return seen;
            }
            assert!(Instant::now() < deadline, "waited for {what}, saw {seen:?}");
            let _ = pause.recv_timeout(Duration::from_millis(2));
        }
    }

    /// Everything that was done before has been noted when this returns.
    fn settle(&self) -> Vec<Change> {
        let name = format!("fence-test-{}", rand::random::<u64>());
        let mut delivered = self.sink.markers.expect(name.as_bytes());
        let path = self.root.path().join("fence").join(&name);
        fs::write(&path, b"").unwrap();
        fs::remove_file(&path).unwrap();
        let mut seen = Vec::new();
        self.until("the marker", |changes| {
            seen = changes.to_vec();
            delivered.try_recv().is_ok()
        });
        seen.extend(self.sink.dirty.take(usize::MAX).changes);
        seen
    }
}

fn entry(dir: &ObjectKey, name: &str) -> Entry {
    Entry { dir: dir.clone(), name: name.as_bytes().into() }
}

fn has_entry(changes: &[Change], wanted: &Entry) -> bool {
    changes.iter().any(|change| matches!(change, Change::Entries(entries) if entries.contains(wanted)))
}

fn touch_of(changes: &[Change], key: &ObjectKey) -> Option<Touch> {
    let mut merged: Option<Touch> = None;
    for change in changes {
        if let Change::Object(object, touch) = change
            && object == key
        {
            merged.get_or_insert_default().merge(touch.clone());
        }
    }
    merged
}

/// What the real sender does with directories: registers them, then lists them.
struct FakeSender<'a> {
    rig: &'a Rig,
    files: BTreeSet<Vec<u8>>,
}

impl FakeSender<'_> {
    fn take(&mut self) {
        for change in self.rig.sink.dirty.take(500).changes {
            match change {
                Change::Entries(entries) => {
                    for Entry { dir, name } in entries {
                        if let Ok(dir) = self.rig.tree.open_path(&dir) {
                            self.name(dir.as_fd(), &name);
                        }
                    }
                }
                Change::Object(key, touch) if touch.listing => self.list(&key),
                Change::Object(..) => {}
            }
        }
        // An overflow is answered as the scan of an empty shadow does.
        if self.rig.sink.scans.status().outstanding {
            let (demanded, _) = self.rig.sink.scans.begin();
            let root = self.rig.tree.root_key().clone();
            self.rig.sink.note(Change::Object(root, Touch::LISTING));
            self.rig.sink.scans.end(demanded, crate::change::ScanOutcome::Finished(Default::default()));
        }
    }

    fn name(&mut self, dir: std::os::fd::BorrowedFd<'_>, name: &[u8]) {
        let Ok(Some(found)) = self.rig.tree.lookup(dir, name) else { return };
        if found.stat.kind == ehpc_proto::replication::Kind::Directory {
            self.rig.sink.directories.insert(&found.key);
            self.list(&found.key);
        } else {
            self.rig.sink.directories.insert_object(&found.key);
            self.files.insert(found.key.bytes.to_vec());
        }
    }

    fn list(&mut self, key: &ObjectKey) {
        let Ok(dir) = self.rig.tree.open_read(key) else { return };
        let mut names: Vec<Box<[u8]>> = Vec::new();
        self.rig
            .tree
            .list(dir.as_fd(), &mut |name, _, _| {
                names.push(name.into());
                true
            })
            .unwrap();
        names.iter().for_each(|name| self.name(dir.as_fd(), name));
    }
}

fn burst(which: Use) {
    let rig = Rig::new(which);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for n in 0..2000 {
                let dir = rig.at(&format!("b{n}"));
                fs::create_dir(&dir).unwrap();
                fs::create_dir(dir.join("x")).unwrap();
                for file in 0..5 {
                    fs::write(dir.join(format!("x/y{file}")), b"content").unwrap();
                }
            }
        });
        let mut sender = FakeSender { rig: &rig, files: BTreeSet::new() };
        let deadline = Instant::now() + Duration::from_secs(60);
        while sender.files.len() < 10_000 {
            sender.take();
            assert!(Instant::now() < deadline, "{which:?}: {} of 10,000 files", sender.files.len());
            std::thread::yield_now();
        }
        writer.join().unwrap();
    });
    let status = rig.watch.status();
    assert_eq!((status.watched, status.unwatched), (4001, 0), "{status:?}");
    if which == Use::Fanotify {
        assert_eq!(status.overflows, 0);
    }
}

#[test]
fn fanotify_announces_every_file_of_a_burst() {
    burst(Use::Fanotify);
}

#[test]
fn inotify_announces_every_file_of_a_burst() {
    burst(Use::Inotify);
}

fn names_and_contents(which: Use) {
    let rig = Rig::new(which);
    let root = rig.tree.root_key().clone();
    fs::write(rig.at("file"), b"12345").unwrap();
    let file = rig.key(&rig.at("file"));
    let changes = rig.settle();
    assert!(has_entry(&changes, &entry(&root, "file")));
    assert_eq!(touch_of(&changes, &file), Some(Touch::CONTENT));

    fs::set_permissions(rig.at("file"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(touch_of(&rig.settle(), &file), Some(Touch::ATTRIBUTES));

    let sub = rig.known_dir("sub");
    rig.settle();
    fs::rename(rig.at("file"), rig.at("sub/moved")).unwrap();
    let pair = |changes: &[Change]| {
        let both = [entry(&root, "file"), entry(&sub, "moved")];
        changes.iter().any(
            |change| matches!(change, Change::Entries(entries) if both.iter().all(|end| entries.contains(end))),
        )
    };
    let changes = rig.settle();
    assert!(pair(&changes), "{changes:?}");

    fs::rename(rig.at("sub/moved"), rig.outside("gone")).unwrap();
    assert!(has_entry(&rig.settle(), &entry(&sub, "moved")));
    fs::rename(rig.outside("gone"), rig.at("back")).unwrap();
    assert!(has_entry(&rig.settle(), &entry(&root, "back")));

    // Renamed itself, a directory is still watched.
    fs::rename(rig.at("sub"), rig.at("renamed")).unwrap();
    rig.settle();
    fs::write(rig.at("renamed/new"), b"").unwrap();
    assert!(has_entry(&rig.settle(), &entry(&sub, "new")));

    fs::remove_file(rig.at("renamed/new")).unwrap();
    fs::remove_dir(rig.at("renamed")).unwrap();
    let changes = rig.settle();
    assert!(has_entry(&changes, &entry(&sub, "new")) && has_entry(&changes, &entry(&root, "renamed")));
    rig.until("the directory to be forgotten", |_| !rig.sink.directories.contains(&sub));
}

#[test]
fn fanotify_notes_names_contents_and_attributes() {
    names_and_contents(Use::Fanotify);
}

#[test]
fn inotify_notes_names_contents_and_attributes() {
    names_and_contents(Use::Inotify);
}

fn mapped(which: Use) {
    let rig = Rig::new(which);
    fs::write(rig.at("mapped"), [0u8; 8192]).unwrap();
    let key = rig.key(&rig.at("mapped"));
    rig.settle();
    let file = fs::OpenOptions::new().read(true).write(true).open(rig.at("mapped")).unwrap();
    store_through_mmap(&file, b"through the mapping").unwrap();
    assert_eq!(touch_of(&rig.settle(), &key), None, "no event tells of a store");
    drop(file);
    let touch = Touch { content: Content::All, settle_pages: true, listing: false };
    assert_eq!(touch_of(&rig.settle(), &key), Some(touch));
}

#[test]
fn the_close_of_a_mapped_file_settles_its_pages() {
    mapped(Use::Fanotify);
    mapped(Use::Inotify);
}

#[test]
fn a_write_through_a_hard_link_outside_counts_and_a_stranger_does_not() {
    let rig = Rig::new(Use::Fanotify);
    fs::write(rig.at("inside"), b"1").unwrap();
    let key = rig.key(&rig.at("inside"));
    rig.sink.directories.insert_object(&key);
    fs::hard_link(rig.at("inside"), rig.outside("link")).unwrap();
    fs::write(rig.outside("stranger"), b"1").unwrap();
    rig.settle();
    fs::write(rig.outside("link"), b"22").unwrap();
    assert_eq!(touch_of(&rig.settle(), &key), Some(Touch::CONTENT));
    fs::write(rig.outside("stranger"), b"22").unwrap();
    fs::create_dir(rig.outside("dir")).unwrap();
    fs::rename(rig.outside("stranger"), rig.outside("dir/stranger")).unwrap();
    assert_eq!(rig.settle(), []);
    assert!(rig.watch.status().events > 5);
}

#[test]
fn our_own_changes_are_dropped_but_for_markers() {
    let rig = Rig::new(Use::FanotifyButForUs);
    assert_eq!(rig.watch.status().watcher, Watcher::Fanotify, "{:?}", rig.watch.status());
    fs::write(rig.at("ours"), b"1").unwrap();
    assert_eq!(rig.settle(), []);
    let theirs = rig.at("theirs");
    let done = std::process::Command::new("touch").arg(&theirs).status().unwrap();
    assert!(done.success());
    let changes = rig.settle();
    assert!(has_entry(&changes, &entry(rig.tree.root_key(), "theirs")), "{changes:?}");
}

#[test]
fn lost_events_demand_a_scan() {
    let rig = Rig::new(Use::Fanotify);
    assert!(!rig.sink.scans.status().outstanding);
    let since = Timestamp { seconds: 5, nanos: 0 };
    rig.sink.overflow(since);
    rig.sink.overflow(Timestamp { seconds: 6, nanos: 0 });
    assert_eq!(rig.sink.scans.take_suspicious(), Some(since));
    assert!(rig.sink.scans.status().outstanding);
    assert_eq!(rig.watch.status().overflows, 2);
    // What NFS says exactly may hide what was lost, until a scan has looked.
    let noted = |rig: &Rig| {
        let key = rig.tree.root_key().clone();
        rig.sink.dirty.note_from(Source::Nfs, Change::Object(key, Touch::range(0..9)));
        touch_of(&rig.sink.dirty.take(9).changes, rig.tree.root_key()).unwrap()
    };
    rig.watch.restore_trust();
    assert_eq!(noted(&rig), Touch::CONTENT, "the scan is still outstanding");
    let (demanded, _) = rig.sink.scans.begin();
    rig.sink.scans.end(demanded, crate::change::ScanOutcome::Finished(Default::default()));
    rig.watch.restore_trust();
    assert_eq!(noted(&rig), Touch::range(0..9));
}

#[test]
fn a_queue_that_overflowed_is_told_by_the_kernel() {
    let rig = Rig::new(Use::None);
    let group = crate::host::fanotify::Fanotify::open_bounded().unwrap();
    let fence = rig.root.path().join("fence");
    let waiting = fanotify::Group::mark(group, &rig.tree, &fence).unwrap();
    // Twice as many events as the queue holds by default, and nobody reads.
    let limit = fs::read_to_string("/proc/sys/fs/fanotify/max_queued_events").unwrap();
    for n in 0..limit.trim().parse::<u64>().unwrap() {
        fs::File::create(rig.at(&n.to_string())).unwrap();
    }
    assert!(!rig.sink.scans.status().outstanding);
    let before = crate::host::coarse_now();
    let running = waiting.run(-1, &rig.sink).unwrap();
    let changes = rig.until("the overflow", |_| rig.sink.scans.status().outstanding);
    assert!(changes.len() > 1000, "what was queued is noted: {}", changes.len());
    assert!(rig.sink.scans.take_suspicious().is_some_and(|since| since <= before));
    drop(running);
}

#[test]
fn status_says_which_watcher_and_why() {
    let rig = Rig::new(Use::Inotify);
    let status = rig.watch.status();
    assert_eq!((status.watcher, status.watched, status.unwatched), (Watcher::Inotify, 1, 0));
    assert!(status.why.unwrap().contains("fanotify"));
    let rig = Rig::new(Use::None);
    let status = rig.watch.status();
    assert_eq!((status.watcher, status.watched, status.unwatched), (Watcher::None, 0, 1));
    assert!(status.why.is_some());
}
