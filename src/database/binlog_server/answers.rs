//! What replicas ask before they take the log, and what they hear: one table, as MariaDB 10.11 and MySQL 5.6 ask (tried)
//! and MySQL 5.7 to 8.4 (from its source, `sql/rpl_replica.cc`).

use super::statement::{self, Value};
use ehpc_proto::binlog::{Checksum, Flavor, GtidFault, GtidState, MariaState};
use ehpc_proto::mysql::response::{OkPacket, Response, ServerError, TextResult};
use std::time::Duration;

/// Longest pause between heartbeats that is kept: a replica that asks for none still hears of us.
const HEARTBEAT_MAX: Duration = Duration::from_secs(60);
const HEARTBEAT_MIN: Duration = Duration::from_millis(100);

/// As which server the binlog server answers: the one that wrote the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// `@@version` of the server, such as `10.11.19-MariaDB-log`.
    pub version: String,
    /// Its family.
    pub flavor: Flavor,
    /// Its `server_id`: a replica must refuse to follow itself.
    pub server_id: u32,
    /// Its `server_uuid` (MySQL), as text.
    pub server_uuid: Option<String>,
}

impl Identity {
    /// The version in the greeting. MariaDB puts `5.5.5-` in front for replicas that would take 10 for 1.
    pub fn banner(&self) -> String {
        match self.flavor {
            Flavor::MariaDb if !self.version.starts_with("5.5.5-") => format!("5.5.5-{}", self.version),
            _ => self.version.clone(),
        }
    }
}

/// What a replica said of itself and wants.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Wishes {
    /// Pause after which it wants a sign of life.
    pub heartbeat: Option<Duration>,
    /// It understands events with checksums.
    pub checksums: bool,
    /// `@mariadb_slave_capability`; 4 is everything.
    pub capability: u32,
    /// `@slave_connect_state`: MariaDB's start by GTID.
    pub connect_state: Option<MariaState>,
    /// `@slave_until_gtid`: MariaDB's end by GTID.
    pub until: Option<MariaState>,
}

/// What the binlog server says to a query.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Done.
    Ok,
    /// Rows.
    Rows(TextResult),
    /// No.
    Err(ServerError),
    /// Rows that the archive knows: `SELECT binlog_gtid_pos(file, position)`.
    GtidPosition {
        /// Name of the file.
        file: String,
        /// Offset in it.
        position: u64,
    },
    /// End the connection with this number.
    Kill(u32),
}

impl Answer {
    /// The packets' payloads; none for those that need more than the table.
    pub fn packets(&self) -> Vec<Vec<u8>> {
        match self {
            Answer::Ok => vec![ok().encode()],
            Answer::Rows(rows) => rows.encode(),
            Answer::Err(error) => vec![Response::Err(error.clone()).encode()],
            Answer::GtidPosition { .. } | Answer::Kill(_) => Vec::new(),
        }
    }

    /// One row of one column.
    pub fn one(column: &str, value: &str) -> Answer {
        Answer::Rows(TextResult {
            columns: vec![column.to_owned()],
            rows: vec![vec![Some(value.as_bytes().to_vec())]],
        })
    }
}

/// OK.
pub fn ok() -> Response {
    Response::Ok(OkPacket { status: ehpc_proto::mysql::handshake::STATUS_AUTOCOMMIT, ..OkPacket::default() })
}

/// What the table needs to know of the moment.
#[derive(Clone, Copy, Debug)]
pub struct Now<'a> {
    /// The server's clock, seconds since 1970.
    pub unix: u64,
    /// As whom to answer.
    pub identity: &'a Identity,
    /// How events are summed where the replica may begin.
    pub checksum: Checksum,
    /// What is in the archive.
    pub state: &'a GtidState,
}

/// The answer to one query. Never an unbounded one, whatever the query.
pub fn answer(sql: &[u8], now: Now<'_>, wishes: &mut Wishes) -> Answer {
    let Ok(sql) = std::str::from_utf8(sql) else { return unknown("(not UTF-8)") };
    let sql = statement::trimmed(sql);
    let (verb, rest) = statement::split_word(sql);
    match verb.to_ascii_uppercase().as_str() {
        "SET" => set(rest, wishes),
        "SELECT" => select(rest, now).unwrap_or_else(|| unknown(sql)),
        "SHOW" => show(rest, now).unwrap_or_else(|| unknown(sql)),
        "KILL" => match rest.rsplit(' ').next().unwrap_or_default().parse() {
            Ok(number) => Answer::Kill(number),
            Err(_) => unknown(sql),
        },
        _ => unknown(sql),
    }
}

/// An error as a server says it.
pub fn error(code: u16, message: impl Into<String>) -> Answer {
    Answer::Err(ServerError::new(code, "HY000", message))
}

fn unknown(sql: &str) -> Answer {
    let short: String = sql.chars().take(200).collect();
    Answer::Err(ServerError::new(
        1235,
        "42000",
        format!("This is the binlog server of an archive: it answers replicas and does not support: {short}"),
    ))
}

fn set(text: &str, wishes: &mut Wishes) -> Answer {
    if statement::split_word(text).0.eq_ignore_ascii_case("NAMES") {
        return Answer::Ok;
    }
    let Some(assignments) = statement::assignments(text) else { return unknown(&format!("SET {text}")) };
    for (name, value) in assignments {
        let Some(variable) = name.strip_prefix('@').filter(|name| !name.starts_with('@')) else {
            return unknown(&format!("SET {text}"));
        };
        if let Err(refused) = keep(&variable.to_ascii_lowercase(), &value, wishes) {
            return refused;
        }
    }
    Answer::Ok
}

/// Variables of the user that mean something to a server that sends its log.
fn keep(variable: &str, value: &Value, wishes: &mut Wishes) -> Result<(), Answer> {
    let number = || match value {
        Value::Number(number) => Ok(*number),
        _ => Err(error(1231, format!("Variable '@{variable}' can't be set to this value"))),
    };
    let state = || match value {
        Value::Text(text) => text
            .parse::<MariaState>()
            .map_err(|fault: GtidFault| error(1941, format!("Could not parse GTID list: {fault}"))),
        _ => Err(error(1941, "Could not parse GTID list")),
    };
    match variable {
        "master_heartbeat_period" | "source_heartbeat_period" => {
            wishes.heartbeat = match number()? {
                0 => None,
                nanoseconds => Some(Duration::from_nanos(nanoseconds).clamp(HEARTBEAT_MIN, HEARTBEAT_MAX)),
            };
        }
        "master_binlog_checksum" | "source_binlog_checksum" => wishes.checksums = true,
        "mariadb_slave_capability" => wishes.capability = number()?.try_into().unwrap_or(u32::MAX),
        "slave_connect_state" => wishes.connect_state = Some(state()?),
        "slave_until_gtid" => wishes.until = Some(state()?),
        // Strictness is the archive's own; uuids and what is unknown mean nothing here.
        _ => {}
    }
    Ok(())
}

fn select(text: &str, now: Now<'_>) -> Option<Answer> {
    if let Some((file, position)) = statement::call_of(text, "binlog_gtid_pos") {
        return Some(Answer::GtidPosition { file, position });
    }
    let value = match text.to_ascii_lowercase().as_str() {
        "unix_timestamp()" => now.unix.to_string(),
        "@master_binlog_checksum" | "@source_binlog_checksum" | "@@global.binlog_checksum" => {
            now.checksum.name().to_owned()
        }
        "@@global.server_id" | "@@server_id" => now.identity.server_id.to_string(),
        "@@global.server_uuid" | "@@server_uuid" => now.identity.server_uuid.clone()?,
        "@@global.gtid_domain_id" => "0".to_owned(),
        "@@global.gtid_mode" if now.identity.flavor == Flavor::MySql => gtid_mode(now.state).to_owned(),
        "version()" | "@@version" => now.identity.version.clone(),
        "1" => "1".to_owned(),
        variable if variable.starts_with("@@") => {
            let name: String = variable.trim_start_matches("@@").chars().take(64).collect();
            return Some(error(1193, format!("Unknown system variable '{name}'")));
        }
        _ => return None,
    };
    Some(Answer::one(text, &value))
}

/// GTIDs are counted when any is in the archive.
fn gtid_mode(state: &GtidState) -> &'static str {
    if state.is_empty() { "OFF" } else { "ON" }
}

fn show(text: &str, now: Now<'_>) -> Option<Answer> {
    let mut words = text.split_whitespace().map(str::to_ascii_uppercase);
    let mut next = words.next()?;
    if next == "GLOBAL" {
        next = words.next()?;
    }
    if next != "VARIABLES" || words.next()? != "LIKE" {
        return None;
    }
    let (quoted, rest) = statement::quoted(text.find(['\'', '"']).map(|at| &text[at..])?)?;
    if !rest.trim().is_empty() {
        return None;
    }
    let name = quoted.to_ascii_lowercase();
    let value = match name.as_str() {
        "server_id" => Some(now.identity.server_id.to_string()),
        "server_uuid" => now.identity.server_uuid.clone(),
        "gtid_mode" if now.identity.flavor == Flavor::MySql => Some(gtid_mode(now.state).to_owned()),
        "version" => Some(now.identity.version.clone()),
        // Semi-synchronous replication and everything else: not here. The replica goes on without.
        _ => None,
    };
    let rows = value.map(|value| vec![Some(name.clone().into_bytes()), Some(value.into_bytes())]);
    Some(Answer::Rows(TextResult {
        columns: vec!["Variable_name".to_owned(), "Value".to_owned()],
        rows: rows.into_iter().collect(),
    }))
}

#[cfg(test)]
#[path = "answers_tests.rs"]
mod tests;
