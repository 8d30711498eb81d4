//! Faults of the program itself. One in a connection ends that connection: others go on, and the operator is told in the
//! log. One in what everything depends on ends the process.

use super::live::Live;
use super::thread::Thread;
use crate::proxy::exchange::Endpoint;
use crate::proxy::log::Severity;
use std::cell::RefCell;
use std::panic;
use std::rc::Rc;

thread_local! {
    /// What the last panic of this thread said, and where it was.
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Notes panics of all threads, so that the log can say what they were; `tell` gets each, too. For the whole process.
pub fn note_panics(tell: impl Fn(&str) + Send + Sync + 'static) {
    panic::set_hook(Box::new(move |info| {
        let place = info.location().map_or("an unknown place".to_owned(), ToString::to_string);
        let text = format!("{} at {place}", info.payload_as_str().unwrap_or("panic"));
        tell(&text);
        LAST.set(Some(text));
    }));
}

/// Stands beside a session, and tells if it ends by a panic.
pub(crate) struct Witness<'t> {
    pub(crate) thread: &'t Thread,
    pub(crate) live: Rc<Live>,
}

impl Drop for Witness<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let what = LAST.take().unwrap_or_else(|| "panic".to_owned());
        let row = self.live.row.get();
        let client = match row.client {
            Endpoint::Tcp(address) => address.to_string(),
            Endpoint::Unix => "unix:0".to_owned(),
        };
        self.thread.log(row.frontend, Severity::Alert, |text| {
            let told = format!("A fault of this program ended the connection of {client}: {what}. Others go on; please report it.");
            text.extend_from_slice(told.as_bytes());
        });
    }
}
