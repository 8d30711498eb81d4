//! What the roles know, in the words of `status`.

use crate::change::watch::Watcher;
use crate::change::{CaptureStatus, DirtySet, ScanOutcome};
use crate::nfs;
use crate::observe::status::{self, NfsClient, NfsExport, NfsProcedure, NfsStatus};
use crate::observe::{metrics, words};
use crate::replication::connector::{self, LinkState};
use crate::replication::sender::{SenderReport, SenderState};
use crate::settings::{Cluster, Nfs1};

/// Objects that could not be read are named up to this many.
const NAMED: usize = 20;

/// The NFS section, and what needs a person.
pub(super) fn nfs(
    stats: &nfs::Stats,
    per_second: f64,
    nfs1: &Nfs1,
    cluster: &Cluster,
    notes: &[String],
    attention: &mut Vec<String>,
) -> NfsStatus {
    let clients = stats.clients.iter().map(|client| NfsClient {
        address: client.address.map_or(nfs::OTHER.to_owned(), |address| address.to_string()),
        host: client.address.and_then(|address| cluster.host_named(address)).map(str::to_owned),
        connections: u64::from(client.connections),
        operations: client.requests,
        read_bytes: client.read_bytes,
        written_bytes: client.written_bytes,
    });
    let exports = stats.exports.iter().map(|export| NfsExport {
        name: export.name.clone(),
        operations: export.requests,
        read_bytes: export.read_bytes,
        written_bytes: export.written_bytes,
        ..NfsExport::default()
    });
    let procedures = stats.procedures.iter().map(|procedure| NfsProcedure {
        name: procedure.name.clone(),
        latency: procedure.latency.clone(),
        errors: procedure.errors.clone(),
    });
    let counter = |metric: &metrics::Metric| u64::try_from(metric.get()).unwrap_or(0);
    let connections_max = nfs1.limits.connections as u64;
    if u64::from(stats.connections) >= connections_max {
        attention.push(format!(
            "{connections_max} NFS connections are open and more are refused ({} so far): raise `connections` in \
             [nfs1], or find the client that opens so many",
            words::count(stats.refused)
        ));
    }
    NfsStatus {
        export: nfs1.export.name.clone(),
        path: nfs1.export.path.display().to_string(),
        durability: nfs1.export.durability.word().to_owned(),
        clients: clients.collect(),
        operations: stats.requests,
        operations_per_second: per_second,
        errors: stats.errors,
        read_bytes: counter(&metrics::NFS_READ_BYTES),
        written_bytes: counter(&metrics::NFS_WRITTEN_BYTES),
        procedures: procedures.collect(),
        exports: exports.collect(),
        connections: u64::from(stats.connections),
        connections_max,
        reply_cache_bytes: stats.reply_cache_bytes,
        in_flight_waits: counter(&metrics::NFS_IN_FLIGHT_WAITS),
        memory_waits: counter(&metrics::NFS_MEMORY_WAITS),
        notes: notes.to_vec(),
    }
}

/// The capture section, and what needs a person.
pub(super) fn capture(capture: &CaptureStatus, attention: &mut Vec<String>) -> status::CaptureStatus {
    let watch = &capture.watch;
    let (watcher, good) = match watch.watcher {
        Watcher::Fanotify => ("fanotify", "the whole file system in one queue"),
        Watcher::Inotify => ("notify", "one watch a directory"),
        Watcher::None => ("none", "changes by local processes are found by scans only"),
    };
    let scan = &capture.scan;
    let (mut objects, mut differing, mut mount_points) = (0, 0, Vec::new());
    match (&scan.last, &scan.running) {
        (_, Some(counts)) => (objects, differing) = (counts.objects, counts.changes),
        (Some(ScanOutcome::Finished(report)), None) => {
            (objects, differing) = (report.counts.objects, report.counts.changes);
        }
        _ => {}
    }
    if let Some(ScanOutcome::Finished(report)) = &scan.last {
        mount_points.clone_from(&report.mount_points);
    }
    let problem = scan.last.as_ref().and_then(scan_problem);
    attention.extend(problem.clone());
    if watch.watcher == Watcher::None {
        let why = watch.why.as_deref().unwrap_or("it is switched off");
        attention.push(format!("nothing watches the export between scans: {why}"));
    }
    status::CaptureStatus {
        watcher: watcher.to_owned(),
        reason: watch.why.clone().unwrap_or_else(|| good.to_owned()),
        watched_directories: Some(watch.watched),
        events: watch.events,
        overflows: watch.overflows,
        mount_points,
        scan: Some(status::ScanStatus {
            running: scan.running.is_some(),
            finished_ms: scan.finished_at.map(|seconds| seconds * 1000),
            objects,
            differing,
            problem,
        }),
    }
}

/// What a person must know of a scan's outcome.
fn scan_problem(outcome: &ScanOutcome) -> Option<String> {
    match outcome {
        ScanOutcome::Finished(report) => {
            let first = report.first_unreadable.as_ref()?;
            let n = report.unreadable;
            Some(format!("the scan could not read {n} directories; the first: {first}"))
        }
        ScanOutcome::NeedsConsent { would_remove, known } => Some(format!(
            "a scan found {} of {} objects missing and stopped: is a disk unmounted? If the removal is meant: \
             ehpc-store ctl accept-removal",
            words::count(*would_remove),
            words::count(*known)
        )),
        ScanOutcome::Failed(why) => Some(format!("the scan failed and is tried again: {why}")),
    }
}

/// The sender section, and what needs a person.
pub(super) fn sender(
    report: &SenderReport,
    dirty: &DirtySet,
    attention: &mut Vec<String>,
) -> status::SenderStatus {
    let lag = dirty.oldest_unacknowledged().map_or(0, |oldest| oldest.elapsed().as_millis().max(1));
    let unacknowledged = dirty.current() - (*dirty.acknowledged().borrow()).min(dirty.current());
    let state = match &report.state {
        SenderState::Starting => "starting".to_owned(),
        SenderState::Waiting(_) => "waiting for the link".to_owned(),
        SenderState::Rebuilding => "rebuilding the index from the backup".to_owned(),
        SenderState::Running => match (&report.current_file, report.directories_to_list, lag) {
            (Some(file), ..) => {
                let (done, total) = (words::bytes(file.bytes), words::bytes(file.bytes_total));
                format!("reading {} ({done} of {total})", file.path)
            }
            (None, n @ 1.., _) => format!("listing {} directories", words::count(n)),
            (None, 0, 0) => "idle".to_owned(),
            (None, 0, _) => "sending".to_owned(),
        },
        SenderState::Failed(why) => {
            attention.push(format!("the sender failed and begins again: {why}"));
            "failed".to_owned()
        }
        SenderState::Stopped => "stopped".to_owned(),
    };
    status::SenderStatus {
        state,
        dirty: unacknowledged,
        lag_ms: u64::try_from(lag).unwrap_or(u64::MAX),
        acknowledged_batch: (report.acknowledged_batch > 0).then_some(report.acknowledged_batch),
        acknowledged_ms: report.acknowledged_at.map(words::since_epoch_ms),
        batches_sent: report.batches + report.batches_in_flight,
        objects_sent: report.objects,
        unreadable: report
            .unreadable
            .iter()
            .take(NAMED)
            .map(|what| format!("{}: {}", what.path, what.reason))
            .collect(),
        unreadable_total: report.unreadable_total,
        fuzzy_total: report.fuzzy_states,
    }
}

/// The link section, seen from nfs1.
pub(super) fn link(link: &connector::LinkStatus) -> status::LinkStatus {
    let state = match (link.state, &link.peer) {
        (LinkState::Up, _) => "connected",
        (LinkState::Idle | LinkState::Connecting | LinkState::Waiting, None) => "not paired",
        (LinkState::Idle | LinkState::Connecting | LinkState::Waiting, Some(_)) => "connecting",
        (LinkState::Closed, _) => "closed",
    };
    status::LinkStatus {
        up: link.state == LinkState::Up,
        state: state.to_owned(),
        peer: match &link.peer {
            Some(name) => format!("{name} at {}", link.address),
            None => link.address.clone(),
        },
        since_ms: (link.since > 0).then_some(link.since * 1000),
        bytes_sent: link.bytes_sent,
        last_error: link.last_error.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::path::Path;

    #[test]
    fn a_full_server_wants_attention() {
        let cluster = Cluster::local(Path::new("/d"), Ipv4Addr::LOCALHOST.into());
        let mut nfs1 = cluster.nfs1.clone().unwrap();
        nfs1.limits.connections = 3;
        let told = |connections: u32| {
            let stats = nfs::Stats { connections, refused: 1234, ..nfs::Stats::default() };
            let mut attention = Vec::new();
            let status = nfs(&stats, 0.0, &nfs1, &cluster, &[], &mut attention);
            assert_eq!((status.connections, status.connections_max), (u64::from(connections), 3));
            attention
        };
        assert_eq!(told(2), Vec::<String>::new());
        let [line] = &told(3)[..] else { panic!("one line") };
        assert!(line.contains("3 NFS connections are open") && line.contains("1,234 so far"), "{line}");
    }
}
