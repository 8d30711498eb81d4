//! The backup's end of nfs1's sessions (`remote`): connections to one server here, kept between questions.

use super::halted::Halted;
use crate::database::sql::{Dsn, Sql, SqlError, Table};
use ehpc_proto::replication::database::{DbAnswer, MAX_COLUMNS, MAX_ROWS_BYTES, SqlRow};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Sessions at the same time; the one that was idle longest makes room.
const MAX_SESSIONS: usize = 16;
/// One that nobody uses for so long is closed.
const IDLE: Duration = Duration::from_secs(12 * 3600);
/// Whoever stopped replication and asks nothing for so long has gone. (At its longest a comparison waits 30 s for the
/// primary in between.)
const GONE: Duration = Duration::from_secs(60);
/// Between two looks after that, and after a start that failed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_secs(15);

/// One that is about to run is waited for so long, and looked for so often.
const STARTS: Duration = Duration::from_secs(60);
const START_LOOK: Duration = Duration::from_millis(100);

/// Why there is no server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Absent {
    /// It is being started.
    Yet(String),
    /// Nobody starts it.
    Wholly(String),
}

impl Absent {
    fn text(self) -> String {
        match self {
            Absent::Yet(text) | Absent::Wholly(text) => text,
        }
    }
}

/// Tells where the server is now.
pub type Whereabouts = Arc<dyn Fn() -> Result<Dsn, Absent> + Send + Sync>;

/// Connections to one server.
pub struct StandbySessions {
    server: Whereabouts,
    open: Mutex<HashMap<u64, Kept>>,
    /// Remembers that replication was stopped over a session.
    halted: Option<Halted>,
    /// Statements that run.
    running: AtomicUsize,
    /// When somebody last asked something; `None`: whoever did has gone.
    asked: Mutex<Option<Instant>>,
}

struct Kept {
    used: Instant,
    sql: Arc<tokio::sync::Mutex<Option<Sql>>>,
}

impl StandbySessions {
    /// To the server that `server` tells.
    pub fn new(server: Whereabouts) -> StandbySessions {
        StandbySessions {
            server,
            open: Mutex::default(),
            halted: None,
            running: AtomicUsize::new(0),
            asked: Mutex::new(None),
        }
    }

    /// To a server that nobody else here looks after: that its replication was stopped over a session is noted in the file
    /// `note`, and [`StandbySessions::keep_following`] starts it again when whoever stopped it has gone.
    pub fn of_external(server: Whereabouts, note: PathBuf) -> StandbySessions {
        StandbySessions { halted: Some(Halted::new(note)), ..StandbySessions::new(server) }
    }

    /// Runs a statement on a session, which is made when it is not there.
    pub async fn statement(&self, session: u64, statement: &str) -> Vec<DbAnswer> {
        *self.asked.lock() = Some(Instant::now());
        self.running.fetch_add(1, Ordering::AcqRel);
        let answer = self.answered(session, statement).await;
        self.running.fetch_sub(1, Ordering::AcqRel);
        *self.asked.lock() = Some(Instant::now());
        answer
    }

    async fn answered(&self, session: u64, statement: &str) -> Vec<DbAnswer> {
        let kept = self.session(session);
        // One statement at a time; a second one waits.
        let mut sql = kept.lock().await;
        let failed = |text| vec![DbAnswer::SqlFailed { number: 0, text }];
        let dsn = match self.whereabouts().await {
            Ok(dsn) => dsn,
            Err(absent) => return failed(absent.text()),
        };
        if let Some(halted) = &self.halted
            && let Err(error) = halted.before(statement).await
        {
            return failed(format!("replication is not stopped, for that cannot be noted: {error}"));
        }
        match run(&mut sql, &dsn, statement).await {
            Ok(table) => {
                if let Some(halted) = &self.halted {
                    halted.after(statement).await;
                }
                parts(table)
            }
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

    /// Where the server is, once it is there.
    async fn whereabouts(&self) -> Result<Dsn, Absent> {
        let start = Instant::now();
        loop {
            match (self.server)() {
                Err(Absent::Yet(_)) if start.elapsed() < STARTS => tokio::time::sleep(START_LOOK).await,
                found => return found,
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
        if self.open.lock().is_empty() {
            self.asker_gone();
        }
        vec![DbAnswer::Rows { columns: Vec::new(), rows: Vec::new() }]
    }

    /// The server is gone, and with it all connections.
    pub(super) fn forget(&self) {
        self.open.lock().clear();
    }

    /// Whoever asked has closed all sessions, or its connection to us is lost.
    pub fn asker_gone(&self) {
        *self.asked.lock() = None;
    }

    /// Starts replication again wherever whoever stopped it has gone, also before this process began. Until `stop`.
    pub async fn keep_following(&self, stop: CancellationToken) {
        let Some(halted) = &self.halted else { return };
        let mut said = None;
        loop {
            let mut pause = LOOK_EVERY;
            if halted.is_noted() && self.is_left_alone() {
                match self.follow(halted).await {
                    Ok(()) => tracing::warn!(
                        "the standby was stopped for a verification that is no more; it follows"
                    ),
                    Err(error) => {
                        pause = RETRY;
                        if said.as_ref() != Some(&error) {
                            tracing::warn!(
                                "the standby, stopped for a verification that is no more, does not start: {error}"
                            );
                            said = Some(error);
                        }
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn is_left_alone(&self) -> bool {
        self.running.load(Ordering::Acquire) == 0
            && self.asked.lock().is_none_or(|asked| asked.elapsed() > GONE)
    }

    async fn follow(&self, halted: &Halted) -> Result<(), String> {
        let dsn = (self.server)().map_err(Absent::text)?;
        let mut sql = Sql::connect(&dsn).await.map_err(|error| error.to_string())?;
        if let Some(choose) = halted.choice() {
            sql.run(&choose).await.map_err(|error| error.to_string())?;
        }
        let start = sql.dialect().start_replica();
        sql.run(start).await.map_err(|error| error.to_string())?;
        sql.close().await;
        halted.after(start).await;
        Ok(())
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
}

async fn run(kept: &mut Option<Sql>, dsn: &Dsn, statement: &str) -> Result<Table, SqlError> {
    let sql = match kept {
        Some(sql) => sql,
        None => {
            let mut sql = Sql::connect(dsn).await?;
            sql.set_statement_time(None);
            kept.insert(sql)
        }
    };
    sql.table(statement).await
}

/// An answer in parts that fit a message.
pub(super) fn parts(table: Table) -> Vec<DbAnswer> {
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
