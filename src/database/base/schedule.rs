//! When a base snapshot is due, and which are kept. Pure: times come in, decisions go out.

use super::record::BaseRecord;
use std::time::Duration;

/// A daily time is kept although the base before it took a while: a base may be so much younger than asked.
const EARLY: i64 = 3600;
const DAY: i64 = 86_400;

/// When bases are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Schedule {
    /// None newer than this.
    pub every: Duration,
    /// Only at this time of day (minutes since midnight, local), but for the first one and for one that was missed.
    pub at: Option<u16>,
}

/// What is known of the newest base.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Newest {
    /// When it was taken, seconds since 1970.
    pub taken_at: i64,
    /// Its lineage.
    pub lineage: u32,
}

/// Why a base is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// There is none.
    First,
    /// There is none in this lineage: what the archive holds of it cannot be restored without one.
    Lineage,
    /// The newest is too old.
    Age,
}

impl Schedule {
    /// Is one due at `now` (seconds since 1970; `local` is how many seconds local time is ahead of UTC)? `lineage`: the
    /// archive's newest.
    pub fn due(&self, now: i64, local: i64, newest: Option<Newest>, lineage: u32) -> Option<Due> {
        let Some(newest) = newest else { return Some(Due::First) };
        if newest.lineage != lineage {
            return Some(Due::Lineage);
        }
        // A clock that was set back by days would otherwise stop all bases until it has caught up.
        let from_the_future = newest.taken_at > now + DAY;
        (from_the_future || now >= self.next(newest.taken_at, local)).then_some(Due::Age)
    }

    /// When the base after one of `taken_at` is due.
    pub fn next(&self, taken_at: i64, local: i64) -> i64 {
        let every = i64::try_from(self.every.as_secs()).unwrap_or(i64::MAX / 4);
        let Some(minutes) = self.at else { return taken_at + every };
        // The first such time of day that is not much earlier.
        let earliest = taken_at + (every - EARLY).max(0) + local;
        let slot = earliest.div_euclid(DAY) * DAY + i64::from(minutes) * 60;
        let slot = if slot < earliest { slot + DAY } else { slot };
        slot - local
    }
}

/// Numbers of the bases that are kept: the newest `keep`, and those with a label. Ascending.
pub fn kept(bases: &[BaseRecord], keep: u32) -> Vec<u64> {
    let mut newest_first: Vec<&BaseRecord> = bases.iter().collect();
    newest_first.sort_by_key(|base| std::cmp::Reverse(base.number));
    let mut unlabelled = 0;
    let mut kept: Vec<u64> = newest_first
        .into_iter()
        .filter(|base| {
            if base.label.is_some() {
                return true;
            }
            unlabelled += 1;
            unlabelled <= keep.max(1)
        })
        .map(|base| base.number)
        .collect();
    kept.sort_unstable();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY_DAY: Schedule = Schedule { every: Duration::from_secs(86_400), at: None };

    #[test]
    fn the_first_and_the_first_of_a_lineage_are_due_at_once() {
        assert_eq!(EVERY_DAY.due(0, 0, None, 1), Some(Due::First));
        let newest = Some(Newest { taken_at: 1000, lineage: 1 });
        assert_eq!(EVERY_DAY.due(1001, 0, newest, 2), Some(Due::Lineage));
        assert_eq!(EVERY_DAY.due(1001, 0, newest, 1), None);
    }

    #[test]
    fn one_is_due_when_none_is_newer() {
        let newest = Some(Newest { taken_at: 1000, lineage: 1 });
        assert_eq!(EVERY_DAY.due(1000 + 86_399, 0, newest, 1), None);
        assert_eq!(EVERY_DAY.due(1000 + 86_400, 0, newest, 1), Some(Due::Age));
        // The clock was set back by a week.
        assert_eq!(EVERY_DAY.due(1000 - 7 * 86_400, 0, newest, 1), Some(Due::Age));
    }

    #[test]
    fn a_time_of_day_is_kept_in_local_time() {
        // 03:00, two hours ahead of UTC: 01:00 UTC.
        let schedule = Schedule { at: Some(180), ..EVERY_DAY };
        let day = 20_000 * 86_400;
        let local = 7200;
        // Taken at 03:00:20 local: the next is at 03:00:00 of the next day, a little early.
        assert_eq!(schedule.next(day + 3600 + 20, local), day + 86_400 + 3600);
        // Taken by hand in the evening: not the next morning, but the one after.
        assert_eq!(schedule.next(day + 18 * 3600, local), day + 2 * 86_400 + 3600);
        // Missed, because nothing ran at that time: at once.
        let newest = Some(Newest { taken_at: day + 3600, lineage: 1 });
        assert_eq!(schedule.due(day + 86_400 + 9 * 3600, local, newest, 1), Some(Due::Age));
        assert_eq!(schedule.due(day + 86_400 + 3599, local, newest, 1), None);
    }

    #[test]
    fn several_a_day_are_possible_with_a_time_of_day_too() {
        let schedule = Schedule { every: Duration::from_secs(3600), at: Some(0) };
        assert_eq!(schedule.next(10, 0), 86_400);
    }
}
