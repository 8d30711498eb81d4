//! What is served for what a file says, without a server.

use super::*;
use crate::host::Tree;
use crate::settings::Cluster;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use tempfile::TempDir;

struct World {
    dir: TempDir,
    shares: Shares,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        for name in ["share/web/deep", "other/inner", "third"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let mut cluster = Cluster::local(dir.path(), IpAddr::V4(Ipv4Addr::LOCALHOST));
        let mut nfs1 = cluster.nfs1.take().unwrap();
        nfs1.exports = Some(dir.path().join("exports"));
        let tree = Arc::new(Tree::open(&nfs1.export.path).unwrap());
        let share = LocalVfs::new(tree, LocalOptions::default());
        World { shares: Shares::new(&nfs1, share, DirtySet::new(), Durability::Local), dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// `@` stands for the world's directory.
    fn write(&self, text: &str) {
        fs::write(self.path("exports"), text.replace('@', &self.path(""))).unwrap();
    }

    fn table(&self, text: &str) -> nfs::Table {
        self.write(text);
        self.shares.first().unwrap()
    }
}

fn id(table: &nfs::Table, name: &str) -> u32 {
    let found = table.exports().iter().find(|export| export.display_name().ends_with(name));
    found.unwrap_or_else(|| panic!("{name} is not exported")).id
}

#[test]
fn numbers_are_the_same_after_every_start() {
    let text = "@share *\n@share/web *\n@other *\n";
    let (world, again) = (World::new(), World::new());
    let table = world.table(text);
    assert_eq!(id(&table, "/share"), WHOLE_SHARE, "as without an exports file");
    assert_eq!(id(&world.shares.whole_share().unwrap(), "/share"), WHOLE_SHARE);
    let numbers = |table: &nfs::Table| [id(table, "/share/web"), id(table, "/other")];
    let first = numbers(&table);
    assert_ne!(first[0], first[1]);
    assert_eq!(numbers(&world.table("@third *\n@other *(rw)\n@share/web *(rw)\n")), first, "in any company");
    assert_ne!(numbers(&again.table(text)), first, "other paths, other numbers");

    // With fsid= it is the fsid that counts, wherever the directory is.
    let before = id(&world.table("@other *(fsid=5)\n"), "/other");
    assert_ne!(before, first[1]);
    fs::rename(world.path("other"), world.path("moved")).unwrap();
    let table = world.table("@moved *(fsid=5)\n");
    assert_eq!(id(&table, "/moved"), before);
    let export = &table.exports()[0];
    let caller = crate::vfs::Caller { uid: 0, gid: 0, groups: Default::default() };
    assert_eq!(export.vfs.getattr(&caller, &export.root).unwrap().fsid, 5);
}

#[test]
fn what_is_in_the_share_is_backed_up_and_what_is_not_is_said() {
    let world = World::new();
    world.table("@share/web *\n@other/inner *\n@other *\n@missing *\n@exports *\n@third *(subtree_check)\n");
    let mut told = Vec::new();
    world.shares.describe(&mut told);
    let backed_up: Vec<(bool, String)> =
        told.into_iter().map(|export| (export.backed_up, export.name)).collect();
    assert_eq!(
        backed_up,
        [(false, world.path("other")), (false, world.path("other/inner")), (true, world.path("share/web"))]
    );
    let faults = world.shares.faults().join("\n");
    let fault = |name: &str, why: &str| {
        assert!(faults.contains(&format!("{} is not exported: {why}", world.path(name))), "{faults}");
    };
    fault("missing", "No such file or directory");
    fault("exports", "Not a directory");
    fault("third", "subtree_check is honoured for the root of a file system only");
    // One directory of another is held by what holds that: an object has one lock, whoever comes which way.
    assert_eq!(world.shares.others.lock().len(), 1);
}

#[test]
fn a_reload_tells_what_it_changed_and_an_error_changes_nothing() {
    let world = World::new();
    let exports = nfs::Exports::new(world.table("@share web1\n@other web1\n"));
    world.write("@share web1(rw)\n@third web1\n@missing web1\n");
    let told = world.shares.reload(&exports).unwrap();
    let expected = Reloaded {
        added: vec![world.path("third")],
        changed: vec![world.path("share")],
        removed: vec![world.path("other")],
        not_served: told.not_served.clone(),
        ..Reloaded::default()
    };
    assert_eq!(told, expected);
    assert_eq!(told.not_served.len(), 1);
    let again = world.shares.reload(&exports).unwrap();
    assert_eq!((again.unchanged, again.changed.len()), (2, 0));

    world.write("@share web1(rw)\n@share/web web1(rw\n");
    let before = exports.snapshot();
    let error = world.shares.reload(&exports).unwrap_err();
    assert!(error.contains("exports:2:") && error.ends_with("the exports stay as they were"), "{error}");
    assert!(Arc::ptr_eq(&before, &exports.snapshot()));

    // A directory that appears is served when the mounts are looked at again.
    fs::create_dir(world.path("missing")).unwrap();
    world.shares.look_again(&exports);
    assert_eq!(exports.snapshot().exports().len(), 3);
}

#[test]
fn without_a_file_there_is_nothing_to_reload() {
    let mut world = World::new();
    world.shares.settings.exports = None;
    let table = world.shares.first().unwrap();
    assert_eq!(table.exports()[0].name, b"/share");
    let error = world.shares.reload(&nfs::Exports::new(table)).unwrap_err();
    assert!(error.contains("--exports FILE"), "{error}");
    assert!(Path::new(&world.path("share")).exists());
}
