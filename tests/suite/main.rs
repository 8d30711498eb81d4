//! One test binary that drives the real executable.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // how a test fails

mod bad_state;
mod browser;
mod cli;
mod database;
mod executable;
mod exports;
mod front;
mod guest;
mod kill;
mod local;
mod main_job;
mod namespace;
mod node;
mod ports;
mod power;
mod proxy;
mod proxy_admin;
mod proxy_process;
mod scratch;
mod tmpfs;
mod unprivileged;
