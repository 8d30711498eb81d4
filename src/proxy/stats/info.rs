//! `show info`: what the process says of itself, in HAProxy's fields and order (management manual 9.3).

use super::dump::{Form, json_field};
use super::value::Value;
use super::{Moment, PRODUCT, Process};
use crate::observe::Count;
use crate::proxy::state::{Rate, Running};
use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;
use std::time::UNIX_EPOCH;

/// What the fields are read from.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Facts<'r> {
    pub running: &'r Running,
    pub process: &'r Process,
    pub moment: Moment,
}

/// One field; its position is what typed and JSON dumps show (those of fields that this build of HAProxy has not are
/// left out).
#[derive(Debug)]
pub struct Field {
    /// Position.
    pub at: usize,
    /// Name.
    pub name: &'static str,
    /// Origin, nature, scope.
    pub tags: &'static str,
    /// What it says.
    pub help: &'static str,
    read: fn(&Facts<'_>) -> Value,
}

macro_rules! fields {
    ($($at:literal $name:literal $tags:literal $help:literal $read:expr;)*) => {
        /// The table, in order.
        pub const FIELDS: &[Field] =
            &[$(Field { at: $at, name: $name, tags: $tags, help: $help, read: $read }),*];
    };
}

fields! {
    0 "Name" "POS" "Product name"
        |_| Value::from(PRODUCT.0);
    1 "Version" "POS" "Product version"
        |_| Value::from(PRODUCT.1);
    2 "Release_date" "POS" "Date of latest source code update"
        |_| Value::from(PRODUCT.2);
    3 "Nbthread" "CGS" "Number of started threads (global.nbthread)"
        |f| u32::from(f.process.threads).into();
    4 "Nbproc" "CGS" "Number of started worker processes (historical, always 1)"
        |_| 1_u32.into();
    5 "Process_num" "KGP" "Relative worker process number (1)"
        |_| 1_u32.into();
    6 "Pid" "SGP" "This worker process identifier for the system"
        |f| f.process.id.into();
    7 "Uptime" "MDP" "How long ago this worker process was started (days+hours+minutes+seconds)"
        |f| f.uptime();
    8 "Uptime_sec" "MDP" "How long ago this worker process was started (seconds)"
        |f| f.age().into();
    9 "Memmax_MB" "CLP" "Worker process's hard limit on memory usage in MB (-m on command line)"
        |_| 0_u32.into();
    10 "PoolAlloc_MB" "MGP" "Amount of memory allocated in pools (in MB)"
        |_| 0_u32.into();
    11 "PoolUsed_MB" "MGP" "Amount of pool memory currently used (in MB)"
        |_| 0_u32.into();
    12 "PoolFailed" "MCP" "Number of failed pool allocations since this worker was started"
        |_| 0_u32.into();
    13 "Ulimit-n" "CLP" "Hard limit on the number of per-process file descriptors"
        |f| small(f.process.descriptors);
    14 "Maxsock" "CLP" "Hard limit on the number of per-process sockets"
        |f| small(f.process.descriptors);
    15 "Maxconn" "CLP" "Hard limit on the number of per-process connections (configured or imposed by Ulimit-n)"
        |f| f.running.gate.limit().into();
    16 "Hard_maxconn" "CLP" "Hard limit on the number of per-process connections (imposed by Memmax_MB or Ulimit-n)"
        |f| f.running.gate.limit().into();
    17 "CurrConns" "MGP" "Current number of connections on this worker process"
        |f| f.running.gate.now().into();
    18 "CumConns" "MCP" "Total number of connections on this worker process since started"
        |f| small(f.running.connections.load(Relaxed));
    19 "CumReq" "MCP" "Total number of requests on this worker process since started"
        |f| small(f.running.requests.load(Relaxed));
    20 "MaxSslConns" "MMP" "Hard limit on the number of per-process SSL endpoints (front+back), 0=unlimited"
        |_| 0_u32.into();
    21 "CurrSslConns" "MGP" "Current number of SSL endpoints on this worker process (front+back)"
        |_| 0_u32.into();
    22 "CumSslConns" "MCP" "Total number of SSL endpoints on this worker process since started (front+back)"
        |_| 0_u32.into();
    23 "Maxpipes" "CLP" "Hard limit on the number of pipes for splicing, 0=unlimited"
        |_| 0_u32.into();
    24 "PipesUsed" "MGP" "Current number of pipes in use in this worker process"
        |_| 0_u32.into();
    25 "PipesFree" "MGP" "Current number of allocated and available pipes in this worker process"
        |_| 0_u32.into();
    26 "ConnRate" "MRP" "Number of front connections created on this worker process over the last second"
        |f| f.connections().now.into();
    27 "ConnRateLimit" "CLP" "Hard limit for ConnRate (global.maxconnrate)"
        |_| 0_u32.into();
    28 "MaxConnRate" "MMP" "Highest ConnRate reached on this worker process since started (in connections per second)"
        |f| f.connections().most.into();
    29 "SessRate" "MRP" "Number of sessions created on this worker process over the last second"
        |f| f.connections().now.into();
    30 "SessRateLimit" "CLP" "Hard limit for SessRate (global.maxsessrate)"
        |_| 0_u32.into();
    31 "MaxSessRate" "MRP" "Highest SessRate reached on this worker process since started (in sessions per second)"
        |f| f.connections().most.into();
    32 "SslRate" "MRP" "Number of SSL connections created on this worker process over the last second"
        |_| 0_u32.into();
    33 "SslRateLimit" "CLP" "Hard limit for SslRate (global.maxsslrate)"
        |_| 0_u32.into();
    34 "MaxSslRate" "MMP" "Highest SslRate reached on this worker process since started (in connections per second)"
        |_| 0_u32.into();
    35 "SslFrontendKeyRate" "MGP" "Number of SSL keys created on frontends in this worker process over the last second"
        |_| 0_u32.into();
    36 "SslFrontendMaxKeyRate" "MMP" "Highest SslFrontendKeyRate reached on this worker process since started (in SSL keys per second)"
        |_| 0_u32.into();
    37 "SslFrontendSessionReuse_pct" "MGP" "Percent of frontend SSL connections which did not require a new key"
        |_| 0_u32.into();
    38 "SslBackendKeyRate" "MRP" "Number of SSL keys created on backends in this worker process over the last second"
        |_| 0_u32.into();
    39 "SslBackendMaxKeyRate" "MMP" "Highest SslBackendKeyRate reached on this worker process since started (in SSL keys per second)"
        |_| 0_u32.into();
    40 "SslCacheLookups" "MCP" "Total number of SSL session ID lookups in the SSL session cache on this worker since started"
        |_| 0_u32.into();
    41 "SslCacheMisses" "MCP" "Total number of SSL session ID lookups that didn't find a session in the SSL session cache on this worker since started"
        |_| 0_u32.into();
    42 "CompressBpsIn" "MRP" "Number of bytes submitted to the HTTP compressor in this worker process over the last second"
        |_| 0_u32.into();
    43 "CompressBpsOut" "MRP" "Number of bytes emitted by the HTTP compressor in this worker process over the last second"
        |_| 0_u32.into();
    44 "CompressBpsRateLim" "CLP" "Limit of CompressBpsOut beyond which HTTP compression is automatically disabled"
        |_| 0_u32.into();
    47 "Tasks" "MGP" "Total number of tasks in the current worker process (active + sleeping)"
        |_| 0_u32.into();
    48 "Run_queue" "MGP" "Total number of active tasks+tasklets in the current worker process"
        |_| 0_u32.into();
    49 "Idle_pct" "MaP" "Percentage of last second spent waiting in the current worker thread"
        |f| f.running.idle_percent().into();
    50 "node" "COS" "Node name (global.node)"
        |f| f.process.node.clone().into();
    51 "description" "COS" "Node description (global.description)"
        |f| f.description();
    52 "Stopping" "MGP" "1 if the worker process is currently stopping, otherwise zero"
        |f| u32::from(f.running.stopping.load(Relaxed)).into();
    53 "Jobs" "MGP" "Current number of active jobs on the current worker process (frontend connections, master connections, listeners)"
        |f| f.jobs().into();
    54 "Unstoppable Jobs" "MGP" "Current number of unstoppable jobs on the current worker process (master connections)"
        |_| 0_u32.into();
    55 "Listeners" "MGP" "Current number of active listeners on the current worker process"
        |f| f.listeners().into();
    56 "ActivePeers" "MGP" "Current number of verified active peers connections on the current worker process"
        |_| 0_u32.into();
    57 "ConnectedPeers" "MGP" "Current number of peers having passed the connection step on the current worker process"
        |_| 0_u32.into();
    58 "DroppedLogs" "MGP" "Total number of dropped logs for current worker process since started"
        |f| small(f.process.dropped_logs);
    59 "BusyPolling" "MGP" "1 if busy-polling is currently in use on the worker process, otherwise zero (config.busy-polling)"
        |_| 0_u32.into();
    60 "FailedResolutions" "MGP" "Total number of failed DNS resolutions in current worker process since started"
        |_| 0_u32.into();
    61 "TotalBytesOut" "MGP" "Total number of bytes emitted by current worker process since started"
        |f| f.bytes_out().into();
    62 "TotalSplicdedBytesOut" "MGP" "Total number of bytes emitted by current worker process through a kernel pipe since started"
        |_| 0_u64.into();
    63 "BytesOutRate" "MRP" "Number of bytes emitted by current worker process over the last second"
        |f| u64::from(f.bytes_rate()).into();
    64 "DebugCommandsIssued" "MGP" "Number of debug commands issued on this process (anything > 0 is unsafe)"
        |_| 0_u32.into();
    65 "CumRecvLogs" "MCP" "Total number of log messages received by log-forwarding listeners on this worker process since started"
        |_| 0_u32.into();
    66 "Build info" "POS" "Build info"
        |_| Value::from(PRODUCT.1);
    67 "Memmax_bytes" "CLP" "Worker process's hard limit on memory usage in byes (-m on command line)"
        |_| 0_u32.into();
    68 "PoolAlloc_bytes" "MGP" "Amount of memory allocated in pools (in bytes)"
        |_| 0_u64.into();
    69 "PoolUsed_bytes" "MGP" "Amount of pool memory currently used (in bytes)"
        |_| 0_u64.into();
    70 "Start_time_sec" "MDP" "Start time in seconds"
        |f| f.started().into();
    71 "Tainted" "SGP" "Experimental features used"
        |_| Value::from("0");
}

/// A count in a field of 32 bits; a greater one shows the greatest.
fn small(count: u64) -> Value {
    Value::U32(u32::try_from(count).unwrap_or(u32::MAX))
}

impl Facts<'_> {
    /// Seconds since the start.
    fn age(&self) -> u32 {
        let age = self.moment.monotonic.saturating_duration_since(self.running.started_at);
        u32::try_from(age.as_secs()).unwrap_or(u32::MAX)
    }

    fn connections(&self) -> Rate {
        let total = Count::new();
        total.add(self.running.connections.load(Relaxed));
        self.running.rate(&self.running.samples.connections, &total, self.moment.monotonic)
    }

    fn bytes_rate(&self) -> u32 {
        let total = Count::new();
        total.add(self.bytes_out());
        self.running.rate(&self.running.samples.bytes_out, &total, self.moment.monotonic).now
    }

    fn uptime(&self) -> Value {
        let age = self.age();
        let (days, hours, minutes) = (age / 86_400, age / 3_600 % 24, age / 60 % 60);
        format!("{days}d {hours}h{minutes:02}m{:02}s", age % 60).into()
    }

    fn started(&self) -> u32 {
        let since = self.running.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
    }

    fn description(&self) -> Value {
        self.running.config.global.description.clone().map_or(Value::Empty, Value::from)
    }

    /// Listening sockets: those of proxies that run, and the run-time command's.
    fn listeners(&self) -> u32 {
        let config = &self.running.config;
        let binds = config.proxies.iter().filter(|proxy| !proxy.disabled).map(|proxy| proxy.binds.len());
        u32::try_from(binds.sum::<usize>() + config.global.stats_sockets.len()).unwrap_or(u32::MAX)
    }

    fn jobs(&self) -> u32 {
        self.listeners().saturating_add(self.running.gate.now())
    }

    fn bytes_out(&self) -> u64 {
        let frontends = self.running.proxies.iter().filter_map(|state| state.frontend.as_ref());
        frontends.map(|frontend| frontend.counters.traffic.bytes_out.get()).sum()
    }
}

/// One field by its name.
pub fn value(facts: &Facts<'_>, name: &str) -> Value {
    let field = FIELDS.iter().find(|field| field.name == name);
    field.map_or(Value::Empty, |field| (field.read)(facts))
}

/// The fields in one of the forms; `describe` adds what each means (`desc`).
pub fn show(facts: &Facts<'_>, form: Form, describe: bool) -> String {
    let mut out = String::with_capacity(8_000);
    let fields = FIELDS.iter().map(|field| (field, (field.read)(facts)));
    let present = fields.filter(|(_, value)| !value.is_empty());
    if form == Form::Json {
        out.push('[');
    }
    for (index, (field, value)) in present.enumerate() {
        match form {
            Form::Csv => {
                let _ = write!(out, "{}: {value}", field.name);
            }
            Form::Typed => {
                let (at, name, tags) = (field.at, field.name, field.tags);
                let _ = write!(out, "{at}.{name}.1:{tags}:{}:{value}", value.kind());
            }
            Form::Json => {
                out.push_str(if index > 0 { ",{" } else { "{" });
                json_field(&mut out, field.at, field.name, field.tags, &value);
                out.push('}');
                continue;
            }
        }
        if describe {
            let _ = write!(out, ":\"{}\"", field.help);
        }
        out.push('\n');
    }
    if form == Form::Json {
        out.push_str("]\n");
    }
    out
}
