//! Plain threads that call the file system: those calls block, and change the thread's own ids.

use crate::observe::metrics;
use crossbeam_channel::{Sender, bounded};
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

type Work = Box<dyn FnOnce() + Send>;

struct Queued {
    work: Work,
    /// Held while it waits; a free one means a free place in the queue.
    place: OwnedSemaphorePermit,
    /// Counts it while it waits.
    waiting: Waiting,
}

struct Waiting(());

impl Waiting {
    fn new() -> Waiting {
        metrics::NFS_QUEUED.add(1);
        Waiting(())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        metrics::NFS_QUEUED.sub(1);
    }
}

/// The threads and their bounded queue.
pub(super) struct Workers {
    queue: Sender<Queued>,
    places: Arc<Semaphore>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `threads` threads; at most `queue` pieces of work wait for one.
    pub(super) fn start(threads: usize, queue: usize) -> std::io::Result<Workers> {
        let queue_len = queue.max(1);
        // A piece being taken frees its place a moment after it left the channel, never before.
        let (sender, receiver) = bounded::<Queued>(queue_len);
        let threads = (0..threads.max(1))
            .map(|number| {
                let receiver = receiver.clone();
                std::thread::Builder::new().name(format!("nfs-{number}")).spawn(move || {
                    for Queued { work, place, waiting } in receiver {
                        drop((place, waiting));
                        work();
                    }
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Workers { queue: sender, places: Arc::new(Semaphore::new(queue_len)), threads })
    }

    /// Waits for a place in the queue. `work` must not panic. False: the workers are gone.
    pub(super) async fn submit(&self, work: impl FnOnce() + Send + 'static) -> bool {
        let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return false };
        self.queue.try_send(Queued { work: Box::new(work), place, waiting: Waiting::new() }).is_ok()
    }

    /// Lets the threads finish what is queued and waits for them (blocking).
    pub(super) fn stop(self) {
        drop(self.queue);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("an NFS worker thread ended with a panic");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    #[tokio::test]
    async fn everything_submitted_is_done_and_waiting_is_bounded() {
        let workers = Workers::start(2, 3).unwrap();
        let done = Arc::new(AtomicUsize::new(0));
        let (open, gate) = crossbeam_channel::bounded::<()>(0);
        for _ in 0..5 {
            let (done, gate) = (Arc::clone(&done), gate.clone());
            let accepted = workers.submit(move || {
                let _ = gate.recv();
                done.fetch_add(1, Ordering::SeqCst);
            });
            assert!(tokio::time::timeout(Duration::from_secs(10), accepted).await.expect("a place is free"));
        }
        // Two run, three wait: one more has to wait for a place.
        let (sixth_done, sixth) = mpsc::channel();
        let waiting = workers.submit(move || {
            let _ = sixth_done.send(());
        });
        let mut waiting = Box::pin(waiting);
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut waiting).await.is_err());
        drop(open);
        assert!((&mut waiting).await);
        drop(waiting);
        sixth.recv_timeout(Duration::from_secs(10)).unwrap();
        tokio::task::spawn_blocking(move || workers.stop()).await.unwrap();
        assert_eq!(done.load(Ordering::SeqCst), 5);
    }
}
