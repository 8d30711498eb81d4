//! What the backup costs the primary, asynchronously, beside what MariaDB's own ways to copy cost it. All of it on one
//! machine: who copies takes processors and a disk from the primary that a host of its own would not.

use super::load::{archived, end, primary, primary_options, stack, table, transactions};
use crate::bench::{median, print_table};
use crate::database::{Maria, Stack};
use crate::process::{cpu_seconds, wait_until};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Transactions of one measurement, by connections.
const LOADS: [(u32, u64); 2] = [(1, 8_000), (4, 24_000)];
const PATIENCE: Duration = Duration::from_secs(120);

/// Who copies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Copier {
    Nobody,
    Ours,
    Replica,
    Raw,
}

const COPIERS: [(Copier, &str); 4] = [
    (Copier::Nobody, "alone"),
    (Copier::Ours, "ehpc-store: nfs1 and backup here"),
    (Copier::Replica, "a MariaDB replica here, relay log synced"),
    (Copier::Raw, "mariadb-binlog --raw --stop-never here, not synced"),
];

/// Ended with its value.
struct Reader(Child);

impl Drop for Reader {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The primary, and who may copy it.
struct Scene<'a> {
    directory: &'a Path,
    server: Maria,
    stack: Stack,
    replica: Maria,
}

impl Scene<'_> {
    fn replica_is_there(&self) -> Result<()> {
        let gtid = self.server.value("SELECT @@gtid_binlog_pos")?;
        let done = self.replica.value(&format!("SELECT MASTER_GTID_WAIT('{gtid}', 120)"))?;
        ensure!(done == "0", "the replica: {:?}", self.replica.sql("SHOW SLAVE STATUS")?);
        Ok(())
    }

    /// `mariadb-binlog` from the file that is written now, when it has come to its end.
    fn raw(&self) -> Result<Reader> {
        let raw = self.directory.join("raw");
        let _ = std::fs::remove_dir_all(&raw);
        std::fs::create_dir_all(&raw)?;
        let (file, len) = end(&self.server)?;
        let child = Command::new("mariadb-binlog")
            .args(["--no-defaults", "--read-from-remote-server", "--raw", "--stop-never", "--user=root"])
            .arg(format!("--socket={}", self.server.socket().display()))
            .arg(format!("--result-file={}/", raw.display()))
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()
            .context("mariadb-binlog")?;
        let copy = raw.join(file);
        // It writes through a buffer of its own: the last bytes come with the next ones.
        let most = len.saturating_sub(64 << 10);
        wait_until("mariadb-binlog is there", PATIENCE, || {
            std::fs::metadata(&copy).is_ok_and(|meta| meta.len() >= most)
        })?;
        Ok(Reader(child))
    }

    /// Transactions a second, and processor time per transaction in microseconds: the server's, the copiers'.
    fn measured(&mut self, copier: Copier, load: (u32, u64)) -> Result<[f64; 3]> {
        let mut reader = None;
        let mut pids = Vec::new();
        match copier {
            Copier::Nobody => {}
            Copier::Ours => {
                self.stack.start()?;
                archived(&self.stack, &end(&self.server)?, PATIENCE)?;
                pids.extend(
                    [&self.stack.nfs1, &self.stack.backup].into_iter().flatten().map(|one| one.pid()),
                );
            }
            Copier::Replica => {
                self.replica.sql("START SLAVE")?;
                self.replica_is_there()?;
                pids.push(self.replica.pid()?);
            }
            Copier::Raw => {
                let started = self.raw()?;
                pids.push(started.0.id());
                reader = Some(started);
            }
        }
        let spent = |pids: &[u32]| pids.iter().map(|pid| cpu_seconds(*pid)).sum::<Result<f64>>();
        let server = [self.server.pid()?];
        let before = (spent(&server)?, spent(&pids)?);
        let rate = transactions(&self.server.access(), load.0, load.1)?;
        let after = (spent(&server)?, spent(&pids)?);
        match copier {
            Copier::Ours => self.stack.stop()?,
            Copier::Replica => {
                self.replica_is_there()?;
                self.replica.sql("STOP SLAVE")?;
            }
            Copier::Nobody | Copier::Raw => drop(reader),
        }
        let each = |seconds: f64| seconds * 1e6 / load.1 as f64;
        Ok([rate, each(after.0 - before.0), each(after.1 - before.1)])
    }
}

pub(super) fn run(directory: &Path, rounds: usize) -> Result<()> {
    let server = primary()?;
    table(&server)?;
    let stack = stack(directory, &server, "base_sums = false")?;
    let replica = Maria::start(primary_options().server_id(2).with("--sync-relay-log=1"))?;
    replica.sql(&format!(
        "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={}, MASTER_USER='root', MASTER_USE_GTID=slave_pos",
        server.port()?
    ))?;
    let mut scene = Scene { directory, server, stack, replica };
    transactions(&scene.server.access(), 4, 10_000)?;
    // A base snapshot is taken once in a day, and not while this measures.
    scene.stack.start()?;
    scene.stack.ok("nfs1", &["db", "snapshot"])?;
    scene.stack.stop()?;
    for load in LOADS {
        let mut found: Vec<[Vec<f64>; 3]> = COPIERS.iter().map(|_| Default::default()).collect();
        for _ in 0..rounds {
            for (at, (copier, _)) in COPIERS.iter().enumerate() {
                for (values, value) in found[at].iter_mut().zip(scene.measured(*copier, load)?) {
                    values.push(value);
                }
            }
        }
        table_of(load.0, &mut found);
    }
    Ok(())
}

fn table_of(connections: u32, found: &mut [[Vec<f64>; 3]]) {
    let alone = median(&mut found[0][0]);
    let mut rows = vec![
        [
            "copied by",
            "transactions/s",
            "range",
            "ratio (bar 0.95)",
            "server us/transaction",
            "copier us/transaction",
        ]
        .map(String::from)
        .to_vec(),
    ];
    for ((_, name), values) in COPIERS.iter().zip(found) {
        let rate = median(&mut values[0]);
        let (least, most) = values[0].iter().fold((f64::MAX, 0f64), |(a, b), v| (a.min(*v), b.max(*v)));
        rows.push(vec![
            (*name).to_owned(),
            format!("{rate:.0}"),
            format!("{least:.0} to {most:.0}"),
            format!("{:.2}", rate / alone),
            format!("{:.0}", median(&mut values[1])),
            format!("{:.0}", median(&mut values[2])),
        ]);
    }
    print_table(&format!("transactions of the primary, {connections} connections"), &rows);
}
