//! A limit on how many at once, shared by threads that sleep when it is reached.

use parking_lot::Mutex;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};

/// How many may be inside (`maxconn`). Who does not get in leaves a waker and is woken when one leaves.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Inside>);

#[derive(Debug)]
struct Inside {
    now: AtomicU32,
    most: AtomicU32,
    limit: AtomicU32,
    somebody_waits: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

/// One who is inside; leaves when dropped.
#[derive(Debug)]
pub struct Pass(Gate);

impl Gate {
    /// At most `limit` inside.
    pub fn new(limit: u32) -> Gate {
        Gate(Arc::new(Inside {
            now: AtomicU32::new(0),
            most: AtomicU32::new(0),
            limit: AtomicU32::new(limit),
            somebody_waits: AtomicBool::new(false),
            waiting: Mutex::new(Vec::new()),
        }))
    }

    /// How many are inside.
    pub fn now(&self) -> u32 {
        self.0.now.load(Ordering::Relaxed)
    }

    /// The most there have been.
    pub fn most(&self) -> u32 {
        self.0.most.load(Ordering::Relaxed)
    }

    /// The most becomes what is now (`clear counters`).
    pub fn forget_most(&self) {
        self.0.most.store(self.now(), Ordering::Relaxed);
    }

    /// How many may be.
    pub fn limit(&self) -> u32 {
        self.0.limit.load(Ordering::Relaxed)
    }

    /// Changes the limit (`set maxconn`). Nobody is thrown out.
    pub fn set_limit(&self, limit: u32) {
        self.0.limit.store(limit, Ordering::SeqCst);
        self.wake();
    }

    /// Goes in if there is room.
    pub fn enter(&self) -> Option<Pass> {
        let limit = self.0.limit.load(Ordering::SeqCst);
        let inside = self
            .0
            .now
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| (now < limit).then_some(now + 1));
        inside.ok()?;
        Some(Pass(self.clone()))
    }

    /// Goes in when there is room.
    pub fn entered(&self) -> impl Future<Output = Pass> + use<> {
        Entering(self.clone())
    }

    fn wake(&self) {
        if self.0.somebody_waits.swap(false, Ordering::SeqCst) {
            let waiting = std::mem::take(&mut *self.0.waiting.lock());
            waiting.into_iter().for_each(Waker::wake);
        }
    }
}

struct Entering(Gate);

impl Future for Entering {
    type Output = Pass;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Pass> {
        if let Some(pass) = self.0.enter() {
            return Poll::Ready(pass);
        }
        let inside = &self.0.0;
        {
            let mut waiting = inside.waiting.lock();
            if !waiting.iter().any(|known| known.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
            }
            inside.somebody_waits.store(true, Ordering::SeqCst);
        }
        // Somebody may have left between the attempt and the note.
        match self.0.enter() {
            Some(pass) => Poll::Ready(pass),
            None => Poll::Pending,
        }
    }
}

impl Pass {
    /// Somebody is really inside, and counts in [`Gate::most`]: a pass may be taken before it is known what for.
    pub fn hold(&self) {
        let now = self.0.now();
        if now > self.0.most() {
            self.0.0.most.fetch_max(now, Ordering::Relaxed);
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.0.now.fetch_sub(1, Ordering::SeqCst);
        self.0.wake();
    }
}
