//! Seeded chaos: pipelined requests with bodies of all framings, in random pieces, to servers that answer in random
//! pieces or break off. Every number in a request says what has to come back for it, so that nothing can be lost,
//! changed or mixed up between connections without being seen.

use super::bytes::{Frame, Reader, body, framed, write_in_pieces};
use super::{Proxy, connect, http, server};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What belongs to a number.
#[derive(Clone, Copy, Debug)]
struct Plan {
    post: bool,
    request_length: usize,
    request_frame: Frame,
    response_length: usize,
    response_frame: Frame,
    /// The server breaks off after this many bytes of its answer.
    cut: Option<usize>,
    /// The server sends an interim answer first.
    interim: bool,
}

fn plan(number: u64) -> Plan {
    let mut random = StdRng::seed_from_u64(number ^ 0x5eed);
    let length = |random: &mut StdRng| match random.random_range(0..4) {
        0 => 0,
        1 => random.random_range(1..100),
        2 => random.random_range(1..20_000),
        _ => random.random_range(1..400_000),
    };
    let post = random.random_bool(0.5);
    let response_length = length(&mut random);
    Plan {
        post,
        request_length: if post { length(&mut random) } else { 0 },
        request_frame: if random.random_bool(0.5) { Frame::Length } else { Frame::Chunked },
        response_length,
        response_frame: [Frame::Length, Frame::Chunked, Frame::Chunked, Frame::Close]
            [random.random_range(0..4)],
        cut: random.random_bool(0.04).then(|| random.random_range(0..response_length + 60)),
        interim: random.random_bool(0.1),
    }
}

/// One connection of a server.
fn serve(stream: TcpStream, wrong: &AtomicU64) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = Reader::new(stream);
    while let Some(request) = reader.message(false) {
        let number: u64 = request.head.split([' ', '/']).nth(2).unwrap().parse().unwrap();
        let plan = plan(number);
        if !request.complete {
            return; // its client broke off
        }
        if request.body != body(number, plan.request_length) {
            wrong.fetch_add(1, Ordering::SeqCst);
            return;
        }
        let mut random = StdRng::seed_from_u64(number ^ 0xa5);
        let (fields, bytes) = framed(&body(!number, plan.response_length), plan.response_frame, &mut random);
        let mut answer = Vec::new();
        if plan.interim {
            answer.extend_from_slice(b"HTTP/1.1 102 Processing\r\n\r\n");
        }
        answer.extend_from_slice(format!("HTTP/1.1 200 OK\r\nX-Number: {number}\r\n{fields}\r\n").as_bytes());
        answer.extend_from_slice(&bytes);
        if let Some(cut) = plan.cut {
            answer.truncate(cut);
        }
        let close = request.head.contains("\nconnection: close\n") || plan.response_frame == Frame::Close;
        if !write_in_pieces(&mut writer, &answer, &mut random) || plan.cut.is_some() || close {
            let _ = writer.shutdown(Shutdown::Write);
            return;
        }
    }
}

/// One connection of a client: how many answers were right.
fn client(at: std::net::SocketAddr, seed: u64) -> u64 {
    let mut random = StdRng::seed_from_u64(seed);
    let stream = connect(at);
    let numbers: Vec<u64> = (0..random.random_range(1..8)).map(|_| random.random::<u64>() >> 1).collect();
    let mut writer = stream.try_clone().unwrap();
    let gives_up = random.random_bool(0.1);
    let sender = {
        let numbers = numbers.clone();
        std::thread::spawn(move || {
            for number in numbers {
                let plan = plan(number);
                let method = if plan.post { "POST" } else { "GET" };
                let sent = body(number, plan.request_length);
                let (fields, bytes) = match plan.post {
                    true => framed(&sent, plan.request_frame, &mut random),
                    false => (String::new(), Vec::new()),
                };
                let mut all = format!("{method} /{number} HTTP/1.1\r\nHost: h\r\n{fields}\r\n").into_bytes();
                all.extend_from_slice(&bytes);
                if gives_up && random.random_bool(0.3) {
                    all.truncate(random.random_range(0..all.len()));
                    write_in_pieces(&mut writer, &all, &mut random);
                    let _ = writer.shutdown(Shutdown::Both);
                    return;
                }
                if !write_in_pieces(&mut writer, &all, &mut random) {
                    return;
                }
            }
        })
    };
    let mut reader = Reader::new(stream);
    let mut right = 0;
    for number in numbers {
        let plan = plan(number);
        let answer = loop {
            match reader.message(true) {
                Some(answer) if answer.head.starts_with("http/1.1 102") => {}
                other => break other,
            }
        };
        let Some(answer) = answer else {
            assert!(gives_up, "seed {seed}: no answer to {number} {plan:?}");
            break;
        };
        if answer.head.starts_with("http/1.1 502") {
            assert!(plan.cut.is_some(), "seed {seed}: 502 for {number} {plan:?}");
            right += 1;
            // The proxy does not know where the next request begins behind a body that it did not pass on.
            match answer.head.contains(
                "
connection: close
",
            ) {
                true => break,
                false => continue,
            }
        }
        assert!(
            answer.head.contains(&format!("\nx-number: {number}\n")),
            "seed {seed}: {number}: {}",
            answer.head
        );
        let whole = body(!number, plan.response_length);
        let until_close = !answer.head.contains("\ncontent-length:") && !answer.head.contains("chunked");
        if !answer.complete || ((plan.cut.is_some() || gives_up) && until_close) {
            assert!(gives_up || plan.cut.is_some(), "seed {seed}: {number} was torn: {plan:?}");
            assert!(whole.starts_with(&answer.body), "seed {seed}: {number}: other bytes");
            break;
        }
        assert!(answer.body == whole, "seed {seed}: {number}: {} bytes of {plan:?}", answer.body.len());
        right += 1;
        if answer.head.contains("\nconnection: close\n") || until_close {
            break;
        }
    }
    // What the proxy has not read may keep the sender from ending.
    reader.shut();
    sender.join().unwrap();
    right
}

fn chaos(options: &str) {
    let seed: u64 = std::env::var("SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    let wrong = Arc::new(AtomicU64::new(0));
    let at = {
        let wrong = wrong.clone();
        server(move |stream| serve(stream, &wrong))
    };
    let proxy = Proxy::start(2, &http(options, at, ""));
    let mut random = StdRng::seed_from_u64(seed);
    let mut right = 0;
    for _ in 0..10 {
        let clients: Vec<_> = (0..12)
            .map(|_| {
                let (at, seed) = (proxy.at[0], random.random());
                std::thread::spawn(move || client(at, seed))
            })
            .collect();
        right += clients.into_iter().map(|client| client.join().unwrap()).sum::<u64>();
    }
    assert_eq!(wrong.load(Ordering::SeqCst), 0, "a server got other bytes than were sent");
    assert!(right > 50, "only {right} answers");
}

#[test]
fn nothing_is_lost_or_mixed_with_connections_that_are_kept() {
    chaos(" option http-keep-alive\n http-reuse always");
}

#[test]
fn nothing_is_lost_or_mixed_with_a_server_connection_each() {
    chaos(" option http-server-close");
}
