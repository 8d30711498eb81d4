//! Files and database of one moment: an upload and its row, in the application's order, are both there or the file alone.

use super::{Scene, full, pause, seed, started_on};
use ehpc_tools::bench::tree::Random;
use ehpc_tools::database::{Access, Options};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// An application: writes a file, makes it durable, then commits the row that names it.
fn application(share: PathBuf, access: Access, worker: u32, stop: Arc<AtomicBool>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut client = None;
        for number in 0..u32::MAX {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let name = format!("upload-{worker}-{number}");
            let mut file = File::create(share.join(&name)).unwrap();
            // Many moments are restored: a small share will do.
            pause(10);
            file.write_all(&vec![number as u8; 1 + number as usize * 37 % 9000]).unwrap();
            file.sync_all().unwrap();
            File::open(&share).unwrap().sync_all().unwrap();
            let insert =
                format!("INSERT INTO app.uploads VALUES ('{name}', {});", 1 + number as usize * 37 % 9000);
            // While the server is away, the file has no row.
            let done = client.take().map_or_else(|| access.connect(), Ok).and_then(|mut connection| {
                connection.run(&insert)?;
                Ok(connection)
            });
            match done {
                Ok(connection) => client = Some(connection),
                Err(_) => pause(50),
            }
        }
    })
}

fn check(target: &Path) -> usize {
    let restored = started_on(&target.join("database"));
    let rows = restored.sql("SELECT name, bytes FROM app.uploads").unwrap();
    for row in &rows {
        let file = target.join("share").join(&row[0]);
        let length = fs::metadata(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())).len();
        assert_eq!(length.to_string(), row[1], "{}", file.display());
    }
    rows.len()
}

/// Restores share and database of each moment, two at a time, and checks every pair; the rows that were there.
fn restored(scene: &Scene, began: Instant, moments: &[Duration]) -> Vec<(Duration, usize)> {
    let one = |worker: usize, after: Duration| {
        let ago = format!("-{}s", began.elapsed().saturating_sub(after).as_secs());
        let target = scene.path(&format!("restored{worker}"));
        scene
            .stack
            .ok("backup", &["restore", "--all", "--at", &ago, "--to", target.to_str().unwrap()])
            .unwrap();
        let rows = check(&target);
        fs::remove_dir_all(&target).unwrap();
        (after, rows)
    };
    let one = &one;
    std::thread::scope(|scope| {
        let halves = moments.chunks(moments.len().div_ceil(2).max(1)).enumerate();
        let restore = |(worker, half): (usize, &'_ [Duration])| -> Vec<(Duration, usize)> {
            half.iter().map(|after| one(worker, *after)).collect()
        };
        let workers: Vec<_> = halves.map(|half| scope.spawn(move || restore(half))).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    })
}

#[test]
fn every_row_has_its_file_at_any_moment() {
    let mut random = Random(seed());
    let mut scene = Scene::started(Options::default(), "mark_every = \"1s\"");
    scene
        .server
        .sql("CREATE DATABASE app; CREATE TABLE app.uploads (name VARCHAR(100) PRIMARY KEY, bytes INT)")
        .unwrap();
    scene.snapshot();
    let stop = Arc::new(AtomicBool::new(false));
    let workers: Vec<JoinHandle<()>> = (0..3)
        .map(|worker| application(scene.stack.share(), scene.server.access(), worker, stop.clone()))
        .collect();
    let began = Instant::now();
    for kill in 0..if full() { 12 } else { 4 } {
        pause(2000 + random.number() % 1500);
        match kill % 3 {
            0 => {
                scene.stack.kill_nfs1().unwrap();
                scene.stack.start_nfs1().unwrap();
            }
            1 => {
                scene.stack.kill_backup().unwrap();
                scene.stack.start_backup().unwrap();
            }
            _ => {
                scene.server.kill9().unwrap();
                scene.server.restart().unwrap();
            }
        }
    }
    pause(2500);
    scene.stack.fence().unwrap();
    stop.store(true, Ordering::Relaxed);
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    let lasted = began.elapsed().as_millis() as u64;
    let count = if full() { 60 } else { 20 };
    let moments: Vec<Duration> =
        (0..count).map(|_| Duration::from_millis(random.number() % lasted)).collect();
    let counts = restored(&scene, began, &moments);
    println!("rows at each moment: {counts:?}");
    let different: std::collections::BTreeSet<usize> = counts.iter().map(|(_, rows)| *rows).collect();
    assert!(different.len() > 4, "moments of the work, not of its end: {counts:?}");
    // nfs1 begins anew, and no file changes any more: a fence still makes a moment of what is committed then.
    scene.stack.kill_nfs1().unwrap();
    scene.stack.start_nfs1().unwrap();
    let newest = scene.server.value("SELECT name FROM app.uploads LIMIT 1").unwrap();
    scene.server.sql(&format!("UPDATE app.uploads SET bytes = -1 WHERE name = '{newest}'")).unwrap();
    scene.stack.fence().unwrap();
    scene.server.sql(&format!("UPDATE app.uploads SET bytes = -2 WHERE name = '{newest}'")).unwrap();
    // Everything has burned down but the backup's disk.
    scene.stack.stop().unwrap();
    let target = scene.path("disk-alone");
    scene.stack.ok("backup", &["restore", "--all", "--to", target.to_str().unwrap()]).unwrap();
    let restored = started_on(&target.join("database"));
    let fenced = format!("SELECT bytes FROM app.uploads WHERE name = '{newest}'");
    assert!(restored.value(&fenced).unwrap().starts_with('-'), "the fence's moment is not the newest");
    let rows: usize = restored.value("SELECT COUNT(*) FROM app.uploads").unwrap().parse().unwrap();
    assert!(rows >= counts.iter().map(|(_, count)| *count).max().unwrap_or(0));
    assert!(counts.iter().any(|(_, count)| *count > 0), "{counts:?}");
}
