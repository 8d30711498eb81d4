//! Which server a client should get again: cookies, stick tables, hashes.

use super::thread::Thread;
use crate::proxy::config::model::{Proxy, ProxyIndex};
use crate::proxy::exchange::Exchange;
use crate::proxy::state::Wish;

/// What an exchange wants of its backend.
pub(crate) fn wish(thread: &Thread, proxy: &Proxy, backend: ProxyIndex, exchange: &mut Exchange) -> Wish {
    let _ = (thread, proxy, backend, exchange);
    Wish::default()
}

/// Remembers the server that was found.
pub(crate) fn store(thread: &Thread, proxy: &Proxy, exchange: &Exchange) {
    let _ = (thread, proxy, exchange);
}

/// Puts into an answer what makes its client come back to its server.
pub(crate) fn answer(thread: &Thread, proxy: &Proxy, backend: ProxyIndex, exchange: &mut Exchange) {
    let _ = (thread, proxy, backend, exchange);
}
