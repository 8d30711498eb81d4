//! Statistics as HAProxy shows them: one table of columns, rows filled from `state`, and what is made of them: CSV, typed
//! and JSON dumps (`show stat`), `show info`, the page of `stats uri`, and Prometheus' text format.
//!
//! Everything here is a pure function of [`Running`](super::state::Running) and a moment that the caller passes in.

pub mod columns;
mod dump;
pub mod info;
pub mod page;
mod process;
pub mod prometheus;
mod rows;
mod status;
mod value;

pub use dump::{Form, csv, dump, json, typed};
pub use process::Process;
pub use rows::{Kind, Row, Selection, View, rows};
pub use value::Value;

use std::time::{Instant, SystemTime};

/// The two clocks at one moment.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Moment {
    pub monotonic: Instant,
    pub wall: SystemTime,
}

impl Moment {
    /// This one.
    pub fn now() -> Moment {
        Moment { monotonic: Instant::now(), wall: SystemTime::now() }
    }
}

/// Names shown to people and tools: product, version, release date.
pub const PRODUCT: (&str, &str, &str) =
    ("HAProxy", concat!("2.6.12-ehpc-store-", env!("CARGO_PKG_VERSION")), "2026/11/27");

#[cfg(test)]
pub(in crate::proxy) mod sample;
#[cfg(test)]
mod tests;
