//! The server that is restored into.

use super::error::RestoreError;
use crate::database::dsn::Dsn;
use crate::database::server::Flavor;
use crate::database::sql::{Sql, SqlError, quote_name, quote_text};

/// Made by servers themselves.
const SYSTEM: [&str; 4] = ["mysql", "sys", "information_schema", "performance_schema"];

/// A server that somebody else runs, made ready.
pub(super) struct Prepared {
    /// Global switches that were on, and are off meanwhile.
    switched_off: Vec<&'static str>,
}

/// Off while a restore runs: events would change what is restored, and the source's GTIDs come in an order of their own.
const SWITCHES: [&str; 2] = ["event_scheduler", "gtid_strict_mode"];

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

/// Empties the server (when that was asked for) and switches off what would disturb.
pub(super) async fn prepare(sql: &mut Sql, overwrite: bool) -> Result<Prepared, RestoreError> {
    let databases = databases(sql).await?;
    if !databases.is_empty() && !overwrite {
        let server = sql.server().to_owned();
        return Err(RestoreError::NotEmpty { server, databases: databases.join(", ") });
    }
    let mut switched_off = Vec::new();
    for name in SWITCHES {
        let value = sql.variable(name).await?;
        if value.is_some_and(|value| value.eq_ignore_ascii_case("ON") || value == "1") {
            sql.run(&format!("SET GLOBAL {name} = OFF")).await?;
            switched_off.push(name);
        }
    }
    for name in databases {
        sql.run(&format!("DROP DATABASE {}", quote_name(&name))).await?;
    }
    Ok(Prepared { switched_off })
}

/// Everything is switched on again.
pub(super) async fn finish(sql: &mut Sql, prepared: Prepared) -> Result<(), SqlError> {
    for name in prepared.switched_off {
        sql.run(&format!("SET GLOBAL {name} = ON")).await?;
    }
    Ok(())
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
