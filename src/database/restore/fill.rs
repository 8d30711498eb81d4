//! A base, then the archive, into a server: exactly up to a place.

use super::branches;
use super::compare::{Difference, compare};
use super::error::RestoreError;
use super::plan::{self, BaseAt, Segment, Span};
use super::replay::Replay;
use crate::database::archive::{Archive, Stop};
use crate::database::base::{BaseRecord, BaseStore, LogPlace};
use crate::database::dsn::Dsn;
use crate::database::server::{Client, Flavor, LoadOptions, ServerError, Tool, Tools};
use ehpc_proto::replication::database::Place;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
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

/// What was applied.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Filled {
    pub(crate) base_bytes: u64,
    pub(crate) replayed_bytes: u64,
    pub(crate) compared: usize,
    pub(crate) differences: Vec<Difference>,
}

impl Vault<'_> {
    /// A place that the server's own names tell, in `lineage` (0: the newest that has the file).
    pub(crate) fn place(&self, lineage: u32, at: &LogPlace) -> Option<Place> {
        let files = self.archive.files();
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
            Some(BaseAt { number: record.number, place: self.place(record.lineage, &record.place)? })
        };
        let usable: Vec<BaseAt> = records.iter().filter_map(at).collect();
        let Some((chosen, segments)) = plan::choose(&usable, stop.place, &self.spans()) else {
            return Err(self.no_base(&records, &usable, stop));
        };
        let base = self.bases.record(chosen.number)?;
        let lineages = self.archive.lineages();
        let lineage = lineages.into_iter().find(|record| record.lineage.number == stop.place.lineage);
        let flavor = lineage.map_or(base.flavor, |record| record.lineage.flavor);
        Ok(Route { base, place: chosen.place, segments, flavor })
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

    /// Loads the base, with the branches that were prepared at its place. `unlogged`: not into the target's binary log.
    pub(crate) fn load_base(
        &self,
        route: &Route,
        dsn: &Dsn,
        unlogged: bool,
        progress: &dyn Fn(String),
        stop: &AtomicBool,
    ) -> Result<u64, RestoreError> {
        let groups = match self.place(route.base.lineage, &route.base.before) {
            // Nothing of it is prepared, or MySQL, where a prepared branch is not in the binary log.
            _ if route.flavor == Flavor::MySql => Vec::new(),
            Some(before) => branches::open_at(self.archive, &route.base, before, route.place)?,
            None => branches::open_at(self.archive, &route.base, route.place, route.place)?,
        };
        let program = self.tools.find(Tool::Client, route.flavor).map_err(ServerError::from)?;
        let mut client = Client::start(&program, dsn, LoadOptions { unlogged })?;
        let total = route.base.bytes.max(1);
        let mut said = 0;
        let mut tell = |bytes: u64| {
            let percent = bytes * 100 / total;
            if percent > said {
                said = percent;
                progress(format!("base {}: {percent} %", route.base.number));
            }
        };
        let bytes =
            client.load(&mut self.bases.read(route.base.number)?, &mut tell, stop).map_err(stopped)?;
        let replay = self.replay(route.flavor)?;
        for group in groups {
            let at = |offset| Place { lineage: group.lineage, file: group.file, offset };
            let segment = Segment { from: at(group.bytes.start), to: at(group.bytes.end), skip: None };
            replay.run(&segment, &mut client, &mut |_| {}, stop)?;
            // A connection has one branch at most; another begins only when this one is left to itself.
            client.finish()?;
            client = Client::start(&program, dsn, LoadOptions { unlogged })?;
        }
        client.finish().map_err(stopped)?;
        Ok(bytes)
    }

    fn replay(&self, flavor: Flavor) -> Result<Replay<'_>, RestoreError> {
        let program = self.tools.find(Tool::Binlog, flavor).map_err(ServerError::from)?;
        Ok(Replay { archive: self.archive, program })
    }

    /// Base and archive. On the way, where the base's sums were taken, the tables are compared with them.
    pub(crate) fn fill(
        &self,
        route: &Route,
        dsn: &Dsn,
        progress: &dyn Fn(String),
        stop: &AtomicBool,
    ) -> Result<Filled, RestoreError> {
        let mut filled =
            Filled { base_bytes: self.load_base(route, dsn, false, progress, stop)?, ..Filled::default() };
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
                self.apply(route, &route.segments, dsn, &mut filled, progress, stop)?;
                return Ok(filled);
            }
        };
        self.apply(route, &before, dsn, &mut filled, progress, stop)?;
        if let Some((sums, _)) = sums {
            progress("comparing the tables with what was recorded of them".to_owned());
            filled.differences = self.runtime.block_on(compare(dsn, sums))?;
            filled.compared = sums.tables.len();
        }
        self.apply(route, &after, dsn, &mut filled, progress, stop)?;
        Ok(filled)
    }

    fn apply(
        &self,
        route: &Route,
        segments: &[Segment],
        dsn: &Dsn,
        filled: &mut Filled,
        progress: &dyn Fn(String),
        stop: &AtomicBool,
    ) -> Result<(), RestoreError> {
        if segments.is_empty() {
            return Ok(());
        }
        let replay = self.replay(route.flavor)?;
        let program = self.tools.find(Tool::Client, route.flavor).map_err(ServerError::from)?;
        let mut client = Client::start(&program, dsn, LoadOptions::default())?;
        for segment in segments {
            let (before, mut told) = (filled.replayed_bytes, 0);
            let mut tell = |bytes: u64| {
                if bytes - told >= 64 << 20 {
                    told = bytes;
                    progress(format!("binary log: {} MiB of statements applied", (before + bytes) >> 20));
                }
            };
            filled.replayed_bytes += replay.run(segment, &mut client, &mut tell, stop)?;
        }
        client.finish().map_err(stopped)
    }
}

fn stopped(error: ServerError) -> RestoreError {
    match error {
        ServerError::Stopped => RestoreError::Stopped,
        other => other.into(),
    }
}
