//! The seam through which a running node is asked and acted on. The dashboard and the control socket
//! know only this trait; whoever assembles a node implements it over the roles it runs.

use super::status::NodeStatus;
use serde_json::Value;
use std::future::Future;
use std::pin::Pin;

/// Where a long action tells how far it is: one JSON value a step. Closed when the asker has gone.
pub type Progress = tokio::sync::mpsc::Sender<Value>;

/// Why an action was not done.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// There is no such action here.
    #[error("this node cannot do `{action}`; it can do: {}", known.join(", "))]
    #[allow(missing_docs)]
    Unknown { action: String, known: Vec<&'static str> },
    /// The arguments make no sense.
    #[error("`{action}`: {why}")]
    #[allow(missing_docs)]
    Arguments { action: &'static str, why: String },
    /// It was tried and failed, or the node's state forbids it now.
    #[error("{0}")]
    Failed(String),
}

/// What an action returns in the end.
pub type Outcome = Pin<Box<dyn Future<Output = Result<Value, Refusal>> + Send>>;

/// One thing that can be asked of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Action {
    pub name: &'static str,
    pub help: &'static str,
}

/// A running node, or one role of it.
pub trait Control: Send + Sync + 'static {
    /// Fills in the sections that it knows. Quick: no waiting for disk or network.
    fn describe(&self, status: &mut NodeStatus);

    /// Everything it knows of itself now.
    fn status(&self) -> NodeStatus {
        let mut status = NodeStatus::default();
        self.describe(&mut status);
        status
    }

    /// Why it is not healthy; empty = healthy.
    fn unhealthy(&self) -> Vec<String> {
        self.status().unhealthy()
    }

    /// Metrics that are not in the status: of another process that it looks after, in Prometheus' text format.
    fn metrics(&self) -> Pin<Box<dyn Future<Output = String> + Send + '_>> {
        Box::pin(std::future::ready(String::new()))
    }

    /// What can be asked of it with [`Control::act`].
    fn actions(&self) -> Vec<Action>;

    /// Starts an action. Dropping the outcome abandons it.
    fn act(&self, action: &str, arguments: Value, progress: Progress) -> Outcome;
}
