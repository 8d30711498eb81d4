//! Rules: what the file says to do with an exchange (`http-request`, `http-response`, `tcp-request`). They act on
//! [`Exchange`](super::exchange::Exchange) alone; what has to be done on a wire is returned as a verdict.

use super::expression::Condition;

/// One `http-request` line.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct RequestRule {
    pub condition: Option<Condition>,
}

/// One `http-response` line.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct ResponseRule {
    pub condition: Option<Condition>,
}

/// One `tcp-request connection` or `tcp-request content` line.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct TcpRule {
    pub condition: Option<Condition>,
}
