//! kill -9 of nfs1, of backup, of both, at random moments of a running workload: nothing that a client was promised is lost.

use crate::scratch;
use ehpc_proto::nfs3::StableHow;
use ehpc_tools::bench::tree::Random;
use ehpc_tools::cluster::Cluster;
use ehpc_tools::nfs_client::Client;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

fn seed() -> u64 {
    let seed = std::env::var("EHPC_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 & 0xffff_ffff);
    println!("seed {seed} (EHPC_SEED={seed} repeats it)");
    seed
}

/// What was promised: name -> content (by its seed and length).
type Promised = Arc<Mutex<BTreeMap<String, (u64, usize)>>>;

fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    Random(seed).fill(&mut bytes);
    bytes
}

/// Writes files through NFS until told to stop; records those whose COMMIT succeeded.
fn nfs_writer(
    port: u16,
    seed: u64,
    stop: Arc<AtomicBool>,
    promised: Promised,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut random = Random(seed);
        let mut number = 0u64;
        let mut client = None;
        while !stop.load(Ordering::Relaxed) {
            number += 1;
            let name = format!("nfs-{number}");
            let length =
                1 + (random.number() % if number.is_multiple_of(9) { 900_000 } else { 20_000 }) as usize;
            let content_seed = random.number();
            let mut attempt = || -> anyhow::Result<()> {
                if client.is_none() {
                    let mut fresh = Client::connect(("127.0.0.1", port))?;
                    let root = fresh.mount("/share")?;
                    client = Some((fresh, root));
                }
                let (client, root) = client.as_mut().unwrap();
                let file = client.create(root, name.as_bytes())?;
                let bytes = content(content_seed, length);
                let mut verifier = None;
                for (index, piece) in bytes.chunks(65_536).enumerate() {
                    let offset = index as u64 * 65_536;
                    let written = client.write_stable(&file, offset, piece, StableHow::Unstable)?.verifier;
                    anyhow::ensure!(*verifier.get_or_insert(written) == written, "the server restarted");
                }
                anyhow::ensure!(verifier == Some(client.commit(&file)?), "the server restarted");
                Ok(())
            };
            match attempt() {
                Ok(()) => {
                    promised.lock().unwrap().insert(name, (content_seed, length));
                }
                Err(_) => {
                    client = None;
                    pause(10);
                }
            }
        }
    })
}

/// A local process that writes, appends, renames and deletes.
fn local_writer(share: &Path, seed: u64, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    let share = share.to_owned();
    std::thread::spawn(move || {
        let mut random = Random(seed);
        while !stop.load(Ordering::Relaxed) {
            let a = share.join(format!("local{}", random.number() % 4));
            let b = share.join(format!("local{}", random.number() % 4));
            let file = a.join(format!("f{}", random.number() % 50));
            let _ = fs::create_dir(&a);
            match random.number() % 8 {
                0 => drop(fs::rename(&a, &b)),
                1 => drop(fs::remove_file(&file)),
                2 => drop(fs::hard_link(&file, b.join("linked"))),
                3 => drop(fs::rename(&a, b.join("inside"))),
                4 => drop(fs::remove_dir_all(b.join("inside"))),
                _ => drop(fs::write(&file, content(random.number(), (random.number() % 30_000) as usize))),
            }
            pause(1);
        }
    })
}

fn pause(milliseconds: u64) {
    let (_keep, never) = mpsc::channel::<()>();
    let _ = never.recv_timeout(Duration::from_millis(milliseconds));
}

#[test]
fn killed_fifty_times() {
    let seed = seed();
    let kills = if std::env::var("EHPC_TEST_FULL").is_ok_and(|full| !full.is_empty()) { 200 } else { 50 };
    let directory = scratch::directory();
    let mut cluster = Cluster::started(directory.path()).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let promised = Promised::default();
    let writers = [
        nfs_writer(cluster.nfs_port().unwrap(), seed, stop.clone(), promised.clone()),
        local_writer(&cluster.share(), seed ^ 1, stop.clone()),
    ];
    let mut random = Random(seed ^ 2);
    for kill in 0..kills {
        pause(20 + random.number() % 400);
        let which = random.number() % 3;
        if which != 1 {
            cluster.kill_nfs1().unwrap();
        }
        if which != 0 {
            cluster.kill_backup().unwrap();
        }
        pause(random.number() % 50);
        if cluster.backup.is_none() {
            cluster.start_backup().unwrap_or_else(|error| panic!("seed {seed}, kill {kill}: {error:#}"));
        }
        if cluster.nfs1.is_none() {
            cluster.start_nfs1().unwrap_or_else(|error| panic!("seed {seed}, kill {kill}: {error:#}"));
        }
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.join().unwrap();
    }
    scratch::assert_equal(&cluster);
    let promised = promised.lock().unwrap();
    println!("{} files promised over {kills} kills", promised.len());
    assert!(promised.len() > 50, "the workload hardly ran: {} files", promised.len());
    for (name, (content_seed, length)) in promised.iter() {
        let expected = content(*content_seed, *length);
        for root in [cluster.share(), cluster.mirror()] {
            let found = fs::read(root.join(name))
                .unwrap_or_else(|error| panic!("seed {seed}: {name} promised, {error}"));
            assert!(found == expected, "seed {seed}: {} is not what was promised", root.join(name).display());
        }
    }
}
