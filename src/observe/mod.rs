//! Logs, metrics, status types: what a person sees.

pub mod metrics;
