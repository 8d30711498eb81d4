//! Sessions of one thread, for `show sess`, `shutdown sessions` and a soft stop. A session pays for its row with one
//! small allocation; nobody reads the rows until they are asked for.

use super::thread::Thread;
use crate::proxy::config::model::{ProxyIndex, ServerIndex};
use crate::proxy::exchange::Endpoint;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Instant;

/// What a session is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Doing {
    /// Waits for a request.
    Idle,
    /// Receives a request head.
    Request,
    /// Waits in a queue.
    Queue,
    /// Connects to its server.
    Connect,
    /// Waits for the answer.
    Response,
    /// Moves bodies, or is a tunnel.
    Data,
}

/// One session as others see it.
#[derive(Clone, Copy, Debug)]
pub struct SessionRow {
    /// Its number in this process.
    pub number: u64,
    /// Thread that serves it, from 0.
    pub thread: usize,
    /// Its client.
    pub client: Endpoint,
    /// Section that accepted it.
    pub frontend: ProxyIndex,
    /// Section whose servers serve it.
    pub backend: Option<ProxyIndex>,
    /// Server that serves it.
    pub server: Option<ServerIndex>,
    /// When it was accepted.
    pub accepted_at: Instant,
    /// What it is doing.
    pub doing: Doing,
    /// Requests so far.
    pub requests: u64,
}

/// Which sessions a command means.
#[derive(Clone, Copy, Debug)]
pub enum Which {
    /// One of [`SessionRow::number`].
    Number(u64),
    /// All that use a server.
    Server(ProxyIndex, ServerIndex),
    /// All of a frontend.
    Frontend(ProxyIndex),
    /// Every one.
    All,
}

/// The part of a session that others may look at.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) row: Cell<SessionRow>,
    killed: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Live {
    /// Changes the row.
    pub(crate) fn update(&self, change: impl FnOnce(&mut SessionRow)) {
        let mut row = self.row.get();
        change(&mut row);
        self.row.set(row);
    }

    /// It does something else now.
    pub(crate) fn doing(&self, doing: Doing) {
        self.update(|row| row.doing = doing);
    }

    /// Somebody wants it to end.
    pub(crate) fn killed(&self) -> bool {
        self.killed.get()
    }

    /// Its end has begun: what it still says is not interrupted.
    pub(crate) fn is_ending(&self) {
        self.killed.set(false);
    }

    /// Notes how its task is woken. Once is enough: a task's waker stays the same.
    pub(crate) fn note_waker(&self, context: &Context<'_>) {
        *self.waker.borrow_mut() = Some(context.waker().clone());
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// All sessions of a thread.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    rows: RefCell<Vec<Option<Rc<Live>>>>,
    free: RefCell<Vec<usize>>,
    count: Cell<usize>,
    /// Told when the last one goes.
    emptied: tokio::sync::Notify,
}

/// A session's membership; ends when dropped.
pub(crate) struct Member {
    thread: Rc<Thread>,
    place: usize,
    pub(crate) live: Rc<Live>,
}

impl Member {
    /// Adds a session to its thread's. At once when it is accepted: a thread that stops ends when it has none.
    pub(crate) fn join(thread: Rc<Thread>, row: SessionRow) -> Member {
        let (place, live) = thread.sessions.add(row);
        Member { thread, place, live }
    }
}

impl Sessions {
    fn add(&self, row: SessionRow) -> (usize, Rc<Live>) {
        let live = Rc::new(Live { row: Cell::new(row), killed: Cell::new(false), waker: RefCell::new(None) });
        let mut rows = self.rows.borrow_mut();
        let place = self.free.borrow_mut().pop().unwrap_or_else(|| {
            rows.push(None);
            rows.len() - 1
        });
        rows[place] = Some(live.clone());
        self.count.set(self.count.get() + 1);
        (place, live)
    }

    /// A row a session.
    pub(crate) fn list(&self) -> Vec<SessionRow> {
        self.rows.borrow().iter().flatten().map(|live| live.row.get()).collect()
    }

    /// Ends sessions; how many.
    pub(crate) fn kill(&self, which: Which) -> usize {
        let meant = |row: &SessionRow| match which {
            Which::Number(number) => row.number == number,
            Which::Server(backend, server) => (row.backend, row.server) == (Some(backend), Some(server)),
            Which::Frontend(frontend) => row.frontend == frontend,
            Which::All => true,
        };
        let mut count = 0;
        for live in self.rows.borrow().iter().flatten().filter(|live| meant(&live.row.get())) {
            live.killed.set(true);
            live.wake();
            count += 1;
        }
        count
    }

    /// Wakes the idle ones, so that they see that the process stops.
    pub(crate) fn wake_idle(&self) {
        let rows = self.rows.borrow();
        rows.iter().flatten().filter(|live| live.row.get().doing == Doing::Idle).for_each(|live| live.wake());
    }

    /// Ready when no session is left.
    pub(crate) async fn emptied(&self) {
        while self.count.get() > 0 {
            self.emptied.notified().await;
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let sessions = &self.thread.sessions;
        sessions.rows.borrow_mut()[self.place] = None;
        sessions.free.borrow_mut().push(self.place);
        sessions.count.set(sessions.count.get() - 1);
        if sessions.count.get() == 0 {
            sessions.emptied.notify_one();
        }
    }
}
