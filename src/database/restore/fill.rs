//! A base, then the archive, into a server: exactly up to a place.

use super::accounts::{Account, Kept, Without};
use super::branches::{self, Group};
use super::compare::{Compared, compare};
use super::error::RestoreError;
use super::plan::{self, BaseAt, Hole, Segment, Span};
use super::replay::Replay;
use crate::database::archive::{Archive, Stop};
use crate::database::base::{AccountsAt, BaseRecord, BaseStore, LogPlace};
use crate::database::dsn::Dsn;
use crate::database::server::{Client, Flavor, LoadOptions, Program, ServerError, Tool, Tools};
use crate::database::sql::Sql;
use ehpc_proto::binlog::{GtidState, Xid};
use ehpc_proto::replication::database::Place;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::runtime::Handle;

/// What everything is taken from.
#[derive(Clone)]
pub struct Vault<'a> {
    /// The binary logs.
    pub archive: &'a Arc<Archive>,
    /// The base snapshots.
    pub bases: &'a BaseStore,
    /// Where the server's programs are.
    pub tools: &'a Tools,
    /// For the SQL.
    pub runtime: &'a Handle,
}

/// The way to a place.
pub(crate) struct Route {
    pub(crate) base: BaseRecord,
    /// The base's own place.
    pub(crate) place: Place,
    pub(crate) segments: Vec<Segment>,
    pub(crate) flavor: Flavor,
}

/// What a route takes, found before anything is touched.
pub(crate) struct Means {
    client: Program,
    binlog: Program,
    /// Those that prepared what was neither committed nor rolled back at the base's place.
    prepared: Vec<Group>,
    /// Ends of branches that nothing prepares: they are left out.
    holes: Vec<Hole>,
    /// Branches that were prepared at the base's place, or are ended on the way, and that no log prepares. Each once.
    pub(super) unlogged: Vec<Xid>,
}

/// What was applied.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Filled {
    pub(crate) base_bytes: u64,
    /// Statements of the base that were left out, because the account that works may not run them.
    pub(super) left_out: Vec<String>,
    pub(crate) replayed_bytes: u64,
    /// `None`: the base has no sums, or they are of a later moment.
    pub(super) compared: Option<Compared>,
}

impl Vault<'_> {
    /// A place that the server's own names tell, in `lineage` (0: the newest that has the file).
    pub(crate) fn place(&self, lineage: u32, at: &LogPlace) -> Option<Place> {
        // One that is lost is told when it is needed.
        let files = self.archive.listed();
        let mut named = files.iter().rev().filter(|file| file.name == at.file);
        let file = named.find(|file| lineage == 0 || file.lineage == lineage)?;
        Some(Place { lineage: file.lineage, file: file.ordinal, offset: at.offset })
    }

    fn spans(&self) -> Vec<Span> {
        let lineages = self.archive.lineages().into_iter();
        let span = |record: crate::database::archive::LineageRecord| Span {
            lineage: record.lineage.number,
            joined: record.joined.map(|joined| (joined.end, joined.gtid)),
        };
        lineages.map(span).collect()
    }

    /// The base and the parts of the archive that lead to `stop`.
    pub(crate) fn route(&self, stop: &Stop) -> Result<Route, RestoreError> {
        let records = self.bases.list();
        let at = |record: &BaseRecord| {
            let mut place = self.place(record.lineage, &record.place)?;
            // Nothing lies between them but the beginning of another file.
            if place.lineage == stop.place.lineage && is_state(record, &stop.gtid) {
                place = place.min(stop.place);
            }
            Some(BaseAt { number: record.number, place })
        };
        let usable: Vec<BaseAt> = records.iter().filter_map(at).collect();
        let Some((chosen, segments)) = plan::choose(&usable, stop.place, &self.spans()) else {
            return Err(self.no_base(&records, &usable, stop));
        };
        let base = self.bases.record(chosen.number)?;
        let lineages = self.archive.lineages();
        let lineage = lineages.into_iter().find(|record| record.lineage.number == stop.place.lineage);
        let flavor = lineage.map_or(base.flavor, |record| record.lineage.flavor);
        let place = self.place(base.lineage, &base.place).unwrap_or(chosen.place);
        Ok(Route { base, place, segments, flavor })
    }

    fn no_base(&self, records: &[BaseRecord], usable: &[BaseAt], stop: &Stop) -> RestoreError {
        let oldest = usable.iter().min_by_key(|base| base.place);
        let record = oldest.and_then(|base| records.iter().find(|record| record.number == base.number));
        let (oldest, hint) = match record {
            Some(record) => {
                (format!("number {}, of {}:{}", record.number, record.place.file, record.place.offset), "")
            }
            None => ("none".to_owned(), ", after the first base snapshot (`ehpc-store db snapshot`)"),
        };
        let place = format!(" (lineage {})", stop.place.lineage);
        RestoreError::NoBase { file: stop.file.clone(), offset: stop.place.offset, place, oldest, hint }
    }

    /// Programs, base, binary logs and prepared branches: all there?
    pub(crate) fn means(&self, route: &Route) -> Result<Means, RestoreError> {
        let find = |tool| self.tools.find(tool, route.flavor).map_err(ServerError::from);
        let (client, binlog) = (find(Tool::Client)?, find(Tool::Binlog)?);
        let base = &route.base;
        self.bases.is_whole(base.number)?;
        let (prepared, open) = match self.place(base.lineage, &base.before) {
            // MySQL does not log a prepared branch.
            _ if route.flavor == Flavor::MySql => (Vec::new(), Vec::new()),
            Some(before) => branches::open_at(self.archive, base, before, route.place)?,
            None => {
                return Err(RestoreError::LostBefore { base: base.number, file: base.before.file.clone() });
            }
        };
        for ((lineage, ordinal), end) in files_read(route, &prepared) {
            let known = self.archive.known_damage(lineage, ordinal);
            // What comes before it is sound.
            if let Some(damage) = known.filter(|damage| damage.at.is_none_or(|at| end > at)) {
                return Err(RestoreError::Unsound { lineage, ordinal, reason: damage.to_string() });
            }
            self.archive.file(lineage, ordinal)?;
        }
        for file in self.archive.files() {
            let is_on = |segment: &Segment| {
                file.lineage == segment.from.lineage
                    && (segment.from.file..=segment.to.file).contains(&file.ordinal)
            };
            if route.segments.iter().any(is_on) {
                let path = self.archive.path(file.lineage, file.ordinal)?;
                std::fs::File::open(&path).map_err(|source| RestoreError::Archived {
                    what: format!("reading {}", path.display()),
                    source,
                })?;
            }
        }
        let unprepared = match route.flavor {
            Flavor::MySql => Vec::new(),
            Flavor::MariaDb => branches::unprepared(self.archive, &route.segments, &prepared)?,
        };
        let (holes, mut unlogged): (Vec<Hole>, Vec<Xid>) = unprepared.into_iter().unzip();
        unlogged.extend(open);
        let mut seen = HashSet::new();
        unlogged.retain(|branch| seen.insert(branch.clone()));
        Ok(Means { client, binlog, prepared, holes, unlogged })
    }

    /// Reads the binary logs on the way whose events have no checksums: whoever applies them would not notice damage, but
    /// what they were sealed with tells.
    pub(super) fn prove(
        &self,
        (route, means): (&Route, &Means),
        stop: &AtomicBool,
    ) -> Result<(), RestoreError> {
        for (lineage, ordinal) in files_read(route, &means.prepared).into_keys() {
            if self.archive.has_checksums(lineage, ordinal)? {
                continue;
            }
            let damage = self.archive.check(lineage, ordinal, &|| stop.load(Ordering::Relaxed));
            if stop.load(Ordering::Relaxed) {
                return Err(RestoreError::Stopped);
            }
            if let Some(first) = damage?.into_iter().next() {
                return Err(RestoreError::Unsound { lineage, ordinal, reason: first.to_string() });
            }
        }
        Ok(())
    }

    /// Loads the base, with the branches that were prepared at its place. What it says of our own account is left out, and what
    /// that may not grant; returned are the bytes, and the latter. `unlogged`: not into the target's binary log.
    pub(crate) fn load_base(
        &self,
        (route, means): (&Route, &Means),
        dsn: &Dsn,
        unlogged: bool,
        progress: &dyn Fn(String),
        stop: &AtomicBool,
    ) -> Result<(u64, Vec<String>), RestoreError> {
        let account = self.runtime.block_on(own_account(dsn))?;
        let mut client = Client::start(&means.client, dsn, LoadOptions { unlogged })?;
        let total = route.base.bytes.max(1);
        let mut said = 0;
        let mut tell = |bytes: u64| {
            let percent = bytes * 100 / total;
            if percent > said {
                said = percent;
                progress(format!("base {}: {percent} %", route.base.number));
            }
        };
        let text = self.bases.read(route.base.number)?;
        // Of a base that does not tell where they are, everything is loaded.
        let accounts = route.base.accounts.unwrap_or(AccountsAt { early: 0, late: u64::MAX });
        let mut text = Without::new(text, accounts, account);
        let bytes = client.load(&mut text, &mut tell, stop).map_err(RestoreError::running)?;
        let replay = self.replay(route, means);
        for group in &means.prepared {
            replay.run(&group.segment(), &mut client, &mut |_| {}, stop)?;
            // A connection has one branch at most; another begins only when this one is left to itself.
            client.finish(stop).map_err(RestoreError::running)?;
            client = Client::start(&means.client, dsn, LoadOptions { unlogged })?;
        }
        client.finish(stop).map_err(RestoreError::running)?;
        Ok((bytes, text.left_out()))
    }

    fn replay(&self, route: &Route, means: &Means) -> Replay<'_> {
        Replay { archive: self.archive, program: means.binlog.clone(), flavor: route.flavor }
    }

    /// Base and archive. On the way, where the base's sums were taken, the tables are compared with them. The account at `dsn`
    /// keeps its password and what it may, whatever the binary log does to it.
    pub(crate) fn fill(
        &self,
        what: (&Route, &Means),
        dsn: &Dsn,
        progress: &dyn Fn(String),
        stop: &AtomicBool,
    ) -> Result<Filled, RestoreError> {
        let mut own = self.runtime.block_on(Kept::of(dsn))?;
        let filled = self.fill_as(&mut own, what, dsn, progress, stop);
        let able = self.put_back(&mut own).and_then(|gone| {
            self.runtime.block_on(async {
                Sql::connect(dsn).await?.close().await;
                Ok(gone)
            })
        });
        match (filled, able) {
            (Ok(mut filled), able) => {
                filled.left_out.extend(able?);
                Ok(filled)
            }
            (Err(error), able) => {
                if let Err(other) = able {
                    tracing::error!("the account of a restore that broke off: {other}");
                }
                Err(error)
            }
        }
    }

    /// What could not be given back to the account.
    fn put_back(&self, own: &mut Option<Kept>) -> Result<Vec<String>, RestoreError> {
        own.as_mut().map_or_else(|| Ok(Vec::new()), |own| Ok(self.runtime.block_on(own.put_back())?))
    }

    fn fill_as(
        &self,
        own: &mut Option<Kept>,
        (route, means): (&Route, &Means),
        dsn: &Dsn,
        progress: &dyn Fn(String),
        stop: &AtomicBool,
    ) -> Result<Filled, RestoreError> {
        let (base_bytes, left_out) = self.load_base((route, means), dsn, false, progress, stop)?;
        let mut filled = Filled { base_bytes, left_out, ..Filled::default() };
        let sums = route
            .base
            .sums
            .as_ref()
            .and_then(|sums| Some((sums, self.place(route.base.lineage, &sums.place)?)));
        // Without a segment the base's place is the stop: its sums may be there too.
        let here = sums.filter(|(_, place)| *place == route.place);
        let parts = sums.and_then(|(_, place)| plan::cut(&route.segments, place));
        let (before, after) = match (here, parts) {
            (Some(_), _) => (Vec::new(), route.segments.clone()),
            (None, Some(parts)) => parts,
            (None, None) => {
                self.apply((route, means), &route.segments, dsn, &mut filled, progress, stop)?;
                return Ok(filled);
            }
        };
        self.apply((route, means), &before, dsn, &mut filled, progress, stop)?;
        // What is not there now may come, and is told at the end.
        self.put_back(own)?;
        if let Some((sums, _)) = sums {
            progress("comparing the tables with what was recorded of them".to_owned());
            filled.compared = Some(self.runtime.block_on(compare(dsn, &route.base, sums, stop))?);
        }
        self.apply((route, means), &after, dsn, &mut filled, progress, stop)?;
        Ok(filled)
    }

    /// Was everything of a segment applied before? (The binary log program takes a GTID state that it never comes to for a
    /// fault.)
    fn is_applied(&self, segment: &Segment, flavor: Flavor) -> Result<bool, RestoreError> {
        let skip = segment.skip.as_deref().and_then(|skip| GtidState::parse(flavor, skip).ok());
        let Some(skip) = skip else { return Ok(false) };
        Ok(skip.contains_all(&self.archive.gtid_at(segment.to)?))
    }

    fn apply(
        &self,
        (route, means): (&Route, &Means),
        segments: &[Segment],
        dsn: &Dsn,
        filled: &mut Filled,
        progress: &dyn Fn(String),
        stop: &AtomicBool,
    ) -> Result<(), RestoreError> {
        let mut rest = Vec::new();
        for segment in plan::leave_out(segments, &means.holes) {
            if !self.is_applied(&segment, route.flavor)? {
                rest.push(segment);
            }
        }
        if rest.is_empty() {
            return Ok(());
        }
        let replay = self.replay(route, means);
        let mut client = Client::start(&means.client, dsn, LoadOptions::default())?;
        for segment in &rest {
            let (before, mut told) = (filled.replayed_bytes, 0);
            let mut tell = |bytes: u64| {
                if bytes - told >= 64 << 20 {
                    told = bytes;
                    progress(format!("binary log: {} MiB of statements applied", (before + bytes) >> 20));
                }
            };
            filled.replayed_bytes += replay.run(segment, &mut client, &mut tell, stop)?;
        }
        client.finish(stop).map_err(RestoreError::running)
    }
}

/// Is a base of exactly this state? Only a MariaDB gives every group a GTID.
fn is_state(record: &BaseRecord, gtid: &GtidState) -> bool {
    let of = GtidState::parse(Flavor::MariaDb, &record.gtid);
    let same = |of: GtidState| of.contains_all(gtid) && gtid.contains_all(&of);
    record.flavor == Flavor::MariaDb && !gtid.is_empty() && of.is_ok_and(same)
}

/// Lineage and ordinal of every binary log that is read on the way, in order, and up to where it is. A lineage's files are
/// numbered one after the other: one that is not there is lost.
fn files_read(route: &Route, prepared: &[Group]) -> BTreeMap<(u32, u32), u64> {
    let mut files = BTreeMap::new();
    let mut read = |file, end: u64| {
        let until = files.entry(file).or_insert(end);
        *until = end.max(*until);
    };
    for group in prepared {
        read((group.lineage, group.file), group.bytes.end);
    }
    for segment in &route.segments {
        for ordinal in segment.from.file..=segment.to.file {
            let end = if ordinal == segment.to.file { segment.to.offset } else { u64::MAX };
            read((segment.from.lineage, ordinal), end);
        }
    }
    files
}

/// The account that we are there.
async fn own_account(dsn: &Dsn) -> Result<Account, RestoreError> {
    let mut sql = Sql::connect(dsn).await?;
    let account = Account::of(&mut sql).await?;
    sql.close().await;
    Ok(account)
}
