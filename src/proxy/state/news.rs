//! What happens to servers, for whoever logs it and acts on it: changes come from checks and from the operator, on any
//! thread; the task that runs the checks takes them from here.

use crate::proxy::config::model::{ProxyIndex, ServerIndex};
use crate::proxy::log::Severity;
use parking_lot::Mutex;
use std::collections::VecDeque;
use tokio::sync::Notify;

/// Most that is kept while nobody takes it; beyond it the oldest goes.
const MOST: usize = 10_000;

/// One thing that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Happening {
    /// A line for the logs of a section.
    Line(ProxyIndex, Severity, String),
    /// `on-marked-down shutdown-sessions`: the sessions of a server are to be ended.
    ShutSessions(ProxyIndex, ServerIndex),
}

/// A list of what happened.
#[derive(Debug, Default)]
pub struct News {
    list: Mutex<VecDeque<Happening>>,
    bell: Notify,
}

impl News {
    /// Something happened.
    pub(super) fn tell(&self, happening: Happening) {
        let mut list = self.list.lock();
        if list.len() >= MOST {
            list.pop_front();
        }
        list.push_back(happening);
        self.bell.notify_one();
    }

    /// What has happened since the last call, oldest first.
    pub fn take(&self) -> Vec<Happening> {
        self.list.lock().drain(..).collect()
    }

    /// Waits until something happens. For one reader.
    pub async fn wait(&self) {
        self.bell.notified().await;
    }
}
