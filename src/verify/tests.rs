//! Verify against a small real tree, a real shadow and a backup made of lists of versions.

use super::*;
use crate::change::shadow::{Row, Shadow};
use crate::host;
use crate::store::chunker;
use ehpc_proto::replication::digest::{bucket_digest, listing_digest, object_digest};
use ehpc_proto::replication::message::{BUCKET, Damage, Version};
use ehpc_proto::replication::{Kind, Manifest, ObjectState, Position, StreamId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;

/// Every version of every object, oldest first.
#[derive(Default)]
struct FakeBackup {
    versions: Mutex<BTreeMap<ObjectId, Vec<Version>>>,
    damage: Vec<Damage>,
}

fn live_at(versions: &[Version], batch: u64) -> Option<&Version> {
    versions.iter().rev().find(|version| version.batch <= batch)
}

impl FakeBackup {
    fn add(&self, version: Version) {
        let id = version.state.as_ref().unwrap().id;
        self.versions.lock().entry(id).or_default().push(version);
    }

    fn change(&self, id: ObjectId, batch: u64, edit: impl FnOnce(&mut Version)) {
        let mut version = self.versions.lock()[&id].last().unwrap().clone();
        version.batch = batch;
        edit(&mut version);
        self.add(version);
    }
}

impl Backup for FakeBackup {
    fn ask(&self, query: Query, part: &mut dyn FnMut(Answer)) -> Result<(), String> {
        let versions = self.versions.lock();
        match query {
            Query::Buckets { applied, first, count } => {
                let digests = (first..first + u64::from(count)).map(|bucket| {
                    let members = versions.iter().filter(|(id, _)| id.0 / BUCKET == bucket);
                    bucket_digest(members.filter_map(|(id, all)| {
                        let version = live_at(all, applied)?;
                        let state = version.state.as_ref()?;
                        let listing = (state.kind == Kind::Directory).then(|| {
                            listing_digest(version.entries.iter().map(|(name, id)| (name.as_slice(), *id)))
                        });
                        Some((*id, object_digest(state.digest(), listing)))
                    }))
                });
                part(Answer::Buckets { digests: digests.collect(), highest: ObjectId(9), objects: 9 });
            }
            Query::Versions { objects, from, to } => part(Answer::Versions(
                objects
                    .iter()
                    .map(|id| {
                        let all = versions.get(id).map_or(&[][..], Vec::as_slice);
                        let inside = all.iter().filter(|version| version.batch > from && version.batch <= to);
                        live_at(all, from).into_iter().chain(inside).cloned().collect()
                    })
                    .collect(),
            )),
            Query::ReadData { .. } => part(Answer::ReadData {
                progress: ReadProgress::default(),
                damage: self.damage.clone(),
                unchecked: Vec::new(),
            }),
            other => return Err(format!("{other:?}")),
        }
        Ok(())
    }
}

/// What the world does at each fence.
type AtFence = Box<dyn Fn(u64) + Send + Sync>;

struct FakePrimary {
    batch: AtomicU64,
    at_fence: AtFence,
    fails: bool,
}

impl Primary for FakePrimary {
    fn fence(&self) -> Result<u64, String> {
        if self.fails {
            return Err("the backup is away".to_owned());
        }
        let batch = self.batch.fetch_add(1, Ordering::Relaxed) + 1;
        (self.at_fence)(batch);
        Ok(batch)
    }

    fn reship(&self, _: &[ObjectId], _: &[ObjectKey]) {}
}

/// A share with `a`, `d` and `d/b`, all of it on the backup since batch 1.
struct World {
    directory: tempfile::TempDir,
    tree: Tree,
    shadow: ShadowReader,
    backup: FakeBackup,
}

const A: ObjectId = ObjectId(2);
const D: ObjectId = ObjectId(3);
const B: ObjectId = ObjectId(4);

impl World {
    fn new() -> World {
        let directory = tempfile::tempdir().unwrap();
        let share = directory.path().join("share");
        fs::create_dir_all(share.join("d")).unwrap();
        fs::write(share.join("a"), b"content of a").unwrap();
        fs::write(share.join("d/b"), vec![7; 100_000]).unwrap();
        // Whatever umask other tests of this process set.
        fs::set_permissions(share.join("d/b"), fs::Permissions::from_mode(0o644)).unwrap();
        let tree = Tree::open(&share).unwrap();
        let path = directory.path().join("shadow.sqlite");
        let mut shadow = Shadow::open(&path).unwrap();
        let backup = FakeBackup::default();
        let entry = |name: &str, id| (name.as_bytes().to_vec(), id);
        for (id, name, entries) in [
            (ObjectId::ROOT, "", vec![entry("a", A), entry("d", D)]),
            (A, "a", vec![]),
            (D, "d", vec![entry("b", B)]),
            (B, "d/b", vec![]),
        ] {
            let file = fs::File::open(share.join(name)).unwrap();
            let stat = Tree::stat(file.as_fd()).unwrap();
            let data = if stat.kind == Kind::File { fs::read(share.join(name)).unwrap() } else { Vec::new() };
            let state = ObjectState {
                id,
                key: Vec::new(),
                kind: stat.kind,
                mode: stat.mode,
                uid: stat.uid,
                gid: stat.gid,
                size: data.len() as u64,
                mtime: stat.mtime,
                rdev: stat.rdev,
                target: Vec::new(),
                xattrs: Vec::new(),
                content: Manifest::Inline(chunker::extents(&data)),
                fuzzy: false,
            };
            let key = tree.key_of(file.as_fd()).unwrap();
            shadow.put(&Row::of_state(&state, key, stat.ctime, false)).unwrap();
            for (name, child) in &entries {
                shadow.put_entry(id, name, Some(*child)).unwrap();
            }
            backup.add(Version { batch: 1, state: Some(state), entries });
        }
        shadow.set_position(Position { number: 1, ..Position::start(StreamId([1; 16])) }).unwrap();
        shadow.commit().unwrap();
        World { shadow: ShadowReader::open(&path).unwrap(), tree, backup, directory }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join("share").join(name)
    }

    fn try_verify(&self, fails: bool, at_fence: AtFence) -> Result<Report, VerifyError> {
        // What was done before lies before: file times have the grain of the coarse clock.
        let done = host::now();
        let deadline = Instant::now() + std::time::Duration::from_secs(5);
        while host::coarse_now() <= done {
            assert!(Instant::now() < deadline, "the clock stands still");
            std::thread::yield_now();
        }
        let primary = FakePrimary { batch: AtomicU64::new(0), at_fence, fails };
        Verify {
            tree: &self.tree,
            shadow: &self.shadow,
            primary: &primary,
            backup: &self.backup,
            progress: &|_| {},
            stop: &AtomicBool::new(false),
        }
        .run(Options { read_data: true, repair: false })
    }

    fn verify(&self) -> Report {
        self.try_verify(false, Box::new(|_| {})).unwrap()
    }
}

/// The only difference's path and reasons.
fn only(report: &Report) -> (&str, String) {
    assert_eq!(report.verdict, Verdict::Different, "{report}");
    assert_eq!(report.differences.len(), 1, "{report}");
    (&report.differences[0].path, report.differences[0].reasons.join("; "))
}

#[test]
fn equal_is_equal_and_counted() {
    let report = World::new().verify();
    assert_eq!(report.verdict, Verdict::Equal, "{report}");
    assert_eq!((report.files, report.directories, report.bytes), (2, 2, 100_012));
    assert!(report.unchecked.is_empty());
}

#[test]
fn an_attribute_that_the_backup_has_otherwise() {
    let world = World::new();
    world.backup.change(B, 1, |version| version.state.as_mut().unwrap().mode = 0o600);
    let report = world.verify();
    let (path, reason) = only(&report);
    assert_eq!(path, "d/b");
    assert!(reason.contains("mode: primary 0644, backup 0600"), "{reason}");
}

#[test]
fn content_that_changed_without_a_trace() {
    let world = World::new();
    let time = fs::metadata(world.at("d/b")).unwrap().modified().unwrap();
    let mut bytes = vec![7; 100_000];
    bytes[99_000] = 8;
    fs::write(world.at("d/b"), bytes).unwrap();
    fs::File::options().write(true).open(world.at("d/b")).unwrap().set_modified(time).unwrap();
    let report = world.verify();
    let (path, reason) = only(&report);
    assert_eq!(path, "d/b");
    assert!(reason.contains("content differs"), "{reason}");
}

#[test]
fn a_name_that_only_one_side_has() {
    let world = World::new();
    world.backup.change(D, 1, |version| version.entries.push((b"only-there".to_vec(), ObjectId(9))));
    let report = world.verify();
    let (path, reason) = only(&report);
    assert_eq!((path, reason.contains("only-there")), ("d", true), "{reason}");

    let world = World::new();
    fs::write(world.at("d/only-here"), b"x").unwrap();
    let report = world.verify();
    assert_eq!(report.verdict, Verdict::Different);
    let paths: Vec<&str> = report.differences.iter().map(|difference| difference.path.as_str()).collect();
    assert!(paths.contains(&"d/only-here"), "{paths:?}");
}

#[test]
fn what_keeps_moving_is_unchecked_and_never_different() {
    let world = World::new();
    let path = world.at("a");
    let count = AtomicU64::new(0);
    let report = world
        .try_verify(
            false,
            Box::new(move |_| {
                let mode = 0o600 + (count.fetch_add(1, Ordering::Relaxed) as u32 & 7);
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            }),
        )
        .unwrap();
    assert_eq!(report.verdict, Verdict::Equal, "{report}");
    assert_eq!(report.unchecked.len(), 1, "{report}");
    assert_eq!(report.unchecked[0].path, "a");
}

#[test]
fn any_version_between_the_two_fences_will_do() {
    let world = World::new();
    // The disk has what the backup had in batch 1 to 2; since batch 3, which the first fence after the reading
    // covers, the backup has another.
    fs::set_permissions(world.at("a"), fs::Permissions::from_mode(0o640)).unwrap();
    world.backup.change(A, 2, |version| version.state.as_mut().unwrap().mode = 0o640);
    world.backup.change(A, 3, |version| version.state.as_mut().unwrap().mode = 0o777);
    assert_eq!(world.verify().verdict, Verdict::Equal);

    let world = World::new();
    world.backup.change(A, 1, |version| version.state.as_mut().unwrap().mode = 0o640);
    world.backup.change(A, 3, |version| version.state.as_mut().unwrap().mode = 0o777);
    let report = world.verify();
    assert_eq!(only(&report).0, "a");
}

#[test]
fn damage_on_the_backup_is_a_difference() {
    let mut world = World::new();
    let reason = "mirror: content differs".to_owned();
    world.backup.damage.push(Damage { path: b"d/b\n".to_vec(), object: B, reason });
    let report = world.verify();
    assert_eq!(only(&report), ("d/b\\n", "mirror: content differs".to_owned()));
    assert_eq!(report.differences[0].side, Side::Backup);
}

#[test]
fn without_a_fence_nothing_is_said() {
    let error = World::new().try_verify(true, Box::new(|_| {})).unwrap_err();
    assert!(error.to_string().contains("the backup is away"), "{error}");
}
