//! Handing listening sockets to another process, as HAProxy does it (its command `_getsocks`), in both directions.
//!
//! Over a Unix stream: how many sockets come, as an `int` of the machine; then messages with at most 252 descriptors,
//! each with an entry a socket in its bytes: length of the network namespace's name, the name, length of the
//! interface's name, the name, four bytes that mean nothing any more. After every message the receiver sends an
//! `int`, for which the sender waits when it has more.

use crate::host::descriptors::{self, MOST_IN_A_MESSAGE};
use crate::proxy::listen::ListeningSocket;
use socket2::SockRef;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// The command.
pub(super) const COMMAND: &[u8] = b"_getsocks\n";
/// More are not taken from anybody.
const MOST_SOCKETS: usize = 16_384;
/// Longest entry: two names of at most 255 bytes.
const LONGEST_ENTRY: usize = 2 * 256 + 4;

/// Sends sockets. Blocks; the stream should have time limits.
pub(super) fn send(stream: &UnixStream, sockets: &[ListeningSocket]) -> io::Result<()> {
    let count = i32::try_from(sockets.len()).map_err(io::Error::other)?;
    (&*stream).write_all(&int(count))?;
    let mut batches = sockets.chunks(MOST_IN_A_MESSAGE).peekable();
    while let Some(batch) = batches.next() {
        let descriptors: Vec<BorrowedFd<'_>> = batch.iter().map(AsFd::as_fd).collect();
        let mut entries = Vec::new();
        for socket in batch {
            write_entry(&interface_of(socket), &mut entries);
        }
        descriptors::send(stream, &entries, &descriptors)?;
        if batches.peek().is_some() {
            (&*stream).read_exact(&mut [0; 4])?;
        }
    }
    Ok(())
}

/// Receives sockets, after [`COMMAND`] was sent. Blocks; the stream should have time limits. Those of other network
/// namespaces are left out.
pub(super) fn receive(stream: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut count = [0; 4];
    (&*stream).read_exact(&mut count)?;
    let count = usize::try_from(from_int(count)).ok().filter(|&count| count <= MOST_SOCKETS);
    let count =
        count.ok_or_else(|| io::Error::other("the other process offers an impossible number of sockets"))?;
    let (mut found, mut entries) = (Vec::new(), Vec::new());
    let mut buffer = vec![0; MOST_IN_A_MESSAGE * LONGEST_ENTRY];
    while found.len() < count {
        let (length, descriptors) = descriptors::receive(stream, &mut buffer)?;
        if length == 0 {
            break;
        }
        entries.extend_from_slice(&buffer[..length]);
        found.extend(descriptors);
        if found.len() > count || entries.len() > count * LONGEST_ENTRY {
            return Err(io::Error::other("the other process sent more than it offered"));
        }
        let so_far = i32::try_from(found.len()).unwrap_or(i32::MAX);
        // Whoever has sent everything may have gone.
        let _ = (&*stream).write_all(&int(so_far));
    }
    if found.len() != count {
        return Err(io::Error::other(format!(
            "the other process offered {count} sockets and sent {}",
            found.len()
        )));
    }
    let mut rest = &entries[..];
    let here: Vec<bool> = found.iter().map(|_| take_entry(&mut rest)).collect();
    Ok(found.into_iter().zip(here).filter(|(_, here)| *here).map(|(socket, _)| socket).collect())
}

/// The name of the interface that a socket is bound to, or nothing.
fn interface_of(socket: &ListeningSocket) -> Vec<u8> {
    let mut name = match socket {
        ListeningSocket::Tcp(_) => SockRef::from(socket).device().ok().flatten().unwrap_or_default(),
        ListeningSocket::Unix(_) => Vec::new(),
    };
    name.truncate(name.iter().position(|&byte| byte == 0).unwrap_or(name.len()).min(255));
    name
}

fn write_entry(interface: &[u8], to: &mut Vec<u8>) {
    to.push(0);
    to.push(u8::try_from(interface.len()).unwrap_or(0));
    to.extend_from_slice(interface);
    to.extend_from_slice(&[0; 4]);
}

/// Whether the socket of the next entry is of this network namespace. A missing entry says nothing else.
fn take_entry(rest: &mut &[u8]) -> bool {
    let mut name = || -> usize {
        let length = usize::from(rest.first().copied().unwrap_or(0));
        *rest = rest.get(1 + length..).unwrap_or(&[]);
        length
    };
    let namespace = name();
    name();
    *rest = rest.get(4..).unwrap_or(&[]);
    namespace == 0
}

/// Both ends run on one machine, and HAProxy sends the machine's own `int`.
fn int(value: i32) -> [u8; 4] {
    if cfg!(target_endian = "big") { value.to_be_bytes() } else { value.to_le_bytes() }
}

fn from_int(bytes: [u8; 4]) -> i32 {
    if cfg!(target_endian = "big") { i32::from_be_bytes(bytes) } else { i32::from_le_bytes(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::time::Duration;

    fn pair() -> (UnixStream, UnixStream) {
        let (a, b) = UnixStream::pair().unwrap();
        for end in [&a, &b] {
            end.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        }
        (a, b)
    }

    #[test]
    fn hundreds_of_sockets_arrive_in_order() {
        let (near, far) = pair();
        let one = TcpListener::bind("127.0.0.1:0").unwrap();
        let two = TcpListener::bind("127.0.0.1:0").unwrap();
        let sockets: Vec<_> = (0..600)
            .map(|n| ListeningSocket::Tcp(if n % 2 == 0 { &one } else { &two }.try_clone().unwrap()))
            .collect();
        let sender = std::thread::spawn(move || send(&near, &sockets));
        let found = receive(&far).unwrap();
        sender.join().unwrap().unwrap();
        assert_eq!(found.len(), 600);
        for (n, socket) in found.into_iter().enumerate() {
            let expected = if n % 2 == 0 { &one } else { &two };
            assert_eq!(TcpListener::from(socket).local_addr().unwrap(), expected.local_addr().unwrap());
        }
    }

    #[test]
    fn none_is_an_answer() {
        let (near, far) = pair();
        send(&near, &[]).unwrap();
        assert!(receive(&far).unwrap().is_empty());
    }

    #[test]
    fn what_is_not_kept_of_a_promise_is_an_error() {
        let (near, far) = pair();
        (&near).write_all(&int(2)).unwrap();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        descriptors::send(&near, &[0; 6], &[socket.as_fd()]).unwrap();
        drop(near);
        assert!(receive(&far).unwrap_err().to_string().contains("offered 2 sockets and sent 1"));
        for impossible in [-1, i32::MAX] {
            let (near, far) = pair();
            (&near).write_all(&int(impossible)).unwrap();
            assert!(receive(&far).unwrap_err().to_string().contains("impossible"));
        }
        let (near, far) = pair();
        (&near).write_all(&int(1)).unwrap();
        descriptors::send(&near, &[0; 6], &[socket.as_fd(), socket.as_fd()]).unwrap();
        assert!(receive(&far).unwrap_err().to_string().contains("more than it offered"));
    }

    #[test]
    fn sockets_of_another_namespace_are_left_out() {
        let (near, far) = pair();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        (&near).write_all(&int(2)).unwrap();
        let mut entries = b"\x03red\x04eth0\0\0\0\0".to_vec();
        write_entry(b"lo", &mut entries);
        descriptors::send(&near, &entries, &[socket.as_fd(), socket.as_fd()]).unwrap();
        assert_eq!(receive(&far).unwrap().len(), 1);
    }
}
