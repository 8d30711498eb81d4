//! What a database server must be like before it can be backed up, and the exact line that makes it so.
//!
//! `facts` asks the server, `rules` judges (pure), so that every rule can be shown on a server of its own.

mod facts;
mod rules;

#[cfg(test)]
mod tests;

use super::dialect::Dialect;
use super::sql::{Sql, SqlError, quote_text};
use crate::settings::Database;
use serde::{Deserialize, Serialize};
use std::fmt;

pub use facts::{Facts, OtherTable};

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It works; it could be better.
    Advice,
    /// It works, but a promise is weaker than it seems.
    Warning,
    /// Nothing is backed up, or not everything, until it is repaired.
    Error,
}

impl Severity {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Severity::Advice => "advice",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// One thing that is not as it should be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// A short fixed name: the variable that it is about, mostly.
    pub name: String,
    /// How bad it is.
    pub severity: Severity,
    /// What is so.
    pub what: String,
    /// Why that matters.
    pub why: String,
    /// Statements that repair the running server, in order; empty where only a restart helps.
    pub repair_sql: Vec<String>,
    /// Lines of the server's configuration file (group `[mysqld]`) that keep it so, or need a restart.
    pub repair_cnf: Vec<String>,
    /// What else helps, such as a line of the cluster's own settings.
    pub or_else: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.severity.word(), self.what, self.why)?;
        for statement in &self.repair_sql {
            write!(f, "\n    SQL     {statement};")?;
        }
        for (at, line) in self.repair_cnf.iter().enumerate() {
            let restart = match (self.repair_sql.is_empty(), at) {
                (true, 0) => "   # [mysqld], then restart the server",
                (false, 0) => "   # [mysqld]: keeps it so",
                _ => "",
            };
            write!(f, "\n    my.cnf  {line}{restart}")?;
        }
        if let Some(or_else) = &self.or_else {
            write!(f, "\n    or      {or_else}")?;
        }
        Ok(())
    }
}

/// Asks the server and judges it; the worst findings first.
pub async fn check(sql: &mut Sql, settings: &Database) -> Result<Vec<Finding>, SqlError> {
    let facts = Facts::ask(sql).await?;
    Ok(judge(&facts, settings))
}

/// Judges what was asked before; the worst findings first.
pub fn judge(facts: &Facts, settings: &Database) -> Vec<Finding> {
    let mut findings = rules::all(facts, settings);
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

/// The privileges that the account needs on `*.*`, as `GRANT` spells them.
/// MariaDB 10.11: shown to suffice for dump, stream and comparison. MySQL: from its manual (`mysqldump` locks for a
/// moment, and lists prepared transactions only to those who may).
pub fn privileges(dialect: Dialect, settings: &Database) -> Vec<&'static str> {
    let mut list = vec!["SELECT", "SHOW VIEW", "TRIGGER", "EVENT"];
    list.extend(dialect.source_privileges(settings.address.len() > 1));
    if !dialect.is_mariadb() {
        list.push("RELOAD");
        if dialect.version().major >= 8 {
            list.extend(["PROCESS", "XA_RECOVER_ADMIN"]);
        }
    }
    if settings.base_lock {
        list.push("LOCK TABLES");
        if dialect.is_mariadb() {
            list.push("RELOAD");
        }
    }
    list
}

/// The statements that make the account: for a server that refuses it.
pub fn account_sql(dialect: Dialect, settings: &Database) -> Vec<String> {
    let local = settings.address.iter().all(crate::settings::DatabaseAddress::is_local);
    let host = if local { "localhost" } else { "%" };
    let account = format!("{}@{}", quote_text(&settings.user), quote_text(host));
    let proof = match (settings.password_file.is_some(), dialect.is_mariadb()) {
        (true, _) => "IDENTIFIED BY 'the password of password_file'",
        (false, true) => "IDENTIFIED VIA unix_socket",
        (false, false) => "IDENTIFIED WITH auth_socket",
    };
    vec![
        format!("CREATE USER {account} {proof}"),
        format!("GRANT {} ON *.* TO {account}", privileges(dialect, settings).join(", ")),
    ]
}
