//! The table against a model that knows single bytes only.

use super::ranges::{Client, Held, Owner, Range};
use super::table::{Answer, Callback, FileKey, Limits, Request, Table};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of the model's files; the last stands for all that follow.
const BYTES: u64 = 12;
const FILES: usize = 2;
const OWNERS: usize = 4;

fn client(number: u8) -> Arc<Client> {
    Arc::new(Client { address: [10, 0, 0, number].into(), name: format!("web{number}").into_bytes().into() })
}

fn owner(number: usize) -> Arc<Owner> {
    // Two processes of each client, with the same numbers on both.
    let client = client(u8::try_from(number / 2).unwrap());
    Arc::new(Owner { client, svid: u32::try_from(number % 2).unwrap(), handle: Box::from(*b"oh") })
}

fn file(number: usize) -> FileKey {
    Arc::from([u8::try_from(number).unwrap()])
}

fn callback() -> Callback {
    Callback { file: Box::from(*b"fh"), version: 4, message: false }
}

fn limits() -> Limits {
    Limits { per_client: 1000, total: 2000, waiting_per_client: 100, waiting: 200 }
}

fn range(first: u64, last: u64) -> Range {
    Range { first, last: if last >= BYTES - 1 { u64::MAX } else { last } }
}

fn request(number: usize, first: u64, last: u64, exclusive: bool) -> Request {
    Request { owner: owner(number), range: range(first, last), exclusive, state: 0 }
}

type Byte = BTreeMap<usize, bool>;

#[derive(Clone, PartialEq, Debug)]
struct Asked {
    owner: usize,
    first: u64,
    last: u64,
    exclusive: bool,
}

/// What one byte after the other says.
#[derive(Default)]
struct Model {
    bytes: BTreeMap<(usize, u64), Byte>,
    waiting: Vec<(usize, Asked)>,
    pending: Vec<(usize, Asked, Vec<Option<bool>>)>,
}

impl Model {
    fn free(&self, file: usize, asked: &Asked) -> bool {
        (asked.first..=asked.last).all(|at| {
            let byte = self.bytes.get(&(file, at)).cloned().unwrap_or_default();
            byte.iter().all(|(other, exclusive)| *other == asked.owner || !(*exclusive || asked.exclusive))
        })
    }

    fn set(&mut self, file: usize, owner: usize, at: u64, value: Option<bool>) {
        let byte = self.bytes.entry((file, at)).or_default();
        match value {
            Some(exclusive) => byte.insert(owner, exclusive),
            None => byte.remove(&owner),
        };
    }

    fn give(&mut self, file: usize, asked: &Asked) {
        (asked.first..=asked.last).for_each(|at| self.set(file, asked.owner, at, Some(asked.exclusive)));
    }

    fn lock(&mut self, file: usize, asked: Asked, block: bool) -> Answer {
        if self.pending.iter().any(|(f, a, _)| *f == file && *a == asked) {
            self.settle(file, &asked);
            return Answer::Granted;
        }
        if self.free(file, &asked) {
            self.waiting.retain(|(f, a)| *f != file || *a != asked);
            self.settle(file, &asked);
            self.give(file, &asked);
            return Answer::Granted;
        }
        if !block {
            return Answer::Denied;
        }
        if !self.waiting.contains(&(file, asked.clone())) {
            if self.leads_to(asked.owner, file, &asked, &mut Vec::new()) {
                return Answer::Deadlock;
            }
            self.waiting.push((file, asked));
        }
        Answer::Blocked
    }

    /// Somebody in the way of `asked` waits for `owner`, or for somebody who does.
    fn leads_to(&self, owner: usize, file: usize, asked: &Asked, seen: &mut Vec<usize>) -> bool {
        (0..OWNERS).any(|other| {
            let holds = (asked.first..=asked.last).any(|at| {
                let held = self.bytes.get(&(file, at)).and_then(|byte| byte.get(&other));
                held.is_some_and(|exclusive| *exclusive || asked.exclusive)
            });
            if !holds || other == asked.owner || seen.contains(&other) {
                return false;
            }
            if other == owner {
                return true;
            }
            seen.push(other);
            self.waiting.iter().any(|(f, a)| a.owner == other && self.leads_to(owner, *f, a, seen))
        })
    }

    fn unlock(&mut self, file: usize, asked: &Asked) {
        self.settle(file, asked);
        (asked.first..=asked.last).for_each(|at| self.set(file, asked.owner, at, None));
    }

    /// Its owner has been granted something in this range and not said yet that it knows.
    fn is_pending(&self, file: usize, asked: &Asked) -> Option<usize> {
        self.pending.iter().position(|(f, a, _)| {
            *f == file && a.owner == asked.owner && a.first <= asked.last && asked.first <= a.last
        })
    }

    fn settle(&mut self, file: usize, asked: &Asked) {
        while let Some(at) = self.is_pending(file, asked) {
            let (_, known, before) = self.pending.remove(at);
            for (at, _) in (known.first..=known.last).zip(before).filter(|(_, value)| value.is_some()) {
                self.set(file, known.owner, at, Some(known.exclusive));
            }
        }
    }

    fn refused(&mut self, at: usize) {
        let (file, asked, before) = self.pending.remove(at);
        for (at, value) in (asked.first..=asked.last).zip(before) {
            self.set(file, asked.owner, at, value);
        }
    }

    /// Everybody who can be served now, in their order.
    fn serve(&mut self, file: usize) -> Vec<Asked> {
        let mut served = Vec::new();
        let can =
            |model: &Model, asked: &Asked| model.free(file, asked) && model.is_pending(file, asked).is_none();
        while let Some(at) = self.waiting.iter().position(|(f, asked)| *f == file && can(self, asked)) {
            let (_, asked) = self.waiting.remove(at);
            let before: Vec<Option<bool>> = (asked.first..=asked.last)
                .map(|at| self.bytes.get(&(file, at)).and_then(|byte| byte.get(&asked.owner).copied()))
                .collect();
            self.give(file, &asked);
            for (at, value) in
                (asked.first..=asked.last).zip(&before).filter(|(_, value)| **value == Some(true))
            {
                self.set(file, asked.owner, at, *value);
            }
            self.pending.push((file, asked.clone(), before));
            served.push(asked);
        }
        served
    }
}

fn number_of(owner: &Owner) -> usize {
    (0..OWNERS).find(|number| *self::owner(*number) == *owner).unwrap()
}

fn asked_of(request: &Request) -> Asked {
    let last = if request.range.last == u64::MAX { BYTES - 1 } else { request.range.last };
    Asked { owner: number_of(&request.owner), first: request.range.first, last, exclusive: request.exclusive }
}

/// No two owners hold what only one can.
fn assert_exclusive(model: &Model, seed: u64, step: usize) {
    for byte in model.bytes.values() {
        assert!(
            byte.len() < 2 || byte.values().all(|exclusive| !exclusive),
            "seed {seed} step {step}: {byte:?}"
        );
    }
}

fn assert_same(table: &Table, model: &Model, seed: u64, step: usize) {
    for number in 0..FILES {
        for at in 0..BYTES {
            let byte = model.bytes.get(&(number, at)).cloned().unwrap_or_default();
            for prober in 0..OWNERS {
                for exclusive in [false, true] {
                    let asked = Asked { owner: prober, first: at, last: at, exclusive };
                    let told = table.test(&file(number), &request(prober, at, at, exclusive));
                    assert_eq!(
                        told.is_none(),
                        model.free(number, &asked),
                        "seed {seed} step {step} byte {at}"
                    );
                    if let Some(Held { owner, exclusive, .. }) = told {
                        assert_eq!(
                            byte.get(&number_of(owner)),
                            Some(exclusive),
                            "seed {seed} step {step}: holder"
                        );
                    }
                }
            }
        }
    }
    assert_eq!(table.counts().1, model.waiting.len(), "seed {seed} step {step}: waiting");
}

fn run(seed: u64, steps: usize) {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut table, mut model) = (Table::new(limits()), Model::default());
    // Tickets of the table's grants, beside the model's.
    let mut tickets: Vec<u64> = Vec::new();
    for step in 0..steps {
        let number = random.random_range(0..FILES);
        let first = random.random_range(0..BYTES);
        let asked = Asked {
            owner: random.random_range(0..OWNERS),
            first,
            last: random.random_range(first..BYTES),
            exclusive: random.random(),
        };
        let wanted = request(asked.owner, asked.first, asked.last, asked.exclusive);
        let mut touched = vec![number];
        match random.random_range(0..12) {
            0..=4 => {
                let block: bool = random.random();
                let answer = table.lock(&file(number), wanted, block.then(callback));
                assert_eq!(answer, model.lock(number, asked, block), "seed {seed} step {step}");
            }
            5..=8 => {
                table.unlock(&file(number), &wanted.owner, wanted.range);
                model.unlock(number, &asked);
            }
            9 => {
                // Cancel something that waits, or nothing.
                let waits = model.waiting.iter().position(|(f, a)| *f == number && a.owner == asked.owner);
                let (wanted, expected) = match waits {
                    Some(at) => {
                        let (_, asked) = model.waiting.remove(at);
                        (request(asked.owner, asked.first, asked.last, asked.exclusive), true)
                    }
                    None => match model.pending.iter().position(|(f, a, _)| *f == number && *a == asked) {
                        Some(at) => {
                            model.refused(at);
                            (wanted, true)
                        }
                        None => (wanted, false),
                    },
                };
                assert_eq!(table.cancel(&file(number), &wanted), expected, "seed {seed} step {step}");
            }
            10 => {
                // A callback is answered.
                tickets.retain(|ticket| table.is_unacknowledged(*ticket));
                assert_eq!(tickets.len(), model.pending.len(), "seed {seed} step {step}: unacknowledged");
                if !tickets.is_empty() {
                    let at = random.random_range(0..tickets.len());
                    let ticket = tickets.remove(at);
                    touched = vec![model.pending[at].0];
                    if random.random() {
                        table.acknowledged(ticket);
                        let (file, known, _) = model.pending[at].clone();
                        model.settle(file, &known);
                    } else {
                        table.refused(ticket);
                        model.refused(at);
                    }
                }
            }
            _ if random.random_range(0..8) == 0 => {
                // A client restarts.
                let dead = asked.owner / 2;
                let of_dead = |a: &Asked| a.owner / 2 == dead;
                model.waiting.retain(|(_, a)| !of_dead(a));
                model.pending.retain(|(_, a, _)| !of_dead(a));
                model.bytes.values_mut().for_each(|byte| byte.retain(|owner, _| owner / 2 != dead));
                table.release_clients(&[client(u8::try_from(dead).unwrap())], 0);
                touched = (0..FILES).collect();
            }
            _ => {}
        }
        let granted = table.take_granted();
        let served: Vec<Asked> = touched.iter().flat_map(|number| model.serve(*number)).collect();
        let told: Vec<Asked> = granted.iter().map(|grant| asked_of(&grant.request)).collect();
        assert_eq!(told, served, "seed {seed} step {step}: grants");
        tickets.extend(granted.iter().map(|grant| grant.ticket));
        assert_exclusive(&model, seed, step);
        assert_same(&table, &model, seed, step);
    }
    let everybody: Vec<Arc<Client>> = (0..2).map(client).collect();
    table.release_clients(&everybody, 0);
    assert_eq!(table.counts(), (0, 0), "seed {seed}");
    assert_eq!(table.clients().count(), 0, "seed {seed}: nothing is left behind");
}

#[test]
fn random_sequences_are_as_the_bytes_say() {
    // One in which somebody is granted two locks that overlap, and wants neither.
    run(3_236_770_904_154_259_388, 300);
    let seed: u64 = rand::random();
    println!("first seed {seed}");
    (0..60).for_each(|number| run(seed.wrapping_add(number), 300));
}

#[test]
fn ranges_are_those_of_the_protocol() {
    assert_eq!(Range::new(5, 3), Some(Range { first: 5, last: 7 }));
    assert_eq!(Range::new(5, 0), Some(Range { first: 5, last: u64::MAX }));
    assert_eq!(Range::new(1 << 63, 1), None);
    assert_eq!(Range::new(u64::MAX, 0), None);
    assert_eq!(Range::new(i64::MAX as u64 - 1, 3), None);
    assert_eq!(Range::new(7, u64::MAX), None);
    assert_eq!(Range::new(i64::MAX as u64, 1), Some(Range { first: i64::MAX as u64, last: u64::MAX }));
    assert_eq!(Range { first: 5, last: 7 }.length(), 3);
    assert_eq!(Range { first: 5, last: u64::MAX }.length(), 0);
}

#[test]
fn waiters_are_served_in_their_order_and_keep_their_place_when_they_ask_again() {
    let mut table = Table::new(limits());
    let f = file(0);
    assert_eq!(table.lock(&f, request(0, 0, 3, true), None), Answer::Granted);
    assert_eq!(table.lock(&f, request(1, 0, 3, true), Some(callback())), Answer::Blocked);
    assert_eq!(table.lock(&f, request(2, 0, 3, true), Some(callback())), Answer::Blocked);
    assert_eq!(table.lock(&f, request(1, 0, 3, true), Some(callback())), Answer::Blocked);
    assert_eq!(table.counts(), (1, 2));
    table.unlock(&f, &owner(0), range(0, 3));
    let granted = table.take_granted();
    assert_eq!(granted.len(), 1);
    assert_eq!(*granted[0].request.owner, *owner(1));
    assert!(table.is_unacknowledged(granted[0].ticket));
    // Instead of waiting for the callback it asks again: it has it, and a late "no" to the callback is no matter.
    assert_eq!(table.lock(&f, request(1, 0, 3, true), Some(callback())), Answer::Granted);
    assert!(!table.is_unacknowledged(granted[0].ticket));
    table.refused(granted[0].ticket);
    assert!(table.test(&f, &request(3, 0, 0, false)).is_some());
}

#[test]
fn a_grant_that_nobody_wants_goes_to_the_next_and_an_upgrade_back_to_what_it_was() {
    let mut table = Table::new(limits());
    let f = file(0);
    assert_eq!(table.lock(&f, request(0, 0, 3, false), None), Answer::Granted);
    assert_eq!(table.lock(&f, request(1, 0, 3, false), None), Answer::Granted);
    assert_eq!(table.lock(&f, request(0, 0, 3, true), Some(callback())), Answer::Blocked);
    assert_eq!(table.lock(&f, request(3, 2, 2, false), None), Answer::Granted, "waiting keeps no reader out");
    table.unlock(&f, &owner(3), range(2, 2));
    table.unlock(&f, &owner(1), range(0, 3));
    let granted = table.take_granted();
    assert_eq!(granted.len(), 1);
    assert!(table.test(&f, &request(1, 0, 0, false)).is_some());
    assert!(table.cancel(&f, &request(0, 0, 3, true)), "the grant crossed the cancellation");
    assert!(table.test(&f, &request(1, 0, 0, false)).is_none());
    assert!(table.test(&f, &request(1, 0, 0, true)).is_some(), "the read lock is still held");
}

#[test]
fn who_would_wait_for_himself_is_told() {
    let mut table = Table::new(limits());
    let (f, g) = (file(0), file(1));
    for number in 0..3 {
        assert_eq!(
            table.lock(&f, request(number, number as u64, number as u64, true), None),
            Answer::Granted
        );
    }
    assert_eq!(table.lock(&g, request(3, 0, 3, true), None), Answer::Granted);
    assert_eq!(table.lock(&f, request(0, 1, 1, true), Some(callback())), Answer::Blocked);
    assert_eq!(table.lock(&f, request(1, 2, 2, true), Some(callback())), Answer::Blocked);
    assert_eq!(table.lock(&g, request(2, 0, 0, false), Some(callback())), Answer::Blocked);
    assert_eq!(
        table.lock(&f, request(3, 0, 0, true), Some(callback())),
        Answer::Deadlock,
        "3 -> 0 -> 1 -> 2 -> 3"
    );
    assert_eq!(table.lock(&f, request(3, 0, 0, true), None), Answer::Denied);
    table.unlock(&f, &owner(1), range(1, 1));
    assert_eq!(table.take_granted().len(), 1);
    assert_eq!(
        table.lock(&f, request(3, 0, 0, true), Some(callback())),
        Answer::Blocked,
        "0 does not wait any more"
    );
}

#[test]
fn limits_hold_and_are_per_client() {
    let limits = Limits { per_client: 4, total: 6, waiting_per_client: 1, waiting: 2 };
    let mut table = Table::new(limits);
    let f = file(0);
    for at in [0, 2, 4] {
        assert_eq!(table.lock(&f, request(0, at, at, true), None), Answer::Granted);
    }
    assert_eq!(table.lock(&f, request(0, 6, 6, true), None), Answer::NoLocks);
    assert_eq!(table.lock(&f, request(2, 6, 6, true), None), Answer::Granted, "another client");
    assert_eq!(table.lock(&f, request(2, 0, 0, true), Some(callback())), Answer::Blocked);
    assert_eq!(table.lock(&f, request(2, 2, 2, true), Some(callback())), Answer::NoLocks);
    table.unlock(&f, &owner(0), range(0, 11));
    assert_eq!(table.take_granted().len(), 1);
    assert_eq!(table.counts(), (2, 0));
    assert_eq!(table.share(&f, (&client(0), b"a"), (0, 1), 0), Answer::Granted);
    assert_eq!(table.counts().0, 3);
}

#[test]
fn shares_exclude_as_dos_has_it_and_end_with_their_client() {
    let mut table = Table::new(limits());
    let f = file(0);
    let (a, b) = (client(0), client(1));
    const READ: u32 = 1;
    const WRITE: u32 = 2;
    assert_eq!(table.share(&f, (&a, b"1"), (WRITE, READ), 5), Answer::Granted);
    assert_eq!(table.share(&f, (&b, b"1"), (0, WRITE), 0), Answer::Denied, "it denies writing");
    assert_eq!(table.share(&f, (&b, b"1"), (READ, 0), 0), Answer::Denied, "it reads");
    assert_eq!(table.share(&f, (&b, b"1"), (WRITE, READ), 0), Answer::Granted);
    assert_eq!(table.share(&f, (&a, b"1"), (0, READ), 5), Answer::Granted, "its own is replaced");
    assert_eq!(table.counts(), (2, 0));
    table.unshare(&f, &b, b"1");
    assert_eq!(table.share(&f, (&b, b"1"), (0, WRITE), 0), Answer::Granted);
    table.release_clients(std::slice::from_ref(&a), 5);
    assert_eq!(table.counts(), (2, 0), "made in the state that is told of");
    table.release_clients(&[a], 7);
    assert_eq!(table.counts(), (1, 0));
    table.release_clients(&[b], 0);
    assert_eq!(table.clients().count(), 0);
}

#[test]
fn what_a_client_locked_after_its_restart_stays() {
    let mut table = Table::new(limits());
    let f = file(0);
    let in_state = |state, at| Request { state, ..request(0, at, at, true) };
    assert_eq!(table.lock(&f, in_state(3, 0), None), Answer::Granted);
    assert_eq!(table.lock(&f, in_state(5, 2), None), Answer::Granted);
    assert_eq!(table.lock(&f, request(2, 0, 2, true), Some(callback())), Answer::Blocked);
    table.release_clients(&[client(0)], 5);
    assert!(table.test(&f, &request(2, 0, 0, true)).is_none());
    assert!(table.test(&f, &request(2, 2, 2, true)).is_some());
    table.release_clients(&[client(0)], 7);
    assert_eq!(table.take_granted().len(), 1, "who waited for the dead client is served");
}
