//! Whether commits really wait for the backup's disk: the server's own account of semi-synchronous replication, every
//! second while `durability = "remote"`.

use crate::database::dsn::Dsn;
use crate::database::sql::{Sql, SqlError};
use crate::observe::metrics;
use crate::observe::status::DatabaseSemiSyncStatus;
use crate::observe::words::now_ms;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

const EVERY: Duration = Duration::from_secs(1);

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

/// The state and since when.
#[derive(Clone, Default, Debug)]
pub struct SemiSyncWatch {
    state: Option<&'static str>,
    since_ms: u64,
    fallbacks: u64,
    /// Commits not waited for, at the first reading.
    missed_at_start: Option<u64>,
    missed: u64,
}

/// All is well.
const ON: &str = "on";
/// A commit was not acknowledged in time; the next ones do not wait.
const FALLEN_BACK: &str = "fallen back";
/// No replica acknowledges: commits wait for the server's timeout.
const NOBODY: &str = "without a replica";
/// Another replica acknowledges too, and the first acknowledgement counts, whoever it is from.
const SHARED: &str = "shared";
/// The server has it off.
const IMPOSSIBLE: &str = "impossible";

impl SemiSyncWatch {
    /// Takes a reading; whether commits stopped waiting with it.
    pub fn read(&mut self, reading: &Reading, now_ms: u64) -> bool {
        let state = match reading {
            Reading { enabled: None | Some(false), .. } => IMPOSSIBLE,
            Reading { on: false, .. } => FALLEN_BACK,
            Reading { clients: 0, .. } => NOBODY,
            Reading { clients: 2.., .. } => SHARED,
            _ => ON,
        };
        let start = *self.missed_at_start.get_or_insert(reading.missed);
        if reading.missed < start {
            // The server was started anew and counts from 0.
            self.missed_at_start = Some(0);
        }
        self.missed = reading.missed.saturating_sub(self.missed_at_start.unwrap_or(0));
        if self.state == Some(state) {
            return false;
        }
        let fell = state == FALLEN_BACK;
        self.fallbacks += u64::from(fell);
        self.state = Some(state);
        self.since_ms = now_ms;
        fell
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

/// Watches until it is dropped.
pub(super) async fn watch(dsn: Dsn, state: Arc<Mutex<SemiSyncWatch>>) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sql = None;
    loop {
        tick.tick().await;
        let mut connection = match sql.take() {
            Some(connection) => connection,
            // The source's own connection says what is wrong with the server.
            None => match Sql::connect(&dsn).await {
                Ok(connection) => connection,
                Err(_) => continue,
            },
        };
        let Ok(reading) = ask(&mut connection).await else { continue };
        sql = Some(connection);
        let (fell, status) = {
            let mut state = state.lock();
            let before = state.state;
            let fell = state.read(&reading, now_ms());
            (fell, (before != state.state).then(|| state.status()))
        };
        if fell {
            metrics::DATABASE_FALLBACKS.inc();
        }
        if let Some(status) = status {
            match status.holds {
                true => tracing::info!("commits wait for the backup's disk (semi-sync is on)"),
                false => tracing::warn!(state = status.state, "commits do not wait for the backup's disk"),
            }
        }
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
        assert!(!watch.read(&reading(true, 1, 7), 1000));
        assert_eq!((watch.status().holds, watch.status().unprotected_commits), (true, 0));
        assert!(watch.read(&reading(false, 1, 9), 2000));
        assert!(!watch.read(&reading(false, 0, 12), 3000));
        let status = watch.status();
        assert_eq!((status.state.as_str(), status.since_ms, status.fallbacks), (FALLEN_BACK, 2000, 1));
        assert_eq!((status.holds, status.unprotected_commits), (false, 5));
        watch.read(&reading(true, 1, 12), 4000);
        assert!(watch.status().holds);
        watch.read(&reading(true, 2, 12), 5000);
        assert_eq!((watch.status().state.as_str(), watch.status().holds), (SHARED, false));
        watch.read(&Reading { enabled: None, ..reading(false, 0, 0) }, 6000);
        assert_eq!(watch.status().state, IMPOSSIBLE);
        watch.read(&reading(true, 1, 3), 7000);
        assert_eq!(watch.status().unprotected_commits, 3, "a server that was started anew counts from 0");
    }
}
