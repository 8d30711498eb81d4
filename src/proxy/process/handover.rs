//! Our own way of handing over: an abstract Unix socket with the process's number in its name gives a successor
//! the listening sockets and what is known of the servers.
//!
//! The successor says `handover 1`, gets the sockets as in [`super::sockets`], then the length (4 bytes, big endian) and
//! the lines of the server states. Both sides look at who the other is (SO_PEERCRED): root, or the same user.

use super::sockets;
use crate::proxy::listen::ListeningSocket;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

/// What a successor says first.
pub(super) const GREETING: &str = "handover 1\n";
/// Longest text of server states that is taken.
const LONGEST_STATES: usize = 64 << 20;
/// The other side is a process of this machine that has nothing else to do.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a successor gets.
#[derive(Debug, Default)]
pub(super) struct Estate {
    pub(super) sockets: Vec<OwnedFd>,
    /// Lines in the form of `show servers state`.
    pub(super) states: String,
}

fn name_of(pid: i32) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("ehpc-store-proxy/{pid}"))
}

/// Opens the socket of this process. After forking, before giving up root: its owner is looked at.
pub(super) fn listen() -> io::Result<UnixListener> {
    let own = i32::try_from(std::process::id()).map_err(io::Error::other)?;
    UnixListener::bind_addr(&name_of(own)?)
}

/// Asks a process for what it has. `Ok(None)`: it has no such socket (it is no proxy of ours, or it is gone).
pub(super) fn request(pid: i32) -> io::Result<Option<Estate>> {
    let stream = match UnixStream::connect_addr(&name_of(pid)?) {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(None),
        Err(error) => return Err(error),
    };
    let peer = rustix::net::sockopt::socket_peercred(&stream)?;
    if peer.pid.as_raw_nonzero().get() != pid || !is_trusted(peer.uid.as_raw()) {
        return Err(io::Error::other(format!(
            "its handover socket belongs to process {} of user {}",
            peer.pid.as_raw_nonzero(),
            peer.uid.as_raw()
        )));
    }
    be_patient(&stream)?;
    (&stream).write_all(GREETING.as_bytes())?;
    let sockets = sockets::receive(&stream)?;
    let mut length = [0; 4];
    (&stream).read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > LONGEST_STATES {
        return Err(io::Error::other("its server states are too long"));
    }
    let mut states = Vec::new();
    (&stream).take(length as u64).read_to_end(&mut states)?;
    let states = String::from_utf8(states).map_err(io::Error::other)?;
    Ok(Some(Estate { sockets, states }))
}

/// Answers one successor. Blocks for some seconds at most.
pub(super) fn answer(stream: &UnixStream, sockets: &[ListeningSocket], states: &str) -> io::Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(stream)?;
    if !is_trusted(peer.uid.as_raw()) {
        return Err(io::Error::other(format!("user {} may not take the sockets", peer.uid.as_raw())));
    }
    be_patient(stream)?;
    let mut greeting = String::new();
    // Nothing follows the greeting until the sockets have come: what the reader has buffered is only it.
    BufReader::new(stream.take(GREETING.len() as u64)).read_line(&mut greeting)?;
    if greeting != GREETING {
        return Err(io::Error::other("it asks for something else"));
    }
    sockets::send(stream, sockets)?;
    let length = u32::try_from(states.len()).map_err(io::Error::other)?;
    (&*stream).write_all(&length.to_be_bytes())?;
    (&*stream).write_all(states.as_bytes())
}

/// Waits for the other side, but not for ever.
pub(super) fn be_patient(stream: &UnixStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

/// Root, or who this process is or was when it started.
fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw() || uid == rustix::process::getuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn sockets_and_states_are_handed_over() {
        let own = i32::try_from(std::process::id()).unwrap();
        let listener = listen().unwrap();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = socket.local_addr().unwrap();
        let answering = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            answer(&stream, &[ListeningSocket::Tcp(socket)], "1\n# states\n")
        });
        let mut estate = request(own).unwrap().unwrap();
        answering.join().unwrap().unwrap();
        assert_eq!(estate.states, "1\n# states\n");
        assert_eq!(TcpListener::from(estate.sockets.remove(0)).local_addr().unwrap(), at);
        // The listener is gone with its thread.
        assert!(request(own).unwrap().is_none());
    }
}
