//! Stick tables and the rules that use them.

use super::ProxyIndex;
use crate::proxy::expression::Condition;
use crate::proxy::expression::Expression;
use crate::settings::Site;
use std::time::Duration;

/// `stick-table` (4.2).
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct StickTable {
    pub site: Site,
    pub key: StickKey,
    pub size: usize,
    pub expire: Option<Duration>,
    pub nopurge: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum StickKey {
    Ip,
    Ipv6,
    Integer,
    String(usize),
    Binary(usize),
}

/// `stick on|match|store-request|store-response`.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct StickRule {
    pub matches: bool,
    pub stores: bool,
    /// `store-response`.
    pub of_response: bool,
    pub expression: Expression,
    /// Backend whose table it is.
    pub table: ProxyIndex,
    pub condition: Option<Condition>,
}
