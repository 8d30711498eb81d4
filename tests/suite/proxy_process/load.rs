//! Clients that count: every connection must be made, answered and ended in order, whoever accepts it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A server that sends back what comes, to the end.
pub(crate) fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut bytes) {
                    if stream.write_all(&bytes[..length]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    at
}

/// Some clients that make a new connection for every request, and some that keep theirs the whole time.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    pub(crate) fn start(at: SocketAddr, new: usize, kept: usize) -> Load {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = |keeps: bool| {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            std::thread::spawn(move || if keeps { keep(at, &stop) } else { hammer(at, &stop, &served) })
        };
        let clients = (0..new).map(|_| client(false)).chain((0..kept).map(|_| client(true))).collect();
        let load = Load { stop, served, clients };
        load.wait_for(100);
        load
    }

    /// Until so many more connections have been served.
    pub(crate) fn wait_for(&self, more: u64) {
        let until = Instant::now() + Duration::from_secs(60);
        let wanted = self.served.load(Ordering::SeqCst) + more;
        while self.served.load(Ordering::SeqCst) < wanted {
            assert!(Instant::now() < until, "connections are not served");
            pause();
        }
    }

    /// Ends the clients; how many connections were served. Any that failed is a failure of the test.
    pub(crate) fn end(self) -> u64 {
        self.end_excusing(0)
    }

    /// The same, but so many connections may have been cut (none refused, none answered wrongly).
    pub(crate) fn end_excusing(self, most: usize) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        let faults: Vec<String> =
            self.clients.into_iter().flat_map(|client| client.join().expect("no panic")).collect();
        let served = self.served.load(Ordering::SeqCst);
        let (cut, bad): (Vec<&String>, Vec<&String>) =
            faults.iter().partition(|fault| fault.starts_with(CUT));
        assert!(
            bad.is_empty() && cut.len() <= most,
            "{} of {served} connections failed ({most} may be cut): {:?}",
            faults.len(),
            bad.iter().chain(&cut).take(5).collect::<Vec<_>>()
        );
        println!("{served} served, {} cut", cut.len());
        served
    }
}

/// How the fault of a connection begins that was made and then ended by the proxy.
const CUT: &str = "cut: ";

fn hammer(at: SocketAddr, stop: &AtomicBool, served: &AtomicU64) -> Vec<String> {
    let mut faults = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        match once(at) {
            Ok(()) => drop(served.fetch_add(1, Ordering::SeqCst)),
            Err(error) => faults.push(error),
        }
    }
    faults
}

/// One connection from its beginning to its end.
fn once(at: SocketAddr) -> Result<(), String> {
    let mut stream = TcpStream::connect(at).map_err(|error| format!("connect: {error}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    let said = |what: &'static str| move |error: std::io::Error| format!("{CUT}{what}: {error}");
    stream.write_all(b"hello through the proxy").map_err(said("send"))?;
    stream.shutdown(Shutdown::Write).map_err(said("half close"))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(said("receive"))?;
    match &answer[..] {
        b"hello through the proxy" => Ok(()),
        b"" => Err(format!("{CUT}no answer")),
        other => Err(format!("answer of {} bytes", other.len())),
    }
}

/// A connection that stays, and is used all the time.
fn keep(at: SocketAddr, stop: &AtomicBool) -> Vec<String> {
    let lived = || -> std::io::Result<()> {
        let mut stream = TcpStream::connect(at)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        while !stop.load(Ordering::SeqCst) {
            stream.write_all(b"still here")?;
            let mut answer = [0; 10];
            stream.read_exact(&mut answer)?;
            pause();
        }
        Ok(())
    };
    lived().err().map(|error| format!("a connection that stays: {error}")).into_iter().collect()
}

/// Lets others run.
pub(crate) fn pause() {
    let (_keep, never) = std::sync::mpsc::channel::<()>();
    let _ = never.recv_timeout(Duration::from_millis(2));
}
