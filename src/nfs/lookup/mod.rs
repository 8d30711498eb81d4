//! Questions to the name service about clients and users, asked off the request path.
//!
//! A request looks at what is known. What is not known yet is asked by threads of its own; a worker may wait a
//! moment for the answer, a thread that serves connections never does.

mod answers;

use crate::host::name_service;
use crate::settings::exports::Names;
use answers::Answers;
use parking_lot::{Condvar, Mutex};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Threads that ask: a name that takes long must not hold up the others.
const THREADS: usize = 4;

/// What can be asked.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Question {
    /// The addresses of a host.
    Host(String),
    /// The names of an address.
    Names(IpAddr),
    /// Is the host of this address in the netgroup?
    Netgroup(String, IpAddr),
    /// The groups of a user.
    Groups(u32),
}

/// What is answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    Addresses(Vec<IpAddr>),
    Names(Vec<String>),
    Member(bool),
    Groups(Vec<u32>),
}

/// Who answers; `None`: nobody does now.
type Ask = dyn Fn(&Question) -> Option<Answer> + Send + Sync;

struct State {
    answers: Answers<Question, Answer>,
    /// How many answers there were.
    answered: u64,
    closed: bool,
}

struct Inner {
    state: Mutex<State>,
    /// There is something to ask, or no more.
    wanted: Condvar,
    /// Something was answered.
    answered: Condvar,
    /// Counts answers that differ from what was known.
    changes: AtomicU64,
    started: Instant,
    ask: Box<Ask>,
}

/// The answers, and the threads that ask. They end with it.
pub(super) struct Lookups {
    inner: Arc<Inner>,
}

impl Drop for Lookups {
    fn drop(&mut self) {
        self.inner.state.lock().closed = true;
        self.inner.wanted.notify_all();
    }
}

impl Lookups {
    /// Asks the machine's name service.
    pub(super) fn system() -> std::io::Result<Lookups> {
        Lookups::asking(Box::new(ask_system))
    }

    /// Asks `ask`.
    pub(super) fn asking(ask: Box<Ask>) -> std::io::Result<Lookups> {
        let inner = Arc::new(Inner {
            state: Mutex::new(State { answers: Answers::new(), answered: 0, closed: false }),
            wanted: Condvar::new(),
            answered: Condvar::new(),
            changes: AtomicU64::new(0),
            started: Instant::now(),
            ask,
        });
        let lookups = Lookups { inner: Arc::clone(&inner) };
        for number in 0..THREADS {
            let inner = Arc::clone(&inner);
            std::thread::Builder::new().name(format!("nfs-names-{number}")).spawn(move || inner.run())?;
        }
        Ok(lookups)
    }

    /// What `look` finds in the answer; `None` if there is none yet. Never waits.
    pub(super) fn get<R>(&self, question: &Question, look: impl FnOnce(&Answer) -> R) -> Option<R> {
        let mut state = self.inner.state.lock();
        let (answer, ask) = state.answers.get(question, self.inner.started.elapsed());
        let found = answer.map(look);
        if ask {
            self.inner.wanted.notify_one();
        }
        found
    }

    /// How many answers there were: for [`Lookups::wait_past`].
    pub(super) fn answered(&self) -> u64 {
        self.inner.state.lock().answered
    }

    /// Waits for an answer after the first `seen` ones; false: `deadline` has come first.
    pub(super) fn wait_past(&self, seen: u64, deadline: Instant) -> bool {
        let mut state = self.inner.state.lock();
        while state.answered <= seen {
            if self.inner.answered.wait_until(&mut state, deadline).timed_out() {
                return false;
            }
        }
        true
    }

    /// Changes whenever something turns out to be other than it was known.
    pub(super) fn changes(&self) -> u64 {
        self.inner.changes.load(Ordering::Acquire)
    }

    /// The groups of a user, as this machine's user database has them.
    pub(super) fn groups_of(&self, uid: u32) -> Option<Vec<u32>> {
        self.get(&Question::Groups(uid), |answer| match answer {
            Answer::Groups(groups) => groups.clone(),
            _ => Vec::new(),
        })
    }
}

impl Question {
    /// What counts while the name service has never answered: nobody is known.
    fn without_service(&self) -> Answer {
        match self {
            Question::Host(_) => Answer::Addresses(Vec::new()),
            Question::Names(address) => Answer::Names(vec![address.to_string()]),
            Question::Netgroup(..) => Answer::Member(false),
            Question::Groups(_) => Answer::Groups(Vec::new()),
        }
    }
}

impl Names for Lookups {
    fn is_host(&self, name: &str, address: IpAddr) -> Option<bool> {
        self.get(
            &Question::Host(name.to_owned()),
            |answer| matches!(answer, Answer::Addresses(addresses) if addresses.contains(&address)),
        )
    }

    fn names_of(&self, address: IpAddr) -> Option<Vec<String>> {
        self.get(&Question::Names(address), |answer| match answer {
            Answer::Names(names) => names.clone(),
            _ => Vec::new(),
        })
    }

    fn in_netgroup(&self, group: &str, address: IpAddr) -> Option<bool> {
        self.get(&Question::Netgroup(group.to_owned(), address), |answer| *answer == Answer::Member(true))
    }
}

impl Inner {
    /// A thread: asks what is to be asked until the end.
    fn run(&self) {
        loop {
            let question = {
                let mut state = self.state.lock();
                loop {
                    if state.closed {
                        return;
                    }
                    if let Some(question) = state.answers.next() {
                        break question;
                    }
                    self.wanted.wait(&mut state);
                }
            };
            let answer = (self.ask)(&question);
            let mut state = self.state.lock();
            let otherwise = question.without_service();
            if state.answers.learn(&question, answer, otherwise, self.started.elapsed()) {
                self.changes.fetch_add(1, Ordering::Release);
            }
            state.answered += 1;
            drop(state);
            self.answered.notify_all();
        }
    }
}

/// What the machine's name service says.
fn ask_system(question: &Question) -> Option<Answer> {
    let said = |error: &std::io::Error| {
        tracing::warn!(?question, %error, "the name service does not answer; the last answer is used while there is one");
    };
    match question {
        Question::Host(name) => {
            let addresses = name_service::addresses_of(name).inspect_err(said).ok()?;
            if addresses.is_empty() {
                tracing::warn!(host = name, "a client of the exports has no address: its rules admit nobody");
            }
            Some(Answer::Addresses(addresses))
        }
        Question::Names(address) => Some(Answer::Names(confirmed_names(*address).inspect_err(said).ok()?)),
        Question::Netgroup(group, address) => {
            let names = confirmed_names(*address).inspect_err(said).ok()?;
            let digits = address.to_string();
            let short = names.iter().filter_map(|name| Some(name.split_once('.')?.0));
            let all = names.iter().map(String::as_str).chain(short.filter(|_| names != [digits.as_str()]));
            let member = all.chain([digits.as_str()]).any(|name| name_service::in_netgroup(group, name));
            Some(Answer::Member(member))
        }
        Question::Groups(uid) => Some(Answer::Groups(name_service::groups_of(*uid).inspect_err(said).ok()?)),
    }
}

/// The name of an address, if the name has that address too; else its digits, which nobody can claim falsely.
fn confirmed_names(address: IpAddr) -> std::io::Result<Vec<String>> {
    if let Some(name) = name_service::claimed_name_of(address)?
        && name_service::addresses_of(&name)?.contains(&address)
    {
        return Ok(vec![name]);
    }
    Ok(vec![address.to_string()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const WAIT: Duration = Duration::from_secs(20);

    /// Looks until there is an answer.
    fn until<R>(lookups: &Lookups, look: impl Fn() -> Option<R>) -> R {
        let deadline = Instant::now() + WAIT;
        loop {
            let seen = lookups.answered();
            if let Some(found) = look() {
                return found;
            }
            assert!(lookups.wait_past(seen, deadline), "no answer");
        }
    }

    #[test]
    fn the_machine_knows_itself() {
        let lookups = Lookups::system().unwrap();
        let loopback = IpAddr::from([127, 0, 0, 1]);
        assert!(until(&lookups, || lookups.is_host("localhost", loopback)));
        assert_eq!(lookups.is_host("localhost", [10, 0, 0, 1].into()), Some(false));
        assert_eq!(until(&lookups, || lookups.names_of(loopback)), ["localhost"]);
        assert!(until(&lookups, || lookups.groups_of(0)).contains(&0));
        assert!(!until(&lookups, || lookups.in_netgroup("no-such-netgroup", loopback)));
    }

    #[test]
    fn a_slow_name_holds_up_nobody_else() {
        let (open, gate) = crossbeam_channel::bounded::<()>(0);
        let ask = move |question: &Question| {
            if *question == Question::Groups(1) {
                let _ = gate.recv();
                return None;
            }
            Some(Answer::Groups(vec![9]))
        };
        let lookups = Lookups::asking(Box::new(ask)).unwrap();
        assert_eq!(lookups.groups_of(1), None, "never waits");
        let before = lookups.changes();
        assert_eq!(until(&lookups, || lookups.groups_of(2)), [9]);
        assert!(lookups.changes() > before);
        assert_eq!(lookups.groups_of(1), None);
        assert!(!lookups.wait_past(lookups.answered(), Instant::now()), "the deadline");
        drop(open);
        assert!(until(&lookups, || lookups.groups_of(1)).is_empty(), "not answered: nobody is known");
    }
}
