//! Full disks and cut connections: nothing is lost, nothing is repeated, and the reason arrives.

use super::*;

#[test]
fn a_full_disk_refuses_and_recovers_without_loss() {
    let hosts = Hosts::paired();
    let receiver = hosts.receiver();
    let mut connector = hosts.connector(receiver.address());
    let (_, mut link) = connector.connect(hello(None)).unwrap();
    let (encoded, first) = next_batch(Position::start(STREAM), 0);
    link.send_batch(1, encoded).unwrap();
    acked(&mut *link, 1);
    hosts.store.full.store(true, Ordering::SeqCst);
    let _ = link.send_blobs(vec![blob(b"no space for this")]);
    until("the link goes down", || link.check().is_err());
    let down = link.check().unwrap_err();
    assert!(matches!(&down, LinkDown::Refused { reason } if reason.contains("disk is full")), "{down}");
    assert!(receiver.monitor().status().disk_full);
    hosts.store.full.store(false, Ordering::SeqCst);
    let (welcome, mut link) = connector.connect(hello(Some(first))).unwrap();
    assert_eq!((welcome.position, welcome.shadow_known), (Some(first), true));
    let (encoded, _) = next_batch(first, 0);
    link.send_batch(2, encoded).unwrap();
    acked(&mut *link, 2);
    assert!(!receiver.monitor().status().disk_full);
}

#[test]
fn the_reason_of_a_refusal_arrives_in_the_midst_of_a_stream() {
    let hosts = Hosts::paired();
    let receiver = hosts.receiver();
    hosts.store.full.store(true, Ordering::SeqCst);
    let mut connector = hosts.connector(receiver.address());
    for _ in 0..3 {
        let (_, mut link) = connector.connect(hello(None)).unwrap();
        let down = loop {
            let content = vec![1; 262_144];
            if let Err(down) = link.send_blobs(vec![blob(&content), blob(&content), blob(&content)]) {
                break down;
            }
        };
        assert!(matches!(&down, LinkDown::Refused { reason } if reason.contains("disk is full")), "{down}");
    }
}

/// Passes connections on to `backup` and cuts each after a random number of bytes, until `calm`.
fn cutting_proxy(backup: SocketAddr, seed: u64, calm: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut random = StdRng::seed_from_u64(seed);
        for near in listener.incoming() {
            let (Ok(near), Ok(far)) = (near, TcpStream::connect(backup)) else { return };
            let mut budget = || {
                if calm.load(Ordering::SeqCst) { u64::MAX } else { random.random_range(1..40_000) }
            };
            for (from, to, budget) in
                [(&near, &far, budget()), (&far, &near, budget())].map(|(a, b, n)| (clone(a), clone(b), n))
            {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut (&from).take(budget), &mut &to);
                    let _ = (from.shutdown(std::net::Shutdown::Both), to.shutdown(std::net::Shutdown::Both));
                });
            }
        }
    });
    address
}

fn clone(socket: &TcpStream) -> TcpStream {
    socket.try_clone().unwrap()
}

#[test]
fn a_link_cut_at_random_bytes_loses_and_repeats_nothing() {
    let hosts = Hosts::paired();
    let receiver = hosts.receiver();
    let calm = Arc::new(AtomicBool::new(false));
    let seed = rand::rng().random();
    println!("seed {seed}");
    let proxy = cutting_proxy(receiver.address(), seed, calm.clone());
    let mut random = StdRng::seed_from_u64(seed);
    let mut connector = hosts.connector(proxy);
    let mut acknowledged = Position::start(STREAM);
    let mut connections = 0;
    let began = Instant::now();
    while acknowledged.number < 200 {
        calm.store(began.elapsed() > Duration::from_secs(4), Ordering::SeqCst);
        let named = Some(acknowledged).filter(|position| position.number > 0);
        let Ok((welcome, mut link)) = connector.connect(hello(named)) else { continue };
        connections += 1;
        let there = welcome.position.unwrap_or(Position::start(STREAM));
        assert!(there.number >= acknowledged.number, "an acknowledged batch is gone");
        assert_eq!(welcome.shadow_known, named.is_some());
        acknowledged = there;
        let mut sent = vec![there];
        loop {
            let content: Vec<u8> = (0..random.random_range(1..3000)).map(|_| random.random()).collect();
            let (encoded, next) = next_batch(sent[sent.len() - 1], random.random());
            let shipped = link.send_blobs(vec![blob(&content)]);
            if shipped.and_then(|()| link.send_batch(next.number, encoded)).is_err() {
                break;
            }
            sent.push(next);
            if next.number >= 200 {
                until("the rest", || link.poll_acks().is_some_and(|n| n >= 200) || link.check().is_err());
                break;
            }
        }
        if let Some(number) = link.poll_acks() {
            acknowledged = sent[(number - there.number) as usize];
        }
        if hosts.store.durable() >= 200 {
            acknowledged = sent[sent.len() - 1];
        }
    }
    assert!(connections > 3, "the proxy cut nothing");
    // MemoryStore asserts the order of every batch.
    assert_eq!(hosts.store.durable(), 200);
}
