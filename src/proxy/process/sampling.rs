//! The service that reads counters once a second, so that there are rates.

use crate::proxy::state::Running;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;

/// Does not end.
pub(super) async fn run(running: Arc<Running>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        running.sample(Instant::now(), Duration::try_from(used).unwrap_or_default());
    }
}
