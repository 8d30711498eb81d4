//! What the port mapper of our own knows, and what it answers (pure).

use super::{Network, Service};
use ehpc_proto::codec::{DecodeError, Decoder, Encoder};
use ehpc_proto::mount::List;
use ehpc_proto::portmap::{
    Arguments, Binding, Entry, Mapping, PORTMAP, RPCBIND_3, RPCBIND_4, TCP, UDP, parse_universal, procedure,
    universal,
};
use ehpc_proto::rpc::{Call, CallError, Reply};
use ehpc_proto::xdr::{Encode, Opaque};
use std::net::{IpAddr, SocketAddr};

/// Most registrations that local programs may add.
const MAX_FOREIGN: usize = 256;
/// Ports below this are root's: only root of this machine registers.
const RESERVED: u16 = 1024;
/// `nc_semantics` of a datagram and of a stream network.
const DATAGRAMS: u32 = 1;
const STREAMS: u32 = 3;

/// Registrations: ours, and those of other programs of this machine.
#[derive(Debug)]
pub(super) struct Table {
    own: Vec<Service>,
    foreign: Vec<Service>,
}

/// A call's circumstances.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstances {
    /// Who calls.
    pub(super) from: SocketAddr,
    /// The address of ours that he used; unspecified if unknown.
    pub(super) at: IpAddr,
    /// Seconds since 1970.
    pub(super) now: u32,
}

impl Table {
    /// A table of our own services; the port mapper itself is among them.
    pub(super) fn new(own: Vec<Service>) -> Table {
        Table { own, foreign: Vec::new() }
    }

    /// The reply to a call; `None` if it is none.
    pub(super) fn answer(&mut self, around: Circumstances, message: &[u8]) -> Option<Vec<u8>> {
        let mut input = Decoder::new(message);
        let mut out = Encoder::with_capacity(256);
        match Call::decode(&mut input) {
            Ok(call) => {
                let body = self.result(around, &call, &mut input);
                match body {
                    Ok(body) => {
                        Reply::Success.encode(call.xid, &mut out);
                        out.bytes(&body);
                    }
                    Err(refusal) => refusal.encode(call.xid, &mut out),
                }
            }
            Err(CallError::Refused { xid, reply }) => reply.encode(xid, &mut out),
            Err(CallError::Malformed(_)) => return None,
        }
        Some(out.finish())
    }

    fn result(
        &mut self,
        around: Circumstances,
        call: &Call<'_>,
        input: &mut Decoder<'_>,
    ) -> Result<Vec<u8>, Reply> {
        if call.program != ehpc_proto::portmap::PROGRAM {
            return Err(Reply::ProgramUnavailable);
        }
        if !(PORTMAP..=RPCBIND_4).contains(&call.version) {
            return Err(Reply::ProgramMismatch { low: PORTMAP, high: RPCBIND_4 });
        }
        let garbage = |_: DecodeError| Reply::GarbageArguments;
        let arguments = Arguments::decode(call.version, call.procedure, input).map_err(garbage)?;
        let arguments = arguments.ok_or(Reply::ProcedureUnavailable)?;
        let mut out = Encoder::new();
        match arguments {
            Arguments::Nothing => self.simple(around, call, &mut out),
            Arguments::Mapping(mapping) => self.portmap(around, call.procedure, mapping, &mut out),
            Arguments::Binding(binding) => self.rpcbind(around, call, &binding, &mut out),
        }
        Ok(out.finish())
    }

    fn all(&self) -> impl Iterator<Item = &Service> {
        self.own.iter().chain(&self.foreign)
    }

    fn simple(&self, around: Circumstances, call: &Call<'_>, out: &mut Encoder) {
        match (call.procedure, call.version) {
            (procedure::DUMP, PORTMAP) => {
                let v4 = self.all().filter(|service| service.address.is_ipv4());
                List(v4.map(mapping).collect()).encode(out);
            }
            (procedure::DUMP, _) => {
                let texts: Vec<(&Service, String)> =
                    self.all().map(|service| (service, universal(service.address))).collect();
                let bindings = texts.iter().map(|(service, address)| Binding {
                    program: service.program,
                    version: service.version,
                    network: Opaque(service.netid().as_bytes()),
                    address: Opaque(address.as_bytes()),
                    owner: Opaque(b"superuser"),
                });
                List(bindings.collect()).encode(out);
            }
            (procedure::GETTIME, RPCBIND_3 | RPCBIND_4) => out.u32(around.now),
            _ => {}
        }
    }

    fn portmap(&mut self, around: Circumstances, procedure: u32, wanted: Mapping, out: &mut Encoder) {
        let network = match wanted.protocol {
            TCP => Some(Network::Tcp),
            UDP => Some(Network::Udp),
            _ => None,
        };
        match procedure {
            procedure::GET => {
                let found = network
                    .and_then(|network| self.find(wanted.program, wanted.version, network.netid(true), true));
                out.u32(found.map_or(0, |service| u32::from(service.address.port())));
            }
            procedure::SET => {
                let service = network.zip(u16::try_from(wanted.port).ok()).map(|(network, port)| Service {
                    program: wanted.program,
                    version: wanted.version,
                    network,
                    address: SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), port),
                });
                service.is_some_and(|service| self.set(around.from, service)).encode(out);
            }
            // Version 2 takes back both protocols at once (RFC 1833 section 3.2).
            _ => self.unset(around.from, wanted.program, wanted.version, None).encode(out),
        }
    }

    fn rpcbind(&mut self, around: Circumstances, call: &Call<'_>, wanted: &Binding<'_>, out: &mut Encoder) {
        let network = Network::of_netid(wanted.network.0);
        match call.procedure {
            procedure::GET | procedure::GETVERSADDR => {
                // GETADDR of version 4 may tell of another version of the program (RFC 1833 section 2.2.1).
                let exact = call.procedure == procedure::GETVERSADDR || call.version == RPCBIND_3;
                let network = std::str::from_utf8(wanted.network.0).unwrap_or_default();
                let found = self.find(wanted.program, wanted.version, network, exact);
                let address = found.map(|service| reachable(service.address, around, wanted.address.0));
                Opaque::<256>(address.unwrap_or_default().as_bytes()).encode(out);
            }
            procedure::GETADDRLIST => {
                let found: Vec<(&Service, String)> = self
                    .all()
                    .filter(|service| service.program == wanted.program && service.version == wanted.version)
                    .map(|service| (service, reachable(service.address, around, wanted.address.0)))
                    .collect();
                List(found.iter().map(|(service, address)| entry(service, address)).collect()).encode(out);
            }
            procedure::SET => {
                let service =
                    network.zip(parse_universal(wanted.address.0)).map(|((network, _), address)| Service {
                        program: wanted.program,
                        version: wanted.version,
                        network,
                        address,
                    });
                service.is_some_and(|service| self.set(around.from, service)).encode(out);
            }
            _ => {
                let network = network.map(|(network, _)| network);
                self.unset(around.from, wanted.program, wanted.version, network).encode(out);
            }
        }
    }

    /// A service of this version; if there is none and `exact` is not asked for, of any version.
    fn find(&self, program: u32, version: u32, network: &str, exact: bool) -> Option<&Service> {
        let of_program = |service: &&Service| service.program == program && service.netid() == network;
        self.all()
            .find(|service| of_program(service) && service.version == version)
            .or_else(|| if exact { None } else { self.all().find(of_program) })
    }

    fn set(&mut self, from: SocketAddr, service: Service) -> bool {
        let same = |other: &Service| {
            (other.program, other.version, other.network, other.address.is_ipv4())
                == (service.program, service.version, service.network, service.address.is_ipv4())
        };
        if !is_local_root(from) || service.address.port() == 0 || self.all().any(same) {
            return false;
        }
        if self.foreign.len() >= MAX_FOREIGN {
            return false;
        }
        self.foreign.push(service);
        true
    }

    /// Ours stay: whoever else takes them back would cut off every client.
    fn unset(&mut self, from: SocketAddr, program: u32, version: u32, network: Option<Network>) -> bool {
        let before = self.foreign.len();
        if is_local_root(from) {
            self.foreign.retain(|service| {
                (service.program, service.version) != (program, version)
                    || network.is_some_and(|network| network != service.network)
            });
        }
        self.foreign.len() < before
    }
}

fn is_local_root(from: SocketAddr) -> bool {
    from.ip().is_loopback() && from.port() < RESERVED
}

fn mapping(service: &Service) -> Mapping {
    let protocol = match service.network {
        Network::Tcp => TCP,
        Network::Udp => UDP,
    };
    let port = u32::from(service.address.port());
    Mapping { program: service.program, version: service.version, protocol, port }
}

fn entry<'a>(service: &Service, address: &'a str) -> Entry<'a> {
    let (semantics, protocol): (u32, &[u8]) = match service.network {
        Network::Tcp => (STREAMS, b"tcp"),
        Network::Udp => (DATAGRAMS, b"udp"),
    };
    let family: &[u8] = if service.address.is_ipv4() { b"inet" } else { b"inet6" };
    Entry {
        address: Opaque(address.as_bytes()),
        network: Opaque(service.netid().as_bytes()),
        semantics,
        family: Opaque(family),
        protocol: Opaque(protocol),
    }
}

/// The universal address at which the caller reaches a service. One that listens on every address is reached where
/// the port mapper was: by the caller's own word, or as the socket knows.
fn reachable(address: SocketAddr, around: Circumstances, hint: &[u8]) -> String {
    if !address.ip().is_unspecified() {
        return universal(address);
    }
    let hinted = parse_universal(hint).map(|hint| hint.ip()).filter(|ip| !ip.is_unspecified());
    let ip = if around.at.is_unspecified() { hinted.unwrap_or(address.ip()) } else { around.at };
    universal(SocketAddr::new(ip, address.port()))
}
