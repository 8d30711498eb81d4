//! Brings two servers to one position: what is read on both is then the same history, exactly, while both go on.
//!
//! 1. The standby's replication stops, at the end of a transaction. It is then certainly not ahead of
//! 2. a consistent snapshot of the primary, whose position is known. (A transaction may be in the log, and even on the
//!    standby, a moment before it is visible on the primary: then the snapshot is taken again.)
//! 3. The standby goes on to exactly that position, stops, and a snapshot is taken there.
//! 4. Replication goes on. It does so too when anything fails in between.
//!
//! Source: MariaDB knowledge base "START TRANSACTION WITH CONSISTENT SNAPSHOT", "START REPLICA" (UNTIL),
//! "BINLOG_GTID_POS". MySQL's snapshot does not tell its position: writers wait for the moment that a
//! `FLUSH TABLES WITH READ LOCK` takes.

use super::CheckError;
use super::catalog::Catalog;
use super::session::{Connect, Session, rows, text};
use crate::database::dialect::Dialect;
use crate::database::sql::{SNAPSHOT_PLACE, SqlError, Table, quote_text, snapshot_place};
use ehpc_proto::binlog::{Flavor, GtidState};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Time for a snapshot of the primary that is not behind the standby.
const CATCH_UP: Duration = Duration::from_secs(30);
/// A standby that applies nothing for so long will not arrive.
const NO_PROGRESS: Duration = Duration::from_secs(300);
/// A standby that does not apply may be starting for so long.
const STARTS: Duration = Duration::from_secs(15);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(30);
/// So often both are brought together anew when somebody else starts or stops the standby meanwhile.
const TRIES: u32 = 3;
/// MariaDB, to `START SLAVE UNTIL`: "Slave is already running". (Of MySQL, and of one whose applier alone runs, it is a
/// warning, and where to stop is ignored.)
const RUNS: u16 = 1254;
/// MySQL: so long may writers wait for the lock, in seconds; then it is given up.
const LOCK_SECONDS: u32 = 3;

/// A place in the primary's history.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Position {
    /// Binary log file.
    pub file: String,
    /// Offset in it.
    pub offset: u64,
    /// GTID position, where there are any.
    pub gtid: Option<String>,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.offset)?;
        match &self.gtid {
            Some(gtid) => write!(f, " (GTID {gtid})"),
            None => Ok(()),
        }
    }
}

/// Two snapshots of the same moment.
pub(super) struct Aligned {
    pub(super) primary: Box<dyn Session>,
    pub(super) standby: Box<dyn Session>,
    pub(super) at: Position,
    /// What the primary held before and after the snapshot was taken.
    pub(super) before: Catalog,
    pub(super) after: Catalog,
    /// What the standby holds at the position.
    pub(super) there: Catalog,
}

/// How a replica follows: its connection's name, and whether by GTID.
struct Replica {
    name: String,
    by_gtid: bool,
}

/// Takes both snapshots; again when somebody else has started or stopped the standby meanwhile.
pub(super) async fn align(
    primary: &dyn Connect,
    standby: &dyn Connect,
    stop: &AtomicBool,
) -> Result<Aligned, CheckError> {
    let mut tries = 1;
    loop {
        match align_once(primary, standby, stop).await {
            Err(CheckError::Elsewhere { .. }) if tries < TRIES => tries += 1,
            found => return found,
        }
    }
}

async fn align_once(
    primary: &dyn Connect,
    standby: &dyn Connect,
    stop: &AtomicBool,
) -> Result<Aligned, CheckError> {
    let mut control = standby.connect().await.map_err(CheckError::Standby)?;
    let replica = Replica::find(control.as_mut(), stop).await?;
    let mut source = primary.connect().await.map_err(CheckError::Primary)?;
    let before = Catalog::read(source.as_mut(), false).await.map_err(CheckError::Primary)?;
    let dialect = control.dialect();
    run(control.as_mut(), dialect.stop_replica()).await?;
    let found = meet(source, standby, control.as_mut(), &replica, before, stop).await;
    // Whatever happened: it follows again.
    let again = run(control.as_mut(), dialect.start_replica()).await;
    let mut aligned = found?;
    again?;
    aligned.after = Catalog::read(aligned.primary.as_mut(), true).await.map_err(CheckError::Primary)?;
    Ok(aligned)
}

async fn run(session: &mut dyn Session, statement: &str) -> Result<(), CheckError> {
    session.table(statement).await.map(drop).map_err(CheckError::Standby)
}

async fn meet(
    mut source: Box<dyn Session>,
    standby: &dyn Connect,
    control: &mut dyn Session,
    replica: &Replica,
    before: Catalog,
    stop: &AtomicBool,
) -> Result<Aligned, CheckError> {
    let applied = replica.applied(control).await?;
    let at = snapshot_not_behind(source.as_mut(), replica, &applied, stop).await?;
    if !replica.is_at(&applied, &at) {
        let dialect = control.dialect();
        let until = match (&at.gtid, replica.by_gtid) {
            (Some(gtid), true) => dialect.start_replica_until_gtid(gtid),
            _ => dialect.start_replica_until_position(&at.file, at.offset),
        };
        match control.table(&until).await {
            Err(error) if error.number() == Some(RUNS) => return Err(elsewhere(&applied, &at)),
            begun => begun.map(drop).map_err(CheckError::Standby)?,
        }
        replica.arrive(control, &at, stop).await?;
    }
    let mut there = standby.connect().await.map_err(CheckError::Standby)?;
    open_snapshot(there.as_mut()).await.map_err(CheckError::Standby)?;
    // Somebody may have started it before the snapshot was there.
    let (running, applied) = replica.state(control).await?;
    if running || !replica.is_at(&applied, &at) {
        return Err(elsewhere(&applied, &at));
    }
    savepoint(there.as_mut()).await.map_err(CheckError::Standby)?;
    savepoint(source.as_mut()).await.map_err(CheckError::Primary)?;
    let listed = Catalog::read(there.as_mut(), true).await.map_err(CheckError::Standby)?;
    let after = Catalog::default();
    Ok(Aligned { primary: source, standby: there, at, before, after, there: listed })
}

/// Begins a transaction that sees one moment.
async fn open_snapshot(session: &mut dyn Session) -> Result<(), SqlError> {
    session.table("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
    if let Dialect::MariaDb(version) = session.dialect()
        && version >= crate::database::dialect::Version::new(10, 3, 0)
    {
        let never = "SET SESSION idle_transaction_timeout = 0, idle_readonly_transaction_timeout = 0";
        session.table(never).await?;
    }
    // With the binary log on, `let_go` would give nothing free. It takes a privilege (BINLOG ADMIN, SUPER); without it
    // an ALTER TABLE waits until the comparison ends, as it does for the server's own dump.
    match session.table("SET SESSION sql_log_bin = 0").await {
        Err(error) if error.number() != Some(1227) => return Err(error),
        _ => {}
    }
    session.table("START TRANSACTION WITH CONSISTENT SNAPSHOT").await?;
    Ok(())
}

const SAVEPOINT: &str = "ehpc_compared";

/// Where a later [`let_go`] returns to.
async fn savepoint(session: &mut dyn Session) -> Result<(), SqlError> {
    session.table(&format!("SAVEPOINT {SAVEPOINT}")).await.map(drop)
}

/// Gives the tables free that were read since the snapshot (an ALTER TABLE, and everything behind it, would wait for
/// this transaction's end), and keeps the snapshot.
pub(super) async fn let_go(session: &mut dyn Session) -> Result<(), SqlError> {
    session.table(&format!("ROLLBACK TO SAVEPOINT {SAVEPOINT}")).await.map(drop)
}

/// A snapshot of the primary that holds everything the standby has applied, and its position.
async fn snapshot_not_behind(
    source: &mut dyn Session,
    replica: &Replica,
    applied: &Applied,
    stop: &AtomicBool,
) -> Result<Position, CheckError> {
    let start = Instant::now();
    loop {
        let at = snapshot(source).await.map_err(CheckError::Primary)?;
        if replica.reaches(&at, applied)? {
            return Ok(at);
        }
        if start.elapsed() > CATCH_UP {
            return Err(CheckError::Ahead { standby: applied.to_string(), primary: at.to_string() });
        }
        // (Also what `open_snapshot` must find: no transaction.)
        source.table("ROLLBACK").await.map_err(CheckError::Primary)?;
        pause(stop).await?;
    }
}

async fn snapshot(source: &mut dyn Session) -> Result<Position, SqlError> {
    if source.dialect().snapshot_tells_position() {
        open_snapshot(source).await?;
        let none = || SqlError::Answer {
            statement: SNAPSHOT_PLACE.to_owned(),
            what: "nothing: the server has no binary log".to_owned(),
        };
        let (file, offset) = snapshot_place(&rows(source, SNAPSHOT_PLACE).await?).ok_or_else(none)?;
        let gtid = text(source, &format!("SELECT BINLOG_GTID_POS({}, {offset})", quote_text(&file))).await?;
        return Ok(Position { file, offset, gtid });
    }
    source.table(&format!("SET SESSION lock_wait_timeout = {LOCK_SECONDS}")).await?;
    source.table("FLUSH TABLES WITH READ LOCK").await?;
    let at = under_lock(source).await;
    // `UNLOCK TABLES` ends the lock and keeps the transaction.
    source.table("UNLOCK TABLES").await?;
    at
}

async fn under_lock(source: &mut dyn Session) -> Result<Position, SqlError> {
    open_snapshot(source).await?;
    let told = source.table(source.dialect().binary_log_status()).await?;
    Ok(Position {
        file: told.text(0, "File").unwrap_or_default(),
        offset: told.text(0, "Position").and_then(|text| text.parse().ok()).unwrap_or(0),
        gtid: told.text(0, "Executed_Gtid_Set").filter(|set| !set.is_empty()),
    })
}

async fn pause(stop: &AtomicBool) -> Result<(), CheckError> {
    if stop.load(Ordering::Relaxed) {
        return Err(CheckError::Stopped);
    }
    tokio::time::sleep(LOOK_EVERY).await;
    Ok(())
}

/// What a replica has applied.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Applied {
    file: String,
    offset: u64,
    gtid: String,
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} (GTID {})", self.file, self.offset, self.gtid)
    }
}

impl Replica {
    /// The one connection by which the standby follows. One that is starting is waited for.
    async fn find(control: &mut dyn Session, stop: &AtomicBool) -> Result<Replica, CheckError> {
        let start = Instant::now();
        loop {
            let status = status(control).await?;
            if status.rows.len() != 1 {
                return Err(CheckError::Sources(status.rows.len()));
            }
            let names = control.dialect().replica_columns();
            if status.text(0, names.sql_running).as_deref() == Some("Yes") {
                return Replica::of(control, &status).await;
            }
            match status.text(0, "Last_SQL_Errno").filter(|number| number != "0") {
                Some(number) => return Err(applier(&status, 0, &number)),
                None if start.elapsed() > STARTS => {
                    return Err(CheckError::NotRunning("it was stopped".to_owned()));
                }
                None => pause(stop).await?,
            }
        }
    }

    async fn of(control: &mut dyn Session, status: &Table) -> Result<Replica, CheckError> {
        let name = status.text(0, "Connection_name").unwrap_or_default();
        if control.dialect().is_mariadb() {
            let choose = format!("SET SESSION default_master_connection = {}", quote_text(&name));
            run(control, &choose).await?;
        }
        let by_gtid = match control.dialect() {
            Dialect::MariaDb(_) => status.text(0, "Using_Gtid").is_some_and(|word| word != "No"),
            Dialect::MySql(_) => status.text(0, "Auto_Position").as_deref() == Some("1"),
        };
        Ok(Replica { name, by_gtid })
    }

    async fn own_row(&self, control: &mut dyn Session) -> Result<(Table, usize), CheckError> {
        let status = status(control).await?;
        let row = (0..status.rows.len())
            .find(|row| status.text(*row, "Connection_name").unwrap_or_default() == self.name);
        let row = row.ok_or(CheckError::Sources(0))?;
        Ok((status, row))
    }

    async fn applied(&self, control: &mut dyn Session) -> Result<Applied, CheckError> {
        let (status, row) = self.own_row(control).await?;
        let names = control.dialect().replica_columns();
        let variable = control.dialect().gtid_replica_position();
        let gtid =
            text(control, &format!("SELECT @@GLOBAL.{variable}")).await.map_err(CheckError::Standby)?;
        Ok(Applied {
            file: status.text(row, names.applied_file).unwrap_or_default(),
            offset: status.text(row, names.applied_position).and_then(|text| text.parse().ok()).unwrap_or(0),
            gtid: gtid.unwrap_or_default(),
        })
    }

    /// Whether a position of the primary holds everything that was applied.
    fn reaches(&self, at: &Position, applied: &Applied) -> Result<bool, CheckError> {
        match (&at.gtid, self.by_gtid) {
            (Some(gtid), true) => covers(gtid, &applied.gtid),
            _ => Ok(order(&at.file, at.offset) >= order(&applied.file, applied.offset)),
        }
    }

    /// Whether exactly that was applied.
    fn is_at(&self, applied: &Applied, at: &Position) -> bool {
        match (&at.gtid, self.by_gtid) {
            (Some(gtid), true) => {
                covers(gtid, &applied.gtid).unwrap_or(false) && covers(&applied.gtid, gtid).unwrap_or(false)
            }
            _ => applied.file == at.file && applied.offset == at.offset,
        }
    }

    /// Whether it applies, and what it has applied.
    async fn state(&self, control: &mut dyn Session) -> Result<(bool, Applied), CheckError> {
        let (status, row) = self.own_row(control).await?;
        let running = status.text(row, control.dialect().replica_columns().sql_running);
        Ok((running.as_deref() != Some("No"), self.applied(control).await?))
    }

    /// Waits until the replica has stopped by itself, at `at`. (One that runs already ignores where it should stop.)
    async fn arrive(
        &self,
        control: &mut dyn Session,
        at: &Position,
        stop: &AtomicBool,
    ) -> Result<(), CheckError> {
        let names = control.dialect().replica_columns();
        let mut last = self.applied(control).await?;
        let mut moved = Instant::now();
        loop {
            let (status, row) = self.own_row(control).await?;
            let applied = self.applied(control).await?;
            if status.text(row, names.sql_running).as_deref() == Some("No") {
                if let Some(number) = status.text(row, "Last_SQL_Errno").filter(|number| number != "0") {
                    return Err(applier(&status, row, &number));
                }
                if self.is_at(&applied, at) {
                    return Ok(());
                }
                return Err(elsewhere(&applied, at));
            }
            if !self.reaches(at, &applied)? {
                return Err(elsewhere(&applied, at));
            }
            if applied != last {
                (last, moved) = (applied, Instant::now());
            } else if moved.elapsed() > NO_PROGRESS {
                // One that tries again has no error.
                let said = ["Last_IO_Error", "Slave_IO_State", "Replica_IO_State"]
                    .iter()
                    .find_map(|column| status.text(row, column).filter(|text| !text.is_empty()));
                let link = said.unwrap_or_default();
                return Err(CheckError::Stuck { at: last.to_string(), wanted: at.to_string(), link });
            }
            pause(stop).await?;
        }
    }
}

/// Somebody else has started or stopped it.
fn elsewhere(applied: &Applied, wanted: &Position) -> CheckError {
    CheckError::Elsewhere { at: applied.to_string(), wanted: wanted.to_string() }
}

/// Its applier has failed.
fn applier(status: &Table, row: usize, number: &str) -> CheckError {
    let what = status.text(row, "Last_SQL_Error").unwrap_or_default();
    CheckError::Applier { number: number.parse().unwrap_or(0), what }
}

async fn status(control: &mut dyn Session) -> Result<Table, CheckError> {
    let statement = control.dialect().replica_status();
    control.table(statement).await.map_err(CheckError::Standby)
}

/// Whether the first GTID state holds all of the second.
fn covers(holder: &str, held: &str) -> Result<bool, CheckError> {
    if held.trim().is_empty() {
        return Ok(true);
    }
    if holder.trim().is_empty() {
        return Ok(false);
    }
    Ok(state(holder)?.contains_all(&state(held)?))
}

/// GTID states of both families are told apart by their form: MySQL's begin with a UUID.
fn state(text: &str) -> Result<GtidState, CheckError> {
    let flavor = if text.contains(':') { Flavor::MySql } else { Flavor::MariaDb };
    // MySQL breaks long sets into lines.
    let text: String = text.split_whitespace().collect();
    GtidState::parse(flavor, &text)
        .map_err(|error| CheckError::Gtid { text: text.clone(), error: error.to_string() })
}

/// Files are numbered, and the number's length may grow.
fn order(file: &str, offset: u64) -> (u64, u64) {
    let number = file.rsplit_once('.').and_then(|(_, digits)| digits.parse().ok()).unwrap_or(0);
    (number, offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_ordered_by_their_number() {
        assert!(order("bin.999999", 9) < order("bin.1000000", 4));
        assert!(order("bin.000002", 9) > order("bin.000002", 8));
    }

    #[test]
    fn states_of_both_families_are_read() {
        let covers = |holder: &str, held: &str| super::covers(holder, held).unwrap();
        assert!(covers("0-1-5,1-1-2", "0-1-4") && !covers("0-1-4", "0-1-5") && !covers("0-1-4", "1-1-1"));
        assert!(covers("0-1-5", "") && covers("", "") && !covers("", "0-1-5"));
        let set = "3E11FA47-71CA-11E1-9E33-C80AA9429562:1-5,\n 4e11fa47-71ca-11e1-9e33-c80aa9429562:1";
        assert!(covers(set, "3e11fa47-71ca-11e1-9e33-c80aa9429562:2-3"));
        assert!(super::covers(set, "").unwrap() && super::covers("garbage", "0-1-1").is_err());
    }
}
