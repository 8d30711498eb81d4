//! Lost shadows, restored and empty backups, other roots, and the thread itself.

use super::random::{Mutator, mutate_on};
use super::*;

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
        let ids =
            backup.model().objects.values().map(|state| (state.key.clone(), state.id)).collect::<Vec<_>>();
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
    assert!(
        kept.len() > 100 && kept.iter().all(|(now, id)| now == id),
        "objects keep their numbers: {kept:?}"
    );
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
        runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(10), wait).await })
            .unwrap()
            .unwrap();
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
