//! What the name service has answered: which answers are still good, and what to ask next.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

/// An answer is used without asking again for this time.
const FRESH: Duration = Duration::from_secs(60);
/// An answer older than this is not used any more, unless the name service does not answer.
const OLD: Duration = Duration::from_secs(600);
/// How long the last answer of a name service that does not answer is used.
const OLD_WITHOUT_SERVICE: Duration = Duration::from_secs(24 * 3600);
/// A question that was not answered is asked again after this time.
const AGAIN: Duration = Duration::from_secs(5);
/// Most questions that are known.
const MAX_KNOWN: usize = 8192;
/// Most questions that wait to be asked.
const MAX_WAITING: usize = 1024;

struct Entry<A> {
    answer: Option<A>,
    /// When the answer was given.
    answered: Duration,
    /// When the question was last asked in vain.
    failed: Option<Duration>,
    /// It waits to be asked, or is being asked.
    pending: bool,
    used: Duration,
}

/// Questions and answers; time is whatever passes since a start.
pub(super) struct Answers<Q, A> {
    known: HashMap<Q, Entry<A>>,
    waiting: VecDeque<Q>,
}

impl<Q: Clone + Eq + Hash, A: PartialEq> Answers<Q, A> {
    pub(super) fn new() -> Answers<Q, A> {
        Answers { known: HashMap::new(), waiting: VecDeque::new() }
    }

    /// The answer, if one is known that may be used. A question without a fresh one is put among those to be
    /// asked: true in the second place.
    pub(super) fn get(&mut self, question: &Q, now: Duration) -> (Option<&A>, bool) {
        if !self.known.contains_key(question) {
            self.make_room();
            let entry = Entry { answer: None, answered: now, failed: None, pending: false, used: now };
            self.known.insert(question.clone(), entry);
        }
        let Some(entry) = self.known.get_mut(question) else { return (None, false) };
        entry.used = now;
        let age = now.saturating_sub(entry.answered);
        let fresh = entry.answer.is_some() && entry.failed.is_none() && age < FRESH;
        let tried = entry.failed.is_some_and(|at| now.saturating_sub(at) < AGAIN);
        let ask = !fresh && !tried && !entry.pending && self.waiting.len() < MAX_WAITING;
        if ask {
            entry.pending = true;
            self.waiting.push_back(question.clone());
        }
        let limit = if entry.failed.is_some() { OLD_WITHOUT_SERVICE } else { OLD };
        (entry.answer.as_ref().filter(|_| age < limit), ask)
    }

    /// The next question to be asked.
    pub(super) fn next(&mut self) -> Option<Q> {
        self.waiting.pop_front()
    }

    /// What the name service has said; `None`: it did not answer, and the last answer stays, or `otherwise` counts
    /// if there was none. True: the answer is not what it was.
    pub(super) fn learn(&mut self, question: &Q, answer: Option<A>, otherwise: A, now: Duration) -> bool {
        let Some(entry) = self.known.get_mut(question) else { return false };
        entry.pending = false;
        match answer {
            Some(answer) => {
                let changed = entry.answer.as_ref() != Some(&answer);
                *entry =
                    Entry { answer: Some(answer), answered: now, failed: None, pending: false, ..*entry };
                changed
            }
            None => {
                entry.failed = Some(now);
                if entry.answer.is_some() {
                    return false;
                }
                (entry.answer, entry.answered) = (Some(otherwise), now);
                true
            }
        }
    }

    /// Forgets the questions that were not used for the longest time.
    fn make_room(&mut self) {
        if self.known.len() < MAX_KNOWN {
            return;
        }
        let mut ages: Vec<Duration> = self.known.values().map(|entry| entry.used).collect();
        let middle = ages.len() / 2;
        let (_, &mut median, _) = ages.select_nth_unstable(middle);
        self.known.retain(|_, entry| entry.pending || entry.used > median);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn asked_once_then_known_then_asked_again_before_it_is_forgotten() {
        let mut answers: Answers<&str, u32> = Answers::new();
        assert_eq!(answers.get(&"web1", at(0)), (None, true));
        assert_eq!(answers.get(&"web1", at(1)), (None, false), "asked once");
        assert_eq!(answers.next(), Some("web1"));
        assert_eq!(answers.next(), None);
        assert_eq!(answers.get(&"web1", at(2)), (None, false), "being asked");
        assert!(answers.learn(&"web1", Some(7), 0, at(3)));
        assert_eq!(answers.get(&"web1", at(62)), (Some(&7), false));
        assert_eq!(answers.get(&"web1", at(63)), (Some(&7), true), "used while it is asked again");
        assert_eq!(answers.next(), Some("web1"));
        assert!(!answers.learn(&"web1", Some(7), 0, at(64)), "the same");
        assert_eq!(answers.get(&"web1", at(663)), (Some(&7), true));
        assert_eq!(answers.get(&"web1", at(664)), (None, false), "too old");
        answers.next();
        assert!(answers.learn(&"web1", Some(8), 0, at(665)));
    }

    #[test]
    fn a_dead_name_service_does_not_lock_out_whom_it_knew() {
        let mut answers: Answers<&str, u32> = Answers::new();
        answers.get(&"web1", at(0));
        answers.next();
        answers.learn(&"web1", Some(7), 0, at(0));
        assert_eq!(answers.get(&"web1", at(700)), (None, true));
        answers.next();
        assert!(!answers.learn(&"web1", None, 0, at(701)));
        assert_eq!(answers.get(&"web1", at(702)), (Some(&7), false), "not asked at once again");
        assert_eq!(answers.get(&"web1", at(706)), (Some(&7), true));
        answers.next();
        answers.learn(&"web1", None, 0, at(707));
        assert_eq!(answers.get(&"web1", at(24 * 3600)), (None, true));
        assert_eq!(answers.get(&"web2", at(0)), (None, true));
        answers.next();
        assert!(answers.learn(&"web2", None, 0, at(1)));
        assert_eq!(answers.get(&"web2", at(2)), (Some(&0), false), "whom it never knew is unknown");
        assert_eq!(answers.get(&"web2", at(6)), (Some(&0), true), "and is asked for again soon");
    }

    #[test]
    fn both_tables_are_bounded() {
        let mut answers: Answers<usize, usize> = Answers::new();
        for number in 0..3 * MAX_KNOWN {
            answers.get(&number, at(number as u64));
            if number % 3 == 0
                && let Some(asked) = answers.next()
            {
                answers.learn(&asked, Some(asked), 0, at(number as u64));
            }
            assert!(answers.known.len() <= MAX_KNOWN && answers.waiting.len() <= MAX_WAITING);
        }
        assert!(answers.known.contains_key(&(3 * MAX_KNOWN - 1)), "the youngest stay");
    }
}
