//! Takes a base snapshot: the dump program's output, as it comes, to the sink. Nothing is written on this machine.
//!
//! Two traps are closed here. Accounts are not part of the snapshot, so they are dumped before and after the data, and must
//! be equal. A branch that is prepared while the dump runs has no rows in it, and its XA PREPARE may be before the
//! base's place: what is prepared is asked for first, together with the binary log's end.

use super::content::{self, Content};
use super::dump::{ACCOUNTS, Dump, DumpPlan, Margins, arguments, early_accounts, without_unknown_accounts};
use super::error::BaseError;
use super::record::{BaseRecord, Branch, LogPlace, Sums, TableRecord};
use super::sink::BaseSink;
use super::{look, sums};
use crate::database::dsn::Dsn;
use crate::database::server::{Flavor, Program, Tool, Tools};
use crate::database::sql::{Sql, SqlError};
use crate::host;
use ehpc_proto::replication::Manifest;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Tries before it is told that the server does not hold still.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(10);
/// Accounts are few; a dump of them that is longer is not one.
const MAX_ACCOUNTS: usize = 64 << 20;

/// What is dumped, and how.
#[derive(Clone, Debug)]
pub struct TakeOptions {
    /// The server.
    pub dsn: Dsn,
    /// Where its programs are.
    pub tools: Tools,
    /// Lineage of the archive that its binary log is in now; 0: none yet.
    pub lineage: u32,
    /// Kept under this label.
    pub label: Option<String>,
    /// Locks tables that are not transactional while the dump runs.
    pub lock: bool,
    /// Records sums of the tables.
    pub sums: bool,
    /// Pause before another try.
    pub pause: Duration,
}

impl TakeOptions {
    /// With the defaults of the settings.
    pub fn new(dsn: Dsn, tools: Tools, lineage: u32) -> TakeOptions {
        TakeOptions { dsn, tools, lineage, label: None, lock: false, sums: true, pause: PAUSE }
    }
}

/// How far a base is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BaseProgress {
    /// 1, 2, 3.
    pub attempt: u32,
    /// Bytes of SQL so far.
    pub bytes: u64,
    /// About how many there will be, by the server's own estimate of its tables.
    pub expected: u64,
    /// Bytes of them that the backup did not have.
    pub new_bytes: u64,
}

/// Takes a base and hands it to `sink`. Blocks: call it on a thread of its own, which must live as long (the dump program
/// ends with it).
pub fn take(
    options: &TakeOptions,
    runtime: &Handle,
    sink: &mut dyn BaseSink,
    progress: &dyn Fn(BaseProgress),
    stop: &AtomicBool,
) -> Result<BaseRecord, BaseError> {
    for attempt in 1.. {
        let result = Attempt { options, runtime, progress, stop, attempt }.run(sink);
        match result {
            Err(error) if error.is_passing() && attempt < TRIES => {
                tracing::info!(%error, attempt, "the base snapshot is taken again");
                wait(options.pause, stop)?;
            }
            Err(error) if error.is_passing() => {
                return Err(BaseError::GivenUp { tries: attempt, last: Box::new(error) });
            }
            other => return other,
        }
    }
    Err(BaseError::Stopped)
}

fn wait(time: Duration, stop: &AtomicBool) -> Result<(), BaseError> {
    let until = Instant::now() + time;
    while Instant::now() < until {
        if stop.load(Ordering::Relaxed) {
            return Err(BaseError::Stopped);
        }
        std::thread::park_timeout(Duration::from_millis(200).min(time));
    }
    Ok(())
}

struct Attempt<'a> {
    options: &'a TakeOptions,
    runtime: &'a Handle,
    progress: &'a dyn Fn(BaseProgress),
    stop: &'a AtomicBool,
    attempt: u32,
}

/// What is known of the server before the dump.
struct Before {
    sql: Sql,
    flavor: Flavor,
    release: (u16, u16),
    server_id: u32,
    version: String,
    log: LogPlace,
    prepared: Vec<Branch>,
    databases: Vec<String>,
    tables: Vec<TableRecord>,
    expected: u64,
}

/// The task that sums; it ends with us.
struct Summing(Option<JoinHandle<Result<Option<Sums>, SqlError>>>);

impl Drop for Summing {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

impl Attempt<'_> {
    fn run(&self, sink: &mut dyn BaseSink) -> Result<BaseRecord, BaseError> {
        let taken_at = host::now();
        let mut before = self.runtime.block_on(self.look())?;
        let program = self
            .options
            .tools
            .find(Tool::Dump, before.flavor)
            .map_err(crate::database::server::ServerError::from)?;
        let accounts = self.accounts(&mut before, &program)?;
        let (sql, place, summed) = self.dump(sink, &mut before, &program, &accounts)?;
        let (manifest, bytes, new_bytes) = sql;
        let gtid = self.runtime.block_on(look::gtid_at(&mut before.sql, &place))?;
        let record = BaseRecord {
            number: 0,
            label: self.options.label.clone(),
            taken_at,
            finished_at: host::now(),
            flavor: before.flavor,
            server_id: before.server_id,
            version: before.version,
            lineage: self.options.lineage,
            place,
            gtid,
            before: before.log,
            prepared: before.prepared,
            tables: before.tables,
            sums: summed,
            bytes,
            new_bytes,
            tool: program.to_string(),
        };
        content::commit(sink, record, (manifest, bytes))
    }

    async fn look(&self) -> Result<Before, BaseError> {
        let mut sql = Sql::connect(&self.options.dsn).await?;
        let dialect = sql.dialect();
        let server_id = sql.number("SELECT @@server_id").await?.unwrap_or_default();
        let version = sql.text("SELECT @@version").await?.unwrap_or_default();
        // The order matters: what is prepared after the first has its XA PREPARE behind it.
        let log = look::end_of_log(&mut sql).await?;
        let prepared = look::prepared(&mut sql).await?;
        let databases = look::databases(&mut sql).await?;
        let (tables, expected) = look::tables(&mut sql).await?;
        let flavor = if dialect.is_mariadb() { Flavor::MariaDb } else { Flavor::MySql };
        let release = (dialect.version().major, dialect.version().minor);
        let server_id = u32::try_from(server_id).unwrap_or_default();
        Ok(Before { sql, flavor, release, server_id, version, log, prepared, databases, tables, expected })
    }

    fn accounts(&self, before: &mut Before, program: &Program) -> Result<Vec<u8>, BaseError> {
        if before.flavor == Flavor::MySql {
            return Ok(self.runtime.block_on(look::mysql_accounts(&mut before.sql))?);
        }
        let arguments: Vec<String> = ACCOUNTS.iter().map(|&argument| argument.to_owned()).collect();
        let mut dump = Dump::start(program, &self.options.dsn, &arguments)?;
        let (mut text, mut margins) = (Vec::new(), Margins::default());
        while let Some(piece) = dump.next(self.stop)? {
            margins.push(piece);
            text.extend_from_slice(piece);
            if text.len() > MAX_ACCOUNTS {
                return Err(BaseError::Incomplete("the dump of accounts is longer than 64 MiB"));
            }
        }
        match dump.finish() {
            Err(BaseError::Dump { status, said }) => match without_unknown_accounts(&text, &said) {
                Some(known) => text = known,
                None => return Err(BaseError::Dump { status, said }),
            },
            other => other?,
        }
        if margins.is_complete() {
            Ok(text)
        } else {
            Err(BaseError::Incomplete("the dump of accounts breaks off"))
        }
    }

    #[allow(clippy::type_complexity)] // three results of one pass
    fn dump(
        &self,
        sink: &mut dyn BaseSink,
        before: &mut Before,
        program: &Program,
        accounts: &[u8],
    ) -> Result<((Manifest, u64, u64), LogPlace, Option<Sums>), BaseError> {
        let mut content = Content::new(sink);
        content.push(&early_accounts(accounts))?;
        let mut summing = Summing(None);
        let place = if before.databases.is_empty() {
            content.push(b"-- The server has no databases of its users\n")?;
            self.runtime.block_on(look::end_of_log(&mut before.sql))?
        } else {
            self.data(&mut content, before, program, &mut summing)?
        };
        // A database that was made before the dump's snapshot and after the list of them is neither dumped nor replayed.
        if self.runtime.block_on(look::databases(&mut before.sql))? != before.databases {
            return Err(BaseError::DatabasesMoved);
        }
        if self.accounts(before, program)? != accounts {
            return Err(BaseError::AccountsMoved);
        }
        content.push(b"\n")?;
        content.push(accounts)?;
        let finished = content.finish()?;
        Ok((finished, place, self.summed(summing)))
    }

    fn data(
        &self,
        content: &mut Content<'_>,
        before: &Before,
        program: &Program,
        summing: &mut Summing,
    ) -> Result<LogPlace, BaseError> {
        let Before { databases, flavor, release, .. } = before;
        let plan = DumpPlan { databases, flavor: *flavor, release: *release, lock: self.options.lock };
        let mut dump = Dump::start(program, &self.options.dsn, &arguments(program, &plan))?;
        let (mut margins, mut bytes, mut place) = (Margins::default(), 0, None);
        while let Some(piece) = dump.next(self.stop)? {
            margins.push(piece);
            content.push(piece)?;
            bytes += piece.len() as u64;
            if place.is_none() {
                place = margins.place();
                if place.is_some() && self.options.sums {
                    let task = sums::sums(self.options.dsn.clone(), before.tables.clone());
                    summing.0 = Some(self.runtime.spawn(task));
                }
            }
            let (attempt, expected, new_bytes) = (self.attempt, before.expected, content.new_bytes());
            (self.progress)(BaseProgress { attempt, bytes, expected, new_bytes });
        }
        match dump.finish() {
            Err(BaseError::Dump { said, .. })
                if *flavor == Flavor::MySql && program.flavor == Flavor::MariaDb =>
            {
                return Err(BaseError::ForeignDump { program: program.to_string(), said });
            }
            other => other?,
        }
        if !margins.is_complete() {
            return Err(BaseError::Incomplete("its last line, `-- Dump completed`, is not there"));
        }
        place.ok_or(BaseError::Incomplete("it does not say at which place of the binary log it was made"))
    }

    /// A base without sums is a base all the same.
    fn summed(&self, mut summing: Summing) -> Option<Sums> {
        let task = summing.0.take()?;
        match self.runtime.block_on(task) {
            Ok(Ok(sums)) => sums,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the tables of the base snapshot were not summed");
                None
            }
            Err(_) => None,
        }
    }
}
