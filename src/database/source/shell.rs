//! Connects both sides, again and again.

use super::connect::{Stream, connect};
use super::fault::{Blame, SourceFault};
use super::lane::{ArchiveEnd, Lane};
use super::locate::{Located, Permission, locate};
use super::session::StreamSession;
use super::shared::{Cursor, Shared};
use super::{semisync, stream};
use crate::database::dsn::Dsn;
use crate::database::sql::Sql;
use crate::observe::metrics;
use ehpc_proto::binlog::Flavor;
use ehpc_proto::mysql::replica::{Plan, Start};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// First and longest time between two attempts.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// What is carried from one attempt to the next.
#[derive(Default)]
struct Memory {
    /// Failures in a row.
    failures: u32,
    /// The server's file was another one of the same name.
    another: bool,
    /// The stream was damaged the last time, too.
    damaged: bool,
    /// What was logged last, so that it is not said again and again.
    said: String,
}

/// Until it is dropped.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut memory = Memory::default();
    loop {
        let fault = session(&shared, &mut memory).await;
        memory.another = matches!(fault, SourceFault::AnotherServer { .. });
        shared.failed(&fault);
        say(&fault, &mut memory);
        let once = matches!(fault, SourceFault::Damaged { .. }) && !memory.damaged;
        memory.damaged = matches!(fault, SourceFault::Damaged { .. });
        let wait = match fault.wait() {
            Some(later) if !once => later,
            _ => back_off(memory.failures),
        };
        memory.failures = memory.failures.saturating_add(1);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shared.again.notified() => {}
        }
    }
}

/// Doubled each time, with jitter, so that several sources do not come at the same moment.
fn back_off(failures: u32) -> Duration {
    let (first, longest) = BACK_OFF;
    let time = first.saturating_mul(1 << failures.min(8)).min(longest);
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

/// One connection to the archive, and one to the server.
async fn session(shared: &Arc<Shared>, memory: &mut Memory) -> SourceFault {
    shared.connecting("connecting");
    let name = shared.options.servers.first().map(|dsn| dsn.server.to_string()).unwrap_or_default();
    let name = name.chars().take(200).collect();
    let mut lane = match Lane::open(&*shared.options.dial, name, &shared.exchange).await {
        Ok(lane) => lane,
        Err(fault) => return fault,
    };
    start_at(shared, &lane.end);
    let end = lane.end.clone();
    let reached = tokio::select! {
        reached = reach(shared, &end, memory) => reached,
        fault = lane.fell() => return fault,
    };
    let (dsn, located, stream) = match reached {
        Ok(reached) => reached,
        Err(fault) => return fault,
    };
    let blame = Blame::new(&dsn, shared.options.server_id);
    if located.new {
        let lineage = located.lineage.number;
        tracing::info!(server = %dsn.server, lineage, file = located.file, "database: a new lineage begins");
        shared.lost();
    }
    tracing::info!(server = %dsn.server, file = located.file, offset = located.offset, "database: streaming");
    metrics::DATABASE_CONNECTS.inc();
    (memory.failures, memory.said) = (0, String::new());
    shared.streaming(&dsn, &located.facts.version, end.gtid);
    let mut watch = JoinSet::new();
    if shared.options.semi_sync {
        watch.spawn(semisync::watch(dsn.clone(), shared.semi_sync.clone()));
    }
    stream::ship(shared, &mut lane, located, stream, &blame).await
}

/// What the archive has is where everything begins.
fn start_at(shared: &Shared, end: &ArchiveEnd) {
    let place = end.place();
    let cursor = end.file.as_ref().zip(place);
    shared.cursor.send_replace(cursor.map(|(file, place)| Cursor { name: file.name.clone(), place }));
    shared.end.send_replace(place);
}

/// Tries the servers in order: the first one that can go on where the archive ends.
async fn reach(
    shared: &Shared,
    end: &ArchiveEnd,
    memory: &Memory,
) -> Result<(Dsn, Located, Stream), SourceFault> {
    let mut first: Option<SourceFault> = None;
    for dsn in &shared.options.servers {
        match try_server(shared, dsn, end, memory).await {
            Ok((located, stream)) => return Ok((dsn.clone(), located, stream)),
            Err(fault) => {
                let worse =
                    first.as_ref().is_none_or(|first| !first.needs_a_person() && fault.needs_a_person());
                if worse {
                    first = Some(fault);
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
    memory: &Memory,
) -> Result<(Located, Stream), SourceFault> {
    let options = &shared.options;
    let mut blame = Blame::new(dsn, options.server_id);
    let mut sql = Sql::connect(dsn).await.map_err(|error| blame.sql(error))?;
    blame.monitor = sql.dialect().monitor_privilege();
    let permission = Permission { gap: options.over_gaps, loss: shared.may_lose(), another: memory.another };
    let located = locate(&mut sql, dsn, end, permission, &blame).await?;
    sql.close().await;
    let plan = Plan {
        dialect: located.lineage.flavor,
        server_id: options.server_id,
        start: Start::File { name: located.file.clone(), position: StreamSession::dump_from(located.offset) },
        heartbeat: stream::HEARTBEAT,
        semi_sync: options.semi_sync,
        annotate: located.lineage.flavor == Flavor::MariaDb,
        non_blocking: false,
    };
    let stream = connect(dsn, plan).await?;
    Ok((located, stream))
}
