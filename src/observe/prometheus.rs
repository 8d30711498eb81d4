//! `/metrics`: the text format of Prometheus, from the metrics table and the node's status.

use super::metrics::{MetricKind, TABLE};
use super::status::NodeStatus;
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
        |node| Some(node.nfs.as_ref()?.clients.len() as f64);
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
    "ehpc_verify_equal", "1 when the last verification found primary and backup equal, else 0.",
        |node| Some(flag(node.verify.as_ref()?.equal?));
    "ehpc_verify_finished_timestamp_seconds", "When the last verification finished.",
        |node| Some(node.verify.as_ref()?.finished_ms? as f64 / 1000.0);
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

/// The whole page.
pub fn render(node: &NodeStatus) -> String {
    let mut out = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, value: f64| {
        // Writing to a String cannot fail.
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    };
    for entry in TABLE {
        let kind = match entry.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
        };
        metric(entry.name, kind, entry.help, entry.get() as f64);
    }
    for gauge in GAUGES {
        if let Some(value) = (gauge.read)(node) {
            metric(gauge.name, "gauge", gauge.help, value);
        }
    }
    let version = node.process.version.replace(['\\', '"', '\n'], "");
    let _ = write!(
        out,
        "# HELP ehpc_build_info The version, as a label.\n# TYPE ehpc_build_info gauge\nehpc_build_info{{version=\"{version}\"}} 1\n"
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::status::{LinkStatus, SenderStatus};
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_well_formed() {
        let names: Vec<&str> = TABLE.iter().map(|m| m.name).chain(GAUGES.iter().map(|g| g.name)).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        for name in names {
            assert!(name.starts_with("ehpc_"), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        }
        for metric in TABLE {
            assert_eq!(
                matches!(metric.kind, MetricKind::Counter),
                metric.name.ends_with("_total"),
                "{}",
                metric.name
            );
        }
    }

    #[test]
    fn lag_is_in_seconds_and_absent_sections_are_left_out() {
        let mut node = NodeStatus::default();
        assert!(!render(&node).contains("ehpc_lag_seconds"));
        node.sender = Some(SenderStatus { lag_ms: 1500, ..SenderStatus::default() });
        node.link = Some(LinkStatus::default());
        let page = render(&node);
        assert!(page.contains("# TYPE ehpc_lag_seconds gauge\nehpc_lag_seconds 1.5\n"), "{page}");
        assert!(page.contains("\nehpc_link_up 0\n") && page.contains("\nehpc_healthy 0\n"), "{page}");
        assert!(page.contains("# TYPE ehpc_batches_sent_total counter\nehpc_batches_sent_total "), "{page}");
    }
}
