//! What the next process may take of this one: copies of the listening sockets, until this one is told to go.

use super::handover;
use super::notices::Notices;
use super::open::OpenBind;
use super::sockets;
use crate::host::listening;
use crate::proxy::engine::OpenListener;
use crate::proxy::listen::ListeningSocket;
use parking_lot::Mutex;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// What the next process may take, until this one is told to go.
#[derive(Debug, Default)]
pub(super) struct Exported {
    groups: Mutex<Vec<Group>>,
    /// Since when new connections go to one socket of each address.
    steered: Mutex<Option<Instant>>,
    /// When a successor of our own took the sockets.
    handed_over: Mutex<Option<Instant>>,
}

/// How long whoever has taken sockets may need until it tells this process to go. Then it has failed.
pub(super) const STEERED_AT_MOST: Duration = Duration::from_secs(60);
/// How long connections are still accepted at sockets to which no new ones are steered: handshakes end meanwhile.
pub(super) const LAST_HANDSHAKES: Duration = Duration::from_millis(200);

/// Sockets of one `bind`.
#[derive(Debug)]
struct Group {
    sockets: Vec<ListeningSocket>,
}

/// Tells the states of all servers, for the next process.
pub(super) type States = Arc<dyn Fn() -> String + Send + Sync>;

/// The engine's part of the sockets, and those of the `stats socket`s with their numbers.
pub(super) type Shares = (Vec<OpenListener>, Vec<(usize, ListeningSocket)>);

impl Exported {
    /// Gives the engine its sockets and keeps a copy of each that a successor may have.
    pub(super) fn share_out(&self, open: Vec<OpenBind>, threads: usize) -> io::Result<Shares> {
        let (mut listeners, mut stats) = (Vec::new(), Vec::new());
        for OpenBind { proxy, bind, sockets, ours } in open {
            if ours {
                let copies = sockets.iter().map(ListeningSocket::copy).collect::<io::Result<_>>()?;
                self.groups.lock().push(Group { sockets: copies });
            }
            // Every socket needs a thread; and while there are fewer sockets than threads, each thread all sockets.
            let shared = sockets.len() < threads;
            for (number, socket) in sockets.into_iter().enumerate() {
                match proxy {
                    Some(proxy) => {
                        let thread = (!shared).then_some(number % threads);
                        listeners.push(OpenListener { proxy, bind, socket, thread });
                    }
                    None => stats.push((bind, socket)),
                }
            }
        }
        Ok((listeners, stats))
    }

    /// For a successor of our own: it takes all sockets of an address.
    pub(super) fn hand_over(&self, stream: &UnixStream, states: &str) -> io::Result<()> {
        handover::answer(stream, &self.copies(false)?, states)?;
        *self.handed_over.lock() = Some(Instant::now());
        Ok(())
    }

    /// For HAProxy: of several sockets of an address it takes the one that is sent last, and closes the others. So the
    /// first is sent last, and from here on gets all new connections of its address.
    pub(super) fn hand_over_one_each(&self, stream: &UnixStream) -> io::Result<()> {
        handover::be_patient(stream)?;
        for group in self.groups.lock().iter().filter(|group| group.sockets.len() > 1) {
            listening::steer_to(&group.sockets[0], 0)?;
            *self.steered.lock() = Some(Instant::now());
        }
        sockets::send(stream, &self.copies(true)?)
    }

    fn copies(&self, first_last: bool) -> io::Result<Vec<ListeningSocket>> {
        let mut copies = Vec::new();
        for group in self.groups.lock().iter() {
            let from = copies.len();
            for socket in &group.sockets {
                copies.push(socket.copy()?);
            }
            if first_last {
                copies[from..].reverse();
            }
        }
        Ok(copies)
    }

    /// Whether a successor of our own has these very sockets: nothing that waits in them is lost when this process goes.
    /// `now`: the present. One that has not come in time has failed, and does not accept from them.
    pub(super) fn is_handed_over(&self, now: Instant) -> bool {
        let since = *self.handed_over.lock();
        since.is_some_and(|since| now.saturating_duration_since(since) <= STEERED_AT_MOST)
    }

    /// Whether HAProxy has one socket of each address, to which new connections go.
    pub(super) fn is_steered(&self) -> bool {
        self.steered.lock().is_some()
    }

    /// The first step of leaving an address on which others, such as a HAProxy that was started beside this process, may
    /// listen too: the first socket of each address gets all new connections, and the others can be closed after a
    /// while. Where it is the only one already, there is nothing to do.
    pub(super) fn steer_to_the_first(&self) {
        for group in self.groups.lock().iter().filter(|group| group.sockets.len() > 1) {
            let _ = listening::steer_to(&group.sockets[0], 0);
        }
    }

    /// The copies of all but the first are closed.
    pub(super) fn keep_the_first(&self) {
        self.groups.lock().iter_mut().for_each(|group| group.sockets.truncate(1));
    }

    /// The last step: one socket is left, and who came later stands second in the kernel's list: he gets all new
    /// connections. If nobody is there, nothing changes: the kernel does not follow a number that no socket has.
    pub(super) fn steer_away(&self) {
        for group in self.groups.lock().iter() {
            if let Some(first @ ListeningSocket::Tcp(_)) = group.sockets.first() {
                // Without SO_REUSEPORT there is nobody else.
                let _ = listening::steer_to(first, 1);
            }
        }
    }

    /// All sockets get connections again when nobody has come of it; and when the process before, whose sockets these
    /// were, has steered before it went.
    pub(super) fn steer_back(&self) {
        let mut steered = self.steered.lock();
        if steered.is_none_or(|since| since.elapsed() > STEERED_AT_MOST) {
            *steered = None;
            for group in self.groups.lock().iter().filter(|group| group.sockets.len() > 1) {
                let _ = listening::steer_freely(&group.sockets[0]);
            }
        }
    }

    pub(super) fn close(&self) {
        self.groups.lock().clear();
    }
}

/// Hands over to whoever may ask, until this process is told to go.
pub(super) async fn serve_heirs(
    listener: UnixListener,
    exported: Arc<Exported>,
    stopping: CancellationToken,
    states: States,
    notices: Notices,
) {
    let listener = listener.set_nonblocking(true).and_then(|()| tokio::net::UnixListener::from_std(listener));
    let Ok(listener) = listener else { return };
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopping.cancelled() => return,
        };
        let Ok(stream) = stream.and_then(|(stream, _)| stream.into_std()) else {
            // No descriptor is left: others end, and then there is.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (exported, states) = (Arc::clone(&exported), Arc::clone(&states));
        // It blocks for as long as the other side takes, some seconds at most.
        let answered = tokio::task::spawn_blocking(move || exported.hand_over(&stream, &states())).await;
        if let Ok(Err(error)) = answered {
            notices.warning(&format!("cannot hand over the listening sockets: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn listener(at: std::net::SocketAddr) -> ListeningSocket {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&at.into()).unwrap();
        socket.listen(256).unwrap();
        socket.set_nonblocking(true).unwrap();
        ListeningSocket::Tcp(socket.into())
    }

    /// HAProxy without `-x` binds beside the old process and then tells it to go.
    #[test]
    fn who_came_later_gets_every_connection_before_this_process_goes() {
        let first = listener(([127, 0, 0, 1], 0).into());
        let ListeningSocket::Tcp(tcp) = &first else { unreachable!("it is TCP") };
        let at = tcp.local_addr().unwrap();
        let exported = Exported::default();
        let open = OpenBind { proxy: Some(0), bind: 0, sockets: vec![first, listener(at)], ours: true };
        let (mut listeners, _) = exported.share_out(vec![open], 2).unwrap();
        let accept = |socket: &ListeningSocket| match socket {
            ListeningSocket::Tcp(socket) => std::iter::from_fn(|| socket.accept().ok()).count(),
            ListeningSocket::Unix(_) => 0,
        };
        let connect = || (0..64).map(|_| TcpStream::connect(at).unwrap()).collect::<Vec<_>>();
        exported.steer_to_the_first();
        let clients = connect();
        let accepted: Vec<usize> = listeners.iter().map(|one| accept(&one.socket)).collect();
        assert_eq!(accepted, [clients.len(), 0]);
        exported.keep_the_first();
        listeners.truncate(1);
        exported.steer_away();
        // Nobody else is there.
        let clients = connect();
        assert_eq!(accept(&listeners[0].socket), clients.len());
        let other = listener(at);
        let clients = connect();
        assert_eq!(accept(&listeners[0].socket), 0);
        exported.close();
        listeners.clear();
        let more = connect();
        assert_eq!(accept(&other), clients.len() + more.len());
    }

    /// The soft stop after a reload that has failed: nobody accepts what waits in the sockets.
    #[test]
    fn a_successor_that_did_not_come_is_forgotten() {
        let exported = Exported::default();
        assert!(!exported.is_handed_over(Instant::now()));
        let (near, far) = UnixStream::pair().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::io::Write::write_all(&mut &far, handover::GREETING.as_bytes()).unwrap();
                sockets::receive(&far).unwrap()
            });
            exported.hand_over(&near, "").unwrap();
        });
        let now = Instant::now();
        assert!(exported.is_handed_over(now));
        assert!(!exported.is_handed_over(now + 2 * STEERED_AT_MOST));
    }

    /// HAProxy keeps the last of equal sockets that it is sent, and closes the others.
    #[test]
    fn what_haproxy_keeps_gets_every_new_connection() {
        let first = listener(([127, 0, 0, 1], 0).into());
        let ListeningSocket::Tcp(tcp) = &first else { unreachable!("it is TCP") };
        let at = tcp.local_addr().unwrap();
        let sockets = vec![first, listener(at), listener(at)];
        let exported = Exported::default();
        let open = OpenBind { proxy: Some(0), bind: 0, sockets, ours: true };
        let (listeners, _) = exported.share_out(vec![open], 3).unwrap();
        assert_eq!(listeners.iter().map(|one| one.thread).collect::<Vec<_>>(), [Some(0), Some(1), Some(2)]);
        let (near, far) = UnixStream::pair().unwrap();
        let mut taken = std::thread::scope(|scope| {
            let sending = scope.spawn(|| exported.hand_over_one_each(&near));
            let taken = sockets::receive(&far).unwrap();
            sending.join().unwrap().unwrap();
            taken
        });
        assert_eq!(taken.len(), 3);
        let kept = TcpListener::from(taken.pop().unwrap());
        let clients: Vec<TcpStream> = (0..64).map(|_| TcpStream::connect(at).unwrap()).collect();
        // The old process goes.
        drop((taken, listeners, exported));
        assert_eq!(std::iter::from_fn(|| kept.accept().ok()).count(), clients.len());
    }
}
