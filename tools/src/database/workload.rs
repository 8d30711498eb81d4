//! Concurrent connections that work until they are told to stop, and remember what they saw committed.

use super::client::{Access, Client};
use super::server::Scratch;
use super::statements::{Random, Statements, set_up};
use crate::process::wait_until;
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// What is done, and how much at most.
#[derive(Clone, Debug)]
pub struct Work {
    /// Everything is drawn from it; print it.
    pub seed: u64,
    /// Connections at the same time.
    pub connections: u32,
    /// Pieces of work of each connection at most.
    pub pieces: u64,
    /// Longest blob, bytes.
    pub blob: u64,
    /// With what only MariaDB has.
    pub maria: bool,
    /// With definitions (DDL); a dump of tables that change all the time does not succeed.
    pub definitions: bool,
    /// With branches of distributed transactions; a server that is killed within XA PREPARE may leave out of its binary log
    /// what it then knows, and no replica follows over that.
    pub branches: bool,
}

impl Work {
    /// Four connections on a MariaDB, until stopped.
    pub fn maria(seed: u64) -> Work {
        Work {
            seed,
            connections: 4,
            pieces: u64::MAX,
            blob: 64 << 10,
            maria: true,
            definitions: true,
            branches: true,
        }
    }

    /// Four connections on a MySQL, until stopped.
    pub fn mysql(seed: u64) -> Work {
        Work { maria: false, ..Work::maria(seed) }
    }

    /// Without branches of distributed transactions.
    pub fn without_branches(mut self) -> Work {
        self.branches = false;
        self
    }

    /// Without definitions.
    pub fn rows_only(mut self) -> Work {
        self.definitions = false;
        self
    }

    /// At most so many pieces of each connection.
    pub fn pieces(mut self, pieces: u64) -> Work {
        self.pieces = pieces;
        self
    }
}

/// What the connections saw committed: a row (worker, seq) of `work.log` each.
#[derive(Clone, Debug, Default)]
pub struct Seen(BTreeMap<u32, Vec<u64>>);

impl Seen {
    /// Of one connection, ascending.
    pub fn of(&self, worker: u32) -> &[u64] {
        self.0.get(&worker).map_or(&[], Vec::as_slice)
    }

    /// Of all.
    pub fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// What was seen committed and is not in the server at `access`.
    pub fn missing_in(&self, access: &Access) -> Result<Vec<(u32, u64)>> {
        let mut there = BTreeSet::new();
        for row in access.sql("SELECT worker, seq FROM work.log")? {
            there.insert((row[0].parse::<u32>()?, row[1].parse::<u64>()?));
        }
        let all = self.0.iter().flat_map(|(worker, list)| list.iter().map(|seq| (*worker, *seq)));
        Ok(all.filter(|pair| !there.contains(pair)).collect())
    }
}

/// Running connections. A server that goes away and comes back (at the same socket) is waited for.
pub struct Workload {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    workers: Vec<JoinHandle<Result<Vec<u64>>>>,
    _files: Scratch,
}

impl Workload {
    /// Makes the tables (in the database `work`) and starts.
    pub fn start(access: &Access, work: Work) -> Result<Workload> {
        access.sql(&set_up(work.connections, work.maria)).context("setting the workload up")?;
        let first = access.sql("SELECT COALESCE(MAX(seq), 0) + 1 FROM work.log")?[0][0].parse()?;
        let files = Scratch::new("workload")?;
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let workers = (0..work.connections).map(|worker| {
            let seed = Random(work.seed ^ (u64::from(worker) << 32)).next();
            let statements = Statements {
                random: Random(seed),
                worker,
                maria: work.maria,
                definitions: work.definitions,
                branches: work.branches,
                blob: work.blob,
                file: files.0.join(format!("load-{worker}")),
            };
            let (access, stop, done) = (access.clone(), Arc::clone(&stop), Arc::clone(&done));
            let pieces = work.pieces;
            std::thread::spawn(move || Worker { access, statements, stop, done }.work(first, pieces))
        });
        Ok(Workload { workers: workers.collect(), stop, done, _files: files })
    }

    /// Waits until the connections together saw so many pieces committed.
    pub fn wait_for(&self, pieces: u64) -> Result<()> {
        let over = || self.workers.iter().any(JoinHandle::is_finished);
        let enough = || self.done.load(Ordering::Relaxed) >= pieces;
        wait_until("pieces of the workload", Duration::from_secs(120), || enough() || over())?;
        if !enough() {
            bail!("a connection has ended at {} of {pieces} pieces", self.done.load(Ordering::Relaxed));
        }
        Ok(())
    }

    /// Pieces seen committed so far.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Ends after the pieces in hand; what was seen committed. Fails when a connection could not work.
    pub fn stop(mut self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        self.join()
    }

    /// Waits until each connection has done all its pieces.
    pub fn finish(mut self) -> Result<Seen> {
        self.join()
    }

    fn join(&mut self) -> Result<Seen> {
        let mut seen = Seen::default();
        for (worker, thread) in (0..).zip(std::mem::take(&mut self.workers)) {
            match thread.join() {
                Ok(list) => seen.0.insert(worker, list?),
                Err(_) => bail!("connection {worker} of the workload panicked"),
            };
        }
        Ok(seen)
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.join();
    }
}

struct Worker {
    access: Access,
    statements: Statements,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
}

impl Worker {
    fn work(&mut self, first: u64, pieces: u64) -> Result<Vec<u64>> {
        let mut seen = Vec::new();
        let mut client = None;
        // Deadlocks, tables that change under a transaction and killed servers end a piece; its number is not used
        // again, because it may be committed all the same.
        let mut failed_in_a_row = 0;
        for seq in first..first.saturating_add(pieces) {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let text = self.statements.next(seq)?;
            let Some(connection) = self.connection(&mut client)? else { break };
            match connection.run(&text) {
                Ok(_) => {
                    seen.push(seq);
                    self.done.fetch_add(1, Ordering::Relaxed);
                    failed_in_a_row = 0;
                }
                Err(error) => {
                    client = None;
                    failed_in_a_row += 1;
                    if failed_in_a_row > 30 {
                        let direct = self.access.sql(&text).err();
                        return Err(error.context(format!("30 failures in a row; last: {direct:?}")));
                    }
                }
            }
        }
        Ok(seen)
    }

    /// The open connection, or a new one as soon as the server answers; `None` when told to stop in the meantime.
    fn connection<'a>(&self, client: &'a mut Option<Client>) -> Result<Option<&'a mut Client>> {
        if client.is_none() {
            let mut found = None;
            wait_until("a server that answers", Duration::from_secs(120), || {
                found = self.recovered().ok();
                found.is_some() || self.stop.load(Ordering::Relaxed)
            })?;
            *client = found;
        }
        Ok(client.as_mut())
    }

    /// A new connection; branches that an earlier one left prepared are ended, as a transaction manager does.
    fn recovered(&self) -> Result<Client> {
        let mut client = self.access.connect()?;
        client.run("SET SESSION innodb_lock_wait_timeout = 5, lock_wait_timeout = 10;")?;
        let prefix = format!("w{}-", self.statements.worker);
        for row in client.run("XA RECOVER;")? {
            let Some(number) = row.get(3).and_then(|name| name.strip_prefix(&prefix)) else { continue };
            let end = if number.parse::<u64>()? % 2 == 0 { "COMMIT" } else { "ROLLBACK" };
            client.run(&format!("XA {end} '{prefix}{number}';"))?;
        }
        Ok(client)
    }
}
