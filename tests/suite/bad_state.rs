//! Disks that are full, missing, replaced or older than they should be: a clear answer, and nothing is lost.

use crate::scratch;
use crate::tmpfs::{Tmpfs, run};
use ehpc_tools::cluster::Cluster;
use std::fs;

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    ehpc_tools::bench::tree::Random(seed).fill(&mut bytes);
    bytes
}

/// nfs1 must refuse to start, with exit status 2 and these words on stderr.
fn refused(cluster: &mut Cluster, words: &[&str]) {
    let log = cluster.directory.join("nfs1.log");
    let _ = fs::remove_file(&log);
    let error = cluster.start_nfs1().expect_err("nfs1 starts although it must not");
    let text = format!("{error:#}\n{}", fs::read_to_string(log).unwrap());
    for word in words {
        assert!(text.contains(word), "{word:?} is not in:\n{text}");
    }
    assert!(text.contains("exit status: 2"), "{text}");
}

#[test]
fn a_full_disk_under_the_export() {
    let directory = scratch::directory();
    let mut cluster = Cluster::new(directory.path()).unwrap();
    let disk = Tmpfs::mount(&cluster.share(), "24m");
    cluster.start().unwrap();
    let mut client =
        ehpc_tools::nfs_client::Client::connect(("127.0.0.1", cluster.nfs_port().unwrap())).unwrap();
    let root = client.mount("/share").unwrap();
    let file = client.create(&root, b"fill").unwrap();
    let mut full = None;
    for piece in 0..64u64 {
        if let Err(error) = client.write(&file, piece << 20, &noise(piece, 1 << 20)) {
            full = Some(error.to_string());
            break;
        }
    }
    let full = full.expect("64 MiB fit on a disk of 24 MiB");
    assert!(full.contains("NOSPC"), "{full}");
    scratch::assert_equal(&cluster);
    disk.resize("64m");
    client.write(&file, 30 << 20, &[1; 1000]).unwrap();
    scratch::assert_equal(&cluster);
    drop(cluster);
}

#[test]
fn a_full_disk_under_the_backup() {
    let directory = scratch::directory();
    let mut cluster = Cluster::new(directory.path()).unwrap();
    let disk = Tmpfs::mount(&cluster.backup_directory(), "64m");
    cluster.start().unwrap();
    fs::write(cluster.share().join("first"), noise(1, 1 << 20)).unwrap();
    cluster.fence().unwrap();
    // More than the disk holds in packs alone, however little of it the mirror took before.
    for number in 0..100 {
        fs::write(cluster.share().join(format!("f{number}")), noise(100 + number, 1 << 20)).unwrap();
    }
    cluster
        .wait("status tells of the backup's full disk", || {
            cluster.status().is_ok_and(|status| status["link"].to_string().contains("full"))
        })
        .unwrap();
    let dirty = cluster.status().unwrap()["sender"]["lag_ms"].clone();
    assert!(dirty.as_f64().unwrap_or(0.0) > 0.0, "no lag although nothing is acknowledged");
    disk.resize("512m");
    scratch::assert_equal(&cluster);
    drop(cluster);
}

#[test]
fn an_export_that_is_missing_or_a_file() {
    let directory = scratch::directory();
    let mut cluster = Cluster::new(directory.path()).unwrap();
    cluster.start_backup().unwrap();
    fs::remove_dir(cluster.share()).unwrap();
    refused(&mut cluster, &["share", "no such"]);
    fs::write(cluster.share(), b"a file").unwrap();
    refused(&mut cluster, &["share", "not a directory"]);
}

#[test]
fn an_empty_disk_is_not_a_deletion() {
    let directory = scratch::directory();
    let mut cluster = Cluster::new(directory.path()).unwrap();
    let disk = Tmpfs::mount(&cluster.share(), "64m");
    cluster.start().unwrap();
    fs::write(cluster.share().join("precious"), b"data").unwrap();
    scratch::assert_equal(&cluster);
    assert_eq!(cluster.nfs1.take().unwrap().terminate().unwrap(), 0);
    // Unmounted: the mount point below is an empty directory of another file system.
    drop(disk);
    refused(&mut cluster, &["--accept-new-export"]);
    assert_eq!(fs::read(cluster.mirror().join("precious")).unwrap(), b"data");
    // Replaced by an empty disk of the same kind.
    let empty = Tmpfs::mount(&cluster.share(), "64m");
    refused(&mut cluster, &["--accept-new-export"]);
    assert_eq!(fs::read(cluster.mirror().join("precious")).unwrap(), b"data");
    // Meant: said so.
    cluster.nfs1_arguments.push("--accept-new-export".to_owned());
    cluster.start_nfs1().unwrap();
    fs::write(cluster.share().join("fresh"), b"new").unwrap();
    scratch::assert_equal(&cluster);
    assert!(!cluster.mirror().join("precious").exists());
    drop(cluster);
    drop(empty);
}

#[test]
fn a_scan_that_would_delete_most_of_the_tree_asks() {
    let directory = scratch::directory();
    let mut cluster = Cluster::started(directory.path()).unwrap();
    for number in 0..1500 {
        fs::write(cluster.share().join(format!("f{number}")), b"x").unwrap();
    }
    cluster.fence().unwrap();
    assert_eq!(cluster.nfs1.take().unwrap().terminate().unwrap(), 0);
    for number in 0..1400 {
        fs::remove_file(cluster.share().join(format!("f{number}"))).unwrap();
    }
    cluster.start_nfs1().unwrap();
    cluster
        .wait("status asks for consent", || {
            cluster.status().is_ok_and(|status| status["capture"].to_string().contains("accept-removal"))
        })
        .unwrap();
    assert!(cluster.mirror().join("f0").exists(), "deleted without consent");
    let (status, out, error) = cluster.command(&["ctl", "accept-removal"]).unwrap();
    assert_eq!(status, 0, "{out}{error}");
    scratch::assert_equal(&cluster);
    assert!(!cluster.mirror().join("f0").exists());
}

#[test]
fn a_backup_restored_from_an_older_copy() {
    let directory = scratch::directory();
    let mut cluster = Cluster::started(directory.path()).unwrap();
    fs::write(cluster.share().join("old"), b"old").unwrap();
    scratch::assert_equal(&cluster);
    assert_eq!(cluster.backup.take().unwrap().terminate().unwrap(), 0);
    let copy = directory.path().join("copy");
    run("cp", &["-a", &cluster.backup_directory().display().to_string(), &copy.display().to_string()]);
    cluster.start_backup().unwrap();
    fs::write(cluster.share().join("new"), b"new").unwrap();
    fs::remove_file(cluster.share().join("old")).unwrap();
    scratch::assert_equal(&cluster);
    cluster.kill_backup().unwrap();
    fs::remove_dir_all(cluster.backup_directory()).unwrap();
    fs::rename(&copy, cluster.backup_directory()).unwrap();
    cluster.start_backup().unwrap();
    scratch::assert_equal(&cluster);
    // And with nfs1 started anew over it.
    fs::write(cluster.share().join("later"), b"later").unwrap();
    cluster.kill_nfs1().unwrap();
    cluster.start_nfs1().unwrap();
    scratch::assert_equal(&cluster);
}

#[test]
fn a_lost_shadow_is_rebuilt_from_the_backup() {
    let directory = scratch::directory();
    let mut cluster = Cluster::started(directory.path()).unwrap();
    for number in 0..300 {
        fs::write(cluster.share().join(format!("f{number}")), noise(number, 10_000)).unwrap();
    }
    scratch::assert_equal(&cluster);
    cluster.kill_nfs1().unwrap();
    for entry in fs::read_dir(cluster.state()).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("shadow") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    fs::remove_file(cluster.share().join("f7")).unwrap();
    fs::rename(cluster.share().join("f8"), cluster.share().join("g8")).unwrap();
    cluster.start_nfs1().unwrap();
    scratch::assert_equal(&cluster);
}
