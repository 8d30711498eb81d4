//! `/metrics`: the text format of Prometheus, from the metrics table and the node's status.

use super::LatencyCounts;
use super::metrics::{MetricKind, TABLE};
use super::status::{DatabaseSourceStatus, NfsClient, NfsExport, NfsStatus, NodeStatus};
use std::fmt::Write as _;

/// A gauge that is read from the status when asked for; `None` = this node has no such thing.
pub struct StatusGauge {
    /// Name with unit last.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    read: fn(&NodeStatus) -> Option<f64>,
}

macro_rules! gauges {
    ($($name:literal, $help:literal, $read:expr;)*) => {
        /// Every gauge that comes from the status.
        pub static GAUGES: &[StatusGauge] = &[$(StatusGauge { name: $name, help: $help, read: $read }),*];
    };
}

gauges! {
    "ehpc_healthy", "1 when the node is healthy, else 0.",
        |node| Some(flag(node.unhealthy().is_empty()));
    "ehpc_uptime_seconds", "Time since the process started.",
        |node| Some(node.process.uptime_ms as f64 / 1000.0);
    "ehpc_resident_bytes", "Memory that the process holds.",
        |node| Some(node.process.rss_bytes as f64);
    "ehpc_nfs_clients", "NFS clients connected now.",
        |node| Some(node.nfs.as_ref()?.clients.iter().filter(|client| client.connections > 0).count() as f64);
    "ehpc_nfs_connections_max", "Most NFS connections that may be open at once.",
        |node| Some(node.nfs.as_ref()?.connections_max as f64);
    "ehpc_nfs_reply_cache_bytes", "Bytes of replies kept for calls that are sent again.",
        |node| Some(node.nfs.as_ref()?.reply_cache_bytes as f64);
    "ehpc_dirty_changes", "Changes not yet taken by the sender or acknowledged by the backup.",
        |node| Some(node.sender.as_ref()?.dirty as f64);
    "ehpc_lag_seconds", "Age of the oldest change that the backup does not have.",
        |node| Some(node.sender.as_ref()?.lag_ms as f64 / 1000.0);
    "ehpc_acknowledged_batch", "Number of the last batch that the backup acknowledged.",
        |node| Some(node.sender.as_ref()?.acknowledged_batch? as f64);
    "ehpc_unreadable_objects", "Objects that the sender could not read.",
        |node| Some(node.sender.as_ref()?.unreadable_total as f64);
    "ehpc_link_up", "1 when the replication link is up, else 0.",
        |node| Some(flag(node.link.as_ref()?.up));
    "ehpc_backup_durable_batch", "Number of the last batch on the backup's disk.",
        |node| Some(node.backup.as_ref()?.durable as f64);
    "ehpc_backup_applied_batch", "Number of the last batch in the catalog and on the mirror.",
        |node| Some(node.backup.as_ref()?.applied as f64);
    "ehpc_backup_packs_bytes", "Bytes of all packs.",
        |node| Some(node.backup.as_ref()?.packs_bytes as f64);
    "ehpc_backup_free_bytes", "Bytes free on the backup's file system.",
        |node| Some(node.backup.as_ref()?.free_bytes as f64);
    "ehpc_database_streaming", "1 when the database streams to the backup, else 0.",
        |node| Some(flag(source(node)?.well));
    "ehpc_database_lag_seconds", "Age of the oldest database event that is not on the backup's disk.",
        |node| Some(source(node)?.lag_ms as f64 / 1000.0);
    "ehpc_database_semi_sync", "1 when commits wait for the backup's disk, 0 when they do not although they should.",
        |node| Some(flag(source(node)?.semi_sync.as_ref()?.holds));
    "ehpc_database_archive_bytes", "Bytes of all binary logs on the backup.",
        |node| Some(node.database.as_ref()?.archive.as_ref()?.bytes as f64);
    "ehpc_database_archive_newest_timestamp_seconds", "When the newest event on the backup arrived.",
        |node| Some(node.database.as_ref()?.archive.as_ref()?.newest_ms? as f64 / 1000.0);
    "ehpc_database_bases", "Base snapshots of the database on the backup.",
        |node| Some(node.database.as_ref()?.bases.as_ref()?.count as f64);
    "ehpc_database_base_timestamp_seconds", "When the newest base snapshot was taken.",
        |node| Some(node.database.as_ref()?.bases.as_ref()?.newest_ms? as f64 / 1000.0);
    "ehpc_database_standby_running", "1 when the standby follows the archive, else 0.",
        |node| Some(flag(node.database.as_ref()?.standby.as_ref()?.well));
    "ehpc_database_standby_lag_seconds", "How far the standby is behind the archive.",
        |node| Some(node.database.as_ref()?.standby.as_ref()?.lag_ms as f64 / 1000.0);
    "ehpc_database_mark_timestamp_seconds", "Newest moment that files and database on the backup have in common.",
        |node| Some(node.database.as_ref()?.newest_mark_ms? as f64 / 1000.0);
    "ehpc_database_verify_equal", "1 when the last verification of archive and standby found them equal, else 0.",
        |node| Some(flag(node.database.as_ref()?.verify.as_ref()?.equal?));
    "ehpc_verify_equal", "1 when the last verification found primary and backup equal, else 0.",
        |node| Some(flag(node.verify.as_ref()?.equal?));
    "ehpc_verify_finished_timestamp_seconds", "When the last verification finished.",
        |node| Some(node.verify.as_ref()?.finished_ms? as f64 / 1000.0);
}

fn source(node: &NodeStatus) -> Option<&DatabaseSourceStatus> {
    node.database.as_ref()?.source.as_ref()
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

/// One series of a family: its labels and what it is now.
struct Series<'a> {
    labels: Vec<(&'static str, &'a str)>,
    value: Value<'a>,
}

enum Value<'a> {
    Counter(u64),
    Histogram(&'a LatencyCounts),
}

/// Metrics of one name that labels tell apart, from the status.
pub struct Family {
    /// Name with unit last.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    kind: &'static str,
    read: for<'a> fn(&'a NfsStatus) -> Vec<Series<'a>>,
}

macro_rules! families {
    ($($kind:ident $name:literal, $help:literal, $read:expr;)*) => {
        /// Every metric with labels.
        pub static FAMILIES: &[Family] =
            &[$(Family { name: $name, help: $help, kind: stringify!($kind), read: $read }),*];
    };
}

families! {
    histogram "ehpc_nfs_request_seconds", "Time from a request's last byte to its reply being ready, by procedure.",
        |nfs| nfs.procedures.iter().map(|procedure| Series {
            labels: vec![("procedure", &procedure.name)],
            value: Value::Histogram(&procedure.latency),
        }).collect();
    counter "ehpc_nfs_procedure_errors_total", "Requests answered with an error, by procedure and status.",
        |nfs| nfs.procedures.iter().flat_map(|procedure| procedure.errors.iter().map(|(status, n)| Series {
            labels: vec![("procedure", &procedure.name), ("status", status)],
            value: Value::Counter(*n),
        })).collect();
    counter "ehpc_nfs_client_requests_total", "Requests, by client; the least active ones together as other.",
        |nfs| by_client(nfs, |client| client.operations);
    counter "ehpc_nfs_client_read_bytes_total", "Bytes read, by client.",
        |nfs| by_client(nfs, |client| client.read_bytes);
    counter "ehpc_nfs_client_written_bytes_total", "Bytes written, by client.",
        |nfs| by_client(nfs, |client| client.written_bytes);
    counter "ehpc_nfs_export_requests_total", "Requests, by export.",
        |nfs| by_export(nfs, |export| export.operations);
    counter "ehpc_nfs_export_read_bytes_total", "Bytes read, by export.",
        |nfs| by_export(nfs, |export| export.read_bytes);
    counter "ehpc_nfs_export_written_bytes_total", "Bytes written, by export.",
        |nfs| by_export(nfs, |export| export.written_bytes);
}

fn by_client(nfs: &NfsStatus, of: fn(&NfsClient) -> u64) -> Vec<Series<'_>> {
    let one = |client: &'_ NfsClient| Value::Counter(of(client));
    nfs.clients
        .iter()
        .map(|client| Series { labels: vec![("client", &client.address)], value: one(client) })
        .collect()
}

fn by_export(nfs: &NfsStatus, of: fn(&NfsExport) -> u64) -> Vec<Series<'_>> {
    let one = |export: &'_ NfsExport| Value::Counter(of(export));
    nfs.exports
        .iter()
        .map(|export| Series { labels: vec![("export", &export.name)], value: one(export) })
        .collect()
}

/// The page in the making. Writing to a String cannot fail.
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// Label values are quoted; a backslash, a quote and a line's end in them are escaped.
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{text}\"", if at == 0 { '{' } else { ',' });
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{end} {value}");
    }

    fn series(&mut self, name: &str, series: &Series<'_>) {
        let latency = match series.value {
            Value::Counter(value) => return self.sample(name, &series.labels, value as f64),
            Value::Histogram(latency) => latency,
        };
        let bucket = format!("{name}_bucket");
        let ends = latency.cumulative().map(|(end, n)| (end.to_string(), n));
        for (end, n) in ends.chain([("+Inf".to_owned(), latency.count)]) {
            let labels = [series.labels.as_slice(), &[("le", &end)]].concat();
            self.sample(&bucket, &labels, n as f64);
        }
        self.sample(&format!("{name}_sum"), &series.labels, latency.sum_us as f64 / 1e6);
        self.sample(&format!("{name}_count"), &series.labels, latency.count as f64);
    }
}

/// The whole page.
pub fn render(node: &NodeStatus) -> String {
    let mut page = Page(String::new());
    for entry in TABLE {
        let kind = match entry.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
        };
        page.head(entry.name, kind, entry.help);
        page.sample(entry.name, &[], entry.get() as f64);
    }
    for gauge in GAUGES {
        if let Some(value) = (gauge.read)(node) {
            page.head(gauge.name, "gauge", gauge.help);
            page.sample(gauge.name, &[], value);
        }
    }
    for family in FAMILIES {
        let series = node.nfs.as_ref().map(family.read).unwrap_or_default();
        if !series.is_empty() {
            page.head(family.name, family.kind, family.help);
            series.iter().for_each(|series| page.series(family.name, series));
        }
    }
    page.head("ehpc_build_info", "gauge", "The version, as a label.");
    page.sample("ehpc_build_info", &[("version", &node.process.version)], 1.0);
    page.0
}

#[cfg(test)]
#[path = "prometheus_tests.rs"]
mod tests;
