//! Log formats (8.2 of the manual): read once, then rendered into one reused buffer.

use super::{Context, Scope};
use crate::proxy::config::words::{Parsed, Words};

/// A log format string, compiled.
#[derive(Clone, Debug, Default)]
pub struct LogFormat {}

impl LogFormat {
    /// Reads one word as a format.
    pub fn parse(words: &mut Words<'_>, scope: &Scope<'_>) -> Parsed<LogFormat> {
        let _ = scope;
        Err(words.problem("log formats are not supported yet", "", ""))
    }

    /// Without `option httplog` or `tcplog`: `Connect from ...` (8.2.1).
    pub fn connect_from() -> LogFormat {
        LogFormat {}
    }

    /// `option tcplog` (8.2.2).
    pub fn tcplog() -> LogFormat {
        LogFormat {}
    }

    /// `option httplog` (8.2.3).
    pub fn httplog() -> LogFormat {
        LogFormat {}
    }

    /// `option httplog clf`.
    pub fn httplog_clf() -> LogFormat {
        LogFormat {}
    }

    /// Appends the line, without a newline.
    pub fn render(&self, context: &Context<'_>, out: &mut Vec<u8>) {
        let _ = (context, out);
    }
}
