//! Which server is next (4.2 `balance`). Pure: weights in, an order out.
//!
//! What HAProxy decides anew for each request is made here once for each change of a weight or of a server's health:
//! a *wheel*, one turn of server numbers in the order in which they get requests. A request then only takes the next
//! place of the wheel, so that threads share one counter and no lock. The orders are those of HAProxy 2.6 (observed,
//! and compared by tests with what it did).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Weights are counted in sixteenths, so that a starting server (`slowstart`) can have a part of its weight.
pub const WEIGHT_SCALE: u32 = 16;

/// The greatest weight in a file.
pub const MOST_WEIGHT: u32 = 256;

/// Longest wheel; beyond it weights are rounded.
const LONGEST: u64 = 65_536;

/// One turn of `balance roundrobin`: each number `i` occurs in proportion to `weights[i]` (in sixteenths, at most 4096),
/// spread as evenly as may be, heavy ones first. Weight 0 does not occur.
pub fn round_robin(weights: &[u32]) -> Vec<u32> {
    let shares = shares(weights);
    let turn: usize = shares.iter().map(|&share| share as usize).sum();
    let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
    let mut wheel = Vec::with_capacity(turn);
    let mut spread = Spread::new(weights, total);
    while wheel.len() < turn {
        let Some(next) = spread.next() else { break };
        wheel.push(next);
    }
    exact(&mut wheel, &shares);
    wheel
}

/// One turn of `balance static-rr`, and the table that hashes of `hash-type map-based` point into: after each place the
/// chosen one steps back by the total, all others advance by their weight.
pub fn map(weights: &[u32]) -> Vec<u32> {
    let shares = shares(weights);
    let total: i64 = shares.iter().map(|&share| i64::from(share)).sum();
    let mut score = vec![0_i64; shares.len()];
    let mut map = Vec::with_capacity(total as usize);
    for _ in 0..total {
        let mut best: Option<(i64, usize)> = None;
        for (number, &share) in shares.iter().enumerate().filter(|(_, share)| **share > 0) {
            score[number] += i64::from(share);
            let rank = (score[number] + total) / total;
            if best.is_none_or(|(highest, _)| rank > highest) {
                best = Some((rank, number));
            }
        }
        if let Some((_, number)) = best {
            score[number] -= total;
            map.push(number as u32);
        }
    }
    map
}

/// Hash of a text (`balance uri`, `hdr`, `url_param`; `hash-type map-based sdbm`): the sdbm function.
pub fn hash_text(text: &[u8]) -> u32 {
    text.iter().fold(0_u32, |hash, &byte| {
        let shifted = (hash << 6).wrapping_add(hash << 16);
        u32::from(byte).wrapping_add(shifted).wrapping_sub(hash)
    })
}

/// Hash of an address (`balance source`): its words of 32 bits, one over the other. `octets`: 4 or 16, as on the wire.
pub fn hash_address(octets: &[u8]) -> u32 {
    let words = octets.chunks_exact(4);
    words.fold(0, |hash, word| hash ^ word.iter().fold(0, |number, &byte| number << 8 | u32::from(byte)))
}

/// How often each occurs in one turn: weights divided by what they have in common, rounded when the turn would be too
/// long. A weight above 0 occurs at least once.
fn shares(weights: &[u32]) -> Vec<u32> {
    let common = weights.iter().fold(0, |common, &weight| gcd(common, weight)).max(1);
    let total: u64 = weights.iter().map(|&weight| u64::from(weight / common)).sum();
    let round = |weight: u32| match weight {
        0 => 0,
        _ if total <= LONGEST => weight / common,
        _ => (u64::from(weight / common) * LONGEST / total).max(1) as u32,
    };
    weights.iter().map(|&weight| round(weight)).collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Rounding lets one turn differ by a place or two from the weights: the last places of those that have too many go to
/// those that have too few.
fn exact(wheel: &mut [u32], shares: &[u32]) {
    let mut owed: Vec<i64> = shares.iter().map(|&share| i64::from(share)).collect();
    for &number in wheel.iter() {
        owed[number as usize] -= 1;
    }
    for place in wheel.iter_mut().rev() {
        if owed[*place as usize] >= 0 {
            continue;
        }
        let Some(poor) = owed.iter().position(|&owed| owed > 0) else { return };
        owed[*place as usize] += 1;
        owed[poor] -= 1;
        *place = poor as u32;
    }
}

/// The order of HAProxy's dynamic round robin. Everyone has a position on a line and moves ahead by `total / weight` when
/// it is chosen; who is behind the current position is due, and while nobody is due, a newcomer is taken, heavy ones first.
struct Spread<'w> {
    weights: &'w [u32],
    total: u64,
    position: u64,
    /// Counts choices: among equals, who has waited longest is first.
    turn: u64,
    /// (sort key, when it was put here, position, number)
    due: BinaryHeap<Reverse<(u64, u64, u64, u32)>>,
    /// (lightness, when it was put here, number)
    new: BinaryHeap<Reverse<(u32, u64, u32)>>,
    next: BinaryHeap<Reverse<(u32, u64, u32)>>,
    /// What division left over, a weight each.
    rest: Vec<u64>,
}

impl<'w> Spread<'w> {
    fn new(weights: &'w [u32], total: u64) -> Spread<'w> {
        let used = weights.iter().enumerate().filter(|(_, weight)| **weight > 0);
        Spread {
            weights,
            total,
            position: total,
            turn: weights.len() as u64,
            due: BinaryHeap::new(),
            new: used.map(|(n, weight)| Reverse((lightness(*weight), n as u64, n as u32))).collect(),
            next: BinaryHeap::new(),
            rest: vec![0; weights.len()],
        }
    }

    fn next(&mut self) -> Option<u32> {
        let (number, at) = match self.take() {
            Some(found) => found,
            None => {
                std::mem::swap(&mut self.new, &mut self.next);
                self.position = self.total;
                self.take()?
            }
        };
        let weight = u64::from(self.weights[number as usize]);
        let rest = &mut self.rest[number as usize];
        let mut ahead = at + self.total / weight;
        *rest += self.total % weight;
        if *rest >= weight {
            *rest -= weight;
            ahead += 1;
        }
        self.position += 1;
        self.turn += 1;
        if ahead >= 2 * self.total {
            self.next.push(Reverse((lightness(weight as u32), self.turn, number)));
        } else {
            let fine = (u64::from(MOST_WEIGHT * WEIGHT_SCALE) + *rest).saturating_sub(weight);
            let key = u64::from(MOST_WEIGHT + 1) * ahead + fine / u64::from(WEIGHT_SCALE);
            self.due.push(Reverse((key, self.turn, ahead, number)));
        }
        Some(number)
    }

    /// Who is due, else a newcomer, else who is due next; with its position.
    fn take(&mut self) -> Option<(u32, u64)> {
        let is_due = self.due.peek().is_some_and(|Reverse((.., at, _))| *at <= self.position);
        if !is_due && let Some(Reverse((_, _, number))) = self.new.pop() {
            self.rest[number as usize] = 0;
            return Some((number, self.position));
        }
        self.due.pop().map(|Reverse((.., at, number))| (number, at))
    }
}

fn lightness(weight: u32) -> u32 {
    (MOST_WEIGHT * WEIGHT_SCALE).saturating_sub(weight)
}

#[cfg(test)]
#[path = "balance_tests.rs"]
mod tests;
