//! Takes a base snapshot: the dump program's output, as it comes, to the sink. Nothing is written on this machine.
//!
//! Three traps are closed here. Accounts are not part of the snapshot, so they are dumped before and after the data, and
//! must be equal. Nor are definitions: what is made, dropped, altered or emptied behind the snapshot is dumped as it is
//! later, and the binary log does it again, so these must be equal too. A branch that is prepared while the dump runs has
//! no rows in it, and its XA PREPARE may be before the base's place: what is prepared is asked for first, together with
//! the binary log's end.

use super::content::{self, Content};
use super::dump::{
    ACCOUNTS, Dump, DumpPlan, Margins, arguments, early_accounts, keeps_history, without_unknown_accounts,
};
use super::error::BaseError;
use super::record::{AccountsAt, BaseRecord, Branch, LogPlace, Sums, TableRecord};
use super::sink::BaseSink;
use super::{look, sums};
use crate::database::checks::definitions::{Definitions, definitions};
use crate::database::dsn::Dsn;
use crate::database::server::{Flavor, Program, Tool, Tools};
use crate::database::sql::{Sql, SqlError};
use crate::host;
use ehpc_proto::replication::Manifest;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Tries before it is told that the server does not hold still.
const TRIES: u32 = 4;
/// Before the second try; before each later one so many times longer. What makes a try useless is often a job that ends.
const PAUSE: Duration = Duration::from_secs(10);
const LONGER: u32 = 5;
/// Whether the sums are to end early is looked at so often.
const LOOK: Duration = Duration::from_millis(200);
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
    /// Pause before the second try; those before later ones are longer.
    pub pause: Duration,
}

impl TakeOptions {
    /// With the defaults of the settings.
    pub fn new(dsn: Dsn, tools: Tools, lineage: u32) -> TakeOptions {
        TakeOptions { dsn, tools, lineage, label: None, lock: false, sums: true, pause: PAUSE }
    }
}

/// How far a base is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BaseProgress {
    /// 1, 2, 3, ..
    pub attempt: u32,
    /// Why the try before this one was of no use.
    pub again: Option<Arc<str>>,
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
    let (mut again, mut pause) = (None, options.pause);
    for attempt in 1.. {
        let result = Attempt { options, runtime, progress, stop, attempt, again }.run(sink);
        match result {
            Err(error) if error.is_passing() && attempt < TRIES => {
                tracing::info!(%error, attempt, "the base snapshot is taken again");
                let why: Arc<str> = error.to_string().into();
                again = Some(why);
                let attempt = attempt + 1;
                progress(BaseProgress { attempt, again: again.clone(), ..BaseProgress::default() });
                wait(pause, stop)?;
                pause *= LONGER;
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
    again: Option<Arc<str>>,
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
    definitions: Definitions,
    databases: Vec<String>,
    tables: Vec<TableRecord>,
    expected: u64,
}

/// What the dump was.
struct Dumped {
    sql: (Manifest, u64),
    new_bytes: u64,
    accounts: AccountsAt,
    at: At,
    sums: Option<Sums>,
}

/// Where the snapshot was opened.
struct At {
    place: LogPlace,
    gtid: String,
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
        let lacks_history = lacking_history(&before, &program);
        let accounts = self.accounts(&mut before, &program)?;
        let dumped = self.dump(sink, &mut before, &program, &accounts, &lacks_history)?;
        let record = BaseRecord {
            number: 0,
            label: self.options.label.clone(),
            taken_at,
            finished_at: host::now(),
            flavor: before.flavor,
            server_id: before.server_id,
            version: before.version,
            lineage: self.options.lineage,
            place: dumped.at.place,
            gtid: dumped.at.gtid,
            before: before.log,
            prepared: before.prepared,
            tables: before.tables,
            lacks_history,
            sums: dumped.sums,
            bytes: dumped.sql.1,
            accounts: Some(dumped.accounts),
            new_bytes: dumped.new_bytes,
            tool: program.to_string(),
        };
        content::commit(sink, record, dumped.sql)
    }

    async fn look(&self) -> Result<Before, BaseError> {
        let mut sql = Sql::connect(&self.options.dsn).await?;
        let dialect = sql.dialect();
        let server_id = sql.number("SELECT @@server_id").await?.unwrap_or_default();
        let version = sql.text("SELECT @@version").await?.unwrap_or_default();
        // The order matters: what is prepared after the first has its XA PREPARE behind it.
        let log = look::end_of_log(&mut sql).await?;
        let prepared = look::prepared(&mut sql).await?;
        // Before the snapshot: what is changed after this and before it costs a try, and nothing is overlooked.
        let definitions = definitions(&mut sql).await?;
        let databases = look::databases(&mut sql).await?;
        let (tables, expected) = look::tables(&mut sql).await?;
        let flavor = if dialect.is_mariadb() { Flavor::MariaDb } else { Flavor::MySql };
        let release = (dialect.version().major, dialect.version().minor);
        let server_id = u32::try_from(server_id).unwrap_or_default();
        Ok(Before {
            sql,
            flavor,
            release,
            server_id,
            version,
            log,
            prepared,
            definitions,
            databases,
            tables,
            expected,
        })
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

    fn dump(
        &self,
        sink: &mut dyn BaseSink,
        before: &mut Before,
        program: &Program,
        accounts: &[u8],
        lacks_history: &[String],
    ) -> Result<Dumped, BaseError> {
        let mut content = Content::new(sink);
        let early = early_accounts(accounts);
        content.push(&early)?;
        let mut summing = Summing(None);
        let at = if before.databases.is_empty() {
            content.push(b"-- The server has no databases of its users\n")?;
            let place = self.runtime.block_on(look::end_of_log(&mut before.sql))?;
            let gtid = self.gtid(before, &place)?;
            At { place, gtid }
        } else {
            self.data(&mut content, before, program, &mut summing, lacks_history)?
        };
        let moved = self.runtime.block_on(definitions(&mut before.sql))?.differences(&before.definitions);
        if !moved.is_empty() {
            return Err(BaseError::moved(&moved));
        }
        if self.accounts(before, program)? != accounts {
            return Err(BaseError::AccountsMoved);
        }
        content.push(b"\n")?;
        let accounts_at = AccountsAt { early: early.len() as u64, late: content.len() };
        content.push(accounts)?;
        let (manifest, len, new_bytes) = content.finish()?;
        let sums = self.summed(summing)?;
        Ok(Dumped { sql: (manifest, len), new_bytes, accounts: accounts_at, at, sums })
    }

    /// The GTID state of a place. Asked for at once: later the server may have purged the file.
    fn gtid(&self, before: &mut Before, place: &LogPlace) -> Result<String, BaseError> {
        let gtid = self.runtime.block_on(look::gtid_at(&mut before.sql, place))?;
        gtid.ok_or_else(|| BaseError::NoGtid { place: format!("{}:{}", place.file, place.offset) })
    }

    fn data(
        &self,
        content: &mut Content<'_>,
        before: &mut Before,
        program: &Program,
        summing: &mut Summing,
        lacks_history: &[String],
    ) -> Result<At, BaseError> {
        let (flavor, release, databases) = (before.flavor, before.release, &before.databases);
        let plan = DumpPlan { databases, flavor, release, lock: self.options.lock };
        let mut dump = Dump::start(program, &self.options.dsn, &arguments(program, &plan))?;
        let (mut margins, mut bytes, mut at) = (Margins::default(), 0, None);
        while let Some(piece) = dump.next(self.stop)? {
            margins.push(piece);
            content.push(piece)?;
            bytes += piece.len() as u64;
            if at.is_none()
                && let Some(place) = margins.place()
            {
                let gtid = self.gtid(before, &place)?;
                at = Some(At { place, gtid });
                if self.options.sums {
                    let tables = before.tables.iter();
                    let tables = tables.filter(|table| !lacks_history.contains(&table.to_string()));
                    let task = sums::sums(self.options.dsn.clone(), tables.cloned().collect());
                    summing.0 = Some(self.runtime.spawn(task));
                }
            }
            let (attempt, expected, new_bytes) = (self.attempt, before.expected, content.new_bytes());
            (self.progress)(BaseProgress { attempt, again: self.again.clone(), bytes, expected, new_bytes });
        }
        match dump.finish() {
            Err(BaseError::Dump { said, .. })
                if flavor == Flavor::MySql && program.flavor == Flavor::MariaDb =>
            {
                return Err(BaseError::ForeignDump { program: program.to_string(), said });
            }
            other => other?,
        }
        if !margins.is_complete() {
            return Err(BaseError::Incomplete("its last line, `-- Dump completed`, is not there"));
        }
        at.ok_or(BaseError::Incomplete("it does not say at which place of the binary log it was made"))
    }

    /// A base without sums is a base all the same. They may take as long as the server reads all its tables.
    fn summed(&self, mut summing: Summing) -> Result<Option<Sums>, BaseError> {
        let Some(task) = &mut summing.0 else { return Ok(None) };
        let stopped = async {
            while !self.stop.load(Ordering::Relaxed) {
                tokio::time::sleep(LOOK).await;
            }
        };
        let done = self.runtime.block_on(async {
            tokio::select! {
                done = task => Ok(done),
                () = stopped => Err(BaseError::Stopped),
            }
        });
        match done? {
            Ok(Ok(sums)) => Ok(sums),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the tables of the base snapshot were not summed");
                Ok(None)
            }
            Err(_) => Ok(None),
        }
    }
}

/// Tables whose earlier rows (`WITH SYSTEM VERSIONING`) the dump program leaves out.
fn lacking_history(before: &Before, program: &Program) -> Vec<String> {
    if keeps_history(program, before.flavor, before.release) {
        return Vec::new();
    }
    let versioned = before.tables.iter().filter(|table| table.kind.eq_ignore_ascii_case("SYSTEM VERSIONED"));
    let lacking: Vec<String> = versioned.map(TableRecord::to_string).collect();
    if !lacking.is_empty() {
        tracing::warn!(
            tables = lacking.join(", "),
            "{program} cannot dump the history of system-versioned tables: the base snapshot holds their present rows only. It \
             takes a server and a mariadb-dump of 10.11 or later"
        );
    }
    lacking
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_does_not_wait_for_the_sums() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let options =
            TakeOptions::new(Dsn::socket("/nowhere", "root"), crate::database::server::Tools::default(), 1);
        let stop = AtomicBool::new(true);
        let attempt = Attempt {
            options: &options,
            runtime: runtime.handle(),
            progress: &|_| (),
            stop: &stop,
            attempt: 1,
            again: None,
        };
        // CHECKSUM TABLE of a table of some hours.
        let task = runtime.spawn(std::future::pending());
        assert!(matches!(attempt.summed(Summing(Some(task))), Err(BaseError::Stopped)));
    }
}
