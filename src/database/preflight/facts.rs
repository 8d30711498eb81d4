//! What a server says of itself.

use crate::database::dialect::Dialect;
use crate::database::sql::{Sql, SqlError, quote_text};
use crate::host;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Tables of other engines are listed up to here.
const MAX_TABLES: usize = 1000;
/// What a server says of its binary log waits with the commits that wait for a semi-synchronous replica (`LOCK_log`).
const LOG_TOLD_WITHIN: Duration = Duration::from_secs(3);

/// A table that a snapshot does not cover.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OtherTable {
    /// Its database.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Its engine.
    pub engine: String,
}

/// What a server says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Which server it is.
    pub dialect: Dialect,
    /// The account as the server knows it: (user, host).
    pub account: (String, String),
    /// Its privileges on `*.*`.
    pub privileges: BTreeSet<String>,
    /// Global variables, names in lower case.
    pub variables: BTreeMap<String, String>,
    /// Databases that the binary log leaves out: (only these, all but these), as the server lists them.
    pub filters: (String, String),
    /// Commits were held all the time that it was asked for its filters.
    pub commits_wait: bool,
    /// Whether the server itself follows another.
    pub is_replica: bool,
    /// User tables of other engines than InnoDB.
    pub others: Vec<OtherTable>,
    /// Seconds that its clock is ahead of this host's; negative: behind.
    pub clock_ahead: i64,
}

/// Variables that the rules look at.
const VARIABLES: &[&str] = &[
    "log_bin",
    "binlog_format",
    "binlog_row_image",
    "server_id",
    "expire_logs_days",
    "binlog_expire_logs_seconds",
    "binlog_checksum",
    "gtid_strict_mode",
    "gtid_mode",
    "enforce_gtid_consistency",
    "encrypt_binlog",
    "binlog_encryption",
    "max_allowed_packet",
    "sync_binlog",
    "innodb_flush_log_at_trx_commit",
    "log_slave_updates",
    "log_replica_updates",
    "rpl_semi_sync_master_enabled",
    "rpl_semi_sync_master_timeout",
    "rpl_semi_sync_master_wait_point",
    "rpl_semi_sync_source_enabled",
    "rpl_semi_sync_source_timeout",
    "rpl_semi_sync_source_wait_point",
];

impl Facts {
    /// Asks everything; needs no privilege but to log in (what may not be seen is told by its absence).
    pub async fn ask(sql: &mut Sql) -> Result<Facts, SqlError> {
        let dialect = sql.dialect();
        let account = account(sql).await?;
        let privileges = global_privileges(&grants(sql).await?);
        let names: Vec<String> = VARIABLES.iter().map(|name| quote_text(name)).collect();
        let rows =
            sql.rows(&format!("SHOW GLOBAL VARIABLES WHERE Variable_name IN ({})", names.join(", "))).await?;
        let variables = rows.iter().map(|row| (row.string(0).to_ascii_lowercase(), row.string(1))).collect();
        // Needs a privilege; without it that is the finding.
        let is_replica =
            allowed(sql.rows(dialect.replica_status()).await)?.is_some_and(|rows| !rows.is_empty());
        let (others, clock_ahead) = (others(sql).await?, clock_ahead(sql).await?);
        // Last: an answer that does not come takes the connection with it.
        let (filters, commits_wait) = match filters(sql).await {
            Err(SqlError::Slow { .. }) => (None, true),
            told => (allowed(told)?, false),
        };
        Ok(Facts {
            dialect,
            account,
            privileges,
            variables,
            filters: filters.unwrap_or_default(),
            commits_wait,
            is_replica,
            others,
            clock_ahead,
        })
    }

    /// A variable; `None` when this server has no such variable.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// Whether a variable is there and on.
    pub fn is_on(&self, name: &str) -> bool {
        self.variable(name).is_some_and(|value| value.eq_ignore_ascii_case("on") || value == "1")
    }

    /// A variable that is a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.variable(name)?.parse().ok()
    }
}

/// Databases that the binary log holds only, and those that it leaves out.
async fn filters(sql: &mut Sql) -> Result<(String, String), SqlError> {
    sql.set_statement_time(Some(LOG_TOLD_WITHIN));
    let table = sql.table(sql.dialect().binary_log_status()).await?;
    let column = |name| table.text(0, name).unwrap_or_default();
    Ok((column("Binlog_Do_DB"), column("Binlog_Ignore_DB")))
}

/// Between the question and the answer is no difference.
async fn clock_ahead(sql: &mut Sql) -> Result<i64, SqlError> {
    let before = host::now().seconds;
    let there = sql.number("SELECT UNIX_TIMESTAMP()").await?;
    let there = there.and_then(|seconds| i64::try_from(seconds).ok()).unwrap_or(before);
    Ok(there - there.clamp(before, host::now().seconds.max(before)))
}

/// `None` for what the account may not see (1227 access denied, 1045).
fn allowed<T>(answer: Result<T, SqlError>) -> Result<Option<T>, SqlError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.number(), Some(1227 | 1045 | 1142)) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn account(sql: &mut Sql) -> Result<(String, String), SqlError> {
    let text = sql.text("SELECT CURRENT_USER()").await?.unwrap_or_default();
    let (user, host) = text.rsplit_once('@').unwrap_or((&text, "%"));
    Ok((user.to_owned(), host.to_owned()))
}

/// Lines of `SHOW GRANTS`, those of the active role included.
async fn grants(sql: &mut Sql) -> Result<Vec<String>, SqlError> {
    Ok(sql.rows("SHOW GRANTS").await?.iter().map(|row| row.string(0)).collect())
}

/// Privileges on `*.*` in lines of `SHOW GRANTS`.
pub(super) fn global_privileges(lines: &[String]) -> BTreeSet<String> {
    let of_all = lines.iter().filter_map(|line| line.strip_prefix("GRANT ")?.split_once(" ON *.* TO "));
    of_all.flat_map(|(list, _)| list.split(',')).map(|name| name.trim().to_ascii_uppercase()).collect()
}

/// User tables whose engine a consistent snapshot does not cover.
async fn others(sql: &mut Sql) -> Result<Vec<OtherTable>, SqlError> {
    let rows = sql
        .rows(&format!(
            "SELECT table_schema, table_name, engine FROM information_schema.tables \
             WHERE table_type IN ('BASE TABLE', 'SYSTEM VERSIONED') AND engine <> 'InnoDB' AND table_schema NOT IN \
             ('mysql', 'sys', 'information_schema', 'performance_schema') \
             ORDER BY table_schema, table_name LIMIT {MAX_TABLES}"
        ))
        .await?;
    Ok(rows
        .iter()
        .map(|row| OtherTable { schema: row.string(0), name: row.string(1), engine: row.string(2) })
        .collect())
}
