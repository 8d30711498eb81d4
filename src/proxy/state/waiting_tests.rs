//! Many threads, few slots: nobody is forgotten, no limit is passed, nothing is left over.

use super::super::backend::tests::{policy, server};
use super::super::{Administration, Backend, Choice, Method, Policy, Slot, Wish};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// Longest time for one wait; far beyond what is needed.
const DEADLINE: Duration = Duration::from_secs(60);

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Unpark>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread until it ends.
fn block_on<F: Future + Unpin>(mut future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        if let Poll::Ready(output) = Pin::new(&mut future).poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        std::thread::park();
    }
}

/// One client of the test: takes slots again and again, sometimes gives up, keeps count of what it holds.
fn client(backend: &Arc<Backend>, seed: u64, bound: f64, held: &[AtomicU32], limits: &[u32]) {
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..3000 {
        let sticky = random.random_bool(bound).then(|| random.random_range(0..limits.len()));
        let wish = Wish { sticky, ..Wish::default() };
        let slot: Option<Slot> = match backend.choose(wish) {
            Choice::Server(slot) => Some(slot),
            Choice::Nobody => None,
            Choice::Full => {
                let mut waiting = backend.queue(wish);
                if random.random_bool(0.1) {
                    let _ = Pin::new(&mut waiting).poll(&mut Context::from_waker(Waker::noop()));
                    waiting.give_up();
                    None
                } else {
                    block_on(waiting)
                }
            }
        };
        let Some(slot) = slot else { continue };
        let now = held[slot.server].fetch_add(1, Ordering::SeqCst) + 1;
        assert!(now <= limits[slot.server], "server {} has {now} of {}", slot.server, limits[slot.server]);
        for _ in 0..random.random_range(0..200) {
            std::hint::spin_loop();
        }
        if random.random_bool(0.3) {
            std::thread::yield_now();
        }
        held[slot.server].fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn nobody_is_forgotten_and_no_limit_is_passed() {
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let limits = [1, 2, 1];
    let servers = [
        server("a", |s| s.maxconn = Some(limits[0])),
        server("b", |s| s.maxconn = Some(limits[1])),
        server("c", |s| s.maxconn = Some(limits[2])),
    ];
    for method in [Method::RoundRobin, Method::LeastConn, Method::Random] {
        let backend = Backend::build(&servers, Policy { redispatch: true, ..policy(method) });
        let held: Arc<[AtomicU32; 3]> = Arc::default();
        let at_work = Arc::new(AtomicUsize::new(12));
        let (finished, all) = mpsc::channel();
        for number in 0..12 {
            let (backend, held, finished, at_work) =
                (backend.clone(), held.clone(), finished.clone(), at_work.clone());
            std::thread::spawn(move || {
                client(&backend, seed.wrapping_add(number), 0.5, &held[..], &limits);
                at_work.fetch_sub(1, Ordering::SeqCst);
                let _ = finished.send(());
            });
        }
        // Meanwhile a server goes and comes.
        let begun = Instant::now();
        while at_work.load(Ordering::SeqCst) > 6 && begun.elapsed() < DEADLINE {
            backend.set_administration(2, Administration::MAINTENANCE, 0);
            std::thread::yield_now();
            backend.set_administration(2, 0, Administration::MAINTENANCE);
        }
        for _ in 0..12 {
            all.recv_timeout(DEADLINE).expect("somebody waits for ever, or a client failed");
        }
        let left: Vec<(u32, u32)> = backend
            .servers
            .iter()
            .map(|server| (server.sessions.load(Ordering::SeqCst), server.queued.load(Ordering::SeqCst)))
            .collect();
        assert_eq!(left, [(0, 0); 3]);
        assert_eq!(backend.queued.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn two_who_wait_for_each_other_are_both_served() {
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    for bound in [0.0, 1.0] {
        // Nobody else comes by who would find what one of them overlooked.
        let backend = Backend::build(&[server("a", |s| s.maxconn = Some(1))], policy(Method::RoundRobin));
        let (finished, all) = mpsc::channel();
        for number in 0..2 {
            let (backend, finished) = (backend.clone(), finished.clone());
            std::thread::spawn(move || {
                for round in 0..10 {
                    client(
                        &backend,
                        seed.wrapping_add(number * 100 + round),
                        bound,
                        &[AtomicU32::new(0)],
                        &[1],
                    );
                }
                let _ = finished.send(());
            });
        }
        for _ in 0..2 {
            all.recv_timeout(DEADLINE).expect("somebody waits for ever, or a client failed");
        }
    }
}
