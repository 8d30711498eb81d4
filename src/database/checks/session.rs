//! A connection to one of the two servers that are compared: straight, or through the backup.

use crate::database::dialect::Dialect;
use crate::database::link::BoxFuture;
use crate::database::sql::{Dsn, Row, Sql, SqlError, Table};

/// A connection on which statements follow one another.
pub trait Session: Send {
    /// Runs a statement; its rows with the columns' names.
    fn table<'a>(&'a mut self, statement: &'a str) -> BoxFuture<'a, Result<Table, SqlError>>;
    /// Which server it is.
    fn dialect(&self) -> Dialect;
    /// Its address, for messages.
    fn server(&self) -> &str;
}

/// Makes connections to one server.
pub trait Connect: Send + Sync {
    /// A new one, with the session settings of [`Sql::connect`] and no limit on a statement's time.
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Session>, SqlError>>;
}

impl Session for Sql {
    fn table<'a>(&'a mut self, statement: &'a str) -> BoxFuture<'a, Result<Table, SqlError>> {
        Box::pin(Sql::table(self, statement))
    }

    fn dialect(&self) -> Dialect {
        Sql::dialect(self)
    }

    fn server(&self) -> &str {
        Sql::server(self)
    }
}

impl Connect for Dsn {
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Session>, SqlError>> {
        Box::pin(async {
            let mut sql = Sql::connect(self).await?;
            sql.set_statement_time(None);
            Ok(Box::new(sql) as Box<dyn Session>)
        })
    }
}

/// The rows of an answer.
pub(super) async fn rows(session: &mut dyn Session, statement: &str) -> Result<Vec<Row>, SqlError> {
    Ok(session.table(statement).await?.rows)
}

/// The first column of the first row.
pub(super) async fn text(session: &mut dyn Session, statement: &str) -> Result<Option<String>, SqlError> {
    let rows = rows(session, statement).await?;
    Ok(rows.first().and_then(|row| row.bytes(0).map(|_| row.string(0))))
}
