//! The backup's answers to what verify asks: its own check of an archived file, and statements on its standby.

use super::remote::StandbySessions;
use crate::database::archive::Archive;
use ehpc_proto::replication::database::{ArchiveDamage, DbAnswer, DbQuery, MAX_DAMAGE};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What answers.
pub struct BackupAnswers {
    archive: Arc<Archive>,
    standby: StandbySessions,
    /// The backup ends: what is being read is given up.
    stop: CancellationToken,
}

impl BackupAnswers {
    /// For this archive and this standby.
    pub fn new(archive: Arc<Archive>, standby: StandbySessions, stop: CancellationToken) -> BackupAnswers {
        BackupAnswers { archive, standby, stop }
    }

    /// `None`: the question is not one of these.
    pub async fn answer(&self, query: &DbQuery) -> Option<Vec<DbAnswer>> {
        match query {
            DbQuery::Check { lineage, ordinal } => Some(vec![self.check(*lineage, *ordinal).await]),
            DbQuery::StandbySql { session, statement } => {
                Some(self.standby.statement(*session, statement).await)
            }
            DbQuery::StandbyClose { session } => Some(self.standby.close(*session).await),
            _ => None,
        }
    }

    async fn check(&self, lineage: u32, ordinal: u32) -> DbAnswer {
        let (archive, stop) = (Arc::clone(&self.archive), self.stop.clone());
        let checked =
            tokio::task::spawn_blocking(move || archive.check(lineage, ordinal, &|| stop.is_cancelled()));
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
