//! The one timer of a connection.
//!
//! Moving a deadline later costs nothing: the timer stays where it is, and is armed again when it fires too early.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::time::Sleep;

/// When waiting ends. Belongs to one task.
#[derive(Debug, Default)]
pub(crate) struct Deadline {
    at: Option<Instant>,
    /// Made when somebody waits for the first time.
    timer: Option<Pin<Box<Sleep>>>,
    /// The timer knows this task.
    registered: bool,
}

impl Deadline {
    /// Waiting ends at `at`; never when absent.
    pub(crate) fn set(&mut self, at: Option<Instant>) {
        self.at = at;
    }

    /// When waiting ends.
    pub(crate) fn at(&self) -> Option<Instant> {
        self.at
    }

    /// Waiting ends `after` from `now`; never when absent.
    pub(crate) fn set_after(&mut self, now: Instant, after: Option<Duration>) {
        self.at = after.map(|after| now + after);
    }

    /// Whether it has come. Otherwise the task is woken when it does.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(at) = self.at else { return Poll::Pending };
            let timer = self.timer.get_or_insert_with(|| {
                self.registered = false;
                Box::pin(tokio::time::sleep_until(at.into()))
            });
            let armed = Instant::from(timer.deadline());
            if armed > at {
                timer.as_mut().reset(at.into());
                self.registered = false;
            }
            if self.registered && !timer.is_elapsed() {
                return Poll::Pending;
            }
            self.registered = true;
            if timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            if armed >= at || Instant::now() >= at {
                return Poll::Ready(());
            }
            timer.as_mut().reset(at.into());
            self.registered = false;
        }
    }
}
