//! Where the archive goes on: is this still the server that it follows, and has it what comes next? If it is another
//! one (a failover), its GTIDs say in which of its files the history goes on.
//!
//! A file name alone proves nothing: another server has files of the same names. MariaDB is asked for the GTID state at
//! the archive's end (`BINLOG_GTID_POS`), MySQL for its uuid; the file's format description is compared as well when
//! the stream begins. Of the server that the archive follows a GTID alone proves nothing either: after a lost tail or a
//! RESET MASTER it gives the same numbers out again. So its history goes on at the archive's end, byte for byte, or it is
//! `ahead`; only another server's history is joined by GTID.
//!
//! `SHOW BINARY LOGS` and `SHOW MASTER STATUS` wait with the commits that wait for a semi-synchronous replica
//! (`LOCK_log`), which may be us: names of files come from dumps instead ([`probe`](super::probe)).

use crate::database::dsn::Dsn;
use crate::database::source::facts::Facts;
use crate::database::source::fault::{Blame, Finding, SourceFault};
use crate::database::source::lane::ArchiveEnd;
use crate::database::source::probe;
use crate::database::source::session::FIRST_EVENT;
use crate::database::sql::{Sql, quote_text};
use ehpc_proto::binlog::{Flavor, FormatDescription, GtidState};
use ehpc_proto::replication::database::{ArchivedFile, Joined, Lineage, name_is_valid};

/// What is done where the archive cannot simply go on.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Permission {
    /// Behind a gap with a new lineage (`on_gap = "new-base"`).
    pub gap: bool,
    /// With what the server has, although the archive has more (`db accept-loss`).
    pub loss: bool,
    /// What a stream from the archive's end found there before.
    pub found: Option<Finding>,
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
    /// The archive's last file ends where the archive does, although the server did not say so: name and length.
    pub closing: Option<(String, u64)>,
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
    let facts = Facts::ask(sql, blame).await?;
    let Some(lineage) = &end.lineage else {
        let oldest = oldest(dsn, &facts, blame).await?;
        return Ok(begin(facts, 1, oldest, None));
    };
    let mut search = Search { sql, dsn, end, facts, lineage, blame, permission };
    if search.is_followed() {
        return search.same_server().await;
    }
    if permission.follow_only {
        return Err(SourceFault::NotFollowed { server: blame.server.clone() });
    }
    if !permission.replicas {
        search.promoted().await?;
    }
    search.other_server().await
}

/// A new lineage that begins with this file.
fn begin(facts: Facts, number: u32, file: String, joined: Option<Joined>) -> Located {
    let lineage = Lineage {
        number,
        flavor: facts.flavor,
        server_id: facts.server_id,
        server_uuid: facts.server_uuid,
        version: facts.version.chars().take(200).collect(),
        first_file: file.clone(),
        first_event: [0; 19],
    };
    Located { file, offset: 0, ordinal: 1, expected: None, lineage, new: true, joined, closing: None, facts }
}

/// The name of its oldest file.
async fn oldest(dsn: &Dsn, facts: &Facts, blame: &Blame) -> Result<String, SourceFault> {
    usable(probe::oldest(dsn, facts.flavor, blame).await?, blame)
}

fn usable(name: String, blame: &Blame) -> Result<String, SourceFault> {
    if name_is_valid(&name) {
        return Ok(name);
    }
    let text = format!(
        "its binary log is called `{name}`; only letters, digits, `_`, `-` and `.` are taken: in its my.cnf: \
         [mysqld] log_bin = mysql-bin"
    );
    Err(SourceFault::Unusable { server: blame.server.clone(), text })
}

/// The name of the file that a server begins after this one.
fn next_name(name: &str) -> Option<String> {
    let (base, number) = name.rsplit_once('.')?;
    let next = number.parse::<u64>().ok()?.checked_add(1)?;
    Some(format!("{base}.{next:0width$}", width = number.len()))
}

/// Whether a binary log of one series is older than another one of it.
fn is_older(name: &str, other: &str) -> bool {
    let split = |name: &str| {
        let (base, number) = name.rsplit_once('.')?;
        Some((base.to_owned(), number.parse::<u64>().ok()?))
    };
    match (split(name), split(other)) {
        (Some((base, number)), Some((other, later))) => base == other && number < later,
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

/// What the server that the archive follows has at the archive's end.
enum AtEnd {
    /// What comes next.
    Next(Box<Located>),
    /// Not what the archive has.
    Lost,
    /// Nothing any more: its files begin later.
    Purged,
    /// No file of the lineage is in the archive, and its first one is gone.
    Unbegun,
}

impl Search<'_> {
    /// Whether it is the server that the archive follows. (Servers with one number cannot replicate from each other, so
    /// that none of them takes the other's place.)
    fn is_followed(&self) -> bool {
        let who = |lineage: &Lineage| (lineage.flavor, lineage.server_uuid, lineage.server_id);
        who(self.lineage) == (self.facts.flavor, self.facts.server_uuid, self.facts.server_id)
    }

    async fn same_server(&mut self) -> Result<Located, SourceFault> {
        match self.at_end().await? {
            AtEnd::Next(located) => return Ok(*located),
            // There was no transaction yet.
            AtEnd::Lost if self.facts.flavor == Flavor::MariaDb && self.archive_state()?.is_empty() => {
                return self.other_server().await;
            }
            _ if self.permission.loss => return self.anew().await,
            AtEnd::Lost => {}
            AtEnd::Unbegun => {
                let oldest = oldest(self.dsn, &self.facts, self.blame).await?;
                return Ok(begin(self.facts.clone(), self.lineage.number + 1, oldest, None));
            }
            AtEnd::Purged => return self.gap("it purged the transactions that follow").await,
        }
        let held = self.archive_state()?.to_string();
        let (server, end, found) = (self.blame.server.clone(), self.end_text(), self.facts.gtid.to_string());
        Err(SourceFault::Ahead { server, end, held, found })
    }

    async fn at_end(&mut self) -> Result<AtEnd, SourceFault> {
        let (found, maria) = (self.permission.found, self.facts.flavor == Flavor::MariaDb);
        let Some(file) = self.end.file.clone() else {
            // The lineage is known, no file of it arrived.
            let first = self.lineage.first_file.clone();
            let gone = match maria {
                true => self.state_at(&first, FIRST_EVENT).await?.is_none(),
                false => found == Some(Finding::Gone),
            };
            return Ok(if gone { AtEnd::Unbegun } else { self.next(&first, 0, 1, None) });
        };
        if found == Some(Finding::Another) {
            return Ok(AtEnd::Lost);
        }
        let after = next_name(&file.name).unwrap_or_default();
        if file.closed {
            return match self.state_before(&after).await? {
                Before::NoFile => self.gone(&file).await,
                Before::State(state) if self.follows(&state)? => {
                    Ok(self.next(&after, 0, file.ordinal + 1, None))
                }
                Before::State(_) => Ok(AtEnd::Lost),
            };
        }
        // A server that was killed while it wrote leaves half an event, and goes on in the next file. (MySQL cuts it off.)
        if found == Some(Finding::Torn)
            && let Before::State(Some(state)) = self.state_before(&after).await?
            && state == self.archive_state()?
        {
            let mut next = self.located(&after, 0, file.ordinal + 1, None);
            next.closing = Some((file.name, file.len));
            return Ok(AtEnd::Next(Box::new(next)));
        }
        let expected = self.expected(&file);
        let next = self.next(&file.name, file.len, file.ordinal, expected);
        if !maria {
            // The uuid is the same; the dump says the rest.
            return if found == Some(Finding::Gone) { self.gone(&file).await } else { Ok(next) };
        }
        // The function knows 32 bits. Beyond, the file is read from its start, and its format description is compared.
        let asked = if u32::try_from(file.len).is_ok() { file.len.max(FIRST_EVENT) } else { FIRST_EVENT };
        let archive = self.archive_state()?;
        match self.state_at(&file.name, asked).await? {
            Some(state) if asked < file.len && archive.contains_all(&state) => Ok(next),
            // No group is open where a file begins.
            Some(state) if asked == FIRST_EVENT && state == archive => Ok(next),
            Some(state) if asked > FIRST_EVENT && continues(&archive, &state) => Ok(next),
            Some(_) => Ok(AtEnd::Lost),
            // Of a file that is not there, or shorter than the archive's, the server says NULL.
            None if asked > FIRST_EVENT && self.state_at(&file.name, FIRST_EVENT).await?.is_some() => {
                Ok(AtEnd::Lost)
            }
            None => self.gone(&file).await,
        }
    }

    fn located(&self, file: &str, offset: u64, ordinal: u32, expected: Option<FormatDescription>) -> Located {
        let (file, lineage, facts) = (file.to_owned(), self.lineage.clone(), self.facts.clone());
        Located { file, offset, ordinal, expected, lineage, new: false, joined: None, closing: None, facts }
    }

    fn next(&self, file: &str, offset: u64, ordinal: u32, expected: Option<FormatDescription>) -> AtEnd {
        AtEnd::Next(Box::new(self.located(file, offset, ordinal, expected)))
    }

    /// The archive's last file, or the one behind it, is not there: purged, or was it never in this log?
    async fn gone(&mut self, file: &ArchivedFile) -> Result<AtEnd, SourceFault> {
        let oldest = oldest(self.dsn, &self.facts, self.blame).await?;
        let purged = is_older(&file.name, &oldest) && self.facts.gtid.contains_all(&self.archive_state()?);
        Ok(if purged { AtEnd::Purged } else { AtEnd::Lost })
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

    /// Whether a file that begins so comes directly behind the archive. (MySQL's list may hold more: of what was never in
    /// a log. Without GTIDs it is empty.)
    fn follows(&self, state: &Option<GtidState>) -> Result<bool, SourceFault> {
        let archive = self.archive_state()?;
        Ok(match (self.facts.flavor, state) {
            (Flavor::MariaDb, state) => *state == Some(archive),
            (Flavor::MySql, Some(state)) => state.contains_all(&archive),
            (Flavor::MySql, None) => archive.is_empty(),
        })
    }

    /// The server's GTID state where one of its files begins.
    async fn state_before(&mut self, file: &str) -> Result<Before, SourceFault> {
        if self.facts.flavor == Flavor::MariaDb {
            let state = self.state_at(file, FIRST_EVENT).await?;
            return Ok(state.map_or(Before::NoFile, |state| Before::State(Some(state))));
        }
        match probe::state_before(self.dsn, file, self.blame).await {
            Ok(state) => Ok(Before::State(state)),
            Err(SourceFault::NoSuchFile { .. }) => Ok(Before::NoFile),
            Err(other) => Err(other),
        }
    }

    /// MariaDB's GTID state at a place of its log; `None` when it has no such place.
    async fn state_at(&mut self, file: &str, offset: u64) -> Result<Option<GtidState>, SourceFault> {
        let question = format!("SELECT BINLOG_GTID_POS({}, {offset})", quote_text(file));
        let text = self.sql.text(&question).await.map_err(|error| self.blame.sql(error))?;
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
        let dialect = self.sql.dialect();
        // `read_only` is OFF by default: that alone does not make it the primary.
        let replicas = self.sql.table(dialect.replica_status()).await;
        let replicas = replicas.map_err(|error| self.blame.sql(error))?;
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

    /// It is another server: where the history goes on by GTID, or without what is missing, when a person said so.
    async fn other_server(&mut self) -> Result<Located, SourceFault> {
        match self.joined().await {
            Err(SourceFault::Diverged { .. } | SourceFault::Gap { .. }) if self.permission.loss => {
                self.anew().await
            }
            joined => joined,
        }
    }

    async fn joined(&mut self) -> Result<Located, SourceFault> {
        let number = self.lineage.number + 1;
        let facts = self.facts.clone();
        if self.lineage.flavor != facts.flavor {
            return self.gap("it is a server of another kind").await;
        }
        let archive = self.archive_state()?;
        if archive.is_empty() && facts.flavor == Flavor::MySql {
            let why = "it is another server, and without gtid_mode=ON nothing says where the history goes on";
            return self.gap(why).await;
        }
        if !facts.gtid.contains_all(&archive) {
            return Err(self.diverged(&archive, None));
        }
        let Some(end) = self.end.place() else {
            let oldest = oldest(self.dsn, &facts, self.blame).await?;
            return Ok(begin(facts, number, oldest, None));
        };
        // A later number is no proof: the server may have counted on without the archive's last transaction.
        match probe::behind(self.dsn, self.blame.server_id, &archive, self.blame).await? {
            Ok(file) => {
                let joined = Joined { end, gtid: self.end.gtid.clone() };
                Ok(begin(facts, number, usable(file, self.blame)?, Some(joined)))
            }
            Err(error) if ["purged", "Could not find"].iter().any(|word| error.message.contains(word)) => {
                self.gap("it purged the transactions that follow").await
            }
            // MariaDB looks the transactions up.
            Err(error) if facts.flavor == Flavor::MariaDb => {
                Err(self.diverged(&archive, Some(error.message)))
            }
            Err(error) => Err(self.blame.dump(error)),
        }
    }

    /// The server has not all that the archive has.
    fn diverged(&self, archive: &GtidState, said: Option<String>) -> SourceFault {
        let (server, end) = (self.blame.server.clone(), self.end_text());
        let (held, found) = (archive.to_string(), self.facts.gtid.to_string());
        let (here, there) = (self.facts.server_id, self.lineage.server_id);
        let why = said.unwrap_or_else(|| format!("it has server_id {here}, the archive's has {there}"));
        SourceFault::Diverged { server, end, held, found, why }
    }

    /// What a person said: in a new lineage with what the server has now.
    async fn anew(&mut self) -> Result<Located, SourceFault> {
        let state = &self.facts.gtid;
        let known = self.facts.flavor == Flavor::MariaDb || !state.is_empty();
        let newest = match known {
            true => probe::behind(self.dsn, self.blame.server_id, state, self.blame).await?.ok(),
            false => None,
        };
        let newest = match newest {
            Some(newest) => newest,
            None => {
                let logs = self.sql.rows("SHOW BINARY LOGS").await.map_err(|error| self.blame.sql(error))?;
                let newest = logs.last().map(|row| row.string(0));
                newest.ok_or_else(|| SourceFault::NoBinaryLog { server: self.blame.server.clone() })?
            }
        };
        Ok(begin(self.facts.clone(), self.lineage.number + 1, usable(newest, self.blame)?, None))
    }

    async fn gap(&self, why: &'static str) -> Result<Located, SourceFault> {
        let oldest = oldest(self.dsn, &self.facts, self.blame).await?;
        if self.permission.gap {
            return Ok(begin(self.facts.clone(), self.lineage.number + 1, oldest, None));
        }
        Err(SourceFault::Gap { server: self.blame.server.clone(), end: self.end_text(), oldest, why })
    }
}

/// What a server says of a file's beginning.
enum Before {
    /// There is no such file.
    NoFile,
    /// The file's list of what happened before it, if it has one.
    State(Option<GtidState>),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(text: &str) -> GtidState {
        GtidState::parse(Flavor::MariaDb, text).unwrap()
    }

    #[test]
    fn names_follow_each_other_by_their_number() {
        assert_eq!(next_name("bin.000009").unwrap(), "bin.000010");
        assert_eq!(next_name("bin.999999").unwrap(), "bin.1000000");
        assert!(is_older("bin.000009", "bin.000011") && is_older("bin.999999", "bin.1000000"));
        assert!(!is_older("bin.000009", "bin.000009"));
        assert!(!is_older("bin.000009", "other.000010"));
        assert!(!is_older("bin", "bin.000001"));
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
