//! The backup's answers to what verify asks: its own check of an archived file, statements on its standby, restore drills.

use super::drills::Drills;
use super::sessions::StandbySessions;
use crate::database::archive::Archive;
use ehpc_proto::replication::database::{ArchiveDamage, DbAnswer, DbQuery, MAX_DAMAGE};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What answers.
pub struct BackupAnswers {
    archive: Arc<Archive>,
    standby: StandbySessions,
    drills: Drills,
    /// The backup ends: what is being read is given up.
    stop: CancellationToken,
}

impl BackupAnswers {
    /// For this archive, this standby, and drills of it.
    pub fn new(
        archive: Arc<Archive>,
        standby: StandbySessions,
        drills: Drills,
        stop: CancellationToken,
    ) -> BackupAnswers {
        BackupAnswers { archive, standby, drills, stop }
    }

    /// Has a standby go on that was stopped by whoever has gone; until the end.
    pub async fn keep_following(&self) {
        self.standby.keep_following(self.stop.clone()).await;
    }

    /// The connection of whoever asks is lost.
    pub fn asker_gone(&self) {
        self.standby.asker_gone();
    }

    /// After the stop: waits until nothing is left of a drill.
    pub async fn stopped(&self) {
        self.drills.stopped().await;
    }

    /// `None`: the question is not one of these.
    pub async fn answer(&self, query: &DbQuery) -> Option<Vec<DbAnswer>> {
        match query {
            DbQuery::Check { lineage, ordinal } => Some(vec![self.check(*lineage, *ordinal).await]),
            DbQuery::StandbySql { session, statement } => {
                Some(self.standby.statement(*session, statement).await)
            }
            DbQuery::StandbyClose { session } => Some(self.standby.close(*session).await),
            other => self.drills.answer(other).await,
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
