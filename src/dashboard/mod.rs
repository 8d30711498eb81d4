//! Status page, metrics, health and status API over HTTP, read-only.
//!
//! `/` page, `/metrics` Prometheus, `/healthz` 200 or 503 with reasons, `/status` JSON. It knows a node
//! only as an `observe::Control`.

mod listener;
mod page;
mod server;

pub use server::serve;
