//! What a replica says, in order, from the greeting to the event stream; and what it must hear. Nothing is retried here.
//!
//! MariaDB's order is that of its own replica (10.11), MySQL's that of 5.6 to 8.0. Without the `SET` of the checksum a
//! server refuses the dump (error 1236); without `@mariadb_slave_capability=4` MariaDB rewrites its GTID events.

use super::auth::{AuthError, Exchange, Next};
use super::command::{BinlogDump, BinlogDumpGtid, Command, DUMP_ANNOTATE, DUMP_NON_BLOCK, DUMP_THROUGH_GTID};
use super::command::{MAX_FILE_NAME, RegisterReplica};
use super::handshake::{CHARSET_UTF8MB4, Greeting, Login, SslRequest, capability};
use super::packet::{Packet, write_packet};
use super::response::{Response, RowsError, ServerError, TextRows};
use super::{Checksum, Flavor, MAX_RESPONSE};
use crate::codec::DecodeError;
use std::collections::VecDeque;
use std::time::Duration;

/// `ER_UNKNOWN_SYSTEM_VARIABLE`: servers before 5.6 have no checksums.
const UNKNOWN_VARIABLE: u16 = 1193;
/// Largest packet that we say we take: events may be this long.
const MAX_PACKET: u32 = 0x4000_0000;

/// Where the events begin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Start {
    /// At a place of a file; 4 is its start.
    File {
        /// Its name.
        name: String,
        /// The place.
        position: u32,
    },
    /// After a state of MariaDB, "0-1-6,1-2-9": `@slave_connect_state`.
    MariaGtid(String),
    /// After a set of MySQL, encoded as the body of a PREVIOUS_GTIDS event.
    MySqlGtid(Vec<u8>),
}

/// What to ask for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The server's dialect.
    pub dialect: Flavor,
    /// Our number; another replica with the same one is thrown out by the server. 0: none, as `mysqlbinlog` reads (it does
    /// not register).
    pub server_id: u32,
    /// Where the events begin.
    pub start: Start,
    /// The server says "alive" after so long a silence.
    pub heartbeat: Duration,
    /// Commits wait for our acknowledgement.
    pub semi_sync: bool,
    /// ANNOTATE_ROWS events too (MariaDB): without them a file is not complete.
    pub annotate: bool,
    /// End at the end of the last file.
    pub non_blocking: bool,
}

/// Who logs in.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Account.
    pub user: String,
    /// Its password; empty for none.
    pub password: Vec<u8>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What the connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlsWish {
    /// TCP without TLS.
    Off,
    /// A unix socket: nobody reads along.
    Socket,
    /// TCP, and TLS before anything is said.
    On,
}

/// What the shell does.
#[derive(Clone, PartialEq, Eq)]
pub enum Say {
    /// Send these bytes (whole packets, headers included).
    Packet(Vec<u8>),
    /// Encrypt `clear` for the key in `pem` (RSA, OAEP with SHA-1) and hand the result to [`ReplicaDialogue::rsa`].
    Encrypt {
        /// The server's public key.
        pem: Vec<u8>,
        /// What is encrypted.
        clear: Vec<u8>,
    },
    /// Begin TLS now (no byte may be waiting that came in clear), then call [`ReplicaDialogue::secured`].
    StartTls,
    /// What comes now is the event stream.
    Streaming {
        /// As the server will send them.
        checksum: Checksum,
    },
}

impl std::fmt::Debug for Say {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Say::Packet(bytes) => write!(f, "Packet of {} bytes", bytes.len()),
            Say::Encrypt { .. } => f.write_str("Encrypt"),
            Say::StartTls => f.write_str("StartTls"),
            Say::Streaming { checksum } => write!(f, "Streaming with {checksum:?}"),
        }
    }
}

/// Why the dialogue ends.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DialogueError {
    /// The server refuses the connection at once.
    #[error("the server refuses the connection: {0}")]
    Closed(ServerError),
    /// The login fails.
    #[error("login: {0}")]
    Login(#[from] AuthError),
    /// The server has no TLS.
    #[error("the server offers no TLS (its have_ssl is not YES), but the settings ask for it")]
    NoTls,
    /// The server cannot do what a replica needs.
    #[error("the server is too old: it lacks {0}")]
    TooOld(&'static str),
    /// A command is refused.
    #[error("`{command}`: {error}")]
    Refused {
        /// What was said.
        command: String,
        /// What was answered.
        error: ServerError,
    },
    /// Not as the protocol has it.
    #[error("{during}: {error}")]
    Damaged {
        /// What was said before it.
        during: String,
        /// What is wrong.
        error: DecodeError,
    },
    /// An answer that does not belong there.
    #[error("{during}: an answer that does not belong there ({found})")]
    Unexpected {
        /// What was said before it.
        during: String,
        /// What came.
        found: String,
    },
    /// The packet's number does not follow.
    #[error("{during}: packet number {found} where {expected} belongs")]
    OutOfOrder {
        /// What was said before it.
        during: String,
        /// What should have come.
        expected: u8,
        /// What came.
        found: u8,
    },
    /// The plan cannot be said.
    #[error("{0}")]
    BadPlan(&'static str),
}

/// A command of the plan and how its answer is taken.
#[derive(Clone, Debug)]
enum Step {
    /// Answered by OK.
    Set(String),
    /// As `Set`; a server that does not know the variable has no checksums.
    SetChecksum(String),
    /// Answered by a row: the checksum.
    AskChecksum(String),
    /// Answered by OK.
    Register(Command),
    /// Answered by the stream.
    Dump(Command),
}

impl Step {
    fn name(&self) -> String {
        match self {
            Step::Set(sql) | Step::SetChecksum(sql) | Step::AskChecksum(sql) => sql.clone(),
            Step::Register(_) => "COM_REGISTER_SLAVE".to_owned(),
            Step::Dump(_) => "COM_BINLOG_DUMP".to_owned(),
        }
    }

    fn command(&self) -> Command {
        match self {
            Step::Set(sql) | Step::SetChecksum(sql) | Step::AskChecksum(sql) => Command::query(sql),
            Step::Register(command) | Step::Dump(command) => command.clone(),
        }
    }
}

#[derive(Debug)]
enum State {
    Greeting,
    Tls(Box<Greeting>),
    Login(Exchange),
    Asked { step: Step, rows: TextRows },
    Streaming,
}

/// The replica's side of a connection.
#[derive(Debug)]
pub struct ReplicaDialogue {
    plan: Plan,
    credentials: Credentials,
    tls: TlsWish,
    state: State,
    steps: VecDeque<Step>,
    /// The number of the next packet, ours or theirs.
    sequence: u8,
    checksum: Checksum,
    version: String,
    connection_id: u32,
}

impl ReplicaDialogue {
    /// Before the greeting.
    pub fn new(plan: Plan, credentials: Credentials, tls: TlsWish) -> Self {
        ReplicaDialogue {
            plan,
            credentials,
            tls,
            state: State::Greeting,
            steps: VecDeque::new(),
            sequence: 0,
            checksum: Checksum::None,
            version: String::new(),
            connection_id: 0,
        }
    }

    /// The server's version as it greeted; empty before that.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// `CONNECTION_ID()` of this connection at the server; 0 before the greeting.
    pub fn connection_id(&self) -> u32 {
        self.connection_id
    }

    /// Longest packet that may come now.
    pub fn limit(&self) -> usize {
        if matches!(self.state, State::Greeting) { super::MAX_GREETING } else { MAX_RESPONSE }
    }

    /// Takes a packet of the server; what to do now, in order.
    pub fn received(&mut self, packet: &Packet) -> Result<Vec<Say>, DialogueError> {
        if packet.first != self.sequence {
            let (expected, found) = (self.sequence, packet.first);
            return Err(DialogueError::OutOfOrder { during: self.during(), expected, found });
        }
        self.sequence = packet.last.wrapping_add(1);
        let payload = packet.payload.as_slice();
        match &mut self.state {
            State::Greeting => self.greeted(payload),
            State::Login(exchange) => {
                let response = Response::decode_login(payload)
                    .map_err(|error| DialogueError::Damaged { during: "login".to_owned(), error })?;
                let next = exchange.received(&response)?;
                self.login_goes_on(next)
            }
            State::Asked { .. } => self.answered(payload),
            State::Tls(_) | State::Streaming => Err(self.unexpected("a packet")),
        }
    }

    /// TLS stands.
    pub fn secured(&mut self) -> Result<Vec<Say>, DialogueError> {
        match std::mem::replace(&mut self.state, State::Greeting) {
            State::Tls(greeting) => self.log_in(&greeting),
            other => {
                self.state = other;
                Err(self.unexpected("TLS"))
            }
        }
    }

    /// What [`Say::Encrypt`] asked for.
    pub fn rsa(&mut self, encrypted: Vec<u8>) -> Say {
        self.packet(&encrypted)
    }

    fn during(&self) -> String {
        match &self.state {
            State::Greeting => "greeting".to_owned(),
            State::Tls(_) | State::Login(_) => "login".to_owned(),
            State::Asked { step, .. } => step.name(),
            State::Streaming => "event stream".to_owned(),
        }
    }

    fn unexpected(&self, found: impl Into<String>) -> DialogueError {
        DialogueError::Unexpected { during: self.during(), found: found.into() }
    }

    fn packet(&mut self, payload: &[u8]) -> Say {
        let mut out = Vec::with_capacity(payload.len() + super::packet::HEADER);
        write_packet(&mut out, &mut self.sequence, payload);
        Say::Packet(out)
    }

    fn greeted(&mut self, payload: &[u8]) -> Result<Vec<Say>, DialogueError> {
        let greeting = Greeting::decode(payload)
            .map_err(|error| DialogueError::Damaged { during: self.during(), error })?
            .map_err(DialogueError::Closed)?;
        self.version.clone_from(&greeting.version);
        self.connection_id = greeting.connection_id;
        let has = |bit: u32| greeting.capabilities & bit != 0;
        if !has(capability::PROTOCOL_41) || !has(capability::SECURE_CONNECTION) {
            return Err(DialogueError::TooOld("protocol 4.1"));
        }
        if self.tls != TlsWish::On {
            return self.log_in(&greeting);
        }
        if !has(capability::SSL) {
            return Err(DialogueError::NoTls);
        }
        let request = SslRequest {
            capabilities: self.capabilities(greeting.capabilities),
            max_packet: MAX_PACKET,
            charset: CHARSET_UTF8MB4,
        };
        let request = self.packet(&request.encode());
        self.state = State::Tls(Box::new(greeting));
        Ok(vec![request, Say::StartTls])
    }

    fn capabilities(&self, offered: u32) -> u32 {
        use capability::{
            CONNECT_ATTRS, LONG_FLAG, LONG_PASSWORD, PLUGIN_AUTH, PLUGIN_AUTH_LENENC, PROTOCOL_41,
            SECURE_CONNECTION, SSL, TRANSACTIONS,
        };
        let always = LONG_PASSWORD | LONG_FLAG | PROTOCOL_41 | TRANSACTIONS | SECURE_CONNECTION;
        let tls = if self.tls == TlsWish::On { SSL } else { 0 };
        always | tls | offered & (PLUGIN_AUTH | PLUGIN_AUTH_LENENC | CONNECT_ATTRS)
    }

    fn log_in(&mut self, greeting: &Greeting) -> Result<Vec<Say>, DialogueError> {
        let secure = self.tls != TlsWish::Off;
        let (exchange, answer) =
            Exchange::start(&greeting.method, &greeting.seed, &self.credentials.password, secure)?;
        let login = Login {
            capabilities: self.capabilities(greeting.capabilities),
            max_packet: MAX_PACKET,
            charset: CHARSET_UTF8MB4,
            user: self.credentials.user.clone(),
            answer,
            database: None,
            method: Some(exchange.method().name().to_owned()),
            attributes: vec![("program_name".to_owned(), "ehpc-store".to_owned())],
        };
        self.state = State::Login(exchange);
        Ok(vec![self.packet(&login.encode())])
    }

    fn login_goes_on(&mut self, next: Next) -> Result<Vec<Say>, DialogueError> {
        Ok(match next {
            Next::Send(bytes) => vec![self.packet(&bytes)],
            Next::NeedRsa { pem, clear } => vec![Say::Encrypt { pem, clear }],
            Next::Wait => Vec::new(),
            Next::Done => {
                self.steps = steps(&self.plan)?;
                self.next_step()?
            }
        })
    }

    /// Says the next command of the plan.
    fn next_step(&mut self) -> Result<Vec<Say>, DialogueError> {
        let Some(step) = self.steps.pop_front() else { return Err(self.unexpected("an answer")) };
        self.sequence = 0;
        let said = self.packet(&step.command().encode());
        if matches!(step, Step::Dump(_)) {
            self.state = State::Streaming;
            return Ok(vec![said, Say::Streaming { checksum: self.checksum }]);
        }
        self.state = State::Asked { step, rows: TextRows::new() };
        Ok(vec![said])
    }

    fn answered(&mut self, payload: &[u8]) -> Result<Vec<Say>, DialogueError> {
        let State::Asked { step, rows } = &mut self.state else { return Err(self.unexpected("an answer")) };
        let during = step.name();
        let damaged = |error| DialogueError::Damaged { during: during.clone(), error };
        if let Step::AskChecksum(_) = step {
            let result = match rows.received(payload) {
                Ok(Some(result)) => result,
                Ok(None) => return Ok(Vec::new()),
                Err(RowsError::Refused(error)) => {
                    return Err(DialogueError::Refused { command: during, error });
                }
                Err(RowsError::Damaged(error)) => return Err(damaged(error)),
                Err(other) => return Err(self.unexpected(other.to_string())),
            };
            self.checksum = match result.single() {
                None | Some(b"NONE" | b"OFF" | b"0") => Checksum::None,
                Some(b"CRC32") => Checksum::Crc32,
                Some(other) => {
                    let found = format!("checksum {}", super::fields::text(other));
                    return Err(self.unexpected(found));
                }
            };
            return self.next_step();
        }
        match Response::decode(payload).map_err(damaged)? {
            Response::Ok(_) => self.next_step(),
            Response::Err(error)
                if error.code == UNKNOWN_VARIABLE && matches!(step, Step::SetChecksum(_)) =>
            {
                self.steps.retain(|step| !matches!(step, Step::AskChecksum(_)));
                self.next_step()
            }
            Response::Err(error) => Err(DialogueError::Refused { command: during, error }),
            other => Err(self.unexpected(format!("{other:?}"))),
        }
    }
}

/// The commands of a plan, in order.
fn steps(plan: &Plan) -> Result<VecDeque<Step>, DialogueError> {
    let maria = plan.dialect == Flavor::MariaDb;
    let heartbeat = plan.heartbeat.as_nanos();
    let mut steps = VecDeque::new();
    let mut set = |sql: String| steps.push_back(Step::Set(sql));
    if maria {
        set(format!("SET @master_heartbeat_period={heartbeat}"));
    } else {
        set(format!("SET @master_heartbeat_period={heartbeat}, @source_heartbeat_period={heartbeat}"));
    }
    let also = if maria { "" } else { ", @source_binlog_checksum=@@global.binlog_checksum" };
    steps.push_back(Step::SetChecksum(format!("SET @master_binlog_checksum=@@global.binlog_checksum{also}")));
    steps.push_back(Step::AskChecksum("SELECT @master_binlog_checksum".to_owned()));
    let mut set = |sql: String| steps.push_back(Step::Set(sql));
    if maria {
        set("SET @mariadb_slave_capability=4".to_owned());
    } else {
        // A replica that comes again throws its former connection out by this name, so it is the number's.
        let uuid = format!("{:08x}-e4bc-11e6-8000-657068637374", plan.server_id);
        set(format!("SET @slave_uuid='{uuid}', @replica_uuid='{uuid}'"));
    }
    if let Start::MariaGtid(state) = &plan.start {
        if !state.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-' || byte == b',') {
            return Err(DialogueError::BadPlan("a GTID state has only digits, '-' and ','"));
        }
        set(format!("SET @slave_connect_state='{state}'"));
        set("SET @slave_gtid_strict_mode=1".to_owned());
        set("SET @slave_gtid_ignore_duplicates=0".to_owned());
    }
    if plan.server_id != 0 {
        let replica = RegisterReplica { server_id: plan.server_id, ..RegisterReplica::default() };
        steps.push_back(Step::Register(Command::RegisterReplica(replica)));
    }
    if plan.semi_sync {
        steps.push_back(Step::Set(if maria {
            "SET @rpl_semi_sync_slave=1".to_owned()
        } else {
            "SET @rpl_semi_sync_slave=1, @rpl_semi_sync_replica=1".to_owned()
        }));
    }
    steps.push_back(Step::Dump(dump(plan)?));
    Ok(steps)
}

fn dump(plan: &Plan) -> Result<Command, DialogueError> {
    let mut flags = if plan.non_blocking { DUMP_NON_BLOCK } else { 0 };
    if plan.annotate && plan.dialect == Flavor::MariaDb {
        flags |= DUMP_ANNOTATE;
    }
    let server_id = plan.server_id;
    Ok(match &plan.start {
        Start::File { name, .. } if name.len() > MAX_FILE_NAME => {
            return Err(DialogueError::BadPlan("the name of the binlog file is too long"));
        }
        Start::File { name, position } => {
            Command::BinlogDump(BinlogDump { position: *position, flags, server_id, file: name.clone() })
        }
        Start::MariaGtid(_) => {
            Command::BinlogDump(BinlogDump { position: 4, flags, server_id, file: String::new() })
        }
        Start::MySqlGtid(set) => Command::BinlogDumpGtid(BinlogDumpGtid {
            flags: flags | DUMP_THROUGH_GTID,
            server_id,
            file: String::new(),
            position: 4,
            set: set.clone(),
        }),
    })
}

#[cfg(test)]
#[path = "replica_tests.rs"]
mod tests;
