//! Whether commits really wait for the backup's disk: the server's own account of semi-synchronous replication, every
//! second while `durability = "remote"`, also while nothing is streamed: that is when commits stop waiting.

use super::shared::{Session, Shared};
use crate::database::sql::{Sql, SqlError};
use crate::observe::metrics;
use crate::observe::status::DatabaseSemiSyncStatus;
use crate::observe::words::now_ms;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, timeout};

const EVERY: Duration = Duration::from_secs(1);
/// A server that does not say it within this time is not asked again for as long.
const WITHIN: Duration = Duration::from_secs(5);
/// Readings in a row in which the server counts no replica though ours acknowledges, until it is connected anew.
const IGNORED: u32 = 5;
/// Readings until that is tried once more.
const IGNORED_AGAIN: u32 = 60;

/// What the server said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reading {
    /// `rpl_semi_sync_master_enabled`; `None`: the server does not know it (the plugin is not loaded).
    pub enabled: Option<bool>,
    /// Commits wait at the moment.
    pub on: bool,
    /// Replicas that acknowledge.
    pub clients: u64,
    /// Commits that were not waited for.
    pub missed: u64,
}

/// Our own connection while a reading was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ours {
    /// There was none, or not all the time.
    Away,
    /// The server wants no acknowledgement over it: its semi-sync was loaded later than the connection was made.
    Silent,
    /// It acknowledges.
    Acknowledges,
}

/// What a reading says beyond the state.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Noticed {
    /// Commits stopped waiting since the last one.
    pub fell: bool,
    /// The server does not count our connection among those that acknowledge: it must be made anew.
    pub renew: bool,
}

/// The state and since when.
#[derive(Clone, Default, Debug)]
pub struct SemiSyncWatch {
    state: Option<&'static str>,
    since_ms: u64,
    fallbacks: u64,
    /// The server's count of commits not waited for, at the last reading.
    counted: Option<u64>,
    /// Commits not waited for since the first reading.
    missed: u64,
    /// Commits did not wait, at the last reading.
    fallen: bool,
    /// Readings in a row in which our connection was there and nobody waited for it.
    ignored: u32,
}

/// All is well.
const ON: &str = "on";
/// A commit was not acknowledged in time; the next ones do not wait.
const FALLEN_BACK: &str = "fallen back";
/// No replica acknowledges: commits wait for the server's timeout.
const NOBODY: &str = "without a replica";
/// Another replica acknowledges, and ours does not.
const WITHOUT_US: &str = "without the backup";
/// Another replica acknowledges too, and the first acknowledgement counts, whoever it is from.
const SHARED: &str = "shared";
/// The server has it off.
const IMPOSSIBLE: &str = "impossible";
/// Nothing is streamed: nobody acknowledges, and commits wait for the server's timeout.
const INTERRUPTED: &str = "interrupted";
/// The server did not say.
const UNKNOWN: &str = "unknown";

impl SemiSyncWatch {
    /// Takes a reading.
    pub fn read(&mut self, reading: &Reading, ours: Ours, now_ms: u64) -> Noticed {
        let enabled = reading.enabled == Some(true);
        let state = match reading {
            Reading { on: false, .. } if enabled => FALLEN_BACK,
            _ if !enabled => IMPOSSIBLE,
            _ if ours == Ours::Away => INTERRUPTED,
            Reading { clients: 0, .. } => NOBODY,
            _ if ours == Ours::Silent => WITHOUT_US,
            Reading { clients: 2.., .. } => SHARED,
            _ => ON,
        };
        let missed = match self.counted {
            // What was before the first reading is not ours to tell.
            None => 0,
            // The server was started anew and counts from 0.
            Some(counted) if reading.missed < counted => reading.missed,
            Some(counted) => reading.missed - counted,
        };
        self.missed += missed;
        let fallen = state == FALLEN_BACK;
        // It may fall back and recover between two readings: then the count alone tells.
        let fell = self.counted.is_some() && enabled && !self.fallen && (fallen || missed > 0);
        self.fallbacks += u64::from(fell);
        self.counted = Some(reading.missed);
        self.fallen = fallen;
        let ignored = ours == Ours::Silent || ours == Ours::Acknowledges && reading.clients == 0;
        // While it is made anew nothing is known: the count stays.
        self.ignored = match enabled && ours != Ours::Away {
            true => {
                if ignored {
                    self.ignored + 1
                } else {
                    0
                }
            }
            false => self.ignored,
        };
        self.set(state, now_ms);
        // A server that counts nobody may be about to.
        let due = if ours == Ours::Silent { 1 } else { IGNORED };
        Noticed { fell, renew: enabled && ignored && self.ignored % IGNORED_AGAIN == due }
    }

    /// Nothing is streamed any more; holds until a reading says otherwise.
    pub fn interrupted(&mut self, now_ms: u64) {
        if matches!(self.state, Some(ON | SHARED | NOBODY | WITHOUT_US)) {
            self.set(INTERRUPTED, now_ms);
        }
    }

    /// The server did not answer.
    pub fn unknown(&mut self, now_ms: u64) {
        self.set(UNKNOWN, now_ms);
    }

    /// Another server is asked from now on, with counts of its own.
    pub fn another(&mut self) {
        (self.counted, self.fallen, self.ignored) = (None, false, 0);
    }

    fn set(&mut self, state: &'static str, now_ms: u64) {
        if self.state != Some(state) {
            self.state = Some(state);
            self.since_ms = now_ms;
        }
    }

    /// For status.
    pub fn status(&self) -> DatabaseSemiSyncStatus {
        DatabaseSemiSyncStatus {
            state: self.state.unwrap_or("not asked yet").to_owned(),
            holds: self.state == Some(ON),
            since_ms: self.since_ms,
            fallbacks: self.fallbacks,
            unprotected_commits: self.missed,
        }
    }
}

async fn ask(sql: &mut Sql) -> Result<Reading, SqlError> {
    let names = sql.dialect().semi_sync();
    let enabled = sql.variable(names.enabled).await?;
    let on = sql.status(names.status).await?;
    let number = |text: Option<String>| text.and_then(|text| text.parse().ok()).unwrap_or(0);
    Ok(Reading {
        enabled: enabled.map(|value| matches!(value.as_str(), "ON" | "1")),
        on: on.as_deref() == Some("ON"),
        clients: number(sql.status(names.clients).await?),
        missed: number(sql.status(names.missed).await?),
    })
}

/// Watches until it is dropped: the server that is streamed, and while none is, the one that was.
pub(super) async fn watch(shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut open = None;
    let mut asked = None;
    loop {
        tick.tick().await;
        let Some(dsn) = shared.followed() else { continue };
        let name = dsn.server.to_string();
        if asked.as_ref() != Some(&name) {
            open = None;
            shared.semi_sync.lock().another();
            asked = Some(name);
        }
        let before = shared.session();
        let reading = timeout(WITHIN, async {
            let mut sql = match open.take() {
                Some(sql) => sql,
                None => Sql::connect(&dsn).await?,
            };
            let reading = ask(&mut sql).await?;
            Ok::<(Sql, Reading), SqlError>((sql, reading))
        });
        // The source's own connection says what is wrong with the server.
        let reading = match reading.await {
            Ok(Ok((sql, reading))) => {
                open = Some(sql);
                Some(reading)
            }
            Ok(Err(_)) | Err(_) => None,
        };
        take(&shared, reading.as_ref(), before);
        if reading.is_none() {
            tick.reset_after(WITHIN);
        }
    }
}

/// `before`: the session in which it was asked.
fn take(shared: &Shared, reading: Option<&Reading>, before: Option<Session>) {
    let now = now_ms();
    let (noticed, status, changed) = {
        let mut state = shared.semi_sync.lock();
        let was = state.state;
        // Asked under the state's lock: an end of the session after this is told to the state after this.
        let ours = match shared.session().filter(|session| Some(session) == before.as_ref()) {
            Some(Session { acknowledges: Some(true), .. }) => Ours::Acknowledges,
            Some(Session { acknowledges: Some(false), .. }) => Ours::Silent,
            _ => Ours::Away,
        };
        let noticed = match reading {
            Some(reading) => state.read(reading, ours, now),
            None => {
                state.unknown(now);
                Noticed::default()
            }
        };
        (noticed, state.status(), was != state.state)
    };
    if noticed.fell {
        metrics::DATABASE_FALLBACKS.inc();
        tracing::warn!(
            fallbacks = status.fallbacks,
            unprotected = status.unprotected_commits,
            "commits were answered without the backup: semi-sync fell back"
        );
    }
    if changed {
        match status.holds {
            true => tracing::info!("commits wait for the backup's disk (semi-sync is on)"),
            false => tracing::warn!(state = status.state, "commits do not wait for the backup's disk"),
        }
    }
    if noticed.renew {
        shared.renew.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(on: bool, clients: u64, missed: u64) -> Reading {
        Reading { enabled: Some(true), on, clients, missed }
    }

    #[test]
    fn states_are_counted_once_and_recover() {
        let mut watch = SemiSyncWatch::default();
        assert!(!watch.status().holds);
        assert!(!watch.read(&reading(true, 1, 7), Ours::Acknowledges, 1000).fell);
        assert_eq!((watch.status().holds, watch.status().unprotected_commits), (true, 0));
        assert!(watch.read(&reading(false, 1, 9), Ours::Acknowledges, 2000).fell);
        assert!(!watch.read(&reading(false, 0, 12), Ours::Acknowledges, 3000).fell);
        let status = watch.status();
        assert_eq!((status.state.as_str(), status.since_ms, status.fallbacks), (FALLEN_BACK, 2000, 1));
        assert_eq!((status.holds, status.unprotected_commits), (false, 5));
        // Commits until it recovered are of the same fall-back.
        assert!(!watch.read(&reading(true, 1, 13), Ours::Acknowledges, 4000).fell);
        assert!(watch.status().holds);
        watch.read(&reading(true, 2, 13), Ours::Acknowledges, 5000);
        assert_eq!((watch.status().state.as_str(), watch.status().holds), (SHARED, false));
        watch.read(&Reading { enabled: None, ..reading(false, 0, 0) }, Ours::Acknowledges, 6000);
        assert_eq!(watch.status().state, IMPOSSIBLE);
        watch.read(&reading(true, 1, 3), Ours::Acknowledges, 7000);
        assert_eq!(watch.status().unprotected_commits, 9, "a server that was started anew counts from 0");
        watch.another();
        watch.read(&reading(true, 1, 800), Ours::Acknowledges, 8000);
        assert_eq!(watch.status().unprotected_commits, 9, "another server's count");
    }

    #[test]
    fn a_fall_back_between_two_readings_is_counted() {
        let mut watch = SemiSyncWatch::default();
        watch.read(&reading(true, 1, 0), Ours::Acknowledges, 1000);
        assert!(
            watch.read(&reading(true, 1, 4), Ours::Acknowledges, 2000).fell,
            "the count grew, though it is on again"
        );
        assert!(!watch.read(&reading(true, 1, 4), Ours::Acknowledges, 3000).fell);
        assert_eq!((watch.status().fallbacks, watch.status().unprotected_commits), (1, 4));
    }

    #[test]
    fn nothing_holds_while_nothing_streams_or_nothing_is_known() {
        let mut watch = SemiSyncWatch::default();
        watch.read(&reading(true, 1, 0), Ours::Acknowledges, 1000);
        watch.interrupted(1500);
        let status = watch.status();
        assert_eq!((status.state.as_str(), status.holds, status.since_ms), (INTERRUPTED, false, 1500));
        // The server has not noticed yet that its replica is gone.
        watch.read(&reading(true, 1, 0), Ours::Away, 2000);
        assert_eq!((watch.status().state.as_str(), watch.status().holds), (INTERRUPTED, false));
        assert!(
            watch.read(&reading(false, 0, 2), Ours::Away, 3000).fell,
            "it is seen without a session, too"
        );
        watch.interrupted(3500);
        assert_eq!(watch.status().state, FALLEN_BACK, "that is worse");
        watch.read(&reading(true, 1, 2), Ours::Acknowledges, 4000);
        assert!(watch.status().holds);
        watch.unknown(5000);
        assert_eq!((watch.status().state.as_str(), watch.status().holds), (UNKNOWN, false));
    }

    #[test]
    fn a_connection_that_the_server_does_not_count_is_made_anew_now_and_then() {
        let mut watch = SemiSyncWatch::default();
        let renewals = |watch: &mut SemiSyncWatch, ours, clients, readings| {
            (0..readings).filter(|_| watch.read(&reading(true, clients, 0), ours, 0).renew).count()
        };
        assert_eq!(renewals(&mut watch, Ours::Away, 0, 100), 0);
        assert_eq!(renewals(&mut watch, Ours::Acknowledges, 0, IGNORED - 1), 0);
        assert_eq!(renewals(&mut watch, Ours::Acknowledges, 0, IGNORED_AGAIN), 1);
        assert_eq!(watch.status().state, NOBODY);
        watch.read(&reading(true, 1, 0), Ours::Acknowledges, 0);
        assert_eq!(renewals(&mut watch, Ours::Acknowledges, 0, IGNORED), 1);
        // A server that never counts it is not left at each reading.
        for _ in 0..IGNORED_AGAIN - 1 {
            watch.read(&reading(true, 0, 0), Ours::Away, 0);
            assert_eq!(renewals(&mut watch, Ours::Acknowledges, 0, 1), 0);
        }
        assert_eq!(renewals(&mut watch, Ours::Acknowledges, 0, 1), 1);
    }

    #[test]
    fn another_replica_that_acknowledges_is_not_the_backup() {
        let mut watch = SemiSyncWatch::default();
        assert!(watch.read(&reading(true, 1, 0), Ours::Silent, 0).renew);
        assert!(!watch.read(&reading(true, 1, 0), Ours::Silent, 0).renew);
        assert_eq!((watch.status().state.as_str(), watch.status().holds), (WITHOUT_US, false));
        watch.read(&reading(true, 1, 0), Ours::Acknowledges, 0);
        assert!(watch.status().holds);
    }
}
