//! Tables, bars, verdicts.

use crate::bench::{median, print_table};
use anyhow::Result;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Measured of one proxy in one round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) per_second: f64,
    pub(super) cpu_us: f64,
    /// Of one processor, 0 to 1 (to 2 with two threads).
    pub(super) busy: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    /// CPU per request of clients, servers and log reader.
    pub(super) load_us: f64,
    /// Log lines received per request.
    pub(super) lines: f64,
}

/// Resident memory.
#[derive(Clone, Debug)]
pub(super) struct Idle {
    pub(super) name: &'static str,
    /// That asked once.
    pub(super) connections: usize,
    /// Requests at the same time.
    pub(super) at_once: usize,
    pub(super) start_mib: f64,
    pub(super) crowd_mib: f64,
}

/// One workload: the samples of each proxy, round by round.
#[derive(Clone, Debug)]
pub(super) struct Line {
    name: String,
    bar: Option<f64>,
    samples: BTreeMap<&'static str, Vec<Sample>>,
}

/// The whole.
#[derive(Default)]
pub(super) struct Report {
    pub(super) lines: Vec<Line>,
    pub(super) latency: Vec<Line>,
    pub(super) threads: Vec<Line>,
    pub(super) idle: Vec<Idle>,
}

const REFERENCE: &str = "haproxy";
const NOISE: &str = "haproxy again";
const OURS: &str = "ours";
/// HAProxy is at its limit from here.
const SATURATED: f64 = 0.9;
/// Greatest ratio of p99 in the open loop, of memory with idle connections.
const LATENCY_BAR: f64 = 1.1;
const IDLE_BAR: f64 = 0.5;

impl Line {
    pub(super) fn new(name: String, bar: Option<f64>) -> Line {
        Line { name, bar, samples: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, proxy: &'static str, sample: Sample) {
        self.samples.entry(proxy).or_default().push(sample);
    }

    fn median(&self, proxy: &str, value: impl Fn(&Sample) -> f64) -> f64 {
        let mut values: Vec<f64> = self.samples.get(proxy).into_iter().flatten().map(value).collect();
        median(&mut values)
    }

    /// Median of the rounds' ratios to HAProxy.
    fn ratio(&self, proxy: &str, value: impl Fn(&Sample) -> f64) -> f64 {
        let (Some(one), Some(reference)) = (self.samples.get(proxy), self.samples.get(REFERENCE)) else {
            return f64::NAN;
        };
        let mut ratios: Vec<f64> = one.iter().zip(reference).map(|(a, b)| value(a) / value(b)).collect();
        median(&mut ratios)
    }

    /// One line for who waits.
    pub(super) fn summary(&self) -> String {
        let of = |proxy: &'static str| {
            format!(
                "{proxy} {:.0}/s {:.1} us (load {:.1}) busy {:.0}% p99 {:.0} us",
                self.median(proxy, |s| s.per_second),
                self.median(proxy, |s| s.cpu_us),
                self.median(proxy, |s| s.load_us),
                self.median(proxy, |s| s.busy) * 100.0,
                self.median(proxy, |s| s.p99_us)
            )
        };
        let all: Vec<String> = self.samples.keys().map(|proxy| of(proxy)).collect();
        format!("{}: {}", self.name, all.join("; "))
    }

    /// Distance of HAProxy from itself.
    fn noise(&self, value: impl Fn(&Sample) -> f64) -> f64 {
        (self.ratio(NOISE, value) - 1.0).abs()
    }

    fn row(&self, proxy: &'static str) -> Vec<String> {
        let number = |value: f64| if value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") };
        vec![
            self.name.clone(),
            number(self.median(REFERENCE, |s| s.per_second)),
            number(self.median(proxy, |s| s.per_second)),
            format!("{:.2}", self.ratio(proxy, |s| s.per_second)),
            number(self.median(REFERENCE, |s| s.cpu_us)),
            number(self.median(proxy, |s| s.cpu_us)),
            format!("{:.2}", self.ratio(proxy, |s| s.cpu_us)),
            format!("{:.0}%", self.median(REFERENCE, |s| s.busy) * 100.0),
            format!("{:.2}", self.ratio(proxy, |s| s.p99_us)),
            format!("{:.2}", self.median(proxy, |s| s.lines)),
        ]
    }

    /// The verdicts of CPU and of rate.
    fn verdict(&self) -> String {
        let mut parts = Vec::new();
        let cpu = self.ratio(OURS, |s| s.cpu_us);
        if let Some(bar) = self.bar {
            parts.push(format!("CPU <= {bar}: {}", passed(cpu <= bar)));
            if self.median(REFERENCE, |s| s.busy) > SATURATED {
                let floor = 1.0 - self.noise(|s| s.per_second);
                let rate = self.ratio(OURS, |s| s.per_second);
                parts.push(format!("rate >= {floor:.2}: {}", passed(rate >= floor)));
            }
        }
        parts.join(", ")
    }

    fn json(&self) -> Value {
        let of = |proxy: &&'static str| {
            let values = json!({
                "requests_per_second": self.median(proxy, |s| s.per_second),
                "cpu_us_per_request": self.median(proxy, |s| s.cpu_us),
                "log_lines_per_request": self.median(proxy, |s| s.lines),
                "busy": self.median(proxy, |s| s.busy),
                "p50_us": self.median(proxy, |s| s.p50_us),
                "p99_us": self.median(proxy, |s| s.p99_us),
                "cpu_ratio": self.ratio(proxy, |s| s.cpu_us),
                "rate_ratio": self.ratio(proxy, |s| s.per_second),
                "p99_ratio": self.ratio(proxy, |s| s.p99_us),
            });
            ((*proxy).to_owned(), values)
        };
        let proxies: serde_json::Map<String, Value> = self.samples.keys().map(of).collect();
        json!({ "workload": self.name, "cpu_bar": self.bar, "proxies": proxies, "verdict": self.verdict() })
    }
}

fn passed(good: bool) -> &'static str {
    if good { "ok" } else { "MISSED" }
}

impl Report {
    /// Prints everything, the noise first.
    pub(super) fn print(&self, json: bool) -> Result<()> {
        if json {
            println!("{}", serde_json::to_string_pretty(&self.json())?);
            return Ok(());
        }
        self.table("Noise: HAProxy against HAProxy", NOISE, &self.lines, None);
        self.table("Noise, open loop", NOISE, &self.latency, None);
        let compared = self.lines.iter().chain(&self.latency).any(|line| line.samples.contains_key(OURS));
        if compared {
            self.table("Ours against HAProxy", OURS, &self.lines, Some(&Line::verdict));
            let latency = |line: &Line| {
                let ratio = line.ratio(OURS, |s| s.p99_us);
                format!("p99 <= {LATENCY_BAR}: {}", passed(ratio <= LATENCY_BAR))
            };
            self.table("Open loop at half of HAProxy's greatest rate", OURS, &self.latency, Some(&latency));
        }
        self.table("Two threads on both processors, with the load (no bar)", OURS, &self.threads, None);
        self.print_idle();
        Ok(())
    }

    fn table(
        &self,
        title: &str,
        proxy: &'static str,
        lines: &[Line],
        verdict: Option<&dyn Fn(&Line) -> String>,
    ) {
        if lines.is_empty() {
            return;
        }
        let mut head: Vec<String> = [
            "what",
            "haproxy/s",
            "/s",
            "ratio",
            "haproxy CPU us",
            "CPU us",
            "CPU ratio",
            "haproxy busy",
            "p99 ratio",
            "log lines a request",
        ]
        .map(String::from)
        .to_vec();
        head.extend(verdict.map(|_| "verdict".to_owned()));
        let mut rows = vec![head];
        for line in lines {
            let mut row = line.row(proxy);
            row.extend(verdict.map(|verdict| verdict(line)));
            rows.push(row);
        }
        print_table(title, &rows);
    }

    fn print_idle(&self) {
        if self.idle.is_empty() {
            return;
        }
        let mut rows = vec![
            ["proxy", "connections", "asked at once", "at start MiB", "idle MiB", "ratio", "verdict"]
                .map(String::from)
                .to_vec(),
        ];
        for idle in &self.idle {
            let same = |other: &&Idle| other.at_once == idle.at_once && other.name == REFERENCE;
            let ratio =
                self.idle.iter().find(same).map_or(f64::NAN, |other| idle.crowd_mib / other.crowd_mib);
            let verdict = if idle.name == OURS {
                format!("<= {IDLE_BAR}: {}", passed(ratio <= IDLE_BAR))
            } else {
                String::new()
            };
            rows.push(vec![
                idle.name.to_owned(),
                idle.connections.to_string(),
                idle.at_once.to_string(),
                format!("{:.1}", idle.start_mib),
                format!("{:.1}", idle.crowd_mib),
                format!("{ratio:.2}"),
                verdict,
            ]);
        }
        print_table("Memory with idle connections after one request each", &rows);
    }

    fn json(&self) -> Value {
        let all = |lines: &[Line]| lines.iter().map(Line::json).collect::<Vec<_>>();
        let idle: Vec<Value> = self
            .idle
            .iter()
            .map(|idle| json!({ "proxy": idle.name, "connections": idle.connections, "at_once": idle.at_once, "start_mib": idle.start_mib, "idle_mib": idle.crowd_mib }))
            .collect();
        json!({ "lines": all(&self.lines), "latency": all(&self.latency), "two_threads": all(&self.threads), "idle": idle })
    }
}
