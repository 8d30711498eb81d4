//! One test binary that drives the real executable.

mod bad_state;
mod cli;
mod executable;
mod kill;
mod local;
mod main_job;
mod node;
mod power;
mod scratch;
