//! What shows only when all sections are known: what HAProxy's `-c` finds across sections. Numbers that were not given
//! are given here.

use super::model::{
    BackendName, Bind, BindAddress, Config, CookieKind, Mode, Proxy, ProxyIndex, ServerAddress, ServerPort,
};
use crate::settings::{Problem, Problems, Site};
use std::collections::{BTreeMap, BTreeSet};

/// Looks at everything; warnings go into the configuration.
pub(crate) fn check(config: &mut Config, problems: &mut Problems) {
    number_proxies(config, problems);
    for proxy in &mut config.proxies {
        number_servers(proxy, problems);
        number_binds(proxy, problems);
    }
    let mut warnings = Vec::new();
    for (index, proxy) in config.proxies.iter().enumerate() {
        let found = &mut Found { warnings: &mut warnings, problems };
        servers(proxy, found);
        modes(proxy, found);
        if !proxy.disabled {
            targets(config, index, proxy, found);
            timeouts(proxy, found);
        }
    }
    twice(config, problems);
    // As HAProxy: a head has at least half of a buffer.
    let tune = &mut config.global.tune;
    tune.maxrewrite = tune.maxrewrite.min(tune.bufsize / 2);
    config.warnings.append(&mut warnings);
}

struct Found<'f> {
    warnings: &'f mut Vec<String>,
    problems: &'f mut Problems,
}

impl Found<'_> {
    fn warn(&mut self, site: &Site, what: &str) {
        self.warnings.push(format!("{site}: {what}"));
    }

    fn refuse(&mut self, site: &Site, what: String, next: &str) {
        self.problems.0.push(problem(site, what, next));
    }
}

fn problem(site: &Site, what: String, next: &str) -> Problem {
    Problem { site: site.clone(), what, expected: String::new(), next: next.to_owned() }
}

/// Gives the lowest free numbers to those that have none. `ids` are (number or 0, place).
fn number<'s>(
    ids: impl Iterator<Item = (&'s mut u32, &'s Site)>,
    first: u32,
    of: &str,
    problems: &mut Problems,
) {
    let mut ids: Vec<_> = ids.collect();
    let mut taken = BTreeMap::new();
    for (id, site) in ids.iter().filter(|(id, _)| **id > 0) {
        if let Some(other) = taken.insert(**id, (*site).clone()) {
            let what = format!("`id {id}` is the number of the {of} at {other} too");
            problems.0.push(problem(site, what, "use another number, or none"));
        }
    }
    // As HAProxy: one that has a number of its own uses up a number of the row too.
    let mut next = first;
    for (id, site) in &mut ids {
        if **id == 0 {
            while taken.contains_key(&next) {
                next += 1;
            }
            **id = next;
            taken.insert(next, (*site).clone());
        }
        next += 1;
    }
}

fn number_proxies(config: &mut Config, problems: &mut Problems) {
    // HAProxy counts its own sections too: number 1 is the run-time command line.
    number(config.proxies.iter_mut().map(|proxy| (&mut proxy.id, &proxy.site)), 2, "section", problems);
}

fn number_servers(proxy: &mut Proxy, problems: &mut Problems) {
    number(proxy.servers.iter_mut().map(|server| (&mut server.id, &server.site)), 1, "server", problems);
}

fn number_binds(proxy: &mut Proxy, problems: &mut Problems) {
    // A line with several addresses gives its number to the first only.
    let mut before: Option<Site> = None;
    for bind in &mut proxy.binds {
        if before.as_ref() == Some(&bind.site) {
            bind.id = 0;
        }
        before = Some(bind.site.clone());
    }
    number(proxy.binds.iter_mut().map(|bind| (&mut bind.id, &bind.site)), 1, "bind", problems);
}

/// Backends that a frontend sends to have its mode; it listens somewhere.
fn targets(config: &Config, index: ProxyIndex, proxy: &Proxy, found: &mut Found<'_>) {
    if !proxy.front {
        return;
    }
    let fixed = proxy.use_backend.iter().filter_map(|rule| match &rule.target {
        BackendName::Fixed(index) => Some(*index),
        BackendName::Dynamic(_) => None,
    });
    let all: BTreeSet<ProxyIndex> = fixed.chain(proxy.default_backend).collect();
    if all.contains(&index) {
        let what = format!("`{}` sends to itself", proxy.name);
        found.refuse(&proxy.site, what, "remove the line: its own servers are used anyway");
    }
    if proxy.default_backend.is_some() && proxy.back && !proxy.servers.is_empty() {
        let what = format!("`{}` has a default_backend: its own servers will not be used", proxy.name);
        found.warn(&proxy.site, &what);
    }
    for backend in all.into_iter().filter_map(|index| config.proxies.get(index)) {
        if backend.mode != proxy.mode {
            let what = format!(
                "`{}` has mode {}, but sends to `{}` with mode {} ({})",
                proxy.name,
                word(proxy.mode),
                backend.name,
                word(backend.mode),
                backend.site
            );
            found.refuse(&proxy.site, what, "give both the same mode");
        }
    }
    if proxy.binds.is_empty() && !proxy.back {
        let what = format!(
            "frontend `{}` has no `bind`; declare it as a backend if it shall not listen",
            proxy.name
        );
        found.warn(&proxy.site, &what);
    }
    let nowhere = proxy.default_backend.is_none() && proxy.use_backend.is_empty() && !proxy.back;
    if nowhere && proxy.mode == Mode::Tcp && !proxy.binds.is_empty() {
        let what = format!("frontend `{}` has no backend: its connections will be closed", proxy.name);
        found.warn(&proxy.site, &what);
    }
    for bind in &proxy.binds {
        unix_words(bind, found);
    }
}

/// `mode`, `user`, `group` mean something for Unix sockets only.
fn unix_words(bind: &Bind, found: &mut Found<'_>) {
    let words = bind.unix_mode.is_some() || bind.unix_user.is_some() || bind.unix_group.is_some();
    if words && !matches!(bind.address, BindAddress::Unix(_)) {
        found.warn(&bind.site, "`mode`, `user` and `group` have an effect on Unix sockets only");
    }
}

fn word(mode: Mode) -> &'static str {
    match mode {
        Mode::Tcp => "tcp",
        Mode::Http => "http",
    }
}

fn servers(proxy: &Proxy, found: &mut Found<'_>) {
    let mut names: BTreeMap<&str, &Site> = BTreeMap::new();
    for server in &proxy.servers {
        if let Some(other) = names.insert(&server.name, &server.site) {
            let what = format!("`{}` is the name of the server at {other} too", server.name);
            found.refuse(&server.site, what, "rename one of them");
        }
        let persistent = proxy.cookie.is_some();
        if server.cookie.is_some() && !persistent && proxy.mode == Mode::Http {
            let what =
                format!("server `{}` has a cookie, but backend `{}` has none", server.name, proxy.name);
            found.warn(&server.site, &format!("{what}; it has no effect"));
        }
        let inserts = proxy.cookie.as_ref().is_some_and(|cookie| cookie.kind != CookieKind::Passive);
        if server.cookie.is_none()
            && !server.backup
            && inserts
            && proxy.mode == Mode::Http
            && proxy.servers.iter().any(|s| s.cookie.is_some())
        {
            let what = format!("server `{}` has no cookie: its clients do not stay with it", server.name);
            found.warn(&server.site, &what);
        }
        if let (Some(minconn), maxconn) = (server.minconn, server.maxconn.unwrap_or(0))
            && minconn > maxconn
            && maxconn > 0
        {
            let what = format!("server `{}`: minconn {minconn} is above maxconn {maxconn}", server.name);
            found.warn(&server.site, &format!("{what}; it counts as {maxconn}"));
        }
        if let (ServerAddress::Unix(_) | ServerAddress::Abstract(_), Some(check)) =
            (&server.address, &server.check)
            && check.port.is_some()
            && check.address.is_none()
        {
            found.refuse(
                &server.site,
                "`port` of a Unix socket's check needs `addr`".to_owned(),
                "add `addr`, or remove `port`",
            );
        }
        if let (ServerAddress::Tcp { port: ServerPort::Mapped(_), .. }, false) =
            (&server.address, proxy.front || proxy.back)
        {
            found.warn(&server.site, "its port is that of the client's connection");
        }
    }
}

/// What `mode tcp` cannot do.
fn modes(proxy: &Proxy, found: &mut Found<'_>) {
    if proxy.mode == Mode::Http {
        return;
    }
    let name = &proxy.name;
    let mut ignored = Vec::new();
    let rules = !proxy.request_rules.is_empty() || !proxy.response_rules.is_empty();
    if rules || !proxy.after_response_rules.is_empty() {
        ignored.push("http-request and http-response");
    }
    if proxy.cookie.is_some() && !proxy.servers.is_empty() {
        ignored.push("cookie");
    }
    if proxy.stats.is_some() {
        ignored.push("stats");
    }
    if proxy.forward_for.is_some() {
        ignored.push("option forwardfor");
    }
    if proxy.original_to.is_some() {
        ignored.push("option originalto");
    }
    if proxy.monitor_uri.is_some() {
        ignored.push("monitor-uri");
    }
    if !ignored.is_empty() {
        let what = format!("`{name}` has mode tcp: {} have no effect", ignored.join(", "));
        found.warn(&proxy.site, &what);
    }
}

fn timeouts(proxy: &Proxy, found: &mut Found<'_>) {
    let mut missing = Vec::new();
    if proxy.front && proxy.timeouts.client.is_none() && !proxy.binds.is_empty() {
        missing.push("client");
    }
    if proxy.back && proxy.timeouts.connect.is_none() && !proxy.servers.is_empty() {
        missing.push("connect");
    }
    if proxy.back && proxy.timeouts.server.is_none() && !proxy.servers.is_empty() {
        missing.push("server");
    }
    if !missing.is_empty() {
        let what = format!(
            "`{}` has no timeout {}: dead connections will stay; add `timeout {} 30s`",
            proxy.name,
            missing.join(", no timeout "),
            missing[0]
        );
        found.warn(&proxy.site, &what);
    }
}

/// Two Unix sockets of one name: the second would take the first's place.
fn twice(config: &Config, problems: &mut Problems) {
    let mut seen: BTreeMap<&[u8], &Site> = BTreeMap::new();
    for bind in config.proxies.iter().filter(|proxy| !proxy.disabled).flat_map(|proxy| &proxy.binds) {
        let name = match &bind.address {
            BindAddress::Unix(path) => path.as_os_str().as_encoded_bytes(),
            BindAddress::Abstract(name) => name.as_slice(),
            BindAddress::Tcp(_) | BindAddress::Descriptor(_) => continue,
        };
        if let Some(other) = seen.insert(name, &bind.site) {
            let what = format!("this socket is used at {other} too");
            problems.0.push(problem(&bind.site, what, "use another"));
        }
    }
}
