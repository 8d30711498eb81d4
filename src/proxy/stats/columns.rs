//! The statistics columns of HAProxy 2.6 in their order (management manual 9.1): one table from which the CSV, the typed
//! and JSON dumps, and the exporter are made.

/// One column.
#[derive(Debug)]
pub struct Column {
    /// Name in the CSV's header.
    pub name: &'static str,
    /// Origin, nature and scope as `show stat typed` prints them (management manual 9.2).
    pub tags: &'static str,
    /// What it says.
    pub help: &'static str,
}

macro_rules! columns {
    ($($name:ident $text:literal $tags:literal $help:literal)*) => {
        /// A column by its place.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[allow(missing_docs)]
        pub enum At { $($name),* }

        /// The table, in order.
        pub const COLUMNS: &[Column] = &[$(Column { name: $text, tags: $tags, help: $help }),*];
    };
}

/// Columns before this place are HAProxy's own; then, behind a column `-`, come those of its modules.
pub const MODULES: usize = 103;

columns! {
    Pxname "pxname" "KNS" "Proxy name"
    Svname "svname" "KNS" "Server name"
    Qcur "qcur" "MGP" "Number of current queued connections"
    Qmax "qmax" "MMP" "Highest value of queued connections encountered since process started"
    Scur "scur" "MGP" "Number of current sessions on the frontend, backend or server"
    Smax "smax" "MMP" "Highest value of current sessions encountered since process started"
    Slim "slim" "CLP" "Frontend/listener/server's maxconn, backend's fullconn"
    Stot "stot" "MCP" "Total number of sessions since process started"
    Bin "bin" "MCP" "Total number of request bytes since process started"
    Bout "bout" "MCP" "Total number of response bytes since process started"
    Dreq "dreq" "MCP" "Total number of denied requests since process started"
    Dresp "dresp" "MCP" "Total number of denied responses since process started"
    Ereq "ereq" "MCP" "Total number of invalid requests since process started"
    Econ "econ" "MCP" "Total number of failed connections to server since the worker process started"
    Eresp "eresp" "MCP" "Total number of invalid responses since the worker process started"
    Wretr "wretr" "MCP" "Total number of server connection retries since the worker process started"
    Wredis "wredis" "MCP" "Total number of server redispatches due to connection failures since the worker process started"
    Status "status" "SGP" "Frontend/listen status: OPEN/WAITING/FULL/STOP; backend: UP/DOWN; server: last check status"
    Weight "weight" "MaP" "Server's effective weight, or sum of active servers' effective weights for a backend"
    Act "act" "SGP" "Total number of active UP servers with a non-zero weight"
    Bck "bck" "SGP" "Total number of backup UP servers with a non-zero weight"
    Chkfail "chkfail" "MCP" "Total number of failed individual health checks per server/backend, since the worker process started"
    Chkdown "chkdown" "MCP" "Total number of failed checks causing UP to DOWN server transitions, per server/backend, since the worker process started"
    Lastchg "lastchg" "MAP" "How long ago the last server state changed, in seconds"
    Downtime "downtime" "MCP" "Total time spent in DOWN state, for server or backend"
    Qlimit "qlimit" "CGS" "Limit on the number of connections in queue, for servers only (maxqueue argument)"
    Pid "pid" "KGP" "Relative worker process number (1)"
    Iid "iid" "KGS" "Frontend or Backend numeric identifier ('id' setting)"
    Sid "sid" "KGS" "Server numeric identifier ('id' setting)"
    Throttle "throttle" "MaP" "Throttling ratio applied to a server's maxconn and weight during the slowstart period (0 to 100%)"
    Lbtot "lbtot" "MCP" "Total number of requests routed by load balancing since the worker process started (ignores queue pop and stickiness)"
    Tracked "tracked" "CNS" "Name of the other server this server tracks for its state"
    Type "type" "CGS" "Type of the object (Listener, Frontend, Backend, Server)"
    Rate "rate" "MRP" "Total number of sessions processed by this object over the last second (sessions for listeners/frontends, requests for backends/servers)"
    RateLim "rate_lim" "CLP" "Limit on the number of sessions accepted in a second (frontend only, 'rate-limit sessions' setting)"
    RateMax "rate_max" "MMP" "Highest value of sessions per second observed since the worker process started"
    CheckStatus "check_status" "MOP" "Status report of the server's latest health check, prefixed with '*' if a check is currently in progress"
    CheckCode "check_code" "MOP" "layer5-7 code, if available"
    CheckDuration "check_duration" "MDP" "Total duration of the latest server health check, in milliseconds"
    Hrsp1xx "hrsp_1xx" "MCP" "Total number of HTTP responses with status 100-199 returned by this object since the worker process started"
    Hrsp2xx "hrsp_2xx" "MCP" "Total number of HTTP responses with status 200-299 returned by this object since the worker process started"
    Hrsp3xx "hrsp_3xx" "MCP" "Total number of HTTP responses with status 300-399 returned by this object since the worker process started"
    Hrsp4xx "hrsp_4xx" "MCP" "Total number of HTTP responses with status 400-499 returned by this object since the worker process started"
    Hrsp5xx "hrsp_5xx" "MCP" "Total number of HTTP responses with status 500-599 returned by this object since the worker process started"
    HrspOther "hrsp_other" "MCP" "Total number of HTTP responses with status <100, >599 returned by this object since the worker process started (error -1 included)"
    Hanafail "hanafail" "MCP" "Total number of failed checks caused by an 'on-error' directive after an 'observe' condition matched"
    ReqRate "req_rate" "MRP" "Number of HTTP requests processed over the last second on this object"
    ReqRateMax "req_rate_max" "MMP" "Highest value of http requests observed since the worker process started"
    ReqTot "req_tot" "MCP" "Total number of HTTP requests processed by this object since the worker process started"
    CliAbrt "cli_abrt" "MCP" "Total number of requests or connections aborted by the client since the worker process started"
    SrvAbrt "srv_abrt" "MCP" "Total number of requests or connections aborted by the server since the worker process started"
    CompIn "comp_in" "MCP" "Total number of bytes submitted to the HTTP compressor for this object since the worker process started"
    CompOut "comp_out" "MCP" "Total number of bytes emitted by the HTTP compressor for this object since the worker process started"
    CompByp "comp_byp" "MCP" "Total number of bytes that bypassed HTTP compression for this object since the worker process started (CPU/memory/bandwidth limitation)"
    CompRsp "comp_rsp" "MCP" "Total number of HTTP responses that were compressed for this object since the worker process started"
    Lastsess "lastsess" "MAP" "How long ago some traffic was seen on this object on this worker process, in seconds"
    LastChk "last_chk" "MOP" "Short description of the latest health check report for this server (see also check_desc)"
    LastAgt "last_agt" "MOP" "Short description of the latest agent check report for this server (see also agent_desc)"
    Qtime "qtime" "MaP" "Time spent in the queue, in milliseconds, averaged over the 1024 last requests (backend/server)"
    Ctime "ctime" "MaP" "Time spent waiting for a connection to complete, in milliseconds, averaged over the 1024 last requests (backend/server)"
    Rtime "rtime" "MaP" "Time spent waiting for a server response, in milliseconds, averaged over the 1024 last requests (backend/server)"
    Ttime "ttime" "MaP" "Total request+response time (request+queue+connect+response+processing), in milliseconds, averaged over the 1024 last requests (backend/server)"
    AgentStatus "agent_status" "MOP" "Status report of the server's latest agent check, prefixed with '*' if a check is currently in progress"
    AgentCode "agent_code" "MOP" "numeric code reported by agent if any"
    AgentDuration "agent_duration" "MDP" "Total duration of the latest server agent check, in milliseconds"
    CheckDesc "check_desc" "MOP" "Textual description of the latest health check report for this server"
    AgentDesc "agent_desc" "MOP" "Textual description of the latest agent check report for this server"
    CheckRise "check_rise" "CGS" "Number of successful health checks before declaring a server UP (server 'rise' setting)"
    CheckFall "check_fall" "CGS" "Number of failed health checks before declaring a server DOWN (server 'fall' setting)"
    CheckHealth "check_health" "CGS" "Current server health check level (0..fall-1=DOWN, fall..rise-1=UP)"
    AgentRise "agent_rise" "CGS" "Number of successful agent checks before declaring a server UP (server 'rise' setting)"
    AgentFall "agent_fall" "CGS" "Number of failed agent checks before declaring a server DOWN (server 'fall' setting)"
    AgentHealth "agent_health" "CGS" "Current server agent check level (0..fall-1=DOWN, fall..rise-1=UP)"
    Addr "addr" "CGS" "Server's address:port, shown only if show-legends is set, or at levels oper/admin for the CLI"
    Cookie "cookie" "CNS" "Backend's cookie name or Server's cookie value, shown only if show-legends is set, or at levels oper/admin for the CLI"
    Mode "mode" "CGS" "'mode' setting (tcp/http/health/cli)"
    Algo "algo" "CGS" "Backend's load balancing algorithm, shown only if show-legends is set, or at levels oper/admin for the CLI"
    ConnRate "conn_rate" "MRP" "Number of new connections accepted over the last second on the frontend for this worker process"
    ConnRateMax "conn_rate_max" "MMP" "Highest value of connections per second observed since the worker process started"
    ConnTot "conn_tot" "MCP" "Total number of new connections accepted on this frontend since the worker process started"
    Intercepted "intercepted" "MCP" "Total number of HTTP requests intercepted on the frontend (redirects/stats/services) since the worker process started"
    Dcon "dcon" "MCP" "Total number of incoming connections blocked on a listener/frontend by a tcp-request connection rule since the worker process started"
    Dses "dses" "MCP" "Total number of incoming sessions blocked on a listener/frontend by a tcp-request connection rule since the worker process started"
    Wrew "wrew" "MCP" "Total number of failed HTTP header rewrites since the worker process started"
    Connect "connect" "MCP" "Total number of outgoing connection attempts on this backend/server since the worker process started"
    Reuse "reuse" "MCP" "Total number of reused connection on this backend/server since the worker process started"
    CacheLookups "cache_lookups" "MCP" "Total number of HTTP requests looked up in the cache on this frontend/backend since the worker process started"
    CacheHits "cache_hits" "MCP" "Total number of HTTP requests not found in the cache on this frontend/backend since the worker process started"
    SrvIcur "srv_icur" "MGP" "Current number of idle connections available for reuse on this server"
    SrcIlim "src_ilim" "CLP" "Limit on the number of available idle connections on this server (server 'pool_max_conn' directive)"
    QtimeMax "qtime_max" "MMP" "Maximum observed time spent in the queue, in milliseconds (backend/server)"
    CtimeMax "ctime_max" "MMP" "Maximum observed time spent waiting for a connection to complete, in milliseconds (backend/server)"
    RtimeMax "rtime_max" "MMP" "Maximum observed time spent waiting for a server response, in milliseconds (backend/server)"
    TtimeMax "ttime_max" "MMP" "Maximum observed total request+response time (request+queue+connect+response+processing), in milliseconds (backend/server)"
    Eint "eint" "MCP" "Total number of internal errors since process started"
    IdleConnCur "idle_conn_cur" "MGP" "Current number of unsafe idle connections"
    SafeConnCur "safe_conn_cur" "MGP" "Current number of safe idle connections"
    UsedConnCur "used_conn_cur" "MGP" "Current number of connections in use"
    NeedConnEst "need_conn_est" "MGP" "Estimated needed number of connections"
    Uweight "uweight" "MaP" "Server's user weight, or sum of active servers' user weights for a backend"
    AggServerStatus "agg_server_status" "MGP" "Backend's aggregated gauge of servers' status"
    AggServerCheckStatus "agg_server_check_status" "MGP" "Backend's aggregated gauge of servers' state check status"
    AggCheckStatus "agg_check_status" "MGP" "Backend's aggregated gauge of servers' state check status"
    SslSess "ssl_sess" "MCP" "Total number of ssl sessions established"
    SslReusedSess "ssl_reused_sess" "MCP" "Total number of ssl sessions reused"
    SslFailedHandshake "ssl_failed_handshake" "MCP" "Total number of failed handshake"
    H2HeadersRcvd "h2_headers_rcvd" "MCP" "Total number of received HEADERS frames"
    H2DataRcvd "h2_data_rcvd" "MCP" "Total number of received DATA frames"
    H2SettingsRcvd "h2_settings_rcvd" "MCP" "Total number of received SETTINGS frames"
    H2RstStreamRcvd "h2_rst_stream_rcvd" "MCP" "Total number of received RST_STREAM frames"
    H2GoawayRcvd "h2_goaway_rcvd" "MCP" "Total number of received GOAWAY frames"
    H2DetectedConnProtocolErrors "h2_detected_conn_protocol_errors" "MCP" "Total number of connection protocol errors"
    H2DetectedStrmProtocolErrors "h2_detected_strm_protocol_errors" "MCP" "Total number of stream protocol errors"
    H2RstStreamResp "h2_rst_stream_resp" "MCP" "Total number of RST_STREAM sent on detected error"
    H2GoawayResp "h2_goaway_resp" "MCP" "Total number of GOAWAY sent on detected error"
    H2OpenConnections "h2_open_connections" "MGP" "Count of currently open connections"
    H2BackendOpenStreams "h2_backend_open_streams" "MGP" "Count of currently open streams"
    H2TotalConnections "h2_total_connections" "MCP" "Total number of connections"
    H2BackendTotalStreams "h2_backend_total_streams" "MCP" "Total number of streams"
    H1OpenConnections "h1_open_connections" "MGP" "Count of currently open connections"
    H1OpenStreams "h1_open_streams" "MGP" "Count of currently open streams"
    H1TotalConnections "h1_total_connections" "MCP" "Total number of connections"
    H1TotalStreams "h1_total_streams" "MCP" "Total number of streams"
    H1BytesIn "h1_bytes_in" "MCP" "Total number of bytes received"
    H1BytesOut "h1_bytes_out" "MCP" "Total number of bytes send"
    H1SplicedBytesIn "h1_spliced_bytes_in" "MCP" "Total number of bytes received using kernel splicing"
    H1SplicedBytesOut "h1_spliced_bytes_out" "MCP" "Total number of bytes sendusing kernel splicing"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_names_agree() {
        assert_eq!(COLUMNS.len(), 127);
        assert_eq!(COLUMNS[At::Pxname as usize].name, "pxname");
        assert_eq!(COLUMNS[At::Hrsp5xx as usize].name, "hrsp_5xx");
        assert_eq!(COLUMNS[At::AggCheckStatus as usize].name, "agg_check_status");
        assert_eq!(COLUMNS[MODULES].name, "ssl_sess");
    }
}
