//! What a client asks of a server: queries, and the commands of a replica.
//!
//! Source: "Replication Protocol" of MariaDB's knowledge base; `COM_BINLOG_DUMP_GTID` and the acknowledgement from MySQL's
//! internals manual. A replica that asks by GTID speaks `SET @slave_connect_state` and `COM_BINLOG_DUMP` to MariaDB, and
//! `COM_BINLOG_DUMP_GTID` to MySQL.

use super::fields::{Fields, put_short_string, text};
use crate::codec::DecodeError;

/// Longest name of a binlog file.
pub const MAX_FILE_NAME: usize = 255;
/// Flag of a dump: at the end of the last file answer EOF, do not wait for more.
pub const DUMP_NON_BLOCK: u16 = 1;
/// Flag of a dump from MariaDB: send ANNOTATE_ROWS events too.
pub const DUMP_ANNOTATE: u16 = 2;
/// Flag of a dump by GTID: the set is meant, not file and position.
pub const DUMP_THROUGH_GTID: u16 = 4;

/// First byte of a semi-sync acknowledgement, and of each event that comes to a semi-sync replica.
pub const SEMI_SYNC_MAGIC: u8 = 0xef;

const QUIT: u8 = 0x01;
const QUERY: u8 = 0x03;
const PING: u8 = 0x0e;
const BINLOG_DUMP: u8 = 0x12;
const REGISTER: u8 = 0x15;
const BINLOG_DUMP_GTID: u8 = 0x1e;

/// A command: the payload of the packet with number 0.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// The client goes.
    Quit,
    /// Are you there?
    Ping,
    /// SQL. Bytes, because its character set is the connection's.
    Query(Vec<u8>),
    /// A replica says who it is.
    RegisterReplica(RegisterReplica),
    /// Send events from a place on.
    BinlogDump(BinlogDump),
    /// Send events that are not in a set (MySQL).
    BinlogDumpGtid(BinlogDumpGtid),
    /// One that a binlog server does not know; its number.
    Other(u8),
}

/// `COM_REGISTER_SLAVE`.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct RegisterReplica {
    /// The replica's own number.
    pub server_id: u32,
    /// `report_host` and the account; shown by SHOW SLAVE HOSTS. The password stays empty.
    pub host: String,
    /// `report_user`.
    pub user: String,
    /// `report_port`.
    pub port: u16,
}

/// `COM_BINLOG_DUMP`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BinlogDump {
    /// Where to begin; 4 is a file's start.
    pub position: u32,
    /// `DUMP_*`.
    pub flags: u16,
    /// The replica's number.
    pub server_id: u32,
    /// Name of the file; empty is the oldest one.
    pub file: String,
}

/// `COM_BINLOG_DUMP_GTID`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BinlogDumpGtid {
    /// `DUMP_*`.
    pub flags: u16,
    /// The replica's number.
    pub server_id: u32,
    /// Name of a file; usually empty.
    pub file: String,
    /// Where to begin in it; usually 4.
    pub position: u64,
    /// What the replica has, encoded as the body of a PREVIOUS_GTIDS event.
    pub set: Vec<u8>,
}

fn file_name(bytes: &[u8]) -> Result<String, DecodeError> {
    if bytes.len() > MAX_FILE_NAME {
        let (length, limit) = (bytes.len() as u64, MAX_FILE_NAME as u64);
        return Err(DecodeError::TooLong { what: "name of a binlog file", length, limit });
    }
    // One that is not text is none of ours.
    String::from_utf8(bytes.to_vec())
        .map_err(|_| DecodeError::Invalid { what: "name of a binlog file", value: bytes.len() as u64 })
}

impl Command {
    /// Reads a command. The packet's length was bounded by [`super::MAX_QUERY`].
    pub fn decode(payload: &[u8]) -> Result<Command, DecodeError> {
        let mut fields = Fields::new(payload);
        Ok(match fields.u8()? {
            QUIT => Command::Quit,
            PING => Command::Ping,
            QUERY => Command::Query(fields.all().to_vec()),
            REGISTER => Command::RegisterReplica(RegisterReplica::read(fields)?),
            BINLOG_DUMP => Command::BinlogDump(BinlogDump {
                position: fields.u32()?,
                flags: fields.u16()?,
                server_id: fields.u32()?,
                file: file_name(fields.all())?,
            }),
            BINLOG_DUMP_GTID => Command::BinlogDumpGtid(BinlogDumpGtid::read(fields)?),
            other => Command::Other(other),
        })
    }

    /// The packet's payload.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Command::Quit => vec![QUIT],
            Command::Ping => vec![PING],
            Command::Query(sql) => [&[QUERY], sql.as_slice()].concat(),
            Command::RegisterReplica(replica) => replica.write(),
            Command::BinlogDump(dump) => {
                let mut out = vec![BINLOG_DUMP];
                out.extend_from_slice(&dump.position.to_le_bytes());
                out.extend_from_slice(&dump.flags.to_le_bytes());
                out.extend_from_slice(&dump.server_id.to_le_bytes());
                out.extend_from_slice(dump.file.as_bytes());
                out
            }
            Command::BinlogDumpGtid(dump) => dump.write(),
            Command::Other(number) => vec![*number],
        }
    }

    /// A query.
    pub fn query(sql: &str) -> Command {
        Command::Query(sql.as_bytes().to_vec())
    }
}

impl RegisterReplica {
    fn read(mut fields: Fields<'_>) -> Result<RegisterReplica, DecodeError> {
        let server_id = fields.u32()?;
        let host = text(fields.short_string()?);
        let user = text(fields.short_string()?);
        let _password = fields.short_string()?;
        let port = fields.u16()?;
        let (_rank, _master) = (fields.u32()?, fields.u32()?);
        Ok(RegisterReplica { server_id, host, user, port })
    }

    fn write(&self) -> Vec<u8> {
        let mut out = vec![REGISTER];
        out.extend_from_slice(&self.server_id.to_le_bytes());
        put_short_string(&mut out, self.host.as_bytes());
        put_short_string(&mut out, self.user.as_bytes());
        put_short_string(&mut out, b"");
        out.extend_from_slice(&self.port.to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        out
    }
}

impl BinlogDumpGtid {
    fn read(mut fields: Fields<'_>) -> Result<BinlogDumpGtid, DecodeError> {
        let flags = fields.u16()?;
        let server_id = fields.u32()?;
        let length = fields.u32()?;
        if length as usize > MAX_FILE_NAME {
            let limit = MAX_FILE_NAME as u64;
            return Err(DecodeError::TooLong {
                what: "name of a binlog file",
                length: u64::from(length),
                limit,
            });
        }
        let file = file_name(fields.bytes(length as usize)?)?;
        let position = fields.u64()?;
        let set = if fields.rest().is_empty() {
            Vec::new()
        } else {
            let length = fields.u32()? as usize;
            fields.bytes(length)?.to_vec()
        };
        Ok(BinlogDumpGtid { flags, server_id, file, position, set })
    }

    fn write(&self) -> Vec<u8> {
        let mut out = vec![BINLOG_DUMP_GTID];
        out.extend_from_slice(&self.flags.to_le_bytes());
        out.extend_from_slice(&self.server_id.to_le_bytes());
        out.extend_from_slice(&(self.file.len() as u32).to_le_bytes());
        out.extend_from_slice(self.file.as_bytes());
        out.extend_from_slice(&self.position.to_le_bytes());
        out.extend_from_slice(&(self.set.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.set);
        out
    }
}

/// "Everything up to here is safe": what a semi-sync replica says, unasked, within the event stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SemiSyncAck {
    /// End of the last event that is safe.
    pub position: u64,
    /// The file it is in.
    pub file: String,
}

impl SemiSyncAck {
    /// Reads an acknowledgement.
    pub fn decode(payload: &[u8]) -> Result<SemiSyncAck, DecodeError> {
        let mut fields = Fields::new(payload);
        match fields.u8()? {
            SEMI_SYNC_MAGIC => {}
            other => return Err(DecodeError::Invalid { what: "acknowledgement", value: u64::from(other) }),
        }
        Ok(SemiSyncAck { position: fields.u64()?, file: file_name(fields.all())? })
    }

    /// The packet's payload; its number is 0.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![SEMI_SYNC_MAGIC];
        out.extend_from_slice(&self.position.to_le_bytes());
        out.extend_from_slice(self.file.as_bytes());
        out
    }
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
