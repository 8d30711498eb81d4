//! Connecting to servers.

use super::stream::{self, Pieces};
use crate::proxy::config::model::{ServerAddress, ServerPort};
use crate::proxy::exchange::Endpoint;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// A connection under way, or made already.
#[derive(Debug)]
pub(crate) struct Dialled {
    /// The socket, non-blocking.
    pub(crate) fd: OwnedFd,
    /// Bytes of the first send that the kernel took. `None`: not connected yet.
    pub(crate) sent: Option<usize>,
    /// Not TCP: there is no `TCP_NODELAY`.
    pub(crate) unix: bool,
}

/// Socket options of a server connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DialOptions {
    /// `option tcpka`, `option srvtcpka`
    pub(crate) keepalive: bool,
    /// `tcp-ut`
    pub(crate) user_timeout: Option<Duration>,
}

/// Begins a connection and tries to send at once: on a near network the kernel has connected when connect(2) returns,
/// and waiting to be told so would cost a turn. With nothing to send, the caller waits until the socket is writable.
///
/// # Errors
/// As socket(2) and connect(2); ECONNREFUSED of a near server comes from the first send.
pub(crate) fn dial(
    address: &ServerAddress,
    local: Endpoint,
    options: DialOptions,
    pieces: Pieces<'_>,
) -> io::Result<Dialled> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (fd, begun) = match address {
        ServerAddress::Tcp { at, port, .. } => {
            let at = with_port(*at, *port, local);
            let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let fd = socket_with(family, SocketType::STREAM, flags, None)?;
            set_options(&fd, options)?;
            let begun = rustix::net::connect(&fd, &at);
            (fd, begun)
        }
        ServerAddress::Unix(path) => {
            let at = SocketAddrUnix::new(path.as_path())?;
            let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            let begun = rustix::net::connect(&fd, &at);
            (fd, begun)
        }
        ServerAddress::Abstract(name) => {
            let at = SocketAddrUnix::new_abstract_name(name)?;
            let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            let begun = rustix::net::connect(&fd, &at);
            (fd, begun)
        }
    };
    let unix = !matches!(address, ServerAddress::Tcp { .. });
    match begun {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    if stream::length(pieces) == 0 {
        return Ok(Dialled { fd, sent: begun.is_ok().then_some(0), unix });
    }
    match stream::send(fd.as_fd(), pieces) {
        Ok(sent) => Ok(Dialled { fd, sent: Some(sent), unix }),
        Err(Errno::AGAIN | Errno::NOTCONN | Errno::INTR) => Ok(Dialled { fd, sent: None, unix }),
        Err(error) => Err(error.into()),
    }
}

/// Whether a connection was not begun because no descriptor is left, for this process or for all of them.
pub(crate) fn no_descriptor(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn with_port(mut at: SocketAddr, port: ServerPort, local: Endpoint) -> SocketAddr {
    if let (ServerPort::Mapped(offset), Endpoint::Tcp(local)) = (port, local) {
        let port = i32::from(local.port()).saturating_add(offset);
        at.set_port(u16::try_from(port).unwrap_or(0));
    }
    at
}

fn set_options(fd: &OwnedFd, options: DialOptions) -> io::Result<()> {
    if options.keepalive {
        rustix::net::sockopt::set_socket_keepalive(fd, true)?;
    }
    if let Some(timeout) = options.user_timeout {
        let timeout = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        rustix::net::sockopt::set_tcp_user_timeout(fd, timeout)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_port_follows_the_client() {
        let at: SocketAddr = "10.0.0.1:0".parse().unwrap();
        let local = Endpoint::Tcp("192.0.2.1:8080".parse().unwrap());
        assert_eq!(with_port(at, ServerPort::Mapped(1000), local).port(), 9080);
        assert_eq!(with_port(at, ServerPort::Mapped(0), local).port(), 8080);
        let fixed: SocketAddr = "10.0.0.1:3306".parse().unwrap();
        assert_eq!(with_port(fixed, ServerPort::Fixed, local).port(), 3306);
    }
}
