//! A connection to a server on the backup, the standby or that of a drill: nfs1 has no other way to it. Statements travel as
//! questions of the database's lane; the backup keeps a connection for each session that nfs1 names (`sessions`).
//!
//! (nfs1 may already run any statement there: it ships the binary log that the server executes.)

use super::session::{Connect, Session};
use crate::database::dialect::Dialect;
use crate::database::link::BoxFuture;
use crate::database::sql::{Row, SqlError, Table};
use ehpc_proto::replication::database::{DbAnswer, DbQuery};
use std::sync::Arc;

/// Asks the backup; the error says why there is no answer.
pub type Ask = Arc<dyn Fn(DbQuery) -> BoxFuture<'static, Result<Vec<DbAnswer>, String>> + Send + Sync>;

/// Where nfs1 reaches a server on the backup.
pub struct RemoteStandby {
    ask: Ask,
    drill: bool,
}

impl RemoteStandby {
    /// The standby, over `ask`.
    pub fn new(ask: Ask) -> RemoteStandby {
        RemoteStandby { ask, drill: false }
    }

    /// The server of the running drill.
    pub(super) fn drill(ask: Ask) -> RemoteStandby {
        RemoteStandby { ask, drill: true }
    }
}

struct RemoteSession {
    ask: Ask,
    drill: bool,
    id: u64,
    dialect: Dialect,
}

impl RemoteSession {
    fn name(&self) -> &'static str {
        if self.drill { "the restored server on the backup" } else { "the standby on the backup" }
    }

    fn lost(&self, text: String) -> SqlError {
        SqlError::Lost { server: self.name().to_owned(), text }
    }

    /// The parts of an answer as one.
    fn gathered(&self, parts: Vec<DbAnswer>, statement: &str) -> Result<Table, SqlError> {
        let mut table = Table::default();
        for part in parts {
            match part {
                DbAnswer::Rows { columns, rows } => {
                    table.columns = columns;
                    table.rows.extend(rows.into_iter().map(Row::from));
                }
                DbAnswer::SqlFailed { number: 0, text } | DbAnswer::Failed { reason: text } => {
                    return Err(self.lost(text));
                }
                DbAnswer::SqlFailed { number, text } => {
                    return Err(SqlError::Server {
                        number,
                        state: "HY000".to_owned(),
                        text,
                        statement: statement.chars().take(160).collect(),
                    });
                }
                other => return Err(self.lost(format!("an answer that does not fit: {other:?}"))),
            }
        }
        Ok(table)
    }
}

impl Connect for RemoteStandby {
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Session>, SqlError>> {
        Box::pin(async {
            let dialect = Dialect::MariaDb(crate::database::dialect::Version::new(0, 0, 0));
            let (ask, drill) = (Arc::clone(&self.ask), self.drill);
            let mut session = RemoteSession { ask, drill, id: rand::random(), dialect };
            let told = session.table("SELECT @@version, @@version_comment").await?;
            let text = |column| told.rows.first().map(|row| row.string(column)).unwrap_or_default();
            session.dialect = Dialect::detect(&text(0), &text(1))?;
            Ok(Box::new(session) as Box<dyn Session>)
        })
    }
}

impl Session for RemoteSession {
    fn table<'a>(&'a mut self, statement: &'a str) -> BoxFuture<'a, Result<Table, SqlError>> {
        let (session, text) = (self.id, statement.to_owned());
        let answer = (self.ask)(match self.drill {
            true => DbQuery::DrillSql { session, statement: text },
            false => DbQuery::StandbySql { session, statement: text },
        });
        Box::pin(async move {
            let parts = answer.await.map_err(|text| self.lost(text))?;
            self.gathered(parts, statement)
        })
    }

    fn dialect(&self) -> Dialect {
        self.dialect
    }

    fn server(&self) -> &str {
        self.name()
    }
}

impl Drop for RemoteSession {
    fn drop(&mut self) {
        // Without an answer the backup closes it after a while by itself.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let session = self.id;
            let close = match self.drill {
                true => DbQuery::DrillClose { session },
                false => DbQuery::StandbyClose { session },
            };
            drop(runtime.spawn((self.ask)(close)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sessions::parts;
    use super::*;

    fn session() -> RemoteSession {
        let ask: Ask = Arc::new(|_| Box::pin(async { Ok(Vec::new()) }));
        let dialect = Dialect::MariaDb(crate::database::dialect::Version::new(10, 11, 0));
        RemoteSession { ask, drill: false, id: 1, dialect }
    }

    #[test]
    fn long_answers_come_in_parts() {
        let row = |len: usize| Row::from(vec![Some(vec![b'x'; len]), None]);
        let table = |rows: Vec<Row>| Table { columns: vec!["a".into(), "b".into()], rows };
        let whole = table(vec![row(3_000_000), row(1), row(3_000_000), row(4)]);
        let pieces = parts(whole.clone());
        assert!(pieces.len() > 1);
        assert_eq!(session().gathered(pieces, "").unwrap(), whole);
        assert_eq!(session().gathered(parts(table(Vec::new())), "").unwrap(), table(Vec::new()));
        let error = session().gathered(parts(table(vec![row(5_000_000)])), "").unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
    }

    #[test]
    fn faults_keep_their_number() {
        let failed = |number| vec![DbAnswer::SqlFailed { number, text: "t".into() }];
        assert_eq!(session().gathered(failed(1146), "s").unwrap_err().number(), Some(1146));
        assert!(session().gathered(failed(0), "s").unwrap_err().is_connection());
    }
}
