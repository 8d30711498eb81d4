//! Orders, compared with those that HAProxy 2.6.12 showed for the same weights.

use super::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// (weights, first requests under roundrobin, under static-rr), recorded from HAProxy 2.6.12: 60 requests one after the
/// other over servers that answer with their number.
const OBSERVED: &[(&[u32], &str, &str)] = &[
    (&[1, 1, 1], "012012012012012012012012", "012012012012012012012012"),
    (&[3, 1], "000100010001000100010001", "000100010001000100010001"),
    (
        &[5, 3, 2],
        "010201010201020101020102010102010201010201020101020102010102",
        "001020101200102010120010201012001020101200102010120010201012",
    ),
    (&[1, 5], "111110111110111110111110", "011111011111011111011111"),
    (&[2, 1, 4], "220212022021202202120220212022", "021202202120220212022021202202"),
    (&[10, 7, 3], "01010201010201010012", "00101020101012001012"),
    (
        &[20, 20, 10, 1],
        "010120101201012010120101201301201012010120101201012",
        "010120101201012010120101201201012010120101201012013010120101",
    ),
    (&[2, 2, 4], "202120212021202120212021", "021202120212021202120212"),
];

fn scaled(weights: &[u32]) -> Vec<u32> {
    weights.iter().map(|weight| weight * WEIGHT_SCALE).collect()
}

fn shown(wheel: &[u32], length: usize) -> String {
    wheel.iter().cycle().take(length).map(|n| n.to_string()).collect()
}

#[test]
fn round_robin_goes_in_haproxys_order() {
    for (weights, observed, _) in OBSERVED {
        assert_eq!(shown(&round_robin(&scaled(weights)), observed.len()), *observed, "{weights:?}");
    }
}

#[test]
fn static_round_robin_goes_in_haproxys_order() {
    for (weights, _, observed) in OBSERVED {
        assert_eq!(shown(&map(&scaled(weights)), observed.len()), *observed, "{weights:?}");
    }
}

#[test]
fn one_turn_has_everyone_in_proportion() {
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..300 {
        let weights: Vec<u32> =
            (0..random.random_range(1..9)).map(|_| random.random_range(0..=256)).collect();
        let common = weights.iter().fold(0, |common, &weight| gcd(common, weight)).max(1);
        for wheel in [round_robin(&scaled(&weights)), map(&scaled(&weights))] {
            for (number, weight) in weights.iter().enumerate() {
                let places = wheel.iter().filter(|place| **place as usize == number).count();
                assert_eq!(places as u32, weight / common, "server {number} of {weights:?}");
            }
        }
    }
}

#[test]
fn a_wheel_is_bounded_and_forgets_nobody() {
    let weights: Vec<u32> = (0..3000).map(|n| 4096 - (n % 7) * 501).collect();
    for wheel in [round_robin(&weights), map(&weights[..500])] {
        assert!(wheel.len() <= LONGEST as usize, "{}", wheel.len());
    }
    let wheel = round_robin(&weights);
    let mut seen = vec![false; weights.len()];
    wheel.iter().for_each(|place| seen[*place as usize] = true);
    assert!(seen.iter().all(|seen| *seen));
}

#[test]
fn nobody_is_a_wheel_of_nothing() {
    assert!(round_robin(&[]).is_empty());
    assert!(round_robin(&[0, 0]).is_empty());
    assert!(map(&[0]).is_empty());
}

/// Servers of weight 3, 2 and 4 behind HAProxy 2.6.12; which of them answered.
#[test]
fn hashes_lead_where_haproxys_lead() {
    let map = map(&scaled(&[3, 2, 4]));
    let at = |hash: u32| map[hash as usize % map.len()];
    let texts: [(&str, u32); 12] = [
        ("/", 2),
        ("/a", 0),
        ("/abc/def", 0),
        ("/abc/xyz/1/2", 0),
        ("/abc/xyz/1/3", 1),
        ("http://h/abc/def", 2),
        ("/a//b", 1),
        ("/abcd", 2),
        ("/abce", 0),
        ("/abc/def?x=1", 1),
        ("/abc/def?x=2", 2),
        ("x y", 0),
    ];
    for (text, server) in texts {
        assert_eq!(at(hash_text(text.as_bytes())), server, "{text}");
    }
    let sources = "20202120120202120120202120120";
    for (number, server) in (1..).zip(sources.bytes()) {
        assert_eq!(at(hash_address(&[127, 0, 0, number])), u32::from(server - b'0'), "127.0.0.{number}");
    }
    assert_eq!(at(hash_address(&[127, 9, 8, 7])), 2);
    assert_eq!(hash_address(&[0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 1, 0]), 0x107);
}
