//! The sockets that commands come from: accepts, reads lines, writes answers.

use super::{After, Answer, Console, Context};
use crate::proxy::config::model::Level;
use crate::proxy::engine::Engine;
use crate::proxy::listen::ListeningSocket;
use crate::proxy::state::Running;
use crate::proxy::stats::{Moment, Process};
use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// One open `stats socket`.
pub struct OpenSocket {
    /// Listens.
    pub socket: ListeningSocket,
    /// Rights of its connections.
    pub level: Level,
    /// `expose-fd listeners`: what is done with a connection that asks for the listening sockets (`_getsocks`).
    pub hand_over: Option<HandOver>,
}

/// Sends the process's listening sockets over a connection. It is called on a thread that may block.
pub type HandOver = Arc<dyn Fn(StdUnixStream) -> io::Result<()> + Send + Sync>;

/// What the process says of itself when asked; called once for what is received.
pub type AskProcess = Arc<dyn Fn() -> Process + Send + Sync>;

/// What all connections share.
#[derive(Clone)]
struct Shared {
    running: Arc<Running>,
    process: AskProcess,
    engine: Option<Engine>,
    room: Arc<Semaphore>,
    stopping: CancellationToken,
}

/// Pause when the system has no descriptor or memory for another connection.
const PAUSE: Duration = Duration::from_millis(100);
/// The request for the listening sockets, alone on a connection.
const ASK_SOCKETS: &[u8] = b"_getsocks\n";

/// Serves all sockets until `stopping`, and then the connections that there are: on the runtime of one thread, beside
/// everything else. Who takes over accepts on the same sockets: what comes after `stopping` is for them. `stats maxconn`
/// connections are served at once over all of them; the others wait, all but one a socket in the backlog.
///
/// # Errors
/// A socket that the runtime does not take.
pub async fn serve(
    sockets: Vec<OpenSocket>,
    running: Arc<Running>,
    process: AskProcess,
    engine: Option<Engine>,
    stopping: CancellationToken,
) -> io::Result<()> {
    let most = usize::try_from(running.config.global.stats_maxconn).unwrap_or(usize::MAX);
    let room = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
    let shared = Shared { running, process, engine, room, stopping };
    let mut tasks = JoinSet::new();
    for OpenSocket { socket, level, hand_over } in sockets {
        let listener = Listener::new(socket)?;
        tasks.spawn(accept(listener, level, hand_over, shared.clone()));
    }
    while tasks.join_next().await.is_some() {}
    Ok(())
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    fn new(socket: ListeningSocket) -> io::Result<Listener> {
        Ok(match socket {
            ListeningSocket::Tcp(socket) => {
                socket.set_nonblocking(true)?;
                Listener::Tcp(TcpListener::from_std(socket)?)
            }
            ListeningSocket::Unix(socket) => {
                socket.set_nonblocking(true)?;
                Listener::Unix(UnixListener::from_std(socket)?)
            }
        })
    }

    async fn accept(&self) -> io::Result<Stream> {
        Ok(match self {
            Listener::Tcp(listener) => Stream::Tcp(listener.accept().await?.0),
            Listener::Unix(listener) => Stream::Unix(listener.accept().await?.0),
        })
    }
}

impl Stream {
    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer).await,
            Stream::Unix(stream) => stream.read(buffer).await,
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes).await,
            Stream::Unix(stream) => stream.write(bytes).await,
        }
    }
}

async fn accept(listener: Listener, level: Level, hand_over: Option<HandOver>, shared: Shared) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stopping.cancelled() => break,
        };
        match accepted {
            Ok(stream) => {
                // Only now: an idle socket must not hold the room that another one's connections need.
                let Ok(permit) = shared.room.clone().acquire_owned().await else { return };
                let (shared, hand_over) = (shared.clone(), hand_over.clone());
                connections.spawn(async move {
                    // An error is the client's end of it: nobody is left to tell.
                    let _ = converse(stream, level, hand_over, &shared).await;
                    drop(permit);
                });
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn converse(
    mut stream: Stream,
    level: Level,
    hand_over: Option<HandOver>,
    shared: &Shared,
) -> io::Result<()> {
    let mut console = Console::new(level, shared.running.config.global.stats_timeout);
    let mut buffer = vec![0; 4_096];
    let mut out = Vec::new();
    let mut first = true;
    loop {
        let Ok(received) = timeout(console.timeout(), stream.read(&mut buffer)).await else { return Ok(()) };
        let received = received?;
        if received == 0 {
            return Ok(());
        }
        let bytes = &buffer[..received];
        if std::mem::take(&mut first)
            && bytes == ASK_SOCKETS
            && level == Level::Admin
            && let (Some(hand_over), Stream::Unix(stream)) = (&hand_over, &stream)
        {
            return give_sockets(stream, hand_over.clone()).await;
        }
        let process = (shared.process)();
        let context = Context { running: &shared.running, process: &process, moment: Moment::now() };
        let mut after = console.receive(bytes);
        while let Some(command) = console.next_command() {
            let mut answer = super::execute(&context, console.level(), &command);
            if let (Answer::Ask(question), Some(engine)) = (&answer, &shared.engine) {
                answer = question.ask(engine, &context).await;
            }
            let answered = console.answer(answer, &mut out);
            // One by one: all that fit into one read may be a hundred times the memory of one.
            send(&mut stream, &out, console.timeout()).await?;
            out.clear();
            if answered == After::Close {
                after = After::Close;
                break;
            }
        }
        if after == After::Close || console.after() == After::Close {
            return Ok(());
        }
    }
}

/// Every piece has the whole timeout: who reads slowly is served, who does not read at all is not.
async fn send(stream: &mut Stream, mut bytes: &[u8], patience: Duration) -> io::Result<()> {
    while !bytes.is_empty() {
        let Ok(sent) = timeout(patience, stream.write(bytes)).await else {
            return Err(io::ErrorKind::TimedOut.into());
        };
        bytes = bytes.get(sent?..).unwrap_or_default();
    }
    Ok(())
}

async fn give_sockets(stream: &UnixStream, hand_over: HandOver) -> io::Result<()> {
    use std::os::fd::AsFd;
    let copy = StdUnixStream::from(stream.as_fd().try_clone_to_owned()?);
    let given = tokio::task::spawn_blocking(move || {
        copy.set_nonblocking(false)?;
        hand_over(copy)
    });
    given.await.unwrap_or_else(|panic| Err(io::Error::other(panic)))
}
