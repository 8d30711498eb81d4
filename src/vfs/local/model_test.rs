//! Random operations by several identities on a real directory and on the model: same answers, same tree.

use super::tests::{Mount, directory_for_all};
use super::*;
use crate::vfs::MemoryVfs;
use crate::vfs::twins::{self, ROOT_MODE, Stage};
use std::any::Any;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const QUICK: LocalOptions =
    LocalOptions { sync: false, read_only: false, fsid: None, show_mount_points: false };

/// A local directory and the model; `below` goes when they do.
fn stage(tree: Tree, options: LocalOptions, below: Vec<Box<dyn Any>>) -> Stage {
    std::fs::set_permissions(tree.root_path(), std::fs::Permissions::from_mode(u32::from(ROOT_MODE)))
        .unwrap();
    let protected = std::fs::read_to_string("/proc/sys/fs/protected_hardlinks").unwrap();
    let model = MemoryVfs::new((0, 0, ROOT_MODE), protected.trim() == "1");
    let subject = Box::new(LocalVfs::new(Arc::new(tree), options));
    Stage { subject, model: Box::new(model), _below: below, wire: false }
}

fn run(open: fn(&Path) -> Tree, options: LocalOptions, seeds: &[Option<u64>], count: usize) {
    for seed in seeds {
        let fresh = || {
            let dir = directory_for_all();
            stage(open(dir.path()), options, vec![Box::new(dir)])
        };
        twins::run(&fresh, *seed, count);
    }
}

#[test]
fn a_local_directory_behaves_as_the_model_by_handle() {
    run(|path| Tree::open(path).unwrap(), QUICK, &[Some(1), Some(2), None], 6000);
}

#[test]
fn a_local_directory_behaves_as_the_model_with_sync() {
    run(|path| Tree::open(path).unwrap(), LocalOptions::default(), &[None], 600);
}

#[test]
fn a_local_directory_behaves_as_the_model_by_name() {
    run(|path| Tree::open_without_handles(path).unwrap(), QUICK, &[Some(3), None], 4000);
}

#[test]
fn a_local_directory_behaves_as_the_model_without_kernel_handles() {
    run(|path| Tree::open_with_inode_keys(path).unwrap(), QUICK, &[Some(4), None], 4000);
}

/// tmpfs has handles of another shape and cookies of its own.
#[test]
fn a_tmpfs_behaves_as_the_model() {
    let fresh = || {
        let dir = directory_for_all();
        let mount = Mount::new("tmpfs", dir.path(), "size=64m");
        stage(Tree::open(dir.path()).unwrap(), QUICK, vec![Box::new(mount), Box::new(dir)])
    };
    twins::run(&fresh, None, 4000);
}

/// overlayfs has no handles, and its files may have device numbers of their own.
#[test]
fn an_overlayfs_behaves_as_the_model() {
    let fresh = || {
        let dir = directory_for_all();
        let below = Mount::new("tmpfs", dir.path(), "size=64m");
        for name in ["lower", "upper", "work", "merged"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let options =
            ["lower", "upper", "work"].map(|name| format!("{name}dir={}", dir.path().join(name).display()));
        let merged = dir.path().join("merged");
        let mount = Mount::new("overlay", &merged, &options.join(","));
        let tree = Tree::open(&merged).unwrap();
        assert!(!tree.opens_by_handle());
        stage(tree, QUICK, vec![Box::new(mount), Box::new(below), Box::new(dir)])
    };
    twins::run(&fresh, None, 3000);
}
