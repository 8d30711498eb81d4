//! Descriptors that come from elsewhere: inherited ones, and those that travel over Unix sockets.

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Most descriptors in one message (the kernel's SCM_MAX_FD is 253; HAProxy sends 252).
pub const MOST_IN_A_MESSAGE: usize = 252;

/// A copy of a descriptor that whoever started this process has left open, by number.
/// The number itself stays as it is. An error: nothing is open there.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the borrow ends within this function, in which nobody closes descriptors: at worst the number names
    // nothing, which the kernel says.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    borrowed.try_clone_to_owned()
}

/// Takes over an inherited descriptor itself: it is closed with the value. Only one that came through execve can be
/// taken, once: everything that this process opens, or has taken, is marked to be closed by execve.
pub fn take_inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: plain integers; a number that names nothing is refused.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    if flags & libc::FD_CLOEXEC != 0 {
        return Err(io::Error::other(format!("descriptor {number} belongs to this process already")));
    }
    // SAFETY: it is open, and nothing in this process owns it: the standard library and rustix mark what they open.
    let taken = unsafe { OwnedFd::from_raw_fd(number) };
    keep_across_exec(&taken, false)?;
    Ok(taken)
}

/// Lets a descriptor stay open across execve, or not.
pub fn keep_across_exec(descriptor: impl AsFd, keep: bool) -> io::Result<()> {
    let flags = if keep { rustix::io::FdFlags::empty() } else { rustix::io::FdFlags::CLOEXEC };
    Ok(rustix::io::fcntl_setfd(descriptor, flags)?)
}

/// Sends bytes (at least one) and up to [`MOST_IN_A_MESSAGE`] descriptors as one message.
/// An error also when not all bytes went.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_IN_A_MESSAGE))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    let sent = rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
    if sent == bytes.len() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::WriteZero)) }
}

/// Receives bytes into `buffer` and the descriptors that came with them; 0 bytes: the other side has closed.
/// More descriptors than [`MOST_IN_A_MESSAGE`] in one message are an error.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_IN_A_MESSAGE))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(buffer)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut found = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            found.extend(descriptors);
        }
    }
    if received.flags.contains(rustix::net::ReturnFlags::CTRUNC) {
        return Err(io::Error::other("more descriptors in a message than this process takes"));
    }
    Ok((received.bytes, found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn descriptors_travel_with_their_bytes() {
        let (a, b) = UnixStream::pair().unwrap();
        let (mut near, far) = UnixStream::pair().unwrap();
        send(&a, b"x", &[far.as_fd(), a.as_fd()]).unwrap();
        drop(far);
        let mut bytes = [0; 8];
        let (length, mut descriptors) = receive(&b, &mut bytes).unwrap();
        assert_eq!((&bytes[..length], descriptors.len()), (&b"x"[..], 2));
        let mut far = UnixStream::from(descriptors.swap_remove(0));
        near.write_all(b"hello").unwrap();
        let mut text = [0; 5];
        far.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"hello");
    }

    #[test]
    fn a_number_without_a_descriptor_is_an_error() {
        assert!(inherited(-1).is_err());
        assert!(inherited(1_000_000).is_err());
        assert!(take_inherited(1_000_000).is_err());
        let file = std::fs::File::open("/dev/null").unwrap();
        let own = std::os::fd::AsRawFd::as_raw_fd(&file);
        assert!(take_inherited(own).unwrap_err().to_string().contains("belongs to this process"));
        assert!(inherited(0).is_ok());
    }
}
