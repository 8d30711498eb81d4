//! Random operations over the wire: a served local directory answers as the served model does.

use super::wire_vfs::WireVfs;
use super::{Fixture, options};
use crate::host::Tree;
use crate::vfs::twins::{self, Act, Name, ROOT_MODE, Stage, Step};
use crate::vfs::{CreateHow, LocalOptions, LocalVfs, MemoryVfs, SetAttributes, Vfs};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

fn over_the_wire(fixture: &Fixture) -> Box<dyn Vfs> {
    Box::new(WireVfs::new(fixture.client(), "/share"))
}

fn stage(open: fn(&Path) -> Tree) -> Stage {
    let mut path = None;
    let subject = Fixture::with(
        options(),
        |_| {},
        |_| {
            // Quick: what is synchronous has its own tests.
            let tree = open(path.insert(tempfile::tempdir().unwrap()).path());
            fs::set_permissions(tree.root_path(), fs::Permissions::from_mode(u32::from(ROOT_MODE))).unwrap();
            let options = LocalOptions { sync: false, ..LocalOptions::default() };
            Arc::new(LocalVfs::new(Arc::new(tree), options))
        },
    );
    let protected = fs::read_to_string("/proc/sys/fs/protected_hardlinks").unwrap();
    let memory = MemoryVfs::new((0, 0, ROOT_MODE), protected.trim() == "1");
    let model = Fixture::with(options(), |_| {}, |_| Arc::new(memory));
    Stage {
        subject: over_the_wire(&subject),
        model: over_the_wire(&model),
        _below: vec![Box::new(subject), Box::new(model), Box::new(path)],
        wire: true,
    }
}

#[test]
fn a_served_directory_answers_as_the_served_model() {
    let full = std::env::var_os("EHPC_TEST_FULL").is_some_and(|full| !full.is_empty());
    let (seeds, count) = if full { (40, 3000) } else { (2, 1500) };
    twins::run(&|| stage(|path| Tree::open(path).unwrap()), Some(1), count);
    for _ in 1..seeds {
        twins::run(&|| stage(|path| Tree::open(path).unwrap()), None, count);
    }
}

#[test]
fn so_does_one_without_kernel_handles() {
    twins::run(&|| stage(|path| Tree::open_with_inode_keys(path).unwrap()), None, 1000);
}

/// What random runs have found, shrunk.
#[test]
fn failures_found_once() {
    let root = |act| Step { number: 1, caller: 1, object: 0, other: 0, act };
    let name = || Name(b"n1".to_vec());
    let too_large = SetAttributes { size: Some(u64::MAX), ..SetAttributes::default() };
    let nobody = SetAttributes { uid: Some(u32::MAX), ..SetAttributes::default() };
    let cases = [
        (
            "a file of an impossible size was made, then refused",
            Act::Create(name(), CreateHow::Guarded(too_large)),
        ),
        ("the same without a guard", Act::Create(name(), CreateHow::Unchecked(too_large))),
        ("a directory of an impossible owner was made, then refused", Act::Mkdir(name(), nobody)),
        (
            "a file of an impossible owner was made, then refused",
            Act::Create(name(), CreateHow::Guarded(nobody)),
        ),
    ];
    for (what, act) in cases {
        twins::run_case(&|| stage(|path| Tree::open(path).unwrap()), what, &[root(act)]);
    }
}
