//! Listening: `bind` and `stats socket` (5.1).

use super::Identity;
use crate::settings::Site;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// `bind` (5.1), and global `stats socket`.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Bind {
    pub site: Site,
    pub address: BindAddress,
    pub name: Option<String>,
    /// Number of the listener in stats (`id`).
    pub id: u32,
    pub maxconn: Option<u32>,
    pub backlog: Option<u32>,
    pub interface: Option<String>,
    pub tcp_user_timeout: Option<Duration>,
    pub defer_accept: bool,
    pub v6only: Option<bool>,
    /// Unix sockets: `mode`, `user`/`uid`, `group`/`gid`.
    pub unix_mode: Option<u32>,
    pub unix_user: Option<Identity>,
    pub unix_group: Option<Identity>,
    /// Run-time commands that a `stats socket` allows.
    pub level: Level,
    /// `expose-fd listeners`.
    pub expose_listeners: bool,
}

impl Bind {
    /// Without any word behind the address.
    pub fn new(address: BindAddress, site: Site) -> Bind {
        Bind {
            site,
            address,
            name: None,
            id: 0,
            maxconn: None,
            backlog: None,
            interface: None,
            tcp_user_timeout: None,
            defer_accept: false,
            v6only: None,
            unix_mode: None,
            unix_user: None,
            unix_group: None,
            level: Level::default(),
            expose_listeners: false,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum BindAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
    /// Linux abstract name, without the leading NUL.
    Abstract(Vec<u8>),
    /// `fd@N`: an inherited listening descriptor.
    Descriptor(i32),
}

/// Rights of a run-time connection (9.3 of the management manual).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
#[allow(missing_docs)]
pub enum Level {
    User,
    #[default]
    Operator,
    Admin,
}
