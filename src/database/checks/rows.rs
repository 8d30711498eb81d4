//! Level 2: the rows of one table, summed up over ranges of its primary key on both servers, and where a range
//! differs, row by row.

use super::CheckError;
use super::position::let_go;
use super::report::{KeyDifference, RangeDifference, RowsDiffer};
use super::session::{Session, rows};
use super::shape::{Key, Shape, is_too_long};
use crate::database::sql::{Row, SqlError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

/// Rows in a range.
pub(super) const RANGE_ROWS: u64 = 50_000;
/// Keys that a range names.
const KEYS: usize = 10;
/// Ranges that a table names, and compares row by row.
const RANGES: usize = 20;
/// Rows of a table that are remembered for the next round.
const EVIDENCE: usize = 100_000;

/// What comparing a table's rows has come to.
pub(super) enum Outcome {
    /// So many rows, all equal.
    Equal { rows: u64 },
    /// They differ.
    Differ(RowsDiffer, Evidence),
    /// It could not be compared now, and why.
    Unknown(String),
}

/// What would be found again at another position if the difference is real: rows that differ in the same way, or, where
/// rows are not compared one by one, by how much sums differ (which does not change while the same is changed on both).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Evidence(BTreeSet<[u8; 16]>);

impl Evidence {
    pub(super) fn add(&mut self, parts: &[&str]) {
        if self.0.len() < EVIDENCE {
            let mut hasher = blake3::Hasher::new();
            for part in parts {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part.as_bytes());
            }
            let mut name = [0; 16];
            hasher.finalize_xof().fill(&mut name);
            self.0.insert(name);
        }
    }

    /// What is in both.
    pub(super) fn common(&self, other: &Evidence) -> Evidence {
        Evidence(self.0.intersection(&other.0).copied().collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add_sums(&mut self, after: Option<&Key>, to: Option<&Key>, primary: &Sum, standby: &Sum) {
        let key = |key: Option<&Key>| key.map(|key| key.join(",")).unwrap_or_default();
        let less = |a: &str, b: &str| match (a.parse::<i128>(), b.parse::<i128>()) {
            (Ok(a), Ok(b)) => (a - b).to_string(),
            _ => format!("{a} {b}"),
        };
        let rows = i128::from(primary.rows) - i128::from(standby.rows);
        let sums = [
            less(&primary.sums.0, &standby.sums.0),
            less(&primary.sums.1, &standby.sums.1),
            rows.to_string(),
        ];
        self.add(&[&key(after), &key(to), &sums[0], &sums[1], &sums[2]]);
    }
}

/// Two snapshots of one moment, while a table is compared.
pub(super) struct Pair<'a> {
    pub(super) primary: &'a mut dyn Session,
    pub(super) standby: &'a mut dyn Session,
    pub(super) stop: &'a AtomicBool,
}

/// One range on one side.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Sum {
    rows: u64,
    sums: (String, String),
}

impl Pair<'_> {
    /// Asks both the same; `None` when the table has gone or changed its form on a side.
    async fn both(&mut self, statement: &str) -> Result<Option<(Vec<Row>, Vec<Row>)>, CheckError> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(CheckError::Stopped);
        }
        let (primary, standby) = tokio::join!(rows(self.primary, statement), rows(self.standby, statement));
        let primary = there(primary).map_err(CheckError::Primary)?;
        let standby = there(standby).map_err(CheckError::Standby)?;
        self.let_go().await?;
        Ok(primary.zip(standby))
    }

    pub(super) async fn let_go(&mut self) -> Result<(), CheckError> {
        let (primary, standby) = tokio::join!(let_go(self.primary), let_go(self.standby));
        primary.map_err(CheckError::Primary)?;
        standby.map_err(CheckError::Standby)
    }

    async fn sums(
        &mut self,
        shape: &Shape,
        after: Option<&Key>,
        to: Option<&Key>,
    ) -> Result<Option<(Sum, Sum)>, CheckError> {
        let Some((primary, standby)) = self.both(&shape.sums(after, to)).await? else {
            return Ok(None);
        };
        let (primary, standby) = (sum(&primary), sum(&standby));
        if [&primary, &standby].iter().any(|side| is_too_long(&side.sums.0)) {
            return Err(CheckError::LongRow);
        }
        Ok(Some((primary, standby)))
    }
}

/// `None` for a table that is not there any more, or not in the form that the snapshot knows (1412), or lacks a column.
fn there(answer: Result<Vec<Row>, SqlError>) -> Result<Option<Vec<Row>>, SqlError> {
    match answer {
        Ok(rows) => Ok(Some(rows)),
        Err(error) if matches!(error.number(), Some(1146 | 1412 | 1054 | 1176 | 4108)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn sum(rows: &[Row]) -> Sum {
    let row = rows.first();
    let text = |at| row.map(|row| row.string(at)).unwrap_or_default();
    Sum { rows: row.and_then(|row| row.number(0)).unwrap_or(0), sums: (text(1), text(2)) }
}

/// Compares all rows of a table.
pub(super) async fn compare(
    pair: &mut Pair<'_>,
    schema: &str,
    name: &str,
    versioned: bool,
) -> Result<Outcome, CheckError> {
    let (ours, theirs) = tokio::join!(
        Shape::read(pair.primary, schema, name, versioned),
        Shape::read(pair.standby, schema, name, versioned)
    );
    let (ours, theirs) = (ours.map_err(CheckError::Primary)?, theirs.map_err(CheckError::Standby)?);
    let (Some(shape), Some(theirs)) = (ours, theirs) else {
        return Ok(Outcome::Unknown("it is not there on both sides".to_owned()));
    };
    if !shape.same_columns(&theirs) {
        return Ok(Outcome::Unknown("its columns are not the same on both sides".to_owned()));
    }
    if shape.has_key() { by_ranges(pair, &shape).await } else { as_a_whole(pair, &shape).await }
}

const MOVED: &str = "its form was changed while it was compared";

async fn as_a_whole(pair: &mut Pair<'_>, shape: &Shape) -> Result<Outcome, CheckError> {
    let Some((primary, standby)) = pair.sums(shape, None, None).await? else {
        return Ok(Outcome::Unknown(MOVED.to_owned()));
    };
    if primary == standby {
        return Ok(Outcome::Equal { rows: primary.rows });
    }
    let range = range(shape, None, None, &primary, &standby);
    let mut evidence = Evidence::default();
    evidence.add_sums(None, None, &primary, &standby);
    let rows = (primary.rows, standby.rows);
    Ok(Outcome::Differ(RowsDiffer { rows, ranges: vec![range], more_ranges: 0 }, evidence))
}

async fn by_ranges(pair: &mut Pair<'_>, shape: &Shape) -> Result<Outcome, CheckError> {
    let mut after: Option<Key> = None;
    let mut total = (0, 0);
    let (mut differ, mut evidence) = (RowsDiffer::default(), Evidence::default());
    loop {
        let border = shape.border(after.as_ref(), RANGE_ROWS);
        let to = match there(rows(pair.primary, &border).await).map_err(CheckError::Primary)? {
            Some(found) => found.first().and_then(|row| shape.key_of(row)),
            None => return Ok(Outcome::Unknown(MOVED.to_owned())),
        };
        // A range ends where the primary says, on both sides; the last one has no end.
        let Some((primary, standby)) = pair.sums(shape, after.as_ref(), to.as_ref()).await? else {
            return Ok(Outcome::Unknown(MOVED.to_owned()));
        };
        total = (total.0 + primary.rows, total.1 + standby.rows);
        if primary != standby {
            if differ.ranges.len() < RANGES {
                let mut found = range(shape, after.as_ref(), to.as_ref(), &primary, &standby);
                if !name_rows(pair, shape, after.as_ref(), to.as_ref(), &mut found, &mut evidence).await? {
                    return Ok(Outcome::Unknown(MOVED.to_owned()));
                }
                if found.differing.is_none() {
                    evidence.add_sums(after.as_ref(), to.as_ref(), &primary, &standby);
                }
                differ.ranges.push(found);
            } else {
                evidence.add_sums(after.as_ref(), to.as_ref(), &primary, &standby);
                differ.more_ranges += 1;
            }
        }
        if to.is_none() {
            break;
        }
        after = to;
    }
    if differ.ranges.is_empty() {
        return Ok(Outcome::Equal { rows: total.0 });
    }
    differ.rows = total;
    Ok(Outcome::Differ(differ, evidence))
}

fn range(
    shape: &Shape,
    after: Option<&Key>,
    to: Option<&Key>,
    primary: &Sum,
    standby: &Sum,
) -> RangeDifference {
    let shown = |sum: &Sum| match sum.sums.1.as_str() {
        "0" => sum.sums.0.clone(),
        second => format!("{}/{second}", sum.sums.0),
    };
    RangeDifference {
        after: after.map(|key| shape.shown(key)),
        to: to.map(|key| shape.shown(key)),
        rows: (primary.rows, standby.rows),
        sums: (shown(primary), shown(standby)),
        keys: Vec::new(),
        differing: None,
    }
}

/// Names the rows of a range that differ; `false` when it could not be read.
async fn name_rows(
    pair: &mut Pair<'_>,
    shape: &Shape,
    after: Option<&Key>,
    to: Option<&Key>,
    range: &mut RangeDifference,
    evidence: &mut Evidence,
) -> Result<bool, CheckError> {
    // The standby may hold many more rows than a range should have.
    if range.rows.1 > 4 * RANGE_ROWS {
        return Ok(true);
    }
    let Some((primary, standby)) = pair.both(&shape.each(after, to)).await? else { return Ok(false) };
    let mut ours = by_key(shape, &primary);
    let mut theirs = by_key(shape, &standby);
    let mut count = 0;
    let mut name = |key: &Key, what: &str, rows: [&[String]; 2]| {
        count += 1;
        evidence.add(&[&key.join(","), &rows[0].join(","), &rows[1].join(",")]);
        if range.keys.len() < KEYS {
            range.keys.push(KeyDifference { key: shape.shown(key), what: what.to_owned() });
        }
    };
    for row in &primary {
        let Some(key) = shape.key_of(row) else { continue };
        // Where old rows are kept a key has several, which were all gathered at the first.
        let Some(mine) = ours.remove(&key) else { continue };
        match theirs.remove(&key) {
            None => name(&key, "only on the primary", [&mine, &[]]),
            Some(other) if other != mine => name(&key, "different", [&mine, &other]),
            Some(_) => {}
        }
    }
    for row in &standby {
        if let Some(key) = shape.key_of(row)
            && let Some(other) = theirs.remove(&key)
        {
            name(&key, "only on the standby", [&[], &other]);
        }
    }
    range.differing = Some(count);
    Ok(true)
}

/// Checksums by key: several where old rows are kept.
fn by_key(shape: &Shape, rows: &[Row]) -> BTreeMap<Key, Vec<String>> {
    let mut map: BTreeMap<Key, Vec<String>> = BTreeMap::new();
    for row in rows {
        if let Some(key) = shape.key_of(row) {
            map.entry(key).or_default().push(row.string(shape.key_len()));
        }
    }
    map.values_mut().for_each(|sums| sums.sort());
    map
}
