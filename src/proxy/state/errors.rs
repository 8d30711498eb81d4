//! The last message of each section that was no HTTP (`show errors` in 9.3 of the management manual).

use crate::proxy::config::model::{ProxyIndex, ServerIndex};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

/// One refused message.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Counts up in this process.
    pub number: u64,
    /// When.
    pub when: SystemTime,
    /// Sections and server that it concerned.
    pub frontend: ProxyIndex,
    #[allow(missing_docs)]
    pub backend: Option<ProxyIndex>,
    #[allow(missing_docs)]
    pub server: Option<ServerIndex>,
    /// The client, as it is shown.
    pub source: String,
    /// What was received, from its first byte; at most a buffer.
    pub bytes: Vec<u8>,
    /// Where the fault is.
    pub position: usize,
    /// What is wrong.
    pub fault: String,
}

/// The last refused request and response of each section. The lock is taken by whoever sends such things, and by who
/// asks; no request that is in order meets it.
#[derive(Debug, Default)]
pub struct Errors {
    count: AtomicU64,
    requests: Mutex<BTreeMap<ProxyIndex, Refused>>,
    responses: Mutex<BTreeMap<ProxyIndex, Refused>>,
}

impl Errors {
    /// How many there have been.
    pub fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// Notes a request that the section `refused.frontend` did not understand; its number is given here.
    pub fn note_request(&self, mut refused: Refused) {
        refused.number = self.count.fetch_add(1, Relaxed);
        self.requests.lock().insert(refused.frontend, refused);
    }

    /// Notes a response that the section `backend` did not understand.
    pub fn note_response(&self, backend: ProxyIndex, mut refused: Refused) {
        refused.number = self.count.fetch_add(1, Relaxed);
        self.responses.lock().insert(backend, refused);
    }

    /// The last of a section: request, response.
    pub fn of(&self, section: ProxyIndex) -> (Option<Refused>, Option<Refused>) {
        (self.requests.lock().get(&section).cloned(), self.responses.lock().get(&section).cloned())
    }
}
