//! The backup's answers to what verify asks: its own check of an archived file, and statements on its standby.

use super::remote::StandbySessions;
use crate::database::archive::Archive;
use ehpc_proto::replication::database::{ArchiveDamage, DbAnswer, DbQuery, MAX_DAMAGE};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What answers.
pub struct BackupAnswers {
    archive: Arc<Archive>,
    standby: Option<StandbySessions>,
    /// Set when the backup ends: what is being read is given up.
    stop: Arc<AtomicBool>,
}

impl BackupAnswers {
    /// For this archive, and the standby when there is one.
    pub fn new(
        archive: Arc<Archive>,
        standby: Option<StandbySessions>,
        stop: Arc<AtomicBool>,
    ) -> BackupAnswers {
        BackupAnswers { archive, standby, stop }
    }

    /// `None`: the question is not one of these.
    pub async fn answer(&self, query: &DbQuery) -> Option<Vec<DbAnswer>> {
        match query {
            DbQuery::Check { lineage, ordinal } => Some(vec![self.check(*lineage, *ordinal).await]),
            DbQuery::StandbySql { session, statement } => Some(match &self.standby {
                Some(standby) => standby.statement(*session, statement).await,
                None => vec![no_standby()],
            }),
            DbQuery::StandbyClose { session } => Some(match &self.standby {
                Some(standby) => standby.close(*session).await,
                None => vec![no_standby()],
            }),
            _ => None,
        }
    }

    async fn check(&self, lineage: u32, ordinal: u32) -> DbAnswer {
        let (archive, stop) = (Arc::clone(&self.archive), Arc::clone(&self.stop));
        let checked = tokio::task::spawn_blocking(move || {
            archive.check(lineage, ordinal, &|| stop.load(Ordering::Relaxed))
        });
        match checked.await {
            Ok(Ok(damage)) => DbAnswer::Checked(
                damage
                    .into_iter()
                    .take(MAX_DAMAGE)
                    .map(|damage| ArchiveDamage {
                        at: damage.at,
                        reason: damage.reason.chars().take(1000).collect(),
                    })
                    .collect(),
            ),
            Ok(Err(error)) => DbAnswer::Failed { reason: error.to_string() },
            Err(error) => DbAnswer::Failed { reason: error.to_string() },
        }
    }
}

fn no_standby() -> DbAnswer {
    DbAnswer::SqlFailed { number: 0, text: "there is no [database.standby]".to_owned() }
}
