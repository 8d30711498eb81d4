//! One table as it was, into a server whose other tables stay as they are.
//!
//! The whole database is restored into a scratch server first: a filter on the binary log would not be exact where tables
//! are renamed, or changed together.

use super::error::RestoreError;
use super::fill::{Route, Vault};
use super::run::{RestoreOptions, Restored, Way, datadir_at, told};
use super::target;
use crate::database::dsn::Dsn;
use crate::database::server::{
    Client, LoadOptions, Program, ServerError, Tool, last_words, with_credentials,
};
use crate::database::sql::{Sql, SqlError, quote_name, quote_table, quote_text};
use crate::host;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::AtomicBool;

/// A database and a table in it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Name {
    schema: String,
    table: String,
}

impl Name {
    /// `db.table`; a table's name may hold points, a database's that does cannot be named here.
    fn parse(text: &str) -> Result<Name, RestoreError> {
        match text.split_once('.') {
            Some((schema, table)) if !schema.is_empty() && !table.is_empty() => {
                Ok(Name { schema: schema.to_owned(), table: table.to_owned() })
            }
            _ => Err(RestoreError::Table(text.to_owned())),
        }
    }

    fn quoted(&self) -> String {
        quote_table(&self.schema, &self.table)
    }
}

/// Removed with everything in it.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) fn run(
    vault: &Vault<'_>,
    options: &RestoreOptions,
    dsn: &Dsn,
    table: &str,
    way: Way<'_>,
    progress: &dyn Fn(String),
    stop: &AtomicBool,
) -> Result<Restored, RestoreError> {
    let from = Name::parse(table)?;
    let to = options.as_table.as_deref().map_or_else(|| Ok(from.clone()), Name::parse)?;
    vault.runtime.block_on(free(dsn, way.route, &to, options.overwrite))?;
    let scratch = Scratch(options.scratch.join(format!("scratch-{:08x}", rand::random::<u32>())));
    let (filled, _, server) = datadir_at(vault, &scratch.0, way, progress, stop)?;
    let source = server.dsn();
    let moved = vault.runtime.block_on(rename(&source, &from, &to)).and_then(|()| {
        progress(format!("{table} to {}", dsn.server));
        copy(vault, way.route, &source, dsn, &to, stop)
    });
    vault.runtime.block_on(server.discard());
    moved?;
    // Branches that are prepared in the scratch server are gone with it.
    Ok(told(way, filled, Vec::new()))
}

/// The place is free, or may be made free; its database is there.
async fn free(dsn: &Dsn, route: &Route, to: &Name, overwrite: bool) -> Result<(), RestoreError> {
    let mut sql = target::connect(dsn, route.flavor).await?;
    if !overwrite && target::has_table(&mut sql, &to.schema, &to.table).await? {
        let server = sql.server().to_owned();
        return Err(RestoreError::TableExists { table: format!("{}.{}", to.schema, to.table), server });
    }
    Ok(())
}

/// Gives the table its new name, in the scratch server. Its triggers stay behind: they name what is not restored.
async fn rename(scratch: &Dsn, from: &Name, to: &Name) -> Result<(), RestoreError> {
    let mut sql = Sql::connect(scratch).await?;
    if !target::has_table(&mut sql, &from.schema, &from.table).await? {
        let there = target::tables_of(&mut sql, &from.schema).await?.join(", ");
        let there = if there.is_empty() { "none".to_owned() } else { there };
        return Err(RestoreError::NoTable { table: format!("{}.{}", from.schema, from.table), there });
    }
    if from == to {
        return Ok(());
    }
    drop_triggers(&mut sql, from).await?;
    sql.run(&format!("CREATE DATABASE IF NOT EXISTS {}", quote_name(&to.schema))).await?;
    sql.run(&format!("DROP TABLE IF EXISTS {}", to.quoted())).await?;
    Ok(sql.run(&format!("RENAME TABLE {} TO {}", from.quoted(), to.quoted())).await?)
}

async fn drop_triggers(sql: &mut Sql, of: &Name) -> Result<(), SqlError> {
    let ask = format!(
        "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA = {} AND EVENT_OBJECT_TABLE = {}",
        quote_text(&of.schema),
        quote_text(&of.table)
    );
    for row in sql.rows(&ask).await? {
        sql.run(&format!("DROP TRIGGER {}", quote_table(&of.schema, &row.string(0)))).await?;
    }
    Ok(())
}

/// The scratch server's dump of the table into the target.
fn copy(
    vault: &Vault<'_>,
    route: &Route,
    source: &Dsn,
    dsn: &Dsn,
    table: &Name,
    stop: &AtomicBool,
) -> Result<(), RestoreError> {
    let find = |tool| vault.tools.find(tool, route.flavor).map_err(ServerError::from);
    let (dump, client): (Program, Program) = (find(Tool::Dump)?, find(Tool::Client)?);
    let mut command = dump.command();
    with_credentials(&mut command, source)?;
    command.args(["--single-transaction", "--hex-blob", "--max-allowed-packet=1G", "--net-buffer-length=4M"]);
    command.args(["--skip-dump-date", "--default-character-set=utf8mb4"]);
    for option in ["--dump-history", "--set-gtid-purged"] {
        if dump.knows(option) {
            command.arg(if option == "--dump-history" { option.to_owned() } else { format!("{option}=OFF") });
        }
    }
    command.args(["--", &table.schema, &table.table]).stdout(Stdio::piped()).stderr(Stdio::piped());
    host::end_with_parent(&mut command);
    let start = |source| ServerError::Start { program: dump.path.clone(), source };
    let mut child = command.spawn().map_err(start)?;
    let said = child.stderr.take().map(|stderr| std::thread::spawn(move || last_words(stderr)));
    let loaded = (|| {
        let mut client = Client::start(&client, dsn, LoadOptions::default())?;
        let schema = quote_name(&table.schema);
        client.write(format!("CREATE DATABASE IF NOT EXISTS {schema};\nUSE {schema};\n").as_bytes(), stop)?;
        if let Some(mut output) = child.stdout.take() {
            client.load(&mut output, &mut |_| {}, stop)?;
        }
        client.finish(stop)
    })();
    if loaded.is_err() {
        let _ = child.kill();
    }
    let status = child.wait().map_err(start)?;
    let said = said.and_then(|thread| thread.join().ok()).unwrap_or_default();
    loaded?;
    if status.success() {
        return Ok(());
    }
    Err(ServerError::Failed { program: dump.path.clone(), status: status.to_string(), said }.into())
}
