//! The archive's end of the lane: what may be said and when. Time and messages in, actions out.

use super::append::{Append, End};
use bytes::Bytes;
use ehpc_proto::replication::database::{
    CREDIT, DATABASE_VERSION, DbAnswer, DbQuery, Mark, Place, ToArchive, ToSource,
};
use ehpc_proto::replication::wire::check::MAX_TEXT;
use std::time::Duration;

/// A source that says nothing for so long is gone. (It pings every 5 s.)
pub const DEAD_AFTER: Duration = Duration::from_secs(20);
/// The hello must come within this time.
pub const GREETING_WITHIN: Duration = Duration::from_secs(10);
/// Most questions that are not answered.
pub const QUESTIONS_MAX: usize = 64;
/// Returned credit is saved up to this, so that small pieces do not cost a message each.
const CREDIT_STEP: u64 = 1024 * 1024;

/// What the shell does, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Send this.
    Send(ToSource),
    /// Take charge of the archive, then call [`ArchiveSession::begun`].
    Begin,
    /// Append it; call [`ArchiveSession::written`] with its bytes, and [`ArchiveSession::durable`].
    Append(Append),
    /// Patches follow for this range; call [`ArchiveSession::answer`] when it is written, or cannot be.
    Refetch {
        /// The question.
        id: u64,
        /// Lineage.
        lineage: u32,
        /// File.
        ordinal: u32,
        /// First byte.
        from: u64,
        /// After the last.
        to: u64,
    },
    /// Bytes for it; call [`ArchiveSession::written`].
    Patch {
        /// The question.
        id: u64,
        /// Where.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// Keep it.
    Mark(Mark),
    /// Find the answer, then call [`ArchiveSession::answer`].
    Answer {
        /// The question.
        id: u64,
        /// What is asked.
        query: DbQuery,
    },
    /// Send what is to be sent, then close.
    End {
        /// For the log.
        reason: String,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Greeting,
    /// The hello is here; the archive says where it ends.
    Beginning,
    Open,
    Ended,
}

/// One connection, seen from the archive.
#[derive(Debug)]
pub struct ArchiveSession {
    phase: Phase,
    started: Duration,
    heard: Duration,
    /// Bytes that the source may still send.
    allowed: u64,
    /// Credit to be returned, saved up.
    returned: u64,
    /// What was told.
    durable: Place,
    questions: Vec<u64>,
}

impl ArchiveSession {
    /// A new connection at `now`.
    pub fn start(now: Duration) -> ArchiveSession {
        ArchiveSession {
            phase: Phase::Greeting,
            started: now,
            heard: now,
            allowed: CREDIT,
            returned: 0,
            durable: Place::default(),
            questions: Vec::new(),
        }
    }

    /// A message came.
    pub fn received(&mut self, now: Duration, message: ToArchive) -> Vec<Action> {
        self.heard = now;
        match (self.phase, message) {
            (Phase::Ended, _) => Vec::new(),
            (Phase::Greeting, ToArchive::Hello { version: DATABASE_VERSION, .. }) => {
                self.phase = Phase::Beginning;
                vec![Action::Begin]
            }
            (Phase::Greeting, ToArchive::Hello { version, .. }) => self.refuse(format!(
                "nfs1 speaks version {version} of the database's protocol, this backup {DATABASE_VERSION}: run the same \
                 version of ehpc-store on both"
            )),
            (Phase::Greeting, _) => self.refuse("the lane did not begin with a hello"),
            (Phase::Beginning, _) => self.refuse("nfs1 did not wait for the welcome"),
            (Phase::Open, message) => self.open_message(message),
        }
    }

    fn open_message(&mut self, message: ToArchive) -> Vec<Action> {
        match message {
            ToArchive::Hello { .. } => self.refuse("a second hello"),
            ToArchive::Open { lineage, name, ordinal, joined } => {
                vec![Action::Append(Append::Open { lineage, name, ordinal, joined })]
            }
            ToArchive::Bytes { offset, arrived, bytes } => match self.spend(bytes.len()) {
                Ok(()) => vec![Action::Append(Append::Bytes { offset, arrived, bytes })],
                Err(reason) => self.refuse(reason),
            },
            ToArchive::Closed { name, len } => vec![Action::Append(Append::Closed { name, len })],
            ToArchive::Mark(mark) => vec![Action::Mark(mark)],
            ToArchive::Ask { id, query } => {
                if self.questions.len() >= QUESTIONS_MAX || self.questions.contains(&id) {
                    return self.refuse(format!("question {id}: too many at once, or asked twice"));
                }
                self.questions.push(id);
                match query {
                    DbQuery::Refetch { lineage, ordinal, from, to } => {
                        vec![Action::Refetch { id, lineage, ordinal, from, to }]
                    }
                    query => vec![Action::Answer { id, query }],
                }
            }
            ToArchive::Patch { id, offset, bytes } => match self.spend(bytes.len()) {
                Ok(()) => vec![Action::Patch { id, offset, bytes }],
                Err(reason) => self.refuse(reason),
            },
            ToArchive::Ping(number) => vec![Action::Send(ToSource::Pong(number))],
        }
    }

    fn spend(&mut self, bytes: usize) -> Result<(), String> {
        let left = self.allowed.checked_sub(bytes as u64);
        self.allowed = left.ok_or_else(|| format!("{bytes} bytes, {} were allowed", self.allowed))?;
        Ok(())
    }

    /// The archive ends there.
    pub fn begun(&mut self, end: End) -> Vec<Action> {
        if self.phase != Phase::Beginning {
            return Vec::new();
        }
        self.phase = Phase::Open;
        if let Some(file) = &end.file {
            self.durable = Place { lineage: file.lineage, file: file.ordinal, offset: file.len };
        }
        let End { lineage, file, head, gtid } = end;
        let version = DATABASE_VERSION;
        vec![Action::Send(ToSource::Welcome { version, lineage, file, head, gtid, credit: CREDIT })]
    }

    /// So many bytes were taken from memory.
    pub fn written(&mut self, bytes: u64) -> Vec<Action> {
        self.returned += bytes;
        if self.returned < CREDIT_STEP {
            return Vec::new();
        }
        let bytes = std::mem::take(&mut self.returned);
        self.allowed += bytes;
        self.send(ToSource::Credit { bytes })
    }

    /// Everything before this place is on the disk.
    pub fn durable(&mut self, place: Place) -> Vec<Action> {
        if place <= self.durable {
            return Vec::new();
        }
        self.durable = place;
        self.send(ToSource::Durable(place))
    }

    /// An answer, or a part of it.
    pub fn answer(&mut self, id: u64, more: bool, mut answer: DbAnswer) -> Vec<Action> {
        if let DbAnswer::Failed { reason } = &mut answer {
            reason.truncate(reason.floor_char_boundary(MAX_TEXT));
        }
        if !self.questions.contains(&id) {
            return Vec::new();
        }
        if !more {
            self.questions.retain(|&open| open != id);
        }
        self.send(ToSource::Answer { id, more, answer })
    }

    /// Ends the session and tells the source why.
    pub fn refuse(&mut self, reason: impl Into<String>) -> Vec<Action> {
        if self.phase == Phase::Ended {
            return Vec::new();
        }
        let mut reason = reason.into();
        reason.truncate(reason.floor_char_boundary(MAX_TEXT));
        self.phase = Phase::Ended;
        vec![Action::Send(ToSource::Refused { reason: reason.clone() }), Action::End { reason }]
    }

    /// Time passed; called about once a second.
    pub fn tick(&mut self, now: Duration) -> Vec<Action> {
        let (limit, silent) = match self.phase {
            // To begin may take long: a file is read anew after a fault.
            Phase::Ended | Phase::Beginning => return Vec::new(),
            Phase::Greeting => (GREETING_WITHIN, now.saturating_sub(self.started)),
            Phase::Open => (DEAD_AFTER, now.saturating_sub(self.heard)),
        };
        if silent < limit {
            return Vec::new();
        }
        self.phase = Phase::Ended;
        vec![Action::End { reason: format!("nothing was heard for {} s", limit.as_secs()) }]
    }

    /// Is it welcomed and not over?
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    fn send(&self, message: ToSource) -> Vec<Action> {
        if self.phase == Phase::Open { vec![Action::Send(message)] } else { Vec::new() }
    }
}
