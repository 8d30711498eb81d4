//! READDIR and READDIRPLUS: byte limits, cookies, changing directories.

use super::{Fixture, status};
use ehpc_proto::nfs3::{Procedure, arguments, directory};
use std::collections::BTreeSet;
use std::fs;

const TOOSMALL: u32 = 10_005;

fn names(count: usize) -> BTreeSet<Vec<u8>> {
    (0..count).map(|number| format!("file-{number:0width$}", width = 1 + number % 40).into_bytes()).collect()
}

fn filled(count: usize) -> (Fixture, BTreeSet<Vec<u8>>) {
    let fixture = Fixture::start();
    let names = names(count);
    for name in &names {
        fs::write(fixture.path(std::str::from_utf8(name).unwrap()), b"x").unwrap();
    }
    (fixture, names)
}

#[test]
fn every_limit_lists_everything_once_within_its_bytes() {
    let (fixture, expected) = filled(300);
    let (mut client, root) = fixture.mounted();
    for count in [200, 512, 1000, 4096, 65_536] {
        let mut seen = Vec::new();
        let mut cookie = 0;
        loop {
            let args = arguments::Readdir { dir: root.clone(), cookie, verifier: [0; 8], count };
            let answer = client.nfs(Procedure::Readdir, &args).unwrap();
            assert!(answer.body().len() - 4 <= count as usize, "{} bytes", answer.body().len());
            let listing = answer.result::<directory::Readdir<'_>>().unwrap().unwrap();
            assert_eq!(listing.verifier, [0; 8]);
            seen.extend(listing.entries.iter().map(|entry| entry.name.0.to_vec()));
            cookie = listing.entries.last().map_or(cookie, |entry| entry.cookie);
            if listing.eof {
                break;
            }
            assert!(!listing.entries.is_empty(), "no progress");
        }
        let all: BTreeSet<_> = seen.iter().cloned().collect();
        assert_eq!(all.len(), seen.len(), "a name came twice");
        assert!(all.contains(&b"."[..]) && all.contains(&b".."[..]));
        assert_eq!(all.len(), expected.len() + 2);
        assert!(expected.is_subset(&all));
    }
}

#[test]
fn readdirplus_honours_both_limits_and_brings_handles() {
    let (fixture, expected) = filled(100);
    let (mut client, root) = fixture.mounted();
    for (dir_count, max_count) in [(100, 65_536), (65_536, 600), (0, 4096), (500, 3000)] {
        let mut seen = BTreeSet::new();
        let mut cookie = 0;
        loop {
            let args =
                arguments::Readdirplus { dir: root.clone(), cookie, verifier: [0; 8], dir_count, max_count };
            let answer = client.nfs(Procedure::Readdirplus, &args).unwrap();
            assert!(answer.body().len() - 4 <= max_count as usize);
            let listing = answer.result::<directory::Readdirplus<'_>>().unwrap().unwrap();
            let dir_bytes: usize =
                listing.entries.iter().map(|entry| 24 + entry.name.0.len().next_multiple_of(4)).sum();
            assert!(dir_count == 0 || dir_bytes <= dir_count as usize);
            seen.extend(listing.entries.iter().map(|entry| entry.name.0.to_vec()));
            cookie = listing.entries.last().map_or(cookie, |entry| entry.cookie);
            if listing.eof {
                break;
            }
        }
        assert!(expected.is_subset(&seen), "{dir_count} {max_count}");
    }
    for entry in client.list(&root).unwrap() {
        let handle = entry.handle.expect("a handle");
        let attributes = entry.attributes.expect("attributes");
        assert_eq!(attributes.fileid, entry.fileid);
        assert_eq!(client.getattr(&handle).unwrap().fileid, entry.fileid);
        assert_eq!(client.lookup(&root, &entry.name).unwrap().0.data, handle.data);
    }
}

#[test]
fn too_small_for_one_entry_is_said() {
    let (fixture, _) = filled(3);
    let (mut client, root) = fixture.mounted();
    for count in [0, 1, 103, 104, 120] {
        assert_eq!(status(client.readdir(&root, 0, count)), TOOSMALL, "count {count}");
        assert_eq!(status(client.readdirplus(&root, 0, count)), TOOSMALL, "count {count}");
    }
    // Any of the entries may be the first: the order is the file system's.
    assert_eq!(status(client.readdir(&root, 0, 132 + 252)), 0);
}

#[test]
fn a_foreign_verifier_is_a_bad_cookie() {
    let (fixture, _) = filled(3);
    let (mut client, root) = fixture.mounted();
    let (entries, _) = client.readdir(&root, 0, 200).unwrap();
    let cookie = entries[0].cookie;
    let args = arguments::Readdir { dir: root, cookie, verifier: [9; 8], count: 1000 };
    let answer = client.nfs(Procedure::Readdir, &args).unwrap();
    let (refused, _) = answer.result::<directory::Readdir<'_>>().unwrap().unwrap_err();
    assert_eq!(refused as u32, 10_003);
}

#[test]
fn only_directories_are_listed() {
    let (fixture, _) = filled(1);
    let (mut client, root) = fixture.mounted();
    let name = client.list(&root).unwrap().remove(0).name;
    let (file, _) = client.lookup(&root, &name).unwrap();
    assert_eq!(status(client.readdir(&file, 0, 1000)), 20);
    assert_eq!(status(client.readdirplus(&file, 0, 1000)), 20);
}

#[test]
fn what_stays_is_listed_while_the_directory_changes() {
    let (fixture, expected) = filled(200);
    let (mut client, root) = fixture.mounted();
    let mut seen = BTreeSet::new();
    let mut cookie = 0;
    for round in 0.. {
        let (entries, eof) = client.readdir(&root, cookie, 600).unwrap();
        cookie = entries.last().map_or(cookie, |entry| entry.cookie);
        seen.extend(entries.into_iter().map(|entry| entry.name));
        client.create(&root, format!("new-{round}").as_bytes()).unwrap();
        if round > 0 {
            client.remove(&root, format!("new-{}", round - 1).as_bytes()).unwrap();
        }
        if eof {
            break;
        }
        assert!(round < 1000, "no end");
    }
    assert!(expected.is_subset(&seen));
}
