//! What is asked of the server around a dump: databases, tables, prepared branches, accounts.

use super::error::BaseError;
use super::record::{Branch, LogPlace, TableRecord};
use crate::database::sql::{Sql, SqlError, quote_text};

/// Never part of a base: made by the server itself.
pub(super) const SYSTEM: [&str; 4] = ["mysql", "sys", "information_schema", "performance_schema"];

/// Names of the user's databases, in order.
pub(super) async fn databases(sql: &mut Sql) -> Result<Vec<String>, SqlError> {
    let rows = sql.rows("SELECT SCHEMA_NAME FROM information_schema.SCHEMATA ORDER BY SCHEMA_NAME").await?;
    let names = rows.iter().map(|row| row.string(0));
    Ok(names.filter(|name| !SYSTEM.iter().any(|system| name.eq_ignore_ascii_case(system))).collect())
}

/// The user's tables, and about how many bytes they have.
pub(super) async fn tables(sql: &mut Sql) -> Result<(Vec<TableRecord>, u64), SqlError> {
    let system: Vec<String> = SYSTEM.iter().map(|name| quote_text(name)).collect();
    let rows = sql
        .rows(&format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, COALESCE(ENGINE, ''), COALESCE(DATA_LENGTH, 0) FROM \
             information_schema.TABLES WHERE TABLE_SCHEMA NOT IN ({}) ORDER BY TABLE_SCHEMA, TABLE_NAME",
            system.join(", ")
        ))
        .await?;
    let bytes = rows.iter().filter_map(|row| row.number(4)).sum();
    let table = |row: &crate::database::sql::Row| TableRecord {
        schema: row.string(0),
        name: row.string(1),
        kind: row.string(2),
        engine: row.string(3),
    };
    Ok((rows.iter().map(table).collect(), bytes))
}

/// Where the binary log ends now.
pub(super) async fn end_of_log(sql: &mut Sql) -> Result<LogPlace, BaseError> {
    let status = sql.table(sql.dialect().binary_log_status()).await?;
    match (status.text(0, "File"), status.text(0, "Position").and_then(|text| text.parse().ok())) {
        (Some(file), Some(offset)) => Ok(LogPlace { file, offset }),
        _ => Err(BaseError::NoBinaryLog),
    }
}

/// Branches that are prepared now.
pub(super) async fn prepared(sql: &mut Sql) -> Result<Vec<Branch>, SqlError> {
    let rows = match sql.rows("XA RECOVER").await {
        // MySQL 8 wants XA_RECOVER_ADMIN for it. Its prepared branches are not followed up anyway: what is known of them
        // (`restore::branches`) is MariaDB's way to log them.
        Err(error) if !sql.dialect().is_mariadb() && matches!(error.number(), Some(1227 | 1401)) => {
            Vec::new()
        }
        other => other?,
    };
    let branch = |row: &crate::database::sql::Row| {
        let (global, qualifier) = (row.number(1)? as usize, row.number(2)? as usize);
        let data = row.bytes(3)?;
        let (gtrid, bqual) = (data.get(..global)?, data.get(global..global + qualifier)?);
        Some(Branch::of(u32::try_from(row.number(0)?).ok()?, gtrid, bqual))
    };
    let mut all: Vec<Branch> = rows.iter().filter_map(branch).collect();
    all.sort();
    Ok(all)
}

/// GTID state at a place of the binary log; empty where the server has none. `None`: the server does not know the place
/// (any more): its file was purged.
pub(super) async fn gtid_at(sql: &mut Sql, place: &LogPlace) -> Result<Option<String>, SqlError> {
    if !sql.dialect().is_mariadb() {
        return Ok(Some(String::new()));
    }
    let ask = format!("SELECT BINLOG_GTID_POS({}, {})", quote_text(&place.file), place.offset);
    sql.text(&ask).await
}

/// Accounts and privileges of a MySQL as statements (its dump program has no such option). An account that is there
/// already is left as it is.
pub(super) async fn mysql_accounts(sql: &mut Sql) -> Result<Vec<u8>, SqlError> {
    let old = sql.dialect().version() < crate::database::dialect::Version::new(5, 7, 0);
    let mut text = String::from("\n-- Accounts and privileges\n");
    // Accounts of the server's own are made by its installation.
    let accounts = sql
        .rows("SELECT User, Host FROM mysql.user WHERE User NOT IN ('mysql.sys', 'mysql.session', 'mysql.infoschema') ORDER BY User, Host")
        .await?;
    let names: Vec<String> = accounts
        .iter()
        .map(|row| format!("{}@{}", quote_text(&row.string(0)), quote_text(&row.string(1))))
        .collect();
    if !old {
        for name in &names {
            if let Some(create) = known(sql.text(&format!("SHOW CREATE USER {name}")).await)?.flatten() {
                text += &create.replacen("CREATE USER ", "CREATE USER IF NOT EXISTS ", 1);
                text += ";\n";
            }
        }
    }
    for name in &names {
        for row in known(sql.rows(&format!("SHOW GRANTS FOR {name}")).await)?.unwrap_or_default() {
            text += &row.string(0);
            text += ";\n";
        }
    }
    Ok(text.into_bytes())
}

/// `None` for an account that the server lists and does not know (`@'host.name'` with `skip_name_resolve`).
fn known<T>(answer: Result<T, SqlError>) -> Result<Option<T>, SqlError> {
    match answer {
        Err(error) if matches!(error.number(), Some(1133 | 1141)) => Ok(None),
        other => other.map(Some),
    }
}
