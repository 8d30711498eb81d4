//! What a parser of expressions, conditions, formats and rules must know of the rest of the file.

use super::Acls;
use super::variables::VariableNames;
use crate::proxy::config::model::{Captures, ProxyIndex, ServerIndex, Userlist};
use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The surroundings of a line. Cheap: made for each line.
#[derive(Clone, Copy)]
pub struct Scope<'s> {
    /// Section that the line stands in; absent in `global`.
    pub proxy: Option<ProxyIndex>,
    /// Names of all sections, found before any line is compiled.
    pub names: &'s Names,
    /// Acls that this section has declared so far.
    pub acls: &'s Acls,
    /// Captures that this section has declared so far. A rule that declares one takes the next place; whoever parses
    /// the section then appends it (see `RequestRule::declared_capture`).
    pub captures: &'s Captures,
    /// Variables of the whole configuration.
    pub variables: &'s RefCell<VariableNames>,
    /// When what is compiled will be evaluated.
    pub moment: Moment,
    /// Reads pattern files, maps, error files.
    pub read: &'s dyn Fn(&Path) -> io::Result<Vec<u8>>,
}

/// What an exchange has when an expression is evaluated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Moment {
    /// Not known, or a log line: an expression that needs what is not there has no value.
    #[default]
    Any,
    /// The request's head.
    Request,
    /// The response's head.
    Response,
}

/// Names that lines may refer to before the section they name.
#[derive(Debug, Default)]
pub struct Names {
    /// In the order of `Config::proxies`.
    pub proxies: Vec<SectionName>,
    /// Compiled before any rule.
    pub userlists: Vec<Arc<Userlist>>,
}

/// One frontend, backend or listen section.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct SectionName {
    pub name: String,
    pub front: bool,
    pub back: bool,
    /// Its servers, in order.
    pub servers: Vec<String>,
    /// It has a `stick-table`.
    pub table: bool,
}

impl Names {
    /// Section that has servers.
    pub fn backend(&self, name: &str) -> Option<ProxyIndex> {
        self.proxies.iter().position(|section| section.back && section.name == name)
    }

    /// Section that accepts connections.
    pub fn frontend(&self, name: &str) -> Option<ProxyIndex> {
        self.proxies.iter().position(|section| section.front && section.name == name)
    }

    /// A server of a backend.
    pub fn server(&self, backend: ProxyIndex, name: &str) -> Option<ServerIndex> {
        self.proxies.get(backend)?.servers.iter().position(|server| server == name)
    }

    /// A userlist.
    pub fn userlist(&self, name: &str) -> Option<&Arc<Userlist>> {
        self.userlists.iter().find(|list| list.name == name)
    }
}
