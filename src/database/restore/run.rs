//! `db restore`: resolves the moment, makes or checks the target, fills it, and says what was done.

use super::compare::Difference;
use super::error::RestoreError;
use super::fill::{Filled, Means, Route, Vault};
use super::target::Switches;
use super::{only, target};
use crate::database::archive::{Stop, Target};
use crate::database::dsn::Dsn;
use crate::database::server::{self, ACCOUNT, Flavor, Mysqld, MysqldOptions, Role, ServerError, Tool};
use crate::database::sql::{Sql, quote_text};
use crate::host;
use ehpc_proto::binlog::gtid::parse_uuid;
use ehpc_proto::binlog::{GroupGtid, MySqlGtid};
use ehpc_proto::replication::Timestamp;
use ehpc_proto::replication::database::Place;
use serde::Serialize;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// `server_id` of servers that are only filled; they have no binary log.
const SCRATCH_ID: u32 = 4_200_099;

/// Which moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RestoreMoment {
    /// A target of the archive: a time, the newest, a position, a transaction.
    At(Target),
    /// A transaction's GTID as people write it, inclusive.
    Gtid(String),
    /// The end of a transaction.
    Position {
        /// File of the server's.
        file: String,
        /// Offset.
        offset: u64,
    },
    /// A place of the archive (of a mark).
    Place(Place),
}

/// Into what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RestoreTarget {
    /// A data directory that is made for it.
    Datadir(PathBuf),
    /// A server that runs.
    Server(Dsn),
}

/// What is restored, and how.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// The moment.
    pub moment: RestoreMoment,
    /// The target.
    pub target: RestoreTarget,
    /// Only this table: `db.table`.
    pub only: Option<String>,
    /// Its new name: `db.table`.
    pub as_table: Option<String>,
    /// What is there may be replaced.
    pub overwrite: bool,
    /// The server of a data directory goes on running.
    pub keep_running: bool,
    /// Where scratch servers are made; below it a directory of a fresh name.
    pub scratch: PathBuf,
}

/// What was done.
#[derive(Debug, Serialize)]
pub struct Restored {
    /// Base that it began with.
    pub base: u64,
    /// GTID state that was reached.
    pub gtid: String,
    /// Place that was reached.
    pub place: Place,
    /// The same by the server's own name.
    pub file: String,
    /// Time of the last transaction; zero when it is not known.
    pub at: Timestamp,
    /// Bytes of SQL of the base.
    pub base_bytes: u64,
    /// Bytes of SQL of the binary log.
    pub replayed_bytes: u64,
    /// Tables that were compared with what was recorded when the base was taken.
    pub compared: usize,
    /// All of them were equal; `None`: nothing was compared.
    pub equal: Option<bool>,
    /// Why it was not, or not as much as usual.
    pub compared_note: Option<String>,
    /// Those that were not.
    pub differences: Vec<Difference>,
    /// Branches of distributed transactions that are prepared at that moment; end them with XA COMMIT or XA ROLLBACK.
    pub prepared: Vec<String>,
    /// Branches that the binary log ends and never prepares, because the server was killed within XA PREPARE: what they
    /// changed is in no log, and not here.
    pub unlogged_branches: Vec<String>,
    /// Statements that were left out, because the account that works may not run them (`GRANT PROXY`, of the base) or cannot: what
    /// was its own before, of a role or another object that the binary log has dropped.
    pub left_out: Vec<String>,
    /// Tables that have lost their earlier rows (`WITH SYSTEM VERSIONING`): the base does not hold them.
    pub lacks_history: Vec<String>,
    /// Socket of the server that was left running.
    pub socket: Option<PathBuf>,
    /// That server; it ends when this is dropped.
    #[serde(skip)]
    pub server: Option<Mysqld>,
}

/// Restores. Blocks: call it on a thread of its own outside the runtime, which must live as long.
pub fn run(
    vault: &Vault<'_>,
    options: &RestoreOptions,
    progress: &dyn Fn(String),
    stop: &AtomicBool,
) -> Result<Restored, RestoreError> {
    let (at, route, means) = prepare(vault, options)?;
    let way = Way { at: &at, route: &route, means: &means };
    progress(format!("to {}:{}, from base {}", at.file, at.place.offset, route.base.number));
    vault.prove((&route, &means), stop)?;
    match (&options.target, &options.only) {
        (RestoreTarget::Server(dsn), Some(table)) => {
            only::run(vault, options, dsn, table, way, progress, stop)
        }
        (RestoreTarget::Datadir(_), Some(_)) => Err(RestoreError::OnlyNeedsServer),
        (RestoreTarget::Server(dsn), None) => into_server(vault, options, dsn, way, progress, stop),
        (RestoreTarget::Datadir(datadir), None) => {
            let (filled, prepared, server) = datadir_at(vault, datadir, way, progress, stop)?;
            let mut restored = told(way, filled, prepared);
            if options.keep_running {
                restored.socket = Some(server.socket().to_owned());
                restored.server = Some(server);
            } else {
                close(vault, server)?;
            }
            Ok(restored)
        }
    }
}

/// Whether [`run`] would find everything that it needs: the moment, a base, the binary logs, the programs. Nothing is
/// touched.
pub fn check(vault: &Vault<'_>, options: &RestoreOptions) -> Result<(), RestoreError> {
    prepare(vault, options).map(drop)
}

/// Where to, how and with what.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    pub(super) at: &'a Stop,
    pub(super) route: &'a Route,
    pub(super) means: &'a Means,
}

fn prepare(vault: &Vault<'_>, options: &RestoreOptions) -> Result<(Stop, Route, Means), RestoreError> {
    let at = resolve(vault, &options.moment)?;
    let route = vault.route(&at)?;
    let means = vault.means(&route)?;
    let mut needed = Vec::new();
    if options.only.is_some() || matches!(options.target, RestoreTarget::Datadir(_)) {
        needed.push(Tool::Server);
    }
    if options.only.is_some() {
        needed.push(Tool::Dump);
    }
    for tool in needed {
        vault.tools.find(tool, route.flavor).map_err(ServerError::from)?;
    }
    Ok((at, route, means))
}

/// What is reached.
pub(super) fn told(way: Way<'_>, filled: Filled, prepared: Vec<String>) -> Restored {
    let Way { at, route, means } = way;
    let unlogged_branches = means.unlogged.iter().map(ToString::to_string).collect();
    let note = match (&filled.compared, &route.base.sums) {
        (Some(compared), _) => compared.rows_only.clone(),
        (None, Some(sums)) => Some(format!(
            "nothing was compared: the tables were summed at {}:{}, after this moment",
            sums.place.file, sums.place.offset
        )),
        (None, None) => Some("nothing was compared: the base has no sums of its tables".to_owned()),
    };
    let compared = filled.compared.unwrap_or_default();
    Restored {
        base: route.base.number,
        gtid: at.gtid.to_string(),
        place: at.place,
        file: at.file.clone(),
        at: at.at,
        base_bytes: filled.base_bytes,
        replayed_bytes: filled.replayed_bytes,
        compared: compared.tables,
        equal: (compared.tables > 0).then_some(compared.differences.is_empty()),
        compared_note: note,
        differences: compared.differences,
        prepared,
        unlogged_branches,
        left_out: filled.left_out,
        lacks_history: route.base.lacks_history.clone(),
        socket: None,
        server: None,
    }
}

fn resolve(vault: &Vault<'_>, moment: &RestoreMoment) -> Result<Stop, RestoreError> {
    let target = match moment {
        RestoreMoment::At(target) => target.clone(),
        RestoreMoment::Gtid(text) => Target::Gtid(gtid(text)?),
        RestoreMoment::Position { file, offset } => Target::Position { file: file.clone(), offset: *offset },
        RestoreMoment::Place(place) => {
            let file = vault.archive.file(place.lineage, place.file)?;
            let gtid = vault.archive.gtid_at(*place)?;
            return Ok(Stop { place: *place, gtid, at: Timestamp::default(), file: file.name });
        }
    };
    Ok(vault.archive.find(&target)?)
}

fn gtid(text: &str) -> Result<GroupGtid, RestoreError> {
    let text = text.trim();
    if let Ok(gtid) = text.parse() {
        return Ok(GroupGtid::Maria(gtid));
    }
    let mysql = text.rsplit_once(':').and_then(|(sid, number)| {
        Some(GroupGtid::MySql(MySqlGtid { sid: parse_uuid(sid)?, number: number.parse().ok()? }))
    });
    mysql.ok_or_else(|| RestoreError::Gtid(text.to_owned()))
}

fn into_server(
    vault: &Vault<'_>,
    options: &RestoreOptions,
    dsn: &Dsn,
    way: Way<'_>,
    progress: &dyn Fn(String),
    stop: &AtomicBool,
) -> Result<Restored, RestoreError> {
    let runtime = vault.runtime;
    let mut sql = runtime.block_on(target::connect(dsn, way.route.flavor))?;
    let databases = runtime.block_on(target::in_the_way(&mut sql, options.overwrite))?;
    let before = runtime.block_on(target::prepared_branches(&mut sql))?;
    let mut switches = Switches::default();
    let emptied = runtime.block_on(async {
        switches.switch_off(&mut sql).await?;
        target::clear(&mut sql, &databases).await
    });
    let filled = emptied
        .map_err(RestoreError::from)
        .and_then(|()| vault.fill((way.route, way.means), dsn, progress, stop));
    // Events run again, whatever happened.
    let finished = runtime.block_on(async {
        switches.switch_on(&mut sql, dsn).await?;
        if filled.is_err() {
            target::end_branches(&mut sql, &before).await?;
        }
        Ok::<_, RestoreError>(target::prepared_branches(&mut sql).await?)
    });
    match (filled, finished) {
        (Ok(filled), finished) => {
            let prepared = finished?.into_iter().filter(|branch| !before.contains(branch)).collect();
            Ok(told(way, filled, prepared))
        }
        (Err(error), finished) => {
            if let Err(other) = finished {
                tracing::error!("{other}");
            }
            Err(error)
        }
    }
}

/// Makes a data directory and fills it. When that fails, the directory is empty again.
pub(super) fn datadir_at(
    vault: &Vault<'_>,
    datadir: &Path,
    way: Way<'_>,
    progress: &dyn Fn(String),
    stop: &AtomicBool,
) -> Result<(Filled, Vec<String>, Mysqld), RestoreError> {
    let (runtime, Way { at, route, means }) = (vault.runtime, way);
    progress(format!("making {}", datadir.display()));
    runtime.block_on(Mysqld::init(datadir, vault.tools, route.flavor))?;
    let options = MysqldOptions {
        datadir: datadir.to_owned(),
        role: Role::Scratch,
        server_id: SCRATCH_ID,
        flavor: route.flavor,
        socket: None,
        arguments: Vec::new(),
    };
    let result = runtime.block_on(Mysqld::start(options, vault.tools)).map_err(RestoreError::from);
    let result = result.and_then(|server| {
        let filled = vault.fill((route, means), &server.dsn(), progress, stop).and_then(|filled| {
            let prepared = runtime.block_on(settle(&server.dsn(), at, route.flavor))?;
            Ok((filled, prepared))
        });
        match filled {
            Ok((filled, prepared)) => Ok((filled, prepared, server)),
            Err(error) => {
                runtime.block_on(server.discard());
                Err(error)
            }
        }
    });
    if result.is_err() {
        server::empty(datadir);
    }
    result
}

/// What a server that follows from there would need to know; and what is left open.
async fn settle(dsn: &Dsn, at: &Stop, flavor: Flavor) -> Result<Vec<String>, RestoreError> {
    let mut sql = Sql::connect(dsn).await?;
    if flavor == Flavor::MariaDb {
        sql.run(&format!("SET GLOBAL gtid_slave_pos = {}", quote_text(&at.gtid.to_string()))).await?;
    }
    sql.run("SET GLOBAL innodb_flush_log_at_trx_commit = 1").await?;
    Ok(target::prepared_branches(&mut sql).await?)
}

/// Our account goes, the server ends in order, everything is on the disk.
fn close(vault: &Vault<'_>, server: Mysqld) -> Result<(), RestoreError> {
    let datadir = server.datadir().to_owned();
    vault.runtime.block_on(async {
        let mut sql = Sql::connect(&server.dsn()).await?;
        sql.run(&format!("DROP USER '{ACCOUNT}'@'localhost'")).await?;
        server.stop().await.map_err(RestoreError::from)
    })?;
    let synced = std::fs::File::open(&datadir).and_then(|directory| host::syncfs(directory.as_fd()));
    synced.map_err(|source| ServerError::File { what: "syncing", path: datadir, source }.into())
}
