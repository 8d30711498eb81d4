//! Log lines to syslog (4.2 `log`, 8.1): datagrams, never waited for; what cannot be sent is counted and told later.
//!
//! `header` (pure) makes what stands before the text, `target` opens, `mender` connects again. Each thread has a
//! [`Logger`] with sockets of its own; nothing is shared on the way of a line, nothing is allocated.

mod header;
mod mender;
mod target;
#[cfg(test)]
mod tests;

pub use header::Severity;

use super::config::Config;
use super::config::model::{LogAddress, LogTarget, ProxyIndex};
use crate::host::local_time::local_time;
use header::{Cached, Moment, Sender};
use mender::{Line, Wanted};
use parking_lot::Mutex;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use target::{Kind, Outlet, Receiver};

/// Where lines go: made once, before chroot; gives each thread its [`Logger`].
#[derive(Debug)]
pub struct Logs {
    routes: Arc<Routes>,
    /// Ways that were opened for threads and not given out yet.
    ready: Mutex<Vec<Vec<Outlet>>>,
    /// For more threads than were foreseen.
    spare: Vec<Outlet>,
    lines: Mutex<Vec<Line>>,
    wanted: Arc<Wanted>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Routes {
    /// All `log` lines of all sections; equal ones once.
    all: Vec<Route>,
    /// Of section `global`, indices into `all`.
    global: Vec<usize>,
    /// Of each proxy.
    proxies: Vec<Vec<usize>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Route {
    /// Index into the outlets.
    outlet: usize,
    sender: Sender,
    /// Longest line, without its newline.
    length: usize,
    /// Lines with a higher number are not sent.
    level: u8,
    /// Lines with a lower number are sent with this one.
    min_level: Severity,
}

/// A thread's way to the logs.
#[derive(Debug)]
pub struct Logger {
    routes: Arc<Routes>,
    way: Way,
}

/// What changes with every line.
#[derive(Debug)]
struct Way {
    outlets: Vec<Outlet>,
    /// By route.
    headers: Vec<Cached>,
    /// By outlet: lines that could not be sent, and why the first could not.
    lost: Vec<(u64, io::ErrorKind)>,
    moment: Moment,
    line: Vec<u8>,
    wanted: Arc<Wanted>,
    dropped: Arc<AtomicU64>,
}

impl Logs {
    /// Opens every target of the configuration for `loggers` threads. A receiver that is not there is no error (its
    /// lines are dropped until it comes); what cannot be opened at all is returned as warnings. An error: no descriptors.
    pub fn open(config: &Config, pid: u32, loggers: usize) -> io::Result<(Logs, Vec<String>)> {
        crate::host::local_time::read_time_zone();
        let (routes, addresses) = routes_of(config, pid);
        let mut warnings = Vec::new();
        let mut ready: Vec<Vec<Outlet>> = (0..loggers).map(|_| Vec::new()).collect();
        let (mut lines, mut spare) = (Vec::new(), Vec::new());
        for address in &addresses {
            let mut sockets = Vec::new();
            for outlets in ready.iter_mut().chain([&mut spare]) {
                let outlet = target::open(address).or_else(|error| {
                    warnings.push(format!("log {}: {error}; its lines are dropped", name_of(address)));
                    target::nowhere()
                });
                let outlet = outlet?;
                if outlet.kind == Kind::UnixDatagram {
                    sockets.push(outlet.descriptor.as_fd().try_clone_to_owned()?);
                }
                outlets.push(outlet);
            }
            if let LogAddress::Unix(path) = address {
                lines.push(Line { receiver: Receiver::new(path), sockets });
            }
        }
        warnings.dedup();
        let logs = Logs {
            routes: Arc::new(routes),
            ready: Mutex::new(ready),
            spare,
            lines: Mutex::new(lines),
            wanted: Arc::new(Wanted::default()),
            dropped: Arc::new(AtomicU64::new(0)),
        };
        Ok((logs, warnings))
    }

    /// Starts the thread that connects again to a restarted syslog daemon. Once, after all forks.
    pub fn keep_connected(&self) -> io::Result<()> {
        let lines = std::mem::take(&mut *self.lines.lock());
        if lines.is_empty() {
            return Ok(());
        }
        let wanted = Arc::clone(&self.wanted);
        std::thread::Builder::new().name("syslog".into()).spawn(move || mender::run(&lines, &wanted))?;
        Ok(())
    }

    /// For one thread. An error: the process has no descriptors left.
    pub fn logger(&self) -> io::Result<Logger> {
        let outlets = match self.ready.lock().pop() {
            Some(outlets) => outlets,
            None => self.spare.iter().map(Outlet::again).collect::<io::Result<_>>()?,
        };
        let way = Way {
            headers: vec![Cached::default(); self.routes.all.len()],
            lost: vec![(0, io::ErrorKind::Other); outlets.len()],
            outlets,
            moment: Moment::default(),
            line: Vec::with_capacity(2048),
            wanted: Arc::clone(&self.wanted),
            dropped: Arc::clone(&self.dropped),
        };
        Ok(Logger { routes: Arc::clone(&self.routes), way })
    }

    /// Lines that could not be sent, since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Where they are counted.
    pub fn dropped_counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        self.wanted.end();
    }
}

impl Logger {
    /// Sends a line to the logs of a section. `text` has no newline.
    pub fn send(&mut self, proxy: ProxyIndex, severity: Severity, text: &[u8]) {
        if let Some(chosen) = self.routes.proxies.get(proxy).filter(|chosen| !chosen.is_empty()) {
            self.way.send_along(&self.routes, chosen, severity, text);
        }
    }

    /// Sends a line to the logs of section `global`.
    pub fn send_global(&mut self, severity: Severity, text: &[u8]) {
        self.way.send_along(&self.routes, &self.routes.global, severity, text);
    }

    /// Whether a line of that section would go anywhere: if not, it need not be made.
    pub fn wants(&self, proxy: ProxyIndex, severity: Severity) -> bool {
        let chosen = self.routes.proxies.get(proxy).map_or(&[][..], Vec::as_slice);
        chosen.iter().any(|&route| severity as u8 <= self.routes.all[route].level)
    }
}

impl Way {
    fn send_along(&mut self, routes: &Routes, chosen: &[usize], severity: Severity, text: &[u8]) {
        self.look_at_the_clock();
        for &index in chosen {
            let route = &routes.all[index];
            if severity as u8 > route.level || !self.send_one(index, route, severity, text) {
                continue;
            }
            let (lost, why) = self.lost[route.outlet];
            if lost > 0 && Severity::Warning as u8 <= route.level {
                self.lost[route.outlet].0 = 0;
                let told = format!("{lost} log lines were dropped before this one: {why}");
                self.send_one(index, route, Severity::Warning, told.as_bytes());
            }
        }
    }

    /// Whether it went.
    fn send_one(&mut self, index: usize, route: &Route, severity: Severity, text: &[u8]) -> bool {
        let severity = severity.max(route.min_level);
        self.line.clear();
        self.headers[index].write(&route.sender, severity, &self.moment, &mut self.line);
        self.line.extend_from_slice(text);
        header::finish(&mut self.line, route.length);
        let outlet = &self.outlets[route.outlet];
        let Err(error) = outlet.send(&self.line) else { return true };
        let lost = &mut self.lost[route.outlet];
        // The first reason: later ones only say that the socket has no peer any more.
        *lost = if lost.0 == 0 { (1, error.kind()) } else { (lost.0 + 1, lost.1) };
        self.dropped.fetch_add(1, Ordering::Relaxed);
        // A full receiver is still there.
        if outlet.kind == Kind::UnixDatagram && error.kind() != io::ErrorKind::WouldBlock {
            self.wanted.mend();
        }
        false
    }

    fn look_at_the_clock(&mut self) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let seconds = i64::try_from(since.as_secs()).unwrap_or(0);
        self.moment.microseconds = since.subsec_micros();
        if self.moment.unix_seconds == seconds {
            return;
        }
        let here = local_time(seconds);
        self.moment = Moment {
            unix_seconds: seconds,
            microseconds: since.subsec_micros(),
            year: here.year,
            month: here.month,
            day: here.day,
            hour: here.hour,
            minute: here.minute,
            second: here.second,
            offset_seconds: here.offset_seconds,
        };
    }
}

fn routes_of(config: &Config, pid: u32) -> (Routes, Vec<LogAddress>) {
    let (mut all, mut addresses) = (Vec::new(), Vec::new());
    let mut indices = |targets: &[LogTarget], tag: &str| -> Vec<usize> {
        targets
            .iter()
            .map(|target| {
                let route = Route {
                    outlet: index_of(&mut addresses, target.address.clone()),
                    sender: Sender {
                        format: target.format,
                        facility: target.facility,
                        hostname: config.global.log_hostname.clone(),
                        tag: tag.to_owned(),
                        pid,
                    },
                    length: target.length,
                    level: target.level,
                    min_level: Severity::from_number(target.min_level),
                };
                index_of(&mut all, route)
            })
            .collect()
    };
    let tag = &config.global.log_tag;
    let global = indices(&config.global.logs, tag);
    let proxies = config
        .proxies
        .iter()
        .map(|proxy| indices(&proxy.logs, proxy.log_tag.as_ref().unwrap_or(tag)))
        .collect();
    (Routes { all, global, proxies }, addresses)
}

/// Where `value` stands in `list`; appended when it is new.
fn index_of<T: PartialEq>(list: &mut Vec<T>, value: T) -> usize {
    list.iter().position(|known| *known == value).unwrap_or_else(|| {
        list.push(value);
        list.len() - 1
    })
}

fn name_of(address: &LogAddress) -> String {
    match address {
        LogAddress::Unix(path) => path.display().to_string(),
        LogAddress::Udp(to) => to.to_string(),
        LogAddress::Stdout => "stdout".to_owned(),
        LogAddress::Stderr => "stderr".to_owned(),
        LogAddress::Descriptor(number) => format!("fd@{number}"),
    }
}
