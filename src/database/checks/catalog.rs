//! What a server holds besides rows: its tables, views, routines, triggers, events and accounts, with a hash of how it
//! describes each of them. What two servers describe differently although it is the same is left out of the hash.

use super::session::{Session, rows};
use crate::database::sql::{Row, SqlError, Table, quote_name, quote_table, quote_text};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Databases of the server itself.
const OWN: &str = "('mysql', 'sys', 'information_schema', 'performance_schema')";

/// What is not compared, in words.
pub(super) fn left_out() -> Vec<String> {
    let accounts = OWN_ACCOUNTS.join(", ");
    vec![format!("the accounts {accounts}"), "the databases mysql, sys, performance_schema".to_owned()]
}

/// Accounts that an installation makes, and that of our own servers.
const OWN_ACCOUNTS: &[&str] = &[
    "root",
    "mysql",
    "mariadb.sys",
    "mysql.sys",
    "mysql.session",
    "mysql.infoschema",
    "PUBLIC",
    "ehpc_standby",
];

/// Stands for all accounts where they cannot be listed.
pub(super) fn all_accounts() -> Item {
    Item { kind: Kind::Account, schema: "*".to_owned(), name: "*".to_owned() }
}

/// What kind of thing it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Kind {
    Database,
    Table,
    Sequence,
    View,
    Function,
    Procedure,
    Package,
    Trigger,
    Event,
    Account,
}

impl Kind {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Database => "database",
            Kind::Table => "table",
            Kind::Sequence => "sequence",
            Kind::View => "view",
            Kind::Function => "function",
            Kind::Procedure => "procedure",
            Kind::Package => "package",
            Kind::Trigger => "trigger",
            Kind::Event => "event",
            Kind::Account => "account",
        }
    }
}

/// The name of one thing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Item {
    /// What it is.
    pub kind: Kind,
    /// Its database; an account's name.
    pub schema: String,
    /// Its name; an account's host. Empty for a database.
    pub name: String,
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.kind.word();
        match self.kind {
            Kind::Database => write!(f, "{word} {}", quote_name(&self.schema)),
            Kind::Account => write!(f, "{word} {}@{}", quote_text(&self.schema), quote_text(&self.name)),
            _ => write!(f, "{word} {}", quote_table(&self.schema, &self.name)),
        }
    }
}

/// What is known of one thing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Entry {
    /// BLAKE3 of its description; empty when it was not asked for or could not be told.
    pub(super) hash: String,
    /// Bytes of a table's data, about.
    pub(super) bytes: u64,
    /// A table's engine.
    pub(super) engine: String,
    /// Whether old rows are kept (`WITH SYSTEM VERSIONING`).
    pub(super) versioned: bool,
    /// Numbers by which the engine knows a table (and its partitions): TRUNCATE and a rebuild change them, and a
    /// snapshot that is older sees no rows then. Empty when the account may not see them (PROCESS).
    pub(super) identity: String,
    /// The next value that a sequence has not yet reserved.
    pub(super) next: Option<i64>,
    /// It is there, and its server does not describe it.
    pub(super) is_silent: bool,
}

impl Entry {
    /// Whether a snapshot covers it.
    pub(super) fn is_transactional(&self) -> bool {
        ["InnoDB", "RocksDB"].iter().any(|engine| self.engine.eq_ignore_ascii_case(engine))
    }
}

/// Everything a server holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Catalog {
    pub(super) entries: BTreeMap<Item, Entry>,
}

impl Catalog {
    /// Reads it. In an open snapshot (`in_snapshot`) each table is let go of at once.
    pub(super) async fn read(session: &mut dyn Session, in_snapshot: bool) -> Result<Catalog, SqlError> {
        let mut catalog = Catalog::default();
        for listing in listings(session.dialect().is_mariadb()) {
            for row in rows(session, &listing).await? {
                if let Some((item, entry)) = listed(&row) {
                    catalog.entries.insert(item, entry);
                }
            }
        }
        accounts(session, &mut catalog).await?;
        for (item, identity) in identities(session).await? {
            if let Some(entry) = catalog.entries.get_mut(&item) {
                entry.identity = identity;
            }
        }
        let told = catalog.entries.iter().filter(|(_, entry)| !entry.is_silent);
        let items: Vec<Item> = told.map(|(item, _)| item.clone()).collect();
        for item in items {
            match describe(session, &item).await? {
                Some((hash, next)) => {
                    if let Some(entry) = catalog.entries.get_mut(&item) {
                        (entry.hash, entry.next) = (hash, next);
                    }
                }
                // A server with skip_name_resolve leaves accounts out whose host is a name, and lists them.
                None if item.kind == Kind::Account && is_listed(session, &item).await? => {
                    if let Some(entry) = catalog.entries.get_mut(&item) {
                        entry.is_silent = true;
                    }
                }
                // It has gone in the meantime.
                None => drop(catalog.entries.remove(&item)),
            }
            if in_snapshot {
                super::position::let_go(session).await?;
            }
        }
        Ok(catalog)
    }

    /// Whether a table is still the same, as far as its server tells: nothing has redefined, emptied or rebuilt it.
    pub(super) async fn still_knows(&self, session: &mut dyn Session, item: &Item) -> Result<bool, SqlError> {
        let Some(entry) = self.entries.get(item) else { return Ok(false) };
        let hash = describe(session, item).await?.map(|(hash, _)| hash).unwrap_or_default();
        let identity = identities(session).await?.remove(item).unwrap_or_default();
        Ok(entry.hash == hash && entry.identity == identity)
    }

    /// Tables, the largest first.
    pub(super) fn tables(&self) -> Vec<(&Item, &Entry)> {
        let mut tables: Vec<(&Item, &Entry)> =
            self.entries.iter().filter(|(item, _)| item.kind == Kind::Table).collect();
        tables.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.bytes));
        tables
    }
}

/// Statements whose rows are (kind, schema, name, engine, bytes).
pub(super) fn listings(mariadb: bool) -> Vec<String> {
    let mut all = vec![
        format!(
            "SELECT 'SCHEMA', schema_name, '', '', 0 FROM information_schema.schemata \
             WHERE schema_name NOT IN {OWN}"
        ),
        format!(
            "SELECT table_type, table_schema, table_name, engine, data_length FROM information_schema.tables \
             WHERE table_schema NOT IN {OWN}"
        ),
        format!(
            "SELECT routine_type, routine_schema, routine_name, '', 0 FROM information_schema.routines \
             WHERE routine_schema NOT IN {OWN}"
        ),
        format!(
            "SELECT 'TRIGGER', trigger_schema, trigger_name, '', 0 FROM information_schema.triggers \
             WHERE trigger_schema NOT IN {OWN}"
        ),
        format!(
            "SELECT 'EVENT', event_schema, event_name, '', 0 FROM information_schema.events \
             WHERE event_schema NOT IN {OWN}"
        ),
    ];
    if !mariadb {
        return all;
    }
    // Packages (sql_mode=ORACLE) are listed with the routines only in part.
    all[2].push_str(" AND routine_type IN ('FUNCTION', 'PROCEDURE', 'PACKAGE')");
    all
}

pub(super) fn listed(row: &Row) -> Option<(Item, Entry)> {
    let kind = match row.string(0).to_ascii_uppercase().as_str() {
        "SCHEMA" => Kind::Database,
        "BASE TABLE" | "SYSTEM VERSIONED" => Kind::Table,
        "SEQUENCE" => Kind::Sequence,
        "VIEW" => Kind::View,
        "FUNCTION" => Kind::Function,
        "PROCEDURE" => Kind::Procedure,
        "PACKAGE" => Kind::Package,
        "TRIGGER" => Kind::Trigger,
        "EVENT" => Kind::Event,
        _ => return None,
    };
    let entry = Entry {
        engine: row.string(3),
        bytes: row.number(4).unwrap_or(0),
        versioned: row.string(0).eq_ignore_ascii_case("SYSTEM VERSIONED"),
        ..Entry::default()
    };
    Some((Item { kind, schema: row.string(1), name: row.string(2) }, entry))
}

/// Accounts and roles, where the account may see them.
async fn accounts(session: &mut dyn Session, catalog: &mut Catalog) -> Result<(), SqlError> {
    let found = match rows(session, "SELECT user, host FROM mysql.user").await {
        Ok(found) => found,
        Err(error) if error.number() == Some(1142) => {
            catalog.entries.insert(all_accounts(), Entry { is_silent: true, ..Entry::default() });
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    for row in found {
        let (schema, name) = (row.string(0), row.string(1));
        if !OWN_ACCOUNTS.contains(&schema.as_str()) {
            catalog.entries.insert(Item { kind: Kind::Account, schema, name }, Entry::default());
        }
    }
    Ok(())
}

async fn is_listed(session: &mut dyn Session, item: &Item) -> Result<bool, SqlError> {
    let (user, host) = (quote_text(&item.schema), quote_text(&item.name));
    let listed = format!("SELECT 1 FROM mysql.user WHERE user = {user} AND host = {host}");
    Ok(!rows(session, &listed).await?.is_empty())
}

/// The engine's numbers of all its tables. Their names are kept in the form of file names.
pub(super) async fn identities(session: &mut dyn Session) -> Result<BTreeMap<Item, String>, SqlError> {
    let new = !session.dialect().is_mariadb() && session.dialect().version().major >= 8;
    let list = if new { "innodb_tables" } else { "innodb_sys_tables" };
    let decoded =
        |part: &str| format!("CONVERT(CONVERT(CONVERT({part} USING binary) USING filename) USING utf8mb4)");
    let schema = decoded("SUBSTRING_INDEX(name, '/', 1)");
    let table =
        decoded("SUBSTRING_INDEX(SUBSTRING_INDEX(SUBSTRING_INDEX(name, '/', -1), '#P#', 1), '#p#', 1)");
    let statement =
        format!("SELECT {schema}, {table}, table_id FROM information_schema.{list} ORDER BY table_id");
    let mut found: BTreeMap<Item, String> = BTreeMap::new();
    match rows(session, &statement).await {
        Ok(rows) => {
            for row in rows {
                let item = Item { kind: Kind::Table, schema: row.string(0), name: row.string(1) };
                let identity = found.entry(item).or_default();
                identity.push_str(&row.string(2));
                identity.push(' ');
            }
        }
        // No PROCESS privilege; or an engine that does not list them (1109).
        Err(error) if matches!(error.number(), Some(1227 | 1109)) => {}
        Err(error) => return Err(error),
    }
    Ok(found)
}

/// (hash, a sequence's next value) of one thing; `None`: it has gone.
pub(super) async fn describe(
    session: &mut dyn Session,
    item: &Item,
) -> Result<Option<(String, Option<i64>)>, SqlError> {
    let mut hasher = blake3::Hasher::new();
    for statement in questions(session, item) {
        match session.table(&statement).await {
            Ok(answer) => add(&mut hasher, item.kind, &answer),
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let mut next = None;
    if item.kind == Kind::Sequence {
        let statement =
            format!("SELECT next_not_cached_value FROM {}", quote_table(&item.schema, &item.name));
        match rows(session, &statement).await {
            Ok(found) => next = found.first().and_then(|row| row.string(0).parse().ok()),
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(Some((hasher.finalize().to_hex().to_string(), next)))
}

fn questions(session: &dyn Session, item: &Item) -> Vec<String> {
    let name = quote_table(&item.schema, &item.name);
    let one = |what: &str| vec![format!("SHOW CREATE {what} {name}")];
    match item.kind {
        Kind::Database => vec![format!("SHOW CREATE DATABASE {}", quote_name(&item.schema))],
        Kind::Table => one("TABLE"),
        Kind::Sequence => one("SEQUENCE"),
        Kind::View => one("VIEW"),
        Kind::Function => one("FUNCTION"),
        Kind::Procedure => one("PROCEDURE"),
        Kind::Package => one("PACKAGE"),
        Kind::Trigger => one("TRIGGER"),
        Kind::Event => one("EVENT"),
        Kind::Account => {
            let user = quote_text(&item.schema);
            // A role of MariaDB has no host.
            let account = match item.name.is_empty() {
                true => user,
                false => format!("{user}@{}", quote_text(&item.name)),
            };
            let mut all = vec![format!("SHOW GRANTS FOR {account}")];
            let version = session.dialect().version();
            let tells = match session.dialect().is_mariadb() {
                true => !item.name.is_empty() && version.major >= 10,
                false => (version.major, version.minor) >= (5, 7),
            };
            if tells {
                all.push(format!("SHOW CREATE USER {account}"));
            }
            all
        }
    }
}

/// 1049 database, 1146 table, 1305 routine, 1360 trigger, 1539 event, 1141 grant, 1396 user, 1356 invalid view, 4091
/// sequence, 1347 no longer of this kind, 1268 no `SHOW CREATE USER` for it, 1412 changed since the snapshot.
fn is_gone(error: &SqlError) -> bool {
    matches!(error.number(), Some(1049 | 1146 | 1305 | 1360 | 1539 | 1141 | 1396 | 4091 | 1347 | 1268 | 1412))
}

fn add(hasher: &mut blake3::Hasher, kind: Kind, answer: &Table) {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    for row in &answer.rows {
        let mut line = Vec::new();
        for (at, column) in answer.columns.iter().enumerate() {
            // When it was made here.
            if column.eq_ignore_ascii_case("Created") {
                continue;
            }
            match row.text(at) {
                Some(text) => line.extend(normal(kind, &text).as_bytes()),
                None => line.push(0),
            }
            line.push(0);
        }
        lines.push(line);
    }
    // Grants come in no certain order.
    lines.sort();
    for line in lines {
        hasher.update(&line);
    }
}

/// What differs between servers although it says the same.
fn normal(kind: Kind, text: &str) -> String {
    match kind {
        // A counter, not a definition: it runs ahead on either side after a rollback.
        Kind::Table => without_counter(text),
        // A replica does not run the events of its primary, and forgets whether that one does.
        Kind::Event => [" DISABLE ON SLAVE ", " DISABLE ON REPLICA ", " DISABLE "]
            .iter()
            .fold(text.to_owned(), |text, word| text.replace(word, " ENABLE ")),
        _ => text.to_owned(),
    }
}

fn without_counter(text: &str) -> String {
    const COUNTER: &str = " AUTO_INCREMENT=";
    let options = text.rfind("\n) ").unwrap_or(0);
    let Some(at) = text[options..].find(COUNTER).map(|at| options + at) else { return text.to_owned() };
    let rest = &text[at + COUNTER.len()..];
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    format!("{}{}", &text[..at], &rest[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_no_definition() {
        let text = |counter: &str| {
            format!(
                "CREATE TABLE `a` (\n  `b` int COMMENT ' AUTO_INCREMENT=3'\n) ENGINE=InnoDB{counter} DEFAULT CHARSET=utf8mb4"
            )
        };
        assert_eq!(without_counter(&text(" AUTO_INCREMENT=17")), text(""));
        assert_eq!(without_counter(&text("")), text(""));
        assert_eq!(without_counter("x"), "x");
    }
}
