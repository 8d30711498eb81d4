//! Options of listening sockets that no library has.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// A connection is accepted when its first bytes have come, or this many seconds have passed (tcp(7),
/// TCP_DEFER_ACCEPT). 0: at once.
pub fn set_defer_accept(socket: impl AsFd, seconds: u32) -> io::Result<()> {
    let seconds = libc::c_int::try_from(seconds).unwrap_or(libc::c_int::MAX);
    set_option(socket, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, &seconds)
}

/// From here on every new connection to the address goes to one of the sockets that listen there with SO_REUSEPORT:
/// the one that was bound as number `index` (from 0). `socket` is any of them.
///
/// This is how sockets of such a group are closed without losing a connection: first none arrives at them any more.
pub fn steer_to(socket: impl AsFd, index: u16) -> io::Result<()> {
    // One instruction of classic BPF: return the constant.
    let mut program =
        [libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: u32::from(index) }];
    let filter = libc::sock_fprog { len: 1, filter: program.as_mut_ptr() };
    set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &filter)
}

/// New connections go to all sockets of the group again.
pub fn steer_freely(socket: impl AsFd) -> io::Result<()> {
    // Not in the libc crate.
    const SO_DETACH_REUSEPORT_BPF: libc::c_int = 68;
    set_option(socket, libc::SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, &0)
}

fn set_option<T>(socket: impl AsFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0);
    let value = std::ptr::from_ref(value).cast::<libc::c_void>();
    // SAFETY: the kernel reads `length` bytes of a value that lives during the call (a filter program's pointer too).
    let result = unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, value, length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Socket, Type};
    use std::net::{SocketAddr, TcpListener, TcpStream};

    fn listener(at: SocketAddr) -> TcpListener {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&at.into()).unwrap();
        socket.listen(256).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.into()
    }

    fn waiting(listener: &TcpListener) -> usize {
        std::iter::from_fn(|| listener.accept().ok()).count()
    }

    #[test]
    fn connections_are_steered_to_one_socket_of_a_group() {
        let first = listener(([127, 0, 0, 1], 0).into());
        let at = first.local_addr().unwrap();
        let second = listener(at);
        let connect = || (0..64).map(|_| TcpStream::connect(at).unwrap()).collect::<Vec<_>>();
        for (index, own, other) in [(0, &first, &second), (1, &second, &first)] {
            steer_to(&first, index).unwrap();
            let _clients = connect();
            assert_eq!((waiting(own), waiting(other)), (64, 0));
        }
        steer_freely(&second).unwrap();
        let _clients = connect();
        let (a, b) = (waiting(&first), waiting(&second));
        assert!(a > 0 && b > 0 && a + b == 64, "{a} and {b}");
    }

    #[test]
    fn a_deferred_connection_is_accepted_with_its_first_byte() {
        let listener = listener(([127, 0, 0, 1], 0).into());
        set_defer_accept(&listener, 30).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(listener.accept().is_err());
        listener.set_nonblocking(false).unwrap();
        std::io::Write::write_all(&mut client, b"x").unwrap();
        listener.accept().unwrap();
    }
}
