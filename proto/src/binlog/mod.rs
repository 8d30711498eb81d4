//! Binary logs of MySQL and MariaDB: event headers, the few bodies that matter, GTIDs, transaction borders.
//!
//! Source: "Replication Protocol" of MariaDB's knowledge base and the "Binary Log" chapters of MySQL's internals manual.

pub mod build;
pub mod event;
pub mod format;
pub mod groups;
pub mod gtid;
pub mod header;
pub mod mysql_set;
pub mod scan;

#[cfg(test)]
mod file_tests;
#[cfg(test)]
mod gtid_tests;
#[cfg(test)]
mod random_tests;

pub use event::{
    BodyFault, GtidList, MariaGtid, MySqlGtidEvent, Query, Rotate, XaPrepare, Xid, is_file_name,
};
pub use format::{Checksum, Flavor, FormatDescription, FormatFault};
pub use groups::{Group, GroupFault, GroupKind, Grouper};
pub use gtid::{GroupGtid, Gtid, GtidFault, GtidState, MariaState, MySqlGtid};
pub use header::{EventHeader, HeaderFault, Kind};
pub use mysql_set::MySqlSet;
pub use scan::{Event, FileScan, ScanFault};
