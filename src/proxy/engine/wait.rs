//! Waiting with the connection's one timer.

use super::deadline::Deadline;
use super::live::Live;
use std::future::poll_fn;
use std::task::{Context, Poll};

/// Why waiting ended before what was waited for came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Interrupted {
    /// The deadline passed.
    Expired,
    /// An operator ended the session.
    Killed,
}

/// Waits for `poll`, until the deadline.
///
/// # Errors
/// [`Interrupted`] when something else came first.
pub(crate) fn until<'a, T>(
    deadline: &'a mut Deadline,
    live: &'a Live,
    mut poll: impl FnMut(&mut Context<'_>, &mut Deadline) -> Poll<T> + 'a,
) -> impl Future<Output = Result<T, Interrupted>> + 'a {
    poll_fn(move |context| {
        if live.killed() {
            return Poll::Ready(Err(Interrupted::Killed));
        }
        if let Poll::Ready(value) = poll(context, deadline) {
            return Poll::Ready(Ok(value));
        }
        deadline.poll(context).map(|()| Err(Interrupted::Expired))
    })
}
