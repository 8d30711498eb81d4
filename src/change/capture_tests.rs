//! Change capture as a whole: start, identity, watermark, consent.

use super::*;
use crate::change::dirty::{Change, Touch};
use crate::change::reconcile::tests::Bench;
use crate::change::shadow::Shadow;
use ehpc_proto::replication::{Position, StreamId};
use parking_lot::Mutex;
use std::fs;

struct Rig {
    bench: Bench,
    tree: Arc<Tree>,
    dirty: Arc<DirtySet>,
    notes: Arc<Mutex<Vec<ShadowNote>>>,
}

impl Rig {
    fn new(bench: Bench) -> Rig {
        let tree = Arc::new(Tree::open(&bench.at("")).unwrap());
        Rig { bench, tree, dirty: DirtySet::new(), notes: Arc::default() }
    }

    fn start_with(&self, options: &CaptureOptions) -> Result<ChangeCapture, CaptureError> {
        let path = self.bench.root.path().join("shadow.sqlite");
        let readers: ShadowReaders = Arc::new(move || ShadowReader::open(&path));
        let notes: ShadowNotes = {
            let notes = Arc::clone(&self.notes);
            Arc::new(move |note| notes.lock().push(note))
        };
        ChangeCapture::start(&self.tree, &self.dirty, readers, notes, self.bench.root.path(), options)
    }

    fn start(&self) -> ChangeCapture {
        self.start_with(&CaptureOptions::default()).unwrap()
    }

    fn stable_notes(&self) -> usize {
        self.notes.lock().iter().filter(|note| matches!(note, ShadowNote::Stable { .. })).count()
    }
}

fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let (_never, pause) = crossbeam_channel::bounded::<()>(0);
    while !reached() {
        assert!(Instant::now() < deadline, "waited for {what}");
        let _ = pause.recv_timeout(Duration::from_millis(2));
    }
}

fn finished(capture: &ChangeCapture) -> bool {
    !capture.status().scan.outstanding
}

#[test]
fn a_start_identifies_scans_watches_and_a_stop_is_clean() {
    let rig = Rig::new(Bench::new());
    fs::write(rig.bench.at("file"), b"x").unwrap();
    let capture = rig.start();
    until("the first scan", || finished(&capture));
    assert_eq!(rig.dirty.take(9).changes, [Change::Object(rig.tree.root_key().clone(), Touch::LISTING)]);
    let status = capture.status();
    assert_eq!((status.noted.scan, status.pending), (1, 0));
    assert!(status.lag_ms.is_some());
    let made = std::process::Command::new("touch").arg(rig.bench.at("theirs")).status().unwrap();
    assert!(made.success());
    let entry = Change::entry(rig.tree.root_key(), b"theirs");
    until("the watcher", || rig.dirty.take(9).changes.contains(&entry));
    until("a watermark", || rig.stable_notes() > 0);
    capture.stop().unwrap();
    let notes = rig.notes.lock();
    let export = ShadowNote::Export {
        root_key: rig.tree.root_key().clone(),
        filesystem_id: rig.tree.filesystem_id().to_vec(),
        keys_are_dead: false,
    };
    assert_eq!(notes[..2], [export, ShadowNote::CleanStop(false)]);
    assert!(matches!(notes[notes.len() - 2], ShadowNote::Stable { .. }));
    assert_eq!(notes[notes.len() - 1], ShadowNote::CleanStop(true));
}

#[test]
fn after_an_unclean_boot_rows_are_read_again_before_the_watermark_moves() {
    let mut bench = Bench::new();
    fs::write(bench.at("file"), b"x").unwrap();
    bench.acknowledge();
    bench.shadow.set_boot_id(b"another boot").unwrap();
    bench.shadow.commit().unwrap();
    let rig = Rig::new(bench);
    let capture = rig.start();
    until("the first scan", || finished(&capture));
    let taken = rig.dirty.take(usize::MAX);
    let file = Change::Object(rig.bench.key("file"), Touch::SETTLED_CONTENT);
    assert!(taken.changes.contains(&file), "{taken:?}");
    // Woken, the thread looks again; the backup has acknowledged nothing.
    capture.scans().demand();
    until("the second scan", || finished(&capture));
    assert_eq!(rig.stable_notes(), 0);
    rig.dirty.acknowledge(taken.cut);
    capture.scans().demand();
    until("the watermark", || rig.stable_notes() > 0);
    drop(capture);
    assert!(!rig.notes.lock().contains(&ShadowNote::CleanStop(true)), "dropped is not stopped");
}

#[test]
fn a_foreign_root_is_refused_at_the_start_and_recorded_when_accepted() {
    let mut bench = Bench::new();
    fs::write(bench.at("file"), b"x").unwrap();
    bench.acknowledge();
    let key = bench.tree.root_key().clone();
    bench.shadow.set_export(&key, &bench.tree.filesystem_id()).unwrap();
    bench.shadow.commit().unwrap();
    fs::rename(bench.at(""), bench.root.path().join("unmounted")).unwrap();
    fs::create_dir(bench.at("")).unwrap();
    let rig = Rig::new(bench);
    let error = rig.start_with(&CaptureOptions::default()).err().unwrap();
    assert!(error.to_string().contains("--accept-new-export"), "{error}");
    assert!(rig.notes.lock().is_empty());
    let capture = rig.start_with(&CaptureOptions { accept_new_export: true, ..Default::default() }).unwrap();
    until("the scan", || finished(&capture));
    assert!(matches!(&rig.notes.lock()[0], ShadowNote::Export { root_key, keys_are_dead: false, .. }
        if root_key == rig.tree.root_key()));
    assert_eq!(rig.dirty.take(9).changes, [Change::Object(rig.tree.root_key().clone(), Touch::LISTING)]);
}

#[test]
fn known_objects_are_known_to_the_watcher_from_the_start() {
    let mut bench = Bench::new();
    fs::create_dir(bench.at("dir")).unwrap();
    fs::write(bench.at("dir/file"), b"x").unwrap();
    bench.acknowledge();
    let rig = Rig::new(bench);
    let capture = rig.start();
    until("the first scan", || finished(&capture));
    assert!(capture.directories().contains(&rig.bench.key("dir")));
    assert!(capture.directories().may_know(&rig.bench.key("dir/file")));
    assert_eq!(rig.dirty.pending(), 0);
}

#[test]
fn a_removal_waits_for_consent() {
    let mut bench = Bench::new();
    fs::create_dir(bench.at("dir")).unwrap();
    (0..1100).for_each(|n| fs::write(bench.at(&format!("dir/{n}")), b"").unwrap());
    bench.acknowledge();
    fs::remove_dir_all(bench.at("dir")).unwrap();
    let rig = Rig::new(bench);
    let capture = rig.start();
    let asks = |capture: &ChangeCapture| {
        matches!(capture.status().scan.last, Some(ScanOutcome::NeedsConsent { would_remove: 1101, .. }))
    };
    until("the question", || asks(&capture));
    let entry = Change::entry(rig.tree.root_key(), b"dir");
    assert!(!rig.dirty.take(9).changes.contains(&entry));
    capture.scans().consent();
    until("the removal", || rig.dirty.take(9).changes.contains(&entry));
    until("the end of the scan", || finished(&capture));
}

#[test]
fn the_writer_of_the_shadow_applies_the_notes() {
    // The notes say all that `Shadow` needs to be told.
    let dir = tempfile::tempdir().unwrap();
    let mut shadow = Shadow::open(&dir.path().join("shadow.sqlite")).unwrap();
    shadow.set_position(Position::start(StreamId([1; 16]))).unwrap();
    shadow.set_boot_id(b"boot").unwrap();
    shadow.set_watermark(Timestamp { seconds: 7, nanos: 8 }).unwrap();
    shadow.commit().unwrap();
    let meta = shadow.reader().unwrap().meta().unwrap();
    assert_eq!(suspicious_since(&meta, b"boot"), None);
    assert_eq!(suspicious_since(&meta, b"next"), Some(Timestamp { seconds: 7, nanos: 8 }));
}
