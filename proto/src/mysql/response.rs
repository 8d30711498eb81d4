//! What a server answers: OK, ERR, EOF, more of the authentication, rows of text.
//!
//! Source: "OK_Packet", "ERR_Packet", "EOF_Packet", "Result Set Packets" and "Authentication Switch Request" of MariaDB's
//! knowledge base. `CLIENT_DEPRECATE_EOF` is never agreed on, so rows end with EOF.

use super::fields::{Fields, put_number, put_string, put_until_nul, text};
use super::{MAX_RESPONSE, MAX_ROWS};
use crate::codec::DecodeError;

const OK: u8 = 0x00;
const AUTH_MORE: u8 = 0x01;
const LOCAL_INFILE: u8 = 0xfb;
const EOF: u8 = 0xfe;
const ERR: u8 = 0xff;
/// Columns of an answer that is read.
const MAX_COLUMNS: u64 = 64;
/// Longest text of an error that is kept, bytes.
const MAX_MESSAGE: usize = 4096;

/// A server's error.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message} (error {code}, SQLSTATE {state})")]
pub struct ServerError {
    /// Number, e.g. 1236.
    pub code: u16,
    /// SQLSTATE, five characters; "HY000" where the server sent none.
    pub state: String,
    /// In the server's words.
    pub message: String,
}

impl ServerError {
    /// An error as a server says it; `state` is made five characters long.
    pub fn new(code: u16, state: &str, message: impl Into<String>) -> ServerError {
        ServerError { code, state: state.to_owned(), message: message.into() }
    }

    /// Reads an ERR packet.
    pub fn decode(payload: &[u8]) -> Result<ServerError, DecodeError> {
        let mut fields = Fields::new(payload);
        match fields.u8()? {
            ERR => {}
            other => return Err(DecodeError::Invalid { what: "error packet", value: u64::from(other) }),
        }
        let code = fields.u16()?;
        let mut state = "HY000".to_owned();
        if fields.rest().first() == Some(&b'#') && fields.rest().len() >= 6 {
            state = text(&fields.bytes(6)?[1..]);
        }
        let message = fields.all();
        Ok(ServerError { code, state, message: text(&message[..message.len().min(MAX_MESSAGE)]) })
    }

    /// The packet's payload. Before the login (`state` is then not understood) use [`ServerError::encode_greeting`].
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![ERR];
        out.extend_from_slice(&self.code.to_le_bytes());
        out.push(b'#');
        let mut state = [b'0'; 5];
        for (place, byte) in state.iter_mut().zip(self.state.bytes()) {
            *place = byte;
        }
        out.extend_from_slice(&state);
        out.extend_from_slice(self.message.as_bytes());
        out
    }

    /// The payload in place of a greeting: without SQLSTATE.
    pub fn encode_greeting(&self) -> Vec<u8> {
        let mut out = vec![ERR];
        out.extend_from_slice(&self.code.to_le_bytes());
        out.extend_from_slice(self.message.as_bytes());
        out
    }
}

/// What OK says.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct OkPacket {
    /// Rows that the statement touched.
    pub affected_rows: u64,
    /// `LAST_INSERT_ID()`.
    pub last_insert_id: u64,
    /// Status flags.
    pub status: u16,
    /// Warnings.
    pub warnings: u16,
}

/// An answer that is one packet.
#[derive(Clone, PartialEq, Eq)]
pub enum Response {
    /// Done.
    Ok(OkPacket),
    /// Refused.
    Err(ServerError),
    /// End of rows, or of a dump that does not wait.
    Eof,
    /// Use another authentication method.
    AuthSwitch {
        /// The method.
        method: String,
        /// Its challenge, as sent (some end with NUL).
        data: Vec<u8>,
    },
    /// The authentication method goes on.
    AuthMore(Vec<u8>),
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Response::Ok(_) => f.write_str("OK"),
            Response::Err(error) => write!(f, "{error:?}"),
            Response::Eof => f.write_str("EOF"),
            Response::AuthSwitch { method, .. } => write!(f, "AuthSwitch to {method}"),
            Response::AuthMore(data) => write!(f, "AuthMore of {} bytes", data.len()),
        }
    }
}

impl Response {
    /// Reads an answer during the login.
    pub fn decode_login(payload: &[u8]) -> Result<Response, DecodeError> {
        let mut fields = Fields::new(payload);
        match fields.u8()? {
            AUTH_MORE => Ok(Response::AuthMore(fields.all().to_vec())),
            EOF if payload.len() > 1 => {
                let method = text(fields.until_nul()?);
                Ok(Response::AuthSwitch { method, data: fields.all().to_vec() })
            }
            // One byte alone asks for the scramble of MySQL 3.23, which nobody gives.
            EOF => Ok(Response::AuthSwitch { method: "mysql_old_password".to_owned(), data: Vec::new() }),
            _ => Response::decode(payload),
        }
    }

    /// Reads an answer to a command that has no rows.
    pub fn decode(payload: &[u8]) -> Result<Response, DecodeError> {
        let mut fields = Fields::new(payload);
        match fields.u8()? {
            OK => {
                let (affected_rows, last_insert_id) = (fields.number()?, fields.number()?);
                let (status, warnings) = (fields.u16()?, fields.u16()?);
                Ok(Response::Ok(OkPacket { affected_rows, last_insert_id, status, warnings }))
            }
            EOF if payload.len() < 9 => Ok(Response::Eof),
            ERR => Ok(Response::Err(ServerError::decode(payload)?)),
            other => Err(DecodeError::Invalid { what: "answer", value: u64::from(other) }),
        }
    }

    /// The packet's payload.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Response::Ok(ok) => {
                let mut out = vec![OK];
                put_number(&mut out, ok.affected_rows);
                put_number(&mut out, ok.last_insert_id);
                out.extend_from_slice(&ok.status.to_le_bytes());
                out.extend_from_slice(&ok.warnings.to_le_bytes());
                out
            }
            Response::Err(error) => error.encode(),
            Response::Eof => {
                let [a, b] = super::handshake::STATUS_AUTOCOMMIT.to_le_bytes();
                vec![EOF, 0, 0, a, b]
            }
            Response::AuthSwitch { method, data } => {
                let mut out = vec![EOF];
                put_until_nul(&mut out, method.as_bytes());
                out.extend_from_slice(data);
                out
            }
            Response::AuthMore(data) => [&[AUTH_MORE], data.as_slice()].concat(),
        }
    }
}

/// Rows of text; `None` is NULL.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct TextResult {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// The rows, each as long as `columns`.
    pub rows: Vec<Vec<Option<Vec<u8>>>>,
}

/// Why an answer with rows could not be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RowsError {
    /// The server refused.
    #[error(transparent)]
    Refused(#[from] ServerError),
    /// Not as the protocol has it.
    #[error(transparent)]
    Damaged(#[from] DecodeError),
    /// More than is taken.
    #[error("the answer has more than {limit} {what}")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// How many are taken.
        limit: usize,
    },
    /// The server asks for a local file, which nobody gives.
    #[error("the server asks for a file of this host (LOAD DATA LOCAL)")]
    WantsFile,
}

#[derive(Debug)]
enum Expect {
    Count,
    Definition { left: u64 },
    DefinitionsEnd,
    Row,
}

/// Collects the packets of an answer with rows. An answer without rows (OK) is one without columns.
#[derive(Debug)]
pub struct TextRows {
    expect: Expect,
    result: TextResult,
    bytes: usize,
}

/// Bytes of all rows of an answer together.
const MAX_ALL_ROWS: usize = 16 * MAX_RESPONSE;

impl Default for TextRows {
    fn default() -> TextRows {
        TextRows { expect: Expect::Count, result: TextResult::default(), bytes: 0 }
    }
}

impl TextRows {
    /// Before the first packet.
    pub fn new() -> TextRows {
        TextRows::default()
    }

    /// Takes the next packet; the whole answer with the last one.
    pub fn received(&mut self, payload: &[u8]) -> Result<Option<TextResult>, RowsError> {
        if payload.first() == Some(&ERR) {
            return Err(ServerError::decode(payload)?.into());
        }
        let ends = payload.first() == Some(&EOF) && payload.len() < 9;
        let mut fields = Fields::new(payload);
        match self.expect {
            Expect::Count => match payload.first() {
                Some(&OK) => return Ok(Some(TextResult::default())),
                Some(&LOCAL_INFILE) => return Err(RowsError::WantsFile),
                _ => {
                    let left = fields.number()?;
                    if left > MAX_COLUMNS {
                        return Err(RowsError::TooMuch { what: "columns", limit: MAX_COLUMNS as usize });
                    }
                    self.expect = Expect::Definition { left };
                }
            },
            Expect::Definition { left } => {
                for _catalog_schema_table_original in 0..4 {
                    fields.string()?;
                }
                self.result.columns.push(text(fields.string()?));
                self.expect =
                    if left > 1 { Expect::Definition { left: left - 1 } } else { Expect::DefinitionsEnd };
            }
            Expect::DefinitionsEnd if ends => self.expect = Expect::Row,
            Expect::DefinitionsEnd => {
                let value = u64::from(payload.first().copied().unwrap_or_default());
                return Err(DecodeError::Invalid { what: "end of column definitions", value }.into());
            }
            Expect::Row if ends => return Ok(Some(std::mem::take(&mut self.result))),
            Expect::Row => self.row(payload)?,
        }
        Ok(None)
    }

    fn row(&mut self, payload: &[u8]) -> Result<(), RowsError> {
        self.bytes += payload.len();
        if self.result.rows.len() >= MAX_ROWS {
            return Err(RowsError::TooMuch { what: "rows", limit: MAX_ROWS });
        }
        if self.bytes > MAX_ALL_ROWS {
            return Err(RowsError::TooMuch { what: "bytes", limit: MAX_ALL_ROWS });
        }
        let mut fields = Fields::new(payload);
        let mut row = Vec::with_capacity(self.result.columns.len());
        for _ in &self.result.columns {
            row.push(if fields.rest().first() == Some(&LOCAL_INFILE) {
                fields.u8()?;
                None
            } else {
                Some(fields.string()?.to_vec())
            });
        }
        self.result.rows.push(row);
        Ok(())
    }
}

impl TextResult {
    /// The value of the first row's first column, when there is one.
    pub fn single(&self) -> Option<&[u8]> {
        self.rows.first()?.first()?.as_deref()
    }

    /// The packets' payloads that say this. At most 64 columns.
    pub fn encode(&self) -> Vec<Vec<u8>> {
        let mut packets = Vec::with_capacity(self.columns.len() + self.rows.len() + 3);
        let mut count = Vec::new();
        put_number(&mut count, self.columns.len() as u64);
        packets.push(count);
        for name in &self.columns {
            let mut out = Vec::new();
            put_string(&mut out, b"def");
            for part in ["", "", "", name, ""] {
                put_string(&mut out, part.as_bytes());
            }
            // Fixed fields: their length, collation utf8mb4_general_ci, width, type VAR_STRING, flags, decimals.
            out.extend_from_slice(&[
                0x0c,
                super::handshake::CHARSET_UTF8MB4,
                0,
                0,
                4,
                0,
                0,
                0xfd,
                0,
                0,
                0x1f,
                0,
                0,
            ]);
            packets.push(out);
        }
        packets.push(Response::Eof.encode());
        for row in &self.rows {
            let mut out = Vec::new();
            for value in row {
                match value {
                    Some(value) => put_string(&mut out, value),
                    None => out.push(LOCAL_INFILE),
                }
            }
            packets.push(out);
        }
        packets.push(Response::Eof.encode());
        packets
    }
}

#[cfg(test)]
#[path = "response_tests.rs"]
mod tests;
