//! The proxy: reads haproxy.cfg and does what HAProxy does with it (`ehpc-store proxy -f haproxy.cfg`).
//!
//! ```text
//! process     arguments, start order (no thread before the end), master, reload, adoption of listening sockets, syslog
//!    |
//! config      words with positions -> sections -> `model::Config`: plain data, everything resolved (names to indices,
//!    |        conditions and log formats compiled), nothing opened
//!    |
//! state       what runs: counters, gates (maxconn), servers with health, weight and queue; shared by all threads
//!    |        `balance`, `cookie`, `health`, `queue` are pure
//!    |
//! engine      one current-thread runtime a core: listener -> connection -> exchange -> server connection -> relay
//!    |        bytes in and out with `ehpc_proto::http1`; `tcp` mode
//!    |
//! rules       what the file says to do with an `Exchange`; knows neither parser nor wire
//! expression  fetches, converters, variables, conditions (acl), log formats over an `Exchange`
//!
//! listen      open listening sockets;  log  lines to syslog, a `Logger` a thread
//!
//! checks      asks servers whether they are well, feeds `state`
//! admin       HAProxy's run-time commands;  stats  the CSV, the page, Prometheus
//! ```
//!
//! Who calls whom: `process` -> `config` -> (`expression`, `rules` for compiling); `process` -> `engine`, `checks`, `admin`;
//! `engine` -> `rules` -> `expression`; all of them read `state` and `config::model`. `expression` and `rules` act on
//! [`exchange::Exchange`] and name no socket and no parser.

pub mod admin;
pub mod balance;
pub mod checks;
pub mod config;
pub mod cookie;
pub mod crumbs;
pub mod engine;
pub mod exchange;
pub mod expression;
pub mod health;
pub mod listen;
pub mod log;
mod process;
pub mod queue;
pub mod rules;
pub mod state;
pub mod stats;
pub mod stick;

pub use process::main;
