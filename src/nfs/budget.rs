//! Memory that requests and replies may hold, for one connection and for all.

use crate::observe::metrics;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Counted in units of this many bytes.
const UNIT: usize = 1024;

/// Bytes that can be reserved.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    shared: Arc<Semaphore>,
    own: Arc<Semaphore>,
    largest: u32,
}

/// Reserved bytes; given back when dropped.
#[derive(Debug)]
pub(super) struct Reserved {
    _own: OwnedSemaphorePermit,
    _shared: OwnedSemaphorePermit,
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

/// What all connections share.
pub(super) fn shared(bytes: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(units(bytes) as usize))
}

impl Budget {
    /// One connection's budget within the shared one.
    pub(super) fn new(shared: &Arc<Semaphore>, shared_bytes: usize, own_bytes: usize) -> Budget {
        let own = own_bytes.min(shared_bytes);
        Budget {
            shared: Arc::clone(shared),
            own: Arc::new(Semaphore::new(units(own) as usize)),
            largest: units(own),
        }
    }

    /// Reserves `bytes` if they are free now.
    pub(super) fn try_reserve(&self, bytes: usize) -> Option<Reserved> {
        let units = self.units(bytes);
        let own = Arc::clone(&self.own).try_acquire_many_owned(units).ok()?;
        let shared = Arc::clone(&self.shared).try_acquire_many_owned(units).ok()?;
        Some(Reserved { _own: own, _shared: shared })
    }

    fn units(&self, bytes: usize) -> u32 {
        units(bytes).clamp(1, self.largest.max(1))
    }

    /// Waits until `bytes` are free. More than the whole budget waits for the whole budget. `None`: shut down.
    pub(super) async fn reserve(&self, bytes: usize) -> Option<Reserved> {
        let units = self.units(bytes);
        let free = self.own.available_permits().min(self.shared.available_permits());
        if free < units as usize {
            metrics::NFS_MEMORY_WAITS.inc();
        }
        let own = Arc::clone(&self.own).acquire_many_owned(units).await.ok()?;
        let shared = Arc::clone(&self.shared).acquire_many_owned(units).await.ok()?;
        Some(Reserved { _own: own, _shared: shared })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_connection_cannot_take_everything() {
        let all = shared(10 * UNIT);
        let one = Budget::new(&all, 10 * UNIT, 6 * UNIT);
        let other = Budget::new(&all, 10 * UNIT, 6 * UNIT);
        let held = one.reserve(100 * UNIT).await.unwrap();
        assert_eq!(all.available_permits(), 4);
        assert!(other.try_reserve(5 * UNIT).is_none(), "more than is left for all");
        assert!(one.try_reserve(UNIT).is_none(), "more than is left for this one");
        let small = other.try_reserve(4 * UNIT).unwrap();
        assert_eq!(all.available_permits(), 0);
        drop((held, small));
        assert_eq!(all.available_permits(), 10);
        let byte = one.reserve(0).await.unwrap();
        assert_eq!(all.available_permits(), 9, "nothing is free of charge");
        drop(byte);
    }
}
