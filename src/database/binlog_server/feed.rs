//! What the binlog server reads: files of the archive, never past what is durable.

use super::answers::Identity;
use crate::database::link::BoxFuture;
use ehpc_proto::binlog::{
    Event, FileScan, FormatDescription, Group, GroupFault, Grouper, GtidState, Kind, ScanFault,
};
use ehpc_proto::replication::database::Place;
use std::cmp::Ordering;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A file of the archive.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FeedFile {
    /// Its lineage.
    pub lineage: u32,
    /// Its ordinal there.
    pub file: u32,
    /// The server's name for it.
    pub name: String,
}

impl FeedFile {
    /// Where it stands in the history.
    pub fn key(&self) -> (u32, u32) {
        (self.lineage, self.file)
    }
}

/// An archive that grows at its end.
pub trait Feed: Send + Sync + 'static {
    /// The server that wrote the newest lineage; `None` while the archive is empty.
    fn identity(&self) -> Option<Identity>;
    /// Everything before this place is durable (it is the end of an event), and the GTID state there.
    fn end(&self) -> (Place, GtidState);
    /// Resolves with the new end once it is past `place`.
    fn past(&self, place: Place) -> BoxFuture<'_, Place>;
    /// The files in order, oldest first.
    fn files(&self) -> io::Result<Vec<FeedFile>>;
    /// Durable bytes of one. Only the newest one grows.
    fn length(&self, lineage: u32, file: u32) -> io::Result<u64>;
    /// Opens one for reading; it may have bytes that are not durable.
    fn open(&self, lineage: u32, file: u32) -> io::Result<File>;
}

/// Why a file of the archive cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum FileFault {
    /// The disk.
    #[error("{name}: {error}")]
    Io {
        /// The file.
        name: String,
        /// What.
        error: io::Error,
    },
    /// Its bytes.
    #[error(
        "{name} in the archive is damaged: {fault}; `ehpc-store verify --database --repair` fetches it again"
    )]
    Scan {
        /// The file.
        name: String,
        /// What.
        fault: ScanFault,
    },
    /// Its events.
    #[error("{name} in the archive: {fault}")]
    Group {
        /// The file.
        name: String,
        /// What.
        fault: GroupFault,
    },
}

/// How far a file may be read, and whether it ends there for good.
///
/// # Errors
///
/// It is not in the archive any more.
pub fn limit(feed: &dyn Feed, at: &FeedFile, end: Place) -> Result<(u64, bool), FileFault> {
    match (end.lineage, end.file).cmp(&at.key()) {
        Ordering::Equal => Ok((end.offset, false)),
        Ordering::Less => Ok((0, false)),
        Ordering::Greater => match feed.length(at.lineage, at.file) {
            Ok(length) => Ok((length, true)),
            Err(error) => Err(FileFault::Io { name: at.name.clone(), error }),
        },
    }
}

/// Bytes that a file is read in.
pub const BLOCK: usize = 256 * 1024;

/// A file's beginning.
#[derive(Clone, Debug)]
pub struct Head {
    /// Its first event.
    pub format: FormatDescription,
    /// Where the second event begins.
    pub body: u64,
    /// What happened before the file; `None` when the file does not say (MySQL before GTIDs) or has not come that far.
    pub initial: Option<GtidState>,
}

/// Reads a file's beginning, up to its first group; `None` when not even the first event is there.
///
/// # Errors
///
/// Not to be read, or damaged.
pub fn head(file: &File, name: &str, limit: u64) -> Result<Option<Head>, FileFault> {
    let mut found: Option<Head> = None;
    walk(file, name, limit, |event, _, grouper| match (event.header.kind, &mut found) {
        (Kind::FORMAT_DESCRIPTION, _) => {
            let bytes = [&event.header.encode()[..], event.body].concat();
            let format = FormatDescription::decode(&bytes).ok();
            found = format.map(|format| Head { format, body: event.end(), initial: None });
            true
        }
        (Kind::GTID_LIST | Kind::PREVIOUS_GTIDS, Some(head)) => {
            head.initial = grouper.initial().cloned();
            false
        }
        _ => false,
    })?;
    Ok(found)
}

/// The GTID state at `offset` of a file: what its beginning says and the groups that end before. `None` when the file
/// does not say.
///
/// # Errors
///
/// Not to be read, or damaged.
pub fn state_at(file: &File, name: &str, offset: u64) -> Result<Option<GtidState>, FileFault> {
    let mut state: Option<GtidState> = None;
    walk(file, name, offset, |_, group, grouper| {
        if state.is_none() {
            state = grouper.initial().cloned();
        }
        if let (Some(state), Some(gtid)) = (&mut state, group.and_then(|group| group.gtid)) {
            state.add(&gtid);
        }
        true
    })?;
    Ok(state)
}

/// Reads a file's events up to `limit` or until `each` says that it is enough.
fn walk(
    file: &File,
    name: &str,
    limit: u64,
    mut each: impl FnMut(&Event<'_>, Option<Group>, &Grouper) -> bool,
) -> Result<(), FileFault> {
    let name = || name.to_owned();
    let (mut scan, mut grouper) = (FileScan::new(), Grouper::new());
    let mut block = vec![0; BLOCK];
    while scan.position() < limit {
        let wanted = usize::try_from(limit - scan.position()).unwrap_or(BLOCK).min(BLOCK);
        let read = file.read_at(&mut block[..wanted], scan.position());
        let mut piece = match read {
            Ok(0) => return Ok(()),
            Ok(read) => &block[..read],
            Err(error) => return Err(FileFault::Io { name: name(), error }),
        };
        while let Some(event) =
            scan.next(&mut piece).map_err(|fault| FileFault::Scan { name: name(), fault })?
        {
            let group = grouper.event(&event).map_err(|fault| FileFault::Group { name: name(), fault })?;
            if !each(&event, group, &grouper) {
                return Ok(());
            }
        }
    }
    Ok(())
}
