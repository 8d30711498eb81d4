//! `show servers state` (version 1) and `show servers conn`.

use super::commands::Caller;
use super::{Answer, Context};
use crate::proxy::config::model::{Proxy, ServerAddress};
use crate::proxy::state::{Backend, save};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::UNIX_EPOCH;

/// Backends in order, or the one that is named.
fn chosen<'r>(
    context: &Context<'r>,
    name: Option<&&str>,
) -> Result<Vec<(&'r Proxy, &'r Arc<Backend>)>, Answer> {
    let sections = context.running.config.proxies.iter().zip(&context.running.proxies);
    let found: Vec<_> = sections
        .filter(|(proxy, _)| name.is_none_or(|name| proxy.name == **name) && !proxy.disabled)
        .filter_map(|(proxy, state)| state.backend.as_ref().map(|backend| (proxy, backend)))
        .collect();
    if name.is_some() && found.is_empty() {
        return Err(Answer::error("Can't find backend.\n"));
    }
    Ok(found)
}

/// `show servers state [BACKEND]`.
pub(super) fn state(context: &Context<'_>, _: &Caller, arguments: &[&str]) -> Answer {
    if let Err(answer) = chosen(context, arguments.first()) {
        return answer;
    }
    let proxies = &context.running.config.proxies;
    let only = arguments.first().and_then(|name| {
        proxies.iter().position(|proxy| proxy.name == **name && proxy.back && !proxy.disabled)
    });
    let now = context.moment.wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Answer::Text(save(context.running, only, now))
}

/// Address and port as both dumps show them.
fn place(address: &ServerAddress) -> (String, u16) {
    match address {
        ServerAddress::Tcp { at, .. } => (at.ip().to_string(), at.port()),
        ServerAddress::Unix(_) | ServerAddress::Abstract(_) => ("-".to_owned(), 0),
    }
}

/// `show servers conn [BACKEND]`.
pub(super) fn connections(context: &Context<'_>, _: &Caller, arguments: &[&str]) -> Answer {
    let backends = match chosen(context, arguments.first()) {
        Ok(backends) => backends,
        Err(answer) => return answer,
    };
    let mut out = format!(
        "# bkname/svname bkid/svid addr port - purge_delay used_cur used_max need_est unsafe_nb safe_nb idle_lim \
         idle_cur idle_per_thr[{}]\n",
        context.process.threads
    );
    for (proxy, backend) in backends {
        for (written, server) in proxy.servers.iter().zip(&backend.servers) {
            let (address, port) = place(&server.address.read());
            let (now, most) = (server.sessions.load(SeqCst), server.counters.most.load(SeqCst));
            let _ = writeln!(
                out,
                "{}/{} {}/{} {address} {port} - 5000 {now} {most} {most} 0 0 -1 0{}",
                proxy.name,
                written.name,
                proxy.id,
                written.id,
                " 0".repeat(usize::from(context.process.threads))
            );
        }
    }
    Answer::Text(out)
}
