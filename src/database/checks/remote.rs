//! A connection to the standby through the backup: nfs1 has no other way to it. Statements travel as questions of the
//! database's lane; the backup keeps a connection for each session that nfs1 names.
//!
//! (nfs1 may already run any statement there: it ships the binary log that the standby executes.)

use super::session::{Connect, Session};
use crate::database::dialect::Dialect;
use crate::database::link::BoxFuture;
use crate::database::sql::{Dsn, Row, Sql, SqlError, Table};
use ehpc_proto::replication::database::{DbAnswer, DbQuery, MAX_COLUMNS, MAX_ROWS_BYTES, SqlRow};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Asks the backup; the error says why there is no answer.
pub type Ask = Arc<dyn Fn(DbQuery) -> BoxFuture<'static, Result<Vec<DbAnswer>, String>> + Send + Sync>;

/// Where nfs1 reaches the standby.
pub struct RemoteStandby {
    ask: Ask,
}

impl RemoteStandby {
    /// Over `ask`.
    pub fn new(ask: Ask) -> RemoteStandby {
        RemoteStandby { ask }
    }
}

const NAME: &str = "the standby on the backup";

struct RemoteSession {
    ask: Ask,
    id: u64,
    dialect: Dialect,
}

impl Connect for RemoteStandby {
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Session>, SqlError>> {
        Box::pin(async {
            let dialect = Dialect::MariaDb(crate::database::dialect::Version::new(0, 0, 0));
            let mut session = RemoteSession { ask: Arc::clone(&self.ask), id: rand::random(), dialect };
            let told = session.table("SELECT @@version, @@version_comment").await?;
            let text = |column| told.rows.first().map(|row| row.string(column)).unwrap_or_default();
            session.dialect = Dialect::detect(&text(0), &text(1))?;
            Ok(Box::new(session) as Box<dyn Session>)
        })
    }
}

impl Session for RemoteSession {
    fn table<'a>(&'a mut self, statement: &'a str) -> BoxFuture<'a, Result<Table, SqlError>> {
        let query = DbQuery::StandbySql { session: self.id, statement: statement.to_owned() };
        let answer = (self.ask)(query);
        Box::pin(async move { gathered(answer.await.map_err(lost)?, statement) })
    }

    fn dialect(&self) -> Dialect {
        self.dialect
    }

    fn server(&self) -> &str {
        NAME
    }
}

impl Drop for RemoteSession {
    fn drop(&mut self) {
        // Without an answer the backup closes it after a while by itself.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(runtime.spawn((self.ask)(DbQuery::StandbyClose { session: self.id })));
        }
    }
}

fn lost(text: String) -> SqlError {
    SqlError::Lost { server: NAME.to_owned(), text }
}

/// The parts of an answer as one.
fn gathered(parts: Vec<DbAnswer>, statement: &str) -> Result<Table, SqlError> {
    let mut table = Table::default();
    for part in parts {
        match part {
            DbAnswer::Rows { columns, rows } => {
                table.columns = columns;
                table.rows.extend(rows.into_iter().map(Row::from));
            }
            DbAnswer::SqlFailed { number: 0, text } | DbAnswer::Failed { reason: text } => {
                return Err(lost(text));
            }
            DbAnswer::SqlFailed { number, text } => {
                return Err(SqlError::Server {
                    number,
                    state: "HY000".to_owned(),
                    text,
                    statement: statement.chars().take(160).collect(),
                });
            }
            other => return Err(lost(format!("an answer that does not fit: {other:?}"))),
        }
    }
    Ok(table)
}

/// Sessions at the same time; the one that was idle longest makes room.
const MAX_SESSIONS: usize = 16;
/// One that nobody uses for so long is closed.
const IDLE: Duration = Duration::from_secs(12 * 3600);

/// Tells where the standby is now; the error says why there is none.
pub type Whereabouts = Arc<dyn Fn() -> Result<Dsn, String> + Send + Sync>;

/// The backup's end: connections to the standby, kept between questions.
pub struct StandbySessions {
    standby: Whereabouts,
    open: Mutex<HashMap<u64, Kept>>,
}

struct Kept {
    used: Instant,
    sql: Arc<tokio::sync::Mutex<Option<Sql>>>,
}

impl StandbySessions {
    /// To the server that `standby` tells.
    pub fn new(standby: Whereabouts) -> StandbySessions {
        StandbySessions { standby, open: Mutex::default() }
    }

    /// Answers [`DbQuery::StandbySql`] and [`DbQuery::StandbyClose`].
    pub async fn statement(&self, session: u64, statement: &str) -> Vec<DbAnswer> {
        let kept = self.session(session);
        // One statement at a time; a second one waits.
        let mut sql = kept.lock().await;
        match self.run(&mut sql, statement).await {
            Ok(table) => parts(table),
            Err(error) => {
                if error.is_connection() {
                    *sql = None;
                    self.open.lock().remove(&session);
                }
                let number = error.number().filter(|_| !error.is_connection()).unwrap_or(0);
                let text = match error {
                    SqlError::Server { text, .. } => text,
                    other => other.to_string(),
                };
                vec![DbAnswer::SqlFailed { number, text: text.chars().take(1000).collect() }]
            }
        }
    }

    /// The asker is done with it.
    pub async fn close(&self, session: u64) -> Vec<DbAnswer> {
        let kept = self.open.lock().remove(&session);
        if let Some(kept) = kept
            && let Some(sql) = kept.sql.lock().await.take()
        {
            sql.close().await;
        }
        vec![DbAnswer::Rows { columns: Vec::new(), rows: Vec::new() }]
    }

    fn session(&self, id: u64) -> Arc<tokio::sync::Mutex<Option<Sql>>> {
        let mut open = self.open.lock();
        open.retain(|_, kept| kept.used.elapsed() < IDLE);
        if !open.contains_key(&id)
            && open.len() >= MAX_SESSIONS
            && let Some(oldest) = open.iter().min_by_key(|(_, kept)| kept.used).map(|(id, _)| *id)
        {
            open.remove(&oldest);
        }
        let kept = open.entry(id).or_insert_with(|| Kept { used: Instant::now(), sql: Arc::default() });
        kept.used = Instant::now();
        Arc::clone(&kept.sql)
    }

    async fn run(&self, kept: &mut Option<Sql>, statement: &str) -> Result<Table, SqlError> {
        let sql = match kept {
            Some(sql) => sql,
            None => {
                let dsn = (self.standby)().map_err(lost)?;
                let mut sql = Sql::connect(&dsn).await?;
                sql.set_statement_time(None);
                kept.insert(sql)
            }
        };
        sql.table(statement).await
    }
}

/// An answer in parts that fit a message.
fn parts(table: Table) -> Vec<DbAnswer> {
    let failed = |text: &str| vec![DbAnswer::SqlFailed { number: 0, text: text.to_owned() }];
    if table.columns.len() > MAX_COLUMNS {
        return failed("the answer has too many columns");
    }
    let mut done: Vec<DbAnswer> = Vec::new();
    let (mut rows, mut bytes): (Vec<SqlRow>, usize) = (Vec::new(), 0);
    for row in table.rows {
        let row: SqlRow = row.into();
        let len: usize = row.iter().flatten().map(Vec::len).sum();
        if len > MAX_ROWS_BYTES {
            return failed("a row of the answer is too long");
        }
        // Each value has a length of its own in the message, too.
        if bytes + len > MAX_ROWS_BYTES / 2 || rows.len() >= 10_000 {
            done.push(DbAnswer::Rows { columns: table.columns.clone(), rows: std::mem::take(&mut rows) });
            bytes = 0;
        }
        bytes += len;
        rows.push(row);
    }
    done.push(DbAnswer::Rows { columns: table.columns, rows });
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_answers_come_in_parts() {
        let row = |len: usize| Row::from(vec![Some(vec![b'x'; len]), None]);
        let table = |rows: Vec<Row>| Table { columns: vec!["a".into(), "b".into()], rows };
        let whole = table(vec![row(3_000_000), row(1), row(3_000_000), row(4)]);
        let pieces = parts(whole.clone());
        assert!(pieces.len() > 1);
        assert_eq!(gathered(pieces, "").unwrap(), whole);
        assert_eq!(gathered(parts(table(Vec::new())), "").unwrap(), table(Vec::new()));
        let error = gathered(parts(table(vec![row(5_000_000)])), "").unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
    }

    #[test]
    fn faults_keep_their_number() {
        let failed = |number| vec![DbAnswer::SqlFailed { number, text: "t".into() }];
        assert_eq!(gathered(failed(1146), "s").unwrap_err().number(), Some(1146));
        assert!(gathered(failed(0), "s").unwrap_err().is_connection());
    }
}
