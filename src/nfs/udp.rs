//! MOUNT and locks over UDP, on the port that NFS has over TCP. NFS itself is served over TCP alone.

use super::dispatch::{self, Action};
use super::job::{Place, Ran};
use super::meters::Traffic;
use super::rpc::{self, Answerer, Arrival, Reply};
use super::server::Shared;
use super::workers::Workers;
use ehpc_proto::codec::{Decoder, Encoder};
use ehpc_proto::{mount, nlm, nsm, rpc as wire};
use std::io;
use std::sync::Arc;
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Threads for calls that touch files: MOUNT is rare.
const THREADS: usize = 2;
/// Calls that wait or are done; more are dropped, as UDP does, and come again.
const IN_FLIGHT: usize = 128;

/// The programs that are served over UDP.
const PROGRAMS: [u32; 3] = [mount::PROGRAM, nlm::PROGRAM, nsm::PROGRAM];

struct Programs {
    shared: Arc<Shared>,
    workers: Arc<Workers>,
    places: Arc<Semaphore>,
}

impl Answerer for Programs {
    fn answer(&self, arrival: Arrival, call: Vec<u8>, reply: Reply) {
        if let Some(refusal) = refusal(&call) {
            return reply(refusal);
        }
        let mut out = Encoder::with_capacity(512);
        match dispatch::read(&self.shared, arrival.from, &call, &mut out) {
            Action::Ignore | Action::Close => {}
            Action::Answered => reply(message(out.finish())),
            Action::Run(mut job) => {
                let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return };
                let (shared, workers) = (Arc::clone(&self.shared), Arc::clone(&self.workers));
                self.shared.runtime.spawn(async move {
                    // Clients are counted by their connections.
                    let traffic = Traffic::default();
                    let work = move || {
                        let _place = place;
                        // Nothing that is served here changes a file: there is nothing to wait for.
                        if let Ran::Done(_) = job.run(&shared, &call, &mut out, Place::Worker) {
                            let record = out.finish();
                            job.finish(&shared, &traffic, &record);
                            reply(message(record));
                        }
                    };
                    workers.submit(work).await;
                });
            }
        }
    }
}

/// The answer to a call of what is not served over UDP.
fn refusal(call: &[u8]) -> Option<Vec<u8>> {
    let call = wire::Call::decode(&mut Decoder::new(call)).ok()?;
    if PROGRAMS.contains(&call.program) {
        return None;
    }
    let mut out = Encoder::with_capacity(32);
    wire::Reply::ProgramUnavailable.encode(call.xid, &mut out);
    Some(out.finish())
}

/// A record as a datagram: without its mark.
fn message(mut record: Vec<u8>) -> Vec<u8> {
    record.drain(..record.len().min(4));
    record
}

/// Serves until `stop`, then finishes what is being done.
pub(super) fn serve(
    shared: Arc<Shared>,
    socket: UdpSocket,
    stop: CancellationToken,
) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let workers = Arc::new(Workers::start(THREADS, IN_FLIGHT)?);
    let places = Arc::new(Semaphore::new(IN_FLIGHT));
    let programs = Programs { shared, workers: Arc::clone(&workers), places: Arc::clone(&places) };
    Ok(async move {
        rpc::datagrams::serve(socket, Arc::new(programs), stop).await;
        // Every call gives its place back when it is done.
        let _all = places.acquire_many(IN_FLIGHT as u32).await;
        if let Some(workers) = Arc::into_inner(workers)
            && tokio::task::spawn_blocking(move || workers.stop()).await.is_err()
        {
            tracing::error!("stopping the threads of MOUNT over UDP failed");
        }
    })
}
