//! The system's rpcbind: our services are registered with it while we run, and again when it was restarted.

use super::{Network, Portmap, PortmapError, Service};
use crate::nfs::rpc::client::{CallFailed, Function, Peer, call};
use ehpc_proto::codec::Decoder;
use ehpc_proto::mount::List;
use ehpc_proto::nsm;
use ehpc_proto::portmap::{Binding, PORT, PROGRAM, RPCBIND_4, parse_universal, procedure, universal};
use ehpc_proto::xdr::{Decode, Opaque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// rpcbind's local socket: the one place where it knows that root asks.
const SOCKET: &str = "/run/rpcbind.sock";
/// rpcbind answers at once or not at all.
const PATIENCE: Duration = Duration::from_secs(5);
/// Somebody who is registered answers within this time, or is taken for gone.
const ALIVE: Duration = Duration::from_secs(2);
/// How often it is seen to that rpcbind still knows us: it forgets everything when it is restarted.
const EVERY: Duration = Duration::from_secs(10);

/// A port mapper that answers.
#[derive(Clone, Debug)]
pub(super) struct Mapper {
    /// Where it takes registrations.
    peer: Peer,
    /// Where clients ask it.
    public: Peer,
}

/// A registration that rpcbind has.
struct Registered {
    program: u32,
    version: u32,
    network: Option<(Network, bool)>,
    port: u16,
}

fn of_rpcbind(procedure: u32) -> Function {
    Function { program: PROGRAM, version: RPCBIND_4, procedure }
}

/// The rpcbind of this machine, or why there is none.
pub(super) async fn find() -> Result<Mapper, String> {
    // What clients can reach decides: the socket's file may be left over, or belong to another network namespace.
    let public = Peer::Tcp(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT), None);
    let null = of_rpcbind(procedure::NULL);
    if let Err(error) = call(&public, null, &(), PATIENCE).await {
        return Err(format!("127.0.0.1:{PORT}: {error}"));
    }
    let mut peer = public.clone();
    if Path::new(SOCKET).exists() && call(&Peer::Unix(SOCKET.into()), null, &(), PATIENCE).await.is_ok() {
        peer = Peer::Unix(SOCKET.into());
    }
    Ok(Mapper { peer, public })
}

/// Registers, and keeps registered until stopped.
pub(super) async fn start(mapper: Mapper, services: Vec<Service>) -> Result<Portmap, PortmapError> {
    let services = mapper.register(&services).await?;
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let task = tokio::spawn(async move {
        loop {
            tokio::select! {
                () = stopping.cancelled() => break,
                () = tokio::time::sleep(EVERY) => {}
            }
            mapper.renew(&services).await;
        }
        for service in &services {
            if let Err(error) = mapper.change(procedure::UNSET, service).await {
                tracing::debug!(%service, %error, "a registration was not taken back");
            }
        }
    });
    Ok(Portmap { stop, tasks: vec![task], how: "registered with the system's rpcbind" })
}

impl Mapper {
    /// Registers; returns what is registered. A status monitor that runs is left alone.
    async fn register(&self, services: &[Service]) -> Result<Vec<Service>, PortmapError> {
        let known = dump(&self.peer).await?;
        let mut ours = Vec::new();
        for service in services {
            let other = known.iter().find(|other| {
                (other.program, other.version) == (service.program, service.version)
                    && other.network == Some((service.network, service.address.is_ipv6()))
                    && other.port != service.address.port()
            });
            if let Some(other) = other
                && answers(service, other.port).await
            {
                let taken = PortmapError::Taken { service: *service, port: other.port };
                if service.program != nsm::PROGRAM {
                    return Err(taken);
                }
                // Clients that restart tell it and not us.
                tracing::warn!("{taken}. Until then the locks of clients that restart are not released");
                continue;
            }
            ours.push(*service);
        }
        for service in &ours {
            // What a former run left, or a process that is gone.
            self.change(procedure::UNSET, service).await?;
            let refused = |why| PortmapError::Refused { service: *service, why };
            match self.change(procedure::SET, service).await {
                Ok(true) => {}
                Ok(false) => return Err(refused("it says no".to_owned())),
                Err(CallFailed::Refused(reply)) => return Err(refused(format!("{reply:?}"))),
                Err(error) => return Err(error.into()),
            }
        }
        let missing = self.missing(&ours).await?.first().map(|service| **service);
        match missing {
            None => Ok(ours),
            Some(service) => Err(PortmapError::Refused {
                service,
                why: format!("{SOCKET} belongs to another rpcbind than port {PORT} of 127.0.0.1"),
            }),
        }
    }

    /// What clients would not find.
    async fn missing<'a>(&self, services: &'a [Service]) -> Result<Vec<&'a Service>, CallFailed> {
        let known = dump(&self.public).await?;
        let found = |service: &Service| {
            known.iter().any(|other| {
                (other.program, other.version, other.port)
                    == (service.program, service.version, service.address.port())
                    && other.network == Some((service.network, service.address.is_ipv6()))
            })
        };
        Ok(services.iter().filter(|service| !found(service)).collect())
    }

    async fn renew(&self, services: &[Service]) {
        let Ok(missing) = self.missing(services).await else { return };
        if missing.is_empty() {
            return;
        }
        let missing: Vec<Service> = missing.into_iter().copied().collect();
        match self.register(&missing).await {
            Ok(_) => {
                tracing::info!(services = missing.len(), "rpcbind had forgotten services; registered again")
            }
            Err(error) => {
                tracing::warn!(%error, "rpcbind has forgotten services, and does not take them back")
            }
        }
    }

    /// SET or UNSET: whether rpcbind did it.
    async fn change(&self, procedure: u32, service: &Service) -> Result<bool, CallFailed> {
        let address = universal(service.address);
        let binding = Binding {
            program: service.program,
            version: service.version,
            network: Opaque(service.netid().as_bytes()),
            address: Opaque(if procedure == procedure::SET { address.as_bytes() } else { b"" }),
            owner: Opaque(b"superuser"),
        };
        decoded::<bool>(&call(&self.peer, of_rpcbind(procedure), &binding, PATIENCE).await?)
    }
}

fn decoded<'a, T: Decode<'a>>(bytes: &'a [u8]) -> Result<T, CallFailed> {
    Ok(T::decode(&mut Decoder::new(bytes))?)
}

async fn dump(peer: &Peer) -> Result<Vec<Registered>, CallFailed> {
    let bytes = call(peer, of_rpcbind(procedure::DUMP), &(), PATIENCE).await?;
    let list = decoded::<List<Binding<'_>>>(&bytes)?;
    let registered = |binding: &Binding<'_>| Registered {
        program: binding.program,
        version: binding.version,
        network: Network::of_netid(binding.network.0),
        port: parse_universal(binding.address.0).map_or(0, |address| address.port()),
    };
    Ok(list.0.iter().map(registered).collect())
}

/// Somebody serves `service` on this port of this machine.
async fn answers(service: &Service, port: u16) -> bool {
    let host: IpAddr = match service.address {
        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let there = SocketAddr::new(host, port);
    let peer = match service.network {
        Network::Tcp => Peer::Tcp(there, None),
        Network::Udp => Peer::Udp(there, None),
    };
    let null = Function { program: service.program, version: service.version, procedure: 0 };
    call(&peer, null, &(), ALIVE).await.is_ok()
}
