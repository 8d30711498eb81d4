//! The events that a server makes for a connection: they stand in no file.
//!
//! Source: MySQL internals manual, "COM_BINLOG_DUMP"; MariaDB's `sql/sql_repl.cc` (`fake_rotate_event`,
//! `send_heartbeat_event`, `send_fake_gtid_list`).

use super::event::GtidList;
use super::format::Checksum;
use super::gtid::Gtid;
use super::header::{EventHeader, FLAG_ARTIFICIAL, Kind};

/// An event of these parts, summed.
fn event(kind: Kind, server_id: u32, log_pos: u32, body: &[u8], checksum: Checksum) -> Vec<u8> {
    let size = (EventHeader::LEN + body.len() + checksum.len()) as u32;
    let header = EventHeader { timestamp: 0, kind, server_id, size, log_pos, flags: FLAG_ARTIFICIAL };
    let mut bytes = [&header.encode()[..], body].concat();
    if checksum == Checksum::Crc32 {
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    }
    bytes
}

/// What follows stands in `file` from `position` on.
pub fn fake_rotate(server_id: u32, file: &str, position: u64, checksum: Checksum) -> Vec<u8> {
    event(Kind::ROTATE, server_id, 0, &[&position.to_le_bytes()[..], file.as_bytes()].concat(), checksum)
}

/// Nothing happened: `file` still ends at `position` (modulo 2^32 on the wire).
pub fn heartbeat(server_id: u32, file: &str, position: u64, checksum: Checksum) -> Vec<u8> {
    event(Kind::HEARTBEAT, server_id, position as u32, file.as_bytes(), checksum)
}

/// Where a replica stands that started by GTID; with `until_reached` it has all that it asked for. `log_pos` is the
/// offset in the file at which the list is sent (modulo 2^32 on the wire), 0 when that is not said.
pub fn gtid_list(
    server_id: u32,
    gtids: &[Gtid],
    until_reached: bool,
    log_pos: u64,
    checksum: Checksum,
) -> Vec<u8> {
    let until = if until_reached { GtidList::UNTIL_REACHED } else { 0 };
    let mut body = (gtids.len() as u32 & GtidList::COUNT_MASK | until).to_le_bytes().to_vec();
    for gtid in gtids {
        body.extend_from_slice(&gtid.domain.to_le_bytes());
        body.extend_from_slice(&gtid.server.to_le_bytes());
        body.extend_from_slice(&gtid.seq.to_le_bytes());
    }
    if gtids.is_empty() {
        body.extend_from_slice(&[0; 2]); // as the server pads it
    }
    event(Kind::GTID_LIST, server_id, log_pos as u32, &body, checksum)
}
