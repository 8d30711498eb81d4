//! The database beside the share: a real MariaDB, nfs1 and backup as two processes, and everything that may be killed.

mod archive;
mod command_line;
mod failover;
mod full_disk;
mod kills;
mod lanes;
mod mysql;
mod one_moment;
mod prune;
mod restore;
mod standby;
mod troubles;
mod up;
mod verify;

use crate::scratch;
use ehpc_tools::database::{Access, Maria, Options, Stack};
use std::path::PathBuf;
use std::time::Duration;

/// A server, and nfs1 and backup beside it.
struct Scene {
    server: Maria,
    stack: Stack,
    directory: tempfile::TempDir,
}

impl Scene {
    /// `more`: further lines of `[database]`. Nothing of ours runs yet.
    fn new(options: Options, more: &str) -> Scene {
        let directory = scratch::directory();
        let server = Maria::start(options).unwrap();
        let lines = format!("address = \"{}\"\nuser = \"root\"\n{more}", server.socket().display());
        let stack = Stack::new(directory.path(), &lines).unwrap();
        Scene { server, stack, directory }
    }

    fn started(options: Options, more: &str) -> Scene {
        let mut scene = Scene::new(options, more);
        scene.stack.start().unwrap();
        scene
    }

    /// Path below this scene's directory.
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A base snapshot is there, and everything is on the backup.
    fn snapshot(&self) {
        self.stack.ok("nfs1", &["db", "snapshot"]).unwrap_or_else(|error| {
            let (one, two) = (self.stack.status("nfs1"), self.stack.status("backup"));
            panic!(
                "{error:#}\n{one:#?}\n{two:#?}\n{:?}",
                self.server.sql("SHOW PROCESSLIST; SHOW MASTER STATUS")
            );
        });
        self.stack.fence().unwrap();
    }

    /// Servers of restores on the backup that are there now.
    fn scratch_servers(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.stack.database()).unwrap().map(|entry| entry.unwrap().file_name());
        let names = names.map(|name| name.to_string_lossy().into_owned());
        names.filter(|name| name.starts_with("scratch-")).collect()
    }

    /// Every file of the server is in the archive, byte for byte but for the bit "in use".
    fn assert_archive_equal(&self) {
        assert_archived(&self.stack, &self.server.binlog_files().unwrap());
    }
}

/// These files of the server are in the archive, byte for byte but for the bit "in use".
fn assert_archived(stack: &Stack, files: &[PathBuf]) {
    stack.fence().unwrap();
    assert!(!files.is_empty());
    for file in files {
        let name = file.file_name().unwrap();
        let mut theirs = std::fs::read(file).unwrap();
        let ours = std::fs::read(stack.database().join("0001").join(name))
            .unwrap_or_else(|error| panic!("{}: {error}\n{}", name.display(), stack.logs()));
        assert_eq!(ours[IN_USE_AT] & 1, 0, "{}", name.display());
        theirs[IN_USE_AT] &= !1;
        let differs = ours.iter().zip(&theirs).position(|(a, b)| a != b);
        assert_eq!((differs, ours.len()), (None, theirs.len()), "{}\n{}", name.display(), stack.logs());
    }
}

/// The flags of the format description event, which is the first after the magic number.
const IN_USE_AT: usize = 4 + 17;

/// A server that is started on a restored data directory.
fn started_on(datadir: &std::path::Path) -> Maria {
    let mut options = Options::default().server_id(77);
    options.log_bin = false;
    Maria::start_on(datadir, options).unwrap()
}

/// `CHECKSUM TABLE` of every table of these databases, by name.
fn sums(access: &Access, databases: &[&str]) -> Vec<(String, String)> {
    let list: Vec<String> = databases.iter().map(|name| format!("'{name}'")).collect();
    let tables = access
        .sql(&format!(
            "SELECT CONCAT('`', TABLE_SCHEMA, '`.`', TABLE_NAME, '`') FROM information_schema.TABLES \
             WHERE TABLE_SCHEMA IN ({}) AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') ORDER BY 1",
            list.join(",")
        ))
        .unwrap();
    let sum = |name: &str| access.sql(&format!("CHECKSUM TABLE {name}")).unwrap()[0][1].clone();
    tables.iter().map(|row| (row[0].clone(), sum(&row[0]))).collect()
}

/// A server whose commits wait for the backup's disk, up to half a minute.
fn waiting() -> Options {
    Options::default()
        .with("--rpl-semi-sync-master-enabled=1")
        .with("--rpl-semi-sync-master-timeout=30000")
        .with("--rpl-semi-sync-master-wait-point=AFTER_SYNC")
}

/// Commits wait for the backup's disk.
fn holds(scene: &Scene) -> bool {
    scene.stack.status("nfs1").is_ok_and(|status| status["source"]["semi_sync"]["holds"] == true)
}

/// Commits that did not wait.
fn unprotected(scene: &Scene) -> String {
    scene.server.sql("SHOW STATUS LIKE 'Rpl_semi_sync_master_no_tx'").unwrap()[0][1].clone()
}

fn seed() -> u64 {
    let given = std::env::var("EHPC_SEED").ok().and_then(|text| text.parse().ok());
    let seed =
        given.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 & 0xffff_ffff);
    println!("seed {seed} (EHPC_SEED={seed} repeats it)");
    seed
}

fn full() -> bool {
    std::env::var("EHPC_TEST_FULL").is_ok_and(|full| !full.is_empty())
}

fn pause(milliseconds: u64) {
    let (_keep, never) = std::sync::mpsc::channel::<()>();
    let _ = never.recv_timeout(Duration::from_millis(milliseconds));
}
