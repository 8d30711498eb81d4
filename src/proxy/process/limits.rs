//! How many descriptors the process needs, and what it does with fewer (3.1 `maxconn`, `ulimit-n`).

use super::arguments::Arguments;
use crate::proxy::config::Config;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What is open besides connections: standard streams, runtimes, logs.
const RESERVE: u64 = 64;
/// What one thread has open.
const A_THREAD: u64 = 16;

/// What the process may do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Limits {
    /// Connections at once.
    pub(super) maxconn: u32,
    /// What the operator should know.
    pub(super) warning: Option<String>,
}

/// Descriptors that are needed besides two a connection: sockets that listen (each with a copy for the next process),
/// checks and idle connections of servers are counted with two a server.
fn besides_connections(config: &Config, sockets: usize, threads: usize) -> u64 {
    let servers: usize = config.proxies.iter().map(|proxy| proxy.servers.len()).sum();
    RESERVE + A_THREAD * threads as u64 + 2 * sockets as u64 + 2 * servers as u64
}

/// Raises the limit of descriptors to what the configuration needs, as far as this user may.
pub(super) fn raise(config: &Config, arguments: &Arguments, sockets: usize, threads: usize) -> Limits {
    let wanted = arguments.maxconn.or(config.global.maxconn).filter(|&maxconn| maxconn > 0);
    let besides = besides_connections(config, sockets, threads);
    let now = getrlimit(Resource::Nofile);
    let hard = now.maximum.unwrap_or(u64::MAX);
    let needed = match (config.global.ulimit_n, wanted) {
        (Some(ulimit), _) => ulimit,
        (None, Some(maxconn)) => besides + 2 * u64::from(maxconn),
        // As many as may be.
        (None, None) => hard,
    };
    if now.current.unwrap_or(u64::MAX) < needed || config.global.ulimit_n.is_some() {
        let maximum = hard.max(needed);
        let ask = |current, maximum| {
            setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum: Some(maximum) }).is_ok()
        };
        // Root may raise the hard limit too.
        let _ = ask(needed, maximum) || ask(needed.min(hard), hard);
    }
    fit(wanted, besides, getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
}

/// Connections that so many descriptors are enough for.
fn fit(wanted: Option<u32>, besides: u64, descriptors: u64) -> Limits {
    // HAProxy's own ceiling where nothing says another is the limit too; a million is more than memory has room for.
    const MOST: u64 = 1_000_000;
    let possible = (descriptors.saturating_sub(besides) / 2).clamp(1, MOST);
    let possible = u32::try_from(possible).unwrap_or(u32::MAX);
    let Some(wanted) = wanted else { return Limits { maxconn: possible, warning: None } };
    if wanted <= possible {
        return Limits { maxconn: wanted, warning: None };
    }
    let needed = besides + 2 * u64::from(wanted);
    let warning = format!(
        "maxconn {wanted} needs {needed} descriptors and the limit is {descriptors}: going on with maxconn {possible}. \
         Next: start as root, or raise the limit (`ulimit -Hn`, LimitNOFILE= of the service) to {needed}"
    );
    Limits { maxconn: possible, warning: Some(warning) }
}

/// `-m`: memory in MiB. Whether the kernel took it.
pub(super) fn set_memory(mib: u64) -> bool {
    let bytes = mib.saturating_mul(1 << 20);
    setrlimit(Resource::As, Rlimit { current: Some(bytes), maximum: Some(bytes) }).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_descriptors_mean_fewer_connections_and_a_warning() {
        assert_eq!(fit(Some(20_000), 100, 65_536), Limits { maxconn: 20_000, warning: None });
        let less = fit(Some(20_000), 100, 1_024);
        assert_eq!(less.maxconn, 462);
        let warning = less.warning.unwrap();
        assert!(warning.contains("needs 40100 descriptors and the limit is 1024"), "{warning}");
        assert_eq!(fit(None, 100, 1_024), Limits { maxconn: 462, warning: None });
        assert_eq!(fit(Some(5), 100, 50).maxconn, 1);
    }
}
