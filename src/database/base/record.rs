//! What is known of a base snapshot, kept beside it (as JSON, so that a person can read it without this program).

use crate::database::server::Flavor;
use crate::database::sql::quote_table;
use ehpc_proto::binlog::Xid;
use ehpc_proto::replication::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A place in the server's own binary log, as the server names it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LogPlace {
    /// File name.
    pub file: String,
    /// Bytes of it before the place.
    pub offset: u64,
}

/// A base snapshot: everything that the server held at one place of its binary log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BaseRecord {
    /// 1, 2, 3, ..: the batch of the store that holds it.
    pub number: u64,
    /// Given by a person; a base with a label is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// When the snapshot was opened, by this product's clock.
    pub taken_at: Timestamp,
    /// When it was complete.
    pub finished_at: Timestamp,
    /// Whose server.
    pub flavor: Flavor,
    /// `@@server_id`.
    pub server_id: u32,
    /// `@@version`.
    pub version: String,
    /// Lineage of the archive that `place` is in; 0: not known when it was taken.
    pub lineage: u32,
    /// Everything committed before it is in the base, nothing after it.
    pub place: LogPlace,
    /// The same as a GTID state; empty without GTIDs.
    pub gtid: String,
    /// Where the binary log stood before `prepared` was asked: a branch that was prepared later has its XA PREPARE after
    /// it.
    pub before: LogPlace,
    /// Branches of distributed transactions that were prepared then, and not yet ended: none of their rows is in the base.
    pub prepared: Vec<Branch>,
    /// The tables in it.
    pub tables: Vec<TableRecord>,
    /// Of them those whose earlier rows (`WITH SYSTEM VERSIONING`) are not in it: the dump program could not read them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacks_history: Vec<String>,
    /// Sums of the tables at a place soon after; `None` when they were not wanted or could not be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sums: Option<Sums>,
    /// Bytes of SQL.
    pub bytes: u64,
    /// Where in them the accounts are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accounts: Option<AccountsAt>,
    /// Bytes of it that the store did not have.
    pub new_bytes: u64,
    /// The program that made it, with its version.
    pub tool: String,
}

/// Where in a base's SQL accounts and privileges are made: before the data those that it needs, after it all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct AccountsAt {
    /// The first ones are before this byte.
    pub early: u64,
    /// All are from this byte on.
    pub late: u64,
}

/// The name of a branch: three parts, as XA RECOVER tells it. Bytes as hexadecimal text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Branch {
    /// `formatID`.
    pub format: u32,
    /// Global part.
    pub gtrid: String,
    /// Branch qualifier.
    pub bqual: String,
}

impl Branch {
    /// Out of its bytes.
    pub fn of(format: u32, gtrid: &[u8], bqual: &[u8]) -> Branch {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Branch { format, gtrid: hex(gtrid), bqual: hex(bqual) }
    }

    /// Its bytes: global part, qualifier.
    pub fn bytes(&self) -> (Vec<u8>, Vec<u8>) {
        let bytes = |hex: &str| {
            let digits: Vec<u8> =
                hex.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
            digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
        };
        (bytes(&self.gtrid), bytes(&self.bqual))
    }

    /// As statements name it: `x'6162',x'63',1`.
    pub fn sql(&self) -> String {
        format!("x'{}',x'{}',{}", self.gtrid, self.bqual, self.format)
    }

    /// Is it the one that the binary log names so?
    pub fn is(&self, xid: &Xid) -> bool {
        *self == Branch::of(xid.format, &xid.gtrid, &xid.bqual)
    }
}

/// A table as it was when the base began.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TableRecord {
    /// Database.
    pub schema: String,
    /// Table, sequence or view.
    pub name: String,
    /// As information_schema has it: BASE TABLE, VIEW, SEQUENCE, SYSTEM VERSIONED.
    pub kind: String,
    /// Its engine; empty for a view.
    pub engine: String,
}

impl fmt::Display for TableRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quote_table(&self.schema, &self.name))
    }
}

impl TableRecord {
    /// Is what the dump holds of it exactly the state at the base's place? Only transactional engines have snapshots.
    pub fn is_exact(&self) -> bool {
        self.kind == "VIEW"
            || self.engine.eq_ignore_ascii_case("InnoDB")
            || self.engine.eq_ignore_ascii_case("RocksDB")
    }
}

/// What tables held at one place of the binary log.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Sums {
    /// The place.
    pub place: LogPlace,
    /// The same as a GTID state; empty without GTIDs.
    pub gtid: String,
    /// One for each table; what could not be summed is left out.
    pub tables: Vec<TableSum>,
}

/// What one table held.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TableSum {
    /// Database.
    pub schema: String,
    /// Table.
    pub name: String,
    /// `COUNT(*)`.
    pub rows: u64,
    /// `CHECKSUM TABLE`: 32 bits.
    pub checksum: u64,
}
