//! Which backend gets an exchange, and which of its servers it should have.

use super::thread::Thread;
use crate::proxy::config::model::{BackendName, Proxy, ProxyIndex};
use crate::proxy::exchange::Exchange;
use crate::proxy::expression::Context;

/// `use_backend` rules in order, then `default_backend`, then the section itself if it has servers.
pub(crate) fn backend(thread: &Thread, proxy: &Proxy, exchange: &Exchange) -> Option<ProxyIndex> {
    let context = Context { exchange, running: &thread.running };
    for rule in &proxy.use_backend {
        if !rule.condition.as_ref().is_none_or(|condition| condition.holds(&context)) {
            continue;
        }
        match &rule.target {
            BackendName::Fixed(index) => return Some(*index),
            BackendName::Dynamic(format) => {
                let mut name = thread.buffers.take_text();
                format.render(&context, &mut name);
                let proxies = &thread.running.config.proxies;
                let named = |one: &Proxy| one.back && one.name.as_bytes() == name;
                let found = proxies.iter().position(named);
                thread.buffers.give_text(name);
                if found.is_some() {
                    return found;
                }
            }
        }
    }
    let itself = proxy.back.then_some(exchange.session.frontend);
    proxy.default_backend.or(itself)
}
