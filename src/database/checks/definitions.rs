//! What a server holds besides rows and accounts, so that two looks tell whether anything was made, altered, emptied or
//! dropped in between. A dump that runs meanwhile sees some of it as it was and some as it is.

pub(in crate::database) use super::catalog::{Item, Kind};
use super::catalog::{describe, identities as engine_identities, listed, listings};
use super::session::{Session, rows};
use crate::database::sql::{Sql, SqlError};
use std::collections::BTreeMap;

/// All definitions at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(in crate::database) struct Definitions(BTreeMap<Item, Definition>);

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Definition {
    /// Of how the server describes it; what it does not let us see is the same each time.
    hash: String,
    /// The engine's own numbers: TRUNCATE and a table that is made again have others. Empty without PROCESS.
    identity: String,
}

impl Definitions {
    /// What is in one of them and not, or otherwise, in the other.
    pub(in crate::database) fn differences(&self, other: &Definitions) -> Vec<Item> {
        let lacking = other.0.keys().filter(|item| !self.0.contains_key(item));
        let moved = self.0.iter().filter(|(item, of)| other.0.get(item) != Some(of)).map(|(item, _)| item);
        let mut all: Vec<Item> = moved.chain(lacking).cloned().collect();
        all.sort();
        all
    }
}

/// Reads them: one statement for each thing, so some thousands take a second.
pub(in crate::database) async fn definitions(sql: &mut Sql) -> Result<Definitions, SqlError> {
    let mut all = BTreeMap::new();
    for listing in listings(sql.dialect().is_mariadb()) {
        for row in rows(sql, &listing).await? {
            if let Some((item, _)) = listed(&row) {
                all.insert(item, Definition::default());
            }
        }
    }
    let mut identities = engine_identities(sql as &mut dyn Session).await?;
    for (item, definition) in &mut all {
        definition.identity = identities.remove(item).unwrap_or_default();
        definition.hash = match describe(sql, item).await {
            Ok(Some((hash, _))) => hash,
            Ok(None) => "gone".to_owned(),
            Err(error) => match error.number() {
                Some(number) if !error.is_connection() => format!("error {number}"),
                _ => return Err(error),
            },
        };
    }
    Ok(Definitions(all))
}

/// The engine's own numbers of each table, by (database, table). Empty without PROCESS.
pub(in crate::database) async fn identities(
    sql: &mut Sql,
) -> Result<BTreeMap<(String, String), String>, SqlError> {
    let found = engine_identities(sql as &mut dyn Session).await?;
    let tables = found.into_iter().filter(|(item, _)| item.kind == Kind::Table);
    Ok(tables.map(|(item, identity)| ((item.schema, item.name), identity)).collect())
}
