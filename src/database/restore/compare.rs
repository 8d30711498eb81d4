//! Tables as they are against what was recorded of them.

use crate::database::base::{Sums, TableSum};
use crate::database::dsn::Dsn;
use crate::database::sql::{Sql, SqlError, quote_table};
use serde::Serialize;

/// A table that is not what it was.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Difference {
    /// Database and table.
    pub table: String,
    /// Rows and checksum as they were recorded.
    pub recorded: (u64, u64),
    /// As they are; `None`: there is no such table.
    pub found: Option<(u64, u64)>,
}

/// Compares every table of `sums` on the server at `dsn`.
pub(super) async fn compare(dsn: &Dsn, sums: &Sums) -> Result<Vec<Difference>, SqlError> {
    let mut sql = Sql::connect(dsn).await?;
    sql.set_statement_time(None);
    let mut differences = Vec::new();
    for recorded in &sums.tables {
        let found = found(&mut sql, recorded).await?;
        if found != Some((recorded.rows, recorded.checksum)) {
            let table = format!("{}.{}", recorded.schema, recorded.name);
            differences.push(Difference { table, recorded: (recorded.rows, recorded.checksum), found });
        }
    }
    sql.close().await;
    Ok(differences)
}

async fn found(sql: &mut Sql, table: &TableSum) -> Result<Option<(u64, u64)>, SqlError> {
    let name = quote_table(&table.schema, &table.name);
    let row = sql.row(&format!("CHECKSUM TABLE {name}")).await?;
    let Some(checksum) = row.and_then(|row| row.number(1)) else { return Ok(None) };
    let rows = sql.number(&format!("SELECT COUNT(*) FROM {name}")).await?;
    Ok(rows.map(|rows| (rows, checksum)))
}
