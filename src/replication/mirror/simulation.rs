//! Seeded: random batches on a real directory, compared with the model after each; stopped between any two system
//! calls and redone. A failure names its seed; `MIRROR_SEED=n` runs that one alone.

use super::Mirror;
use super::check::Check;
use super::disk::{Step, Verdict};
use super::model::{Model, Primary, Strict, compare, state_of};
use ehpc_proto::replication::message::Damage;
use ehpc_proto::replication::{Batch, EntryState, Kind, ObjectId, Xattr};
use rand::Rng;
use rustix::process::Uid;
use rustix::thread::set_thread_res_uid;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

fn seeds(count: u64) -> std::ops::Range<u64> {
    match std::env::var("MIRROR_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..count,
    }
}

fn trace(text: impl Fn() -> String) {
    if std::env::var_os("MIRROR_TRACE").is_some() {
        eprintln!("{}", text());
    }
}

/// Runs every seed on a few threads; a panic is reported with its seed.
fn each_seed(count: u64, run: impl Fn(u64, &Path) + Sync) {
    let next = AtomicU64::new(seeds(count).start);
    let end = seeds(count).end;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                // Memory where there is: the order of calls is under test, not the disk.
                let shm = Path::new("/dev/shm");
                let base = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    let dir = tempfile::tempdir_in(&base).unwrap();
                    let result =
                        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(seed, dir.path())));
                    assert!(result.is_ok(), "seed {seed} (MIRROR_SEED={seed})");
                }
            });
        }
    });
}

/// Does `work` as this user, on this thread alone.
fn as_user<T>(user: Option<u32>, work: impl FnOnce() -> T) -> T {
    let Some(uid) = user else { return work() };
    let (keep, root) = (None::<Uid>, Some(Uid::ROOT));
    set_thread_res_uid(keep, Some(Uid::from_raw(uid)), keep).unwrap();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    set_thread_res_uid(keep, root, keep).unwrap();
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn plain(seed: u64, dir: &Path, user: Option<u32>) {
    let strict = Strict { recorded: true, privileged: user.is_none() };
    let mut primary = Primary::new(seed);
    let mut mirror = as_user(user, || Mirror::open(dir)).unwrap();
    let mut live = Model::default();
    for _ in 0..primary.rng.random_range(2..12) {
        let mutations = primary.rng.random_range(1..30);
        let batch = primary.batch(mutations);
        let outcome = as_user(user, || mirror.apply(&batch, &live, &primary.chunks)).unwrap();
        assert!(outcome.rebuild.is_empty());
        live.apply(&batch);
        live.record(&outcome);
        compare(&mirror, &live, &primary.chunks, strict);
    }
    let damage = as_user(user, || check(&mut mirror, &live, &primary));
    assert!(damage.is_empty(), "{damage:?}");
    compare(&mirror, &live, &primary.chunks, strict); // looking changed nothing
}

/// What the check of the product says.
fn check(mirror: &mut Mirror, live: &Model, primary: &Primary) -> Vec<Damage> {
    let mut check = Check::default();
    let objects = live.objects.values().map(|known| known.state.clone()).collect();
    check.slice(Some(mirror), live, &primary.chunks, objects, 0).unwrap().damage
}

#[test]
fn random_batches_give_the_tree_of_the_model() {
    each_seed(500, |seed, dir| plain(seed, dir, None));
}

/// Where the process dies, and what the power cut takes.
fn gate(mirror: &mut Mirror, at: u64, lossy: bool, salt: u64) -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    mirror.disk.gate = Some(Box::new(move |step| {
        let n = counted.fetch_add(1, Ordering::Relaxed);
        if n >= at {
            Verdict::Die
        } else if lossy
            && step != Step::Names
            && (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt).is_multiple_of(3)
        {
            Verdict::Lose
        } else {
            Verdict::Go
        }
    }));
    count
}

/// Redoes `batches` in windows of random size until it is done, dying on the way now and then.
fn recover(
    dir: &Path,
    primary: &mut Primary,
    mut live: Model,
    batches: &[Batch],
    mut may_rebuild: bool,
    user: Option<u32>,
) -> (Mirror, Model) {
    let committed = live.clone();
    let mut deaths = primary.rng.random_range(0..3);
    'again: loop {
        let mut mirror = as_user(user, || Mirror::open(dir)).unwrap();
        if deaths > 0 {
            deaths -= 1;
            let (at, salt) = (primary.rng.random_range(0..60), primary.rng.random());
            gate(&mut mirror, at, user.is_none(), salt); // without the rights a lost chmod would be felt at once
        }
        live.clone_from(&committed);
        let mut rest = batches;
        while !rest.is_empty() {
            let window = primary.rng.random_range(1..=rest.len());
            let (now, later) = rest.split_at(window);
            trace(|| format!("redo {now:#?}"));
            // A window that ends before what is on disk may take a directory of a later batch for trash.
            may_rebuild |= window < batches.len();
            match as_user(user, || mirror.redo(now, &live, &primary.chunks)) {
                Ok(outcome) => {
                    trace(|| format!("redone: {outcome:?}"));
                    assert!(may_rebuild || outcome.rebuild.is_empty(), "rebuild: why?");
                    now.iter().for_each(|batch| live.apply(batch));
                    live.record(&outcome);
                    as_user(user, || fill(&mut mirror, outcome.rebuild, &mut live, primary));
                }
                Err(error) if error.to_string().contains("stopped here") => continue 'again,
                Err(error) => panic!("{error}"),
            }
            rest = later;
        }
        if mirror.disk.gate.is_some() {
            continue; // what was lost is not on the disk: the power went before the commit
        }
        as_user(user, || mirror.sweep(&live)).unwrap();
        return (mirror, live);
    }
}

fn fill(mirror: &mut Mirror, mut open: Vec<ObjectId>, live: &mut Model, primary: &Primary) {
    // Not under the gate: a death here is a death before the commit like any other.
    let gate = mirror.disk.gate.take();
    while let Some(directory) = open.pop() {
        let mut after: Option<Vec<u8>> = None;
        while let Some((last, outcome)) =
            mirror.rebuild(directory, after.as_deref(), live, &primary.chunks).unwrap()
        {
            live.record(&outcome);
            trace(|| format!("redone {directory:?}: {outcome:?}"));
            open.extend(outcome.rebuild);
            after = Some(last);
        }
    }
    mirror.disk.gate = gate;
}

/// `lost_commit`: the catalog forgets its last commit, so that the mirror is two epochs ahead.
fn crashing(seed: u64, dir: &Path, lossy: bool, lost_commit: bool, user: Option<u32>) {
    let strict = Strict { recorded: !lost_commit, privileged: user.is_none() };
    let mut primary = Primary::new(seed);
    let mut mirror = as_user(user, || Mirror::open(dir)).unwrap();
    let mut committed = Model::default();
    let mut before: Option<(Model, Vec<Batch>)> = None;
    for _ in 0..primary.rng.random_range(2..6) {
        let batches: Vec<Batch> = (0..primary.rng.random_range(1..4))
            .map(|_| {
                let mutations = primary.rng.random_range(1..15);
                primary.batch(mutations)
            })
            .collect();
        let (at, salt) = (primary.rng.random_range(0..80), primary.rng.random());
        gate(&mut mirror, at, lossy, salt);
        let mut live = committed.clone();
        for batch in &batches {
            trace(|| format!("apply {batch:#?}"));
            match as_user(user, || mirror.apply(batch, &live, &primary.chunks)) {
                Ok(outcome) => {
                    live.apply(batch);
                    live.record(&outcome);
                }
                Err(error) => {
                    let stopped = error.to_string().contains("stopped here");
                    assert!(stopped || lost_commit && error.is_disorder(), "{error}");
                    break;
                }
            }
        }
        drop(mirror);
        let (from, all) = match before.take() {
            Some((older, mut all)) if lost_commit => {
                all.extend(batches.iter().cloned());
                (older, all)
            }
            _ => (committed.clone(), batches.clone()),
        };
        let start = committed;
        (mirror, committed) = recover(dir, &mut primary, from, &all, lost_commit, user);
        compare(&mirror, &committed, &primary.chunks, strict);
        before = Some((start, batches));
    }
}

#[test]
fn a_kill_between_any_two_calls_is_made_good() {
    each_seed(500, |seed, dir| crashing(seed, dir, false, false, None));
}

#[test]
fn a_power_cut_that_loses_content_and_attributes_is_made_good() {
    each_seed(500, |seed, dir| crashing(seed, dir, true, false, None));
}

#[test]
fn a_commit_that_the_catalog_lost_is_made_good() {
    each_seed(300, |seed, dir| crashing(seed, dir, false, true, None));
}

/// Not root: directories that forbid their owner to write or enter, owners and devices that cannot be had.
#[test]
fn a_mirror_that_is_not_written_as_root_keeps_the_rest() {
    if !rustix::process::geteuid().is_root() {
        each_seed(400, |seed, dir| plain(seed, dir, Some(rustix::process::geteuid().as_raw())));
        return;
    }
    let user = 12_345;
    let owned = |dir: &Path| std::os::unix::fs::chown(dir, Some(user), None).unwrap();
    each_seed(200, |seed, dir| {
        owned(dir);
        plain(seed, dir, Some(user));
    });
    each_seed(200, |seed, dir| {
        owned(dir);
        crashing(seed, dir, false, false, Some(user));
    });
}

/// Somebody removed and moved things in the mirror; the next batch that comes across puts right what it needs.
#[test]
fn a_mirror_that_was_changed_from_outside_is_put_in_order() {
    each_seed(200, |seed, dir| {
        let mut primary = Primary::new(seed);
        let mut mirror = Mirror::open(dir).unwrap();
        let mut live = Model::default();
        for round in 0..6 {
            let batch = primary.batch(10);
            let outcome = match mirror.apply(&batch, &live, &primary.chunks) {
                Err(error) if error.is_disorder() && round > 2 => {
                    mirror.redo(std::slice::from_ref(&batch), &live, &primary.chunks).unwrap()
                }
                result => result.unwrap(),
            };
            live.apply(&batch);
            live.record(&outcome);
            fill(&mut mirror, outcome.rebuild, &mut live, &primary);
            if round >= 2 {
                meddle(dir, &mut primary);
            }
        }
        // What no batch came across is found by a comparison of everything, and made anew.
        let all: Vec<ObjectId> = live.objects.keys().copied().collect();
        for id in all {
            let outcome = mirror.repair(id, &live, &primary.chunks).unwrap();
            live.record(&outcome);
            let directory = live.objects[&id].state.kind == Kind::Directory;
            fill(
                &mut mirror,
                outcome.rebuild.into_iter().chain(directory.then_some(id)).collect(),
                &mut live,
                &primary,
            );
        }
        mirror.sweep(&live).unwrap();
        let damage = check(&mut mirror, &live, &primary);
        assert!(damage.is_empty(), "{damage:?}");
        compare(&mirror, &live, &primary.chunks, Strict::WHOLLY);
    });
}

fn meddle(dir: &Path, primary: &mut Primary) {
    let root = dir.join("mirror");
    let names: Vec<_> = std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).collect();
    if names.is_empty() {
        return;
    }
    let victim = &names[primary.rng.random_range(0..names.len())];
    match primary.rng.random_range(0..4) {
        0 => std::fs::write(root.join("stranger"), "x").unwrap(),
        // A file over a directory, or the like, cannot be.
        1 => drop(std::fs::rename(victim, root.join("moved away"))),
        _ if victim.is_dir() && !victim.is_symlink() => std::fs::remove_dir_all(victim).unwrap(),
        _ => std::fs::remove_file(victim).unwrap(),
    }
}

fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

#[test]
fn acls_are_kept_and_not_inherited_within_the_mirror() {
    let dir = tempfile::tempdir().unwrap();
    let named: &[(u16, u16, u32)] = &[(1, 7, !0), (2, 6, 33), (4, 5, !0), (0x10, 7, !0), (0x20, 5, !0)];
    let mut primary = Primary::new(1);
    let mut batch = primary.batch(0);
    let state = |id: u64, kind, xattr: Option<&str>| {
        let mut state = state_of(ObjectId(id), kind);
        state.mode = 0o775;
        state.xattrs.extend(xattr.map(|name| Xattr { name: name.into(), value: acl(named) }));
        state
    };
    batch.objects.push(state(2, Kind::Directory, Some("system.posix_acl_default")));
    batch.objects.push(state(3, Kind::File, Some("system.posix_acl_access")));
    let entry = |parent: u64, name: &str, child: u64| EntryState {
        parent: ObjectId(parent),
        name: name.into(),
        child: Some(ObjectId(child)),
    };
    batch.entries = vec![entry(1, "d", 2), entry(1, "f", 3)];
    let mut mirror = Mirror::open(dir.path()).unwrap();
    let mut live = Model::default();
    let mut apply = |mut batch: Batch, number| {
        batch.number = number;
        let outcome = mirror.apply(&batch, &live, &primary.chunks).unwrap();
        live.apply(&batch);
        live.record(&outcome);
        compare(&mirror, &live, &primary.chunks, Strict::WHOLLY);
    };
    apply(batch.clone(), 1);
    batch.objects =
        vec![state(4, Kind::File, None), state(5, Kind::Directory, None), state(6, Kind::Symlink, None)];
    batch.objects[2].target = b"t".to_vec();
    batch.entries = vec![entry(2, "g", 4), entry(2, "e", 5), entry(2, "s", 6)];
    apply(batch.clone(), 2);
    // The default ACL goes, the access ACL too.
    batch.objects = vec![state(2, Kind::Directory, None), state(3, Kind::File, None)];
    batch.entries.clear();
    apply(batch, 3);
}
