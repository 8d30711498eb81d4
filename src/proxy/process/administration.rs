//! The `stats socket`s of a running process: the service that answers on them.

use super::notices::Notices;
use super::worker::Exported;
use crate::proxy::admin::socket::{self, AskProcess, HandOver, OpenSocket};
use crate::proxy::config::Config;
use crate::proxy::listen::ListeningSocket;
use crate::proxy::log::Logs;
use crate::proxy::state::Running;
use crate::proxy::stats::Process;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// The service of the `stats socket`s and of rates.
pub(super) struct Administration {
    pub(super) sockets: Vec<OpenSocket>,
    pub(super) running: Arc<Running>,
    pub(super) logs: Arc<Logs>,
    pub(super) stopping: CancellationToken,
    pub(super) notices: Notices,
}

impl Administration {
    pub(super) async fn serve(self) {
        let Administration { sockets, running, logs, stopping, notices } = self;
        let about = Arc::clone(&running);
        let process: AskProcess =
            Arc::new(move || Process { dropped_logs: logs.dropped(), ..Process::of(&about) });
        let sampling = sample(Arc::clone(&running));
        let answering = async {
            if let Err(error) = socket::serve(sockets, running, process, stopping).await {
                notices.warning(&format!("no run-time commands, the `stats socket` fails: {error}"));
            }
        };
        tokio::join!(sampling, answering);
    }
}

/// Reads counters once a second, so that there are rates. Does not end.
async fn sample(running: Arc<Running>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        running.sample(Instant::now(), Duration::try_from(used).unwrap_or_default());
    }
}

/// The open `stats socket`s with what the file says of them.
pub(super) fn stats_sockets(
    config: &Config,
    open: Vec<(usize, ListeningSocket)>,
    exported: &Arc<Exported>,
) -> Vec<OpenSocket> {
    let with_rights = |(number, socket): (usize, ListeningSocket)| {
        let written = config.global.stats_sockets.get(number)?;
        let hand_over: Option<HandOver> = written.expose_listeners.then(|| {
            let exported = Arc::clone(exported);
            Arc::new(move |stream: UnixStream| exported.hand_over_one_each(&stream)) as HandOver
        });
        Some(OpenSocket { socket, level: written.level, hand_over })
    };
    open.into_iter().filter_map(with_rights).collect()
}
