//! Where in the archive a replica begins: by file and position, or by what it has.

use super::feed::{Feed, FeedFile, FileFault, Head, head, limit};
use super::selection::Selection;
use ehpc_proto::binlog::gtid::parse_uuid;
use ehpc_proto::binlog::{Gtid, GtidState, MariaState, MySqlSet};
use ehpc_proto::replication::database::Place;
use std::fs::File;
use std::io;
use std::sync::Arc;

/// What a replica asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// A file (empty: the oldest) and an offset in it.
    Position {
        /// The server's name for it.
        file: String,
        /// Where, at least 4.
        position: u64,
    },
    /// What it has, and what it wants no more.
    Gtid {
        /// Everything that it has.
        state: GtidState,
        /// MariaDB's `START SLAVE UNTIL master_gtid_pos`.
        until: Option<MariaState>,
    },
}

/// A file that is being served.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Which.
    pub at: FeedFile,
    /// For reading.
    pub file: Arc<File>,
    /// Its beginning.
    pub head: Head,
}

/// Where to begin.
#[derive(Debug)]
pub struct Start {
    /// In this file.
    pub opened: Opened,
    /// The position that the replica is told, as it asked: 4 by GTID.
    pub position: u64,
    /// What it gets.
    pub selection: Selection,
}

/// Why a replica cannot be served. Texts are the servers' own where they have one: tools look for them.
#[derive(Debug, thiserror::Error)]
pub enum StartFault {
    /// Unknown or pruned.
    #[error("Could not find first log file name in binary log index file")]
    NoFile,
    /// Two servers gave files the same name.
    #[error(
        "the archive holds `{0}` of more than one server (a failover, RESET MASTER): a position does not say which. Start \
         by GTID, or initialise the standby again: ehpc-store db standby --init"
    )]
    Ambiguous(String),
    /// Behind the end, or before the first event.
    #[error("Client requested master to start replication from impossible position")]
    Position,
    /// Older than the archive.
    #[error(
        "Could not find GTID state requested by slave in any binlog files. Probably the slave state is too old and \
         required binlog files have been purged."
    )]
    TooOld,
    /// Newer than the archive.
    #[error("Error: connecting slave requested to start from GTID {0}, which is not in the master's binlog")]
    NotThere(Gtid),
    /// MySQL's replica has what its source has not.
    #[error("Slave has more GTIDs than the master has, using the master's SERVER_UUID")]
    MoreThanSource,
    /// A state of MariaDB for a log of MySQL or the reverse.
    #[error("the replica's GTIDs are of the other family (MariaDB, MySQL) than the archive's")]
    Family,
    /// A file.
    #[error(transparent)]
    File(#[from] FileFault),
    /// The list of files.
    #[error("the archive's directory: {0}")]
    Directory(io::Error),
    /// A replica before MySQL 5.6.
    #[error(
        "Slave can not handle replication events with the checksum that master is configured to log: it has not sent SET \
         @master_binlog_checksum"
    )]
    NoChecksums,
    /// A replica that does not know MariaDB's events.
    #[error("the replica's @mariadb_slave_capability is {0}; 4 is needed (MariaDB 10.0 and later)")]
    Capability(u32),
    /// The archive has just begun: not an answer, but a reason to come again.
    #[error("the archive has just begun")]
    NotYet,
}

/// Finds a replica's place. Reads the beginnings of files: not for an asynchronous thread.
///
/// # Errors
///
/// The archive has not what is asked for.
pub fn find(feed: &dyn Feed, request: Request, annotate: bool) -> Result<Start, StartFault> {
    match request {
        Request::Position { file, position } => by_position(feed, &file, position, annotate),
        Request::Gtid { state, until } => by_gtid(feed, state, until, annotate),
    }
}

/// Opens a file; `None` while not even its first event is durable.
///
/// # Errors
///
/// Not to be read, or damaged.
pub fn open(feed: &dyn Feed, at: &FeedFile, end: Place) -> Result<Option<Opened>, FileFault> {
    let failed = |error| FileFault::Io { name: at.name.clone(), error };
    let file = feed.open(at.lineage, at.file).map_err(failed)?;
    let (limit, _) = limit(feed, at, end)?;
    let head = head(&file, &at.name, limit)?;
    Ok(head.map(|head| Opened { at: at.clone(), file: Arc::new(file), head }))
}

fn by_position(feed: &dyn Feed, name: &str, position: u64, annotate: bool) -> Result<Start, StartFault> {
    let (end, _) = feed.end();
    let files = feed.files().map_err(StartFault::Directory)?;
    let mut named = files.iter().filter(|file| name.is_empty() || file.name == name);
    let at = named.next().ok_or(StartFault::NoFile)?;
    if !name.is_empty() && named.next().is_some() {
        return Err(StartFault::Ambiguous(name.to_owned()));
    }
    let opened = open(feed, at, end)?.ok_or(StartFault::NotYet)?;
    let (limit, _) = limit(feed, at, end)?;
    if position < 4 || position > limit || (4 < position && position < opened.head.body) {
        return Err(StartFault::Position);
    }
    Ok(Start { opened, position, selection: Selection::everything(annotate) })
}

fn by_gtid(
    feed: &dyn Feed,
    state: GtidState,
    until: Option<MariaState>,
    annotate: bool,
) -> Result<Start, StartFault> {
    let (end, newest) = feed.end();
    if state.flavor() != newest.flavor() {
        return Err(StartFault::Family);
    }
    ahead(feed, &state, &newest)?;
    let files = feed.files().map_err(StartFault::Directory)?;
    let mut known = false;
    for at in files.iter().rev() {
        let Some(opened) = open(feed, at, end)? else { continue };
        let Some(initial) = &opened.head.initial else { continue };
        known = true;
        if state.contains_all(initial) {
            let selection = Selection::by_gtid(state, Some(initial), until, annotate);
            return Ok(Start { position: 4, selection, opened });
        }
    }
    Err(if known { StartFault::TooOld } else { StartFault::NotYet })
}

/// A replica that has more than the archive must not go on: what it has would be missing in the log.
fn ahead(feed: &dyn Feed, state: &GtidState, newest: &GtidState) -> Result<(), StartFault> {
    match (state, newest) {
        (GtidState::Maria(state), GtidState::Maria(newest)) => {
            // A domain that the log never had belongs to another source of the same replica.
            let beyond = |gtid: &Gtid| newest.domain(gtid.domain).is_some() && !newest.contains(*gtid);
            state.iter().find(beyond).map_or(Ok(()), |gtid| Err(StartFault::NotThere(gtid)))
        }
        (GtidState::MySql(state), GtidState::MySql(newest)) => {
            let uuid = feed.identity().and_then(|identity| identity.server_uuid);
            let Some(sid) = uuid.as_deref().and_then(parse_uuid) else { return Ok(()) };
            let mut own = MySqlSet::default();
            for (_, intervals) in state.iter().filter(|(of, _)| **of == sid) {
                intervals.iter().for_each(|(first, last)| own.add_interval(sid, *first, *last));
            }
            if newest.contains_all(&own) { Ok(()) } else { Err(StartFault::MoreThanSource) }
        }
        _ => Ok(()),
    }
}
