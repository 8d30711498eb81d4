//! Whether the database server is as a backup needs it: for `check`, and for a running nfs1 at its start and now and then.

use crate::database::dsn::Dsn;
use crate::database::preflight::{self, Finding, Severity};
use crate::database::source::Source;
use crate::database::sql::{Sql, SqlError};
use crate::settings::Database;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// A good server is looked at so often.
const EVERY: Duration = Duration::from_secs(600);
/// One with which something is wrong, so that a repair is seen: first, and at last while nothing changes.
const SOON: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// What is found on the first server of the settings that answers.
///
/// # Errors
///
/// For a person: why none does.
pub(super) async fn ask(settings: &Database) -> Result<Vec<Finding>, String> {
    let mut refusals = Vec::new();
    for address in &settings.address {
        match Sql::connect(&Dsn::of(settings, address)).await {
            Ok(sql) => return check(sql, settings).await.map_err(|error| error.to_string()),
            Err(error) => refusals.push(error.to_string()),
        }
    }
    Err(refusals.join("; "))
}

async fn check(mut sql: Sql, settings: &Database) -> Result<Vec<Finding>, SqlError> {
    let found = preflight::check(&mut sql, settings).await?;
    sql.close().await;
    Ok(found)
}

/// Looks at the server again and again.
pub(super) struct Preflight {
    settings: Database,
    source: Arc<Source>,
    /// As text, with what repairs it; what was found holds until the server says otherwise.
    found: Mutex<Vec<String>>,
}

impl Preflight {
    /// Of the server that this source streams.
    pub(super) fn new(settings: Database, source: Arc<Source>) -> Preflight {
        Preflight { settings, source, found: Mutex::default() }
    }

    /// What needs a person.
    pub(super) fn found(&self) -> Vec<String> {
        self.found.lock().clone()
    }

    /// Without end.
    pub(super) async fn run(&self) {
        let mut soon = SOON.0;
        let mut connected = self.source.connected();
        loop {
            connected.mark_unchanged();
            let pause = match self.look().await {
                Some(findings) => {
                    let found = texts(findings);
                    soon = if self.keep(&found) { SOON.0 } else { (soon * 2).min(SOON.1) };
                    if found.is_empty() { EVERY } else { soon }
                }
                // The source says why it does not answer.
                None => SOON.0,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // Connected anew: it may have been started with other settings.
                Ok(_) = connected.changed() => {}
            }
        }
    }

    /// The server that is streamed, or while none is the first that answers.
    async fn look(&self) -> Option<Vec<Finding>> {
        match self.source.server() {
            Some(dsn) => check(Sql::connect(&dsn).await.ok()?, &self.settings).await.ok(),
            None => ask(&self.settings).await.ok(),
        }
    }

    /// Whether something has changed.
    fn keep(&self, found: &[String]) -> bool {
        let mut kept = self.found.lock();
        if *kept == found {
            return false;
        }
        found.iter().for_each(|text| tracing::warn!("{text}"));
        *kept = found.to_vec();
        true
    }
}

fn texts(found: Vec<Finding>) -> Vec<String> {
    let worth = found.iter().filter(|finding| finding.severity != Severity::Advice);
    worth.map(|finding| format!("database: {finding}")).collect()
}
