//! `[database]`: the MySQL or MariaDB server beside the share, and what the backup keeps of it.

use super::cluster::{Backup, Durability, Nfs1};
use super::document::{Document, Section, Setting, words};
use super::units::{HostPort, Seconds};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::de::DeValue;

/// The binlog server on the backup.
pub const BINLOG_PORT: u16 = 12306;
/// MySQL's own port.
pub const MYSQL_PORT: u16 = 3306;
/// How the source shows itself among the server's replicas.
const DEFAULT_SERVER_ID: u32 = 4_200_001;
/// The managed standby.
const DEFAULT_STANDBY_ID: u32 = 4_200_002;
const DEFAULT_USER: &str = "ehpc";
const DAY: Duration = Duration::from_secs(86_400);

const BASE_EVERY: RangeInclusive<Duration> = Duration::from_secs(3600)..=Duration::from_secs(90 * 86_400);
const MARK_EVERY: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
const BASE_KEEP: RangeInclusive<u32> = 1..=1000;

words! {
    /// How the connection to the server is secured.
    DatabaseTls {
        /// Not at all.
        Off = "off",
        /// Encrypted, whoever answers.
        Require = "require",
        /// Encrypted, and the server's certificate is checked.
        Verify = "verify",
    }
}

words! {
    /// What happens when the server has no longer the binary logs that the backup lacks.
    OnGap {
        /// A person decides.
        Stop = "stop",
        /// A new base snapshot is taken, and the archive goes on from there.
        NewBase = "new-base",
    }
}

words! {
    /// Who runs the standby.
    StandbyMode {
        /// The backup daemon starts a server of its own.
        Managed = "managed",
        /// The operator; the backup says which statements to run.
        External = "external",
    }
}

/// Where a server listens.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum DatabaseAddress {
    /// A unix socket.
    Socket(PathBuf),
    /// TCP.
    Tcp(HostPort),
}

impl DatabaseAddress {
    /// Whether the way to it leaves this machine.
    pub fn is_local(&self) -> bool {
        match self {
            DatabaseAddress::Socket(_) => true,
            DatabaseAddress::Tcp(at) => {
                at.host == "localhost" || at.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
        }
    }
}

impl std::str::FromStr for DatabaseAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<DatabaseAddress, String> {
        if text.starts_with('/') && !text.contains('\0') {
            return Ok(DatabaseAddress::Socket(PathBuf::from(text)));
        }
        match text.parse() {
            Ok(at) => Ok(DatabaseAddress::Tcp(at)),
            Err(_) if !text.is_empty() && !text.contains([':', '/', '\0']) => {
                Ok(DatabaseAddress::Tcp(HostPort { host: text.to_owned(), port: MYSQL_PORT }))
            }
            Err(_) => Err(format!("`{text}` is neither the path of a socket nor a host with a port")),
        }
    }
}

impl fmt::Display for DatabaseAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DatabaseAddress::Socket(path) => write!(f, "{}", path.display()),
            DatabaseAddress::Tcp(at) => write!(f, "{at}"),
        }
    }
}

/// One address or several.
struct Addresses(Vec<DatabaseAddress>);

impl Setting for Addresses {
    fn expected() -> String {
        "a socket such as \"/run/mysqld/mysqld.sock\", a host and a port such as \"10.182.15.50:3306\", or a list of \
         them"
            .to_owned()
    }

    fn read(value: &DeValue<'_>) -> Result<Addresses, Option<String>> {
        let one = |value: &DeValue<'_>| value.as_str().ok_or(None)?.parse().map_err(Some);
        let all = match value {
            DeValue::Array(list) => list.iter().map(|item| one(item.get_ref())).collect::<Result<_, _>>()?,
            single => vec![one(single)?],
        };
        if all.is_empty() { Err(Some("the list is empty".to_owned())) } else { Ok(Addresses(all)) }
    }
}

/// A list of texts.
struct Texts(Vec<String>);

impl Setting for Texts {
    fn expected() -> String {
        "a list of texts, such as [\"--innodb-buffer-pool-size=2G\"]".to_owned()
    }

    fn read(value: &DeValue<'_>) -> Result<Texts, Option<String>> {
        let DeValue::Array(list) = value else { return Err(None) };
        let texts = list.iter().map(|item| item.get_ref().as_str().map(str::to_owned).ok_or(None));
        texts.collect::<Result<_, _>>().map(Texts)
    }
}

/// A time of day on this machine's clock: "03:00".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeOfDay {
    /// Minutes since midnight, below 1440.
    pub minutes: u16,
}

impl Setting for TimeOfDay {
    fn expected() -> String {
        "a time of day in quotes, such as \"03:00\"".to_owned()
    }

    fn read(value: &DeValue<'_>) -> Result<TimeOfDay, Option<String>> {
        let text = value.as_str().ok_or(None)?;
        let read = |text: &str| {
            let (hours, minutes) = text.split_once(':')?;
            let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
            (hours < 24 && minutes < 60).then_some(TimeOfDay { minutes: hours * 60 + minutes })
        };
        read(text).ok_or_else(|| Some(format!("`{text}` is not a time of day")))
    }
}

/// The database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Database {
    /// Where the server may be, tried in order; more than one: a server and those that may take its place.
    pub address: Vec<DatabaseAddress>,
    /// Account on the server.
    pub user: String,
    /// File with its password, readable by its owner only; absent: none (unix_socket authentication).
    pub password_file: Option<PathBuf>,
    /// How the connection is secured; absent: not at all on this machine, verified beyond it.
    pub tls: Option<DatabaseTls>,
    /// Certificates that the server's is checked against; absent: those of the web's authorities.
    pub tls_ca: Option<PathBuf>,
    /// Name in the server's certificate; absent: the host of the address.
    pub tls_name: Option<String>,
    /// How this product shows itself among the server's replicas.
    pub server_id: u32,
    /// `Remote`: a commit is answered when it is on the backup's disk (semi-synchronous replication).
    pub durability: Durability,
    /// A base snapshot is taken when none is newer.
    pub base_every: Seconds,
    /// And then only at this time of day.
    pub base_at: Option<TimeOfDay>,
    /// Base snapshots that are kept.
    pub base_keep: u32,
    /// Base snapshots lock tables that are not transactional.
    pub base_lock: bool,
    /// Base snapshots record a checksum of every table, which reads all of them once more.
    pub base_sums: bool,
    /// Binary logs are kept at least so long.
    pub archive_keep: Seconds,
    /// When the server has purged what the backup lacks.
    pub on_gap: OnGap,
    /// Moments that files and database have in common are recorded so often, while anything changes.
    pub mark_every: Seconds,
    /// The binlog server on the backup.
    pub listen: SocketAddr,
    /// Below the backup's directory: archive, base snapshots, standby.
    pub directory: PathBuf,
    /// Where the server's programs are; absent: on PATH.
    pub tools: Option<PathBuf>,
    /// A server on the backup that follows.
    pub standby: Option<Standby>,
    /// `up --database` runs a server of its own in this directory.
    pub private: Option<PathBuf>,
}

/// The standby.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standby {
    /// Who runs it.
    pub mode: StandbyMode,
    /// Its data directory, where it is managed.
    pub datadir: PathBuf,
    /// Its server_id.
    pub server_id: u32,
    /// Where it listens.
    pub address: DatabaseAddress,
    /// Account on it, where it is not managed.
    pub user: String,
    /// File with that account's password.
    pub password_file: Option<PathBuf>,
    /// Further options of a managed server.
    pub options: Vec<String>,
}

impl Database {
    /// What a file that names only the address means.
    pub fn at(address: Vec<DatabaseAddress>, backup: &Path) -> Database {
        Database {
            address,
            user: DEFAULT_USER.to_owned(),
            password_file: None,
            tls: None,
            tls_ca: None,
            tls_name: None,
            server_id: DEFAULT_SERVER_ID,
            durability: Durability::Local,
            base_every: Seconds(DAY),
            base_at: None,
            base_keep: 7,
            base_lock: false,
            base_sums: true,
            archive_keep: Seconds(14 * DAY),
            on_gap: OnGap::Stop,
            mark_every: Seconds(Duration::from_secs(5)),
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), BINLOG_PORT),
            directory: backup.join("database"),
            tools: None,
            standby: None,
            private: None,
        }
    }

    /// The database of `up --database`: a server of its own, in `data`/database.
    pub fn local(data: &Path, backup: &Path, listen: IpAddr) -> Database {
        let private = data.join("database");
        let socket = DatabaseAddress::Socket(private.join("mysqld.sock"));
        Database {
            user: "root".to_owned(),
            listen: SocketAddr::new(listen, BINLOG_PORT),
            private: Some(private),
            ..Database::at(vec![socket], backup)
        }
    }

    /// How the connection to this address is secured.
    pub fn tls_to(&self, address: &DatabaseAddress) -> DatabaseTls {
        let default = if address.is_local() { DatabaseTls::Off } else { DatabaseTls::Verify };
        self.tls.unwrap_or(default)
    }
}

const KEYS: &[&str] = &[
    "address",
    "user",
    "password_file",
    "tls",
    "tls_ca",
    "tls_name",
    "server_id",
    "durability",
    "base_every",
    "base_at",
    "base_keep",
    "base_lock",
    "base_sums",
    "archive_keep",
    "on_gap",
    "mark_every",
    "listen",
    "tools",
    "standby",
];

const STANDBY_KEYS: &[&str] =
    &["mode", "datadir", "server_id", "address", "user", "password_file", "options"];

pub(super) fn read_database<'t>(
    document: &mut Document<'t>,
    top: &Section<'_, 't>,
    nfs1: Option<&Nfs1>,
    backup: Option<&Backup>,
) -> Option<Database> {
    let section = document.section(top, "database", KEYS)?;
    let address = document.require::<Addresses>(&section, "address");
    if !top.has("nfs1") {
        let what = "[database] has no [nfs1]: the host that holds the share reads the database".to_owned();
        document.report(section.site.clone(), what, "a section [nfs1]", "add it, or remove [database]");
    }
    // Without them the file is refused anyway; what is wrong in this section is still said.
    let directory = backup.map_or(PathBuf::from("/"), |backup| backup.directory.clone());
    let mut database = Database::at(address.map(|all| all.0).unwrap_or_default(), &directory);
    read_access(document, &section, &mut database);
    read_keeping(document, &section, &mut database);
    database.standby = read_standby(document, &section, &database.directory);
    if let Some(standby) = &database.standby
        && standby.server_id == database.server_id
    {
        let site = document.site_of("database.standby.server_id");
        let what = format!("the standby has the server_id {} of [database]", standby.server_id);
        document.report(site, what, "a number of its own for each", "change one of the two");
    }
    (nfs1.is_some() && backup.is_some() && !database.address.is_empty()).then_some(database)
}

fn read_access<'t>(document: &mut Document<'t>, section: &Section<'_, 't>, database: &mut Database) {
    database.user = document.get(section, "user").unwrap_or_else(|| DEFAULT_USER.to_owned());
    database.password_file = document.get(section, "password_file");
    database.tls = document.get(section, "tls");
    database.tls_ca = document.get(section, "tls_ca");
    database.tls_name = document.get(section, "tls_name");
    database.server_id = read_server_id(document, section, DEFAULT_SERVER_ID);
    database.durability = document.get(section, "durability").unwrap_or(database.durability);
    database.listen = document.get(section, "listen").unwrap_or(database.listen);
    if !database.listen.ip().is_loopback() {
        let site = document.site_of(&section.path("listen"));
        let what = format!("the binlog server would be open to others on {}", database.listen);
        let expected = "an address of the loopback interface: what it serves is not encrypted";
        document.report(site, what, expected, "write \"127.0.0.1:12306\", and a tunnel for other hosts");
    }
    database.tools = document.get(section, "tools");
}

fn read_keeping<'t>(document: &mut Document<'t>, section: &Section<'_, 't>, database: &mut Database) {
    database.base_every = document.get(section, "base_every").unwrap_or(database.base_every);
    database.base_at = document.get(section, "base_at");
    let keep: Option<usize> = document.get(section, "base_keep");
    database.base_keep = keep.map_or(database.base_keep, |keep| u32::try_from(keep).unwrap_or(u32::MAX));
    database.base_lock = document.get(section, "base_lock").unwrap_or(database.base_lock);
    database.base_sums = document.get(section, "base_sums").unwrap_or(database.base_sums);
    database.archive_keep = document.get(section, "archive_keep").unwrap_or(database.archive_keep);
    database.on_gap = document.get(section, "on_gap").unwrap_or(database.on_gap);
    database.mark_every = document.get(section, "mark_every").unwrap_or(database.mark_every);
    let bounds = [
        (
            "base_every",
            format!("a base snapshot every {}", database.base_every),
            BASE_EVERY.contains(&database.base_every.0),
            "from \"1h\" to \"90d\"",
        ),
        (
            "base_keep",
            format!("{} base snapshots", database.base_keep),
            BASE_KEEP.contains(&database.base_keep),
            "from 1 to 1000",
        ),
        (
            "archive_keep",
            format!("binary logs kept for {}", database.archive_keep),
            database.archive_keep >= database.base_every,
            "at least `base_every`: a snapshot is worth nothing without what follows it",
        ),
        (
            "mark_every",
            format!("a mark every {}", database.mark_every),
            MARK_EVERY.contains(&database.mark_every.0),
            "from \"1s\" to \"1h\"",
        ),
    ];
    for (key, what, allowed, expected) in bounds {
        if !allowed {
            // The longest of them depends on another key.
            let key = if section.has(key) { key } else { "base_every" };
            let site = document.site_of(&section.path(key));
            document.report(site, what, expected, "");
        }
    }
}

fn read_server_id<'t>(document: &mut Document<'t>, section: &Section<'_, 't>, default: u32) -> u32 {
    let Some(number) = document.get::<usize>(section, "server_id") else { return default };
    match u32::try_from(number) {
        Ok(number) if number > 0 => number,
        _ => {
            let site = document.site_of(&section.path("server_id"));
            document.report(site, format!("a server_id of {number}"), "from 1 to 4294967295", "");
            default
        }
    }
}

fn read_standby<'t>(
    document: &mut Document<'t>,
    database: &Section<'_, 't>,
    directory: &Path,
) -> Option<Standby> {
    let section = document.section(database, "standby", STANDBY_KEYS)?;
    let mode = document.get(&section, "mode").unwrap_or(StandbyMode::Managed);
    let datadir: PathBuf = document.get(&section, "datadir").unwrap_or_else(|| directory.join("standby"));
    let address: Option<Addresses> = document.get(&section, "address");
    if mode == StandbyMode::External && address.is_none() {
        let what = "an external standby has no `address`".to_owned();
        document.report(section.site.clone(), what, Addresses::expected(), "add `address = ...`");
    }
    let address = address.and_then(|all| all.0.into_iter().next());
    Some(Standby {
        mode,
        server_id: read_server_id(document, &section, DEFAULT_STANDBY_ID),
        address: address.unwrap_or_else(|| DatabaseAddress::Socket(datadir.join("mysqld.sock"))),
        datadir,
        user: document.get(&section, "user").unwrap_or_else(|| DEFAULT_USER.to_owned()),
        password_file: document.get(&section, "password_file"),
        options: document.get::<Texts>(&section, "options").map(|texts| texts.0).unwrap_or_default(),
    })
}

#[cfg(test)]
#[path = "database_tests.rs"]
mod tests;
