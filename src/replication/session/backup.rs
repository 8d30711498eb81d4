//! The backup's end.

use super::{BATCHES_IN_FLIGHT, CREDIT, CREDIT_STEP, DEAD_AFTER, GREETING_WITHIN, QUESTIONS_IN_FLIGHT, cost};
use crate::replication::link::Hello;
use bytes::Bytes;
use ehpc_proto::replication::message::{Answer, Blob, PROTOCOL_VERSION, Query, ToBackup, ToPrimary};
use ehpc_proto::replication::{Batch, Hash, Position, wire};
use std::time::Duration;

/// What the shell does for the session, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Send this.
    Send(ToPrimary),
    /// Look up where the history stands, then call [`BackupSession::greeted`].
    Greet(Hello),
    /// Find out which are lacking, then call [`BackupSession::lacking`]; look-ups are answered in order.
    Lookup(Vec<Hash>),
    /// Store them, then call [`BackupSession::written`] with their cost.
    Store(Vec<Blob>),
    /// Append it, after everything that was to be stored before; when it is on disk call [`BackupSession::durable`].
    Append {
        /// As it travelled.
        encoded: Bytes,
        /// Decoded and checked.
        batch: Batch,
    },
    /// Find the answer, then call [`BackupSession::answer`], once or in parts; answers may overtake each other.
    Answer {
        /// The asker's.
        id: u64,
        /// The question.
        query: Query,
    },
    /// Send what is to be sent, then close.
    End {
        /// For the log.
        reason: String,
    },
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// Waiting for the hello.
    Greeting,
    /// The hello is here, the history is being looked at.
    Looking {
        hello: Hello,
    },
    Open,
    Ended,
}

/// One connection, seen from the backup.
#[derive(Debug)]
pub struct BackupSession {
    phase: Phase,
    started: Duration,
    heard: Duration,
    /// Blob bytes that the primary may still send.
    allowed: u64,
    /// Credit to be returned, saved up.
    returned: u64,
    /// Last batch that was given to the store, and what the next must chain on.
    appended: Option<Position>,
    acked: u64,
    lookups: usize,
    questions: Vec<u64>,
}

impl BackupSession {
    /// A new connection at `now`.
    pub fn start(now: Duration) -> BackupSession {
        BackupSession {
            phase: Phase::Greeting,
            started: now,
            heard: now,
            allowed: CREDIT,
            returned: 0,
            appended: None,
            acked: 0,
            lookups: 0,
            questions: Vec::new(),
        }
    }

    /// A message came.
    pub fn received(&mut self, now: Duration, message: ToBackup) -> Vec<Action> {
        self.heard = now;
        match (&self.phase, message) {
            (Phase::Ended, _) => Vec::new(),
            (Phase::Greeting, ToBackup::Hello { version, export, stream, position }) => {
                if version != PROTOCOL_VERSION {
                    return self.refuse(format!(
                        "the primary speaks version {version} of the replication protocol, this backup \
                         {PROTOCOL_VERSION}: run the same version of ehpc-store on both"
                    ));
                }
                let hello = Hello { export, stream, position };
                self.phase = Phase::Looking { hello: hello.clone() };
                vec![Action::Greet(hello)]
            }
            (Phase::Greeting, _) => self.refuse("the link did not begin with a hello".to_owned()),
            (Phase::Looking { .. }, _) => self.refuse("the primary did not wait for the welcome".to_owned()),
            (Phase::Open, message) => self.open_message(message),
        }
    }

    /// A batch came that is decoded already (so that the shell may do that elsewhere).
    pub fn received_batch(&mut self, now: Duration, encoded: Bytes, batch: Batch) -> Vec<Action> {
        self.heard = now;
        match self.phase {
            Phase::Ended => Vec::new(),
            Phase::Open => self.batch(encoded, batch),
            _ => self.refuse("the link did not begin with a hello".to_owned()),
        }
    }

    /// The history stands at `position`; `shadow_known` if it contains the hello's position.
    pub fn greeted(&mut self, position: Option<Position>, shadow_known: bool) -> Vec<Action> {
        let Phase::Looking { hello } = &self.phase else { return Vec::new() };
        let appended = position.unwrap_or_else(|| Position::start(hello.stream));
        let shadow_known = shadow_known && hello.position.is_some() && position.is_some();
        self.acked = appended.number;
        self.appended = Some(appended);
        self.phase = Phase::Open;
        let version = PROTOCOL_VERSION;
        vec![Action::Send(ToPrimary::Welcome { version, position, shadow_known, credit: CREDIT })]
    }

    /// The oldest look-up is answered.
    pub fn lacking(&mut self, flags: Vec<bool>) -> Vec<Action> {
        self.lookups = self.lookups.saturating_sub(1);
        self.send(ToPrimary::Lacking(flags))
    }

    /// Blobs of this cost were written.
    pub fn written(&mut self, cost: u64) -> Vec<Action> {
        self.returned += cost;
        if self.returned < CREDIT_STEP || self.phase != Phase::Open {
            return Vec::new();
        }
        let bytes = std::mem::take(&mut self.returned);
        self.allowed += bytes;
        self.send(ToPrimary::Credit { bytes })
    }

    /// Everything up to this batch is on disk.
    pub fn durable(&mut self, number: u64) -> Vec<Action> {
        let appended = self.appended.map_or(0, |position| position.number);
        if number <= self.acked || number > appended {
            return Vec::new();
        }
        self.acked = number;
        self.send(ToPrimary::Ack { number })
    }

    /// An answer, or a part of it.
    pub fn answer(&mut self, id: u64, more: bool, mut answer: Answer) -> Vec<Action> {
        if let Answer::Failed { reason } = &mut answer {
            reason.truncate(reason.floor_char_boundary(wire::check::MAX_TEXT));
        }
        if !self.questions.contains(&id) {
            return Vec::new();
        }
        if !more {
            self.questions.retain(|&open| open != id);
        }
        self.send(ToPrimary::Answer { id, more, answer })
    }

    /// Ends the session and tells the primary why.
    pub fn refuse(&mut self, mut reason: String) -> Vec<Action> {
        if self.phase == Phase::Ended {
            return Vec::new();
        }
        reason.truncate(reason.floor_char_boundary(wire::check::MAX_TEXT));
        self.phase = Phase::Ended;
        vec![Action::Send(ToPrimary::Refused { reason: reason.clone() }), Action::End { reason }]
    }

    /// Time passed; called about once a second.
    pub fn tick(&mut self, now: Duration) -> Vec<Action> {
        let (limit, what) = match self.phase {
            Phase::Ended => return Vec::new(),
            Phase::Greeting | Phase::Looking { .. } => (GREETING_WITHIN, now.saturating_sub(self.started)),
            Phase::Open => (DEAD_AFTER, now.saturating_sub(self.heard)),
        };
        if what < limit {
            return Vec::new();
        }
        self.phase = Phase::Ended;
        vec![Action::End { reason: format!("nothing was heard for {} s", limit.as_secs()) }]
    }

    /// Is it welcomed and not over?
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    fn send(&self, message: ToPrimary) -> Vec<Action> {
        if self.phase == Phase::Open { vec![Action::Send(message)] } else { Vec::new() }
    }

    fn open_message(&mut self, message: ToBackup) -> Vec<Action> {
        match message {
            ToBackup::Hello { .. } => self.refuse("a second hello".to_owned()),
            ToBackup::Offer { hashes } => {
                if self.lookups >= QUESTIONS_IN_FLIGHT {
                    return self.refuse("too many offers at once".to_owned());
                }
                self.lookups += 1;
                vec![Action::Lookup(hashes)]
            }
            ToBackup::Blobs(blobs) => {
                let cost = cost(&blobs);
                if cost > self.allowed {
                    return self.refuse(format!("blobs of {cost} bytes, {} were allowed", self.allowed));
                }
                self.allowed -= cost;
                vec![Action::Store(blobs)]
            }
            ToBackup::Batch(encoded) => match wire::decode_batch(&encoded) {
                Ok(batch) => self.batch(encoded, batch),
                Err(error) => self.refuse(error.to_string()),
            },
            ToBackup::Ask { id, query } => {
                if self.questions.len() >= QUESTIONS_IN_FLIGHT || self.questions.contains(&id) {
                    return self.refuse(format!("question {id}: too many at once, or asked twice"));
                }
                self.questions.push(id);
                vec![Action::Answer { id, query }]
            }
            ToBackup::Ping(number) => self.send(ToPrimary::Pong(number)),
        }
    }

    fn batch(&mut self, encoded: Bytes, batch: Batch) -> Vec<Action> {
        let Some(last) = self.appended else { return self.refuse("a batch before the welcome".to_owned()) };
        if batch.number != last.number + 1 {
            return self.refuse(format!(
                "batch {} is out of order: this backup has {} and expects {}",
                batch.number,
                last.number,
                last.number + 1
            ));
        }
        if batch.previous != last.chain {
            return self.refuse(format!(
                "batch {} does not follow batch {} of this backup: it belongs to another stream or history",
                batch.number, last.number
            ));
        }
        if batch.number - self.acked > BATCHES_IN_FLIGHT as u64 {
            return self.refuse(format!("batch {}: more than {BATCHES_IN_FLIGHT} in flight", batch.number));
        }
        let chain = wire::chain(&encoded);
        self.appended = Some(Position { stream: last.stream, number: batch.number, chain });
        vec![Action::Append { encoded, batch }]
    }
}
