//! The server that is restored into.

use super::error::RestoreError;
use crate::database::dsn::Dsn;
use crate::database::server::Flavor;
use crate::database::sql::{Sql, SqlError, quote_name, quote_text};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Whether a restore is to end is looked at so often.
const LOOK: Duration = Duration::from_millis(100);

/// Made by servers themselves.
const SYSTEM: [&str; 4] = ["mysql", "sys", "information_schema", "performance_schema"];

/// Global switches of a server that somebody else runs.
#[derive(Default)]
pub(super) struct Switches {
    /// Were on, and are off meanwhile.
    off: Vec<&'static str>,
}

/// Off while a restore runs: events would change what is restored, and the source's GTIDs come in an order of their own.
const DISTURBING: [&str; 2] = ["event_scheduler", "gtid_strict_mode"];

/// Connects, and checks that the server is of the archive's kind.
pub(super) async fn connect(dsn: &Dsn, flavor: Flavor) -> Result<Sql, RestoreError> {
    let sql = Sql::connect(dsn).await?;
    let fits = sql.dialect().is_mariadb() == (flavor == Flavor::MariaDb);
    if !fits {
        let archive = if flavor == Flavor::MariaDb { "MariaDB" } else { "MySQL" };
        return Err(RestoreError::OtherFlavor {
            archive,
            server: sql.server().to_owned(),
            found: sql.dialect().to_string(),
        });
    }
    Ok(sql)
}

/// Databases of the server's users.
pub(super) async fn databases(sql: &mut Sql) -> Result<Vec<String>, SqlError> {
    let rows = sql.rows("SELECT SCHEMA_NAME FROM information_schema.SCHEMATA ORDER BY SCHEMA_NAME").await?;
    let names = rows.iter().map(|row| row.string(0));
    Ok(names.filter(|name| !SYSTEM.iter().any(|system| name.eq_ignore_ascii_case(system))).collect())
}

/// The databases that have to go; an error unless that is allowed.
pub(super) async fn in_the_way(sql: &mut Sql, overwrite: bool) -> Result<Vec<String>, RestoreError> {
    let databases = databases(sql).await?;
    if databases.is_empty() || overwrite {
        return Ok(databases);
    }
    let server = sql.server().to_owned();
    Err(RestoreError::NotEmpty { server, databases: databases.join(", ") })
}

/// Empties the server. A large database takes its time.
pub(super) async fn clear(sql: &mut Sql, databases: &[String]) -> Result<(), SqlError> {
    sql.set_statement_time(None);
    // A foreign key of another database must not end this half-way.
    sql.run("SET SESSION foreign_key_checks = 0").await?;
    for name in databases {
        sql.run(&format!("DROP DATABASE {}", quote_name(name))).await?;
    }
    Ok(())
}

impl Switches {
    /// Switches off what would disturb.
    pub(super) async fn switch_off(&mut self, sql: &mut Sql) -> Result<(), SqlError> {
        for name in DISTURBING {
            let value = sql.variable(name).await?;
            if value.is_some_and(|value| value.eq_ignore_ascii_case("ON") || value == "1") {
                sql.run(&format!("SET GLOBAL {name} = OFF")).await?;
                self.off.push(name);
            }
        }
        Ok(())
    }

    /// Everything is switched on again: on the connection that was there before, for which no account changes any more.
    pub(super) async fn switch_on(self, sql: &mut Sql, dsn: &Dsn) -> Result<(), RestoreError> {
        // It was idle for as long as the restore took.
        if sql.run("SELECT 1").await.is_err_and(|error| error.is_connection()) {
            *sql = Sql::connect(dsn).await?;
        }
        for name in self.off {
            sql.run(&format!("SET GLOBAL {name} = ON")).await.map_err(|error| RestoreError::Switch {
                name,
                server: sql.server().to_owned(),
                source: Box::new(error),
            })?;
        }
        Ok(())
    }
}

/// Is there such a table (or view)?
pub(super) async fn has_table(sql: &mut Sql, schema: &str, table: &str) -> Result<bool, SqlError> {
    let ask = format!(
        "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {}",
        quote_text(schema),
        quote_text(table)
    );
    Ok(sql.number(&ask).await?.unwrap_or(0) > 0)
}

/// Statements of one connection, which end with it when `stop` is set: what the server does for it then is killed.
pub(super) async fn unless_stopped<T>(
    dsn: &Dsn,
    stop: &AtomicBool,
    work: impl AsyncFnOnce(&mut Sql) -> Result<T, SqlError>,
) -> Result<T, RestoreError> {
    let mut sql = Sql::connect(dsn).await?;
    let connection = sql.number("SELECT CONNECTION_ID()").await?;
    let stopped = async {
        while !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(LOOK).await;
        }
    };
    let done = tokio::select! {
        done = work(&mut sql) => Some(done?),
        () = stopped => None,
    };
    match done {
        Some(done) => {
            sql.close().await;
            Ok(done)
        }
        None => {
            // The server notices a connection that has gone only when it has an answer for it.
            if let (Some(connection), Ok(mut other)) = (connection, Sql::connect(dsn).await)
                && let Err(error) = other.run(&format!("KILL {connection}")).await
            {
                tracing::warn!(%error, "what a restore that was stopped had begun on the server goes on");
            }
            Err(RestoreError::Stopped)
        }
    }
}

/// Rolls back what is prepared there and is not among `before`: a restore that broke off has left it, with its locks.
pub(super) async fn end_branches(sql: &mut Sql, before: &[String]) -> Result<(), SqlError> {
    for branch in prepared_branches(sql).await?.iter().filter(|branch| !before.contains(branch)) {
        if let Err(error) = sql.run(&format!("XA ROLLBACK {branch}")).await {
            tracing::error!(
                %error,
                "a restore that broke off has left XA branch {branch} prepared on {}: run `XA ROLLBACK {branch}` there",
                sql.server()
            );
        }
    }
    Ok(())
}

/// Names of a database's tables.
pub(super) async fn tables_of(sql: &mut Sql, schema: &str) -> Result<Vec<String>, SqlError> {
    let ask = format!(
        "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} ORDER BY TABLE_NAME LIMIT 50",
        quote_text(schema)
    );
    Ok(sql.rows(&ask).await?.iter().map(|row| row.string(0)).collect())
}

/// Branches that are prepared there, as their statements name them.
pub(super) async fn prepared_branches(sql: &mut Sql) -> Result<Vec<String>, SqlError> {
    let rows = sql.rows("XA RECOVER").await?;
    let name = |row: &crate::database::sql::Row| {
        let (global, data) = (row.number(1)? as usize, row.bytes(3)?);
        let (gtrid, bqual) = data.split_at_checked(global)?;
        let format = u32::try_from(row.number(0)?).ok()?;
        Some(crate::database::base::Branch::of(format, gtrid, bqual).sql())
    };
    Ok(rows.iter().filter_map(name).collect())
}
