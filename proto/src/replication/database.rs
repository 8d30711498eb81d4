//! Messages of the database's lane (`ehpc-db/1`): the binary log on its way to the archive, marks, questions.
//!
//! nfs1 opens with a hello, the backup's welcome says where its archive ends, and from there on nfs1 ships bytes. What
//! is on the backup's disk is reported by [`ToSource::Durable`]. Base snapshots travel in a connection of their own.

use super::state::{Hash, Timestamp};
pub use crate::binlog::Flavor;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Version of this protocol; both sides must name the same.
pub const DATABASE_VERSION: u32 = 1;
/// Most bytes in one [`ToArchive::Bytes`] or [`ToArchive::Patch`].
pub const MAX_PIECE: usize = 256 * 1024;
/// Bytes sent and not yet durable that an archive allows: what a credit starts with. A piece costs its length.
pub const CREDIT: u64 = 32 * 1024 * 1024;

/// A place in an archive. Places are ordered as the history is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Place {
    /// Number of the lineage; the first is 1.
    pub lineage: u32,
    /// Ordinal of the file in its lineage; the first is 1.
    pub file: u32,
    /// Bytes of that file before the place.
    pub offset: u64,
}

/// One server's unbroken sequence of binary log files. Another server, or a gap, begins another lineage.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lineage {
    /// 1, 2, 3, ...
    pub number: u32,
    /// MariaDB or MySQL.
    pub flavor: Flavor,
    /// `@@server_id`.
    pub server_id: u32,
    /// `@@server_uuid` (MySQL).
    pub server_uuid: Option<[u8; 16]>,
    /// `@@version`.
    pub version: String,
    /// Name of its first file.
    pub first_file: String,
    /// Header of that file's format description event: with the server's id, when the file was made.
    pub first_event: [u8; 19],
}

/// Where the history of an earlier lineage goes on in a new one (a failover).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Joined {
    /// Where the old lineage ends.
    pub end: Place,
    /// GTID state there: what the new lineage holds of it is not applied twice.
    pub gtid: String,
}

/// nfs1 to backup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ToArchive {
    /// First message; answered by [`ToSource::Welcome`].
    Hello {
        /// [`DATABASE_VERSION`].
        version: u32,
        /// The server as the settings name it, for logs.
        source: String,
    },
    /// A new file begins; its bytes follow from offset 0.
    Open {
        /// The archive's newest lineage, word for word, or a new one numbered one higher.
        lineage: Lineage,
        /// Name of the file on the server ([`name_is_valid`]).
        name: String,
        /// One more than the file before it; 1 in a new lineage.
        ordinal: u32,
        /// In a new lineage that follows an earlier one.
        joined: Option<Joined>,
    },
    /// Bytes of the open file. They may end anywhere in an event.
    Bytes {
        /// Must be where the archive ends.
        offset: u64,
        /// When they left the server, by nfs1's clock. Zero: not live (a backlog): the events' own time counts.
        arrived: Timestamp,
        /// 1 to [`MAX_PIECE`]; they follow the message (`wire`).
        #[serde(skip)]
        bytes: Bytes,
    },
    /// The server went on to another file; this one is complete.
    Closed {
        /// The open file.
        name: String,
        /// Its length.
        len: u64,
    },
    /// Database and files at one moment.
    Mark(Mark),
    /// A question; answered by [`ToSource::Answer`] with the same `id`.
    Ask {
        /// Chosen by the asker, unique within the connection.
        id: u64,
        /// The question.
        query: DbQuery,
    },
    /// Bytes for an open [`DbQuery::Refetch`], in order. They cost credit, too.
    Patch {
        /// Of the question.
        id: u64,
        /// Offset in the file; must follow the patch before.
        offset: u64,
        /// 1 to [`MAX_PIECE`]; they follow the message (`wire`).
        #[serde(skip)]
        bytes: Bytes,
    },
    /// Keeps the connection alive; answered by [`ToSource::Pong`].
    Ping(u64),
}

/// Backup to nfs1.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ToSource {
    /// Answer to the hello: where the archive ends.
    Welcome {
        /// [`DATABASE_VERSION`].
        version: u32,
        /// The newest lineage; `None`: the archive is empty.
        lineage: Option<Lineage>,
        /// Its last file; `None`: no file was begun yet.
        file: Option<ArchivedFile>,
        /// First bytes of that file (magic and format description event), at most [`MAX_HEAD`]: whether the server
        /// there is still the same.
        head: Vec<u8>,
        /// GTID state at the end, as text (see `binlog::gtid`); empty when there is none.
        gtid: String,
        /// Bytes that may be on their way.
        credit: u64,
    },
    /// Everything before this place is on disk. Always the end of an event.
    Durable(Place),
    /// So many bytes are written and may be sent anew.
    Credit {
        /// Bytes.
        bytes: u64,
    },
    /// Answer to [`ToArchive::Ask`].
    Answer {
        /// The asker's id.
        id: u64,
        /// More parts follow under this id.
        more: bool,
        /// The answer, or this part of it.
        answer: DbAnswer,
    },
    /// The connection ends here, and why.
    Refused {
        /// For the operator.
        reason: String,
    },
    /// Answer to [`ToArchive::Ping`].
    Pong(u64),
}

/// Longest [`ToSource::Welcome::head`], bytes.
pub const MAX_HEAD: usize = 1024;

/// A file of the archive.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ArchivedFile {
    /// Number of its lineage.
    pub lineage: u32,
    /// Ordinal in the lineage.
    pub ordinal: u32,
    /// The server's name for it.
    pub name: String,
    /// Durable bytes.
    pub len: u64,
    /// The server went on to another file.
    pub closed: bool,
}

/// What nfs1 may ask of the archive.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DbQuery {
    /// Files from this one on (lineage, ordinal), in order, at most [`MAX_FILES`]; answered by [`DbAnswer::Files`].
    Files {
        /// Inclusive lower bound.
        from: (u32, u32),
    },
    /// BLAKE3 of a range of a file; answered by [`DbAnswer::Hash`].
    Hash {
        /// Lineage.
        lineage: u32,
        /// File.
        ordinal: u32,
        /// First byte.
        from: u64,
        /// After the last byte; not past what is durable.
        to: u64,
    },
    /// The range is damaged: [`ToArchive::Patch`]es with these bytes follow, and take its place when all are there and
    /// hold whole, undamaged events; answered by [`DbAnswer::Refetched`]. Only in closed files, and both bounds are
    /// borders of events.
    Refetch {
        /// Lineage.
        lineage: u32,
        /// File.
        ordinal: u32,
        /// First byte.
        from: u64,
        /// After the last byte.
        to: u64,
    },
    /// The newest base snapshot that is kept; answered by [`DbAnswer::NewestBase`].
    NewestBase,
    /// One statement on a connection of the asker's own to the standby, which is made at its first use (`verify` compares
    /// the standby with the primary); answered by [`DbAnswer::Rows`], in parts, or [`DbAnswer::SqlFailed`].
    StandbySql {
        /// Chosen by the asker, at random.
        session: u64,
        /// 1 to [`MAX_STATEMENT`] bytes.
        statement: String,
    },
    /// That connection is not needed any more; answered by an empty [`DbAnswer::Rows`].
    StandbyClose {
        /// As chosen.
        session: u64,
    },
    /// Reads a file of the archive and checks every event of it; answered by [`DbAnswer::Checked`].
    Check {
        /// Lineage.
        lineage: u32,
        /// File.
        ordinal: u32,
    },
    /// A restore drill: the newest base snapshot and the archive, in a server that is there for nothing else and then follows
    /// the archive; answered by [`DbAnswer::Drill`].
    Drill {
        /// Chosen by the asker, at random.
        drill: u64,
        /// What to do with it. A drill that nobody looks at for a while ends by itself.
        step: DrillStep,
    },
    /// As [`DbQuery::StandbySql`], on the server of the running drill.
    DrillSql {
        /// Chosen by the asker, at random.
        session: u64,
        /// 1 to [`MAX_STATEMENT`] bytes.
        statement: String,
    },
    /// As [`DbQuery::StandbyClose`], of such a session.
    DrillClose {
        /// As chosen.
        session: u64,
    },
}

/// What to do with a drill.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DrillStep {
    /// Start it.
    Begin,
    /// Tell how far it is.
    Look,
    /// End it; answered when its server and files are gone.
    End,
}

/// Where a drill stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DrillState {
    /// It restores; what it does now, for a person.
    Working(String),
    /// The restored server follows the archive, and can be compared.
    Ready(Drilled),
    /// It was not restored, and why: something of that machine, or it was stopped.
    Failed(String),
    /// There is no such drill (any more).
    Ended,
    /// What the backup holds cannot be restored, and why.
    Unsound(String),
}

/// What a drill has restored.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Drilled {
    /// Number of the base snapshot that it began with.
    pub base: u64,
    /// Name of the last binary log file that was applied.
    pub file: String,
    /// Where it stopped in that file.
    pub offset: u64,
    /// GTID state there.
    pub gtid: String,
    /// Tables that were compared with the sums recorded when the base was taken.
    pub recorded: u64,
    /// Those that were not equal to them, in words; at most [`MAX_DAMAGE`].
    pub differences: Vec<String>,
    /// Why none was compared, or not as much of each as usual.
    pub compared_note: Option<String>,
    /// Tables whose history (`WITH SYSTEM VERSIONING`) the base does not hold; at most [`MAX_DAMAGE`].
    pub lacks_history: Vec<String>,
    /// XA branches that the binary log ends and never prepares: what they changed is in no log; at most [`MAX_DAMAGE`].
    pub unlogged_branches: Vec<String>,
    /// How long restoring took.
    pub millis: u64,
}

/// Longest statement of [`DbQuery::StandbySql`], bytes.
pub const MAX_STATEMENT: usize = 1024 * 1024;
/// Most columns of [`DbAnswer::Rows`].
pub const MAX_COLUMNS: usize = 1024;
/// Most bytes of values in one [`DbAnswer::Rows`].
pub const MAX_ROWS_BYTES: usize = 4 * 1024 * 1024;
/// Most damaged places in one answer.
pub const MAX_DAMAGE: usize = 1000;

/// A damaged place of a file of the archive.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ArchiveDamage {
    /// Where its events stop being sound; `None`: somewhere.
    pub at: Option<u64>,
    /// In words.
    pub reason: String,
}

/// A row of an answer: the columns' bytes, `None` for NULL.
pub type SqlRow = Vec<Option<Vec<u8>>>;

/// A base snapshot, as far as its next one depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NewestBase {
    /// Its number.
    pub number: u64,
    /// When it was taken.
    pub taken_at: Timestamp,
    /// The lineage that it belongs to.
    pub lineage: u32,
}

/// Most files in one answer.
pub const MAX_FILES: usize = 4_096;

/// Answers to [`DbQuery`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DbAnswer {
    /// In order; empty: there are no more.
    Files(Vec<ArchivedFile>),
    /// BLAKE3 of the range.
    Hash(Hash),
    /// The range is written anew, on disk.
    Refetched,
    /// It cannot be answered, and why.
    Failed {
        /// For a person.
        reason: String,
    },
    /// The newest base; `None`: there is none.
    NewestBase(Option<NewestBase>),
    /// Rows of a statement. Its parts follow one another, each with the columns' names.
    Rows {
        /// At most [`MAX_COLUMNS`].
        columns: Vec<String>,
        /// At most [`MAX_ROWS_BYTES`] of values; each row has as many values as there are columns.
        rows: Vec<SqlRow>,
    },
    /// The server refused a statement (a number other than 0), or cannot be reached (0).
    SqlFailed {
        /// The server's error number.
        number: u16,
        /// Its text.
        text: String,
    },
    /// What is wrong with a file of the archive; empty: nothing.
    Checked(Vec<ArchiveDamage>),
    /// Where the drill stands.
    Drill(DrillState),
}

/// Database and files at one moment: a transaction at or before `place` has its files in the cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mark {
    /// nfs1's clock.
    pub time: Timestamp,
    /// End of a group in the archive.
    pub place: Place,
    /// Batch of the files' stream that holds the cut.
    pub batch: u64,
    /// The cut (`change::Fence`).
    pub cut: u64,
    /// Why it was made.
    pub kind: MarkKind,
}

/// Why a mark was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum MarkKind {
    /// Time for one.
    Periodic,
    /// Somebody asked for a fence and waited.
    Fence,
}

/// Longest name of a binary log file, bytes.
pub const MAX_NAME: usize = 255;

/// Is this a name that a server gives its binary logs, and harmless as the name of a file? `BASE.DIGITS`, of letters,
/// digits, `_`, `-` and `.`, without a leading dot.
pub fn name_is_valid(name: &str) -> bool {
    let harmless = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    let numbered = name.rsplit_once('.').is_some_and(|(base, number)| {
        !base.is_empty() && (1..=10).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit())
    });
    name.len() <= MAX_NAME && !name.starts_with('.') && name.bytes().all(harmless) && numbered
}
