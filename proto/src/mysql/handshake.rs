//! How a connection begins: the server's greeting, the client's wish for TLS, the client's login.
//!
//! Source: "Connection" of MariaDB's knowledge base (protocol version 10, HandshakeResponse41).

use super::fields::{Fields, put_number, put_short_string, put_string, put_until_nul, text};
use super::response::ServerError;
use crate::codec::DecodeError;

/// Capability bits, `CLIENT_*` in the manuals. The lower 32; MariaDB's own upper ones are not used.
#[allow(missing_docs)]
pub mod capability {
    /// MariaDB reads this bit as CLIENT_MYSQL: whoever sets it does not speak MariaDB's extended bits.
    pub const LONG_PASSWORD: u32 = 1;
    pub const LONG_FLAG: u32 = 1 << 2;
    pub const CONNECT_WITH_DB: u32 = 1 << 3;
    pub const PROTOCOL_41: u32 = 1 << 9;
    pub const SSL: u32 = 1 << 11;
    pub const TRANSACTIONS: u32 = 1 << 13;
    pub const SECURE_CONNECTION: u32 = 1 << 15;
    pub const MULTI_STATEMENTS: u32 = 1 << 16;
    pub const MULTI_RESULTS: u32 = 1 << 17;
    pub const PLUGIN_AUTH: u32 = 1 << 19;
    pub const CONNECT_ATTRS: u32 = 1 << 20;
    pub const PLUGIN_AUTH_LENENC: u32 = 1 << 21;
    pub const DEPRECATE_EOF: u32 = 1 << 24;
}

/// `SERVER_STATUS_AUTOCOMMIT`: what a server without transactions in progress says of itself.
pub const STATUS_AUTOCOMMIT: u16 = 2;
/// utf8mb4_general_ci, which every server since 5.5 knows.
pub const CHARSET_UTF8MB4: u8 = 45;
/// Bytes of an [`SslRequest`].
pub const SSL_REQUEST: usize = 32;

/// A server's first packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Greeting {
    /// As the server writes it: "5.5.5-10.11.6-MariaDB-log" (older MariaDB puts "5.5.5-" in front), "8.0.36".
    pub version: String,
    /// `CONNECTION_ID()`.
    pub connection_id: u32,
    /// The challenge, without its closing NUL: 20 bytes.
    pub seed: Vec<u8>,
    /// What the server can do.
    pub capabilities: u32,
    /// Number of its collation.
    pub charset: u8,
    /// Status flags.
    pub status: u16,
    /// The authentication method that the challenge is for, e.g. "mysql_native_password".
    pub method: String,
}

impl Greeting {
    /// Reads the first packet. A server that refuses at once (too many connections, host blocked) sends an error in its
    /// place.
    pub fn decode(payload: &[u8]) -> Result<Result<Greeting, ServerError>, DecodeError> {
        let mut fields = Fields::new(payload);
        match fields.u8()? {
            10 => {}
            0xff => return Ok(Err(ServerError::decode(payload)?)),
            other => {
                return Err(DecodeError::Invalid { what: "protocol version (10)", value: u64::from(other) });
            }
        }
        let version = text(fields.until_nul()?);
        let connection_id = fields.u32()?;
        let mut seed = fields.bytes(8)?.to_vec();
        fields.u8()?;
        let low = u32::from(fields.u16()?);
        let charset = fields.u8()?;
        let status = fields.u16()?;
        let capabilities = low | u32::from(fields.u16()?) << 16;
        let seed_length = fields.u8()?;
        fields.bytes(10)?;
        if capabilities & capability::SECURE_CONNECTION != 0 {
            let second = usize::from(seed_length.saturating_sub(8)).max(13).min(fields.rest().len());
            let second = fields.bytes(second)?;
            seed.extend_from_slice(second.strip_suffix(&[0]).unwrap_or(second));
        }
        let method = if capabilities & capability::PLUGIN_AUTH != 0 {
            // Some servers (5.5.7 to 5.5.9) leave out the NUL at the end.
            text(fields.all().split(|byte| *byte == 0).next().unwrap_or_default())
        } else {
            "mysql_native_password".to_owned()
        };
        Ok(Ok(Greeting { version, connection_id, seed, capabilities, charset, status, method }))
    }

    /// The packet's payload. The seed should be 20 bytes without NUL.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![10];
        put_until_nul(&mut out, self.version.as_bytes());
        out.extend_from_slice(&self.connection_id.to_le_bytes());
        let (first, second) = self.seed.split_at(self.seed.len().min(8));
        out.extend_from_slice(first);
        out.resize(out.len() + 8 - first.len(), 0);
        out.push(0);
        let capabilities = self.capabilities.to_le_bytes();
        out.extend_from_slice(&capabilities[..2]);
        out.push(self.charset);
        out.extend_from_slice(&self.status.to_le_bytes());
        out.extend_from_slice(&capabilities[2..]);
        out.push(u8::try_from(8 + second.len() + 1).unwrap_or(u8::MAX));
        out.extend_from_slice(&[0; 10]);
        out.extend_from_slice(second);
        out.resize(out.len() + 12usize.saturating_sub(second.len()), 0);
        out.push(0);
        put_until_nul(&mut out, self.method.as_bytes());
        out
    }
}

/// "TLS first": the login's first 32 bytes, sent alone before the TLS handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SslRequest {
    /// What the client can do, [`capability::SSL`] among it.
    pub capabilities: u32,
    /// Largest packet that the client takes.
    pub max_packet: u32,
    /// Number of its collation.
    pub charset: u8,
}

impl SslRequest {
    /// The request, when this is one; a login otherwise.
    pub fn decode(payload: &[u8]) -> Option<SslRequest> {
        if payload.len() != SSL_REQUEST {
            return None;
        }
        let mut fields = Fields::new(payload);
        let capabilities = fields.u32().ok()?;
        let (max_packet, charset) = (fields.u32().ok()?, fields.u8().ok()?);
        (capabilities & capability::SSL != 0).then_some(SslRequest { capabilities, max_packet, charset })
    }

    /// The packet's payload.
    pub fn encode(&self) -> Vec<u8> {
        prefix(self.capabilities | capability::SSL, self.max_packet, self.charset)
    }
}

fn prefix(capabilities: u32, max_packet: u32, charset: u8) -> Vec<u8> {
    let mut out = Vec::with_capacity(SSL_REQUEST);
    out.extend_from_slice(&capabilities.to_le_bytes());
    out.extend_from_slice(&max_packet.to_le_bytes());
    out.push(charset);
    out.resize(SSL_REQUEST, 0);
    out
}

/// A client's login.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// What the client can do; says which of the fields below are there.
    pub capabilities: u32,
    /// Largest packet that the client takes.
    pub max_packet: u32,
    /// Number of its collation.
    pub charset: u8,
    /// Account name.
    pub user: String,
    /// The answer to the challenge, for `method`.
    pub answer: Vec<u8>,
    /// Default database; with `CONNECT_WITH_DB`.
    pub database: Option<String>,
    /// Authentication method; with `PLUGIN_AUTH`.
    pub method: Option<String>,
    /// Names and values of what the client says of itself; with `CONNECT_ATTRS`.
    pub attributes: Vec<(String, String)>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The answer may be a password.
        f.debug_struct("Login")
            .field("user", &self.user)
            .field("method", &self.method)
            .field("capabilities", &format_args!("{:#010x}", self.capabilities))
            .field("attributes", &self.attributes)
            .finish_non_exhaustive()
    }
}

impl Login {
    /// Reads a login (not an [`SslRequest`]).
    pub fn decode(payload: &[u8]) -> Result<Login, DecodeError> {
        let mut fields = Fields::new(payload);
        let capabilities = fields.u32()?;
        if capabilities & capability::PROTOCOL_41 == 0 {
            return Err(DecodeError::Invalid {
                what: "login of protocol 4.1",
                value: u64::from(capabilities),
            });
        }
        let max_packet = fields.u32()?;
        let charset = fields.u8()?;
        fields.bytes(23)?;
        let user = text(fields.until_nul()?);
        let has = |bit: u32| capabilities & bit != 0;
        let answer = if has(capability::PLUGIN_AUTH_LENENC) {
            fields.string()?
        } else if has(capability::SECURE_CONNECTION) {
            fields.short_string()?
        } else {
            fields.until_nul()?
        };
        let mut login = Login {
            capabilities,
            max_packet,
            charset,
            user,
            answer: answer.to_vec(),
            database: None,
            method: None,
            attributes: Vec::new(),
        };
        if has(capability::CONNECT_WITH_DB) {
            login.database = Some(text(fields.until_nul()?));
        }
        if has(capability::PLUGIN_AUTH) {
            login.method = Some(text(fields.until_nul()?));
        }
        if has(capability::CONNECT_ATTRS) && !fields.rest().is_empty() {
            let mut pairs = Fields::new(fields.string()?);
            while !pairs.rest().is_empty() {
                login.attributes.push((text(pairs.string()?), text(pairs.string()?)));
            }
        }
        Ok(login)
    }

    /// The packet's payload. `capabilities` decides what is written; an answer over 255 bytes needs
    /// [`capability::PLUGIN_AUTH_LENENC`].
    pub fn encode(&self) -> Vec<u8> {
        let has = |bit: u32| self.capabilities & bit != 0;
        let mut out = prefix(self.capabilities, self.max_packet, self.charset);
        put_until_nul(&mut out, self.user.as_bytes());
        if has(capability::PLUGIN_AUTH_LENENC) {
            put_string(&mut out, &self.answer);
        } else if has(capability::SECURE_CONNECTION) {
            put_short_string(&mut out, &self.answer);
        } else {
            put_until_nul(&mut out, &self.answer);
        }
        if has(capability::CONNECT_WITH_DB) {
            put_until_nul(&mut out, self.database.as_deref().unwrap_or_default().as_bytes());
        }
        if has(capability::PLUGIN_AUTH) {
            put_until_nul(&mut out, self.method.as_deref().unwrap_or_default().as_bytes());
        }
        if has(capability::CONNECT_ATTRS) {
            let mut pairs = Vec::new();
            for (name, value) in &self.attributes {
                put_string(&mut pairs, name.as_bytes());
                put_string(&mut pairs, value.as_bytes());
            }
            put_number(&mut out, pairs.len() as u64);
            out.extend_from_slice(&pairs);
        }
        out
    }
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
