//! The main job: a Linux NFS client writes a real source tree; the backup equals it.

use crate::scratch;
use ehpc_tools::cluster::Cluster;
use ehpc_tools::microvm::{self, Spec};
use std::path::PathBuf;
use std::time::Duration;

/// The tarball that `tools/test` fetched.
fn source_tree() -> PathBuf {
    let data = std::env::var("EHPC_TEST_DATA").expect("run through tools/test (EHPC_TEST_DATA is not set)");
    PathBuf::from(data).join("source-tree.tar")
}

const EDITS: &str = r#"
cd /mnt
tar xf /tree.tar
echo UNPACKED $(find . | wc -l)
cd usr/share/go-*/src
# edit, append, truncate
for f in $(find net -name '*.go' | head -200); do echo "// edited" >> $f; done
for f in $(find crypto -name '*.go' | head -50); do truncate -s 100 $f; done
for f in $(find os -name '*.go' | head -50); do sed -i 's/package/PACKAGE/' $f; done
# rename directories, swap two of them, move one below another
mv encoding encoded
mv net swap.tmp; mv os net; mv swap.tmp os
mv strings encoded/strings
# hard links, symlinks
for f in $(find sort -type f); do ln $f $f.hard; done
ln -s ../encoded sort/link; ln -s /nowhere/at/all dangling
# holes: grow, write behind a gap
truncate -s 3M hole.grown
dd if=/dev/zero of=hole.behind bs=1k count=1 seek=5000 2>/dev/null
echo end >> hole.behind
# odd names, modes, owners, times
echo x > "$(printf 'name with\nnewline \377\376')"
mkdir -p deep/a/b/c/d/e/f/g; chmod 0500 deep/a; chmod 4755 hole.grown
chown 1234:5678 hole.behind; touch -d '2001-02-03 04:05:06' dangling.time; mkfifo pipe
# delete
rm -rf cmd; find runtime -name '*_test.go' -exec rm {} +
rm sort/sort.go
sync
echo FILES $(find /mnt | wc -l)
"#;

#[test]
fn a_real_tree_through_the_linux_client() {
    let directory = scratch::directory();
    let cluster = Cluster::started(directory.path()).unwrap();
    let script =
        format!("{}\n{EDITS}", microvm::mount_command(cluster.nfs_port().unwrap(), "/share", "/mnt"));
    let mut spec = Spec::new(script).file("/tree.tar", source_tree());
    spec.memory_mib = 1536;
    spec.deadline = Duration::from_secs(900);
    let outcome = microvm::run(&spec).unwrap();
    assert_eq!(outcome.status, 0, "{}\n{}", outcome.output, cluster.logs());
    let unpacked: u64 = number_after(&outcome.output, "UNPACKED");
    assert!(unpacked > 10_000, "{}", outcome.output);
    scratch::assert_equal(&cluster);

    // The independent judge must be able to say no: plant a difference that keeps size and time.
    let planted = find_file(&cluster.mirror());
    let before = std::fs::metadata(&planted).unwrap();
    let mut bytes = std::fs::read(&planted).unwrap();
    bytes[0] ^= 1;
    std::fs::write(&planted, bytes).unwrap();
    std::fs::File::options()
        .write(true)
        .open(&planted)
        .unwrap()
        .set_modified(before.modified().unwrap())
        .unwrap();
    assert_ne!(cluster.rsync_differences().unwrap(), "", "rsync does not see a planted difference");
    let (status, report) = cluster.verify(&["--read-data"]).unwrap();
    assert_eq!(status, 1, "{report:#}");
}

fn number_after(text: &str, word: &str) -> u64 {
    let line =
        text.lines().find(|line| line.starts_with(word)).unwrap_or_else(|| panic!("no {word} in {text}"));
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn find_file(root: &std::path::Path) -> PathBuf {
    let mut stack = vec![root.to_owned()];
    while let Some(directory) = stack.pop() {
        for entry in std::fs::read_dir(directory).unwrap().flatten() {
            let meta = entry.metadata().unwrap();
            if meta.is_dir() {
                stack.push(entry.path());
            } else if meta.is_file() && meta.len() > 1000 {
                return entry.path();
            }
        }
    }
    panic!("no file in {}", root.display());
}
