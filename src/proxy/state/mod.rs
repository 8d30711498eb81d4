//! What runs: made from a [`Config`] once, then shared by all threads, changed only through atomics and short locks
//! that no request takes. Everything is found by index; names are looked up by `admin` only.

mod backend;
mod change;
mod clear;
mod counters;
mod errors;
mod frontend;
mod gate;
mod news;
mod samples;
mod saved;
mod server;
mod timings;
mod waiting;

pub use backend::{Backend, Choice, Method, Policy, Slot, Wish};
pub use counters::{BackendCounters, Codes, FrontendCounters, ServerCounters, Traffic};
pub use errors::{Errors, Refused};
pub use frontend::{Frontend, Listener};
pub use gate::{Gate, Pass};
pub use news::{Happening, News};
pub use samples::{FrontendSamples, Growth, Rate, Samples};
pub use saved::{read_states, restore, save};
pub use server::{Administration, Checked, Operation, Server};
pub use timings::{Spent, Timings};
pub use waiting::Waiting;

use super::config::Config;
use super::config::model::{BackendName, Proxy};
use super::stick::Table;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64};
use std::time::{Instant, SystemTime};

/// A running proxy process.
#[derive(Debug)]
pub struct Running {
    /// What it was made from; does not change.
    pub config: Arc<Config>,
    /// As [`Config::proxies`].
    pub proxies: Vec<ProxyState>,
    /// The process's `maxconn`.
    pub gate: Gate,
    /// What it was at the start; `set maxconn global` goes no further.
    pub maxconn: u32,
    /// How many threads serve; whoever starts them says so.
    pub threads: AtomicU16,
    /// Requests since the start.
    pub requests: AtomicU64,
    /// Connections since the start.
    pub connections: AtomicU64,
    /// Messages that were no HTTP.
    pub errors: Errors,
    /// Rates, read once a second.
    pub samples: Samples,
    /// No new connections are accepted; the process ends when the last has gone.
    pub stopping: AtomicBool,
    /// What happened to servers, to be logged and acted upon.
    pub news: Arc<News>,
    /// When the process started.
    pub started: SystemTime,
    /// The same, monotonic.
    pub started_at: Instant,
}

/// One section at run time.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct ProxyState {
    pub frontend: Option<Frontend>,
    pub backend: Option<Arc<Backend>>,
    /// `stick-table` of the section.
    pub stick_table: Option<Table>,
}

impl Running {
    /// Nothing is opened. `maxconn` is the process's effective limit.
    pub fn new(config: Arc<Config>, maxconn: u32) -> Arc<Running> {
        let news = Arc::new(News::default());
        let proxies = config
            .proxies
            .iter()
            .enumerate()
            .map(|(index, proxy)| ProxyState {
                frontend: proxy.front.then(|| Frontend::new(proxy, maxconn)),
                backend: proxy
                    .back
                    .then(|| Backend::new(proxy, index, news.clone(), fullconn(&config, index, maxconn))),
                stick_table: proxy.stick_table.as_ref().map(Table::new),
            })
            .collect();
        Arc::new(Running {
            config,
            proxies,
            gate: Gate::new(maxconn),
            maxconn,
            threads: AtomicU16::new(1),
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            errors: Errors::default(),
            samples: Samples::default(),
            stopping: AtomicBool::new(false),
            news,
            started: SystemTime::now(),
            started_at: Instant::now(),
        })
    }
}

/// Default of a backend's `fullconn` (4.2): a tenth of what all frontends that may use it accept.
fn fullconn(config: &Config, backend: usize, maxconn: u32) -> u32 {
    let leads_here = |index: usize, proxy: &Proxy| {
        let named = |target: &BackendName| match target {
            BackendName::Fixed(target) => *target == backend,
            BackendName::Dynamic(_) => true,
        };
        proxy.front
            && (index == backend
                || proxy.default_backend == Some(backend)
                || proxy.use_backend.iter().any(|rule| named(&rule.target)))
    };
    let fronts = config.proxies.iter().enumerate().filter(|(index, proxy)| leads_here(*index, proxy));
    let all: u64 = fronts.map(|(_, proxy)| u64::from(proxy.maxconn.unwrap_or(maxconn))).sum();
    u32::try_from(all.div_ceil(10)).unwrap_or(u32::MAX)
}

/// Now, in seconds since 1970.
pub(crate) fn seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
