//! The one task that has the standby in hand: starts its server, keeps replication going, sees how far it is.

use super::build::{self, Tell};
use super::crash::{self, Known};
use super::error::StandbyError;
use super::health::{Health, Said};
use super::record::Record;
use super::{Command, Parts, Shared};
use crate::database::dsn::Dsn;
use crate::database::server::Mysqld;
use crate::database::sql::{Sql, quote_text};
use crate::observe::status::DatabaseStandbyStatus;
use crate::settings::StandbyMode;
use ehpc_proto::binlog::{Flavor, GtidState};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

const LOOK: Duration = Duration::from_secs(1);
/// Pause before a server that ended is started again: first, longest.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// A standby that somebody stopped at a place (verify does) is let go on after this.
const HALTED: Duration = Duration::from_secs(60);
/// What failed is tried again so often: some errors pass.
const RETRY: Duration = Duration::from_secs(30);
/// Also what should not: an archive that has lost its end has it again when its server is there.
const RETRY_FINAL: Duration = Duration::from_secs(300);

/// The task's own.
pub(super) struct Keeper {
    parts: Arc<Parts>,
    shared: Arc<Shared>,
    server: Option<Mysqld>,
    sql: Option<Sql>,
    record: Option<Record>,
    pause: Duration,
    not_before: Instant,
    /// Since when it is as it is.
    halted: Option<Instant>,
    failed: Option<Instant>,
    /// When it last had everything.
    level: Instant,
    /// What it had applied when its server was started: the next group may have been applied before a kill.
    started_at: Option<GtidState>,
    /// It applies one group only, up to here, after a failure: of threads side by side, the one whose error is told need
    /// not have the group that comes next.
    trial: Option<GtidState>,
    /// It was looked into why it fails behind this GTID state.
    looked: Option<String>,
    /// An error of its applier, and what it means.
    explained: Option<(String, String)>,
}

impl Keeper {
    pub(super) fn new(parts: Arc<Parts>, shared: Arc<Shared>, record: Option<Record>) -> Keeper {
        let now = Instant::now();
        Keeper {
            parts,
            shared,
            server: None,
            sql: None,
            record,
            pause: PAUSE.0,
            not_before: now,
            halted: None,
            failed: None,
            level: now,
            started_at: None,
            trial: None,
            looked: None,
            explained: None,
        }
    }

    /// Until it is told to end.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Init { force, tell, reply }) => {
                        let _ = reply.send(self.init(force, &tell).await);
                    }
                    Some(Command::Start { reply }) => {
                        let _ = reply.send(self.set_stopped(false).await);
                    }
                    Some(Command::Stop { reply }) => {
                        let _ = reply.send(self.set_stopped(true).await);
                    }
                    Some(Command::Shutdown { reply }) => {
                        self.end().await;
                        let _ = reply.send(());
                        return;
                    }
                    None => return self.end().await,
                },
                _ = ticks.tick() => self.look().await,
            }
        }
    }

    fn is_managed(&self) -> bool {
        self.parts.settings.mode == StandbyMode::Managed
    }

    async fn init(&mut self, force: bool, tell: &Tell) -> Result<(), StandbyError> {
        if !self.is_managed() {
            return Err(StandbyError::External);
        }
        // What is there goes on until it is known that it may go, and what comes in its place.
        let datadir = &self.parts.settings.datadir;
        if !force && build::is_there(datadir) {
            return Err(StandbyError::Exists { datadir: datadir.clone() });
        }
        let _reading = Arc::clone(&self.parts.in_use).read_owned().await;
        if let Err(error) = build::check(&self.parts).await {
            if self.record.is_none() {
                self.enter("not built", false, Some(error.to_string()));
            }
            return Err(error);
        }
        self.end().await;
        self.enter("building", true, None);
        self.record = None;
        let stop: Arc<AtomicBool> = self.shared.stop.clone();
        match build::build(&self.parts, force, tell, &stop).await {
            Ok((record, server)) => {
                self.record = Some(record);
                self.server = Some(server);
                (self.started_at, self.trial, self.looked) = (None, None, None);
                tell("replication starts".to_owned());
                self.follow().await
            }
            Err(error) => {
                self.enter("not built", false, Some(error.to_string()));
                Err(error)
            }
        }
    }

    async fn set_stopped(&mut self, stopped: bool) -> Result<(), StandbyError> {
        if !self.is_managed() {
            return Err(StandbyError::External);
        }
        let mut record = self.record.clone().ok_or(StandbyError::NotBuilt)?;
        record.stopped = stopped;
        record.store(&self.parts.settings.datadir)?;
        self.record = Some(record);
        if stopped {
            self.end().await;
            self.enter("stopped", false, None);
            return Ok(());
        }
        // Started by a person: at once, whatever stopped it.
        if self.server.as_ref().is_some_and(|server| server.has_ended().is_some()) {
            (self.server, self.sql) = (None, None);
        }
        (self.not_before, self.pause) = (Instant::now(), PAUSE.0);
        self.restart().await?;
        self.looked = None;
        self.look().await;
        // What it waits for may be there now, whatever it is.
        if self.shared.status.lock().well { Ok(()) } else { self.follow().await }
    }

    /// Changes what is kept of it on disk, where that is a change.
    fn note(&mut self, change: impl FnOnce(&mut Record)) {
        let Some(record) = &mut self.record else { return };
        let before = record.clone();
        change(record);
        if *record != before
            && let Err(error) = record.store(&self.parts.settings.datadir)
        {
            tracing::warn!(%error, "the standby");
        }
    }

    /// Ends the server, if it runs.
    async fn end(&mut self) {
        self.sql = None;
        *self.shared.dsn.lock() = None;
        let Some(server) = self.server.take() else { return };
        match server.stop().await {
            Ok(()) => self.note(|record| record.running = false),
            Err(error) => tracing::warn!(%error, "the standby"),
        }
    }

    async fn look(&mut self) {
        if self.is_managed() {
            match &self.record {
                None => return self.enter("not built", false, None),
                Some(record) if record.stopped => return self.enter("stopped", false, None),
                Some(_) => {}
            }
            // Why not is told where it is noticed.
            if self.restart().await.is_err() || self.server.is_none() {
                return;
            }
        }
        if let Err(error) = self.see().await {
            self.sql = None;
            self.enter("failed", false, Some(error.to_string()));
        }
    }

    /// The next attempt is made after a while.
    fn later(&mut self, why: &str) {
        tracing::warn!("{why}");
        self.not_before = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(PAUSE.1);
        self.enter("failed", false, Some(why.to_owned()));
    }

    /// Starts the server if it does not run (any more) and its time has come.
    async fn restart(&mut self) -> Result<(), StandbyError> {
        if let Some(how) = self.server.as_ref().and_then(Mysqld::has_ended) {
            (self.server, self.sql) = (None, None);
            self.later(&format!("the standby's server ended ({how}); it is started again"));
        }
        if self.server.is_some() || Instant::now() < self.not_before {
            return Ok(());
        }
        let started = self.begin().await;
        if let Err(error) = &started
            && !matches!(error, StandbyError::Stopped)
        {
            self.later(&error.to_string());
        }
        started
    }

    /// Starts the server, and replication.
    async fn begin(&mut self) -> Result<(), StandbyError> {
        let was_killed = self.record.as_ref().is_some_and(|record| record.running);
        // Where it failed before the kill, it fails for a reason.
        let failed_at = self.record.as_ref().and_then(|record| record.failed_at.clone());
        self.note(|record| record.running = true);
        self.server = Some(build::start(&self.parts, &self.shared.stop).await?);
        (self.started_at, self.trial, self.looked) = (None, None, None);
        if was_killed {
            match self.applied().await {
                Ok(at) => self.started_at = Some(at).filter(|at| Some(at.to_string()) != failed_at),
                // Without that it could not be told what a kill explains: it is started once more, as one that was killed.
                Err(error) => {
                    self.sql = None;
                    if let Some(server) = self.server.take() {
                        server.stop().await?;
                    }
                    return Err(error);
                }
            }
        }
        self.follow().await
    }

    fn dsn(&self) -> Option<Dsn> {
        match &self.server {
            Some(server) => Some(server.dsn()),
            None if self.is_managed() => None,
            None => Some(Dsn::of_standby(&self.parts.settings)),
        }
    }

    async fn connected(&mut self) -> Result<&mut Sql, StandbyError> {
        if self.sql.is_none() {
            let dsn = self.dsn().ok_or(StandbyError::NotBuilt)?;
            self.sql = Some(Sql::connect(&dsn).await?);
            *self.shared.dsn.lock() = Some(dsn);
        }
        self.sql.as_mut().ok_or(StandbyError::NotBuilt)
    }

    /// Says where to replicate from, and starts it. What was fetched and not yet applied is fetched again.
    async fn follow(&mut self) -> Result<(), StandbyError> {
        let change = self.parts.upstream.change_master();
        let sql = self.connected().await?;
        for statement in ["STOP ALL SLAVES", change.as_str(), "START SLAVE"] {
            sql.run(statement).await?;
        }
        (self.halted, self.failed, self.trial) = (None, None, None);
        Ok(())
    }

    /// What it has applied.
    async fn applied(&mut self) -> Result<GtidState, StandbyError> {
        let sql = self.connected().await?;
        let gtid = sql.variable(sql.dialect().gtid_replica_position()).await?.unwrap_or_default();
        Ok(GtidState::parse(Flavor::MariaDb, &gtid).unwrap_or_else(|_| GtidState::empty(Flavor::MariaDb)))
    }

    /// Looks into a failure. What comes next is tried alone once; then it is known what failed, and passed over where that is
    /// right: it was applied right before a kill, or rolls back a branch that no log prepared. True = it goes on.
    async fn look_into(&mut self, said: &Said) -> Result<bool, StandbyError> {
        let at = self.applied().await?;
        let place = Some(at.to_string());
        if self.looked == place {
            return Ok(false);
        }
        let is_first = self.started_at.as_ref() == Some(&at);
        let was_alone = self.trial.is_some();
        let (archive, number) = (Arc::clone(&self.parts.archive), said.applier_errno);
        let look = move || match was_alone {
            true => crash::known(&archive, number, &at, is_first),
            false => Ok(crash::after(&archive, &at)?.map(Known::Next)),
        };
        let known = tokio::task::spawn_blocking(look).await.map_err(|_| StandbyError::Stopped)?;
        let known = match known {
            Ok(known) => known,
            // Looked into once it can be.
            Err(fault) => {
                let why = format!("{}; why cannot be looked up in the archive: {fault}", said.applier_error);
                self.explained = Some((said.applier_error.clone(), why));
                return Ok(false);
            }
        };
        self.trial = None;
        let error = &said.applier_error;
        let next = match known {
            Some(Known::Next(next)) => return self.try_alone(next).await.map(|()| true),
            Some(Known::Unprepared(branch, next)) if error.contains("XA ROLLBACK") => {
                tracing::warn!(
                    error,
                    "the binary log rolls back XA branch {branch} and never prepares it (its server was killed within XA \
                     PREPARE): nothing is to be done, and the standby goes on behind it, at {next}"
                );
                next
            }
            Some(Known::Applied(next)) => {
                tracing::warn!(
                    error,
                    "the standby had applied this when it was killed, and not noted it; it goes on behind it, at {next}"
                );
                next
            }
            Some(Known::Unprepared(branch, _)) => {
                let why = StandbyError::Unprepared { branch: branch.to_string() }.to_string();
                self.explained = Some((error.clone(), why));
                return Ok(self.fails_at(place));
            }
            None => return Ok(self.fails_at(place)),
        };
        let sql = self.connected().await?;
        sql.run("STOP ALL SLAVES").await?;
        sql.run(&format!("SET GLOBAL gtid_slave_pos = {}", quote_text(&next.to_string()))).await?;
        // The one after it may have been applied as well.
        self.started_at = is_first.then_some(next);
        self.follow().await?;
        Ok(true)
    }

    /// Notes where it fails; false, as nothing more is to be done there.
    fn fails_at(&mut self, place: Option<String>) -> bool {
        (self.started_at, self.looked) = (None, place.clone());
        self.note(|record| record.failed_at = place);
        false
    }

    /// Applies up to `next`, one group, and nothing behind it.
    async fn try_alone(&mut self, next: GtidState) -> Result<(), StandbyError> {
        let sql = self.connected().await?;
        sql.run("STOP ALL SLAVES").await?;
        sql.run(&format!("START SLAVE UNTIL master_gtid_pos = {}", quote_text(&next.to_string()))).await?;
        self.trial = Some(next);
        Ok(())
    }

    async fn see(&mut self) -> Result<(), StandbyError> {
        let sql = self.connected().await?;
        let dialect = sql.dialect();
        let (status, columns) = (sql.table(dialect.replica_status()).await?, dialect.replica_columns());
        let gtid = sql.variable(dialect.gtid_replica_position()).await?.unwrap_or_default();
        let column = |names: &[&str]| status.first_of(0, names).unwrap_or_default();
        let said = Said {
            receiver: column(&[columns.io_running]),
            applier: column(&[columns.sql_running]),
            receiver_error: column(&["Last_IO_Error"]),
            applier_error: column(&["Last_SQL_Error"]),
            applier_errno: column(&["Last_SQL_Errno"]).parse().unwrap_or(0),
            behind: column(&["Seconds_Behind_Master", "Seconds_Behind_Source"]).parse().ok(),
        };
        let flavor = if dialect.is_mariadb() { Flavor::MariaDb } else { Flavor::MySql };
        let lag = self.lag(flavor, &gtid, &said);
        self.judge(&said, gtid, lag).await
    }

    /// Behind the archive, milliseconds.
    fn lag(&mut self, flavor: Flavor, gtid: &str, said: &Said) -> u64 {
        let wanted = self.parts.archive.durable().borrow().gtid.clone();
        let has = GtidState::parse(flavor, gtid);
        let is_level = match (&wanted, &has) {
            (Some(wanted), Ok(has)) => has.contains_all(wanted),
            (None, _) => true,
            (_, Err(_)) => false,
        };
        if is_level {
            self.level = Instant::now();
            return 0;
        }
        let since = u64::try_from(self.level.elapsed().as_millis()).unwrap_or(u64::MAX);
        // Under load it is never level when it is looked at; then it says itself how far it is.
        said.behind.map_or(since, |seconds| (seconds * 1000).min(since)).max(1)
    }

    async fn judge(&mut self, said: &Said, gtid: String, lag_ms: u64) -> Result<(), StandbyError> {
        let health = said.health();
        let has = GtidState::parse(Flavor::MariaDb, &gtid).ok();
        let tried = self.trial.as_ref().zip(has).filter(|(trial, has)| has.contains_all(trial));
        let (is_tried, is_passed) =
            tried.map_or((false, false), |(trial, has)| (true, !trial.contains_all(&has)));
        let (state, well, error) = match &health {
            Health::Running => ("running", true, None),
            Health::Connecting(error) => ("connecting", false, Some(error.clone())),
            Health::Failed(error) | Health::Refused(error) => {
                let why = self.explained.as_ref().filter(|(of, _)| of == error).map(|(_, why)| why);
                ("failed", false, Some(why.unwrap_or(error).clone()))
            }
            Health::Halted => ("halted", false, None),
        };
        {
            let mut status = self.shared.status.lock();
            let error = error.filter(|error| !error.is_empty());
            if status.error != error
                && let Some(error) = &error
            {
                tracing::warn!(error, "the standby does not follow");
            }
            *status = DatabaseStandbyStatus {
                state: state.to_owned(),
                well,
                lag_ms,
                gtid,
                error,
                ..std::mem::take(&mut *status)
            };
        }
        if !self.is_managed() {
            return Ok(());
        }
        let now = Instant::now();
        let since = |place: &mut Option<Instant>, now| now - *place.get_or_insert(now);
        let retry = if said.is_final() { RETRY_FINAL } else { RETRY };
        match health {
            Health::Running | Health::Connecting(_) => {
                (self.halted, self.failed, self.pause) = (None, None, PAUSE.0);
                if is_passed {
                    // Somebody else has started it, without an end.
                    self.trial = None;
                }
                Ok(())
            }
            Health::Halted if is_tried => self.follow().await,
            Health::Halted if since(&mut self.halted, now) < HALTED => Ok(()),
            Health::Halted => self.follow().await,
            Health::Failed(_) if self.look_into(said).await? => Ok(()),
            Health::Failed(_) | Health::Refused(_) if since(&mut self.failed, now) < retry => Ok(()),
            Health::Failed(_) | Health::Refused(_) => {
                self.failed = None;
                Ok(self.connected().await?.run("START SLAVE").await?)
            }
        }
    }

    fn enter(&self, state: &str, well: bool, error: Option<String>) {
        let mut status = self.shared.status.lock();
        state.clone_into(&mut status.state);
        (status.well, status.error) = (well, error);
    }
}
