//! Where the archive goes on: is this still the server that it follows, and has it what comes next? If it is another
//! one (a failover), its GTIDs say in which of its files the history goes on.
//!
//! A file name alone proves nothing: another server has files of the same names. MariaDB is asked for the GTID state at
//! the archive's end (`BINLOG_GTID_POS`), MySQL for its uuid; the file's format description is compared as well when
//! the stream begins.

use crate::database::dsn::Dsn;
use crate::database::source::connect::holds_history;
use crate::database::source::fault::{Blame, SourceFault};
use crate::database::source::lane::ArchiveEnd;
use crate::database::source::session::FIRST_EVENT;
use crate::database::sql::{Sql, SqlError, quote_text};
use ehpc_proto::binlog::gtid::parse_uuid;
use ehpc_proto::binlog::{Flavor, FormatDescription, GtidState};
use ehpc_proto::replication::database::{ArchivedFile, Joined, Lineage, name_is_valid};

/// A server's account of its binary log.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Whose dialect it speaks.
    pub flavor: Flavor,
    /// `@@server_id`.
    pub server_id: u32,
    /// `@@server_uuid` (MySQL).
    pub server_uuid: Option<[u8; 16]>,
    /// `@@version`.
    pub version: String,
    /// GTID state at the end of its log.
    pub gtid: GtidState,
    /// Its files and their lengths, oldest first; at least one once they were asked for.
    pub logs: Vec<(String, u64)>,
}

/// What is done where the archive cannot simply go on.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Permission {
    /// Behind a gap with a new lineage (`on_gap = "new-base"`).
    pub gap: bool,
    /// With what the server has, although the archive has more (`db accept-loss`).
    pub loss: bool,
    /// The server's file of that name turned out to be another one: it is not the same server.
    pub another: bool,
    /// Only the server that the archive follows will do.
    pub follow_only: bool,
    /// A server that is still a replica of another one may take its place.
    pub replicas: bool,
}

/// Where to go on.
#[derive(Clone, Debug)]
pub struct Located {
    /// The server's file.
    pub file: String,
    /// Bytes of it that the archive has.
    pub offset: u64,
    /// Ordinal of that file in its lineage.
    pub ordinal: u32,
    /// Its format description, where the archive has it.
    pub expected: Option<FormatDescription>,
    /// The lineage; of a new one `first_event` is still to be filled in.
    pub lineage: Lineage,
    /// It is a new one.
    pub new: bool,
    /// In a new one that follows an earlier one.
    pub joined: Option<Joined>,
    /// What the server said of itself.
    pub facts: Facts,
}

/// Asks the server where the archive goes on.
///
/// # Errors
///
/// See [`SourceFault`].
pub async fn locate(
    sql: &mut Sql,
    dsn: &Dsn,
    end: &ArchiveEnd,
    permission: Permission,
    blame: &Blame,
) -> Result<Located, SourceFault> {
    let mut facts = Facts::ask(sql, blame).await?;
    let Some(lineage) = &end.lineage else {
        facts.list(sql, blame).await?;
        return Ok(begin(facts, 1, Oldest, None));
    };
    let mut search = Search { sql, dsn, end, facts, lineage, blame, permission };
    if !permission.another
        && let Some(located) = search.goes_on().await?
    {
        return Ok(located);
    }
    search.facts.list(search.sql, blame).await?;
    if !permission.another
        && let Some(located) = search.same_server().await?
    {
        return Ok(located);
    }
    if permission.follow_only {
        return Err(SourceFault::NotFollowed { server: blame.server.clone() });
    }
    if !permission.replicas {
        search.promoted().await?;
    }
    search.other_server().await
}

/// Which of the server's files a lineage without predecessor begins with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum First {
    Oldest,
    Newest,
}
use First::{Newest, Oldest};

fn begin(facts: Facts, number: u32, first: First, joined: Option<(String, Joined)>) -> Located {
    let name = |log: Option<&(String, u64)>| log.map(|(name, _)| name.clone()).unwrap_or_default();
    let (file, joined) = match (joined, first) {
        (Some((file, joined)), _) => (file, Some(joined)),
        (None, Oldest) => (name(facts.logs.first()), None),
        (None, Newest) => (name(facts.logs.last()), None),
    };
    let lineage = Lineage {
        number,
        flavor: facts.flavor,
        server_id: facts.server_id,
        server_uuid: facts.server_uuid,
        version: facts.version.chars().take(200).collect(),
        first_file: file.clone(),
        first_event: [0; 19],
    };
    Located { file, offset: 0, ordinal: 1, expected: None, lineage, new: true, joined, facts }
}

impl Facts {
    /// Asks.
    ///
    /// # Errors
    ///
    /// No privilege, no binary log, no answer.
    pub async fn ask(sql: &mut Sql, blame: &Blame) -> Result<Facts, SourceFault> {
        let fault = |error: SqlError| blame.sql(error);
        let mariadb = sql.dialect().is_mariadb();
        let flavor = if mariadb { Flavor::MariaDb } else { Flavor::MySql };
        let names = if mariadb {
            "@@GLOBAL.gtid_binlog_pos, @@GLOBAL.encrypt_binlog"
        } else {
            "@@GLOBAL.gtid_executed, 0"
        };
        let question = format!("SELECT @@GLOBAL.server_id, @@version, @@GLOBAL.log_bin, {names}");
        let row = sql.row(&question).await.map_err(fault)?;
        let row = row.ok_or_else(|| blame.lost("no answer to a SELECT of variables"))?;
        let server = blame.server.clone();
        if row.number(2) == Some(0) {
            return Err(SourceFault::NoBinaryLog { server });
        }
        if row.number(4) == Some(1) {
            return Err(SourceFault::Encrypted { server });
        }
        let uuid =
            if mariadb { None } else { sql.text("SELECT @@GLOBAL.server_uuid").await.map_err(fault)? };
        let gtid = GtidState::parse(flavor, &row.string(3).replace('\n', ""))
            .map_err(|error| blame.lost(format!("its GTID state cannot be read: {error}")))?;
        let server_id = row.number(0).and_then(|id| u32::try_from(id).ok()).unwrap_or(0);
        let server_uuid = uuid.as_deref().and_then(parse_uuid);
        Ok(Facts { flavor, server_id, server_uuid, version: row.string(1), gtid, logs: Vec::new() })
    }

    /// Asks for the files. While commits wait for a semi-synchronous replica, this statement waits with them
    /// (`LOCK_log`): a source that must first come back to acknowledge them cannot ask it.
    async fn list(&mut self, sql: &mut Sql, blame: &Blame) -> Result<(), SourceFault> {
        let server = blame.server.clone();
        let logs = sql.rows("SHOW BINARY LOGS").await.map_err(|error| blame.sql(error))?;
        let logs: Vec<(String, u64)> =
            logs.iter().map(|row| (row.string(0), row.number(1).unwrap_or(0))).collect();
        if let Some((name, _)) = logs.iter().find(|(name, _)| !name_is_valid(name)) {
            let text = format!(
                "its binary log is called `{name}`; only letters, digits, `_`, `-` and `.` are taken: in its my.cnf: \
                 [mysqld] log_bin = mysql-bin"
            );
            return Err(SourceFault::Unusable { server, text });
        }
        if logs.is_empty() {
            return Err(SourceFault::NoBinaryLog { server });
        }
        self.logs = logs;
        Ok(())
    }

    fn log(&self, name: &str) -> Option<usize> {
        self.logs.iter().position(|(log, _)| log == name)
    }

    /// The file after this one: by the list, or by its number when it was purged.
    fn after(&self, name: &str) -> Option<&(String, u64)> {
        match self.log(name) {
            Some(at) => self.logs.get(at + 1),
            None => self.logs.first().filter(|(first, _)| follows(name, first)),
        }
    }

    fn oldest(&self) -> String {
        self.logs.first().map(|(name, _)| name.clone()).unwrap_or_default()
    }
}

/// The name of the file that a server begins after this one.
fn next_name(name: &str) -> Option<String> {
    let (base, number) = name.rsplit_once('.')?;
    let next = number.parse::<u64>().ok()?.checked_add(1)?;
    Some(format!("{base}.{next:0width$}", width = number.len()))
}

/// Whether a binary log's name is the next after another.
fn follows(before: &str, after: &str) -> bool {
    let split = |name: &str| {
        let (base, number) = name.rsplit_once('.')?;
        Some((base.to_owned(), number.parse::<u64>().ok()?))
    };
    match (split(before), split(after)) {
        (Some((base, number)), Some((other, next))) => base == other && number.checked_add(1) == Some(next),
        _ => false,
    }
}

/// Whether a server's GTID state at the archive's end is the archive's own. The archive may end within a group, whose
/// GTID the server counts already.
fn continues(archive: &GtidState, server: &GtidState) -> bool {
    let (GtidState::Maria(archive), GtidState::Maria(server)) = (archive, server) else {
        return archive == server;
    };
    let differing: Vec<_> =
        server.iter().filter(|gtid| archive.domain(gtid.domain).as_ref() != Some(gtid)).collect();
    let lost = archive.iter().any(|gtid| server.domain(gtid.domain).is_none());
    match differing[..] {
        [] => !lost,
        [open] => !lost && archive.domain(open.domain).is_none_or(|known| known.seq < open.seq),
        _ => false,
    }
}

struct Search<'a> {
    sql: &'a mut Sql,
    dsn: &'a Dsn,
    end: &'a ArchiveEnd,
    facts: Facts,
    lineage: &'a Lineage,
    blame: &'a Blame,
    permission: Permission,
}

impl Search<'_> {
    /// The usual case, found without the list of files: the same MariaDB, whose history at the archive's end is the
    /// archive's. `None`: that is not certain.
    async fn goes_on(&mut self) -> Result<Option<Located>, SourceFault> {
        let same = (self.facts.flavor, self.facts.server_id) == (self.lineage.flavor, self.lineage.server_id);
        let Some(file) = self.end.file.clone().filter(|_| same && self.facts.flavor == Flavor::MariaDb)
        else {
            return Ok(None);
        };
        let (name, offset, ordinal) = match file.closed {
            false => (file.name.clone(), file.len, file.ordinal),
            true => match next_name(&file.name) {
                Some(next) => (next, 0, file.ordinal + 1),
                None => return Ok(None),
            },
        };
        // Of a file that is not there, or shorter than the archive's, the server says NULL.
        if !self.holds(&name, offset.max(FIRST_EVENT)).await? {
            return Ok(None);
        }
        let expected = if file.closed { None } else { self.expected(&file) };
        let (lineage, facts) = (self.lineage.clone(), self.facts.clone());
        Ok(Some(Located { file: name, offset, ordinal, expected, lineage, new: false, joined: None, facts }))
    }

    /// Where to go on when it is the server that the archive follows; `None` when it is not.
    async fn same_server(&mut self) -> Result<Option<Located>, SourceFault> {
        let lineage = self.lineage.clone();
        let who = |lineage: &Lineage| (lineage.flavor, lineage.server_uuid, lineage.server_id);
        if who(&lineage) != (self.facts.flavor, self.facts.server_uuid, self.facts.server_id) {
            return Ok(None);
        }
        let here = |file: &str, offset, ordinal, expected, facts: &Facts| Located {
            file: file.to_owned(),
            offset,
            ordinal,
            expected,
            lineage: lineage.clone(),
            new: false,
            joined: None,
            facts: facts.clone(),
        };
        let Some(file) = &self.end.file else {
            // The lineage is known, no file of it arrived.
            let known = self.facts.log(&lineage.first_file).is_some();
            return Ok(known.then(|| here(&lineage.first_file, 0, 1, None, &self.facts)));
        };
        if file.closed {
            let Some((next, _)) = self.facts.after(&file.name).cloned() else { return Ok(None) };
            let same = self.holds(&next, FIRST_EVENT).await?;
            return Ok(same.then(|| here(&next, 0, file.ordinal + 1, None, &self.facts)));
        }
        let Some(at) = self.facts.log(&file.name) else { return Ok(None) };
        if self.facts.logs[at].1 < file.len || !self.holds(&file.name, file.len.max(FIRST_EVENT)).await? {
            return Ok(None);
        }
        let expected = self.expected(file);
        Ok(Some(here(&file.name, file.len, file.ordinal, expected, &self.facts)))
    }

    fn expected(&self, file: &ArchivedFile) -> Option<FormatDescription> {
        let head = self.end.head.get(FIRST_EVENT as usize..).filter(|_| file.len > FIRST_EVENT)?;
        let size = ehpc_proto::binlog::EventHeader::decode(head).ok()?.size as usize;
        FormatDescription::decode(head.get(..size)?).ok()
    }

    fn archive_state(&self) -> Result<GtidState, SourceFault> {
        GtidState::parse(self.lineage.flavor, &self.end.gtid)
            .map_err(|error| SourceFault::Lane(format!("the archive's GTID state cannot be read: {error}")))
    }

    /// Whether the server's history at this place is the archive's.
    async fn holds(&mut self, file: &str, offset: u64) -> Result<bool, SourceFault> {
        if self.facts.flavor == Flavor::MySql {
            return Ok(true); // the uuid is compared, and the file's format description
        }
        let archive = self.archive_state()?;
        let server = self.state_at(file, offset).await?;
        // No group is open where a file begins.
        let same =
            |server| if offset == FIRST_EVENT { archive == server } else { continues(&archive, &server) };
        Ok(server.is_some_and(same))
    }

    /// The server's GTID state at a place of its log.
    async fn state_at(&mut self, file: &str, offset: u64) -> Result<Option<GtidState>, SourceFault> {
        let text = if self.facts.flavor == Flavor::MariaDb {
            self.sql
                .text(&format!("SELECT BINLOG_GTID_POS({}, {offset})", quote_text(file)))
                .await
                .map_err(|error| self.blame.sql(error))?
        } else {
            let rows = self
                .sql
                .rows(&format!("SHOW BINLOG EVENTS IN {} LIMIT 3", quote_text(file)))
                .await
                .map_err(|error| self.blame.sql(error))?;
            rows.iter().find(|row| row.string(2) == "Previous_gtids").map(|row| row.string(5))
        };
        let Some(text) = text else { return Ok(None) };
        let text: String = text.split_whitespace().collect();
        GtidState::parse(self.facts.flavor, &text)
            .map(Some)
            .map_err(|error| self.blame.lost(format!("its GTID state cannot be read: {error}")))
    }

    /// While the primary is only being restarted, its replicas hold the same history; none of them takes its place before
    /// somebody makes it the primary.
    async fn promoted(&mut self) -> Result<(), SourceFault> {
        let still = |why| Err(SourceFault::Unpromoted { server: self.blame.server.clone(), why });
        let read_only = self.sql.number("SELECT @@GLOBAL.read_only").await;
        if read_only.map_err(|error| self.blame.sql(error))? == Some(1) {
            return still("read_only is ON");
        }
        // Without the privilege to see it, `read_only` must do.
        let dialect = self.sql.dialect();
        let Ok(replicas) = self.sql.table(dialect.replica_status()).await else { return Ok(()) };
        let columns = dialect.replica_columns();
        let running = |row| replicas.text(row, columns.io_running).is_some_and(|running| running != "No");
        if (0..replicas.rows.len()).any(running) {
            still("it replicates from another server")
        } else {
            Ok(())
        }
    }

    fn end_text(&self) -> String {
        let file = self.end.file.as_ref();
        file.map_or_else(|| self.lineage.first_file.clone(), |file| format!("{}:{}", file.name, file.len))
    }

    /// It is another server, or the same one without what follows: where the history goes on by GTID.
    async fn other_server(&mut self) -> Result<Located, SourceFault> {
        let number = self.lineage.number + 1;
        let facts = self.facts.clone();
        if self.permission.loss {
            return Ok(begin(facts, number, Newest, None));
        }
        if self.lineage.flavor != facts.flavor {
            return self.gap("it is a server of another kind");
        }
        let archive = self.archive_state()?;
        if archive.is_empty() && facts.flavor == Flavor::MySql {
            return self.gap(
                "it is another server, and without gtid_mode=ON nothing says where the history goes on",
            );
        }
        if !facts.gtid.contains_all(&archive) {
            return Err(self.lacking(&archive, None));
        }
        let Some(end) = self.end.place() else { return Ok(begin(facts, number, Oldest, None)) };
        // A later number is no proof: the server may have counted on without the archive's last transaction.
        if facts.flavor == Flavor::MariaDb && !archive.is_empty() {
            let held = holds_history(self.dsn, self.blame.server_id, &archive.to_string()).await?;
            match held {
                Ok(()) => {}
                Err(text) if text.contains("purged") || text.contains("Could not find") => {
                    return self.gap("it purged the transactions that follow");
                }
                Err(text) => return Err(self.lacking(&archive, Some(text))),
            }
        }
        for (name, _) in facts.logs.iter().rev() {
            let Some(state) = self.state_at(name, FIRST_EVENT).await? else { continue };
            if archive.contains_all(&state) {
                let joined = Joined { end, gtid: self.end.gtid.clone() };
                return Ok(begin(facts.clone(), number, Oldest, Some((name.clone(), joined))));
            }
        }
        self.gap("its oldest file begins after the end of the archive")
    }

    /// The server has not all that the archive has.
    fn lacking(&self, archive: &GtidState, said: Option<String>) -> SourceFault {
        let (server, end) = (self.blame.server.clone(), self.end_text());
        let (held, found) = (archive.to_string(), self.facts.gtid.to_string());
        let same = self.lineage.server_id == self.facts.server_id
            && self.lineage.server_uuid == self.facts.server_uuid
            && !self.permission.another;
        if same {
            return SourceFault::Ahead { server, end, held, found };
        }
        let (here, there) = (self.facts.server_id, self.lineage.server_id);
        let why = said.unwrap_or_else(|| format!("it has server_id {here}, the archive's has {there}"));
        SourceFault::Diverged { server, end, held, found, why }
    }

    fn gap(&self, why: &'static str) -> Result<Located, SourceFault> {
        if self.permission.gap {
            return Ok(begin(self.facts.clone(), self.lineage.number + 1, Oldest, None));
        }
        let (server, oldest) = (self.blame.server.clone(), self.facts.oldest());
        Err(SourceFault::Gap { server, end: self.end_text(), oldest, why })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(text: &str) -> GtidState {
        GtidState::parse(Flavor::MariaDb, text).unwrap()
    }

    #[test]
    fn names_follow_each_other_by_their_number() {
        assert!(follows("bin.000009", "bin.000010"));
        assert!(follows("bin.999999", "bin.1000000"));
        assert!(!follows("bin.000009", "bin.000011"));
        assert!(!follows("bin.000009", "other.000010"));
        assert!(!follows("bin", "bin.000001"));
    }

    #[test]
    fn the_history_at_the_end_must_be_the_same() {
        assert!(continues(&state(""), &state("")));
        assert!(continues(&state("0-1-7"), &state("0-1-7")));
        assert!(continues(&state("0-1-7"), &state("0-1-8")), "the archive ends within 0-1-8");
        assert!(continues(&state("0-1-7"), &state("0-1-7,1-1-1")), "or within the first of a domain");
        assert!(!continues(&state("0-1-7"), &state("0-2-7")), "another server's");
        assert!(!continues(&state("0-1-7"), &state("0-1-6")));
        assert!(!continues(&state("0-1-7"), &state("")));
        assert!(!continues(&state("0-1-7,1-1-1"), &state("0-1-8,1-1-2")), "only one group is open");
    }
}
