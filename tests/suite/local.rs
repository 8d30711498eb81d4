//! Changes made on the server's own disk by local processes, while nfs1 runs and while it is stopped.

use crate::scratch;
use ehpc_tools::cluster::Cluster;
use ehpc_tools::process;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn shell(directory: &Path, script: &str) {
    let output = Command::new("bash").args(["-euc", script]).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
}

const FIRST_HALF: &str = r#"
mkdir -p a/b a/c d/e/f
for i in $(seq 1 300); do echo "file $i" > a/b/f$i; done
head -c 3000000 /dev/urandom > big
truncate -s 40M sparse; printf data | dd of=sparse bs=1 seek=20000000 conv=notrunc status=none
ln big big.hard; ln -s a/b link; mkfifo pipe; mknod null c 1 3
setfattr -n user.note -v hello big; setfacl -m u:1234:rw a/b/f1; setfacl -d -m g:77:r a
chown 11:22 a/b/f2; chmod 6711 a/b/f3; touch -d '1999-12-31 23:59:59.123456789' a/b/f4
"#;

const SECOND_HALF: &str = r#"
mv a/b d/e/moved; mv d a/d
mv a/c swap; mv a/d a/c; mv swap a/d
fallocate -p -o 4096 -l 1000000 big
echo more >> big.hard; rm big
truncate -s 10M sparse
for i in $(seq 1 100); do rm a/c/e/moved/f$i; done
rm link; mkdir link; echo 1 > link/inside
rm pipe; echo now a file > pipe
setfattr -x user.note big.hard; setfacl -b a/c/e/moved/f200; chmod 600 a/c/e/moved/f201
"#;

#[test]
fn local_changes_while_running() {
    let directory = scratch::directory();
    let cluster = Cluster::started(directory.path()).unwrap();
    shell(&cluster.share(), FIRST_HALF);
    scratch::assert_equal(&cluster);
    shell(&cluster.share(), SECOND_HALF);
    scratch::assert_equal(&cluster);
    let mirrored = fs::metadata(cluster.mirror().join("sparse")).unwrap();
    assert!(
        mirrored.blocks() * 512 < 1 << 20,
        "holes are not holes in the mirror: {} blocks",
        mirrored.blocks()
    );
    shell(&cluster.share(), "rm -rf a link; find . -mindepth 1 -delete");
    scratch::assert_equal(&cluster);
    assert_eq!(fs::read_dir(cluster.mirror()).unwrap().count(), 0);
}

#[test]
fn local_changes_half_of_them_while_stopped() {
    let directory = scratch::directory();
    let mut cluster = Cluster::started(directory.path()).unwrap();
    shell(&cluster.share(), FIRST_HALF);
    cluster.fence().unwrap();
    assert_eq!(cluster.nfs1.take().unwrap().terminate().unwrap(), 0, "{}", cluster.logs());
    shell(&cluster.share(), SECOND_HALF);
    cluster.start_nfs1().unwrap();
    scratch::assert_equal(&cluster);
}

/// 2,000 x `mkdir -p b/x/y` with 5 files each: what recursive inotify loses in silence.
fn burst(cluster: &Cluster) {
    let share = cluster.share();
    for number in 0..2000 {
        let deep = share.join(format!("b{number}/x/y"));
        fs::create_dir_all(&deep).unwrap();
        for file in 0..5 {
            fs::write(deep.join(format!("f{file}")), format!("{number} {file}")).unwrap();
        }
    }
    let mirror = cluster.mirror();
    let complete = || {
        (0..2000).all(|number| {
            (0..5).all(|file| {
                fs::read(mirror.join(format!("b{number}/x/y/f{file}")))
                    .is_ok_and(|text| text == format!("{number} {file}").as_bytes())
            })
        })
    };
    let took = cluster.wait("10,000 files of the burst in the mirror", complete).unwrap();
    println!("burst: the last of 10,000 files is in the replica {took:?} after the burst's end (bar: 2 s)");
    scratch::assert_equal(cluster);
}

#[test]
fn the_burst_as_root() {
    let directory = scratch::directory();
    let cluster = Cluster::started(directory.path()).unwrap();
    assert_eq!(cluster.status().unwrap()["capture"]["watcher"], "fanotify");
    burst(&cluster);
}

#[test]
fn the_burst_without_root() {
    let directory = scratch::directory();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let mut cluster = Cluster::new(directory.path()).unwrap();
    fs::set_permissions(cluster.share(), fs::Permissions::from_mode(0o777)).unwrap();
    std::os::unix::fs::chown(cluster.share(), Some(4711), Some(4711)).unwrap();
    cluster.uid = Some(4711);
    cluster.start().unwrap();
    assert_eq!(cluster.status().unwrap()["capture"]["watcher"], "notify");
    let share = cluster.share();
    // The files must belong to the daemon's user, so that it can keep them.
    let status = Command::new("setpriv")
        .args(["--reuid=4711", "--regid=4711", "--clear-groups", "bash", "-euc"])
        .arg("for n in $(seq 0 1999); do mkdir -p b$n/x/y; for f in 0 1 2 3 4; do printf '%s %s' $n $f > b$n/x/y/f$f; done; done")
        .current_dir(&share)
        .status()
        .unwrap();
    assert!(status.success());
    let mirror = cluster.mirror();
    let took = cluster
        .wait("10,000 files of the burst in the mirror", || {
            (0..2000).all(|n| {
                (0..5).all(|f| {
                    fs::read(mirror.join(format!("b{n}/x/y/f{f}")))
                        .is_ok_and(|t| t == format!("{n} {f}").as_bytes())
                })
            })
        })
        .unwrap();
    println!("burst, not root: {took:?} after the burst's end (bar: 2 s)");
    cluster.fence().unwrap();
    cluster.assert_equal().unwrap();
    assert_eq!(cluster.rsync_differences().unwrap(), "");
}

#[test]
fn a_file_written_through_mmap() {
    let directory = scratch::directory();
    let cluster = Cluster::started(directory.path()).unwrap();
    let script = r#"
import mmap, os
f = os.open("mapped", os.O_RDWR | os.O_CREAT, 0o644)
os.ftruncate(f, 1 << 20)
m = mmap.mmap(f, 1 << 20)
for i in range(0, 1 << 20, 4096): m[i:i+5] = b"first"
m.close(); os.close(f)
f = os.open("mapped", os.O_RDWR)
m = mmap.mmap(f, 1 << 20)
m[500000:500006] = b"second"
m.close(); os.close(f)
"#;
    let status = Command::new("python3").args(["-c", script]).current_dir(cluster.share()).status().unwrap();
    assert!(status.success());
    scratch::assert_equal(&cluster);
    let bytes = fs::read(cluster.mirror().join("mapped")).unwrap();
    assert_eq!(&bytes[500_000..500_006], b"second");
}

#[test]
fn a_log_appended_without_pause_raises_no_alarm() {
    let directory = scratch::directory();
    let cluster = Cluster::started(directory.path()).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (stop, path) = (stop.clone(), cluster.share().join("log"));
        std::thread::spawn(move || {
            let mut file = fs::File::options().append(true).create(true).open(path).unwrap();
            let mut lines = 0u64;
            while !stop.load(Ordering::Relaxed) {
                writeln!(file, "line {lines} of a log that never stops, with some text behind it").unwrap();
                lines += 1;
            }
            lines
        })
    };
    // The log reaches the backup while it is written ...
    let replica = cluster.mirror().join("log");
    for goal in [1u64 << 16, 1 << 20] {
        cluster
            .wait("the growing log in the mirror", || fs::metadata(&replica).is_ok_and(|m| m.len() > goal))
            .unwrap();
    }
    // ... and verify does not call it different.
    for _ in 0..3 {
        let (status, report) = cluster.verify(&[]).unwrap();
        assert_eq!(status, 0, "{report:#}");
    }
    stop.store(true, Ordering::Relaxed);
    let lines = writer.join().unwrap();
    assert!(lines > 1000);
    scratch::assert_equal(&cluster);
}

#[test]
fn verify_under_write_load_raises_no_alarm() {
    let directory = scratch::directory();
    let cluster = Cluster::started(directory.path()).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (stop, share) = (stop.clone(), cluster.share());
        std::thread::spawn(move || {
            let mut round = 0u64;
            while !stop.load(Ordering::Relaxed) {
                let sub = share.join(format!("s{}", round % 7));
                let _ = fs::create_dir(&sub);
                let _ = fs::write(
                    sub.join(format!("f{}", round % 40)),
                    vec![round as u8; 1000 + (round % 9000) as usize],
                );
                if round % 11 == 0 {
                    let _ = fs::rename(&sub, share.join(format!("r{}", round % 5)));
                }
                if round % 13 == 0 {
                    let _ = fs::remove_dir_all(share.join(format!("r{}", round % 3)));
                }
                if round % 17 == 0 {
                    let _ = symlink("target", sub.join("link"));
                }
                round += 1;
            }
        })
    };
    for _ in 0..5 {
        let (status, report) = cluster.verify(&["--read-data"]).unwrap();
        assert_eq!(status, 0, "a false alarm: {report:#}\n{}", cluster.logs());
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    scratch::assert_equal(&cluster);
}

#[test]
fn an_append_to_a_huge_file_costs_its_change() {
    let directory = scratch::directory();
    let cluster = Cluster::started(directory.path()).unwrap();
    let mut client =
        ehpc_tools::nfs_client::Client::connect(("127.0.0.1", cluster.nfs_port().unwrap())).unwrap();
    let root = client.mount("/share").unwrap();
    let path = cluster.share().join("huge");
    // 8 GiB, of which 300 MiB are data: more than sixteen extents, several manifest pages.
    let mut file = fs::File::create(&path).unwrap();
    let mut random = fs::File::open("/dev/urandom").unwrap();
    let mut buffer = vec![0; 1 << 20];
    for _ in 0..300 {
        random.read_exact(&mut buffer).unwrap();
        file.write_all(&buffer).unwrap();
    }
    file.set_len(8 << 30).unwrap();
    drop(file);
    cluster.fence().unwrap();
    let before = sent(&cluster);
    let (handle, _) = client.lookup(&root, b"huge").unwrap();
    client.write(&handle, 8 << 30, &[7; 100]).unwrap();
    client.commit(&handle).unwrap();
    cluster.fence().unwrap();
    let cost = sent(&cluster) - before;
    assert!(cost < 200_000, "appending 100 bytes to an 8 GiB file cost {cost} bytes on the link");
    cluster.assert_equal().unwrap();
}

#[test]
fn a_renamed_directory_costs_o1_on_the_link() {
    let directory = scratch::directory();
    let cluster = Cluster::started(directory.path()).unwrap();
    fs::create_dir(cluster.share().join("many")).unwrap();
    for number in 0..10_000 {
        fs::write(cluster.share().join(format!("many/{number}")), b"x").unwrap();
    }
    cluster.fence().unwrap();
    let before = sent(&cluster);
    fs::rename(cluster.share().join("many"), cluster.share().join("renamed")).unwrap();
    cluster.fence().unwrap();
    let cost = sent(&cluster) - before;
    assert!(cost < 20_000, "renaming a directory of 10,000 files cost {cost} bytes on the link");
    scratch::assert_equal(&cluster);
}

fn sent(cluster: &Cluster) -> u64 {
    let status = cluster.status().unwrap();
    status["link"]["bytes_sent"].as_u64().unwrap_or_else(|| panic!("no link.bytes_sent: {status:#}"))
}

#[test]
fn verify_names_a_flipped_byte_in_the_mirror_and_in_a_pack() {
    let directory = scratch::directory();
    let cluster = Cluster::started(directory.path()).unwrap();
    let mut noise = vec![0; 200_000];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    fs::create_dir(cluster.share().join("dir")).unwrap();
    fs::write(cluster.share().join("dir/in-mirror"), &noise).unwrap();
    noise.reverse();
    fs::write(cluster.share().join("dir/in-pack"), &noise).unwrap();
    scratch::assert_equal(&cluster);

    flip(&cluster.mirror().join("dir/in-mirror"), 100_000);
    let (status, report) = cluster.verify(&["--read-data"]).unwrap();
    assert_eq!(status, 1, "{report:#}");
    assert!(report.to_string().contains("dir/in-mirror"), "{report:#}");
    assert!(!report.to_string().contains("dir/in-pack"), "{report:#}");
    flip(&cluster.mirror().join("dir/in-mirror"), 100_000);

    let packs = cluster.backup_directory().join("packs");
    let pack = fs::read_dir(&packs)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().unwrap().to_string_lossy().starts_with("chunk-"))
        .unwrap();
    let bytes = fs::read(&pack).unwrap();
    let place = bytes
        .windows(32)
        .position(|window| window == &noise[1000..1032])
        .expect("incompressible data lies raw in the pack");
    flip(&pack, place as u64);
    let (status, report) = cluster.verify(&["--read-data"]).unwrap();
    assert_eq!(status, 1, "{report:#}");
    assert!(report.to_string().contains("dir/in-pack"), "{report:#}");
}

fn flip(path: &Path, at: u64) {
    use std::os::unix::fs::FileExt;
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
    file.set_modified(modified).unwrap();
}

#[test]
fn repair_brings_a_difference_back() {
    let directory = scratch::directory();
    let cluster = Cluster::started(directory.path()).unwrap();
    fs::write(cluster.share().join("file"), b"content").unwrap();
    scratch::assert_equal(&cluster);
    fs::write(cluster.mirror().join("file"), b"broken!").unwrap();
    fs::write(cluster.mirror().join("extra"), b"extra").unwrap();
    let (status, report) = cluster.verify(&["--read-data"]).unwrap();
    assert_eq!(status, 1, "{report:#}");
    let (status, report) = cluster.verify(&["--read-data", "--repair"]).unwrap();
    assert_eq!(status, 0, "{report:#}");
    process::wait_until("repaired", Duration::from_secs(10), || {
        cluster.rsync_differences().is_ok_and(|d| d.is_empty())
    })
    .unwrap();
}
