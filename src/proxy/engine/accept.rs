//! Accepting connections, as many as `maxconn` of process, section and `bind` allow. What is too much stays in the
//! kernel's backlog, as with HAProxy.

use super::dial::no_descriptor;
use super::session::{self, Client};
use super::stream::Stream;
use super::thread::{OpenListener, Thread};
use crate::host::reactor;
use crate::proxy::exchange::{Endpoint, Session};
use crate::proxy::listen::ListeningSocket;
use crate::proxy::state::{Gate, Pass};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Accepted in a row before other connections get their turn.
const BATCH: usize = 32;

/// How long accepting pauses when the system has no descriptor or memory left, or the section is paused.
const PAUSE: Duration = Duration::from_millis(100);

/// A listening socket of this thread.
pub(crate) struct Listening {
    socket: AsyncFd<OwnedFd>,
    proxy: usize,
    bind: usize,
    /// The address, when it is the same for all connections.
    local: Option<Endpoint>,
}

/// Permission to have a connection; given back when dropped.
pub(crate) struct Passes {
    listener: Option<Pass>,
    frontend: Option<Pass>,
    process: Pass,
}

impl Passes {
    /// The connection's place at its `bind` and in its section is free; that in the process it keeps.
    pub(crate) fn leave_section(&mut self) {
        (self.listener, self.frontend) = (None, None);
    }

    /// A connection has come for them: they count in the highest numbers.
    fn hold(&self) {
        let narrow = [&self.listener, &self.frontend].into_iter().flatten();
        narrow.chain([&self.process]).for_each(Pass::hold);
    }
}

/// Puts a socket on this thread's reactor.
///
/// # Errors
/// When it is no listening socket, or the reactor is full.
pub(crate) fn prepare(listener: OpenListener) -> io::Result<Listening> {
    let OpenListener { socket, proxy, bind, .. } = listener;
    let socket: OwnedFd = match socket {
        ListeningSocket::Tcp(socket) => socket.into(),
        ListeningSocket::Unix(socket) => socket.into(),
    };
    rustix::io::ioctl_fionbio(&socket, true)?;
    let address = rustix::net::getsockname(&socket)?;
    let address = SocketAddr::try_from(address).ok();
    if address.is_some() {
        // Accepted sockets inherit it: no system call for each.
        rustix::net::sockopt::set_tcp_nodelay(&socket, true)?;
    }
    let local = match address {
        None => Some(Endpoint::Unix),
        Some(address) => (!address.ip().is_unspecified()).then_some(Endpoint::Tcp(address)),
    };
    let socket = reactor::register(socket, Interest::READABLE)?;
    Ok(Listening { socket, proxy, bind, local })
}

/// Accepts until the process stops.
pub(crate) async fn serve(thread: Rc<Thread>, listening: Listening) {
    tokio::select! {
        () = thread.stopped() => {}
        () = accept(&thread, &listening) => {}
    }
}

async fn accept(thread: &Rc<Thread>, listening: &Listening) {
    loop {
        let Ok(mut ready) = listening.socket.readable().await else { return };
        while is_paused(thread, listening) {
            tokio::time::sleep(PAUSE).await;
        }
        for _ in 0..BATCH {
            let passes = enter(thread, listening).await;
            let accepted = rustix::net::acceptfrom_with(
                listening.socket.get_ref(),
                SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
            );
            match accepted {
                Ok((fd, address)) => {
                    let client = address.and_then(|address| SocketAddr::try_from(address).ok());
                    begin(thread, listening, fd, client, passes);
                }
                Err(Errno::AGAIN) => {
                    ready.clear_ready();
                    break;
                }
                // The client has gone already.
                Err(Errno::CONNABORTED | Errno::INTR | Errno::PROTO | Errno::PERM) => {}
                Err(error) => {
                    if no_descriptor(&error.into()) {
                        thread.idle.clear();
                    }
                    // No descriptor or memory: others have to end first.
                    drop(passes);
                    tokio::time::sleep(PAUSE).await;
                    break;
                }
            }
        }
        drop(ready);
        tokio::task::yield_now().await;
    }
}

/// `disable frontend`: what comes stays in the kernel's backlog.
fn is_paused(thread: &Thread, listening: &Listening) -> bool {
    let frontend = thread.running.proxies[listening.proxy].frontend.as_ref();
    frontend.is_some_and(|frontend| frontend.paused.load(Ordering::Relaxed))
}

/// Waits for room: the narrowest limit first, so that a full section does not hold what others could use.
async fn enter(thread: &Thread, listening: &Listening) -> Passes {
    let frontend = thread.running.proxies[listening.proxy].frontend.as_ref();
    let listener = frontend.and_then(|frontend| frontend.listeners.get(listening.bind)?.gate.as_ref());
    let listener = match listener {
        Some(gate) => Some(pass(gate).await),
        None => None,
    };
    let frontend = match frontend {
        Some(frontend) => Some(pass(&frontend.gate).await),
        None => None,
    };
    Passes { listener, frontend, process: pass(&thread.running.gate).await }
}

async fn pass(gate: &Gate) -> Pass {
    match gate.enter() {
        Some(pass) => pass,
        None => gate.entered().await,
    }
}

fn begin(
    thread: &Rc<Thread>,
    listening: &Listening,
    fd: OwnedFd,
    client: Option<SocketAddr>,
    passes: Passes,
) {
    let number = thread.running.connections.fetch_add(1, Ordering::Relaxed);
    passes.hold();
    let local = listening.local.unwrap_or_else(|| local_address(&fd));
    let session = Session {
        client: client.map_or(Endpoint::Unix, Endpoint::Tcp),
        local,
        frontend: listening.proxy,
        bind: listening.bind,
        accepted: SystemTime::now(),
        accepted_at: Instant::now(),
        number,
        variables: Default::default(),
    };
    // When the reactor takes no more, the client sees its connection closed.
    let Ok(stream) = Stream::new(fd, true) else { return };
    tokio::task::spawn_local(session::serve(thread.clone(), Client::new(stream), session, passes));
}

fn local_address(fd: &OwnedFd) -> Endpoint {
    let address = rustix::net::getsockname(fd).ok();
    address.and_then(|address| SocketAddr::try_from(address).ok()).map_or(Endpoint::Unix, Endpoint::Tcp)
}
