//! SQL to a database server: the one user of `mysql_async`. (The binary log's stream is not read with it.)
//!
//! Text protocol only: every value arrives as the server's own text. A statement that is not finished in its time,
//! or whose future is dropped, ends the connection: what is still under way can then never be taken for an answer to
//! the next one.

pub use super::dsn::{Dsn, DsnError, Password, PasswordError, Server, Tls, TlsMode};

use super::dialect::{Dialect, DialectError};
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, DriverError, Error, IoError, OptsBuilder, SslOpts, Value};
use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Time for a connection and its login.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Time for a statement, unless `set_statement_time` says otherwise.
pub const STATEMENT_WITHIN: Duration = Duration::from_secs(60);
/// Longest packet that is read: rows here are names, counts, sums and statements.
const MAX_PACKET: usize = 64 << 20;
/// Silence after which a peer is asked whether it lives.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Longest part of a statement that an error shows, in characters.
const SHOWN: usize = 160;
/// Time for a metadata lock; the server's default is a day or a year, and a DDL of somebody else may hold it.
const LOCK_WAIT_SECONDS: u32 = 30;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum SqlError {
    #[error("the database server {server} cannot be reached: {source}")]
    Unreachable { server: String, source: io::Error },
    #[error("the database server {server} did not answer within {} s", .within.as_secs())]
    Silent { server: String, within: Duration },
    #[error("the database server {server} refuses {user}: {text} (error {number})")]
    Refused { server: String, user: String, number: u16, text: String },
    #[error("no TLS with the database server {server}: {text}")]
    Tls { server: String, text: String },
    #[error("{0}")]
    Password(#[from] PasswordError),
    #[error("the certificate file {path} cannot be read: {source}")]
    Authorities { path: PathBuf, source: io::Error },
    #[error("the account {user} at {server} wants a login method that is not spoken here: {text}")]
    Method { server: String, user: String, text: String },
    #[error("the server answered `{statement}` with error {number} ({state}): {text}")]
    Server { number: u16, state: String, text: String, statement: String },
    #[error("the connection to the database server {server} is lost: {text}")]
    Lost { server: String, text: String },
    #[error("`{statement}` was not finished within {} s; the connection is given up", .within.as_secs())]
    Slow { statement: String, within: Duration },
    #[error("the server's answer to `{statement}` is not understood: {what}")]
    Answer { statement: String, what: String },
    #[error("{0}")]
    Dialect(#[from] DialectError),
}

impl SqlError {
    /// The server's error number, when it was the server that refused.
    pub fn number(&self) -> Option<u16> {
        match self {
            SqlError::Refused { number, .. } | SqlError::Server { number, .. } => Some(*number),
            _ => None,
        }
    }

    /// Whether the connection has ended with it.
    pub fn is_connection(&self) -> bool {
        !matches!(self, SqlError::Server { .. } | SqlError::Answer { .. })
    }
}

/// One row of an answer: the columns' bytes, `None` for NULL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row(Vec<Option<Vec<u8>>>);

impl Row {
    /// A column's bytes; `None` for NULL and for a column that is not there.
    pub fn bytes(&self, column: usize) -> Option<&[u8]> {
        self.0.get(column)?.as_deref()
    }

    /// A column's text; what is not UTF-8 is replaced.
    pub fn text(&self, column: usize) -> Option<Cow<'_, str>> {
        self.bytes(column).map(String::from_utf8_lossy)
    }

    /// A column's text, empty for NULL.
    pub fn string(&self, column: usize) -> String {
        self.text(column).map(Cow::into_owned).unwrap_or_default()
    }

    /// A column as a number; `None` for NULL and for anything else.
    pub fn number(&self, column: usize) -> Option<u64> {
        std::str::from_utf8(self.bytes(column)?).ok()?.parse().ok()
    }

    /// How many columns there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Vec<Option<Vec<u8>>>> for Row {
    fn from(values: Vec<Option<Vec<u8>>>) -> Row {
        Row(values)
    }
}

impl From<Row> for Vec<Option<Vec<u8>>> {
    fn from(row: Row) -> Vec<Option<Vec<u8>>> {
        row.0
    }
}

/// Rows with their columns' names: answers of `SHOW .. STATUS`, whose columns differ between versions.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Table {
    /// The columns' names as the server spells them.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<Row>,
}

impl Table {
    /// The text of the named column of a row (compared without case); `None` for NULL, no such row, no such column.
    pub fn text(&self, row: usize, column: &str) -> Option<String> {
        let at = self.columns.iter().position(|name| name.eq_ignore_ascii_case(column))?;
        self.rows.get(row)?.text(at).map(Cow::into_owned)
    }

    /// The same for the first of several spellings that is there.
    pub fn first_of(&self, row: usize, columns: &[&str]) -> Option<String> {
        columns.iter().find_map(|column| self.text(row, column))
    }
}

/// A connection. Statements follow one another; for work side by side open several.
pub struct Sql {
    /// Taken while a statement runs: one that is dropped half-way takes the connection along.
    conn: Option<Conn>,
    server: String,
    id: u32,
    dialect: Dialect,
    within: Option<Duration>,
}

impl Sql {
    /// Connects, logs in and fixes the session: utf8mb4, a known `sql_mode`, UTC, short waits for metadata locks, no
    /// limits of the server's on how long a statement or a pause may be.
    pub async fn connect(dsn: &Dsn) -> Result<Sql, SqlError> {
        let server = dsn.server.to_string();
        let opts = options(dsn)?;
        let conn = match tokio::time::timeout(CONNECT_WITHIN, Conn::new(opts)).await {
            Err(_) => return Err(SqlError::Silent { server, within: CONNECT_WITHIN }),
            Ok(Err(error)) => return Err(login_error(dsn, error)),
            Ok(Ok(conn)) => conn,
        };
        let id = conn.id();
        let unknown = Dialect::MariaDb(super::dialect::Version::new(0, 0, 0));
        let mut sql = Sql { conn: Some(conn), server, id, dialect: unknown, within: Some(STATEMENT_WITHIN) };
        let (version, comment) = sql.versions().await?;
        sql.dialect = Dialect::detect(&version, &comment)?;
        for statement in session(sql.dialect) {
            sql.run(&statement).await?;
        }
        Ok(sql)
    }

    async fn versions(&mut self) -> Result<(String, String), SqlError> {
        let row = self.row("SELECT @@version, @@version_comment").await?;
        Ok(row.map(|row| (row.string(0), row.string(1))).unwrap_or_default())
    }

    /// Which server answers.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The server's number of this connection (`KILL`, `SHOW PROCESSLIST`).
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The server's address, for messages.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Time for each statement from now on; `None`: as long as it takes (a dead peer is still noticed).
    pub fn set_statement_time(&mut self, within: Option<Duration>) {
        self.within = within;
    }

    /// Runs one statement; its rows, if it has any, are not kept.
    pub async fn run(&mut self, statement: &str) -> Result<(), SqlError> {
        self.rows(statement).await.map(drop)
    }

    /// All rows of the (first) result.
    pub async fn rows(&mut self, statement: &str) -> Result<Vec<Row>, SqlError> {
        self.table(statement).await.map(|table| table.rows)
    }

    /// All rows of the (first) result, with the columns' names.
    pub async fn table(&mut self, statement: &str) -> Result<Table, SqlError> {
        let lost = || SqlError::Lost {
            server: self.server.clone(),
            text: "an earlier statement was not finished".to_owned(),
        };
        let mut conn = self.conn.take().ok_or_else(lost)?;
        let answer = match self.within {
            Some(within) => match tokio::time::timeout(within, ask(&mut conn, statement)).await {
                Ok(answer) => answer,
                Err(_) => return Err(SqlError::Slow { statement: shown(statement), within }),
            },
            None => ask(&mut conn, statement).await,
        };
        match answer {
            Ok(table) => {
                self.conn = Some(conn);
                Ok(table)
            }
            Err(Error::Server(error)) => {
                self.conn = Some(conn);
                Err(SqlError::Server {
                    number: error.code,
                    state: error.state,
                    text: error.message,
                    statement: shown(statement),
                })
            }
            Err(other) => Err(SqlError::Lost { server: self.server.clone(), text: chain(&other) }),
        }
    }

    /// The first row.
    pub async fn row(&mut self, statement: &str) -> Result<Option<Row>, SqlError> {
        Ok(self.rows(statement).await?.into_iter().next())
    }

    /// The first column of the first row as text; `None` for NULL and for no row.
    pub async fn text(&mut self, statement: &str) -> Result<Option<String>, SqlError> {
        Ok(self.row(statement).await?.and_then(|row| row.text(0).map(Cow::into_owned)))
    }

    /// The first column of the first row as a number; `None` for NULL and for no row.
    pub async fn number(&mut self, statement: &str) -> Result<Option<u64>, SqlError> {
        let Some(row) = self.row(statement).await? else { return Ok(None) };
        match (row.bytes(0), row.number(0)) {
            (None, _) => Ok(None),
            (_, Some(number)) => Ok(Some(number)),
            (Some(_), None) => Err(SqlError::Answer {
                statement: shown(statement),
                what: format!("`{}` is not a number", row.string(0)),
            }),
        }
    }

    /// A global variable; `None` when this server has no such variable.
    pub async fn variable(&mut self, name: &str) -> Result<Option<String>, SqlError> {
        self.named("VARIABLES", name).await
    }

    /// A global status value; `None` when this server has no such value.
    pub async fn status(&mut self, name: &str) -> Result<Option<String>, SqlError> {
        self.named("STATUS", name).await
    }

    /// Where this session's snapshot is in MariaDB's binary log, without one where its last commit ends
    /// (`Binlog_snapshot_file`, `Binlog_snapshot_position`); waits for no other commit. `None`: there is no binary log.
    pub async fn snapshot_place(&mut self) -> Result<Option<(String, u64)>, SqlError> {
        Ok(snapshot_place(&self.rows(SNAPSHOT_PLACE).await?))
    }

    async fn named(&mut self, what: &str, name: &str) -> Result<Option<String>, SqlError> {
        // `WHERE`, not `LIKE`: the `_` of a name is a wildcard there.
        let statement = format!("SHOW GLOBAL {what} WHERE Variable_name = {}", quote_text(name));
        Ok(self.row(&statement).await?.map(|row| row.string(1)))
    }

    /// Says goodbye. (Dropping ends the connection as well.)
    pub async fn close(mut self) {
        if let Some(conn) = self.conn.take() {
            // It ends either way.
            let _ = tokio::time::timeout(CONNECT_WITHIN, conn.disconnect()).await;
        }
    }
}

/// Asks a MariaDB where a session's snapshot is; for [`snapshot_place`].
pub const SNAPSHOT_PLACE: &str = "SHOW STATUS LIKE 'binlog_snapshot_%'";

/// File and offset of what [`SNAPSHOT_PLACE`] has answered; `None`: there is no binary log.
pub fn snapshot_place(rows: &[Row]) -> Option<(String, u64)> {
    let value = |name: &str| {
        rows.iter().find(|row| row.string(0).eq_ignore_ascii_case(name)).map(|row| row.string(1))
    };
    let position = value("binlog_snapshot_position").and_then(|text| text.parse().ok());
    value("binlog_snapshot_file").filter(|file| !file.is_empty()).zip(position)
}

/// Statements that fix a session.
fn session(dialect: Dialect) -> Vec<String> {
    let mut statements = vec![
        "SET NAMES utf8mb4".to_owned(),
        format!(
            "SET SESSION sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION', time_zone = '+00:00', \
             lock_wait_timeout = {LOCK_WAIT_SECONDS}, wait_timeout = 86400, net_write_timeout = 600"
        ),
    ];
    statements.extend(dialect.no_statement_limit().map(str::to_owned));
    statements
}

async fn ask(conn: &mut Conn, statement: &str) -> Result<Table, Error> {
    let mut result = conn.query_iter(statement).await?;
    let columns = result.columns_ref().iter().map(|column| column.name_str().into_owned()).collect();
    let mut rows = Vec::new();
    while let Some(row) = result.next().await? {
        rows.push(Row(row.unwrap_raw().into_iter().map(|value| value.and_then(bytes_of)).collect()));
    }
    result.drop_result().await?;
    Ok(Table { columns, rows })
}

/// The text protocol sends bytes and NULL only; the other forms are the library's for prepared statements.
fn bytes_of(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(bytes),
        other => Some(other.as_sql(true).trim_matches('\'').as_bytes().to_vec()),
    }
}

fn options(dsn: &Dsn) -> Result<OptsBuilder, SqlError> {
    let opts = OptsBuilder::default()
        .user(Some(dsn.user.clone()))
        .pass(dsn.secret()?)
        // Never another way than the one that was asked for.
        .prefer_socket(false)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(KEEPALIVE))
        .max_allowed_packet(Some(MAX_PACKET))
        .wait_timeout(Some(86_400))
        .stmt_cache_size(0)
        .connect_attribute("program_name", "ehpc-store");
    Ok(match &dsn.server {
        Server::Socket(path) => opts.socket(Some(path.to_string_lossy())),
        Server::Tcp(host, port) => {
            opts.ip_or_hostname(host.clone()).tcp_port(*port).ssl_opts(tls_options(&dsn.tls)?)
        }
    })
}

fn tls_options(tls: &Tls) -> Result<Option<SslOpts>, SqlError> {
    let mut opts = match tls.mode {
        TlsMode::Off => return Ok(None),
        TlsMode::Require => SslOpts::default().with_danger_accept_invalid_certs(true),
        TlsMode::Verify => SslOpts::default(),
    };
    if let (TlsMode::Verify, Some(ca)) = (tls.mode, &tls.ca) {
        // Read here already, so that the error names the file.
        let pem = authorities(ca)?;
        opts = opts.with_root_certs(vec![pem.into()]).with_disable_built_in_roots(true);
    }
    if let Some(name) = &tls.name {
        opts = opts.with_danger_tls_hostname_override(Some(name.clone()));
    }
    Ok(Some(opts))
}

fn authorities(path: &Path) -> Result<Vec<u8>, SqlError> {
    std::fs::read(path).map_err(|source| SqlError::Authorities { path: path.to_owned(), source })
}

/// What a failed login means.
fn login_error(dsn: &Dsn, error: Error) -> SqlError {
    let server = dsn.server.to_string();
    let user = dsn.user.clone();
    match error {
        Error::Server(error) => SqlError::Refused { server, user, number: error.code, text: error.message },
        Error::Io(IoError::Tls(error)) => SqlError::Tls { server, text: error.to_string() },
        Error::Io(IoError::Io(source)) if is_tls(&source) => {
            SqlError::Tls { server, text: source.to_string() }
        }
        Error::Io(IoError::Io(source)) => SqlError::Unreachable { server, source },
        Error::Driver(DriverError::NoClientSslFlagFromServer) => SqlError::Tls {
            server,
            text: format!(
                "the server has none, and tls = \"{}\" asks for it; give the server a certificate (ssl_cert, ssl_key) \
                 or write tls = \"off\" if the way is safe",
                dsn.tls.mode.word()
            ),
        },
        Error::Driver(
            error @ (DriverError::UnknownAuthPlugin { .. }
            | DriverError::MysqlOldPasswordDisabled
            | DriverError::CleartextPluginDisabled),
        ) => SqlError::Method { server, user, text: error.to_string() },
        other => SqlError::Lost { server, text: chain(&other) },
    }
}

/// `tokio-rustls` wraps the fault of the TLS library in an I/O error.
fn is_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

/// An error with its causes, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// A statement as an error shows it: shortened, and without what may hold a password.
fn shown(statement: &str) -> String {
    let upper = statement.to_ascii_uppercase();
    if upper.contains("PASSWORD") || upper.contains("IDENTIFIED") {
        let words: Vec<&str> = statement.split_whitespace().take(2).collect();
        return format!("{} ..", words.join(" "));
    }
    match statement.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}..", &statement[..at]),
        None => statement.to_owned(),
    }
}

/// A name between backticks, whatever it holds.
/// Source: "Identifier Names" (a backtick within is doubled).
pub fn quote_name(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// `schema`.`table`.
pub fn quote_table(schema: &str, table: &str) -> String {
    format!("{}.{}", quote_name(schema), quote_name(table))
}

/// A text literal; good for any `sql_mode` with backslash escapes, which is what a session here has.
pub fn quote_text(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('\'');
    for c in text.chars() {
        match c {
            '\'' => quoted.push_str("''"),
            '\\' => quoted.push_str("\\\\"),
            '\0' => quoted.push_str("\\0"),
            other => quoted.push(other),
        }
    }
    quoted.push('\'');
    quoted
}

/// A literal of any bytes (`x'..'`): without character set, so it compares as bytes.
pub fn quote_bytes(bytes: &[u8]) -> String {
    let mut quoted = String::with_capacity(bytes.len() * 2 + 3);
    quoted.push_str("x'");
    for byte in bytes {
        quoted.push_str(&format!("{byte:02x}"));
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
#[path = "sql_tests.rs"]
mod tests;
