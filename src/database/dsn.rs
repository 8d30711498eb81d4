//! Which database server, as whom, and how safely: the address that a person writes, and what is made of it.
//!
//! `mysql://USER[:PASSWORD]@HOST[:PORT]/[?KEY=VALUE&..]`, or the absolute path of a socket. Keys: `socket`,
//! `password_file`, `tls` (off, require, verify), `tls_ca`, `tls_name`. Text in a URL is percent-encoded.

use crate::settings::{Database, DatabaseAddress, DatabaseTls, MYSQL_PORT, Standby};
use std::fmt;
use std::io::Read as _;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Longest address that is read.
const MAX_DSN: usize = 4096;
/// Longest content of a password file.
const MAX_PASSWORD: u64 = 1024;

/// Where the server listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Server {
    /// A unix socket.
    Socket(PathBuf),
    /// A host (name or address, without brackets) and a port.
    Tcp(String, u16),
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Server::Socket(path) => write!(f, "{}", path.display()),
            Server::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Server::Tcp(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

impl From<&DatabaseAddress> for Server {
    fn from(address: &DatabaseAddress) -> Server {
        match address {
            DatabaseAddress::Socket(path) => Server::Socket(path.clone()),
            DatabaseAddress::Tcp(at) => Server::Tcp(at.host.clone(), at.port),
        }
    }
}

impl Server {
    /// Whether the way there leaves this host.
    pub fn is_local(&self) -> bool {
        match self {
            Server::Socket(_) => true,
            Server::Tcp(host, _) => {
                host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
            }
        }
    }

    /// Reads `/path`, `host`, `host:port`, `address`, `[address]:port`.
    pub fn parse(text: &str) -> Result<Server, DsnError> {
        if text.starts_with('/') {
            return Ok(Server::Socket(PathBuf::from(text)));
        }
        let port = |port: &str| match port.parse::<u16>() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(DsnError::Port(port.to_owned())),
        };
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or_else(|| DsnError::Host(text.to_owned()))?;
            match rest.strip_prefix(':') {
                Some(digits) => (host, port(digits)?),
                None if rest.is_empty() => (host, MYSQL_PORT),
                None => return Err(DsnError::Host(text.to_owned())),
            }
        } else if text.parse::<IpAddr>().is_ok() {
            (text, MYSQL_PORT)
        } else {
            match text.rsplit_once(':') {
                Some((host, digits)) => (host, port(digits)?),
                None => (text, MYSQL_PORT),
            }
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
        if host.is_empty() || !host.chars().all(allowed) {
            return Err(DsnError::Host(text.to_owned()));
        }
        Ok(Server::Tcp(host.to_owned(), port))
    }
}

/// How the way there is protected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlsMode {
    /// Plain text; for sockets and loopback.
    Off,
    /// Encrypted; whoever answers is believed.
    Require,
    /// Encrypted, and the certificate must be good and carry the name.
    Verify,
}

impl TlsMode {
    /// Reads `off`, `require`, `verify`.
    pub fn parse(text: &str) -> Result<TlsMode, DsnError> {
        match text {
            "off" => Ok(TlsMode::Off),
            "require" => Ok(TlsMode::Require),
            "verify" => Ok(TlsMode::Verify),
            other => Err(DsnError::Tls(other.to_owned())),
        }
    }

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            TlsMode::Off => "off",
            TlsMode::Require => "require",
            TlsMode::Verify => "verify",
        }
    }
}

/// TLS of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tls {
    /// How much is asked.
    pub mode: TlsMode,
    /// PEM file of the only authorities that count; without it the public ones.
    pub ca: Option<PathBuf>,
    /// The name that the certificate must carry, when it is not the host's.
    pub name: Option<String>,
}

/// What proves who we are.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// Nothing: an account that the socket proves, or one without a password.
    None,
    /// The password itself.
    Text(String),
    /// A file of mode 0600 (or stricter) that holds it; its last line end does not count.
    File(PathBuf),
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Password::None => f.write_str("None"),
            Password::Text(_) => f.write_str("Text(..)"),
            Password::File(path) => write!(f, "File({})", path.display()),
        }
    }
}

/// Which server, as whom, and how. `Display` and `Debug` never show a password.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dsn {
    /// Where it listens.
    pub server: Server,
    /// The account's name.
    pub user: String,
    /// The account's proof.
    pub password: Password,
    /// Protection of the way.
    pub tls: Tls,
}

/// What is wrong with an address.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum DsnError {
    #[error(
        "not the address of a database server; write `mysql://USER@HOST[:PORT]/` or the absolute path of its socket"
    )]
    Scheme,
    #[error("`{0}` is not a host name or an address")]
    Host(String),
    #[error("`{0}` is not a port (1..=65535)")]
    Port(String),
    #[error("no user in the address; write `mysql://USER@HOST/`")]
    User,
    #[error("tls = `{0}`: it is off, require or verify")]
    Tls(String),
    #[error("`{0}` is not a key of such an address; it has socket, password_file, tls, tls_ca, tls_name")]
    Key(String),
    #[error(
        "the address holds a `%` that is not followed by two hexadecimal digits, or bytes that are not UTF-8"
    )]
    Escape,
    #[error("the address is longer than {MAX_DSN} bytes")]
    Long,
    #[error("the path {0} is not absolute")]
    Relative(PathBuf),
}

/// Why a password file is not used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum PasswordError {
    #[error("the password file {path} cannot be read: {source}")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("the password file {path} can be read by others (mode {mode:04o}); chmod 600 {path}")]
    Open { path: PathBuf, mode: u32 },
    #[error("the password file {path} is longer than {MAX_PASSWORD} bytes or not UTF-8")]
    Content { path: PathBuf },
}

impl Dsn {
    /// An account at a server, with the usual protection: none on this host, verified elsewhere.
    pub fn new(server: Server, user: impl Into<String>) -> Dsn {
        let mode = if server.is_local() { TlsMode::Off } else { TlsMode::Verify };
        Dsn { server, user: user.into(), password: Password::None, tls: Tls { mode, ca: None, name: None } }
    }

    /// The database of the settings, at one of its addresses.
    pub fn of(settings: &Database, address: &DatabaseAddress) -> Dsn {
        let mut dsn = Dsn::new(Server::from(address), &settings.user);
        dsn.password = settings.password_file.clone().map_or(Password::None, Password::File);
        dsn.tls = Tls {
            mode: match settings.tls_to(address) {
                DatabaseTls::Off => TlsMode::Off,
                DatabaseTls::Require => TlsMode::Require,
                DatabaseTls::Verify => TlsMode::Verify,
            },
            ca: settings.tls_ca.clone(),
            name: settings.tls_name.clone(),
        };
        dsn
    }

    /// The standby of the settings.
    pub fn of_standby(settings: &Standby) -> Dsn {
        let mut dsn = Dsn::new(Server::from(&settings.address), &settings.user);
        dsn.password = settings.password_file.clone().map_or(Password::None, Password::File);
        dsn
    }

    /// An account behind a socket.
    pub fn socket(path: impl Into<PathBuf>, user: impl Into<String>) -> Dsn {
        Dsn::new(Server::Socket(path.into()), user)
    }

    /// The same with a password.
    #[must_use]
    pub fn with_password(mut self, password: Password) -> Dsn {
        self.password = password;
        self
    }

    /// Reads what a person wrote. A bare path is the socket of this host's server, as root.
    pub fn parse(text: &str) -> Result<Dsn, DsnError> {
        if text.len() > MAX_DSN {
            return Err(DsnError::Long);
        }
        if text.starts_with('/') {
            return Ok(Dsn::socket(text, "root"));
        }
        let rest = text.strip_prefix("mysql://").ok_or(DsnError::Scheme)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        // A password may hold an unescaped `@`; a host never does.
        let (account, host) = authority.rsplit_once('@').ok_or(DsnError::User)?;
        let (user, password) = match account.split_once(':') {
            Some((user, password)) => (unescape(user)?, Password::Text(unescape(password)?)),
            None => (unescape(account)?, Password::None),
        };
        if user.is_empty() {
            return Err(DsnError::User);
        }
        let keys = Keys::parse(query)?;
        let server = match (keys.socket, host) {
            (Some(path), _) => Server::Socket(path),
            (None, "") => return Err(DsnError::Host(String::new())),
            (None, host) if host.starts_with('/') => return Err(DsnError::Host(host.to_owned())),
            (None, host) => Server::parse(host)?,
        };
        let mut dsn = Dsn::new(server, user).with_password(password);
        if let Some(path) = keys.password_file {
            dsn.password = Password::File(path);
        }
        dsn.tls.mode = keys.tls.unwrap_or(dsn.tls.mode);
        dsn.tls.ca = keys.tls_ca;
        dsn.tls.name = keys.tls_name;
        Ok(dsn)
    }

    /// The password, read now if it is in a file.
    pub fn secret(&self) -> Result<Option<String>, PasswordError> {
        match &self.password {
            Password::None => Ok(None),
            Password::Text(text) => Ok(Some(text.clone())),
            Password::File(path) => read_password(path).map(Some),
        }
    }

    /// Content of an option file of the server's own programs (`--defaults-extra-file`), the password included: for
    /// a descriptor that only the child has, never for a disk. Source: "Configuring MariaDB with Option Files".
    pub fn option_file(&self) -> Result<String, PasswordError> {
        let mut text = String::from("[client]\n");
        let mut line = |key: &str, value: &str| {
            text.push_str(&format!("{key}=\"{}\"\n", escape_option(value)));
        };
        line("user", &self.user);
        if let Some(password) = self.secret()? {
            line("password", &password);
        }
        match &self.server {
            Server::Socket(path) => line("socket", &path.to_string_lossy()),
            Server::Tcp(host, port) => {
                line("host", host);
                line("port", &port.to_string());
                line("protocol", "tcp");
            }
        }
        if let Some(ca) = &self.tls.ca {
            line("ssl-ca", &ca.to_string_lossy());
        }
        // The programs of MariaDB know `ssl` and `ssl-verify-server-cert`; MySQL's know them up to 5.7.
        match self.tls.mode {
            TlsMode::Off => text.push_str("skip-ssl\n"),
            TlsMode::Require => text.push_str("ssl\n"),
            TlsMode::Verify => text.push_str("ssl\nssl-verify-server-cert\n"),
        }
        Ok(text)
    }
}

impl fmt::Display for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.user, self.server)
    }
}

/// The part of an address behind `?`.
#[derive(Default)]
struct Keys {
    socket: Option<PathBuf>,
    password_file: Option<PathBuf>,
    tls: Option<TlsMode>,
    tls_ca: Option<PathBuf>,
    tls_name: Option<String>,
}

impl Keys {
    fn parse(query: &str) -> Result<Keys, DsnError> {
        let mut keys = Keys::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = unescape(value)?;
            let path = |value: String| {
                let path = PathBuf::from(value);
                if path.is_absolute() { Ok(path) } else { Err(DsnError::Relative(path)) }
            };
            match key {
                "socket" => keys.socket = Some(path(value)?),
                "password_file" => keys.password_file = Some(path(value)?),
                "tls" => keys.tls = Some(TlsMode::parse(&value)?),
                "tls_ca" => keys.tls_ca = Some(path(value)?),
                "tls_name" => keys.tls_name = Some(value),
                other => return Err(DsnError::Key(other.to_owned())),
            }
        }
        Ok(keys)
    }
}

/// Undoes percent-encoding.
fn unescape(text: &str) -> Result<String, DsnError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2).ok_or(DsnError::Escape)?;
        let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(DsnError::Escape);
        let value = digit(digits[0])? * 16 + digit(digits[1])?;
        bytes.push(u8::try_from(value).map_err(|_| DsnError::Escape)?);
        rest = tail;
    }
    String::from_utf8(bytes).map_err(|_| DsnError::Escape)
}

/// A value between double quotes in an option file.
fn escape_option(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            other => text.push(other),
        }
    }
    text
}

fn read_password(path: &Path) -> Result<String, PasswordError> {
    let unreadable = |source| PasswordError::Unreadable { path: path.to_owned(), source };
    let content = || PasswordError::Content { path: path.to_owned() };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(PasswordError::Open { path: path.to_owned(), mode });
    }
    let mut bytes = Vec::new();
    file.take(MAX_PASSWORD + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_PASSWORD {
        return Err(content());
    }
    let mut text = String::from_utf8(bytes).map_err(|_| content())?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

#[cfg(test)]
#[path = "dsn_tests.rs"]
mod tests;
