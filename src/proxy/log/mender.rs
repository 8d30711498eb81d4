//! Connects log sockets again when the syslog daemon was restarted, also from inside a chroot.
//!
//! A restarted daemon makes a new socket under the old name. The sockets of all threads are connected to it in place:
//! `connect` on a datagram socket replaces its peer, so nobody who sends needs to know. After a chroot the name cannot
//! be found any more; a thread whose working directory is its own goes to the directory, which was left open, and
//! connects by the bare name.

use super::target::Receiver;
use crate::host::process::own_working_directory;
use parking_lot::{Condvar, Mutex};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Shortest time between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// What senders tell the mender.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    broken: bool,
    over: bool,
}

impl Wanted {
    /// A line could not be sent.
    pub(super) fn mend(&self) {
        self.state.lock().broken = true;
        self.changed.notify_one();
    }

    /// Nobody sends any more.
    pub(super) fn end(&self) {
        self.state.lock().over = true;
        self.changed.notify_one();
    }
}

/// All sockets that go to one receiver.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) receiver: Receiver,
    pub(super) sockets: Vec<OwnedFd>,
}

/// Mends until the end. A thread of its own.
pub(super) fn run(lines: &[Line], wanted: &Arc<Wanted>) {
    let own_directory = own_working_directory().is_ok();
    loop {
        {
            let mut state = wanted.state.lock();
            while !state.broken && !state.over {
                wanted.changed.wait(&mut state);
            }
            if state.over {
                return;
            }
            state.broken = false;
        }
        let whole = lines.iter().all(|line| line.connect(own_directory));
        // The next attempt is not before the pause is over, however many lines fail meanwhile.
        let until = Instant::now() + PAUSE;
        let mut state = wanted.state.lock();
        while !state.over && !wanted.changed.wait_until(&mut state, until).timed_out() {}
        state.broken |= !whole;
    }
}

impl Line {
    fn connect(&self, own_directory: bool) -> bool {
        let by_path = || self.connect_to(&self.receiver.path);
        match &self.receiver.place {
            Some((directory, name)) if own_directory => {
                rustix::process::fchdir(directory).is_ok() && self.connect_to(name) || by_path()
            }
            _ => by_path(),
        }
    }

    fn connect_to(&self, path: &Path) -> bool {
        rustix::net::SocketAddrUnix::new(path)
            .is_ok_and(|to| self.sockets.iter().all(|socket| rustix::net::connect(socket, &to).is_ok()))
    }
}
