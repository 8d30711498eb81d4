//! What a server says of itself and its binary log.

use super::fault::{Blame, SourceFault};
use crate::database::sql::{Sql, SqlError};
use ehpc_proto::binlog::gtid::parse_uuid;
use ehpc_proto::binlog::{Flavor, GtidState};

/// A server's account of its binary log.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Whose dialect it speaks.
    pub flavor: Flavor,
    /// `@@server_id`.
    pub server_id: u32,
    /// `@@server_uuid` (MySQL).
    pub server_uuid: Option<[u8; 16]>,
    /// `@@version`.
    pub version: String,
    /// GTID state at the end of its log.
    pub gtid: GtidState,
}

impl Facts {
    /// Asks.
    ///
    /// # Errors
    ///
    /// No privilege, no binary log, no answer.
    pub async fn ask(sql: &mut Sql, blame: &Blame) -> Result<Facts, SourceFault> {
        let fault = |error: SqlError| blame.sql(error);
        let mariadb = sql.dialect().is_mariadb();
        let flavor = if mariadb { Flavor::MariaDb } else { Flavor::MySql };
        let names = if mariadb {
            "@@GLOBAL.gtid_binlog_pos, @@GLOBAL.encrypt_binlog"
        } else {
            "@@GLOBAL.gtid_executed, 0"
        };
        let question = format!("SELECT @@GLOBAL.server_id, @@version, @@GLOBAL.log_bin, {names}");
        let row = sql.row(&question).await.map_err(fault)?;
        let row = row.ok_or_else(|| blame.lost("no answer to a SELECT of variables"))?;
        let server = blame.server.clone();
        if row.number(2) == Some(0) {
            return Err(SourceFault::NoBinaryLog { server });
        }
        if row.number(4) == Some(1) {
            return Err(SourceFault::Encrypted { server });
        }
        let uuid =
            if mariadb { None } else { sql.text("SELECT @@GLOBAL.server_uuid").await.map_err(fault)? };
        let gtid = GtidState::parse(flavor, &row.string(3).replace('\n', ""))
            .map_err(|error| blame.lost(format!("its GTID state cannot be read: {error}")))?;
        let server_id = row.number(0).and_then(|id| u32::try_from(id).ok()).unwrap_or(0);
        let server_uuid = uuid.as_deref().and_then(parse_uuid);
        Ok(Facts { flavor, server_id, server_uuid, version: row.string(1), gtid })
    }
}
