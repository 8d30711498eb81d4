//! The thread that writes: takes what has arrived, writes it, syncs once for all of it, tells. While a sync runs the next
//! group collects in the queue.

use super::append::{Append, Appender, End};
use super::error::Fault;
use super::refetch::{Patched, Refetches, Wanted};
use bytes::Bytes;
use crossbeam_channel::{Receiver, TryRecvError};
use ehpc_proto::replication::database::Place;
use std::thread::JoinHandle;
use tokio::sync::mpsc::UnboundedSender;

/// What is to be done, in order. What belongs to a connection that is not in charge, or has failed, is dropped.
pub(super) enum Work {
    /// A connection takes charge; tell it where the archive ends.
    Begin(Party),
    Append(u64, Append),
    /// A range of a closed file is written anew.
    Refetch(u64, u64, Wanted),
    Patch {
        party: u64,
        id: u64,
        offset: u64,
        bytes: Bytes,
    },
    /// Sync what came before and say so; it is the connection's last word.
    Drain(Party),
    Stop,
}

/// What became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    Begun(End),
    /// So many bytes are taken from memory.
    Written(u64),
    Durable(Place),
    Refetched(u64, Result<(), String>),
    Failed(Fault),
    Drained,
}

/// A connection, and how to tell it. Bounded by the credit.
#[derive(Clone)]
pub(super) struct Party {
    pub(super) id: u64,
    pub(super) outcomes: UnboundedSender<Outcome>,
}

impl Party {
    fn tell(&self, outcome: Outcome) {
        // A connection that is gone needs no news.
        let _ = self.outcomes.send(outcome);
    }
}

pub(super) struct Writer {
    pub(super) appender: Appender,
    pub(super) refetches: Refetches,
    /// Bytes written before a sync at the latest.
    pub(super) sync_every: u64,
    /// The connection in charge, until it fails.
    pub(super) party: Option<Party>,
    /// Ranges that are being replaced.
    pub(super) replacing: Vec<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn run(mut self, queue: &Receiver<Work>) {
        loop {
            let work = match queue.try_recv() {
                Ok(work) => work,
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {
                    self.sync();
                    match queue.recv() {
                        Ok(work) => work,
                        Err(_) => break,
                    }
                }
            };
            if !self.work(work) {
                break;
            }
            if self.appender.unsynced() >= self.sync_every {
                self.sync();
            }
        }
        self.sync();
        for running in self.replacing.drain(..) {
            if running.join().is_err() {
                tracing::error!("a thread that replaced a range ended with a panic");
            }
        }
    }

    /// False: the end.
    pub(super) fn work(&mut self, work: Work) -> bool {
        match work {
            Work::Begin(party) => self.begin(party),
            Work::Append(party, work) => self.append(party, work),
            Work::Refetch(party, id, wanted) => {
                if let Some(party) = self.in_charge(party) {
                    self.refetch(&party, id, wanted);
                }
            }
            Work::Patch { party, id, offset, bytes } => {
                if let Some(party) = self.in_charge(party) {
                    self.patch(&party, id, offset, &bytes);
                    party.tell(Outcome::Written(bytes.len() as u64));
                }
            }
            Work::Drain(party) => {
                if self.in_charge(party.id).is_some() {
                    self.sync();
                    self.party = None;
                }
                party.tell(Outcome::Drained);
            }
            Work::Stop => return false,
        }
        true
    }

    fn in_charge(&self, id: u64) -> Option<Party> {
        self.party.as_ref().filter(|party| party.id == id).cloned()
    }

    fn refetch(&mut self, party: &Party, id: u64, wanted: Wanted) {
        match self.refetches.begin(id, wanted) {
            Err(reason) => party.tell(Outcome::Refetched(id, Err(reason))),
            Ok(gone) => gone.into_iter().for_each(|gone| {
                let reason = "another range took its place: no more bytes had come for it".to_owned();
                party.tell(Outcome::Refetched(gone, Err(reason)));
            }),
        }
    }

    fn patch(&mut self, party: &Party, id: u64, offset: u64, bytes: &[u8]) {
        let replacement = match self.refetches.patch(id, offset, bytes) {
            Patched::More => return,
            Patched::Failed(reason) => return party.tell(Outcome::Refetched(id, Err(reason))),
            Patched::Complete(replacement) => replacement,
        };
        self.replacing.retain(|running| !running.is_finished());
        let thread = std::thread::Builder::new().name("archive-refetch".to_owned());
        let to = party.clone();
        match thread.spawn(move || to.tell(Outcome::Refetched(id, replacement.run()))) {
            Ok(running) => self.replacing.push(running),
            Err(error) => party.tell(Outcome::Refetched(id, Err(format!("starting a thread: {error}")))),
        }
    }

    fn begin(&mut self, party: Party) {
        self.refetches.forget();
        match self.appender.begin() {
            Ok(end) => {
                party.tell(Outcome::Begun(end));
                self.party = Some(party);
            }
            Err(fault) => {
                self.party = None;
                party.tell(Outcome::Failed(fault));
            }
        }
    }

    fn append(&mut self, party: u64, work: Append) {
        let Some(party) = self.in_charge(party) else { return };
        let cost = match &work {
            Append::Bytes { bytes, .. } => bytes.len() as u64,
            _ => 0,
        };
        let before = self.appender.durable();
        let done = self.appender.append(work);
        // A file that is closed or begun syncs by itself.
        let after = self.appender.durable();
        if after > before {
            party.tell(Outcome::Durable(after));
        }
        match done {
            Ok(()) if cost > 0 => party.tell(Outcome::Written(cost)),
            Ok(()) => {}
            Err(fault) => {
                party.tell(Outcome::Failed(fault));
                self.party = None;
            }
        }
    }

    pub(super) fn sync(&mut self) {
        let outcome = match self.appender.sync() {
            Ok(Some(place)) => Outcome::Durable(place),
            Ok(None) => return,
            Err(fault) => Outcome::Failed(fault),
        };
        let failed = matches!(outcome, Outcome::Failed(_));
        if let Some(party) = &self.party {
            party.tell(outcome);
        }
        if failed {
            self.party = None;
        }
    }
}
