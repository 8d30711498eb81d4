//! The one table of metrics: name, kind, unit and help; `/metrics` and the documentation are made from it.

use std::sync::atomic::{AtomicI64, Ordering};

/// How Prometheus should read it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum MetricKind {
    Counter,
    Gauge,
}

/// One process-wide value.
pub struct Metric {
    /// Name with unit last, as exported.
    pub name: &'static str,
    /// Counter or gauge.
    pub kind: MetricKind,
    /// One sentence.
    pub help: &'static str,
    value: AtomicI64,
}

impl Metric {
    const fn new(name: &'static str, kind: MetricKind, help: &'static str) -> Metric {
        Metric { name, kind, help, value: AtomicI64::new(0) }
    }

    /// Adds `n` (counters: never negative).
    pub fn add(&self, n: u64) {
        self.value.fetch_add(n as i64, Ordering::Relaxed);
    }

    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Sets a gauge.
    pub fn set(&self, value: i64) {
        self.value.store(value, Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> i64 {
        self.value.load(Ordering::Relaxed)
    }
}

macro_rules! metrics {
    ($($ident:ident, $kind:ident, $name:literal, $help:literal;)*) => {
        $(#[doc = $help] pub static $ident: Metric = Metric::new($name, MetricKind::$kind, $help);)*
        /// Every metric.
        pub static TABLE: &[&Metric] = &[$(&$ident),*];
    };
}

metrics! {
    NFS_CONNECTIONS, Gauge, "ehpc_nfs_connections", "NFS connections open now.";
    NFS_REQUESTS, Counter, "ehpc_nfs_requests_total", "NFS and MOUNT requests answered.";
    NFS_ERRORS, Counter, "ehpc_nfs_errors_total", "NFS requests answered with an error status.";
    NFS_BAD_REQUESTS, Counter, "ehpc_nfs_bad_requests_total", "Records or calls that could not be decoded.";
    NFS_READ_BYTES, Counter, "ehpc_nfs_read_bytes_total", "Bytes read by NFS clients.";
    NFS_WRITTEN_BYTES, Counter, "ehpc_nfs_written_bytes_total", "Bytes written by NFS clients.";
    CHANGES_NOTED, Counter, "ehpc_changes_noted_total", "Changes noted in the dirty set.";
    WATCH_EVENTS, Counter, "ehpc_watch_events_total", "Events taken from the kernel's watch queue.";
    WATCH_OVERFLOWS, Counter, "ehpc_watch_overflows_total", "Times the watch queue overflowed and a scan followed.";
    BATCHES_SENT, Counter, "ehpc_batches_sent_total", "Batches sent to the backup.";
    LINK_SENT_BYTES, Counter, "ehpc_link_sent_bytes_total", "Bytes sent on the replication link.";
    BLOBS_SENT, Counter, "ehpc_blobs_sent_total", "Chunks and manifest pages sent.";
    LINK_CONNECTS, Counter, "ehpc_link_connects_total", "Times the replication link came up.";
    BATCHES_STORED, Counter, "ehpc_batches_stored_total", "Batches made durable on the backup.";
    BLOBS_STORED, Counter, "ehpc_blobs_stored_total", "Chunks and pages stored on the backup.";
    STORED_BYTES, Counter, "ehpc_stored_bytes_total", "Bytes appended to packs.";
    BATCHES_APPLIED, Counter, "ehpc_batches_applied_total", "Batches applied to catalog and mirror.";
    VERIFY_RUNS, Counter, "ehpc_verify_runs_total", "Verifications finished.";
    VERIFY_DIFFERENCES, Gauge, "ehpc_verify_differences", "Differences that the last verification found.";
}
