//! One request and its answer, as rules and log formats see them: facts and heads, no parser, no socket.

use super::config::model::{ProxyIndex, ServerIndex};
use ehpc_proto::http::{RequestHead, ResponseHead};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

/// Everything that is known of one exchange. In `mode tcp` the heads stay empty.
#[derive(Debug)]
pub struct Exchange {
    /// What does not change while the client's connection lives.
    pub session: Session,
    /// The client's request. Rules change it before it is sent.
    pub request: RequestHead,
    /// Raw first line as received, for the log (`%r`); bounded by `tune.http.logurilen` when it is logged.
    pub request_line: Vec<u8>,
    /// The answer, from the server or from this proxy.
    pub response: ResponseHead,
    /// Which part is being handled: decides what `hdr()` without prefix means.
    pub side: Side,
    /// Values of `capture request header`, in order of declaration, then of `http-request capture`.
    pub request_captures: Vec<Option<Vec<u8>>>,
    /// The same of responses.
    pub response_captures: Vec<Option<Vec<u8>>>,
    /// `capture cookie`: as sent by the client and by the server, `NAME=VALUE`.
    pub cookies: (Option<Vec<u8>>, Option<Vec<u8>>),
    /// Variables of the scopes `txn`, `req`, `res` (those of `sess` are in the session, of `proc` in the state).
    pub variables: super::expression::Variables,
    /// Where it went.
    pub route: Route,
    /// When things happened.
    pub times: Times,
    /// What was counted.
    pub counts: Counts,
    /// How it ended.
    pub ending: Ending,
    /// It is the first request of its connection (`http_first_req`).
    pub first: bool,
    /// Counts requests (of `mode tcp`: sessions) of this process, for `%rt` and unique ids.
    pub number: u64,
    /// Keys of stick tables that will name the server.
    pub stick: super::stick::Pending,
    /// `set-log-level`: replaces the level of the log line.
    pub log_level: Option<LogLevel>,
    /// Made by `unique-id-format`, once, when something asks for it.
    pub unique_id: Option<Vec<u8>>,
}

/// What `set-log-level` may say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogLevel {
    /// No line at all.
    Silent,
    /// 0 = emerg ... 7 = debug.
    Level(u8),
}

impl Exchange {
    /// An exchange whose request has not been read yet. `started` and `started_at`: first byte of the request.
    pub fn new(session: Session, started: SystemTime, started_at: Instant) -> Exchange {
        Exchange {
            session,
            request: RequestHead::default(),
            request_line: Vec::new(),
            response: ResponseHead::default(),
            side: Side::Request,
            request_captures: Vec::new(),
            response_captures: Vec::new(),
            cookies: (None, None),
            variables: super::expression::Variables::default(),
            route: Route::default(),
            times: Times::new(started, started_at),
            counts: Counts::default(),
            ending: Ending::default(),
            first: true,
            number: 0,
            stick: super::stick::Pending::new(),
            log_level: None,
            unique_id: None,
        }
    }

    /// The method as it was received, also when `set-method` has changed it.
    pub fn received_method(&self) -> &[u8] {
        let end = self.request_line.iter().position(|byte| *byte == b' ');
        // Without a space the line is absent, or cut.
        end.map_or(self.request.method.as_bytes(), |end| &self.request_line[..end])
    }

    /// Makes it ready for the next request of the same connection, and keeps the memory.
    pub fn restart(&mut self, started: SystemTime, started_at: Instant) {
        self.request.clear();
        self.request_line.clear();
        self.response.clear();
        self.side = Side::Request;
        self.request_captures.clear();
        self.response_captures.clear();
        self.cookies = (None, None);
        self.variables.clear();
        self.route = Route::default();
        self.times = Times::new(started, started_at);
        self.counts = Counts::default();
        self.ending = Ending::default();
        self.first = false;
        self.stick.clear();
        self.log_level = None;
        self.unique_id = None;
    }
}

impl Times {
    /// Nothing has happened yet.
    pub fn new(started: SystemTime, started_at: Instant) -> Times {
        Times {
            request_started: started,
            request_started_at: started_at,
            request_head: None,
            dequeued: None,
            connected: None,
            response_head: None,
            ended: None,
            idle: Duration::ZERO,
        }
    }
}

/// Facts of the client's connection.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Session {
    pub client: Endpoint,
    /// Address that the client connected to.
    pub local: Endpoint,
    pub frontend: ProxyIndex,
    /// Which of the frontend's binds.
    pub bind: usize,
    pub accepted: SystemTime,
    pub accepted_at: Instant,
    /// Counts up in this process, for `%rt` and unique ids.
    pub number: u64,
    pub variables: super::expression::Variables,
}

/// One end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Endpoint {
    Tcp(SocketAddr),
    Unix,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub enum Side {
    #[default]
    Request,
    Response,
}

/// Where an exchange went.
#[derive(Clone, Debug, Default)]
pub struct Route {
    /// The backend; the frontend itself when none was chosen (as HAProxy logs it).
    pub backend: Option<ProxyIndex>,
    /// The server that answered, or was tried last.
    pub server: Option<ServerIndex>,
    /// The proxy answered itself: logged as `<NOSRV>`, statistics as `<STATS>`.
    pub service: Option<&'static str>,
}

/// Moments of an exchange, from which `%TR %Tw %Tc %Tr %Ta` come (8.4 of the manual).
#[derive(Clone, Debug)]
pub struct Times {
    /// First byte of the request (`%tr`); for an idle connection the clock starts here.
    pub request_started: SystemTime,
    /// The same, monotonic.
    pub request_started_at: Instant,
    /// Complete request head (ends `%TR`).
    pub request_head: Option<Instant>,
    /// Left the queue (ends `%Tw`).
    pub dequeued: Option<Instant>,
    /// Connected (ends `%Tc`).
    pub connected: Option<Instant>,
    /// Complete response head (ends `%Tr`).
    pub response_head: Option<Instant>,
    /// Everything over (ends `%Ta`).
    pub ended: Option<Instant>,
    /// How long the connection was idle before this request (`%Ti`), and its handshake (`%Th`).
    pub idle: Duration,
}

/// Numbers of an exchange.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct Counts {
    /// Bytes to the client (`%B`).
    pub bytes_out: u64,
    /// Bytes from the client (`%U`).
    pub bytes_in: u64,
    pub retries: u32,
    /// The last attempt went to another server (`+` before the retries).
    pub redispatched: bool,
    /// Requests before this one in the server's and the backend's queue.
    pub server_queue: u32,
    pub backend_queue: u32,
    /// Connections when the log line is made: process, frontend, backend, server.
    pub active: u32,
    pub frontend_active: u32,
    pub backend_active: u32,
    pub server_active: u32,
}

/// How an exchange ended: the four characters of `%tsc` (8.5 of the manual).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ending {
    /// Who ended it: `-` normal, `C` client, `S` server, `P` proxy, `R` resource, `I` internal, `D` server down,
    /// `L` handled locally, `U`, `K`, `c` client timeout, `s` server timeout.
    pub cause: u8,
    /// In which state: `R` request, `Q` queue, `C` connect, `H` response headers, `D` data, `L` last data, `T`
    /// tarpit, `-` after the end.
    pub state: u8,
    /// Client's persistence cookie: `N` none, `I` invalid, `D` its server is down, `V` valid, `E` expired, `O` old,
    /// `U` unused, `-` not applicable.
    pub client_cookie: u8,
    /// What was done to it in the answer: `N` nothing, `I` inserted, `U` updated, `P` provided by the server,
    /// `R` rewritten, `D` deleted, `-`.
    pub server_cookie: u8,
}

impl Default for Ending {
    fn default() -> Ending {
        Ending { cause: b'-', state: b'-', client_cookie: b'-', server_cookie: b'-' }
    }
}
