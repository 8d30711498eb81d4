//! The load generator: one thread, many connections, many calls in flight on each; replies are looked at as far as
//! their status and never copied, so that the generator costs little next to the server that it measures.

use crate::bench::histogram::Histogram;
use anyhow::{Context, Result, bail};
use ehpc_proto::codec::Encoder;
use ehpc_proto::nfs3::{self, Procedure};
use ehpc_proto::record;
use ehpc_proto::rpc::{AuthSys, Call, Credential};
use rustix::event::epoll;
use socket2::{Domain, Socket, Type};
use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Low bits of a transaction number that name the place of the call among those in flight.
const PLACE_BITS: u32 = 14;
/// Bytes of a reply that are looked at: to the NFS status.
const HEAD: usize = 28;
/// A server that answers nothing for this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes that WRITE sends: always these.
static PAYLOAD: [u8; 1 << 20] = [0x5a; 1 << 20];

/// What is asked of the server.
pub(super) trait Work {
    /// The procedure of every call.
    fn procedure(&self) -> Procedure;
    /// What one call counts for (entries of a page).
    fn weight(&self) -> f64 {
        1.0
    }
    /// Writes the arguments of call `number` of `connection`, but for the payload, whose length it returns (a multiple of 4).
    fn arguments(&mut self, connection: usize, number: u64, out: &mut Encoder) -> usize;
}

/// When it ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Limit {
    /// After this time.
    Time(Duration),
    /// After so many calls on each connection.
    Calls(u64),
}

/// How the server is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// The server.
    pub(super) address: SocketAddr,
    /// Our own address.
    pub(super) source: IpAddr,
    /// Connections.
    pub(super) connections: usize,
    /// Calls in flight on each.
    pub(super) depth: usize,
    /// When to stop.
    pub(super) limit: Limit,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Calls answered within the time.
    pub(super) calls: u64,
    /// Bytes of their replies.
    pub(super) reply_bytes: u64,
    /// From the first call to the last reply counted.
    pub(super) elapsed: Duration,
    /// From queueing a call to its reply.
    pub(super) latency: Histogram,
}

impl Outcome {
    /// Calls a second.
    pub(super) fn per_second(&self) -> f64 {
        self.calls as f64 / self.elapsed.as_secs_f64()
    }
}

/// A connection from `source`.
pub(super) fn connect(address: SocketAddr, source: IpAddr) -> Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect(&address.into()).with_context(|| format!("connecting to {address}"))?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Asks until the limit, then waits for what is in flight.
pub(super) fn run(plan: &Plan, work: &mut dyn Work) -> Result<Outcome> {
    if plan.depth >= 1 << PLACE_BITS {
        bail!("more than {} calls in flight on a connection", 1 << PLACE_BITS);
    }
    let mut connections =
        (0..plan.connections).map(|_| Connection::open(plan)).collect::<Result<Vec<_>>>()?;
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let both = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
    for (number, connection) in connections.iter().enumerate() {
        epoll::add(&poll, &connection.stream, epoll::EventData::new_u64(number as u64), both)?;
    }
    let mut run = Run {
        credential: credential_body(work.procedure()),
        started: Instant::now(),
        limit: plan.limit,
        outcome: Outcome { calls: 0, reply_bytes: 0, elapsed: Duration::ZERO, latency: Histogram::default() },
        input: vec![0; 256 * 1024],
        stopped: false,
    };
    for (number, connection) in connections.iter_mut().enumerate() {
        run.ask(connection, number, work);
        connection.flush()?;
    }
    let mut events = Vec::with_capacity(256);
    let mut progress = Instant::now();
    while connections.iter().any(|connection| connection.in_flight() > 0) {
        events.clear();
        let wait = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
        match epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        if events.is_empty() && progress.elapsed() > PATIENCE {
            bail!("the server has not answered for {PATIENCE:?}");
        }
        if !events.is_empty() {
            progress = Instant::now();
        }
        for event in &events {
            let number = event.data.u64() as usize;
            run.serve(&mut connections[number], number, work)?;
        }
    }
    Ok(run.outcome)
}

/// Header of a call from its program number to the end of the verifier: the same for all calls.
fn credential_body(procedure: Procedure) -> Vec<u8> {
    let credential = Credential::Sys(AuthSys::new(b"ehpc-tools", 0, 0, &[]));
    let (program, version) = (nfs3::PROGRAM, nfs3::VERSION);
    let mut out = Encoder::new();
    Call { xid: 0, program, version, procedure: procedure as u32, credential }.encode(&mut out);
    out.finish()
}

struct Run {
    credential: Vec<u8>,
    started: Instant,
    limit: Limit,
    outcome: Outcome,
    input: Vec<u8>,
    stopped: bool,
}

impl Run {
    /// Fills the connection's places.
    fn ask(&mut self, connection: &mut Connection, number: usize, work: &mut dyn Work) {
        let wanted = |asked: u64| match self.limit {
            Limit::Time(_) => !self.stopped,
            Limit::Calls(calls) => asked < calls,
        };
        let now = Instant::now();
        while wanted(connection.asked)
            && let Some(place) = connection.free.pop()
        {
            connection.sent[place as usize] = now;
            let xid = (connection.asked as u32) << PLACE_BITS | place;
            let mut out = Encoder::new();
            std::mem::swap(out.buffer(), connection.output_head());
            let start = out.len();
            out.u32(0);
            out.u32(xid);
            out.bytes(&self.credential[4..]);
            let payload = work.arguments(number, connection.asked, &mut out);
            let mark = record::mark(out.len() - start - 4 + payload);
            out.buffer()[start..start + 4].copy_from_slice(&mark);
            std::mem::swap(out.buffer(), connection.output_head());
            if payload > 0 {
                connection.output_payload(payload);
            }
            connection.asked += 1;
        }
    }

    fn serve(&mut self, connection: &mut Connection, number: usize, work: &mut dyn Work) -> Result<()> {
        loop {
            match connection.stream.read(&mut self.input) {
                Ok(0) => bail!("the server closed a connection"),
                Ok(read) => {
                    let now = Instant::now();
                    let elapsed = now - self.started;
                    if let Limit::Time(time) = self.limit
                        && elapsed >= time
                    {
                        self.stopped = true;
                    }
                    let done = connection.take(&self.input[..read], now, &mut self.outcome.latency)?;
                    if !self.stopped {
                        self.outcome.calls += done;
                        self.outcome.reply_bytes += read as u64;
                        self.outcome.elapsed = elapsed;
                    }
                    self.ask(connection, number, work);
                    connection.flush()?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        connection.flush()
    }
}

/// Bytes to send: a piece of its own, then so many of the payload.
#[derive(Default)]
struct Segment {
    head: Vec<u8>,
    payload: usize,
}

struct Connection {
    stream: TcpStream,
    asked: u64,
    /// Free places.
    free: Vec<u32>,
    depth: usize,
    /// When the call at each place was queued.
    sent: Vec<Instant>,
    output: VecDeque<Segment>,
    /// Bytes of the first segment that are gone.
    gone: usize,
    reply: Reply,
}

/// A reply on its way in.
#[derive(Default)]
struct Reply {
    mark: [u8; 4],
    marked: usize,
    /// Bytes of the fragment that are still to come.
    missing: usize,
    last: bool,
    head: [u8; HEAD],
    kept: usize,
}

impl Connection {
    fn open(plan: &Plan) -> Result<Connection> {
        let stream = connect(plan.address, plan.source)?;
        stream.set_nonblocking(true)?;
        Ok(Connection {
            stream,
            asked: 0,
            free: (0..plan.depth as u32).rev().collect(),
            depth: plan.depth,
            sent: vec![Instant::now(); plan.depth],
            output: VecDeque::new(),
            gone: 0,
            reply: Reply::default(),
        })
    }

    fn in_flight(&self) -> usize {
        self.depth - self.free.len()
    }

    /// Where the next call is written.
    fn output_head(&mut self) -> &mut Vec<u8> {
        if self.output.back().is_none_or(|last| last.payload > 0) {
            self.output.push_back(Segment::default());
        }
        let last = self.output.len() - 1;
        &mut self.output[last].head
    }

    fn output_payload(&mut self, length: usize) {
        if let Some(last) = self.output.back_mut() {
            last.payload = length;
        }
    }

    /// Sends what the socket takes.
    fn flush(&mut self) -> Result<()> {
        while !self.output.is_empty() {
            let mut slices = Vec::with_capacity(32);
            let mut skip = self.gone;
            for segment in self.output.iter().take(16) {
                for piece in [&segment.head[..], &PAYLOAD[..segment.payload]] {
                    let from = skip.min(piece.len());
                    skip -= from;
                    slices.push(IoSlice::new(&piece[from..]));
                }
            }
            match self.stream.write_vectored(&slices) {
                Ok(written) => self.sent_bytes(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn sent_bytes(&mut self, written: usize) {
        self.gone += written;
        while let Some(first) = self.output.front() {
            let length = first.head.len() + first.payload;
            if self.gone < length {
                return;
            }
            self.gone -= length;
            self.output.pop_front();
        }
    }

    /// Takes bytes of replies; returns how many calls are answered by them.
    fn take(&mut self, mut input: &[u8], now: Instant, latency: &mut Histogram) -> Result<u64> {
        let mut answered = 0;
        while !input.is_empty() {
            let reply = &mut self.reply;
            if reply.marked < 4 {
                let take = input.len().min(4 - reply.marked);
                reply.mark[reply.marked..reply.marked + take].copy_from_slice(&input[..take]);
                reply.marked += take;
                input = &input[take..];
                if reply.marked == 4 {
                    let mark = u32::from_be_bytes(reply.mark);
                    reply.last = mark >> 31 == 1;
                    reply.missing = (mark & 0x7fff_ffff) as usize;
                }
                continue;
            }
            let take = input.len().min(reply.missing);
            let keep = take.min(HEAD - reply.kept);
            reply.head[reply.kept..reply.kept + keep].copy_from_slice(&input[..keep]);
            reply.kept += keep;
            reply.missing -= take;
            input = &input[take..];
            if reply.missing == 0 {
                reply.marked = 0;
                if reply.last {
                    let done = std::mem::take(&mut self.reply);
                    let place = done.check()?;
                    let sent = self.sent.get(place as usize).context("a reply to what was not asked")?;
                    latency.add(now.saturating_duration_since(*sent));
                    self.free.push(place);
                    answered += 1;
                }
            }
        }
        Ok(answered)
    }
}

impl Reply {
    /// The place of the call that is answered with success.
    fn check(&self) -> Result<u32> {
        let word = |at: usize| {
            self.head.get(at..at + 4).map_or(u32::MAX, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
        };
        // Message type, acceptance, length of the verifier, RPC status, NFS status.
        if self.kept < HEAD || word(4) != 1 || word(8) != 0 || word(16) != 0 || word(20) != 0 || word(24) != 0
        {
            bail!("a call failed: the reply begins {:02x?}", &self.head[..self.kept]);
        }
        Ok(word(0) & ((1 << PLACE_BITS) - 1))
    }
}
