//! `show servers state` (version 1) and `show servers conn`.

use super::commands::Caller;
use super::{Answer, Context};
use crate::proxy::config::model::{self, Proxy, ServerAddress};
use crate::proxy::state::{Administration, Backend, Checked, Server};
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
    let backends = match chosen(context, arguments.first()) {
        Ok(backends) => backends,
        Err(answer) => return answer,
    };
    let mut out = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight \
                   srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state \
                   srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl \
                   srv_check_port srv_check_addr srv_agent_addr srv_agent_port\n"
        .to_owned();
    let now = context.moment.wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    for (proxy, backend) in backends {
        for (written, server) in proxy.servers.iter().zip(&backend.servers) {
            let age = now.saturating_sub(server.last_change.load(SeqCst));
            state_line(&mut out, proxy, written, server, age);
        }
    }
    Answer::Text(out)
}

fn state_line(out: &mut String, proxy: &Proxy, written: &model::Server, server: &Server, age: u64) {
    let (address, port) = place(&server.address.read());
    let in_maintenance = server.administration() & Administration::ANY_MAINTENANCE != 0;
    let name = match &written.address {
        ServerAddress::Tcp { host: Some(host), .. } => host.as_str(),
        _ => "-",
    };
    // Bits of srv_check_state: 2 configured, 4 enabled, 8 paused: the file disables it, even where nothing is checked.
    let paused = if written.disabled { 8 } else { 0 };
    let (status, result, health, check) = match server.checked() {
        None => (1, 0, if server.is_up() { 2 } else { 0 }, paused),
        Some(Checked { health, last, enabled, .. }) => (
            last.status as u8,
            last.status.result() as u8,
            health.points(),
            2 | paused | if enabled { 4 } else { 0 },
        ),
    };
    let _ = writeln!(
        out,
        "{} {} {} {} {address} {} {} {} {} {age} {status} {result} {health} {check} 0 0 0 {name} {port} - 0 {} {} - 0",
        proxy.id,
        proxy.name,
        written.id,
        written.name,
        if in_maintenance { 0 } else { server.operation() as u8 },
        administration(server.administration()) | if written.disabled { 4 } else { 0 },
        server.weight.load(SeqCst),
        written.weight,
        written.check.as_ref().and_then(|check| check.port).unwrap_or(0),
        written
            .check
            .as_ref()
            .and_then(|check| check.address)
            .map_or("-".to_owned(), |address| address.to_string()),
    );
}

/// The bits of `srv_admin_state`: 1 maintenance, 8 drain (and 4, the file disables it, whatever was said since).
fn administration(bits: u8) -> u8 {
    let bit = |wanted: u8, shown: u8| if bits & wanted != 0 { shown } else { 0 };
    bit(Administration::ANY_MAINTENANCE, 1) | bit(Administration::DRAIN, 8)
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
