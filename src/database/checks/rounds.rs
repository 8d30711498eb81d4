//! The rounds of a comparison: what is certain after one, what must be looked at again, and what is said at the end.

use super::catalog::{self, Catalog, Entry, Item, Kind};
use super::position::{Aligned, align};
use super::report::{Comparison, Difference, TableSum, Unchecked, Way};
use super::rows::{Evidence, Pair};
use super::session::Session;
use super::tables::{self, Content};
use super::{CheckError, Compare, Progress, ROUNDS};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// What one round says of one thing that is not known to be equal.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Doubt {
    /// Different, unless it moved.
    Suspect(Way),
    /// It moved.
    Moving(String),
}

const MOVED: &str = "it kept changing while it was compared";

const SILENT: &str = "a server does not tell it: the privilege SELECT on mysql.* is missing there, or skip_name_resolve is on and \
                      the account's host is a name";

/// Everything that is still in doubt.
type Doubts = BTreeMap<Item, Vec<Doubt>>;

pub(super) async fn run(compare: &Compare<'_>) -> Result<Comparison, CheckError> {
    let start = Instant::now();
    let mut before = Doubts::new();
    let mut report: Option<Comparison> = None;
    let mut known = Known::default();
    for round in 1..=ROUNDS {
        let mut aligned = align(compare.primary, compare.standby, compare.stop).await?;
        let report = report.get_or_insert_with(|| empty(&aligned, compare.deep));
        (report.rounds, report.at) = (round, aligned.at.clone());
        let only = (round > 1).then(|| before.keys().cloned().collect::<BTreeSet<Item>>());
        let now = look(compare, &mut aligned, only.as_ref(), &mut known, report).await?;
        if now.is_empty() || round == ROUNDS {
            conclude(report, &before, now);
            break;
        }
        before = now;
    }
    let mut report = report.ok_or(CheckError::Stopped)?;
    report.differences.sort_by(|a, b| a.item.cmp(&b.item));
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

fn empty(aligned: &Aligned, deep: bool) -> Comparison {
    let named = |session: &dyn Session| format!("{} ({})", session.server(), session.dialect());
    Comparison {
        at: aligned.at.clone(),
        primary: named(aligned.primary.as_ref()),
        standby: named(aligned.standby.as_ref()),
        tables: 0,
        bytes: 0,
        by_rows: (0, 0),
        objects: 0,
        deep,
        rounds: 0,
        seconds: 0.0,
        differences: Vec::new(),
        unchecked: Vec::new(),
        sums: Vec::new(),
        left_out: catalog::left_out(),
    }
}

/// What was in doubt in the last two rounds in the same way is different; what else is in doubt is unchecked.
fn conclude(report: &mut Comparison, before: &Doubts, now: Doubts) {
    for (item, doubts) in now {
        for doubt in doubts {
            let persists = before.get(&item).is_some_and(|earlier| earlier.contains(&doubt));
            match doubt {
                Doubt::Suspect(way) if persists => {
                    report.differences.push(Difference { item: item.clone(), way });
                }
                Doubt::Suspect(_) => {
                    report.unchecked.push(Unchecked { item: item.clone(), reason: MOVED.to_owned() })
                }
                Doubt::Moving(reason) => {
                    report.unchecked.push(Unchecked { item: item.clone(), reason });
                }
            }
        }
    }
}

/// What earlier rounds know of tables' content.
#[derive(Default)]
struct Known {
    /// Tables whose content is known, though their descriptions may be in doubt.
    settled: BTreeSet<Item>,
    /// Tables that differed in so many rounds in a row, and what they had in common.
    differed: BTreeMap<Item, (u32, Evidence)>,
}

impl Known {
    /// A difference is certain when the same is found at two positions; at three, when the server does not tell whether
    /// a table is still the same one.
    fn is_certain(&mut self, item: &Item, entry: &Entry, evidence: &Evidence) -> bool {
        let (count, common) = match self.differed.remove(item) {
            Some((count, earlier)) => {
                let common = earlier.common(evidence);
                if common.is_empty() { (1, evidence.clone()) } else { (count + 1, common) }
            }
            None => (1, evidence.clone()),
        };
        self.differed.insert(item.clone(), (count, common));
        count >= if entry.identity.is_empty() { ROUNDS } else { 2 }
    }
}

/// One round: what is certain goes into the report, what is not is returned.
async fn look(
    compare: &Compare<'_>,
    aligned: &mut Aligned,
    only: Option<&BTreeSet<Item>>,
    known: &mut Known,
    report: &mut Comparison,
) -> Result<Doubts, CheckError> {
    let mut doubts = descriptions(aligned, only, report);
    let tables: Vec<(Item, Entry)> = aligned
        .there
        .tables()
        .into_iter()
        .filter(|(item, _)| only.is_none_or(|only| only.contains(item)) && !known.settled.contains(item))
        // One that was redefined is looked at in the next round.
        .filter(|(item, _)| is_steady(aligned.before.entries.get(item), aligned.after.entries.get(item)))
        .map(|(item, entry)| (item.clone(), entry.clone()))
        .collect();
    let mut progress = Progress {
        round: report.rounds,
        tables_total: tables.len() as u64,
        bytes_total: tables.iter().map(|(_, entry)| entry.bytes).sum(),
        ..Progress::default()
    };
    let mut pair =
        Pair { primary: aligned.primary.as_mut(), standby: aligned.standby.as_mut(), stop: compare.stop };
    for (item, entry) in tables {
        (compare.progress)(progress);
        if compare.stop.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(CheckError::Stopped);
        }
        let mut content = tables::compare(&mut pair, &item, &entry, compare.deep).await?;
        if matches!(content, Content::Differ(..))
            && !still_same(&mut pair, &aligned.after, &aligned.there, &item).await?
        {
            content = Content::Moving(MOVED.to_owned());
        }
        progress.tables += 1;
        progress.bytes += entry.bytes;
        let mut doubt = |doubt| doubts.entry(item.clone()).or_default().push(doubt);
        match content {
            Content::Equal { checksum, rows } => {
                count_table(report, &entry, rows);
                let (schema, name) = (item.schema.clone(), item.name.clone());
                report.sums.push(TableSum { schema, name, checksum, rows });
                known.settled.insert(item);
            }
            Content::Differ(way, evidence) if known.is_certain(&item, &entry, &evidence) => {
                count_table(report, &entry, None);
                report.differences.push(Difference { item: item.clone(), way });
                known.settled.insert(item);
            }
            // It is not different unless it is so again; `conclude` must not take two different doubts for that.
            Content::Differ(..) => doubt(Doubt::Moving(MOVED.to_owned())),
            Content::Moving(why) => doubt(Doubt::Moving(why)),
        }
    }
    (compare.progress)(progress);
    Ok(doubts)
}

/// Whether a table is on both sides still what it was at the position.
async fn still_same(
    pair: &mut Pair<'_>,
    after: &Catalog,
    there: &Catalog,
    item: &Item,
) -> Result<bool, CheckError> {
    let primary = after.still_knows(pair.primary, item).await.map_err(CheckError::Primary)?;
    let standby = there.still_knows(pair.standby, item).await.map_err(CheckError::Standby)?;
    pair.let_go().await?;
    Ok(primary && standby)
}

fn is_steady(before: Option<&Entry>, after: Option<&Entry>) -> bool {
    match (before, after) {
        (Some(before), Some(after)) => before.hash == after.hash && before.identity == after.identity,
        _ => false,
    }
}

fn count_table(report: &mut Comparison, entry: &Entry, rows: Option<u64>) {
    report.tables += 1;
    report.bytes += entry.bytes;
    if let Some(rows) = rows {
        report.by_rows = (report.by_rows.0 + 1, report.by_rows.1 + rows);
    }
}

/// Compares what both sides say they hold. Descriptions of the primary were read before and after its snapshot: what
/// did not change in between was so at the position, too.
fn descriptions(aligned: &Aligned, only: Option<&BTreeSet<Item>>, report: &mut Comparison) -> Doubts {
    let (ours, theirs) = (aligned.primary.dialect(), aligned.standby.dialect());
    let version = |version: crate::database::dialect::Version| (version.major, version.minor);
    // Servers of different versions describe the same in different words.
    let same_words =
        ours.is_mariadb() == theirs.is_mariadb() && version(ours.version()) == version(theirs.version());
    let mut doubts = Doubts::new();
    let catalogs = [&aligned.before, &aligned.after, &aligned.there];
    let items: BTreeSet<&Item> = catalogs.iter().flat_map(|catalog| catalog.entries.keys()).collect();
    let any = catalog::all_accounts();
    let unlisted = items.contains(&any);
    for item in items {
        if only.is_some_and(|only| !only.contains(item)) {
            continue;
        }
        if unlisted && item.kind == Kind::Account {
            if *item == any {
                doubts.entry(any.clone()).or_default().push(Doubt::Moving(SILENT.to_owned()));
            }
            continue;
        }
        let of = |catalog: &Catalog| catalog.entries.get(item).cloned();
        let [before, after, there] = catalogs.map(of);
        match judge(item, before.as_ref(), after.as_ref(), there.as_ref(), same_words) {
            None if item.kind == Kind::Table && only.is_none() => report.objects += 1,
            None => report.objects += u64::from(item.kind != Kind::Table),
            Some(doubt) => doubts.entry(item.clone()).or_default().push(doubt),
        }
    }
    doubts
}

fn judge(
    item: &Item,
    before: Option<&Entry>,
    after: Option<&Entry>,
    there: Option<&Entry>,
    same_words: bool,
) -> Option<Doubt> {
    let moved = || Some(Doubt::Moving(MOVED.to_owned()));
    let (before, after) = match (before, after) {
        (Some(before), Some(after)) => (before, after),
        (None, None) => return Some(Doubt::Suspect(Way::Extra)),
        _ => return moved(),
    };
    // Where both leave it out (skip_name_resolve), nobody gets in by it, on either.
    if there.is_some_and(|there| there.is_silent != before.is_silent || there.is_silent != after.is_silent) {
        return Some(Doubt::Moving(SILENT.to_owned()));
    }
    if !is_steady(Some(before), Some(after)) {
        return moved();
    }
    let Some(there) = there else { return Some(Doubt::Suspect(Way::Missing)) };
    if same_words && there.hash != after.hash {
        return Some(Doubt::Suspect(Way::Definition));
    }
    if item.kind == Kind::Sequence
        && let (Some(first), Some(second), Some(value)) = (before.next, after.next, there.next)
    {
        // A sequence is not part of a snapshot either, but it goes one way only, so its value then lies in between.
        if first == second && value != first {
            return Some(Doubt::Suspect(Way::Next(first, value)));
        }
        if value < first.min(second) || value > first.max(second) {
            return moved();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(hash: &str, next: Option<i64>) -> Entry {
        Entry { hash: hash.to_owned(), next, ..Entry::default() }
    }

    fn item(kind: Kind) -> Item {
        Item { kind, schema: "s".into(), name: "n".into() }
    }

    #[test]
    fn what_moves_is_not_different() {
        let judge = |before, after, there| judge(&item(Kind::View), before, after, there, true);
        let (a, b) = (entry("a", None), entry("b", None));
        let suspect = |way| Some(Doubt::Suspect(way));
        assert_eq!(judge(Some(&a), Some(&a), Some(&a)), None);
        assert_eq!(judge(Some(&a), Some(&a), Some(&b)), suspect(Way::Definition));
        assert_eq!(judge(Some(&a), Some(&a), None), suspect(Way::Missing));
        assert_eq!(judge(None, None, Some(&a)), suspect(Way::Extra));
        for (before, after) in [(Some(&a), Some(&b)), (None, Some(&a)), (Some(&a), None)] {
            for there in [None, Some(&a), Some(&b)] {
                assert!(matches!(judge(before, after, there), Some(Doubt::Moving(_))));
            }
        }
    }

    #[test]
    fn sequences_lie_between() {
        let judge = |before, after, there| {
            let [before, after, there] = [before, after, there].map(|next| entry("a", Some(next)));
            judge(&item(Kind::Sequence), Some(&before), Some(&after), Some(&there), true)
        };
        assert_eq!(judge(5, 5, 5), None);
        assert_eq!(judge(5, 9, 7), None);
        assert_eq!(judge(-5, -9, -7), None);
        assert_eq!(judge(5, 5, 7), Some(Doubt::Suspect(Way::Next(5, 7))));
        assert!(matches!(judge(5, 9, 10), Some(Doubt::Moving(_))));
    }
}
