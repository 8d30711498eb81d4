//! What may go wrong between the server and the archive, and what a person does about it.

use crate::database::dsn::{Dsn, PasswordError};
use crate::database::source::ship::StreamFault;
use crate::database::sql::SqlError;
use ehpc_proto::mysql::auth::AuthError;
use ehpc_proto::mysql::replica::DialogueError;
use ehpc_proto::mysql::response::ServerError;
use std::time::Duration;

/// `ER_ACCESS_DENIED_ERROR`: of a login, and of COM_REGISTER_SLAVE without the privilege.
const ACCESS_DENIED: u16 = 1045;
/// `ER_SPECIFIC_ACCESS_DENIED_ERROR`.
const PRIVILEGE_MISSING: u16 = 1227;
/// `ER_NO_BINARY_LOGGING`.
const NO_BINARY_LOGGING: u16 = 1381;
/// `ER_MASTER_FATAL_ERROR_READING_BINLOG`: everything that a dump may die of.
const FATAL_READING: u16 = 1236;
/// What a server says that meets a half written event, or none, in the middle of a file.
const CANNOT_READ: [&str; 6] =
    ["truncated", "corrupted", "checksum", "crc check", "bogus data", "exceeded max_allowed_packet"];
/// `ER_SLAVE_SAME_ID` of MariaDB.
const SAME_ID: u16 = 4052;

/// Longest time between two attempts: of what passes by itself, and of what a person has to repair.
const SOON: Duration = Duration::from_secs(5);
const LATER: Duration = Duration::from_secs(30);

/// Why nothing is shipped at the moment.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum SourceFault {
    #[error("{0}")]
    Password(#[from] PasswordError),
    #[error("the database server {server} cannot be reached: {text}")]
    Unreachable { server: String, text: String },
    #[error(
        "the database server {server} refuses the login of {user}: {text}; if the account is missing, as an \
         administrator there: CREATE USER '{user}'@'%' IDENTIFIED BY '...'"
    )]
    Denied { server: String, user: String, text: String },
    #[error("the account {user} at {server} cannot be used: {text}")]
    Method { server: String, user: String, text: String },
    #[error(
        "the account {user} at {server} lacks a privilege ({text}); as an administrator there: \
         {grant}"
    )]
    Privilege { server: String, user: String, grant: String, text: String },
    #[error(
        "no TLS with the database server {server}: {text}; check tls, tls_ca and tls_name in [database] of the cluster \
         file, and ssl_cert, ssl_key in the server's my.cnf"
    )]
    Tls { server: String, text: String },
    #[error(
        "the database server {server} writes no binary log; in its my.cnf: [mysqld] log_bin = mysql-bin, then restart it"
    )]
    NoBinaryLog { server: String },
    #[error(
        "the database server {server} encrypts its binary logs, so that they cannot be kept byte for byte; in its \
         my.cnf: [mysqld] encrypt_binlog = OFF, then restart it"
    )]
    Encrypted { server: String },
    #[error(
        "the archive ends at {end}, and the database server {server} no longer has what follows ({why}; its oldest file \
         is {oldest}); the transactions between are not in the archive. Set on_gap = \"new-base\" in [database] to go on \
         behind the gap with a new base snapshot, and a longer retention on the server so that it does not happen again"
    )]
    Gap { server: String, end: String, oldest: String, why: &'static str },
    #[error(
        "the archive holds transactions that the database server {server} lost: the archive ends at {end} (GTID {held}), \
         and the server's log does not have that place (it is at GTID {found} now; what it committed since then may have \
         the same GTIDs again). It was probably cut off without sync_binlog=1, or somebody ran RESET MASTER. Nothing was \
         cut from the archive. Compare the two, then `ehpc-store db accept-loss` goes on with what the server has, in a \
         new lineage"
    )]
    Ahead { server: String, end: String, held: String, found: String },
    #[error(
        "the database server {server} is not the one that the archive follows, and it lacks transactions that the archive \
         holds: the archive ends at {end} (GTID {held}), the server at GTID {found}; {why}. Set it up with all of them \
         (log_slave_updates must be ON while it replicates), or `ehpc-store db accept-loss` goes on with what it has, in \
         a new lineage"
    )]
    Diverged { server: String, end: String, held: String, found: String, why: String },
    #[error(
        "another replica of the database server {server} has server_id {server_id} too; set another server_id in \
         [database] of the cluster file, or in that replica ({text})"
    )]
    ServerId { server: String, server_id: u32, text: String },
    #[error("the binary log that comes from {server} is damaged: {text}")]
    Damaged { server: String, text: String },
    #[error("the database server {server} cannot read its own binary log: {text}")]
    Torn { server: String, text: String },
    #[error(
        "the database server {server} is still a replica ({why}), so that it does not take the place of the one that the \
         archive follows; when it is the primary now: STOP SLAVE; RESET SLAVE ALL; SET GLOBAL read_only = 0"
    )]
    Unpromoted { server: String, why: &'static str },
    #[error("the database server {server} is not the one that the archive follows")]
    NotFollowed { server: String },
    #[error("{file} on {server} is not the file of that name in the archive")]
    AnotherServer { server: String, file: String },
    #[error("{server} no longer has what the archive has: {text}")]
    Shorter { server: String, text: String },
    #[error("the database server {server} has no binary log of that name: {text}")]
    NoSuchFile { server: String, text: String },
    #[error("the connection to the database server {server} is lost: {text}")]
    Lost { server: String, text: String },
    #[error("the database server {server} answers with an error: {text}")]
    Server { server: String, text: String },
    #[error("the database server {server}: {text}")]
    Unusable { server: String, text: String },
    #[error("the backup cannot be reached: {0}")]
    Lane(String),
    #[error("the backup refuses the binary log: {0}")]
    Refused(String),
    #[error(
        "a defect of this program ended the stream of the database ({0}; the log has more); it begins anew"
    )]
    Defect(String),
}

impl SourceFault {
    /// A word for status: `refused`, `gap`, `ahead`, `diverged`, `server-id`, `damaged`, `encrypted`, `no-binlog`,
    /// `connecting`, `backup`.
    pub fn state(&self) -> &'static str {
        match self {
            SourceFault::Password(_)
            | SourceFault::Denied { .. }
            | SourceFault::Method { .. }
            | SourceFault::Privilege { .. }
            | SourceFault::Tls { .. }
            | SourceFault::Unusable { .. } => "refused",
            SourceFault::NoBinaryLog { .. } => "no-binlog",
            SourceFault::Encrypted { .. } => "encrypted",
            SourceFault::Gap { .. } => "gap",
            SourceFault::Ahead { .. } => "ahead",
            SourceFault::Diverged { .. } => "diverged",
            SourceFault::ServerId { .. } => "server-id",
            SourceFault::Damaged { .. } | SourceFault::Torn { .. } => "damaged",
            SourceFault::Unpromoted { .. }
            | SourceFault::NotFollowed { .. }
            | SourceFault::AnotherServer { .. }
            | SourceFault::Shorter { .. }
            | SourceFault::NoSuchFile { .. }
            | SourceFault::Unreachable { .. }
            | SourceFault::Lost { .. }
            | SourceFault::Server { .. } => "connecting",
            SourceFault::Lane(_) | SourceFault::Refused(_) => "backup",
            SourceFault::Defect(_) => "failed",
        }
    }

    /// Least and longest time before the next attempt. A repair is noticed soon, what stays is asked for less and less
    /// often; each attempt throws out another replica that has our number.
    pub fn wait(&self) -> (Duration, Duration) {
        match self {
            SourceFault::ServerId { .. } => (SOON, LATER),
            fault if fault.needs_a_person() => (Duration::ZERO, LATER),
            _ => (Duration::ZERO, SOON),
        }
    }

    /// Of the faults of several servers the one that is shown.
    pub fn tells_more_than(&self, other: &SourceFault) -> bool {
        let weight = |fault: &SourceFault| match fault {
            SourceFault::Unpromoted { .. } => 1,
            fault => 2 * u8::from(fault.needs_a_person()),
        };
        weight(self) > weight(other)
    }

    /// Whether a person has to do something.
    pub fn needs_a_person(&self) -> bool {
        !matches!(self.state(), "connecting" | "backup" | "failed")
    }
}

/// What a stream found out about the place where the archive ends; the next attempt asks accordingly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finding {
    /// The file of that name is another one than the archive's, or it ends before it.
    Another,
    /// There is no file of that name.
    Gone,
    /// What follows could not be read, perhaps only this time.
    Unread,
    /// What follows is no whole event.
    Torn,
}

impl SourceFault {
    /// What it says about the place. `before`: what was known of it.
    pub fn finding(&self, before: Option<Finding>) -> Option<Finding> {
        match self {
            SourceFault::AnotherServer { .. } | SourceFault::Shorter { .. } => Some(Finding::Another),
            SourceFault::NoSuchFile { .. } => Some(Finding::Gone),
            SourceFault::Torn { .. } => Some(Finding::Torn),
            SourceFault::Damaged { .. } => match before {
                Some(Finding::Unread | Finding::Torn) => Some(Finding::Torn),
                _ => Some(Finding::Unread),
            },
            _ => None,
        }
    }
}

/// Says which server and account a fault is about.
#[derive(Clone, Debug)]
pub struct Blame {
    /// The server, as messages name it.
    pub server: String,
    /// The account.
    pub user: String,
    /// Our replica number.
    pub server_id: u32,
    /// Host part of the account, for a GRANT.
    pub host: String,
    /// The privileges that the source needs.
    pub wanted: String,
}

impl Blame {
    /// For a server of the settings.
    pub fn new(dsn: &Dsn, server_id: u32) -> Blame {
        let host = if dsn.server.is_local() { "localhost" } else { "%" };
        Blame {
            server: dsn.server.to_string(),
            user: dsn.user.clone(),
            server_id,
            host: host.to_owned(),
            wanted: "REPLICATION SLAVE, BINLOG MONITOR".to_owned(),
        }
    }

    /// The account as the server knows it, `user@host`: what a GRANT must name.
    pub fn account(&mut self, current_user: &str) {
        if let Some((user, host)) = current_user.rsplit_once('@') {
            (self.user, self.host) = (user.to_owned(), host.to_owned());
        }
    }

    /// A fault of somebody who did not know the account as the server does.
    pub fn with_account(&self, fault: SourceFault) -> SourceFault {
        match fault {
            SourceFault::Privilege { text, .. } => self.privilege(text),
            other => other,
        }
    }

    fn privilege(&self, text: String) -> SourceFault {
        SourceFault::Privilege {
            server: self.server.clone(),
            user: self.user.clone(),
            grant: format!("GRANT {} ON *.* TO '{}'@'{}'", self.wanted, self.user, self.host),
            text,
        }
    }

    /// The stream was damaged.
    pub fn damaged(&self, text: impl ToString) -> SourceFault {
        SourceFault::Damaged { server: self.server.clone(), text: text.to_string() }
    }

    /// The connection was lost.
    pub fn lost(&self, text: impl ToString) -> SourceFault {
        SourceFault::Lost { server: self.server.clone(), text: text.to_string() }
    }

    /// A question by SQL failed.
    pub fn sql(&self, error: SqlError) -> SourceFault {
        let (server, user) = (self.server.clone(), self.user.clone());
        match error {
            SqlError::Password(error) => SourceFault::Password(error),
            SqlError::Refused { text, number, .. } if login_refused(number) => {
                SourceFault::Denied { server, user, text }
            }
            SqlError::Refused { text, .. } => SourceFault::Unreachable { server, text },
            SqlError::Method { text, .. } => SourceFault::Method { server, user, text },
            SqlError::Tls { text, .. } => SourceFault::Tls { server, text },
            SqlError::Authorities { path, source } => {
                SourceFault::Tls { server, text: format!("{} cannot be read: {source}", path.display()) }
            }
            SqlError::Server { number: PRIVILEGE_MISSING | ACCESS_DENIED, text, .. } => self.privilege(text),
            SqlError::Server { number: NO_BINARY_LOGGING, .. } => SourceFault::NoBinaryLog { server },
            SqlError::Unreachable { source, .. } => {
                SourceFault::Unreachable { server, text: source.to_string() }
            }
            SqlError::Dialect(error) => SourceFault::Unusable { server, text: error.to_string() },
            other => SourceFault::Lost { server, text: other.to_string() },
        }
    }

    /// The replica's dialogue ended.
    pub fn dialogue(&self, error: DialogueError) -> SourceFault {
        let (server, user) = (self.server.clone(), self.user.clone());
        match error {
            DialogueError::Login(AuthError::Refused(error)) if login_refused(error.code) => {
                SourceFault::Denied { server, user, text: error.to_string() }
            }
            DialogueError::Login(AuthError::Refused(error)) | DialogueError::Closed(error) => {
                SourceFault::Unreachable { server, text: error.to_string() }
            }
            DialogueError::Login(other) => SourceFault::Method { server, user, text: other.to_string() },
            DialogueError::NoTls => SourceFault::Tls { server, text: error.to_string() },
            DialogueError::TooOld(_) | DialogueError::BadPlan(_) => {
                SourceFault::Unusable { server, text: error.to_string() }
            }
            DialogueError::Refused { error, .. }
                if matches!(error.code, ACCESS_DENIED | PRIVILEGE_MISSING) =>
            {
                self.privilege(error.to_string())
            }
            other => self.lost(other),
        }
    }

    /// The event stream ended.
    pub fn stream(&self, fault: StreamFault) -> SourceFault {
        let server = self.server.clone();
        match fault {
            StreamFault::Server(error) => self.dump(error),
            StreamFault::Ended => self.lost(fault),
            StreamFault::Encrypted => SourceFault::Encrypted { server },
            StreamFault::AnotherServer { file } => SourceFault::AnotherServer { server, file },
            StreamFault::Shorter { .. } => SourceFault::Shorter { server, text: fault.to_string() },
            other => self.damaged(other),
        }
    }

    /// The server refused or ended a dump.
    pub fn dump(&self, error: ServerError) -> SourceFault {
        let server = self.server.clone();
        let text = error.to_string();
        let says = |words: &[&str]| words.iter().any(|word| error.message.contains(word));
        match error.code {
            ACCESS_DENIED | PRIVILEGE_MISSING => self.privilege(text),
            SAME_ID | FATAL_READING if says(&["same server_uuid/server_id", "same server_id"]) => {
                SourceFault::ServerId { server, server_id: self.server_id, text }
            }
            FATAL_READING if says(&CANNOT_READ) => SourceFault::Torn { server, text },
            FATAL_READING if says(&["Could not find first log file name"]) => {
                SourceFault::NoSuchFile { server, text }
            }
            FATAL_READING if says(&["impossible position", "position > file size"]) => {
                SourceFault::Shorter { server, text }
            }
            // A purge or a reset between our questions and the dump: the next attempt's questions say which.
            _ => SourceFault::Server { server, text },
        }
    }
}

/// Login errors that do not pass by themselves: wrong password, no such account, expired, no access from here.
fn login_refused(code: u16) -> bool {
    matches!(code, 1044 | ACCESS_DENIED | 1130 | 1251 | 1275 | 1396 | 1524 | 1698 | 1820 | 1862 | 3118 | 3159)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blame() -> Blame {
        Blame::new(&Dsn::socket("/run/mysqld/mysqld.sock", "ehpc"), 4_200_001)
    }

    #[test]
    fn a_login_and_a_privilege_with_the_same_number_are_told_apart() {
        let denied = ServerError::new(1045, "28000", "Access denied for user 'ehpc'@'localhost'");
        let login = blame().dialogue(DialogueError::Login(AuthError::Refused(denied.clone())));
        assert!(matches!(login, SourceFault::Denied { .. }) && login.state() == "refused");
        let command = "COM_REGISTER_SLAVE".to_owned();
        let register = blame().dialogue(DialogueError::Refused { command, error: denied });
        assert!(
            register
                .to_string()
                .contains("GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO 'ehpc'@'localhost'"),
            "{register}"
        );
    }

    #[test]
    fn the_servers_texts_are_told_apart() {
        let numbered =
            |code, text: &str| blame().stream(StreamFault::Server(ServerError::new(code, "HY000", text)));
        let fault = |text: &str| numbered(1236, text);
        let twice = fault(
            "A slave with the same server_uuid/server_id as this slave has connected to the master; the first event ..",
        );
        assert_eq!(twice.state(), "server-id");
        assert!(twice.to_string().contains("server_id 4200001"), "{twice}");
        let maria = numbered(
            4052,
            "A slave with the same server_uuid/server_id is already connected; the first event ..",
        );
        assert_eq!(maria.state(), "server-id");
        let torn = fault("binlog truncated in the middle of event; consider out of disk space");
        assert_eq!((torn.state(), torn.finding(None)), ("damaged", Some(Finding::Torn)));
        // What we read ourselves may have been damaged on the way: only the second time it is the file's.
        let unread = blame().damaged("a checksum");
        assert_eq!(unread.finding(None), Some(Finding::Unread));
        assert_eq!(unread.finding(Some(Finding::Unread)), Some(Finding::Torn));
        let gone = fault("Could not find first log file name in binary log index file");
        assert_eq!((gone.state(), gone.finding(None)), ("connecting", Some(Finding::Gone)));
        let shorter = fault("Client requested master to start replication from position > file size; ..");
        assert_eq!((shorter.state(), shorter.finding(None)), ("connecting", Some(Finding::Another)));
        assert_eq!(blame().stream(StreamFault::Encrypted).state(), "encrypted");
        assert_eq!(blame().stream(StreamFault::Ended).wait(), (Duration::ZERO, SOON));
        assert_eq!(twice.wait(), (SOON, LATER));
        assert!(blame().stream(StreamFault::Encrypted).needs_a_person());
    }
}
