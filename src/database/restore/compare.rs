//! Tables as they are against what was recorded of them.

use super::error::RestoreError;
use super::target::unless_stopped;
use crate::database::base::{BaseRecord, Sums, TableSum};
use crate::database::dsn::Dsn;
use crate::database::sql::{Sql, SqlError, quote_table};
use serde::Serialize;
use std::fmt;
use std::sync::atomic::AtomicBool;

/// A table that is not what it was.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Difference {
    /// Database and table.
    pub table: String,
    /// Rows and checksum as they were recorded.
    pub recorded: (u64, u64),
    /// As they are, the checksum where it was compared; `None`: there is no such table.
    pub found: Option<(u64, Option<u64>)>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rows, sum) = self.recorded;
        match self.found {
            Some((found, Some(other))) => write!(
                f,
                "{}: {rows} rows with checksum {sum} were recorded, {found} rows with checksum {other} are there",
                self.table
            ),
            Some((found, None)) => write!(f, "{}: {rows} rows were recorded, {found} are there", self.table),
            None => write!(f, "{}: {rows} rows were recorded, and there is no such table", self.table),
        }
    }
}

/// What a comparison found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Compared {
    pub(super) tables: usize,
    pub(super) differences: Vec<Difference>,
    /// Why rows were counted and nothing else.
    pub(super) rows_only: Option<String>,
}

/// Compares every table of `sums`, which are of `record`, on the server at `dsn`. How a row is stored, and so what
/// `CHECKSUM TABLE` makes of it, may differ between versions: a server of another series is asked for the number of rows
/// only. `stop` ends it at once.
pub(super) async fn compare(
    dsn: &Dsn,
    record: &BaseRecord,
    sums: &Sums,
    stop: &AtomicBool,
) -> Result<Compared, RestoreError> {
    unless_stopped(dsn, stop, async |sql| compare_on(sql, record, sums).await).await
}

async fn compare_on(sql: &mut Sql, record: &BaseRecord, sums: &Sums) -> Result<Compared, SqlError> {
    sql.set_statement_time(None);
    let version = sql.text("SELECT @@version").await?.unwrap_or_default();
    let same = series(&version) == series(&record.version);
    let mut compared = Compared {
        tables: sums.tables.len(),
        rows_only: (!same).then(|| {
            format!(
                "the server is {version}, the checksums are of {}: rows were counted only",
                record.version
            )
        }),
        ..Compared::default()
    };
    for recorded in &sums.tables {
        let found = found(sql, recorded, same).await?;
        let equal = found.is_some_and(|(rows, checksum)| {
            rows == recorded.rows && checksum.is_none_or(|checksum| checksum == recorded.checksum)
        });
        if !equal {
            let table = format!("{}.{}", recorded.schema, recorded.name);
            let recorded = (recorded.rows, recorded.checksum);
            compared.differences.push(Difference { table, recorded, found });
        }
    }
    Ok(compared)
}

/// "10.11.6-MariaDB" is of the series (10, 11).
fn series(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(['.', '-']).map_while(|part| part.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

async fn found(
    sql: &mut Sql,
    table: &TableSum,
    checksums: bool,
) -> Result<Option<(u64, Option<u64>)>, SqlError> {
    let name = quote_table(&table.schema, &table.name);
    let mut checksum = None;
    if checksums {
        let row = sql.row(&format!("CHECKSUM TABLE {name}")).await?;
        checksum = row.and_then(|row| row.number(1));
        if checksum.is_none() {
            return Ok(None);
        }
    }
    match sql.number(&format!("SELECT COUNT(*) FROM {name}")).await {
        Ok(rows) => Ok(rows.map(|rows| (rows, checksum))),
        // No such table, no such database.
        Err(error) if matches!(error.number(), Some(1146 | 1049)) => Ok(None),
        Err(error) => Err(error),
    }
}
