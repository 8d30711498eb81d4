//! Listings that are kept are exact.

use super::*;
use crate::vfs::DirEntry;
use rand::{Rng, SeedableRng};
use std::time::Instant;

/// (name, file id, cookie, node).
type Shown = (Vec<u8>, u64, u64, Option<Node>);

/// The whole directory, a page of `page` entries at a time; from what is kept where that is possible.
fn listed(vfs: &LocalVfs, dir: &ObjectKey, page: usize, quick: &mut usize) -> Vec<Shown> {
    let mut all: Vec<Shown> = Vec::new();
    loop {
        let cookie = all.last().map_or(0, |(_, _, cookie, _)| *cookie);
        let mut taken = Vec::new();
        let take = |taken: &mut Vec<Shown>, entry: DirEntry<'_>| {
            if taken.len() == page {
                return false;
            }
            // The directory itself was looked at before it was read, which moves its access time.
            let node = entry.node.filter(|_| entry.name != b".").cloned();
            taken.push((entry.name.to_vec(), entry.fileid, entry.cookie, node));
            true
        };
        let end = match vfs.readdir_quickly(&ROOT, dir, cookie, true, &mut |entry| take(&mut taken, entry)) {
            Some(end) => {
                *quick += 1;
                end.unwrap()
            }
            None => {
                taken.clear();
                vfs.readdir(&ROOT, dir, cookie, true, &mut |entry| take(&mut taken, entry)).unwrap()
            }
        };
        assert!(end || taken.len() == page, "a page that is not full");
        all.extend(taken);
        if end {
            return all;
        }
    }
}

/// As one who keeps nothing sees it.
fn fresh(path: &Path, dir: &ObjectKey) -> Vec<Shown> {
    listed(&serve(path), dir, usize::MAX, &mut 0)
}

#[test]
fn after_every_change_through_this_server_the_listing_is_exact() {
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let directory = directory_for_all();
    let vfs = serve(directory.path());
    let root = vfs.root();
    let dirs: Vec<ObjectKey> = (0..2)
        .map(|n| vfs.mkdir(&ROOT, &root, format!("d{n}").as_bytes(), &with_mode(0o755)).result.unwrap().key)
        .chain([root.clone()])
        .collect();
    let mut quick = 0;
    for round in 0..600 {
        let mut pick = || &dirs[random.random_range(0..dirs.len())];
        let (dir, other) = (pick(), pick());
        let name = format!("n{}", random.random_range(0..12)).into_bytes();
        let new = format!("n{}", random.random_range(0..12)).into_bytes();
        let found = vfs.lookup(&ROOT, dir, &name).0.ok().map(|node| node.key);
        match (random.random_range(0..9), found) {
            (0 | 1, _) => drop(vfs.create(&ROOT, dir, &name, CreateHow::Unchecked(with_mode(0o644)))),
            (2, Some(key)) => drop(vfs.write(&ROOT, &key, round, b"data", Stability::Unstable)),
            (3, Some(key)) => drop(vfs.setattr(&ROOT, &key, &with_mode(round as u16 & 0o777), None)),
            (4, Some(key)) => drop(vfs.link(&ROOT, &key, other, &new)),
            (5, _) => drop(vfs.rename(&ROOT, (dir, &name), (other, &new))),
            (6, _) => drop(vfs.remove(&ROOT, dir, &name)),
            (7, _) => drop(vfs.mkdir(&ROOT, dir, &name, &with_mode(0o700))),
            (8, _) => drop(vfs.rmdir(&ROOT, dir, &name)),
            _ => {}
        }
        for dir in &dirs {
            let page = random.random_range(1..20);
            let kept = listed(&vfs, dir, page, &mut quick);
            assert_eq!(kept, fresh(directory.path(), dir), "seed {seed}, round {round}");
        }
    }
    assert!(quick > 1000, "what is kept is used: {quick} times");
}

#[test]
fn what_other_processes_change_is_seen_soon() {
    let directory = directory_for_all();
    let vfs = serve(directory.path());
    let root = vfs.root();
    let path = |name: &str| directory.path().join(name);
    (0..50).for_each(|n| fs::write(path(&format!("f{n}")), b"x").unwrap());
    let mut quick = 0;
    let mut soon = |what: &str| {
        let start = Instant::now();
        while listed(&vfs, &root, 7, &mut quick) != fresh(directory.path(), &root) {
            assert!(start.elapsed().as_secs() < 20, "never seen: {what}");
        }
    };
    soon("files");
    fs::write(path("f3"), b"longer").unwrap();
    soon("content");
    fs::rename(path("f4"), path("g4")).unwrap();
    soon("a rename");
    fs::remove_file(path("f5")).unwrap();
    soon("a removal");
    fs::remove_file(path("f6")).unwrap();
    fs::write(path("f6"), b"another").unwrap();
    soon("another file of the same name");
    fs::set_permissions(path("f7"), fs::Permissions::from_mode(0o600)).unwrap();
    soon("a mode");
    assert!(quick > 0, "something was kept meanwhile");
}

#[test]
fn what_is_kept_is_bounded_and_asks_for_permission() {
    let directory = directory_for_all();
    let vfs = serve(directory.path());
    let dir = vfs.mkdir(&ROOT, &vfs.root(), b"private", &with_mode(0o700)).result.unwrap().key;
    let mut quick = 0;
    let mut nobody = |_: DirEntry<'_>| true;
    assert_eq!(vfs.readdir(&user(1234), &vfs.root(), 0, true, &mut nobody), Ok(true));
    listed(&vfs, &dir, 10, &mut quick);
    listed(&vfs, &dir, 10, &mut quick);
    assert_eq!(quick, 1);
    assert!(vfs.listings.bytes() > 0);
    let mut none = |_: DirEntry<'_>| panic!("an entry was told");
    assert!(vfs.readdir_quickly(&user(1234), &dir, 0, true, &mut none).is_none());
    assert_eq!(vfs.readdir(&user(1234), &dir, 0, true, &mut none), Err(VfsError::Access));
}

#[test]
fn who_may_not_search_hides_nothing_from_others() {
    let directory = directory_for_all();
    let vfs = serve(directory.path());
    let dir = vfs.mkdir(&ROOT, &vfs.root(), b"listable", &with_mode(0o744)).result.unwrap().key;
    vfs.create(&ROOT, &dir, b"f", CreateHow::Guarded(with_mode(0o644))).result.unwrap();
    let mut names = 0;
    let mut count = |entry: DirEntry<'_>| {
        names += 1;
        assert!(entry.name == b"." || entry.node.is_none(), "no attributes without the right to search");
        true
    };
    assert_eq!(vfs.readdir(&user(1234), &dir, 0, true, &mut count), Ok(true));
    assert_eq!(names, 3);
    assert_eq!(listed(&vfs, &dir, 10, &mut 0), fresh(directory.path(), &dir));
}
