//! A frontend at run time.

use super::counters::FrontendCounters;
use super::gate::Gate;
use super::samples::FrontendSamples;
use crate::proxy::config::model::Proxy;
use std::sync::atomic::{AtomicBool, AtomicU32};

/// Accepts connections.
#[derive(Debug)]
pub struct Frontend {
    /// Its `maxconn`; also its current and highest number of sessions.
    pub gate: Gate,
    /// `disable frontend` pauses it.
    pub paused: AtomicBool,
    /// What was counted.
    pub counters: FrontendCounters,
    /// Rates.
    pub samples: FrontendSamples,
    /// One a `bind`.
    pub listeners: Vec<Listener>,
}

/// One `bind` at run time.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct Listener {
    /// Its own `maxconn`.
    pub gate: Option<Gate>,
    pub sessions: AtomicU32,
    pub most: AtomicU32,
    /// Counted only with `option socket-stats`.
    pub counters: FrontendCounters,
}

impl Frontend {
    /// Nothing is opened.
    pub fn new(proxy: &Proxy, process_maxconn: u32) -> Frontend {
        Frontend {
            gate: Gate::new(proxy.maxconn.unwrap_or(process_maxconn)),
            paused: AtomicBool::new(proxy.disabled),
            counters: FrontendCounters::default(),
            samples: FrontendSamples::default(),
            listeners: proxy
                .binds
                .iter()
                .map(|bind| Listener { gate: bind.maxconn.map(Gate::new), ..Listener::default() })
                .collect(),
        }
    }
}
