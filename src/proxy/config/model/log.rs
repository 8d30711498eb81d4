//! Where log lines go (4.2 `log`).

use crate::settings::Site;
use std::net::SocketAddr;
use std::path::PathBuf;

/// `log` (4.2).
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct LogTarget {
    pub site: Site,
    pub address: LogAddress,
    /// `len`: longest line.
    pub length: usize,
    pub format: SyslogFormat,
    /// 0 to 23.
    pub facility: u8,
    /// Lines less urgent than this are not sent (0 = emerg ... 7 = debug).
    pub level: u8,
    /// Lines more urgent than this are sent as this.
    pub min_level: u8,
}

#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum LogAddress {
    Unix(PathBuf),
    Udp(SocketAddr),
    Stdout,
    Stderr,
    /// `fd@N`
    Descriptor(i32),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub enum SyslogFormat {
    #[default]
    Rfc3164,
    Rfc5424,
    Local,
    Short,
    Raw,
    Priority,
    Timed,
}
