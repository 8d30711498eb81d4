//! What must be on disk before a reply leaves: fsyncs that many changes share.
//!
//! A change is made at once; what it owes to the disk is remembered for its thread and asked for with `settled`. One
//! fsync of an object runs at a time. Who comes while one runs waits for the next, which begins after all of those
//! changes were made; so a hundred changes of a directory cost two.

use crate::host::ObjectKey;
use crate::vfs::{Settled, VfsError};
use crossbeam_channel::{Sender, unbounded};
use parking_lot::Mutex;
use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use tokio::sync::oneshot;

/// Threads that wait for disks. The changes of different directories share a commit of the file system's journal
/// if as many fsyncs run at once.
const THREADS: usize = 16;

/// Something to be flushed.
#[derive(Clone, Debug)]
pub(super) enum Debt {
    /// An object: fsync.
    Object(ObjectKey, Arc<OwnedFd>),
    /// A file's content and size: fdatasync.
    Data(ObjectKey, Arc<OwnedFd>),
    /// Everything: syncfs.
    FileSystem,
}

impl Debt {
    /// Debts of the same name are paid together. An fsync pays for data too, but not the other way round.
    fn name(&self) -> Name {
        match self {
            Debt::Object(key, _) => (Some(key.clone()), false),
            Debt::Data(key, _) => (Some(key.clone()), true),
            Debt::FileSystem => (None, false),
        }
    }
}

type Name = (Option<ObjectKey>, bool);
type Paid = Result<(), VfsError>;
/// Flushes one thing.
type Pay = Box<dyn Fn(&Debt) -> Paid + Send + Sync>;

thread_local! {
    /// What the last change of this thread owes.
    static OWED: RefCell<Vec<Debt>> = const { RefCell::new(Vec::new()) };
}

/// A change begins: what an earlier one owed and nobody asked for is not its affair.
pub(super) fn begin() {
    OWED.with_borrow_mut(Vec::clear);
}

/// The change that this thread is making is durable when this is flushed too.
pub(super) fn owe(debt: Debt) {
    OWED.with_borrow_mut(|owed| owed.push(debt));
}

/// Who waits for the same flush.
#[derive(Default)]
struct Group {
    /// For the flush that runs or is about to begin; `None`: it has begun, and they wait elsewhere.
    waiting: Vec<oneshot::Sender<Paid>>,
    /// The debt of the last who came.
    debt: Option<Debt>,
    running: bool,
}

/// See the module.
pub(super) struct GroupCommit {
    groups: Mutex<HashMap<Name, Group>>,
    pay: Pay,
}

impl GroupCommit {
    /// `pay` flushes. To be made on a thread that acts as the process itself: it may start threads.
    pub(super) fn new(pay: impl Fn(&Debt) -> Paid + Send + Sync + 'static) -> Arc<GroupCommit> {
        flushers();
        Arc::new(GroupCommit { groups: Mutex::default(), pay: Box::new(pay) })
    }

    /// When what this thread's last change owes is paid; `None`: it owes nothing.
    pub(super) fn settled(group: &Arc<GroupCommit>) -> Option<Settled> {
        let owed = OWED.with_borrow_mut(std::mem::take);
        if owed.is_empty() {
            return None;
        }
        let group = Arc::clone(group);
        Some(Box::pin(async move {
            // One after the other: what is named last may depend on what is named first.
            for debt in owed {
                let paid = GroupCommit::ask(&group, debt).await;
                paid.unwrap_or(Err(VfsError::Io))?;
            }
            Ok(())
        }))
    }

    fn ask(this: &Arc<GroupCommit>, debt: Debt) -> oneshot::Receiver<Paid> {
        let (sender, receiver) = oneshot::channel();
        let name = debt.name();
        let idle = {
            let mut groups = this.groups.lock();
            let group = groups.entry(name.clone()).or_default();
            group.waiting.push(sender);
            let idle = !group.running && group.debt.is_none();
            group.debt = Some(debt);
            idle
        };
        if idle {
            GroupCommit::submit(this, name);
        }
        receiver
    }

    fn submit(this: &Arc<GroupCommit>, name: Name) {
        let group = Arc::clone(this);
        match flushers() {
            Some(flushers) => {
                let work: Work = Box::new(move || GroupCommit::run(&group, name));
                // The threads never end.
                let _ = flushers.send(work);
            }
            // No threads could be had: better late than not at all.
            None => GroupCommit::run(&group, name),
        }
    }

    fn run(this: &Arc<GroupCommit>, name: Name) {
        let (waiting, debt) = {
            let mut groups = this.groups.lock();
            let Some(group) = groups.get_mut(&name) else { return };
            group.running = true;
            (std::mem::take(&mut group.waiting), group.debt.take())
        };
        // Whoever comes from here on is not covered by this flush.
        let paid = debt.as_ref().map_or(Ok(()), |debt| (this.pay)(debt));
        let more = {
            let mut groups = this.groups.lock();
            let more = groups.get_mut(&name).is_some_and(|group| {
                group.running = false;
                !group.waiting.is_empty()
            });
            if !more {
                groups.remove(&name);
            }
            more
        };
        if more {
            GroupCommit::submit(this, name);
        }
        for waiter in waiting {
            // Gone with its connection.
            let _ = waiter.send(paid);
        }
    }
}

type Work = Box<dyn FnOnce() + Send>;

/// The threads of the process that flush; they start at the first use.
fn flushers() -> Option<&'static Sender<Work>> {
    static FLUSHERS: OnceLock<Option<Sender<Work>>> = OnceLock::new();
    FLUSHERS
        .get_or_init(|| {
            let (sender, receiver) = unbounded::<Work>();
            let started = (0..THREADS)
                .filter_map(|number| {
                    let receiver = receiver.clone();
                    let run = move || receiver.iter().for_each(|work| work());
                    std::thread::Builder::new().name(format!("vfs-flush-{number}")).spawn(run).ok()
                })
                .count();
            if started == 0 {
                tracing::error!("no threads to flush files with: clients wait for one another's changes");
            }
            (started > 0).then_some(sender)
        })
        .as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::object::KeyKind;
    use smallvec::SmallVec;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    const WAIT: Duration = Duration::from_secs(20);

    fn debt(number: u8) -> Debt {
        let key = ObjectKey { kind: KeyKind::Handle, handle_type: 1, bytes: SmallVec::from_slice(&[number]) };
        let fd = std::fs::File::open("/dev/null").unwrap();
        Debt::Object(key, Arc::new(fd.into()))
    }

    /// A change that owes `debts`, and the future of its reply, already waiting.
    fn change(group: &Arc<GroupCommit>, debts: &[Debt]) -> Settled {
        begin();
        debts.iter().cloned().for_each(owe);
        let mut settled = GroupCommit::settled(group).unwrap();
        assert!(poll(&mut settled).is_pending());
        settled
    }

    fn poll(settled: &mut Settled) -> Poll<Paid> {
        settled.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    fn wait(settled: Settled) -> Paid {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(WAIT, settled).await }).expect("settles")
    }

    /// Flushes that begin when told, and end when told.
    struct Disk {
        begun: crossbeam_channel::Receiver<()>,
        end: Sender<Paid>,
        count: Arc<AtomicUsize>,
    }

    fn disk() -> (Arc<GroupCommit>, Disk) {
        let (begin, begun) = unbounded();
        let (end, ended) = unbounded();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let group = GroupCommit::new(move |_| {
            counted.fetch_add(1, SeqCst);
            begin.send(()).unwrap();
            ended.recv_timeout(WAIT).unwrap()
        });
        (group, Disk { begun, end, count })
    }

    #[test]
    fn who_comes_during_a_flush_waits_for_the_next() {
        let (group, disk) = disk();
        let mut first = change(&group, &[debt(1)]);
        disk.begun.recv_timeout(WAIT).unwrap();
        let mut late: Vec<Settled> = (0..100).map(|_| change(&group, &[debt(1)])).collect();
        disk.end.send(Ok(())).unwrap();
        // The next flush has begun: the first is answered, none of the others.
        disk.begun.recv_timeout(WAIT).unwrap();
        assert_eq!(wait(std::mem::replace(&mut first, Box::pin(std::future::pending()))), Ok(()));
        assert!(late.iter_mut().all(|settled| poll(settled).is_pending()));
        disk.end.send(Ok(())).unwrap();
        late.into_iter().for_each(|settled| assert_eq!(wait(settled), Ok(())));
        assert_eq!(disk.count.load(SeqCst), 2, "a hundred changes share a flush");
        assert!(group.groups.lock().is_empty());
    }

    #[test]
    fn an_error_reaches_those_whom_it_concerns() {
        let (group, disk) = disk();
        let first = change(&group, &[debt(1)]);
        disk.begun.recv_timeout(WAIT).unwrap();
        let second = change(&group, &[debt(1)]);
        disk.end.send(Err(VfsError::Io)).unwrap();
        disk.end.send(Ok(())).unwrap();
        assert_eq!(wait(first), Err(VfsError::Io));
        assert_eq!(wait(second), Ok(()));
    }

    #[test]
    fn debts_are_paid_in_their_order() {
        let (group, disk) = disk();
        let mut both = change(&group, &[debt(1), debt(2)]);
        disk.begun.recv_timeout(WAIT).unwrap();
        assert!(
            disk.begun.recv_timeout(Duration::from_millis(20)).is_err(),
            "the second waits for the first"
        );
        disk.end.send(Ok(())).unwrap();
        disk.end.send(Ok(())).unwrap();
        assert_eq!(wait(std::mem::replace(&mut both, Box::pin(std::future::pending()))), Ok(()));
        assert_eq!(disk.count.load(SeqCst), 2);
    }

    #[test]
    fn what_nobody_asked_for_is_not_the_next_changes_affair() {
        let (group, disk) = disk();
        begin();
        owe(debt(1));
        begin();
        assert!(GroupCommit::settled(&group).is_none());
        drop(disk);
    }

    /// Many threads: whatever was changed before its flush began is what is on disk when the reply leaves.
    #[test]
    fn no_reply_before_its_own_flush() {
        let changed = Arc::new([const { AtomicUsize::new(0) }; 3]);
        let durable = Arc::new([const { AtomicUsize::new(0) }; 3]);
        let (from, to) = (Arc::clone(&changed), Arc::clone(&durable));
        let group = GroupCommit::new(move |debt| {
            let Debt::Object(key, _) = debt else { return Ok(()) };
            let index = usize::from(key.bytes[0]);
            let seen = from[index].load(SeqCst);
            std::thread::yield_now();
            to[index].fetch_max(seen, SeqCst);
            Ok(())
        });
        let failed = Arc::new(AtomicBool::new(false));
        std::thread::scope(|scope| {
            for thread in 0..4u8 {
                let (group, changed, durable, failed) = (&group, &changed, &durable, &failed);
                scope.spawn(move || {
                    for round in 0..300u16 {
                        let index = usize::from((u16::from(thread) + round) % 3);
                        let mine = changed[index].fetch_add(1, SeqCst) + 1;
                        begin();
                        owe(debt(index as u8));
                        wait(GroupCommit::settled(group).unwrap()).unwrap();
                        failed.fetch_or(durable[index].load(SeqCst) < mine, SeqCst);
                    }
                });
            }
        });
        assert!(!failed.load(SeqCst), "a reply left before its change was flushed");
    }
}
