//! A connected socket on this thread's reactor: TCP or unix, client's or server's.
//!
//! System calls are made only when the socket is known to be ready, and a read that did not fill its buffer is known to
//! have emptied the socket: an exchange costs one `recv` and one `send` a side.

use crate::host::reactor;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

/// A connected, non-blocking stream socket.
#[derive(Debug)]
pub(crate) struct Stream {
    fd: AsyncFd<OwnedFd>,
    /// Bytes of more than one send went out: from the second on the kernel must not wait for acknowledgements.
    sent: bool,
    /// `TCP_NODELAY` is set, or has no meaning.
    prompt: bool,
}

impl Stream {
    /// Puts a non-blocking socket on this thread's reactor. `prompt`: it is no TCP socket, or has `TCP_NODELAY`.
    ///
    /// # Errors
    /// When the reactor takes no more descriptors.
    pub(crate) fn new(fd: OwnedFd, prompt: bool) -> io::Result<Stream> {
        let fd = reactor::register(fd, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Stream { fd, sent: false, prompt })
    }

    /// Bytes were sent before this stream was made.
    pub(crate) fn has_sent(&mut self) {
        self.sent = true;
    }

    /// Reads what is there; 0: the peer will send no more.
    pub(crate) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.fd.poll_read_ready(context))?;
            match rustix::net::recv(self.fd.get_ref(), &mut *into, RecvFlags::empty()) {
                Ok((_, read)) => {
                    if read > 0 && read < into.len() {
                        guard.clear_ready();
                    }
                    return Poll::Ready(Ok(read));
                }
                Err(error) => again(error, &mut guard)?,
            }
        }
    }

    /// Sends the pieces in order, as much as the kernel takes at once.
    pub(crate) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        pieces: Pieces<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.sent && !self.prompt {
            // Fails on a socket that is gone: the send below says so, too.
            let _ = rustix::net::sockopt::set_tcp_nodelay(self.fd.get_ref(), true);
            self.prompt = true;
        }
        loop {
            let mut guard = ready!(self.fd.poll_write_ready(context))?;
            match send(self.fd.get_ref().as_fd(), pieces) {
                Ok(sent) => {
                    self.sent = true;
                    if sent < length(pieces) {
                        guard.clear_ready();
                    }
                    return Poll::Ready(Ok(sent));
                }
                Err(error) => again(error, &mut guard)?,
            }
        }
    }

    /// Waits until a connection under way is made, or has failed.
    pub(crate) fn poll_connected(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let guard = ready!(self.fd.poll_write_ready(context))?;
        drop(guard);
        match rustix::net::sockopt::socket_error(self.fd.get_ref())? {
            Ok(()) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }

    /// Whether an idle connection can no longer be used: the peer closed it, or sent what nobody asked for. Looks at
    /// what the reactor knows; no system call while nothing has happened.
    pub(crate) fn is_stale(&self) -> bool {
        let mut context = Context::from_waker(std::task::Waker::noop());
        self.fd.poll_read_ready(&mut context).is_ready()
    }

    /// Ready when the peer has closed its side or the whole connection, whatever it has sent before and nobody has read.
    pub(crate) async fn left(&self) {
        // The reactor tells of the end of reading to who waits for this, and of bytes it does not.
        let _ = self.fd.ready(Interest::PRIORITY).await;
    }

    /// No more will be sent (FIN).
    pub(crate) fn shut_write(&self) {
        // The only error is that the connection is gone, and then nothing is to be said any more.
        let _ = rustix::net::shutdown(self.fd.get_ref(), Shutdown::Write);
    }

    /// Closing sends RST instead of FIN, and leaves no TIME_WAIT (`option nolinger`).
    pub(crate) fn no_linger(&self) {
        let _ = rustix::net::sockopt::set_socket_linger(self.fd.get_ref(), Some(std::time::Duration::ZERO));
    }

    /// Its descriptor, for socket options.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.get_ref().as_fd()
    }
}

/// What is sent at once: any of them may be empty.
pub(crate) type Pieces<'p> = [&'p [u8]; 3];

/// Bytes of all pieces.
pub(crate) fn length(pieces: Pieces<'_>) -> usize {
    pieces.iter().map(|piece| piece.len()).sum()
}

/// One send of all pieces.
///
/// # Errors
/// As sendmsg(2).
pub(crate) fn send(fd: BorrowedFd<'_>, pieces: Pieces<'_>) -> rustix::io::Result<usize> {
    match pieces {
        [one, [], []] | [[], one, []] | [[], [], one] => rustix::net::send(fd, one, SendFlags::NOSIGNAL),
        _ => {
            let pieces = pieces.map(IoSlice::new);
            rustix::net::sendmsg(fd, &pieces, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)
        }
    }
}

/// Whether to try once more; clears the readiness that turned out wrong.
fn again(error: rustix::io::Errno, guard: &mut AsyncFdReadyGuard<'_, OwnedFd>) -> io::Result<()> {
    match error {
        rustix::io::Errno::AGAIN => guard.clear_ready(),
        rustix::io::Errno::INTR => {}
        error => return Err(error.into()),
    }
    Ok(())
}
