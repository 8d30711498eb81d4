//! The server's own dump program: its arguments, its process, and what its output says of the binary log.

use super::error::BaseError;
use super::record::LogPlace;
use crate::database::dsn::Dsn;
use crate::database::server::{Flavor, Program, ServerError, last_words, with_credentials};
use crate::host;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{ErrorKind, Read};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

const PIECE: usize = 256 << 10;
/// The place is in the first lines, well before any table.
const HEAD: usize = 64 << 10;
/// Longest last line that is looked at.
const TAIL: usize = 4 << 10;

/// What a dump is to hold.
pub(super) struct DumpPlan<'a> {
    /// Databases; none: nothing but the head.
    pub databases: &'a [String],
    /// Whose server is dumped.
    pub flavor: Flavor,
    /// (major, minor) of that server.
    pub release: (u16, u16),
    /// Locks every table that is not transactional while the dump runs.
    pub lock: bool,
}

/// Arguments of the main dump.
///
/// Source: "mariadb-dump", "mysqldump" in the vendors' manuals; `--dump-history` is needed for system-versioned
/// tables, `--max-allowed-packet` for long rows; longer statements than 4 MiB would not enter a server with
/// default settings.
pub(super) fn arguments(program: &Program, plan: &DumpPlan<'_>) -> Vec<String> {
    let mut all: Vec<String> = [
        "--routines",
        "--triggers",
        "--events",
        "--hex-blob",
        "--max-allowed-packet=1G",
        "--net-buffer-length=4M",
        "--order-by-primary",
        "--skip-dump-date",
        "--default-character-set=utf8mb4",
    ]
    .map(str::to_owned)
    .to_vec();
    let data = if program.knows("--source-data") { "--source-data=2" } else { "--master-data=2" };
    all.push(data.to_owned());
    all.push(if plan.lock { "--lock-all-tables" } else { "--single-transaction" }.to_owned());
    if plan.flavor == Flavor::MariaDb && program.flavor == Flavor::MariaDb {
        all.push("--gtid".to_owned());
        if keeps_history(program, plan.flavor, plan.release) {
            all.push("--dump-history".to_owned());
        }
    }
    if program.knows("--set-gtid-purged") {
        all.push("--set-gtid-purged=OFF".to_owned());
    }
    all.extend(["--databases", "--"].map(str::to_owned));
    all.extend(plan.databases.iter().cloned());
    all
}

/// Does the dump hold earlier rows of system-versioned tables? (They can be loaded into servers of 10.11 and later only.)
pub(super) fn keeps_history(program: &Program, flavor: Flavor, release: (u16, u16)) -> bool {
    flavor == Flavor::MariaDb && release >= (10, 11) && program.knows("--dump-history")
}

/// Arguments of the dump of accounts and privileges (MariaDB). It goes on after an error: see
/// [`without_unknown_accounts`].
pub(super) const ACCOUNTS: &[&str] =
    &["--system=users", "--insert-ignore", "--force", "--skip-dump-date", "--default-character-set=utf8mb4"];

/// With `skip_name_resolve` a server does not know its accounts `@'host.name'`: it lists them and refuses to show them
/// (errors 1133, 1141). Nobody can log in with them, so a base without them is complete. `None`: `said` tells of
/// something else; else `text` without the lines that the tool writes of them all the same.
pub(super) fn without_unknown_accounts(text: &[u8], said: &str) -> Option<Vec<u8>> {
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.is_empty() || !lines.iter().all(|line| line.contains("(1133)") || line.contains("(1141)")) {
        return None;
    }
    let account = |line: &&str| {
        let (_, rest) =
            line.split_once("'SHOW CREATE USER ").or_else(|| line.split_once("'SHOW GRANTS FOR "))?;
        Some(rest.split_once("': ")?.0.to_owned())
    };
    let unknown: Vec<String> = lines.iter().filter_map(account).collect();
    let is_of_unknown = |line: &[u8]| {
        let line = String::from_utf8_lossy(line);
        unknown.iter().any(|account| {
            line.starts_with(&format!("/*M!100005 SET DEFAULT ROLE NONE FOR {account} "))
                || line.starts_with(&format!("/*!80001 ALTER USER {account} DEFAULT ROLE "))
        })
    };
    Some(
        text.split_inclusive(|byte| *byte == b'\n')
            .filter(|line| !is_of_unknown(line))
            .flatten()
            .copied()
            .collect(),
    )
}

/// What of the accounts must be there before the data: users, with what they may do everywhere or in a whole database. A
/// view over a view is not made for a definer that does not exist. (What they may do with one table or routine cannot
/// be granted before that is there: all of it is granted again at the end.)
pub(super) fn early_accounts(accounts: &[u8]) -> Vec<u8> {
    let is_early = |line: &[u8]| {
        let line = String::from_utf8_lossy(line);
        if line.starts_with("CREATE USER IF NOT EXISTS ") {
            return true;
        }
        let granted =
            line.strip_prefix("GRANT ").and_then(|rest| rest.split_once(" ON ")?.1.split_once(" TO "));
        // A role has no host.
        granted.is_some_and(|(on, to)| {
            on.ends_with(".*") && to.split(' ').next().is_some_and(|name| name.contains('@'))
        })
    };
    accounts.split_inclusive(|byte| *byte == b'\n').filter(|line| is_early(line)).flatten().copied().collect()
}

/// A running dump.
pub(super) struct Dump {
    child: Child,
    output: ChildStdout,
    said: Option<JoinHandle<String>>,
    buffer: Vec<u8>,
}

impl Dump {
    /// Starts it. The thread that calls must live until it has ended.
    pub(super) fn start(program: &Program, dsn: &Dsn, arguments: &[String]) -> Result<Dump, BaseError> {
        let mut command = program.command();
        with_credentials(&mut command, dsn)?;
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        host::end_with_parent(&mut command);
        let start = |source| ServerError::Start { program: program.path.clone(), source };
        let mut child = command.spawn().map_err(start)?;
        let said = child.stderr.take().map(|stderr| std::thread::spawn(move || last_words(stderr)));
        let Some(output) = child.stdout.take() else { return Err(BaseError::Incomplete("it has no output")) };
        Ok(Dump { child, output, said, buffer: vec![0; PIECE] })
    }

    /// The next piece of its output; `None` at its end.
    pub(super) fn next(&mut self, stop: &AtomicBool) -> Result<Option<&[u8]>, BaseError> {
        loop {
            if stop.load(Ordering::Relaxed) {
                return Err(BaseError::Stopped);
            }
            // It may wait for a lock for as long as it likes; we look up now and then.
            let half = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };
            let mut ready = [PollFd::new(&self.output, PollFlags::IN)];
            match poll(&mut ready, Some(&half)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(BaseError::Read(error.into())),
            }
            match self.output.read(&mut self.buffer) {
                Ok(0) => return Ok(None),
                Ok(count) => return Ok(Some(&self.buffer[..count])),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(BaseError::Read(error)),
            }
        }
    }

    /// After its output's end: did it succeed?
    pub(super) fn finish(mut self) -> Result<(), BaseError> {
        let status = self.child.wait().map_err(BaseError::Read)?;
        let said = self.said.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        if status.success() { Ok(()) } else { Err(BaseError::Dump { status: status.to_string(), said }) }
    }
}

impl Drop for Dump {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What passes by of a dump's beginning and end.
#[derive(Default)]
pub(super) struct Margins {
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Margins {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let room = HEAD - self.head.len();
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL)..]);
        if self.tail.len() > TAIL {
            self.tail.drain(..self.tail.len() - TAIL);
        }
    }

    /// The place in the binary log, as soon as its line is complete.
    pub(super) fn place(&self) -> Option<LogPlace> {
        let end = self.head.iter().rposition(|byte| *byte == b'\n')?;
        let text = String::from_utf8_lossy(&self.head[..end]);
        text.lines().find_map(place_of_line)
    }

    /// Does it end as a complete dump does?
    pub(super) fn is_complete(&self) -> bool {
        let text = String::from_utf8_lossy(&self.tail);
        text.trim_end().rsplit('\n').next().is_some_and(|line| line.starts_with("-- Dump completed"))
    }
}

/// `-- CHANGE MASTER TO MASTER_LOG_FILE='bin.000001', MASTER_LOG_POS=1268;`, or with SOURCE.
fn place_of_line(line: &str) -> Option<LogPlace> {
    let rest = line.strip_prefix("-- CHANGE ")?;
    let (_, rest) = rest.split_once("_LOG_FILE='")?;
    let (file, rest) = rest.split_once('\'')?;
    let (_, rest) = rest.split_once("_LOG_POS=")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some(LogPlace { file: file.to_owned(), offset: digits.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_read_in_both_spellings_and_only_from_a_whole_line() {
        let maria = "-- CHANGE MASTER TO MASTER_USE_GTID=slave_pos;\n-- CHANGE MASTER TO MASTER_LOG_FILE='bin.000001', MASTER_LOG_POS=1268;\n";
        let mysql = "-- CHANGE REPLICATION SOURCE TO SOURCE_LOG_FILE='binlog.000002', SOURCE_LOG_POS=157;\n";
        let place = |text: &str| {
            let mut margins = Margins::default();
            text.as_bytes().chunks(7).for_each(|piece| margins.push(piece));
            margins.place()
        };
        assert_eq!(place(maria), Some(LogPlace { file: "bin.000001".to_owned(), offset: 1268 }));
        assert_eq!(place(mysql), Some(LogPlace { file: "binlog.000002".to_owned(), offset: 157 }));
        assert_eq!(place(&maria[..maria.len() - 4]), None);
        assert_eq!(place("INSERT INTO t VALUES ('-- CHANGE MASTER TO MASTER_LOG_FILE=''x''');\n"), None);
    }

    #[test]
    fn only_accounts_that_the_server_itself_does_not_know_are_left_out() {
        let unknown = "mariadb-dump: Couldn't execute 'SHOW CREATE USER 'root'@'vm'': Can't find any matching row in the user table (1133)";
        let text = b"CREATE USER a;\n/*M!100005 SET DEFAULT ROLE NONE FOR 'root'@'vm' */;\n/*!80001 ALTER USER 'root'@'vm' DEFAULT ROLE NONE */;\n/*M!100005 SET DEFAULT ROLE NONE FOR 'root'@'vms' */;\n-- Dump completed\n";
        let left = without_unknown_accounts(text, unknown).unwrap();
        let left = String::from_utf8(left).unwrap();
        assert_eq!(
            left,
            "CREATE USER a;\n/*M!100005 SET DEFAULT ROLE NONE FOR 'root'@'vms' */;\n-- Dump completed\n"
        );
        assert_eq!(
            without_unknown_accounts(text, &format!("{unknown}\nmariadb-dump: Got error: 2013: lost")),
            None
        );
        assert_eq!(without_unknown_accounts(text, ""), None);
    }

    #[test]
    fn users_and_their_wide_privileges_come_early() {
        let text = "-- MariaDB dump\nCREATE USER IF NOT EXISTS `a`@`%`;\nCREATE ROLE IF NOT EXISTS r;\nGRANT USAGE ON *.* TO `a`@`%` IDENTIFIED BY PASSWORD 'x';\nGRANT SELECT ON `d`.* TO `a`@`%`;\nGRANT SELECT ON `d`.`t` TO `a`@`%`;\nGRANT EXECUTE ON PROCEDURE `d`.`p` TO `a`@`%`;\nGRANT USAGE ON *.* TO `r`;\nGRANT `r` TO `a`@`%`;\nGRANT PROXY ON ``@`%` TO `a`@`%`;\n";
        let early = String::from_utf8(early_accounts(text.as_bytes())).unwrap();
        let lines: Vec<&str> = early.lines().collect();
        assert_eq!(
            lines,
            [
                "CREATE USER IF NOT EXISTS `a`@`%`;",
                "GRANT USAGE ON *.* TO `a`@`%` IDENTIFIED BY PASSWORD 'x';",
                "GRANT SELECT ON `d`.* TO `a`@`%`;"
            ]
        );
    }

    #[test]
    fn a_dump_is_complete_when_its_last_line_says_so() {
        let complete = |text: &str| {
            let mut margins = Margins::default();
            text.as_bytes().chunks(5000).for_each(|piece| margins.push(piece));
            margins.is_complete()
        };
        assert!(complete(&format!("{}\n-- Dump completed\n", "x".repeat(20_000))));
        assert!(complete("\n-- Dump completed on 2026-11-27 17:00:00\n\n"));
        assert!(!complete("-- Dump completed\nINSERT INTO"));
        assert!(!complete(&"x".repeat(20_000)));
    }
}
