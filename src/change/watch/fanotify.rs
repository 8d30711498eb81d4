//! The watcher of a whole file system: no watch per directory, nothing to set up, nothing to race with.
//!
//! The kernel reports everything on the file system. An event counts when its directory is in the
//! [`super::DirectorySet`], or its object may be (a write through a hard link outside of the export, an
//! object opened by handle). Anything else costs one look-up and nothing more: a watcher that logged or
//! opened something here would feed itself. Events of our own process are dropped: `Recording` has noted
//! them already, and better. Only markers of a fence are looked for among them.

use super::{Change, ObjectKey, Path, Sink, Touch, Tree, WatchError, Written};
use crate::host::fanotify::{Event, Fanotify, Place, events, mask};
use crate::host::{KeyKind, coarse_now};
use ehpc_proto::replication::Timestamp;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

const BUFFER_BYTES: usize = 256 * 1024;
/// Room that the kernel may have found too small for one more event.
const LONGEST_EVENT: usize = 4096;
/// The queue is read at most this often, unless more waits than one read takes: a writer that has to wake a reader for
/// each of its events pays more for that than for the write, and the kernel merges equal events that wait.
const GATHER: Duration = Duration::from_millis(1);

pub(super) struct FanotifyWatch {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl FanotifyWatch {
    pub(super) fn start(
        tree: &Arc<Tree>,
        sink: &Arc<Sink>,
        fence: &Path,
    ) -> Result<FanotifyWatch, WatchError> {
        let group = Fanotify::open().map_err(WatchError::FanotifyOpen)?;
        Group::mark(group, tree, fence)?.run(own_pid(), sink)
    }
}

/// A group with its marks: the kernel queues from now on.
pub(super) struct Group {
    group: Fanotify,
    since: Timestamp,
}

impl Group {
    pub(super) fn mark(group: Fanotify, tree: &Tree, fence: &Path) -> Result<Group, WatchError> {
        if tree.key_kind() != KeyKind::Handle {
            return Err(WatchError::NoHandles);
        }
        let since = coarse_now();
        let path = tree.root_path();
        group
            .mark_filesystem(path)
            .map_err(|source| WatchError::FanotifyMark { path: path.clone(), source })?;
        group.mark_directory(fence).map_err(|source| WatchError::Fence { path: fence.to_owned(), source })?;
        Ok(Group { group, since })
    }

    /// Starts the thread that reads. Drops the events of process `own_pid`.
    pub(super) fn run(self, own_pid: i32, sink: &Arc<Sink>) -> Result<FanotifyWatch, WatchError> {
        let stop =
            Arc::new(eventfd(0, EventfdFlags::CLOEXEC).map_err(|errno| WatchError::Thread(errno.into()))?);
        let Group { group, since } = self;
        let sink = Arc::clone(sink);
        let reader = Reader { group, sink, own_pid, written: Written::default(), quiet: since };
        let stop_of_thread = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("fanotify".to_owned())
            .spawn(move || reader.run(&stop_of_thread))
            .map_err(WatchError::Thread)?;
        Ok(FanotifyWatch { stop, thread: Some(thread) })
    }
}

impl Drop for FanotifyWatch {
    fn drop(&mut self) {
        let woken = rustix::io::write(&*self.stop, &1u64.to_be_bytes());
        if let (Ok(_), Some(thread)) = (woken, self.thread.take()) {
            // It only fails if the thread panicked, which is reported where it happens.
            let _ = thread.join();
        }
    }
}

/// Waits; true: it is time to stop.
fn stops_within(time: Duration, stop: &OwnedFd) -> bool {
    let time = Timespec { tv_sec: 0, tv_nsec: time.subsec_nanos().into() };
    let mut ready = [PollFd::new(stop, PollFlags::IN)];
    poll(&mut ready, Some(&time)).is_ok_and(|count| count > 0)
}

fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

struct Reader {
    group: Fanotify,
    sink: Arc<Sink>,
    own_pid: i32,
    written: Written,
    /// The queue was empty after this: what is lost from here on happened later.
    quiet: Timestamp,
}

impl Reader {
    fn run(mut self, stop: &OwnedFd) {
        let mut buffer = vec![0u8; BUFFER_BYTES];
        let mut emptied = false;
        loop {
            if emptied && stops_within(GATHER, stop) {
                return;
            }
            let mut ready = [
                PollFd::from_borrowed_fd(self.group.as_fd(), PollFlags::IN),
                PollFd::new(stop, PollFlags::IN),
            ];
            match poll(&mut ready, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => {
                    tracing::error!(%errno, "the fanotify watcher stops; scans find changes from here on");
                    self.sink.overflow(self.quiet);
                    return;
                }
            }
            if !ready[1].revents().is_empty() {
                return;
            }
            emptied = true;
            let now = coarse_now();
            match self.group.read(&mut buffer) {
                Ok(len) => {
                    self.take(&buffer[..len]);
                    emptied = len < BUFFER_BYTES - LONGEST_EVENT;
                    if emptied {
                        self.quiet = now;
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                // An event was lost in the kernel (no memory, no handle): what it was, a scan finds.
                Err(_) => self.sink.overflow(self.quiet),
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        let mut count = 0;
        for event in events(bytes) {
            count += 1;
            match event {
                Ok(event) => self.event(event),
                Err(_) => self.sink.overflow(self.quiet),
            }
        }
        self.sink.count(count);
    }

    fn event(&mut self, event: Event<'_>) {
        if event.mask & mask::OVERFLOW != 0 {
            self.sink.overflow(self.quiet);
            return;
        }
        if let (Some(place), true) = (&event.place, event.mask & mask::CREATE != 0) {
            self.sink.markers.delivered(place.name);
        }
        if event.pid == self.own_pid {
            return;
        }
        let Event { mask: bits, place, object, old, new, .. } = event;
        if bits & mask::RENAME != 0 {
            self.renamed(old, new);
        }
        // Of an event on a directory itself the name is ".".
        let (inside, object) = match &place {
            Some(place) => {
                let inside = self.sink.directories.contains(&place.dir);
                let itself = place.name == b"." || place.name.is_empty();
                (inside, object.or_else(|| itself.then(|| place.dir.clone())))
            }
            None => (false, object),
        };
        if let Some(place) = place.filter(|place| inside && place.name != b".")
            && bits & (mask::CREATE | mask::DELETE | mask::MOVED_FROM | mask::MOVED_TO) != 0
        {
            self.sink.note(Change::entry(&place.dir, place.name));
        }
        if let Some(object) = object
            && bits & (mask::MODIFY | mask::ATTRIB | mask::CLOSE_WRITE | mask::DELETE_SELF) != 0
            && (inside || self.sink.directories.may_know(&object))
        {
            self.touched(bits, object);
        }
    }

    fn renamed(&self, old: Option<Place<'_>>, new: Option<Place<'_>>) {
        let inside = |place: &Place<'_>| self.sink.directories.contains(&place.dir);
        match (old.filter(inside), new.filter(inside)) {
            (Some(old), Some(new)) => {
                self.sink.note(Change::pair((&old.dir, old.name), (&new.dir, new.name)));
            }
            (Some(one), None) | (None, Some(one)) => self.sink.note(Change::entry(&one.dir, one.name)),
            (None, None) => {}
        }
    }

    fn touched(&mut self, bits: u64, object: ObjectKey) {
        if bits & mask::DELETE_SELF != 0 {
            // The handle is dead for good.
            self.sink.directories.remove(&object);
        }
        let mut touch = Touch::ATTRIBUTES;
        if bits & mask::ONDIR == 0 {
            if bits & mask::MODIFY != 0 {
                touch.merge(self.written.modified(&object));
            }
            if bits & mask::CLOSE_WRITE != 0 {
                touch.merge(self.written.closed(&object));
            }
        }
        self.sink.object(object, touch);
    }
}
