//! Which database server it is, and what it calls things: one table of the variables, statements and columns that
//! differ between MariaDB, MySQL up to 5.7, and MySQL 8 (which renames master and slave, version by version).
//!
//! Sources: MariaDB knowledge base "Replication and Binary Log System Variables", "Semisynchronous Replication";
//! MySQL 5.6, 5.7, 8.0 and 8.4 reference manuals, "Replication and Binary Logging Options and Variables", "What Is
//! New". MariaDB 10.11 and MySQL 5.6 are tried; MySQL 5.7 and later are written from the manuals only.

use std::fmt;

/// A server's version.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Version {
    /// First number.
    pub major: u16,
    /// Second number.
    pub minor: u16,
    /// Third number.
    pub patch: u16,
}

impl Version {
    /// A version of three numbers.
    pub const fn new(major: u16, minor: u16, patch: u16) -> Version {
        Version { major, minor, patch }
    }

    /// Reads the numbers at the start of `10.11.19-MariaDB-log`, `8.0.36`.
    pub fn parse(text: &str) -> Option<Version> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let mut numbers = text[..end].split('.').map(|number| number.parse::<u16>().ok());
        let major = numbers.next()??;
        let minor = numbers.next()??;
        Some(Version { major, minor, patch: numbers.next().flatten().unwrap_or(0) })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// A server that we speak with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    /// MariaDB, from 10.1 on.
    MariaDb(Version),
    /// MySQL and what is compatible with it (Percona Server), from 5.6 on.
    MySql(Version),
}

/// A server that is not spoken with.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum DialectError {
    #[error("the server calls itself `{0}`, which is not a version of MySQL or MariaDB")]
    Unreadable(String),
    #[error("{0} is too old; MariaDB 10.1 and MySQL 5.6 are the oldest that work")]
    Old(String),
}

/// Names of semi-synchronous replication on the side that commits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SemiSync {
    /// Variable: whether it waits.
    pub enabled: &'static str,
    /// Variable: milliseconds until it goes on without an acknowledgement.
    pub timeout: &'static str,
    /// Variable: before or after the engine's commit; MySQL 5.6 has none.
    pub wait_point: Option<&'static str>,
    /// Status: `ON` while it waits.
    pub status: &'static str,
    /// Status: connections that acknowledge.
    pub clients: &'static str,
    /// Status: commits that were acknowledged.
    pub acknowledged: &'static str,
    /// Status: commits that were not waited for.
    pub missed: &'static str,
    /// Statement that loads it, where it is a plugin.
    pub install: Option<&'static str>,
    /// The same as a line of the configuration file.
    pub install_cnf: Option<&'static str>,
}

/// Columns of the answer to [`Dialect::replica_status`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplicaColumns {
    /// `Yes`, `No`, `Connecting`.
    pub io_running: &'static str,
    /// `Yes`, `No`.
    pub sql_running: &'static str,
    /// File at the source up to which is applied.
    pub applied_file: &'static str,
    /// Position in it.
    pub applied_position: &'static str,
    /// Source's host.
    pub host: &'static str,
}

const MARIADB_SEMI_SYNC: SemiSync = SemiSync {
    enabled: "rpl_semi_sync_master_enabled",
    timeout: "rpl_semi_sync_master_timeout",
    wait_point: Some("rpl_semi_sync_master_wait_point"),
    status: "Rpl_semi_sync_master_status",
    clients: "Rpl_semi_sync_master_clients",
    acknowledged: "Rpl_semi_sync_master_yes_tx",
    missed: "Rpl_semi_sync_master_no_tx",
    install: None,
    install_cnf: None,
};

const OLD_REPLICA: ReplicaColumns = ReplicaColumns {
    io_running: "Slave_IO_Running",
    sql_running: "Slave_SQL_Running",
    applied_file: "Relay_Master_Log_File",
    applied_position: "Exec_Master_Log_Pos",
    host: "Master_Host",
};

const NEW_REPLICA: ReplicaColumns = ReplicaColumns {
    io_running: "Replica_IO_Running",
    sql_running: "Replica_SQL_Running",
    applied_file: "Relay_Source_Log_File",
    applied_position: "Exec_Source_Log_Pos",
    host: "Source_Host",
};

impl Dialect {
    /// From `@@version` and `@@version_comment`.
    pub fn detect(version: &str, comment: &str) -> Result<Dialect, DialectError> {
        let lower = format!("{version} {comment}").to_ascii_lowercase();
        // Servers for old replicas say `5.5.5-10.11.19-MariaDB`.
        let numbers = version.strip_prefix("5.5.5-").filter(|_| lower.contains("mariadb")).unwrap_or(version);
        let number = Version::parse(numbers).ok_or_else(|| DialectError::Unreadable(version.to_owned()))?;
        let dialect = match lower.contains("mariadb") {
            true => Dialect::MariaDb(number),
            false => Dialect::MySql(number),
        };
        let oldest = match dialect {
            Dialect::MariaDb(_) => Version::new(10, 1, 0),
            Dialect::MySql(_) => Version::new(5, 6, 0),
        };
        if number < oldest { Err(DialectError::Old(dialect.to_string())) } else { Ok(dialect) }
    }

    /// Its version.
    pub fn version(self) -> Version {
        match self {
            Dialect::MariaDb(version) | Dialect::MySql(version) => version,
        }
    }

    /// Whether it is MariaDB.
    pub fn is_mariadb(self) -> bool {
        matches!(self, Dialect::MariaDb(_))
    }

    /// MySQL from this version on.
    fn mysql_from(self, major: u16, minor: u16, patch: u16) -> bool {
        matches!(self, Dialect::MySql(version) if version >= Version::new(major, minor, patch))
    }

    /// MariaDB from this version on.
    fn mariadb_from(self, major: u16, minor: u16, patch: u16) -> bool {
        matches!(self, Dialect::MariaDb(version) if version >= Version::new(major, minor, patch))
    }

    /// Tells the newest place of the binary log: columns `File`, `Position`.
    pub fn binary_log_status(self) -> &'static str {
        match self.mysql_from(8, 2, 0) {
            true => "SHOW BINARY LOG STATUS",
            false => "SHOW MASTER STATUS",
        }
    }

    /// Tells how a replica stands, one row a connection (channel).
    pub fn replica_status(self) -> &'static str {
        match self {
            Dialect::MariaDb(_) => "SHOW ALL SLAVES STATUS",
            _ if self.mysql_from(8, 0, 22) => "SHOW REPLICA STATUS",
            _ => "SHOW SLAVE STATUS",
        }
    }

    /// The columns of that answer.
    pub fn replica_columns(self) -> ReplicaColumns {
        if self.mysql_from(8, 0, 22) { NEW_REPLICA } else { OLD_REPLICA }
    }

    /// Starts a replica's threads.
    pub fn start_replica(self) -> &'static str {
        if self.mysql_from(8, 0, 22) { "START REPLICA" } else { "START SLAVE" }
    }

    /// Stops a replica's threads; it returns when they have ended, at a transaction's end.
    pub fn stop_replica(self) -> &'static str {
        if self.mysql_from(8, 0, 22) { "STOP REPLICA" } else { "STOP SLAVE" }
    }

    /// Starts a replica that stops behind this place of the source's log.
    pub fn start_replica_until_position(self, file: &str, position: u64) -> String {
        let file = super::sql::quote_text(file);
        match self.mysql_from(8, 0, 22) {
            true => format!("START REPLICA UNTIL SOURCE_LOG_FILE = {file}, SOURCE_LOG_POS = {position}"),
            false => format!("START SLAVE UNTIL MASTER_LOG_FILE = {file}, MASTER_LOG_POS = {position}"),
        }
    }

    /// Starts a replica that stops behind these transactions: MariaDB's GTID position, or MySQL's set of GTIDs.
    pub fn start_replica_until_gtid(self, gtid: &str) -> String {
        let gtid = super::sql::quote_text(gtid);
        match self {
            Dialect::MariaDb(_) => format!("START SLAVE UNTIL master_gtid_pos = {gtid}"),
            Dialect::MySql(_) => format!("{} UNTIL SQL_AFTER_GTIDS = {gtid}", self.start_replica()),
        }
    }

    /// Forgets the source that a replica followed.
    pub fn reset_replica(self) -> &'static str {
        if self.mysql_from(8, 0, 22) { "RESET REPLICA ALL" } else { "RESET SLAVE ALL" }
    }

    /// Names of semi-synchronous replication.
    /// MySQL: plugin `semisync_master`, from 8.0.26 on `semisync_source` with names of its own (both until 9.0).
    pub fn semi_sync(self) -> SemiSync {
        match self {
            Dialect::MariaDb(_) => MARIADB_SEMI_SYNC,
            _ if self.mysql_from(8, 0, 26) => SemiSync {
                enabled: "rpl_semi_sync_source_enabled",
                timeout: "rpl_semi_sync_source_timeout",
                wait_point: Some("rpl_semi_sync_source_wait_point"),
                status: "Rpl_semi_sync_source_status",
                clients: "Rpl_semi_sync_source_clients",
                acknowledged: "Rpl_semi_sync_source_yes_tx",
                missed: "Rpl_semi_sync_source_no_tx",
                install: Some("INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'"),
                install_cnf: Some("plugin_load_add = rpl_semi_sync_source=semisync_source.so"),
            },
            Dialect::MySql(_) => SemiSync {
                wait_point: self.mysql_from(5, 7, 2).then_some("rpl_semi_sync_master_wait_point"),
                install: Some("INSTALL PLUGIN rpl_semi_sync_master SONAME 'semisync_master.so'"),
                install_cnf: Some("plugin_load_add = rpl_semi_sync_master=semisync_master.so"),
                ..MARIADB_SEMI_SYNC
            },
        }
    }

    /// The variable that says which transactions a server holds (all: written here and replicated).
    pub fn gtid_position(self) -> &'static str {
        match self {
            Dialect::MariaDb(_) => "gtid_current_pos",
            Dialect::MySql(_) => "gtid_executed",
        }
    }

    /// The variable that says which transactions are in the server's own binary log.
    pub fn gtid_binlog_position(self) -> &'static str {
        match self {
            Dialect::MariaDb(_) => "gtid_binlog_pos",
            Dialect::MySql(_) => "gtid_executed",
        }
    }

    /// The variable that says which transactions a replica has applied.
    pub fn gtid_replica_position(self) -> &'static str {
        match self {
            Dialect::MariaDb(_) => "gtid_slave_pos",
            Dialect::MySql(_) => "gtid_executed",
        }
    }

    /// The retention of the binary log that this server knows best: (variable, seconds of one of its units).
    pub fn retention(self) -> (&'static str, u64) {
        if self.mariadb_from(10, 6, 1) || self.mysql_from(8, 0, 1) {
            ("binlog_expire_logs_seconds", 1)
        } else {
            ("expire_logs_days", 86_400)
        }
    }

    /// The privilege that shows the binary log's state (`SHOW MASTER STATUS`, `SHOW BINARY LOGS`).
    pub fn monitor_privilege(self) -> &'static str {
        match self.mariadb_from(10, 5, 2) {
            true => "BINLOG MONITOR",
            false => "REPLICATION CLIENT",
        }
    }

    /// The privilege that shows whether a server replicates ([`Dialect::replica_status`]).
    /// MariaDB: knowledge base, "Grant" (REPLICA MONITOR is from 10.5.9 on, SHOW GRANTS calls it SLAVE MONITOR).
    pub fn replica_privilege(self) -> &'static str {
        if self.mariadb_from(10, 5, 9) {
            "SLAVE MONITOR"
        } else if self.mariadb_from(10, 5, 2) {
            "REPLICATION SLAVE ADMIN"
        } else {
            "REPLICATION CLIENT"
        }
    }

    /// The privileges on `*.*` that the binary log's stream takes; of several servers the source asks which of them are
    /// replicas.
    pub fn source_privileges(self, several: bool) -> Vec<&'static str> {
        let mut list = vec!["REPLICATION SLAVE", self.monitor_privilege()];
        if several && !list.contains(&self.replica_privilege()) {
            list.push(self.replica_privilege());
        }
        list
    }

    /// Another name under which `SHOW GRANTS` may list the privilege that shows the binary log's state.
    pub fn monitor_privilege_alias(self) -> &'static str {
        match self.mariadb_from(10, 5, 2) {
            true => "REPLICATION CLIENT",
            false => "BINLOG MONITOR",
        }
    }

    /// Lifts the server's limit on a statement's time in this session; `None` where there is no such limit.
    pub fn no_statement_limit(self) -> Option<&'static str> {
        match self {
            Dialect::MariaDb(_) => Some("SET SESSION max_statement_time = 0"),
            _ if self.mysql_from(5, 7, 8) => Some("SET SESSION max_execution_time = 0"),
            Dialect::MySql(_) => None,
        }
    }

    /// Whether a definition that a kill interrupted is repaired, and logged, before the server opens its socket.
    pub fn repairs_definitions_at_start(self) -> bool {
        self.mariadb_from(10, 6, 1)
    }

    /// Whether a snapshot tells its own place in the binary log (`binlog_snapshot_file`, `binlog_snapshot_position`).
    pub fn snapshot_tells_position(self) -> bool {
        self.is_mariadb()
    }

    /// The Debian package of the server's own programs, for messages.
    pub fn client_package(self) -> &'static str {
        match self {
            Dialect::MariaDb(_) => "mariadb-client",
            Dialect::MySql(_) => "mysql-client",
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dialect::MariaDb(version) => write!(f, "MariaDB {version}"),
            Dialect::MySql(version) => write!(f, "MySQL {version}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_told_apart() {
        let detect = |version, comment| Dialect::detect(version, comment).unwrap();
        let maria = Dialect::MariaDb(Version::new(10, 11, 19));
        assert_eq!(detect("10.11.19-MariaDB-log", "Debian 12"), maria);
        assert_eq!(detect("5.5.5-10.11.19-MariaDB", ""), maria);
        assert_eq!(
            detect("11.4.2", "mariadb.org binary distribution"),
            Dialect::MariaDb(Version::new(11, 4, 2))
        );
        assert_eq!(detect("5.6.24", "MySQL Community Server (GPL)"), Dialect::MySql(Version::new(5, 6, 24)));
        assert_eq!(detect("8.0.36-28", "Percona Server (GPL)"), Dialect::MySql(Version::new(8, 0, 36)));
        assert_eq!(
            Dialect::detect("5.5.60", "MySQL").unwrap_err(),
            DialectError::Old("MySQL 5.5.60".to_owned())
        );
        assert_eq!(Dialect::detect("TiDB", "").unwrap_err(), DialectError::Unreadable("TiDB".to_owned()));
        assert!(Dialect::detect("99999999999.1", "").is_err());
    }

    #[test]
    fn names_follow_the_version() {
        let maria = Dialect::MariaDb(Version::new(10, 11, 19));
        let old = Dialect::MySql(Version::new(5, 6, 24));
        let new = Dialect::MySql(Version::new(8, 4, 0));
        assert_eq!(maria.binary_log_status(), "SHOW MASTER STATUS");
        assert_eq!(new.binary_log_status(), "SHOW BINARY LOG STATUS");
        assert_eq!(old.replica_status(), "SHOW SLAVE STATUS");
        assert_eq!(new.replica_status(), "SHOW REPLICA STATUS");
        assert_eq!(maria.retention(), ("binlog_expire_logs_seconds", 1));
        assert_eq!(Dialect::MariaDb(Version::new(10, 5, 0)).retention(), ("expire_logs_days", 86_400));
        assert_eq!(old.semi_sync().wait_point, None);
        assert_eq!(new.semi_sync().enabled, "rpl_semi_sync_source_enabled");
        assert_eq!(maria.start_replica_until_gtid("0-1-5"), "START SLAVE UNTIL master_gtid_pos = '0-1-5'");
        assert_eq!(
            new.start_replica_until_position("b'1", 4),
            "START REPLICA UNTIL SOURCE_LOG_FILE = 'b''1', SOURCE_LOG_POS = 4"
        );
    }
}
