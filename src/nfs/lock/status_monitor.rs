//! NSM, the program that clients' status monitors talk to: "I have restarted".

use super::Service;
use super::ranges::Client;
use ehpc_proto::codec::{DecodeError, Decoder, Encoder};
use ehpc_proto::nsm::{Mon, MonId, MyId, Name, Notify, Procedure, StatResult};
use ehpc_proto::xdr::{Decode, Encode};
use std::net::IpAddr;
use std::sync::Arc;

/// Most addresses whose last state is remembered.
const MAX_TOLD: usize = 16 * 1024;

impl Service {
    /// Does `procedure` for a caller at `from`; true if it failed.
    ///
    /// MON is refused: this monitor watches the clients of this server and nobody for others. A machine that is a
    /// client of other servers needs rpc.statd (which then has NSM, and is told apart at the start).
    pub(in crate::nfs) fn status_monitor(
        self: &Arc<Self>,
        procedure: Procedure,
        from: IpAddr,
        input: &mut Decoder<'_>,
        out: &mut Encoder,
    ) -> Result<bool, DecodeError> {
        let state = self.monitor.state();
        match procedure {
            Procedure::Null => {}
            Procedure::Stat => {
                Name::decode(input)?;
                StatResult { refused: true, state }.encode(out);
            }
            Procedure::Mon => {
                Mon::decode(input)?;
                StatResult { refused: true, state }.encode(out);
                return Ok(true);
            }
            Procedure::Unmon => {
                MonId::decode(input)?;
                out.u32(state);
            }
            Procedure::UnmonAll => {
                MyId::decode(input)?;
                out.u32(state);
            }
            // A simulated crash would cost every client its locks: a restart does the same, and on purpose.
            Procedure::SimuCrash => {
                tracing::info!(%from, "SM_SIMU_CRASH is not done: restart the server instead")
            }
            Procedure::Notify => {
                let Notify { name, state } = Notify::decode(input)?;
                self.restarted(from, name.0, state);
            }
        }
        Ok(false)
    }

    /// A client has restarted: what it locked before is free.
    fn restarted(self: &Arc<Self>, from: IpAddr, name: &[u8], state: u32) {
        {
            // It says so until it hears an answer: what it has locked since then must stay.
            let mut told = self.told.lock();
            if told.get(&from) == Some(&state) {
                return;
            }
            if told.len() >= MAX_TOLD {
                told.clear();
            }
            told.insert(from, state);
        }
        let mut table = self.table.lock();
        let clients = meant(table.clients_at(from), name);
        if clients.is_empty() {
            return;
        }
        let before = table.counts().0;
        table.release_clients(&clients, state);
        let released = before.saturating_sub(table.counts().0);
        self.tell_granted(&mut table);
        tracing::info!(client = %from, released, "a client has restarted: its locks are released");
    }
}

/// Which clients of an address a name means. Status monitors and lock managers need not agree on whether a domain
/// is part of it; a host that is alone at its address is meant, whatever it calls itself.
fn meant(mut clients: Vec<Arc<Client>>, name: &[u8]) -> Vec<Arc<Client>> {
    if clients.len() > 1 {
        clients.retain(|client| host(&client.name).eq_ignore_ascii_case(host(name)));
    }
    clients
}

/// A name up to its first dot.
fn host(name: &[u8]) -> &[u8] {
    name.split(|byte| *byte == b'.').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_meant() {
        let client = |name: &str| {
            Arc::new(Client { address: [10, 0, 0, 1].into(), name: name.as_bytes().to_vec().into() })
        };
        let (a, b) = (client("web1"), client("web2.example.org"));
        let names = |name: &str| {
            meant(vec![a.clone(), b.clone()], name.as_bytes())
                .iter()
                .map(|client| String::from_utf8_lossy(&client.name).into_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(names("web1.example.org"), ["web1"]);
        assert_eq!(names("WEB2"), ["web2.example.org"]);
        assert!(names("web").is_empty());
        assert_eq!(meant(vec![a.clone()], b"other").len(), 1);
    }
}
