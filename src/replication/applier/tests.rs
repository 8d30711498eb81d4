//! Store, catalog, mirror and applier together, fed with the random batches of the mirror's simulation.

use super::*;
use crate::replication::mirror::Mirror;
use crate::replication::mirror::disk::Verdict;
use crate::replication::mirror::model::{Model, Primary, Strict, compare};
use crate::store::Options;
use ehpc_proto::replication::message::{Blob, BlobKind, Codec, Damage};
use ehpc_proto::replication::{Batch, Hash, Manifest, Position, StreamId, wire};
use std::collections::HashSet;
use std::os::unix::fs::{FileExt, PermissionsExt};

const LONG: Duration = Duration::from_secs(60);

struct Backup {
    dir: tempfile::TempDir,
    store: Arc<Store>,
    primary: Primary,
    live: Model,
    position: Position,
    sent: HashSet<Hash>,
    mirror: bool,
}

impl Backup {
    fn new(seed: u64, mirror: bool) -> Backup {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(dir.path(), Options::default()).unwrap();
        let position = Position::start(StreamId([7; 16]));
        Backup {
            dir,
            store,
            primary: Primary::new(seed),
            live: Model::default(),
            position,
            sent: HashSet::new(),
            mirror,
        }
    }

    fn applier(&self) -> Arc<Applier> {
        let directory = self.mirror.then(|| self.dir.path().to_owned());
        Applier::start(self.store.clone(), ApplierOptions { directory }).unwrap()
    }

    fn reopen(&mut self) {
        let (closed, _) = Store::open(&self.dir.path().join("none"), Options::default()).unwrap();
        self.store = closed; // the old one goes first
        self.store = Store::open(self.dir.path(), Options::default()).unwrap().0;
    }

    /// What `batch` needs and the batch itself, durable.
    fn receive(&mut self, mut batch: Batch) {
        batch.previous = self.position.chain;
        let pages: HashSet<Hash> =
            batch.objects.iter().flat_map(|state| self.primary.chunks.pages(&state.content)).collect();
        for (hash, bytes) in &self.primary.chunks.blobs {
            if self.sent.insert(*hash) {
                let kind = if pages.contains(hash) { BlobKind::Page } else { BlobKind::Chunk };
                let blob = Blob {
                    kind,
                    hash: *hash,
                    raw_len: bytes.len() as u32,
                    codec: Codec::Raw,
                    bytes: bytes.clone().into(),
                };
                self.store.put_blob(&blob).unwrap();
            }
        }
        let encoded = wire::encode_batch(&batch);
        self.position = self.store.append_batch(&encoded, &batch).unwrap();
        self.store.sync().unwrap();
        self.live.apply(&batch);
    }

    fn batches(&mut self, count: usize) {
        for _ in 0..count {
            let batch = self.primary.batch(12);
            self.receive(batch);
        }
    }

    fn assert_mirror(&mut self, applier: &Applier) {
        assert_eq!(
            applier.wait_applied(self.position.number, LONG),
            self.position.number,
            "{:?}",
            applier.status()
        );
        drop(applier.shared.settled().unwrap());
        applier.shared.commit_now();
        let reader = self.store.reader().unwrap();
        for (id, known) in &mut self.live.objects {
            let live = reader.rows().live_object(*id).unwrap().unwrap();
            assert_eq!(live.state, known.state);
            known.identity = live.mirror_inode.map(crate::replication::mirror::Identity);
        }
        compare(&Mirror::open(self.dir.path()).unwrap(), &self.live, &self.primary.chunks, Strict::WHOLLY);
    }

    fn mirror(&self) -> std::path::PathBuf {
        self.dir.path().join("mirror")
    }
}

fn read_data(applier: &Applier) -> (Vec<Damage>, Vec<Damage>) {
    let (mut wrong, mut unsaid) = (Vec::new(), Vec::new());
    applier
        .read_data(&mut |_, damage, unchecked| {
            wrong.extend(damage);
            unsaid.extend(unchecked);
            true
        })
        .unwrap();
    (wrong, unsaid)
}

#[test]
fn mirror_and_catalog_follow_and_survive_restarts() {
    let mut backup = Backup::new(1, true);
    for round in 0..6 {
        let applier = backup.applier();
        backup.batches(4);
        if round % 2 == 0 {
            backup.assert_mirror(&applier);
            applier.stop();
            assert_eq!(applier.status().committed, backup.position.number);
        }
        drop(applier); // else without a commit: redone by the next
        if round % 3 == 0 {
            backup.reopen();
        }
    }
    let applier = backup.applier();
    backup.assert_mirror(&applier);
    assert_eq!(read_data(&applier).0, vec![]);
}

#[test]
fn a_batch_is_in_the_mirror_before_it_is_committed() {
    let mut backup = Backup::new(2, true);
    let applier = backup.applier();
    backup.batches(3);
    let deadline = Instant::now() + LONG;
    while applier.status().applied < 3 {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    backup.assert_mirror(&applier);
}

#[test]
fn an_error_pauses_and_nothing_is_skipped() {
    let mut backup = Backup::new(3, true);
    let applier = backup.applier();
    backup.batches(3);
    backup.assert_mirror(&applier);
    let mut left = 20;
    let gate = Box::new(move |_| {
        left -= 1;
        if left < 0 && left > -4 { Verdict::Die } else { Verdict::Go }
    });
    applier.shared.core.lock().gate(Some(gate));
    backup.batches(8);
    backup.assert_mirror(&applier);
    assert_eq!(applier.status().state, ApplierState::Running);
}

#[test]
fn without_a_mirror_there_is_the_catalog_and_a_mirror_can_come_later() {
    let mut backup = Backup::new(4, false);
    let applier = backup.applier();
    backup.batches(5);
    assert_eq!(applier.wait_applied(5, LONG), 5);
    assert!(!backup.mirror().exists());
    assert_eq!(read_data(&applier), (vec![], vec![]));
    applier.stop();
    drop(applier);
    backup.mirror = true;
    let applier = backup.applier();
    backup.batches(1);
    backup.assert_mirror(&applier);
    assert_eq!(read_data(&applier).0, vec![]);
}

#[test]
fn a_mirror_that_was_removed_is_made_anew() {
    let mut backup = Backup::new(5, true);
    let applier = backup.applier();
    backup.batches(6);
    backup.assert_mirror(&applier);
    applier.stop();
    drop(applier);
    std::fs::remove_dir_all(backup.mirror()).unwrap();
    let applier = backup.applier();
    backup.assert_mirror(&applier);
}

/// A file with content that has a name and lies in the root or a directory.
fn some_file(backup: &Backup) -> (ObjectId, std::path::PathBuf) {
    let wanted = |id: &ObjectId| backup.live.objects[id].state.content != Manifest::EMPTY;
    let (id, spots) = backup
        .live
        .names
        .iter()
        .find(|(id, spots)| !spots.is_empty() && backup.live.objects.contains_key(id) && wanted(id))
        .unwrap();
    let mut path = Vec::new();
    let mut spot = spots.first().unwrap();
    loop {
        path.push(String::from_utf8(spot.name.clone()).unwrap());
        if spot.parent == ObjectId::ROOT {
            break;
        }
        spot = backup.live.names[&spot.parent].first().expect("a name");
    }
    path.reverse();
    (*id, path.iter().collect())
}

#[test]
fn damage_in_the_mirror_is_found_and_repaired() {
    let mut backup = Backup::new(6, true);
    let applier = backup.applier();
    backup.batches(6);
    backup.assert_mirror(&applier);
    let (id, path) = some_file(&backup);
    let file = std::fs::OpenOptions::new().read(true).write(true).open(backup.mirror().join(&path)).unwrap();
    let times = std::fs::FileTimes::new().set_modified(file.metadata().unwrap().modified().unwrap());
    let mut byte = [0];
    file.read_exact_at(&mut byte, 0).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 0).unwrap();
    file.set_times(times).unwrap();
    let (damage, _) = read_data(&applier);
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert_eq!(damage[0].path, path.to_str().unwrap().as_bytes());
    assert!(damage[0].reason.contains("content differs"), "{damage:?}");

    // A stranger, a missing name, a wrong mode, wrong times.
    std::fs::write(backup.mirror().join("stranger"), "x").unwrap();
    std::fs::remove_file(backup.mirror().join(&path)).unwrap();
    std::fs::set_permissions(backup.mirror(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let (damage, _) = read_data(&applier);
    let reasons: Vec<&str> = damage.iter().map(|damage| damage.reason.as_str()).collect();
    for wanted in ["\"stranger\"", "missing", "mode 711"] {
        assert!(reasons.iter().any(|reason| reason.contains(wanted)), "{wanted} in {reasons:?}");
    }
    let mut objects: Vec<ObjectId> = damage.iter().map(|damage| damage.object).collect();
    assert!(objects.contains(&id));
    objects.dedup();
    assert_eq!(applier.repair(&objects).unwrap(), vec![]);
    backup.assert_mirror(&applier);
    assert_eq!(read_data(&applier).0, vec![]);
}

#[test]
fn damage_in_a_pack_is_found_and_asked_for() {
    let mut backup = Backup::new(7, true);
    let applier = backup.applier();
    backup.batches(6);
    backup.assert_mirror(&applier);
    let (id, path) = some_file(&backup);
    let hash = backup.primary.chunks.first_chunk(&backup.live.objects[&id].state.content).expect("a chunk");
    let at = backup.store.locate(&hash).unwrap().unwrap();
    let pack = std::fs::OpenOptions::new().read(true).write(true).open(&at.path).unwrap();
    let mut byte = [0];
    pack.read_exact_at(&mut byte, at.offset).unwrap();
    pack.write_all_at(&[byte[0] ^ 1], at.offset).unwrap();
    let (damage, _) = read_data(&applier);
    assert!(
        damage.iter().any(|damage| damage.object == id && damage.path == path.to_str().unwrap().as_bytes())
    );
    assert!(damage.iter().all(|damage| damage.reason.contains("packs: chunk")), "{damage:?}");
    assert_eq!(applier.repair(&[id]).unwrap(), vec![id]);
    assert_eq!(backup.store.lacking(&[hash]).unwrap(), vec![true]);
    // The primary sends it again, with the state.
    backup.sent.remove(&hash);
    backup.primary.touch(id);
    backup.batches(1);
    backup.assert_mirror(&applier);
    assert_eq!(read_data(&applier).0, vec![]);
}

#[test]
fn what_was_applied_before_an_error_is_not_done_again() {
    let mut backup = Backup::new(8, true);
    let applier = backup.applier();
    backup.batches(4);
    let deadline = Instant::now() + LONG;
    while applier.status().applied < 4 {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    let open = Arc::new(AtomicBool::new(false));
    let opened = open.clone();
    let gate = Box::new(move |_| if opened.load(Ordering::SeqCst) { Verdict::Go } else { Verdict::Die });
    applier.shared.core.lock().gate(Some(gate));
    backup.batches(2);
    // The error stands; what came before it is committed all the same.
    assert_eq!(applier.wait_applied(4, LONG), 4);
    while !matches!(applier.status().state, ApplierState::Paused { .. }) {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    assert_eq!(applier.status().applied, 4);
    open.store(true, Ordering::SeqCst);
    backup.assert_mirror(&applier);
}

#[test]
fn a_directory_that_was_removed_from_the_mirror_comes_back_whole_even_after_a_stop() {
    let mut backup = Backup::new(10, true);
    let applier = backup.applier();
    backup.batches(8);
    backup.assert_mirror(&applier);
    for entry in std::fs::read_dir(backup.mirror()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            std::fs::remove_dir_all(path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
    }
    for _ in 0..4 {
        backup.batches(1);
        assert_eq!(applier.wait_applied(backup.position.number, LONG), backup.position.number);
    }
    drop(applier);
    let applier = backup.applier();
    drop(applier.shared.settled().unwrap());
    let all: Vec<ObjectId> = backup.live.objects.keys().copied().collect();
    assert_eq!(applier.repair(&all).unwrap(), vec![]);
    assert_eq!(read_data(&applier).0, vec![]);
    backup.assert_mirror(&applier);
}

#[test]
fn the_tree_of_any_batch_can_be_written_anew() {
    let mut backup = Backup::new(11, false);
    let applier = backup.applier();
    let mut models = vec![Model::default()];
    for _ in 0..40 {
        backup.batches(1);
        models.push(backup.live.clone());
    }
    assert_eq!(applier.wait_applied(40, LONG), 40);
    drop(applier.shared.settled().unwrap());
    applier.shared.commit_now();
    let out = tempfile::tempdir().unwrap();
    for batch in [1, 7, 20, 33, 40] {
        let work = out.path().join(batch.to_string());
        std::fs::create_dir(&work).unwrap();
        let target = work.join("mirror"); // the name that the comparison opens
        let never = AtomicBool::new(false);
        let written = past::write_tree(&backup.store, batch as u64, &target, &|_| (), &never).unwrap();
        let model = &mut models[batch];
        // What no path led to then lies nowhere.
        let mut reached = HashSet::from([ObjectId::ROOT]);
        while model.entries.iter().any(|(spot, id)| reached.contains(&spot.parent) && reached.insert(*id)) {}
        model.objects.retain(|id, _| reached.contains(id));
        model.names.values_mut().for_each(|names| names.retain(|spot| reached.contains(&spot.parent)));
        assert_eq!(written.objects as usize, model.objects.len(), "batch {batch}");
        let strict = Strict { recorded: false, privileged: true };
        compare(&Mirror::open(&work).unwrap(), model, &backup.primary.chunks, strict);
        let again = past::write_tree(&backup.store, batch as u64, &target, &|_| (), &never).unwrap_err();
        assert!(again.to_string().contains("is there already"), "{again}");
    }
    let never = AtomicBool::new(false);
    let unknown = past::write_tree(&backup.store, 41, &out.path().join("x"), &|_| (), &never).unwrap_err();
    assert!(unknown.to_string().contains("batch 41 is not in the catalog"), "{unknown}");
}

#[test]
fn a_hard_link_into_a_directory_that_is_long_done_is_made() {
    use ehpc_proto::replication::{EntryState, Kind, ObjectState, Timestamp};
    use std::os::unix::fs::MetadataExt;
    let mut backup = Backup::new(1, false);
    let state = |id: ObjectId, kind| ObjectState {
        id,
        key: id.0.to_be_bytes().to_vec(),
        kind,
        mode: 0o755,
        uid: 0,
        gid: 0,
        size: 0,
        mtime: Timestamp::default(),
        rdev: (0, 0),
        target: Vec::new(),
        xattrs: Vec::new(),
        content: Manifest::EMPTY,
        fuzzy: false,
    };
    let entry =
        |parent, name: &str, child| EntryState { parent, name: name.as_bytes().to_vec(), child: Some(child) };
    let id = |n| ObjectId(ObjectId::ROOT.0 + n);
    // Between the two come more directories than are kept open.
    let mut objects = vec![state(ObjectId::ROOT, Kind::Directory), state(id(1), Kind::File)];
    let mut entries = Vec::new();
    let mut make = |parent, name: &str, kind| {
        let child = id(objects.len() as u64);
        objects.push(state(child, kind));
        entries.push(entry(parent, name, child));
        child
    };
    let first = make(ObjectId::ROOT, "a", Kind::Directory);
    let first = make(first, "deep", Kind::Directory);
    let last = make(ObjectId::ROOT, "z", Kind::Directory);
    let last = make(last, "deep", Kind::Directory);
    for n in 0..400 {
        let between = make(ObjectId::ROOT, &format!("m{n:04}"), Kind::Directory);
        make(between, "file", Kind::File);
    }
    entries.extend([entry(first, "one", id(1)), entry(last, "two", id(1))]);
    let (previous, time) = (Hash([0; 32]), Timestamp::default());
    backup.receive(Batch { number: 1, previous, cut: 1, time, objects, entries, destroyed: Vec::new() });
    let applier = backup.applier();
    assert_eq!(applier.wait_applied(1, LONG), 1);
    drop(applier.shared.settled().unwrap());
    applier.shared.commit_now();
    let out = tempfile::tempdir().unwrap();
    let (target, never) = (out.path().join("tree"), AtomicBool::new(false));
    past::write_tree(&backup.store, 1, &target, &|_| (), &never).unwrap();
    let inode = |path: &str| std::fs::metadata(target.join(path)).unwrap().ino();
    assert_eq!(inode("a/deep/one"), inode("z/deep/two"));
}
