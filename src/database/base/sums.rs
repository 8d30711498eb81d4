//! What the tables hold at one place soon after a base's: what a restore is compared with.

use super::look;
use super::record::{LogPlace, Sums, TableRecord, TableSum};
use crate::database::checks::definitions::identities;
use crate::database::dsn::Dsn;
use crate::database::sql::{Sql, SqlError, quote_table};

/// Opens a snapshot, notes its place in the binary log and sums the tables in it. `None` where the server does not tell the
/// place of a snapshot (MySQL does not without a lock). A table that was altered, emptied or made anew meanwhile is left
/// out: not every version says that its snapshot does not show it.
pub(super) async fn sums(dsn: Dsn, tables: Vec<TableRecord>) -> Result<Option<Sums>, SqlError> {
    let mut sql = Sql::connect(&dsn).await?;
    if !sql.dialect().snapshot_tells_position() {
        return Ok(None);
    }
    sql.set_statement_time(None);
    let before = identities(&mut sql).await?;
    sql.run("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
    sql.run("START TRANSACTION WITH CONSISTENT SNAPSHOT").await?;
    let Some((file, offset)) = sql.snapshot_place().await? else { return Ok(None) };
    let place = LogPlace { file, offset };
    let Some(gtid) = look::gtid_at(&mut sql, &place).await? else { return Ok(None) };
    let mut sums = Sums { place, gtid, tables: Vec::new() };
    // A sequence is not transactional: its value at the snapshot is not known.
    for table in
        tables.iter().filter(|table| table.is_exact() && table.kind != "VIEW" && table.kind != "SEQUENCE")
    {
        match sum(&mut sql, table).await {
            Ok(Some(sum)) => sums.tables.push(sum),
            Ok(None) => {}
            Err(error) if error.is_connection() => return Err(error),
            Err(error) => tracing::debug!(%error, table = table.name, "a table was not summed"),
        }
    }
    let after = identities(&mut sql).await?;
    let same = |sum: &TableSum| {
        let of = (sum.schema.clone(), sum.name.clone());
        before.get(&of) == after.get(&of)
    };
    sums.tables.retain(same);
    sql.close().await;
    Ok(Some(sums))
}

async fn sum(sql: &mut Sql, table: &TableRecord) -> Result<Option<TableSum>, SqlError> {
    let name = quote_table(&table.schema, &table.name);
    let row = sql.row(&format!("CHECKSUM TABLE {name}")).await?;
    // NULL: it is gone.
    let Some(checksum) = row.and_then(|row| row.number(1)) else { return Ok(None) };
    let Some(rows) = sql.number(&format!("SELECT COUNT(*) FROM {name}")).await? else { return Ok(None) };
    Ok(Some(TableSum { schema: table.schema.clone(), name: table.name.clone(), rows, checksum }))
}
