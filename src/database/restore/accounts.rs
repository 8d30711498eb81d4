//! The account that a restore works with keeps its password and its privileges: a base, and the binary log after it, may know
//! one of the same name, and the next connection would be refused. Of the base, what it may not grant is left out, and told.

use super::error::is_of_machine;
use crate::database::base::AccountsAt;
use crate::database::dsn::Dsn;
use crate::database::server::ACCOUNT;
use crate::database::sql::{Row, Sql, SqlError, quote_name, quote_text};
use std::io::{self, Read};

const PIECE: usize = 64 << 10;

/// The account that works.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Account {
    /// In the spellings of dump programs; and the account of our own servers, which a base of such a server knows.
    spelled: [String; 4],
    /// May it grant PROXY? That is not part of ALL PRIVILEGES.
    grants_proxy: bool,
}

impl Account {
    /// The account that we are on that connection.
    pub(super) async fn of(sql: &mut Sql) -> Result<Account, SqlError> {
        let current = sql.text("SELECT CURRENT_USER()").await?.unwrap_or_default();
        let grants = sql.rows("SHOW GRANTS").await?;
        let proxy = |row: &Row| {
            let grant = row.string(0);
            grant.starts_with("GRANT PROXY ON ") && grant.ends_with(" WITH GRANT OPTION")
        };
        Ok(Account::named(&current, grants.iter().any(proxy)))
    }

    /// `current`: name@host, as `SELECT CURRENT_USER()` says.
    fn named(current: &str, grants_proxy: bool) -> Account {
        let (name, host) = current.rsplit_once('@').unwrap_or((current, "%"));
        let names = |name: &str, host: &str| format!("{}@{}", quote_name(name), quote_name(host));
        let texts = |name: &str, host: &str| format!("{}@{}", quote_text(name), quote_text(host));
        let (ours, here) = (ACCOUNT, "localhost");
        let spelled = [names(name, host), texts(name, host), names(ours, here), texts(ours, here)];
        Account { spelled, grants_proxy }
    }

    /// Is a line of others' privileges one that this account may not give?
    fn may_not_give(&self, line: &[u8]) -> bool {
        !self.grants_proxy && line.starts_with(b"GRANT PROXY ON ")
    }

    /// Is it one of these accounts that a line of accounts and privileges makes, or gives something to?
    fn is_made_by(&self, line: &[u8]) -> bool {
        let line = String::from_utf8_lossy(line);
        let line = line.trim_start_matches("/*M!100005 ").trim_start_matches("/*!80001 ");
        let names = |text: &str| {
            let rest = self.spelled.iter().find_map(|spelled| text.strip_prefix(spelled.as_str()));
            rest.is_some_and(|rest| rest.trim_end().is_empty() || rest.starts_with([' ', ';']))
        };
        let after = |word: &str| line.match_indices(word).any(|(at, _)| names(&line[at + word.len()..]));
        if line.starts_with("GRANT ") {
            return after(" TO ");
        }
        if line.starts_with("SET DEFAULT ROLE ") {
            return after(" FOR ");
        }
        let made = ["CREATE USER IF NOT EXISTS ", "ALTER USER ", "SET PASSWORD FOR "];
        made.iter().any(|word| line.strip_prefix(word).is_some_and(names))
    }
}

/// The account as it was, and a connection from before: its session keeps the privileges, whatever becomes of the account.
pub(super) struct Kept {
    sql: Sql,
    /// `name`@`host`.
    name: String,
    /// What `SHOW CREATE USER` said, from the name on.
    made: String,
    /// What `SHOW GRANTS` said.
    grants: Vec<String>,
}

impl Kept {
    /// `None`: it is a MySQL, which tells and takes these in another way.
    pub(super) async fn of(dsn: &Dsn) -> Result<Option<Kept>, SqlError> {
        let mut sql = Sql::connect(dsn).await?;
        if !sql.dialect().is_mariadb() {
            return Ok(None);
        }
        // It waits for as long as the restore takes.
        sql.run("SET SESSION wait_timeout = 31536000").await?;
        let current = sql.text("SELECT CURRENT_USER()").await?.unwrap_or_default();
        let (name, host) = current.rsplit_once('@').unwrap_or((&current, "%"));
        let name = format!("{}@{}", quote_name(name), quote_name(host));
        let mut kept = Kept { sql, name, made: String::new(), grants: Vec::new() };
        (kept.made, kept.grants) = kept.now().await?;
        Ok(Some(kept))
    }

    /// How it is made and what it may, now; empty when it is gone.
    async fn now(&mut self) -> Result<(String, Vec<String>), SqlError> {
        let gone = |error: SqlError| match error.number() {
            Some(1133 | 1141 | 1396) => Ok(Vec::new()),
            _ => Err(error),
        };
        let made = self.sql.rows("SHOW CREATE USER CURRENT_USER()").await.or_else(gone)?;
        let grants = self.sql.rows("SHOW GRANTS FOR CURRENT_USER()").await.or_else(gone)?;
        let made = made.first().map(|row| row.string(0)).unwrap_or_default();
        let made = made.strip_prefix("CREATE USER ").unwrap_or(&made).to_owned();
        Ok((made, grants.iter().map(|row| row.string(0)).collect()))
    }

    /// Gives it back what it has lost. What the server does not give again, because it is not there any more (a role, a table,
    /// a routine), with its reason.
    pub(super) async fn put_back(&mut self) -> Result<Vec<String>, SqlError> {
        let (made, grants) = self.now().await?;
        if made != self.made {
            let (name, as_it_was) = (&self.name, &self.made);
            for statement in [
                format!("CREATE USER IF NOT EXISTS {as_it_was}"),
                format!("ALTER USER {name} REQUIRE NONE ACCOUNT UNLOCK"),
                format!("ALTER USER {as_it_was}"),
            ] {
                self.sql.run(&statement).await.map_err(|error| hidden(error, name))?;
            }
        }
        let mut gone = Vec::new();
        for grant in self.grants.iter().filter(|grant| !grants.contains(grant)) {
            match self.sql.run(grant).await {
                // (One with a password is of the whole server, and needs nothing that could be gone.)
                Err(SqlError::Server { number, text, .. })
                    if !is_of_machine(number.into()) && !grant.contains(" IDENTIFIED ") =>
                {
                    gone.push(format!("{grant} -- error {number}: {text}"));
                }
                other => other.map_err(|error| hidden(error, &self.name))?,
            }
        }
        Ok(gone)
    }
}

/// The error of such a statement, which holds the hash of a password.
fn hidden(error: SqlError, name: &str) -> SqlError {
    let shown = format!("the account {name} as it was");
    match error {
        SqlError::Server { number, state, text, .. } => {
            SqlError::Server { number, state, text, statement: shown }
        }
        SqlError::Slow { within, .. } => SqlError::Slow { statement: shown, within },
        other => other,
    }
}

/// A base's SQL without what it says of one account.
pub(super) struct Without<R> {
    sql: R,
    /// Byte that comes next.
    at: u64,
    accounts: AccountsAt,
    account: Account,
    /// A line that is not complete yet.
    line: Vec<u8>,
    /// Lines that are to be handed out, and how much of them was.
    ready: (Vec<u8>, usize),
    /// Statements of other accounts that are left out.
    left_out: Vec<String>,
}

impl<R: Read> Without<R> {
    pub(super) fn new(sql: R, accounts: AccountsAt, account: Account) -> Without<R> {
        Without {
            sql,
            at: 0,
            accounts,
            account,
            line: Vec::new(),
            ready: (Vec::new(), 0),
            left_out: Vec::new(),
        }
    }

    /// What was left out although it is not of that account: it may not give it.
    pub(super) fn left_out(self) -> Vec<String> {
        self.left_out
    }

    /// Takes whole lines of accounts in; false at the end.
    fn take_lines(&mut self) -> io::Result<bool> {
        let mut piece = [0; PIECE];
        let limit = match self.at < self.accounts.early {
            true => self.accounts.early - self.at,
            false => PIECE as u64,
        };
        let limit = usize::try_from(limit).unwrap_or(PIECE).min(PIECE);
        let count = self.sql.read(&mut piece[..limit])?;
        self.at += count as u64;
        self.ready = (Vec::new(), 0);
        for part in piece[..count].split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                self.end_line();
            }
        }
        if count == 0 || self.at == self.accounts.early {
            self.end_line();
        }
        Ok(count > 0)
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        if self.account.is_made_by(&line) {
            return;
        }
        match self.account.may_not_give(&line) {
            true => self.left_out.push(String::from_utf8_lossy(&line).trim_end().to_owned()),
            false => self.ready.0.extend(line),
        }
    }
}

impl<R: Read> Read for Without<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let (ready, from) = &mut self.ready;
            if *from < ready.len() && !buffer.is_empty() {
                let count = buffer.len().min(ready.len() - *from);
                buffer[..count].copy_from_slice(&ready[*from..*from + count]);
                *from += count;
                return Ok(count);
            }
            if self.at >= self.accounts.early && self.at < self.accounts.late {
                let left = usize::try_from(self.accounts.late - self.at).unwrap_or(usize::MAX);
                let limit = buffer.len().min(left);
                let count = self.sql.read(&mut buffer[..limit])?;
                self.at += count as u64;
                return Ok(count);
            }
            if buffer.is_empty() || (!self.take_lines()? && self.ready.0.is_empty()) {
                return Ok(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_said_of_that_account_is_left_out() {
        let account = Account::named("ad`min@10.%", true);
        let made = [
            "CREATE USER IF NOT EXISTS `ad``min`@`10.%` IDENTIFIED BY PASSWORD '*1';\n",
            "GRANT USAGE ON *.* TO `ad``min`@`10.%` IDENTIFIED BY PASSWORD '*1';\n",
            "GRANT ALL PRIVILEGES ON *.* TO 'ad`min'@'10.%' WITH GRANT OPTION;\n",
            "GRANT PROXY ON ``@`%` TO `ad``min`@`10.%`;\n",
            "GRANT `r` TO `ad``min`@`10.%`;",
            "GRANT ALL PRIVILEGES ON *.* TO `ehpc_standby`@`localhost` WITH GRANT OPTION;\n",
            "/*M!100005 SET DEFAULT ROLE NONE FOR 'ad`min'@'10.%' */;\n",
            "/*!80001 ALTER USER 'ad`min'@'10.%' DEFAULT ROLE NONE */;\n",
        ];
        let others = [
            "CREATE USER IF NOT EXISTS `ad``min`@`10.%.1`;\n",
            "GRANT USAGE ON *.* TO `ad``min`@`%`;\n",
            "GRANT PROXY ON `ad``min`@`10.%` TO `other`@`%`;\n",
            "CREATE ROLE IF NOT EXISTS mariadb_dump_import_role;\n",
            "SELECT 'GRANT USAGE ON *.* TO `ad``min`@`10.%`';\n",
        ];
        for line in made {
            assert!(account.is_made_by(line.as_bytes()), "{line}");
        }
        for line in others {
            assert!(!account.is_made_by(line.as_bytes()) && !account.may_not_give(line.as_bytes()), "{line}");
        }
        let proxy = "GRANT PROXY ON ``@`%` TO `other`@`%` WITH GRANT OPTION;\n";
        assert!(!account.may_not_give(proxy.as_bytes()));
        let text = format!("{}{proxy}", others[1]);
        let at = AccountsAt { early: text.len() as u64, late: text.len() as u64 };
        let mut sql = Without::new(text.as_bytes(), at, Account::named("root@localhost", false));
        let mut read = String::new();
        sql.read_to_string(&mut read).unwrap();
        assert_eq!((read.as_str(), sql.left_out()), (others[1], vec![proxy.trim_end().to_owned()]));
        // In accounts, whatever pieces they come in; not in the data between them, where such a line may be part of a body.
        let (accounts, data) = (made.concat() + "\n" + &others.concat(), made.concat());
        let text = format!("{accounts}{data}{accounts}");
        let at = AccountsAt { early: accounts.len() as u64, late: (accounts.len() + data.len()) as u64 };
        let wanted = format!("\n{0}{data}\n{0}", others.concat());
        for size in [1, 7, 100_000] {
            let mut sql = Without::new(text.as_bytes(), at, account.clone());
            let (mut read, mut buffer) = (Vec::new(), vec![0; size]);
            while let count @ 1.. = sql.read(&mut buffer).unwrap() {
                read.extend_from_slice(&buffer[..count]);
            }
            assert_eq!(String::from_utf8(read).unwrap(), wanted, "{size}");
        }
    }
}
