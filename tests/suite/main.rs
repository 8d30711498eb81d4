//! One test binary that drives the real executable.

mod bad_state;
mod cli;
mod kill;
mod local;
mod main_job;
mod power;
mod scratch;
