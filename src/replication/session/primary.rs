//! The primary's end.

use super::{
    BATCH_BYTES_IN_FLIGHT, BATCHES_IN_FLIGHT, DEAD_AFTER, GREETING_WITHIN, LEAST_CREDIT, PING_AFTER,
    QUESTIONS_IN_FLIGHT,
};
use crate::replication::link::{Hello, LinkDown, Welcome};
use ehpc_proto::replication::message::{Answer, PROTOCOL_VERSION, ToBackup, ToPrimary};
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// What a message means for those who wait.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The session is open.
    Welcome(Welcome),
    /// Answer to the offer with this ticket, in order of offers.
    Lacking {
        /// As [`PrimarySession::offer`] gave it.
        ticket: u64,
        /// One a hash, true = send it.
        flags: Vec<bool>,
    },
    /// Everything up to this batch is durable on the backup.
    Acked(u64),
    /// There is more credit.
    Credit,
    /// An answer, or a part of it.
    Answer {
        /// As [`PrimarySession::ask`] gave it.
        id: u64,
        /// More parts follow.
        more: bool,
        /// The answer.
        answer: Answer,
    },
    /// The session is over.
    Down(LinkDown),
}

/// What is due.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Tick {
    /// Nothing.
    Quiet,
    /// Send this.
    Send(ToBackup),
    /// The session is over.
    Down(LinkDown),
}

#[derive(Debug)]
enum Phase {
    Greeting { started: Duration },
    Open,
    Ended(LinkDown),
}

/// One connection, seen from the primary.
#[derive(Debug)]
pub struct PrimarySession {
    phase: Phase,
    hello: Hello,
    heard: Duration,
    pinged: Duration,
    pings: u64,
    credit: u64,
    credit_limit: u64,
    last_sent: u64,
    acked: u64,
    in_flight: VecDeque<(u64, usize)>,
    bytes_in_flight: usize,
    next_ticket: u64,
    /// Offers not answered: ticket, hashes.
    offers: VecDeque<(u64, usize)>,
    next_question: u64,
    questions: BTreeSet<u64>,
}

impl PrimarySession {
    /// A new connection at `now`, and what to send first.
    pub fn start(now: Duration, hello: Hello) -> (PrimarySession, ToBackup) {
        let first = ToBackup::Hello {
            version: PROTOCOL_VERSION,
            export: hello.export.clone(),
            stream: hello.stream,
            position: hello.position,
        };
        let session = PrimarySession {
            phase: Phase::Greeting { started: now },
            hello,
            heard: now,
            pinged: now,
            pings: 0,
            credit: 0,
            credit_limit: 0,
            last_sent: 0,
            acked: 0,
            in_flight: VecDeque::new(),
            bytes_in_flight: 0,
            next_ticket: 0,
            offers: VecDeque::new(),
            next_question: 0,
            questions: BTreeSet::new(),
        };
        (session, first)
    }

    /// Is it open? An error if it is over.
    pub fn check(&self) -> Result<bool, LinkDown> {
        match &self.phase {
            Phase::Greeting { .. } => Ok(false),
            Phase::Open => Ok(true),
            Phase::Ended(why) => Err(why.clone()),
        }
    }

    /// Takes credit for blobs of this [`super::cost`]; false = wait for [`Event::Credit`].
    pub fn take_credit(&mut self, cost: u64) -> Result<bool, LinkDown> {
        self.open()?;
        if cost > self.credit {
            return Ok(false);
        }
        self.credit -= cost;
        Ok(true)
    }

    /// A batch of `len` bytes is about to be sent; false = wait for [`Event::Acked`].
    pub fn batch(&mut self, number: u64, len: usize) -> Result<bool, LinkDown> {
        self.open()?;
        if number != self.last_sent + 1 {
            let reason = format!("batch {number} was to be sent after batch {}", self.last_sent);
            return Err(self.end(LinkDown::Protocol { reason }));
        }
        let room = self.in_flight.is_empty() || self.bytes_in_flight + len <= BATCH_BYTES_IN_FLIGHT;
        if self.in_flight.len() >= BATCHES_IN_FLIGHT || !room {
            return Ok(false);
        }
        self.last_sent = number;
        self.bytes_in_flight += len;
        self.in_flight.push_back((number, len));
        Ok(true)
    }

    /// An offer of `count` hashes is about to be sent: its ticket; `None` = too many are open.
    pub fn offer(&mut self, count: usize) -> Result<Option<u64>, LinkDown> {
        self.open()?;
        if self.offers.len() >= QUESTIONS_IN_FLIGHT {
            return Ok(None);
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.offers.push_back((ticket, count));
        Ok(Some(ticket))
    }

    /// A question is about to be asked: its id; `None` = too many are open.
    pub fn ask(&mut self) -> Result<Option<u64>, LinkDown> {
        self.open()?;
        if self.questions.len() >= QUESTIONS_IN_FLIGHT {
            return Ok(None);
        }
        self.next_question += 1;
        self.questions.insert(self.next_question);
        Ok(Some(self.next_question))
    }

    /// A message came. `None`: it concerns nobody.
    pub fn received(&mut self, now: Duration, message: ToPrimary) -> Option<Event> {
        self.heard = now;
        match (&self.phase, message) {
            (Phase::Ended(_), _) => None,
            (_, ToPrimary::Refused { reason }) => Some(Event::Down(self.end(LinkDown::Refused { reason }))),
            (Phase::Greeting { .. }, ToPrimary::Welcome { version, position, shadow_known, credit }) => {
                Some(self.welcome(version, Welcome { position, shadow_known }, credit))
            }
            (Phase::Greeting { .. }, _) => Some(self.violation("it did not begin with a welcome".to_owned())),
            (Phase::Open, message) => self.open_message(message),
        }
    }

    /// Time passed; called about once a second.
    pub fn tick(&mut self, now: Duration) -> Tick {
        let silent = now.saturating_sub(self.heard);
        match self.phase {
            Phase::Ended(_) => Tick::Quiet,
            Phase::Greeting { started } if now.saturating_sub(started) >= GREETING_WITHIN => {
                let reason = format!("no welcome within {} s", GREETING_WITHIN.as_secs());
                Tick::Down(self.end(LinkDown::Lost { reason }))
            }
            Phase::Greeting { .. } => Tick::Quiet,
            Phase::Open if silent >= DEAD_AFTER => {
                let reason = format!("nothing was heard for {} s", DEAD_AFTER.as_secs());
                Tick::Down(self.end(LinkDown::Lost { reason }))
            }
            Phase::Open if silent >= PING_AFTER && now.saturating_sub(self.pinged) >= PING_AFTER => {
                self.pinged = now;
                self.pings += 1;
                Tick::Send(ToBackup::Ping(self.pings))
            }
            Phase::Open => Tick::Quiet,
        }
    }

    /// The connection broke, or this side gives it up. Returns why the session is over.
    pub fn end(&mut self, why: LinkDown) -> LinkDown {
        if let Phase::Ended(first) = &self.phase {
            return first.clone();
        }
        self.phase = Phase::Ended(why.clone());
        why
    }

    /// Batches sent and not acknowledged.
    pub fn batches_in_flight(&self) -> usize {
        self.in_flight.len()
    }

    fn open(&mut self) -> Result<(), LinkDown> {
        match self.check()? {
            true => Ok(()),
            false => Err(self.end(LinkDown::Protocol { reason: "used before the welcome".to_owned() })),
        }
    }

    fn violation(&mut self, reason: String) -> Event {
        Event::Down(self.end(LinkDown::Protocol { reason }))
    }

    fn welcome(&mut self, version: u32, welcome: Welcome, credit: u64) -> Event {
        if version != PROTOCOL_VERSION {
            return self.violation(format!("it speaks version {version}, this host {PROTOCOL_VERSION}"));
        }
        if welcome.shadow_known && (self.hello.position.is_none() || welcome.position.is_none()) {
            return self.violation("it knows a position that was not named".to_owned());
        }
        if credit < LEAST_CREDIT {
            return self.violation(format!("it allows {credit} bytes in flight, {LEAST_CREDIT} are needed"));
        }
        self.credit = credit;
        self.credit_limit = credit;
        self.last_sent = welcome.position.map_or(0, |position| position.number);
        self.acked = self.last_sent;
        self.phase = Phase::Open;
        Event::Welcome(welcome)
    }

    fn open_message(&mut self, message: ToPrimary) -> Option<Event> {
        Some(match message {
            ToPrimary::Lacking(flags) => match self.offers.pop_front() {
                Some((ticket, count)) if count == flags.len() => Event::Lacking { ticket, flags },
                Some((_, count)) => self.violation(format!("{} answers to an offer of {count}", flags.len())),
                None => self.violation("an answer to an offer that was not made".to_owned()),
            },
            ToPrimary::Ack { number } => self.ack(number),
            ToPrimary::Credit { bytes } => match self.credit.checked_add(bytes) {
                Some(credit) if credit <= self.credit_limit => {
                    self.credit = credit;
                    Event::Credit
                }
                _ => self.violation("it returns more credit than was taken".to_owned()),
            },
            ToPrimary::Answer { id, more, answer } => {
                let known = if more { self.questions.contains(&id) } else { self.questions.remove(&id) };
                if !known {
                    return Some(self.violation(format!("an answer to question {id}, which was not asked")));
                }
                Event::Answer { id, more, answer }
            }
            ToPrimary::Pong(_) => return None,
            ToPrimary::Welcome { .. } => self.violation("a second welcome".to_owned()),
            ToPrimary::Refused { reason } => Event::Down(self.end(LinkDown::Refused { reason })),
        })
    }

    fn ack(&mut self, number: u64) -> Event {
        if number <= self.acked || number > self.last_sent {
            let (acked, sent) = (self.acked, self.last_sent);
            return self.violation(format!(
                "it acknowledges batch {number}, between {acked} (acknowledged before) and {sent} (sent)"
            ));
        }
        self.acked = number;
        while let Some(&(first, len)) = self.in_flight.front()
            && first <= number
        {
            self.in_flight.pop_front();
            self.bytes_in_flight -= len;
        }
        Event::Acked(number)
    }
}
