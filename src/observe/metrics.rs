//! The one table of metrics: name, kind, unit and help; `/metrics` and the documentation are made from it.

use super::shards::Count;

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
    value: Count,
}

impl Metric {
    const fn new(name: &'static str, kind: MetricKind, help: &'static str) -> Metric {
        Metric { name, kind, help, value: Count::new() }
    }

    /// Adds `n` (counters: never negative).
    pub fn add(&self, n: u64) {
        self.value.add(n);
    }

    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Takes `n` off a gauge.
    pub fn sub(&self, n: u64) {
        self.value.sub(n);
    }

    /// Sets a gauge that nobody adds to.
    pub fn set(&self, value: i64) {
        self.value.set(value as u64);
    }

    /// The value now.
    pub fn get(&self) -> i64 {
        self.value.get() as i64
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
    NFS_CONNECTIONS_REFUSED, Counter, "ehpc_nfs_connections_refused_total", "NFS connections closed at once because too many were open.";
    NFS_IN_FLIGHT, Gauge, "ehpc_nfs_in_flight", "NFS requests that are being done or wait for a thread.";
    NFS_QUEUED, Gauge, "ehpc_nfs_queued", "NFS requests that wait for a thread.";
    NFS_SLOW, Counter, "ehpc_nfs_slow_requests_total", "NFS requests that took longer than slow_request.";
    NFS_REPLAYED, Counter, "ehpc_nfs_reply_cache_hits_total", "NFS requests answered from the reply cache.";
    NFS_IN_FLIGHT_WAITS, Counter, "ehpc_nfs_in_flight_waits_total", "Times a connection was not read from because of its limit of requests in flight.";
    NFS_MEMORY_WAITS, Counter, "ehpc_nfs_memory_waits_total", "Times an NFS request waited for memory to be free.";
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
    DATABASE_EVENTS, Counter, "ehpc_database_events_total", "Binary log events read from the database.";
    DATABASE_BYTES, Counter, "ehpc_database_bytes_total", "Bytes of binary log read from the database.";
    DATABASE_COMMITS, Counter, "ehpc_database_acknowledged_total", "Commits acknowledged to the database as being on the backup.";
    DATABASE_CONNECTS, Counter, "ehpc_database_connects_total", "Times the database was connected to for its binary log.";
    DATABASE_FALLBACKS, Counter, "ehpc_database_semi_sync_fallbacks_total", "Times commits stopped waiting for the backup's disk.";
    DATABASE_ARCHIVED_BYTES, Counter, "ehpc_database_archived_bytes_total", "Bytes of binary log made durable on the backup.";
    DATABASE_SYNCS, Counter, "ehpc_database_syncs_total", "Times the archive was synced to the disk.";
    DATABASE_BASES_TAKEN, Counter, "ehpc_database_bases_taken_total", "Base snapshots taken.";
    VERIFY_RUNS, Counter, "ehpc_verify_runs_total", "Verifications finished.";
    VERIFY_DIFFERENCES, Gauge, "ehpc_verify_differences", "Differences that the last verification found.";
}
