//! Level 1: one table by the server's own `CHECKSUM TABLE`, on both sides at once.
//! Source: MariaDB knowledge base "CHECKSUM TABLE": it reads the transaction's snapshot and blocks no writer.

use super::CheckError;
use super::catalog::{Entry, Item};
use super::report::Way;
use super::rows::{self, Evidence, Outcome, Pair};
use super::session::{self, Session};
use crate::database::sql::{SqlError, quote_table};

/// What is known of a table's content after one round.
pub(super) enum Content {
    /// Equal; the checksum, and rows when they were compared one by one.
    Equal { checksum: Option<String>, rows: Option<u64> },
    /// Different, and what to look for in the next round: a table that was emptied or rebuilt behind the snapshot has
    /// no rows in it, and the end of an XA transaction is not exactly where the log has it.
    Differ(Way, Evidence),
    /// It could not be compared now.
    Moving(String),
}

/// Compares one table in two snapshots of one moment.
pub(super) async fn compare(
    pair: &mut Pair<'_>,
    item: &Item,
    entry: &Entry,
    deep: bool,
) -> Result<Content, CheckError> {
    let (primary, standby) = tokio::join!(checksum(pair.primary, item), checksum(pair.standby, item));
    let sums = (primary.map_err(CheckError::Primary)?, standby.map_err(CheckError::Standby)?);
    pair.let_go().await?;
    let equal = match &sums {
        (Some(primary), Some(standby)) => primary == standby,
        _ => return Ok(Content::Moving("its form was changed while it was compared".to_owned())),
    };
    if equal && !deep {
        return Ok(Content::Equal { checksum: sums.0, rows: None });
    }
    if !equal && !entry.is_transactional() {
        let (primary, standby) = (sums.0.unwrap_or_default(), sums.1.unwrap_or_default());
        let mut evidence = Evidence::default();
        evidence.add(&[&primary, &standby]);
        return Ok(Content::Differ(Way::Sums(primary, standby), evidence));
    }
    // How a row is stored differs between versions, and with what the table has been through: rows decide.
    Ok(match rows::compare(pair, &item.schema, &item.name, entry.versioned).await? {
        Outcome::Equal { rows } => Content::Equal { checksum: sums.0.filter(|_| equal), rows: Some(rows) },
        Outcome::Differ(..) if !entry.is_transactional() => {
            Content::Moving(format!("{} has no snapshots, and its rows change", entry.engine))
        }
        Outcome::Differ(differ, evidence) => Content::Differ(Way::Rows(differ), evidence),
        Outcome::Unknown(why) => Content::Moving(why),
    })
}

/// `None`: the table has gone, or is no longer what the snapshot knows.
async fn checksum(session: &mut dyn Session, item: &Item) -> Result<Option<String>, SqlError> {
    let statement = format!("CHECKSUM TABLE {}", quote_table(&item.schema, &item.name));
    match session::rows(session, &statement).await {
        Ok(rows) => Ok(rows.first().and_then(|row| row.bytes(1).map(|_| row.string(1)))),
        Err(error) if matches!(error.number(), Some(1146 | 1412)) => Ok(None),
        Err(error) => Err(error),
    }
}
