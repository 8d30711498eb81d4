//! Acknowledgements: what a batch's durability means for the dirty set, the shadow and the status.

use super::status::SenderStatus;
use crate::change::DirtySet;
use crate::observe::metrics;
use crate::replication::link::Link;
use crate::replication::overlay::{View, ViewError};
use bytes::Bytes;
use ehpc_proto::replication::Position;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

/// A batch that is not acknowledged.
pub(crate) struct InFlight {
    pub position: Position,
    pub encoded: Bytes,
    /// Cut that it reaches; grows when later work turns out to ship nothing.
    pub cut: u64,
}

/// Batches in flight, and what they stand for.
pub(crate) struct Acks {
    pub in_flight: VecDeque<InFlight>,
    dirty: Arc<DirtySet>,
    status: Arc<SenderStatus>,
    /// Cut that is acknowledged.
    pub cut: u64,
}

impl Acks {
    pub(crate) fn new(dirty: Arc<DirtySet>, status: Arc<SenderStatus>) -> Acks {
        Acks { in_flight: VecDeque::new(), dirty, status, cut: 0 }
    }

    /// Everything up to `cut` was looked at: it is acknowledged with the newest batch in flight, or now.
    pub(crate) fn reached(&mut self, cut: u64) {
        match self.in_flight.back_mut() {
            Some(newest) => newest.cut = newest.cut.max(cut),
            None => self.acknowledge_cut(cut),
        }
    }

    fn acknowledge_cut(&mut self, cut: u64) {
        if cut > self.cut {
            self.cut = cut;
            self.dirty.acknowledge(cut);
        }
    }

    /// Cut of the newest batch in flight below `first`, or the one acknowledged.
    pub(crate) fn cut_below(&self, first: u64) -> u64 {
        let below = self.in_flight.iter().rev().find(|batch| batch.position.number < first);
        below.map_or(self.cut, |batch| batch.cut)
    }

    /// Takes in what the link has heard.
    pub(crate) fn poll(&mut self, link: &mut dyn Link, view: &mut View) -> Result<(), ViewError> {
        match link.poll_acks() {
            Some(number) => self.acknowledged(number, view),
            None => Ok(()),
        }
    }

    /// The backup has everything up to batch `number`.
    pub(crate) fn acknowledged(&mut self, number: u64, view: &mut View) -> Result<(), ViewError> {
        view.acknowledge(number)?;
        // First, and also where nothing is in flight (a new session): whoever is woken by the cut asks for the number.
        self.status.update(|report| report.acknowledged_batch = report.acknowledged_batch.max(number));
        let mut batches = 0;
        let mut cut = 0;
        while self.in_flight.front().is_some_and(|batch| batch.position.number <= number)
            && let Some(batch) = self.in_flight.pop_front()
        {
            batches += 1;
            cut = cut.max(batch.cut);
        }
        if batches == 0 {
            return Ok(());
        }
        self.acknowledge_cut(cut);
        let in_flight = self.in_flight.len() as u64;
        self.status.update(|report| {
            report.acknowledged_at = Some(SystemTime::now());
            report.batches += batches;
            report.batches_in_flight = in_flight;
        });
        Ok(())
    }

    /// A batch is on its way.
    pub(crate) fn sent(&mut self, batch: InFlight, objects: usize) {
        metrics::BATCHES_SENT.inc();
        self.in_flight.push_back(batch);
        let in_flight = self.in_flight.len() as u64;
        self.status.update(|report| {
            report.batches_in_flight = in_flight;
            report.objects += objects as u64;
        });
    }
}
