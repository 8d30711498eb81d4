//! How clients find our ports: registered with the system's rpcbind, or told by a port mapper of our own on port 111.

mod register;
mod serve;
mod table;

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(super) use serve::start_on as serve_on;

use super::rpc::client::CallFailed;
use crate::settings::PortmapMode;
use ehpc_proto::portmap::PORT;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What a service is reached over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[allow(missing_docs)]
pub enum Network {
    Tcp,
    Udp,
}

impl Network {
    fn netid(self, ipv4: bool) -> &'static str {
        match (self, ipv4) {
            (Network::Tcp, true) => "tcp",
            (Network::Tcp, false) => "tcp6",
            (Network::Udp, true) => "udp",
            (Network::Udp, false) => "udp6",
        }
    }

    /// The network of "tcp", "udp", "tcp6" or "udp6", and whether it is IPv6.
    fn of_netid(netid: &[u8]) -> Option<(Network, bool)> {
        match netid {
            b"tcp" => Some((Network::Tcp, false)),
            b"udp" => Some((Network::Udp, false)),
            b"tcp6" => Some((Network::Tcp, true)),
            b"udp6" => Some((Network::Udp, true)),
            _ => None,
        }
    }
}

/// A version of a program that is served somewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Service {
    /// Program number.
    pub program: u32,
    /// Its version.
    pub version: u32,
    /// TCP or UDP.
    pub network: Network,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Service {
    /// Versions of programs that listen at `address`. A listener on all addresses of IPv6 takes IPv4 clients too.
    pub(super) fn at(address: SocketAddr, network: Network, programs: &[(u32, u32)]) -> Vec<Service> {
        let mut addresses = vec![address];
        if address.is_ipv6() && address.ip().is_unspecified() {
            addresses.push(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()));
        }
        let everywhere = programs.iter().flat_map(|(program, version)| {
            addresses.iter().map(move |at| Service {
                program: *program,
                version: *version,
                network,
                address: *at,
            })
        });
        everywhere.collect()
    }

    fn netid(&self) -> &'static str {
        self.network.netid(self.address.is_ipv4())
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.program {
            ehpc_proto::nfs3::PROGRAM => "nfs",
            ehpc_proto::mount::PROGRAM => "mountd",
            ehpc_proto::nsm::PROGRAM => "status",
            ehpc_proto::nlm::PROGRAM => "nlockmgr",
            _ => "program",
        };
        write!(f, "{name} ({} version {}) over {}", self.program, self.version, self.netid())
    }
}

/// Why clients cannot find the ports.
#[derive(Debug, thiserror::Error)]
pub enum PortmapError {
    /// `register`, and there is none.
    #[error(
        "no rpcbind answers ({0}), and portmap = \"register\" needs it: start it (systemctl start rpcbind), or say \
         \"serve\" to answer port 111 here"
    )]
    Absent(String),
    /// rpcbind said no.
    #[error(
        "rpcbind does not register {service}: {why}; is this process root of the machine that rpcbind runs on?"
    )]
    Refused {
        /// What.
        service: Service,
        /// Why.
        why: String,
    },
    /// Somebody else serves it already.
    #[error(
        "{service} is served by another process on port {port} of this machine: stop it (the kernel's server: \
         systemctl disable --now nfs-server; the status monitor: systemctl disable --now rpc-statd), or say \
         portmap = \"off\""
    )]
    Taken {
        /// What.
        service: Service,
        /// Where.
        port: u16,
    },
    /// A call to rpcbind failed.
    #[error(
        "rpcbind does not answer any more: {0}; restart it (systemctl restart rpcbind), or say portmap = \"off\""
    )]
    Call(#[from] CallFailed),
    /// Port 111 cannot be had.
    #[error(
        "cannot listen on port {PORT} of {address} over {network} for portmap = \"serve\": {source}; it takes root or \
         CAP_NET_BIND_SERVICE, and no rpcbind beside it"
    )]
    Listen {
        /// Where.
        address: IpAddr,
        /// "TCP" or "UDP".
        network: &'static str,
        /// The system's reason.
        source: io::Error,
    },
}

/// Our ports are findable until this is stopped.
#[derive(Debug)]
pub struct Portmap {
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    /// "registered with rpcbind", "served on port 111".
    how: &'static str,
}

impl Portmap {
    /// For people: how clients find the ports.
    pub fn how(&self) -> &'static str {
        self.how
    }

    /// Takes the registrations back, or stops answering; waits until that is done.
    pub async fn stop(mut self) {
        self.stop.cancel();
        for task in self.tasks.drain(..) {
            if task.await.is_err() {
                tracing::error!("the port mapper's task ended with a fault");
            }
        }
    }
}

/// Makes `services` findable as `mode` says, if at all. `listen`: the address of ours that clients use.
pub async fn start(
    mode: PortmapMode,
    services: Vec<Service>,
    listen: IpAddr,
) -> Result<Option<Portmap>, PortmapError> {
    match mode {
        PortmapMode::Off => Ok(None),
        PortmapMode::Serve => serve::start(services, listen).await.map(Some),
        PortmapMode::Register => match register::find().await {
            Ok(mapper) => register::start(mapper, services).await.map(Some),
            Err(why) => Err(PortmapError::Absent(why)),
        },
        PortmapMode::Auto => match register::find().await {
            Ok(mapper) => register::start(mapper, services).await.map(Some),
            Err(why) => {
                tracing::info!(%why, "no rpcbind answers: port 111 is served here");
                serve::start(services, listen).await.map(Some)
            }
        },
    }
}
