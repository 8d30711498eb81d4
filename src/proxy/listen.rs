//! Listening sockets that are open already, wherever they come from.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;

/// A listening socket.
#[derive(Debug)]
pub enum ListeningSocket {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix stream socket, by path or abstract.
    Unix(UnixListener),
}

impl ListeningSocket {
    /// Another descriptor of the same socket.
    pub fn copy(&self) -> io::Result<ListeningSocket> {
        Ok(match self {
            ListeningSocket::Tcp(socket) => ListeningSocket::Tcp(socket.try_clone()?),
            ListeningSocket::Unix(socket) => ListeningSocket::Unix(socket.try_clone()?),
        })
    }

    /// What a descriptor that listens is; an error when it is neither TCP nor a Unix stream, or does not listen.
    pub fn from_descriptor(descriptor: OwnedFd) -> io::Result<ListeningSocket> {
        use rustix::net::{AddressFamily, SocketType, sockopt};
        let other = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("it is not {what}"));
        if sockopt::socket_type(&descriptor).ok() != Some(SocketType::STREAM) {
            return Err(other("a stream socket"));
        }
        if !sockopt::socket_acceptconn(&descriptor)? {
            return Err(other("listening"));
        }
        match sockopt::socket_domain(&descriptor)? {
            AddressFamily::INET | AddressFamily::INET6 => Ok(ListeningSocket::Tcp(descriptor.into())),
            AddressFamily::UNIX => Ok(ListeningSocket::Unix(descriptor.into())),
            _ => Err(other("TCP or Unix")),
        }
    }
}

impl AsFd for ListeningSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            ListeningSocket::Tcp(socket) => socket.as_fd(),
            ListeningSocket::Unix(socket) => socket.as_fd(),
        }
    }
}
