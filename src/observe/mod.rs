//! Logs, metrics, status types: what a person sees.

pub mod control;
pub mod latency;
pub mod log;
pub mod metrics;
pub mod prometheus;
pub mod shards;
pub mod status;
pub mod words;

pub use control::{Control, Progress, Refusal};
pub use latency::{Latency, LatencyCounts};
pub use shards::{Count, Sharded};
pub use status::NodeStatus;
