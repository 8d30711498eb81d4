//! READDIR and READDIRPLUS to the byte: for every count, from every cookie, in directories that change, and in
//! large ones.

use super::Fixture;
use super::wire::{Call, Entry, Outcome, Rest, ask};
use ehpc_proto::xdr::opaque_len;
use ehpc_tools::nfs_client::{Client, Handle};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

const TOOSMALL: u32 = 10_005;
/// A READDIR3resok without entries: attributes, verifier, "no more entries", end of directory.
const EMPTY: usize = 88 + 8 + 4 + 4;

fn listing(outcome: Outcome) -> (Vec<Entry>, bool) {
    match outcome.rest {
        Rest::Listing { entries, eof } => (entries, eof),
        _ => panic!("status {}", outcome.status),
    }
}

fn names(entries: &[Entry]) -> Vec<&[u8]> {
    entries.iter().map(|entry| &entry.name[..]).collect()
}

/// Bytes of an entry in READDIR; in READDIRPLUS without handle and attributes.
fn plain_len(entry: &Entry) -> usize {
    4 + 8 + opaque_len(entry.name.len()) + 8
}

fn plus_len(entry: &Entry) -> usize {
    let attributes = if entry.attributes.is_some() { 88 } else { 4 };
    plain_len(entry)
        + attributes
        + 4
        + entry.handle.as_ref().map_or(0, |handle| opaque_len(handle.data.len()))
}

/// How many of these fit, and what they take together.
fn fitting(lens: impl Iterator<Item = usize>, room: usize) -> (usize, usize) {
    let mut taken = (0, 0);
    for len in lens {
        if taken.1 + len > room {
            break;
        }
        taken = (taken.0 + 1, taken.1 + len);
    }
    taken
}

/// A directory with names of many lengths.
fn furnished() -> (Fixture, Client, Handle) {
    let fixture = Fixture::start();
    for number in 0..24 {
        let name = format!("{number:0width$}", width = 2 + number * 9);
        fs::write(fixture.path(&name), b"x").unwrap();
    }
    let (client, root) = fixture.mounted();
    (fixture, client, root)
}

/// What must come for one call: exactly the entries that fit, and TOOSMALL exactly when not one does.
fn check(
    what: &str,
    outcome: Outcome,
    len: usize,
    rest: &[Entry],
    (fits, bytes): (usize, usize),
    count: usize,
) {
    if count < EMPTY || (fits == 0 && !rest.is_empty()) {
        assert_eq!(outcome.status, TOOSMALL, "{what}");
        return;
    }
    assert_eq!(outcome.status, 0, "{what}");
    assert_eq!(len, EMPTY + bytes, "{what}: bytes");
    assert!(len <= count, "{what}: more than was asked for");
    let (entries, eof) = listing(outcome);
    assert_eq!(names(&entries), names(&rest[..fits]), "{what}");
    assert_eq!(eof, fits == rest.len(), "{what}: end");
}

fn ask_len(client: &mut Client, call: &Call) -> (Outcome, usize) {
    let outcome = ask(client, call);
    let len = outcome.len;
    (outcome, len)
}

#[test]
fn readdir_fills_every_count_exactly_from_every_cookie() {
    let (_fixture, mut client, root) = furnished();
    let (all, eof) = listing(ask(&mut client, &Call::readdir(&root, 0, 65_536)));
    assert!(eof && all.len() == 26);
    for start in 0..=all.len() {
        let cookie = if start == 0 { 0 } else { all[start - 1].cookie };
        let rest = &all[start..];
        let full: usize = EMPTY + rest.iter().map(plain_len).sum::<usize>();
        // From the start every count; from elsewhere those around which something changes.
        let step = if start == 0 { 1 } else { 29 };
        for count in (0..=full + 4).step_by(step).chain([full - 1, full, EMPTY - 1, EMPTY]) {
            let (outcome, len) = ask_len(&mut client, &Call::readdir(&root, cookie, count as u32));
            let fits = fitting(rest.iter().map(plain_len), count.saturating_sub(EMPTY));
            check(&format!("cookie {cookie} count {count}"), outcome, len, rest, fits, count);
        }
    }
}

#[test]
fn readdirplus_fills_both_counts_exactly() {
    let (_fixture, mut client, root) = furnished();
    let (all, eof) = listing(ask(&mut client, &Call::readdirplus(&root, 0, 65_536, 65_536)));
    assert!(eof && all.len() == 26);
    let full: usize = EMPTY + all.iter().map(plus_len).sum::<usize>();
    for max in (0..=full + 4).step_by(3).chain([full - 1, full]) {
        let (outcome, len) = ask_len(&mut client, &Call::readdirplus(&root, 0, 0, max as u32));
        let fits = fitting(all.iter().map(plus_len), max.saturating_sub(EMPTY));
        check(&format!("maxcount {max}"), outcome, len, &all, fits, max);
    }
    // dircount counts names, file ids and cookies alone.
    let names: usize = all.iter().map(plain_len).sum();
    for dir_count in (1..=names + 4).step_by(3).chain([names - 1, names]) {
        let (outcome, len) = ask_len(&mut client, &Call::readdirplus(&root, 0, dir_count as u32, 65_536));
        let (fits, _) = fitting(all.iter().map(plain_len), dir_count);
        let bytes = all[..fits].iter().map(plus_len).sum();
        check(&format!("dircount {dir_count}"), outcome, len, &all, (fits, bytes), 65_536);
    }
}

/// Reads to the end in pages of random sizes; `between` is called after each page.
fn read_in_pages(
    client: &mut Client,
    dir: &Handle,
    plus: bool,
    sizes: std::ops::Range<u32>,
    random: &mut StdRng,
    mut between: impl FnMut(&mut StdRng),
) -> BTreeMap<Vec<u8>, u32> {
    let mut seen: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    let mut cookie = 0;
    loop {
        let count = random.random_range(sizes.clone());
        let call = if plus {
            Call::readdirplus(dir, cookie, count, count)
        } else {
            Call::readdir(dir, cookie, count)
        };
        let (entries, eof) = listing(ask(client, &call));
        assert!(eof || !entries.is_empty(), "no progress at {cookie}");
        for entry in entries {
            cookie = entry.cookie;
            *seen.entry(entry.name).or_default() += 1;
        }
        if eof {
            return seen;
        }
        between(random);
    }
}

#[test]
fn what_stays_is_listed_exactly_once_whatever_comes_and_goes() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for plus in [false, true] {
        let fixture = Fixture::start();
        let stable: BTreeSet<String> = (0..2000).map(|number| format!("stays-{number:x}")).collect();
        for name in &stable {
            fs::write(fixture.path(name), b"").unwrap();
        }
        let (mut client, root) = fixture.mounted();
        let mut volatile = BTreeSet::new();
        let mut changes = 0;
        let seen = read_in_pages(&mut client, &root, plus, 700..9000, &mut random, |random| {
            for _ in 0..random.random_range(0..40) {
                let name = format!("comes-{}", random.random_range(0..300));
                if volatile.remove(&name) {
                    fs::remove_file(fixture.path(&name)).unwrap();
                } else {
                    fs::write(fixture.path(&name), b"").unwrap();
                    volatile.insert(name);
                }
                changes += 1;
            }
        });
        assert!(changes > 50, "hardly anything changed: {changes}");
        for name in &stable {
            assert_eq!(seen.get(name.as_bytes()), Some(&1), "{name}, plus {plus}");
        }
    }
}

/// Names "n" and a number, below `dir`, as links to files that have up to 60,000 names each.
fn fill(dir: &std::path::Path, count: usize) {
    let outside = tempfile::tempdir_in(dir.parent().unwrap()).unwrap();
    for start in (0..count).step_by(60_000) {
        let source = outside.path().join("source");
        fs::write(&source, b"").unwrap();
        for number in start..count.min(start + 60_000) {
            fs::hard_link(&source, dir.join(format!("n{number}"))).unwrap();
        }
        fs::remove_file(source).unwrap();
    }
}

/// 50,000 entries, and 1,000,000 in the full run, read twice while names come and go.
#[test]
fn a_large_directory_that_changes_is_listed() {
    let full = std::env::var_os("EHPC_TEST_FULL").is_some_and(|full| !full.is_empty());
    let count = if full { 1_000_000 } else { 50_000 };
    let fixture = Fixture::start();
    fill(fixture.dir.path(), count);
    let (mut client, root) = fixture.mounted();
    let mut random = StdRng::seed_from_u64(7);
    for plus in [false, true] {
        let mut turn = 0;
        let seen = read_in_pages(&mut client, &root, plus, 60_000..65_536, &mut random, |_| {
            // A name comes, another goes: the directory is never the same twice.
            fs::write(fixture.path(&format!("new{turn}")), b"").unwrap();
            if turn > 0 {
                fs::remove_file(fixture.path(&format!("new{}", turn - 1))).unwrap();
            }
            turn += 1;
        });
        assert!(turn > count / 4000, "{turn} pages");
        for number in 0..count {
            assert_eq!(seen.get(format!("n{number}").as_bytes()), Some(&1), "n{number}, plus {plus}");
        }
        fs::remove_file(fixture.path(&format!("new{}", turn - 1))).unwrap();
    }
}
