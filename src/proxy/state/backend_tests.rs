//! Choices, one thread at a time; threads are in `waiting_tests`.

use super::super::{Administration, Operation, Waiting};
use super::*;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A server line: name, then what the closure changes.
pub(in crate::proxy) fn server(name: &str, change: impl FnOnce(&mut model::Server)) -> model::Server {
    let at = "127.0.0.1:1".parse().unwrap();
    let mut server = model::Server {
        site: crate::settings::Site::Default("server"),
        name: name.to_owned(),
        id: 1,
        address: model::ServerAddress::Tcp { host: None, at, port: model::ServerPort::Fixed },
        weight: 1,
        backup: false,
        disabled: false,
        maxconn: None,
        minconn: None,
        maxqueue: None,
        cookie: None,
        check: None,
        slowstart: None,
        shutdown_sessions_when_down: false,
        shutdown_backup_sessions_when_up: false,
        tcp_user_timeout: None,
    };
    change(&mut server);
    server
}

pub(in crate::proxy) fn policy(method: Method) -> Policy {
    Policy { method, allbackups: false, redispatch: true, persist: false, fullconn: 0, log_checks: false }
}

fn backend(method: Method, servers: &[model::Server]) -> Arc<Backend> {
    Backend::build(servers, policy(method))
}

fn three(method: Method) -> Arc<Backend> {
    backend(method, &[server("a", |_| {}), server("b", |_| {}), server("c", |_| {})])
}

/// The server, and its slot kept.
fn take(backend: &Arc<Backend>, wish: Wish) -> Slot {
    match backend.choose(wish) {
        Choice::Server(slot) => slot,
        other => panic!("{other:?}"),
    }
}

fn chosen(backend: &Arc<Backend>, wish: Wish) -> ServerIndex {
    take(backend, wish).server
}

fn poll(waiting: &mut Waiting) -> Poll<Option<Slot>> {
    Pin::new(waiting).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn in_turn_by_weight_as_haproxy() {
    let servers =
        [server("a", |s| s.weight = 5), server("b", |s| s.weight = 3), server("c", |s| s.weight = 2)];
    let backend = backend(Method::RoundRobin, &servers);
    let order: String = (0..20).map(|_| chosen(&backend, Wish::default()).to_string()).collect();
    assert_eq!(order, "01020101020102010102");
    assert_eq!(backend.counters.balanced.get(), 20);
}

#[test]
fn a_full_server_is_passed_over_until_it_has_room() {
    let servers = [server("a", |s| s.maxconn = Some(1)), server("b", |s| s.maxconn = Some(2))];
    let backend = backend(Method::RoundRobin, &servers);
    let first = take(&backend, Wish::default());
    let second = take(&backend, Wish::default());
    let third = take(&backend, Wish::default());
    assert_eq!((first.server, second.server, third.server), (0, 1, 1));
    assert!(matches!(backend.choose(Wish::default()), Choice::Full));
    drop(first);
    assert_eq!(chosen(&backend, Wish::default()), 0);
}

#[test]
fn a_sticky_request_goes_to_its_server_and_to_no_other_while_that_is_up() {
    let backend = three(Method::RoundRobin);
    let wish = Wish { sticky: Some(2), ..Wish::default() };
    assert_eq!([chosen(&backend, wish), chosen(&backend, wish)], [2, 2]);
    backend.set_administration(2, Administration::DRAIN, 0);
    assert_eq!(chosen(&backend, wish), 2, "draining: those bound to it keep it");
    assert!((0..6).all(|_| chosen(&backend, Wish::default()) != 2), "and nobody else gets it");
    backend.set_administration(2, Administration::MAINTENANCE, Administration::DRAIN);
    assert!((0..6).all(|_| chosen(&backend, wish) != 2), "in maintenance: nobody");
    backend.make_ready(2);
    assert_eq!(chosen(&backend, wish), 2);
    backend.set_operation(2, Operation::Stopped);
    assert_ne!(chosen(&backend, wish), 2);
    backend.set_operation(2, Operation::Stopping);
    assert_eq!(chosen(&backend, wish), 2);
    backend.set_weight(1, 0);
    assert!((0..6).all(|_| chosen(&backend, Wish::default()) == 0));
}

#[test]
fn who_failed_is_avoided_unless_it_is_alone() {
    let backend = three(Method::RoundRobin);
    let wish = Wish { avoid: Some(1), ..Wish::default() };
    assert!((0..9).all(|_| chosen(&backend, wish) != 1));
    backend.set_operation(0, Operation::Stopped);
    backend.set_operation(2, Operation::Stopped);
    assert_eq!(chosen(&backend, wish), 1);
    backend.set_operation(1, Operation::Stopped);
    assert!(matches!(backend.choose(wish), Choice::Nobody));
}

#[test]
fn backups_work_only_when_nobody_else_does() {
    let servers = [server("a", |_| {}), server("b", |s| s.backup = true), server("c", |s| s.backup = true)];
    for (allbackups, expected) in [(false, vec![1, 1, 1, 1]), (true, vec![1, 2, 1, 2])] {
        let backend = Backend::build(&servers, Policy { allbackups, ..policy(Method::RoundRobin) });
        assert_eq!(backend.usable(), (1, 2));
        assert!((0..4).all(|_| chosen(&backend, Wish::default()) == 0));
        backend.set_operation(0, Operation::Stopped);
        let order: Vec<ServerIndex> = (0..4).map(|_| chosen(&backend, Wish::default())).collect();
        assert_eq!(order, expected);
        backend.set_operation(0, Operation::Running);
        assert_eq!(chosen(&backend, Wish::default()), 0);
    }
}

#[test]
fn the_least_busy_for_its_weight_is_chosen() {
    let servers = [server("a", |s| s.weight = 3), server("b", |_| {}), server("c", |_| {})];
    let backend = backend(Method::LeastConn, &servers);
    let slots: Vec<Slot> = (0..10).map(|_| take(&backend, Wish::default())).collect();
    let on = |server| slots.iter().filter(|slot| slot.server == server).count();
    assert_eq!((on(0), on(1), on(2)), (6, 2, 2));
}

#[test]
fn the_first_with_room_is_filled_before_the_next() {
    let servers = [server("a", |s| s.maxconn = Some(2)), server("b", |_| {})];
    let backend = backend(Method::First, &servers);
    let slots: Vec<Slot> = (0..4).map(|_| take(&backend, Wish::default())).collect();
    assert_eq!(slots.iter().map(|slot| slot.server).collect::<Vec<_>>(), [0, 0, 1, 1]);
}

#[test]
fn a_hash_leads_to_one_server_which_is_waited_for() {
    let servers = [server("a", |s| s.maxconn = Some(1)), server("b", |_| {})];
    let backend = backend(Method::Hash, &servers);
    let wish = Wish { hash: Some(0), ..Wish::default() };
    let slot = take(&backend, wish);
    assert_eq!(slot.server, 0);
    assert!(
        matches!(backend.choose(wish), Choice::Full),
        "the other server has room, but the hash is not its"
    );
    let mut waiting = backend.queue(wish);
    assert!(poll(&mut waiting).is_pending());
    drop(slot);
    assert!(matches!(poll(&mut waiting), Poll::Ready(Some(slot)) if slot.server == 0));
    assert_eq!(waiting.positions(), (1, 0));
}

#[test]
fn draws_follow_weights_and_load() {
    let servers = [server("a", |s| s.weight = 200), server("b", |s| s.weight = 20)];
    let backend = backend(Method::Random, &servers);
    let on_b = (0..1000).filter(|_| chosen(&backend, Wish::default()) == 1).count();
    assert!((20..500).contains(&on_b), "{on_b}");
}

#[test]
fn minconn_grows_with_the_backends_load() {
    let servers = [server("a", |s| {
        s.minconn = Some(2);
        s.maxconn = Some(10);
    })];
    let backend = Backend::build(&servers, Policy { fullconn: 100, ..policy(Method::RoundRobin) });
    let fill = |now: u32| {
        backend.counters.now.store(now, Ordering::Relaxed);
        let mut slots = Vec::new();
        while let Choice::Server(slot) = backend.choose(Wish::default()) {
            slots.push(slot);
        }
        slots.len()
    };
    assert_eq!([fill(1), fill(20), fill(50), fill(99), fill(100), fill(1000)], [2, 2, 5, 9, 10, 10]);
}

#[test]
fn the_queue_is_left_in_order_of_arrival() {
    let backend = backend(Method::RoundRobin, &[server("a", |s| s.maxconn = Some(1))]);
    let slot = take(&backend, Wish::default());
    let mut any = backend.queue(Wish::default());
    let mut bound = backend.queue(Wish { sticky: Some(0), ..Wish::default() });
    let mut last = backend.queue(Wish::default());
    let lengths = |backend: &Backend| {
        (backend.queued.load(Ordering::SeqCst), backend.servers[0].queued.load(Ordering::SeqCst))
    };
    assert_eq!(lengths(&backend), (2, 1));
    assert!(poll(&mut any).is_pending() && poll(&mut bound).is_pending() && poll(&mut last).is_pending());
    assert!(matches!(backend.choose(Wish::default()), Choice::Full), "nobody overtakes");
    drop(slot);
    assert!(poll(&mut last).is_pending() && poll(&mut bound).is_pending());
    let Poll::Ready(Some(slot)) = poll(&mut any) else { panic!("the first is served first") };
    assert_eq!(any.positions(), (0, 1));
    drop(slot);
    assert!(poll(&mut last).is_pending());
    assert_eq!(last.positions(), (0, 2), "one was served before it so far");
    drop(bound);
    assert!(
        matches!(poll(&mut last), Poll::Ready(Some(_))),
        "a slot on its way to one who left goes to the next"
    );
    assert_eq!(last.positions(), (0, 2));
    assert_eq!(lengths(&backend), (0, 0));
    assert_eq!(backend.servers[0].sessions.load(Ordering::SeqCst), 0);
    assert_eq!((backend.most_queued(None), backend.most_queued(Some(0))), (2, 1));
}

#[test]
fn a_server_that_comes_up_takes_who_waits() {
    let servers = [server("a", |s| s.maxconn = Some(1)), server("b", |s| s.maxconn = Some(2))];
    let backend = backend(Method::RoundRobin, &servers);
    backend.set_operation(1, Operation::Stopped);
    let _slot = take(&backend, Wish::default());
    let mut waiting: Vec<Waiting> = (0..3).map(|_| backend.queue(Wish::default())).collect();
    assert!(waiting.iter_mut().all(|one| poll(one).is_pending()));
    backend.set_operation(1, Operation::Running);
    let served: Vec<bool> = waiting.iter_mut().map(|one| poll(one).is_ready()).collect();
    assert_eq!(served, [true, true, true], "two at once, the third when the first two let go");
    backend.set_maxconn(0, 5);
    assert_eq!(chosen(&backend, Wish { sticky: Some(0), ..Wish::default() }), 0);
}

#[test]
fn who_waits_for_a_server_that_goes_down_goes_elsewhere() {
    let servers = [server("a", |s| s.maxconn = Some(1)), server("b", |_| {})];
    let backend = backend(Method::RoundRobin, &servers);
    let wish = Wish { sticky: Some(0), ..Wish::default() };
    let _slot = take(&backend, wish);
    let mut waiting = backend.queue(wish);
    assert!(poll(&mut waiting).is_pending());
    assert_eq!(backend.set_operation(0, Operation::Stopped), 1);
    assert!(matches!(poll(&mut waiting), Poll::Ready(Some(slot)) if slot.server == 1));

    let mut waiting = backend.queue(Wish::default());
    assert!(matches!(poll(&mut waiting), Poll::Ready(Some(_))), "there was room");
    let mut waiting = backend.queue(Wish { sticky: Some(1), ..Wish::default() });
    assert!(matches!(poll(&mut waiting), Poll::Ready(Some(_))), "at the server, too");
    backend.set_operation(1, Operation::Stopped);
    let mut waiting = backend.queue(Wish::default());
    assert!(matches!(poll(&mut waiting), Poll::Ready(None)), "nobody to wait for");
}

#[test]
fn a_queue_at_its_limit_sends_to_another_server_or_away() {
    let servers = [
        server("a", |s| {
            s.maxconn = Some(1);
            s.maxqueue = Some(1);
        }),
        server("b", |_| {}),
    ];
    for redispatch in [true, false] {
        let backend = Backend::build(&servers, Policy { redispatch, ..policy(Method::RoundRobin) });
        let wish = Wish { sticky: Some(0), ..Wish::default() };
        let _slot = take(&backend, wish);
        let mut first = backend.queue(wish);
        assert!(poll(&mut first).is_pending());
        let mut second = backend.queue(wish);
        match poll(&mut second) {
            Poll::Ready(Some(slot)) => assert!(redispatch && slot.server == 1),
            Poll::Ready(None) => assert!(!redispatch),
            Poll::Pending => panic!("it waits"),
        }
    }
}

#[test]
fn a_starting_server_has_a_part_of_its_weight_and_of_its_connections() {
    let servers = [
        server("a", |s| s.weight = 10),
        server("b", |s| {
            s.weight = 10;
            s.maxconn = Some(40);
            s.slowstart = Some(Duration::from_secs(10));
        }),
    ];
    let backend = backend(Method::RoundRobin, &servers);
    backend.set_warmth(1, 25);
    let on_b = (0..500).filter(|_| chosen(&backend, Wish::default()) == 1).count();
    assert_eq!(on_b, 100, "a quarter of the other's share");
    let wish = Wish { sticky: Some(1), ..Wish::default() };
    let slots: Vec<Slot> = (0..10).map(|_| take(&backend, wish)).collect();
    assert!(matches!(backend.choose(wish), Choice::Full));
    drop(slots);
    backend.set_warmth(1, 0);
    assert_eq!(chosen(&backend, wish), 1, "never nothing at all");
}

/// Orders seen at HAProxy 2.6.12 with one thread: seven requests one after the other, then as many as below at once.
#[test]
fn busy_servers_are_chosen_in_haproxys_order() {
    let cases: [(Method, [u32; 3], u32, &str, &str); 6] = [
        (Method::LeastConn, [3, 1, 1], 0, "0120120", "1200000120"),
        (Method::LeastConn, [1, 1, 1], 0, "0120120", "1201201201"),
        (Method::LeastConn, [5, 3, 2], 0, "0120120", "1200010210"),
        (Method::First, [1, 1, 1], 3, "0000000", "000111222"),
        (Method::RoundRobin, [3, 1, 1], 4, "0010200", "1020010212"),
        (Method::StaticRoundRobin, [3, 1, 2], 4, "0020120", "0201200212"),
    ];
    for (method, weights, maxconn, idle, busy) in cases {
        let servers = weights.map(|weight| {
            server("s", |s| {
                s.weight = weight;
                s.maxconn = (maxconn > 0).then_some(maxconn);
            })
        });
        let backend = backend(method, &servers);
        let one_by_one: String =
            idle.chars().map(|_| chosen(&backend, Wish::default()).to_string()).collect();
        let slots: Vec<Slot> = busy.chars().map(|_| take(&backend, Wish::default())).collect();
        let at_once: String = slots.iter().map(|slot| slot.server.to_string()).collect();
        assert_eq!((one_by_one.as_str(), at_once.as_str()), (idle, busy), "{method:?} {weights:?}");
    }
}
