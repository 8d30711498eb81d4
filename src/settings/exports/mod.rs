//! exports(5): which directories are exported to whom, and how.
//!
//! The types are what the file means, and they are what `nfs` decides by; `client` says which clients a line
//! is about.

mod client;

pub use client::Client;

use super::problem::Site;

/// User and group of callers without identity, where nothing else is said ("nobody").
pub const ANONYMOUS: u32 = 65_534;

/// Whose identity is replaced by the anonymous one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Squash {
    /// Nobody's (`no_root_squash`).
    Nobody,
    /// uid 0 and gid 0, supplementary groups included (`root_squash`).
    Root,
    /// Everybody's (`all_squash`).
    Everybody,
}

/// How one client may use one export.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// `ro`: refuse whatever would change something.
    pub read_only: bool,
    /// `secure`: requests must come from a port below 1024.
    pub secure: bool,
    /// Whose identity is replaced.
    pub squash: Squash,
    /// User of the anonymous.
    pub anonuid: u32,
    /// Group of the anonymous.
    pub anongid: u32,
    /// READDIRPLUS is answered (`nordirplus` refuses it).
    pub readdirplus: bool,
    /// POSIX ACLs are shown and set (`no_acl` refuses it).
    pub acl: bool,
    /// Lock requests must come from somebody who may use the file (`no_auth_nlm` asks nobody).
    pub auth_nlm: bool,
}

impl Default for Options {
    /// What exports(5) says of an empty list.
    fn default() -> Options {
        Options {
            read_only: true,
            secure: true,
            squash: Squash::Root,
            anonuid: ANONYMOUS,
            anongid: ANONYMOUS,
            readdirplus: true,
            acl: true,
            auth_nlm: true,
        }
    }
}

impl Options {
    /// What is served where no exports file says otherwise: everything, under the callers' own ids.
    pub fn open() -> Options {
        Options { read_only: false, secure: false, squash: Squash::Nobody, ..Options::default() }
    }
}

/// `client(options)`: who may use an export, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Who.
    pub client: Client,
    /// How.
    pub options: Options,
    /// Where it is written.
    pub site: Site,
}

impl Rule {
    /// Everybody, with these options, written nowhere.
    pub fn everybody(options: Options) -> Rule {
        Rule { client: Client::Everybody, options, site: Site::Default("nfs1.export") }
    }
}
