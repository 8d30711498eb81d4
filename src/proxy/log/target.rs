//! Opening where log lines go.

use crate::host::descriptors;
use crate::proxy::config::model::LogAddress;
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// One thread's way to a target.
#[derive(Debug)]
pub(super) struct Outlet {
    pub(super) kind: Kind,
    pub(super) descriptor: OwnedFd,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// One line a datagram; connected again when its receiver has gone.
    UnixDatagram,
    Udp,
    /// Lines one after the other into a stream socket (a service manager's journal).
    StreamSocket,
    /// A pipe, a terminal, a file.
    File,
}

/// Where a Unix receiver is found again after a chroot: its directory stays open.
#[derive(Debug)]
pub(super) struct Receiver {
    /// As configured.
    pub(super) path: PathBuf,
    /// Directory and name, after symbolic links; absent while the directory does not exist.
    pub(super) place: Option<(OwnedFd, PathBuf)>,
}

impl Receiver {
    pub(super) fn new(path: &Path) -> Receiver {
        Receiver { path: path.to_owned(), place: place_of(path) }
    }
}

fn place_of(path: &Path) -> Option<(OwnedFd, PathBuf)> {
    // /dev/log is a link on most systems, and its target an absolute path, which means nothing after a chroot.
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(real.parent()?, flags, Mode::empty()).ok()?;
    Some((directory, PathBuf::from(real.file_name()?)))
}

/// Opens a target for one thread. A Unix receiver that is not there is no error: it may come.
pub(super) fn open(address: &LogAddress) -> io::Result<Outlet> {
    match address {
        LogAddress::Unix(path) => {
            let socket = datagram_socket(AddressFamily::UNIX)?;
            if let Ok(to) = rustix::net::SocketAddrUnix::new(path) {
                let _ = rustix::net::connect(&socket, &to);
            }
            Ok(Outlet { kind: Kind::UnixDatagram, descriptor: socket })
        }
        LogAddress::Udp(to) => {
            let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let socket = datagram_socket(family)?;
            rustix::net::connect(&socket, to)?;
            Ok(Outlet { kind: Kind::Udp, descriptor: socket })
        }
        LogAddress::Stdout => inherited(1),
        LogAddress::Stderr => inherited(2),
        LogAddress::Descriptor(number) => inherited(*number),
    }
}

/// A target that cannot be opened: every line is an error, and counted.
pub(super) fn nowhere() -> io::Result<Outlet> {
    Ok(Outlet { kind: Kind::Udp, descriptor: datagram_socket(AddressFamily::UNIX)? })
}

fn datagram_socket(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?)
}

fn inherited(number: i32) -> io::Result<Outlet> {
    let descriptor = descriptors::inherited(number)?;
    match rustix::net::sockopt::socket_type(&descriptor) {
        Ok(SocketType::DGRAM) => return Ok(Outlet { kind: Kind::Udp, descriptor }),
        Ok(_) => return Ok(Outlet { kind: Kind::StreamSocket, descriptor }),
        Err(_) => {}
    }
    // A full pipe must not stop the traffic. Its flags are shared with whoever else has it, so it is opened anew.
    let status = rustix::fs::fstat(&descriptor)?;
    let pipe = rustix::fs::FileType::from_raw_mode(status.st_mode) == rustix::fs::FileType::Fifo;
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let anew = match pipe {
        true => rustix::fs::open(format!("/proc/self/fd/{number}"), flags, Mode::empty()).ok(),
        false => None,
    };
    Ok(Outlet { kind: Kind::File, descriptor: anew.unwrap_or(descriptor) })
}

impl Outlet {
    /// Sends one line; never waits (but for a terminal or a file).
    pub(super) fn send(&self, line: &[u8]) -> io::Result<()> {
        use rustix::net::SendFlags;
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let once = || match self.kind {
            Kind::File => rustix::io::write(&self.descriptor, line),
            _ => rustix::net::send(&self.descriptor, line, flags),
        };
        match once() {
            // The error of an earlier datagram; this one has not been sent yet.
            Err(rustix::io::Errno::CONNREFUSED) if self.kind == Kind::Udp => once()?,
            other => other?,
        };
        Ok(())
    }

    /// The same way for another thread.
    pub(super) fn again(&self) -> io::Result<Outlet> {
        Ok(Outlet { kind: self.kind, descriptor: self.descriptor.as_fd().try_clone_to_owned()? })
    }
}
