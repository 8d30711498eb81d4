//! Connects both sides, again and again.

use super::connect::{Stream, connect};
use super::fault::{Blame, Finding, SourceFault};
use super::lane::{ArchiveEnd, Lane};
use super::locate::{Located, Permission, locate};
use super::session::StreamSession;
use super::shared::{Cursor, Shared};
use super::{semisync, stream};
use crate::database::dsn::Dsn;
use crate::database::sql::Sql;
use crate::observe::metrics;
use crate::observe::words::now_ms;
use ehpc_proto::binlog::Flavor;
use ehpc_proto::mysql::replica::{Plan, Start};
use ehpc_proto::replication::database::Place;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// First and longest time between two attempts.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// A connection that lasted so long was a good one, though nothing may have come over it.
const STEADY: Duration = Duration::from_secs(10);

/// The server's semi-sync does not know of a connection that was there before it.
const UNCOUNTED: &str =
    "it does not count this connection among the semi-synchronous replicas; it is made anew";

/// What is carried from one attempt to the next.
#[derive(Default)]
struct Memory {
    /// Failures in a row.
    failures: u32,
    /// What the last stream found out about the archive's end; for one attempt, which asks accordingly.
    found: Option<Found>,
    /// The next attempt may go better, and does not wait for a person: it asks otherwise, or for a server that was away.
    soon: bool,
    /// What was logged last, so that it is not said again and again.
    said: String,
}

/// Until it is told to stop, whatever happens.
pub(super) async fn keep(shared: Arc<Shared>, stop: CancellationToken) {
    let streamed = async {
        // A panic is a defect of ours, and no reason to leave the database alone.
        while let Err(error) = alone(run(shared.clone(), stop.clone())).await {
            let fault = SourceFault::Defect(error);
            tracing::error!("database: {fault}");
            shared.failed(&fault);
            tokio::select! {
                () = tokio::time::sleep(BACK_OFF.1) => {}
                () = stop.cancelled() => return,
            }
        }
    };
    let watched = async {
        if !shared.options.semi_sync {
            return std::future::pending().await;
        }
        loop {
            if let Err(error) = alone(semisync::watch(shared.clone())).await {
                tracing::error!("database: the watch over semi-sync: {error}");
            }
            shared.semi_sync.lock().unknown(now_ms());
            tokio::time::sleep(BACK_OFF.1).await;
        }
    };
    tokio::select! {
        () = streamed => {}
        () = watched => {}
    }
}

/// In a task of its own, which ends when this is dropped. `Err`: it panicked.
async fn alone(work: impl Future<Output = ()> + Send + 'static) -> Result<(), String> {
    let mut task = JoinSet::new();
    task.spawn(work);
    match task.join_next().await {
        Some(Err(error)) => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// What a stream from a server found out about the place where the archive ended.
#[derive(Clone, PartialEq, Eq)]
struct Found {
    server: String,
    at: Option<Place>,
    what: Finding,
}

impl Memory {
    /// Keeps what a fault of a stream says about the place. `before`: what was known when it began.
    fn learn(&mut self, dsn: &Dsn, fault: &SourceFault, at: Option<Place>, before: Option<&Found>) {
        let server = dsn.server.to_string();
        let before = Found::of(before, &server, at);
        let Some(what) = fault.finding(before) else { return };
        self.soon |= before != Some(what);
        self.found = Some(Found { server, at, what });
    }
}

impl Found {
    /// What it says about that place on that server.
    fn of(found: Option<&Found>, server: &str, at: Option<Place>) -> Option<Finding> {
        found.filter(|found| found.server == server && found.at == at).map(|found| found.what)
    }
}

/// Until it is told to stop.
async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut memory = Memory::default();
    loop {
        let Some(fault) = session(&shared, &mut memory, &stop).await else { return };
        shared.failed(&fault);
        say(&fault, &mut memory);
        let (least, longest) = match std::mem::take(&mut memory.soon) {
            true => (Duration::ZERO, BACK_OFF.1),
            false => fault.wait(),
        };
        let wait = back_off(memory.failures, longest).max(least);
        memory.failures = memory.failures.saturating_add(1);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shared.again.notified() => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Doubled each time, with jitter, so that several sources do not come at the same moment.
fn back_off(failures: u32, longest: Duration) -> Duration {
    let time = BACK_OFF.0.saturating_mul(1 << failures.min(8)).min(longest);
    time.mul_f64(rand::random_range(0.75..1.25))
}

fn say(fault: &SourceFault, memory: &mut Memory) {
    let text = fault.to_string();
    if text != memory.said {
        match fault.needs_a_person() {
            true => tracing::error!(state = fault.state(), "database: {text}"),
            false => tracing::warn!(state = fault.state(), "database: {text}"),
        }
        memory.said = text;
    }
}

/// One connection to the archive, and one to the server. `None`: it was told to stop.
async fn session(shared: &Arc<Shared>, memory: &mut Memory, stop: &CancellationToken) -> Option<SourceFault> {
    shared.connecting("connecting");
    let name = shared.options.servers.first().map(|dsn| dsn.server.to_string()).unwrap_or_default();
    let name = name.chars().take(200).collect();
    let opened = tokio::select! {
        opened = Lane::open(&*shared.options.dial, name, &shared.exchange) => opened,
        () = stop.cancelled() => return None,
    };
    let mut lane = match opened {
        Ok(lane) => lane,
        Err(fault) => return Some(fault),
    };
    let fault = tokio::select! {
        fault = over_lane(shared, &mut lane, memory) => Some(fault),
        () = stop.cancelled() => None,
    };
    lane.close().await;
    fault
}

/// From the archive's end on, until something ends it.
async fn over_lane(shared: &Arc<Shared>, lane: &mut Lane, memory: &mut Memory) -> SourceFault {
    start_at(shared, &lane.end);
    let end = lane.end.clone();
    let found = memory.found.take();
    let reached = tokio::select! {
        reached = reach(shared, &end, found.as_ref(), memory) => reached,
        fault = lane.fell() => return fault,
    };
    let (dsn, located, stream) = match reached {
        Ok(reached) => reached,
        Err(fault) => return fault,
    };
    memory.soon = false;
    let blame = Blame::new(&dsn, shared.options.server_id);
    if located.new {
        let lineage = located.lineage.number;
        tracing::info!(server = %dsn.server, lineage, file = located.file, "database: a new lineage begins");
        shared.lost();
    }
    if let Some((file, len)) = &located.closing {
        let next = &located.file;
        tracing::warn!(server = %dsn.server, file, len, next, "database: half an event at the end of a file is left out");
    }
    tracing::info!(server = %dsn.server, file = located.file, offset = located.offset, "database: streaming");
    metrics::DATABASE_CONNECTS.inc();
    shared.streaming(&dsn, located.lineage.number, &located.facts.version, end.gtid.clone());
    let began = Instant::now();
    let (fault, at) = tokio::select! {
        shipped = stream::ship(shared, lane, located, stream, &blame) => shipped,
        () = shared.renew.notified() => (blame.lost(UNCOUNTED), end.place().unwrap_or_default()),
    };
    // Connections alone are no progress: an archive that takes nothing is not asked five times a second.
    if *shared.exchange.durable().borrow() > end.place() || began.elapsed() > STEADY {
        (memory.failures, memory.said) = (0, String::new());
        // What a person accepted was for the trouble before this.
        shared.lost();
    }
    let damaged = matches!(fault, SourceFault::Damaged { .. } | SourceFault::Torn { .. });
    memory.learn(&dsn, &fault, if damaged { Some(at) } else { end.place() }, found.as_ref());
    fault
}

/// What the archive has is where everything begins.
pub(super) fn start_at(shared: &Shared, end: &ArchiveEnd) {
    let place = end.place();
    let cursor = end.file.as_ref().zip(place);
    shared.cursor.send_replace(cursor.map(|(file, place)| Cursor { name: file.name.clone(), place }));
    // It may end within a group: then what is known of whole ones stays.
    shared.end.send_if_modified(|end| {
        let gone =
            end.is_some_and(|end| place.is_none_or(|place| end.lineage != place.lineage || end > place));
        if gone {
            *end = None;
        }
        gone
    });
}

/// Tries the servers in order: first for the one that the archive follows, then for one that takes its place.
async fn reach(
    shared: &Shared,
    end: &ArchiveEnd,
    found: Option<&Found>,
    memory: &mut Memory,
) -> Result<(Dsn, Located, Stream), SourceFault> {
    let servers = &shared.options.servers;
    let several = servers.len() > 1;
    let mut first: Option<SourceFault> = None;
    for follow_only in [true, false] {
        if follow_only && (!several || end.lineage.is_none()) {
            continue;
        }
        for dsn in servers {
            let permission = Permission {
                gap: shared.options.over_gaps,
                loss: shared.may_lose(),
                found: Found::of(found, &dsn.server.to_string(), end.place()),
                follow_only,
                replicas: !several,
            };
            match try_server(shared, dsn, end, permission).await {
                Ok((located, stream)) => return Ok((dsn.clone(), located, stream)),
                Err(SourceFault::NotFollowed { .. }) => continue,
                Err(fault) => {
                    memory.learn(dsn, &fault, end.place(), found);
                    memory.soon |= !fault.needs_a_person();
                    if first.as_ref().is_none_or(|first| fault.tells_more_than(first)) {
                        first = Some(fault);
                    }
                }
            }
        }
    }
    let none = || SourceFault::Unusable { server: "(none)".to_owned(), text: "no address is set".to_owned() };
    Err(first.unwrap_or_else(none))
}

async fn try_server(
    shared: &Shared,
    dsn: &Dsn,
    end: &ArchiveEnd,
    mut permission: Permission,
) -> Result<(Located, Stream), SourceFault> {
    let mut blame = Blame::new(dsn, shared.options.server_id);
    let mut sql = Sql::connect(dsn).await.map_err(|error| blame.sql(error))?;
    blame.wanted = sql.dialect().source_privileges(shared.options.servers.len() > 1).join(", ");
    let account = sql.text("SELECT CURRENT_USER()").await.map_err(|error| blame.sql(error))?;
    blame.account(&account.unwrap_or_default());
    let mut located = locate(&mut sql, dsn, end, permission, &blame).await?;
    let mut begun = begin(shared, dsn, &located, &blame).await;
    // What SQL could not say, the dump says: it is another server's file, or none. The same server is asked accordingly at
    // once, so that the answer holds for no other one that may have this address later.
    if let Err(fault) = &begun
        && let Some(found @ (Finding::Another | Finding::Gone)) = fault.finding(permission.found)
    {
        permission.found = Some(found);
        located = locate(&mut sql, dsn, end, permission, &blame).await?;
        begun = begin(shared, dsn, &located, &blame).await;
    }
    sql.close().await;
    Ok((located, begun?))
}

/// Opens the stream at that place, until the server has sent what the file begins with.
async fn begin(shared: &Shared, dsn: &Dsn, located: &Located, blame: &Blame) -> Result<Stream, SourceFault> {
    let options = &shared.options;
    let plan = Plan {
        dialect: located.lineage.flavor,
        server_id: options.server_id,
        start: Start::File { name: located.file.clone(), position: StreamSession::dump_from(located.offset) },
        heartbeat: stream::HEARTBEAT,
        semi_sync: options.semi_sync,
        annotate: located.lineage.flavor == Flavor::MariaDb,
        non_blocking: false,
    };
    let mut stream = connect(dsn, plan).await.map_err(|fault| blame.with_account(fault))?;
    stream::begins(&mut stream, located, options.semi_sync, blame).await?;
    Ok(stream)
}
