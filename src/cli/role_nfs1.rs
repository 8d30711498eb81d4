//! The nfs1 role (being assembled).
use super::assemble::{Faults, Launch, Role};
use crate::observe::control::{Action, Outcome, Progress};
use crate::observe::{Control, NodeStatus, Refusal};
use anyhow::Result;
use serde_json::Value;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use tokio_util::sync::CancellationToken;

pub(super) struct Nfs1Role { address: SocketAddr }
impl Nfs1Role {
    pub(super) async fn start(launch: &Launch, _: Faults, _: CancellationToken) -> Result<Nfs1Role> {
        let b = launch.cluster.nfs1.as_ref().ok_or_else(|| anyhow::anyhow!("x"))?;
        Ok(Nfs1Role { address: b.listen })
    }
    pub(super) fn address(&self) -> SocketAddr { self.address }
}
impl Role for Nfs1Role {
    fn stop(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> { Box::pin(async {}) }
}
impl Control for Nfs1Role {
    fn describe(&self, _: &mut NodeStatus) {}
    fn actions(&self) -> Vec<Action> { Vec::new() }
    fn act(&self, _: &str, _: Value, _: Progress) -> Outcome { Box::pin(async { Err(Refusal::Failed(String::new())) }) }
}
