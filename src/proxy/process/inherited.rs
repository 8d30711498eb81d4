//! Listening sockets of the process before this one, by address.

use crate::proxy::config::model::{Bind, BindAddress};
use crate::proxy::listen::ListeningSocket;
use socket2::SockRef;
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::path::{Path, PathBuf};

/// What was inherited and is not used yet. What is left when it is dropped is closed.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    sockets: Vec<Found>,
    /// Inode numbers: the same socket may come along several ways.
    known: HashSet<u64>,
}

#[derive(Debug)]
struct Found {
    key: Key,
    socket: ListeningSocket,
}

/// What makes two listening sockets the same bind.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Key {
    address: BindAddress,
    /// IPv6 only, and no IPv4.
    v6only: bool,
    interface: Option<Vec<u8>>,
}

impl Inherited {
    /// Adds a descriptor, if it is a listening socket that was not here before.
    pub(super) fn add(&mut self, descriptor: OwnedFd) -> bool {
        let Ok(socket) = ListeningSocket::from_descriptor(descriptor) else { return false };
        let Some(key) = key_of(&socket) else { return false };
        let Ok(status) = rustix::fs::fstat(&socket) else { return false };
        let new = self.known.insert(status.st_ino);
        if new {
            self.sockets.push(Found { key, socket });
        }
        new
    }

    /// Adds those of many that are listening sockets and were not here before.
    pub(super) fn add_all(&mut self, descriptors: impl IntoIterator<Item = OwnedFd>) {
        for descriptor in descriptors {
            self.add(descriptor);
        }
    }

    /// All sockets of a bind, in the order in which they came.
    pub(super) fn take(&mut self, bind: &Bind) -> Vec<ListeningSocket> {
        let wanted = key_of_bind(bind);
        self.sockets.extract_if(.., |found| found.key == wanted).map(|found| found.socket).collect()
    }

    /// Forgets what none of these binds wants.
    pub(super) fn keep_only<'b>(&mut self, binds: impl Iterator<Item = &'b Bind>) {
        let wanted: Vec<Key> = binds.map(key_of_bind).collect();
        self.sockets.retain(|found| wanted.contains(&found.key));
    }
}

fn key_of_bind(bind: &Bind) -> Key {
    let v6 = matches!(bind.address, BindAddress::Tcp(SocketAddr::V6(_)));
    Key {
        address: bind.address.clone(),
        v6only: v6 && bind.v6only.unwrap_or_else(v6only_by_default),
        interface: bind.interface.as_ref().map(|name| name.as_bytes().to_vec()),
    }
}

/// What sockets get when a `bind` says neither `v6only` nor `v4v6`.
fn v6only_by_default() -> bool {
    std::fs::read_to_string("/proc/sys/net/ipv6/bindv6only").is_ok_and(|value| value.trim() == "1")
}

fn key_of(socket: &ListeningSocket) -> Option<Key> {
    match socket {
        ListeningSocket::Tcp(listener) => {
            let address = listener.local_addr().ok()?;
            let v6only = address.is_ipv6() && rustix::net::sockopt::ipv6_v6only(listener.as_fd()).ok()?;
            let interface = SockRef::from(listener).device().ok()?;
            let interface = interface.map(|mut name| {
                name.truncate(name.iter().position(|&byte| byte == 0).unwrap_or(name.len()));
                name
            });
            let interface = interface.filter(|name| !name.is_empty());
            // The scope of a link-local address is its interface's number; the flow means nothing here.
            Some(Key { address: BindAddress::Tcp(plain(address)), v6only, interface })
        }
        ListeningSocket::Unix(listener) => {
            let at = listener.local_addr().ok()?;
            let address = match (at.as_pathname(), at.as_abstract_name()) {
                (Some(path), _) => BindAddress::Unix(final_name(path)),
                (_, Some(name)) => BindAddress::Abstract(name.to_vec()),
                _ => return None,
            };
            Some(Key { address, v6only: false, interface: None })
        }
    }
}

fn plain(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(ip) if !ip.is_unicast_link_local() => SocketAddr::new(IpAddr::V6(ip), address.port()),
        _ => address,
    }
}

/// A Unix socket is bound under a name with a process number and `.tmp`, and then renamed; its address stays what
/// it was bound to. HAProxy does the same.
pub(super) fn final_name(path: &Path) -> PathBuf {
    let text = path.to_string_lossy();
    let stripped =
        text.strip_suffix(".tmp").and_then(|text| text.rsplit_once('.')).and_then(|(name, number)| {
            (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
                .then(|| PathBuf::from(name))
        });
    stripped.unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::process::open::tests::bind;
    use std::net::TcpListener;

    #[test]
    fn a_socket_is_found_by_its_address_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let copy = listener.try_clone().unwrap();
        let mut inherited = Inherited::default();
        assert!(inherited.add(listener.into()));
        assert!(!inherited.add(copy.into()), "the same socket twice");
        assert!(!inherited.add(std::fs::File::open("/dev/null").unwrap().into()));
        let mut other = at;
        other.set_port(at.port() ^ 1);
        assert!(inherited.take(&bind(BindAddress::Tcp(other))).is_empty());
        let mut on_interface = bind(BindAddress::Tcp(at));
        on_interface.interface = Some("lo".into());
        assert!(inherited.take(&on_interface).is_empty());
        assert_eq!(inherited.take(&bind(BindAddress::Tcp(at))).len(), 1);
        assert!(inherited.take(&bind(BindAddress::Tcp(at))).is_empty());
    }

    #[test]
    fn an_address_for_ipv6_only_is_another_one() {
        let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None).unwrap();
        socket.set_only_v6(true).unwrap();
        socket.bind(&"[::]:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.listen(1).unwrap();
        let at = socket.local_addr().unwrap().as_socket().unwrap();
        let mut inherited = Inherited::default();
        assert!(inherited.add(socket.into()));
        let mut both = bind(BindAddress::Tcp(at));
        both.v6only = Some(false);
        assert!(inherited.take(&both).is_empty());
        both.v6only = Some(true);
        assert_eq!(inherited.take(&both).len(), 1);
    }

    #[test]
    fn names_of_unix_sockets_lose_what_the_rename_took_away() {
        let name = |text: &str| final_name(Path::new(text)).display().to_string();
        assert_eq!(name("/run/admin.sock.123.tmp"), "/run/admin.sock");
        assert_eq!(name("/run/admin.sock"), "/run/admin.sock");
        assert_eq!(name("/run/admin.x.tmp"), "/run/admin.x.tmp");
    }
}
