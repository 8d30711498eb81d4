//! The thread that writes to the store, and the one that syncs it.

use super::{Desk, StoreFault};
use crate::observe::metrics::{BATCHES_STORED, BLOBS_STORED};
use crate::replication::link::Hello;
use crate::replication::session::cost;
use bytes::Bytes;
use crossbeam_channel::Receiver as Queue;
use ehpc_proto::replication::message::Blob;
use ehpc_proto::replication::{Batch, Position};
use parking_lot::{Condvar, Mutex};
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use tokio::sync::mpsc::UnboundedSender;

/// What is to be done, in order. What belongs to a connection that is not in charge, or has failed, is dropped.
pub(super) enum Work {
    /// A connection takes charge; tell it where the history stands.
    Greet(Party, Hello),
    Store(u64, Vec<Blob>),
    Append(u64, Bytes, Batch),
    /// Sync what came before and say so.
    Drain(u64),
    Stop,
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Outcome {
    Greeted { position: Option<Position>, shadow_known: bool },
    Written(u64),
    Durable(u64),
    Failed(StoreFault),
    Drained,
}

/// A connection, and how to tell it. Bounded by the credit and the batches in flight.
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

/// What the syncing thread is asked.
#[derive(Default)]
struct Wanted {
    sync: bool,
    stop: bool,
    party: Option<Party>,
}

struct Syncer {
    desk: Arc<Desk>,
    wanted: Mutex<Wanted>,
    changed: Condvar,
}

pub(super) fn start(desk: Arc<Desk>, queue: Queue<Work>) -> io::Result<Vec<JoinHandle<()>>> {
    let syncer = Arc::new(Syncer {
        desk: desk.clone(),
        wanted: Mutex::new(Wanted::default()),
        changed: Condvar::new(),
    });
    let writer = Writer { desk, syncer: syncer.clone(), party: None };
    Ok(vec![
        thread::Builder::new().name("store-sync".to_owned()).spawn(move || syncer.run())?,
        thread::Builder::new().name("store-write".to_owned()).spawn(move || writer.run(&queue))?,
    ])
}

/// Syncs, and tells everybody what is durable.
fn sync(desk: &Desk, party: Option<&Party>) -> Result<(), StoreFault> {
    let outcome = desk.options.store.sync();
    match outcome {
        Ok(number) => {
            let news = {
                let mut status = desk.status.lock();
                let news = number.saturating_sub(status.durable);
                status.durable = number.max(status.durable);
                status.disk_full &= news == 0;
                news
            };
            // The primary waits for this; the applier can wait a moment longer.
            if let Some(party) = party {
                party.tell(Outcome::Durable(number));
            }
            if news > 0 {
                BATCHES_STORED.add(news);
                (desk.options.on_durable)(number);
            }
            Ok(())
        }
        Err(fault) => {
            failed(desk, party, &fault);
            Err(fault)
        }
    }
}

fn failed(desk: &Desk, party: Option<&Party>, fault: &StoreFault) {
    let full = matches!(fault, StoreFault::Full { .. });
    desk.note(|status| {
        status.disk_full |= full;
        status.last_error = Some(fault.to_string());
    });
    if let Some(party) = party {
        party.tell(Outcome::Failed(fault.clone()));
    }
}

impl Syncer {
    fn run(&self) {
        loop {
            let party = {
                let mut wanted = self.wanted.lock();
                while !wanted.sync && !wanted.stop {
                    self.changed.wait(&mut wanted);
                }
                if !wanted.sync {
                    return;
                }
                wanted.sync = false;
                wanted.party.clone()
            };
            // A failure has been told to the connection, which ends; the next one syncs first.
            let _ = sync(&self.desk, party.as_ref());
        }
    }

    fn ask(&self, party: Option<Party>) {
        let mut wanted = self.wanted.lock();
        wanted.sync = true;
        wanted.party = party;
        self.changed.notify_one();
    }

    fn stop(&self) {
        self.wanted.lock().stop = true;
        self.changed.notify_one();
    }
}

struct Writer {
    desk: Arc<Desk>,
    syncer: Arc<Syncer>,
    /// The connection in charge, until it fails.
    party: Option<Party>,
}

impl Writer {
    fn run(mut self, queue: &Queue<Work>) {
        for work in queue {
            match work {
                Work::Greet(party, hello) => self.greet(party, &hello),
                Work::Store(id, blobs) => self.with(id, |desk| store(desk, &blobs)),
                Work::Append(id, encoded, batch) => {
                    self.with(id, |desk| desk.options.store.append_batch(&encoded, &batch).map(|()| None));
                    self.syncer.ask(self.party.clone());
                }
                Work::Drain(id) => {
                    if let Some(party) = self.party.take_if(|party| party.id == id)
                        && sync(&self.desk, Some(&party)).is_ok()
                    {
                        party.tell(Outcome::Drained);
                    }
                }
                Work::Stop => break,
            }
        }
        self.syncer.stop();
    }

    /// Does it for connection `id`, if that is in charge, and tells it the outcome.
    fn with(&mut self, id: u64, work: impl FnOnce(&Desk) -> Result<Option<Outcome>, StoreFault>) {
        let Some(party) = self.party.as_ref().filter(|party| party.id == id) else { return };
        match work(&self.desk) {
            Ok(Some(outcome)) => party.tell(outcome),
            Ok(None) => {}
            Err(fault) => {
                // What came before it is good: it is made durable and acknowledged before the connection ends.
                let _ = sync(&self.desk, Some(party));
                failed(&self.desk, Some(party), &fault);
                self.party = None;
            }
        }
    }

    fn greet(&mut self, party: Party, hello: &Hello) {
        self.party = None;
        // What an earlier connection brought may not be durable yet, and must be before it is named.
        if sync(&self.desk, Some(&party)).is_err() {
            return;
        }
        let store = &self.desk.options.store;
        let known = hello.position.as_ref().map_or(Ok(false), |position| store.knows(position));
        match known {
            Ok(shadow_known) => {
                party.tell(Outcome::Greeted { position: store.position(), shadow_known });
                self.party = Some(party);
            }
            Err(fault) => failed(&self.desk, Some(&party), &fault),
        }
    }
}

fn store(desk: &Desk, blobs: &[Blob]) -> Result<Option<Outcome>, StoreFault> {
    for blob in blobs {
        desk.options.store.put_blob(blob)?;
    }
    BLOBS_STORED.add(blobs.len() as u64);
    Ok(Some(Outcome::Written(cost(blobs))))
}
