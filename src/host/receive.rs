//! Receiving into memory that was never written.

use bytes::BufMut;
use rustix::net::RecvFlags;
use std::io;
use std::os::fd::AsFd;

/// recv(2) without waiting, into what `into` has room for; bytes received, 0 = the other side has closed (or no room).
///
/// # Errors
///
/// Those of recv(2); [`io::ErrorKind::WouldBlock`] when there is nothing.
pub fn receive(socket: impl AsFd, into: &mut impl BufMut) -> io::Result<usize> {
    let room = into.chunk_mut();
    // SAFETY: the kernel only writes into it; nothing is made uninitialized that was not.
    let room = unsafe { room.as_uninit_slice_mut() };
    let ((received, _), _) = rustix::net::recv(socket, room, RecvFlags::DONTWAIT)?;
    let count = received.len();
    // SAFETY: so many bytes were written just now, at the beginning.
    unsafe { into.advance_mut(count) };
    Ok(count)
}
