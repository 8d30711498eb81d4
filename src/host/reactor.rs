//! Descriptors on a tokio reactor.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Puts a non-blocking descriptor on this thread's reactor, edge-triggered.
///
/// # Errors
/// When the reactor takes no more descriptors (ENOSPC, ENOMEM), or the descriptor is of a kind that epoll(7) refuses.
pub fn register(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open, returns the same number each time, and is closed by nobody else; the `AsyncFd` owns
    // it from here and takes it off the reactor before it is closed.
    let registered = unsafe { AsyncFd::register_with_interest(fd, interest) };
    registered.map_err(io::Error::from)
}

/// The same with one that is kept beside it, to be taken off the reactor and put on it again.
///
/// # Errors
/// As [`register`].
pub fn register_shared(fd: Arc<OwnedFd>, interest: Interest) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    // SAFETY: as above; the `AsyncFd` holds a share of the descriptor, so that it is not closed before it is taken off.
    let registered = unsafe { AsyncFd::register_with_interest(fd, interest) };
    registered.map_err(io::Error::from)
}
