//! The backup role (being assembled).
use super::assemble::{Faults, Launch, Role};
use crate::observe::control::{Action, Outcome, Progress};
use crate::observe::{Control, NodeStatus, Refusal};
use anyhow::Result;
use serde_json::Value;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use tokio_util::sync::CancellationToken;

pub(super) struct BackupRole { address: SocketAddr }
impl BackupRole {
    pub(super) async fn start(launch: &Launch, _: Faults, _: CancellationToken) -> Result<BackupRole> {
        let b = launch.cluster.backup.as_ref().ok_or_else(|| anyhow::anyhow!("x"))?;
        Ok(BackupRole { address: b.listen })
    }
    pub(super) fn address(&self) -> SocketAddr { self.address }
}
impl Role for BackupRole {
    fn stop(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> { Box::pin(async {}) }
}
impl Control for BackupRole {
    fn describe(&self, _: &mut NodeStatus) {}
    fn actions(&self) -> Vec<Action> { Vec::new() }
    fn act(&self, _: &str, _: Value, _: Progress) -> Outcome { Box::pin(async { Err(Refusal::Failed(String::new())) }) }
}
