//! What a fence waits for.

use super::*;
use crate::change::dirty::{Change, Touch};
use crate::change::scans::{ScanOutcome, ScanReport};
use crate::change::watch::tests::{Rig, Use};
use std::fs;

const PATIENCE: Duration = Duration::from_secs(20);
const IMPATIENCE: Duration = Duration::from_millis(50);

fn fence(rig: &Rig) -> Fence {
    Fence::new(Arc::clone(&rig.sink), Arc::clone(&rig.watch), &rig.root.path().join("fence"))
}

/// Ends every demanded scan as soon as it is demanded, noting one change each.
fn scanner(rig: &Rig) -> tokio::task::JoinHandle<()> {
    let sink = Arc::clone(&rig.sink);
    let root = rig.tree.root_key().clone();
    tokio::spawn(async move {
        loop {
            sink.scans.demanded().await;
            let (demanded, _) = sink.scans.begin();
            sink.dirty.note(Change::Object(root.clone(), Touch::LISTING));
            sink.scans.end(demanded, ScanOutcome::Finished(ScanReport::default()));
        }
    })
}

async fn everything_before_is_numbered(which: Use) {
    let rig = Rig::new(which);
    let fence = fence(&rig);
    for round in 0..30 {
        let names: Vec<String> = (0..20).map(|n| format!("r{round}-{n}")).collect();
        for name in &names {
            fs::write(rig.at(name), b"x").unwrap();
        }
        let cut = fence.cut(PATIENCE).await.unwrap();
        let taken = rig.sink.dirty.take(usize::MAX);
        assert!(taken.cut >= cut);
        for name in &names {
            let wanted = Change::entry(rig.tree.root_key(), name.as_bytes());
            assert!(taken.changes.contains(&wanted), "{which:?}, round {round}: {name}");
        }
    }
    assert!(fs::read_dir(rig.root.path().join("fence")).unwrap().next().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_fanotify_everything_before_a_fence_is_numbered() {
    everything_before_is_numbered(Use::Fanotify).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_inotify_everything_before_a_fence_is_numbered() {
    everything_before_is_numbered(Use::Inotify).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_waits_for_operations_under_way() {
    let rig = Rig::new(Use::FanotifyButForUs);
    let fence = fence(&rig);
    let ticket = rig.sink.dirty.ticket();
    assert!(matches!(fence.cut(IMPATIENCE).await, Err(FenceError::OperationsOpen(_))));
    let waiting = tokio::spawn({
        let fence = fence.clone();
        async move { fence.cut(PATIENCE).await }
    });
    let number = rig.sink.dirty.note(Change::Object(rig.tree.root_key().clone(), Touch::ATTRIBUTES));
    drop(ticket);
    assert!(waiting.await.unwrap().unwrap() >= number);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends_with_the_acknowledgement() {
    let rig = Rig::new(Use::FanotifyButForUs);
    let fence = fence(&rig);
    rig.sink.dirty.note(Change::Object(rig.tree.root_key().clone(), Touch::ATTRIBUTES));
    match fence.wait(Duration::from_millis(300)).await {
        Err(FenceError::NotAcknowledged { cut: 1, acknowledged: 0, .. }) => {}
        other => panic!("{other:?}"),
    }
    rig.sink.dirty.acknowledge(1);
    assert_eq!(fence.wait(PATIENCE).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_overflow_a_scan_comes_first() {
    let rig = Rig::new(Use::FanotifyButForUs);
    let fence = fence(&rig);
    rig.sink.overflow(crate::host::coarse_now());
    assert!(matches!(fence.cut(IMPATIENCE).await, Err(FenceError::ScanRuns(_))));
    let scanner = scanner(&rig);
    let cut = fence.cut(PATIENCE).await.unwrap();
    assert_eq!(cut, 1, "what the scan noted is before the fence");
    scanner.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_watcher_each_fence_scans() {
    let rig = Rig::new(Use::None);
    let fence = fence(&rig);
    let scanner = scanner(&rig);
    let first = fence.cut(PATIENCE).await.unwrap();
    let second = fence.cut(PATIENCE).await.unwrap();
    assert!(first >= 1 && second > first, "{first} {second}");
    scanner.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_that_needs_an_operator_is_named() {
    let rig = Rig::new(Use::FanotifyButForUs);
    rig.sink.overflow(crate::host::coarse_now());
    let (demanded, _) = rig.sink.scans.begin();
    rig.sink.scans.end(demanded, ScanOutcome::NeedsConsent { would_remove: 2000, known: 3000 });
    let error = fence(&rig).cut(PATIENCE).await.unwrap_err();
    assert!(error.to_string().contains("2000 of 3000"), "{error}");
}
