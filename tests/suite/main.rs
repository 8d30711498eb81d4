//! One test binary that drives the real executable.

mod cli;
