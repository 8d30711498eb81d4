//! One thread per core, each with a runtime of its own: a connection lives on one of them, and what is quick is
//! answered there without a change of threads.

use super::budget::Budget;
use super::connection::Connection;
use super::meters::Traffic;
use super::server::{Counted, Shared};
use super::spare::Spare;
use super::turns::Turns;
use super::workers::Workers;
use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{JoinError, JoinSet, LocalSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Bytes read at once while records are small.
const READ_BUFFER: usize = 64 * 1024;

/// What the connections of one thread share.
pub(super) struct Thread {
    /// What a read of any connection goes to; nobody keeps it beyond one turn.
    pub(super) buffer: RefCell<Box<[u8]>>,
    pub(super) spare: Spare,
    pub(super) turns: Turns,
}

/// A connection that was accepted.
pub(super) struct Newcomer {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) budget: Budget,
    pub(super) traffic: Arc<Traffic>,
    pub(super) counted: Counted,
}

/// The threads.
pub(super) struct Engine {
    threads: Vec<(UnboundedSender<Newcomer>, JoinHandle<()>)>,
    next: usize,
}

impl Engine {
    /// Starts the threads. `stop` ends their connections in order.
    pub(super) fn start(
        shared: &Arc<Shared>,
        workers: &Arc<Workers>,
        stop: &CancellationToken,
    ) -> io::Result<Engine> {
        let threads = (0..shared.options.threads.max(1))
            .map(|number| {
                let (shared, workers, stop) = (Arc::clone(shared), Arc::clone(workers), stop.clone());
                // Made here, so that a failure is known at the start.
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let (sender, newcomers) = unbounded_channel();
                let run = move || {
                    let connections = LocalSet::new();
                    connections.block_on(&runtime, serve(newcomers, shared, workers, stop));
                };
                let thread = std::thread::Builder::new().name(format!("nfs-core-{number}")).spawn(run)?;
                Ok((sender, thread))
            })
            .collect::<io::Result<_>>()?;
        Ok(Engine { threads, next: 0 })
    }

    /// Gives a connection to the next thread.
    pub(super) fn hand_over(&mut self, newcomer: Newcomer) {
        self.next = (self.next + 1) % self.threads.len().max(1);
        let Some((thread, _)) = self.threads.get(self.next) else { return };
        if thread.send(newcomer).is_err() {
            tracing::error!("a connection is lost: the thread that should serve it is gone");
        }
    }

    /// Takes no more connections and waits (blocking) until those that are there have ended, for which `stop` must
    /// have been given.
    pub(super) fn join(self) {
        for (sender, thread) in self.threads {
            drop(sender);
            if thread.join().is_err() {
                tracing::error!("an NFS thread ended with a panic");
            }
        }
    }
}

async fn serve(
    mut newcomers: UnboundedReceiver<Newcomer>,
    shared: Arc<Shared>,
    workers: Arc<Workers>,
    stop: CancellationToken,
) {
    let buffer = RefCell::new(vec![0; READ_BUFFER].into_boxed_slice());
    let thread = Rc::new(Thread { buffer, spare: Spare::default(), turns: Turns::default() });
    let turns = Rc::clone(&thread);
    let _dispatcher =
        AbortOnDropHandle::new(tokio::task::spawn_local(async move { turns.turns.dispatch().await }));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            newcomer = newcomers.recv() => {
                let Some(newcomer) = newcomer else { break };
                let Newcomer { stream, peer, budget, traffic, counted } = newcomer;
                let stream = match tokio::net::TcpStream::from_std(stream) {
                    Ok(stream) => stream,
                    Err(error) => {
                        tracing::warn!(client = %peer, %error, "cannot serve an NFS connection");
                        continue;
                    }
                };
                let parts = (Arc::clone(&shared), Arc::clone(&workers), Rc::clone(&thread));
                let connection = Connection::new(parts, (stream, peer), budget, traffic);
                let stop = stop.clone();
                connections.spawn_local(async move {
                    let _counted = counted;
                    connection.run(stop).await;
                });
            }
            Some(ended) = connections.join_next() => report(ended),
        }
    }
    let in_order = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    };
    if tokio::time::timeout(shared.options.drain, in_order).await.is_err() {
        tracing::warn!(connections = connections.len(), "ending NFS connections with unanswered requests");
        connections.shutdown().await;
    }
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a fault ended an NFS connection; the server goes on");
    }
}
