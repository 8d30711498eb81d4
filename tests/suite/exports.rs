//! exports(5) as an operator meets it: a file that is checked, served and reloaded, and mounts that come and go.

use crate::executable::{Daemon, EXECUTABLE, run, status, text};
use ehpc_tools::nfs_client::{Client, Handle};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

struct Node {
    scratch: tempfile::TempDir,
    file: PathBuf,
}

impl Node {
    fn new(exports: &str) -> Node {
        let scratch = tempfile::tempdir().expect("a directory");
        for name in ["share/web", "other", "disk"] {
            fs::create_dir_all(scratch.path().join(name)).expect("made");
        }
        let node = Node { file: scratch.path().join("exports"), scratch };
        node.write(exports);
        node
    }

    fn path(&self, name: &str) -> String {
        self.scratch.path().join(name).to_str().expect("text").to_owned()
    }

    /// `@` stands for the scratch directory.
    fn write(&self, exports: &str) {
        fs::write(&self.file, exports.replace('@', &self.path(""))).expect("written");
    }

    fn arguments(&self) -> Vec<String> {
        let mut words: Vec<String> =
            ["nfs1", "--backup", "127.0.0.1:9", "--listen", "127.0.0.1:0", "--dashboard", "127.0.0.1:0"]
                .map(str::to_owned)
                .to_vec();
        for (option, name) in [("--export", "share"), ("--state", "state"), ("--exports", "exports")] {
            words.extend([option.to_owned(), self.path(name)]);
        }
        words
    }

    fn start(&self) -> Daemon {
        let arguments = self.arguments();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Daemon::start(&arguments)
    }

    fn nfs_status(&self) -> Value {
        let told = run(&["status", "--json", "--state", &self.path("state")]);
        serde_json::from_slice(&told.stdout).unwrap_or_else(|_| panic!("{}", text(&told.stderr)))
    }

    fn reload(&self) -> (i32, String) {
        let output = run(&["nfs1", "reload", "--state", &self.path("state")]);
        (status(&output), text(&output.stdout) + &text(&output.stderr))
    }
}

fn client(daemon: &Daemon) -> Client {
    Client::connect(daemon.address("nfs")).expect("connects")
}

fn nfs_error<T>(result: Result<T, ehpc_tools::nfs_client::Error>) -> Option<u32> {
    result.err().map(|error| error.status().unwrap_or_else(|| panic!("{error}")))
}

fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < until, "not within a minute: {what}");
    }
}

const STALE: Option<u32> = Some(70);
const ACCES: Option<u32> = Some(13);

#[test]
fn the_file_is_served_and_reloaded_while_clients_work() {
    let node = Node::new("@share 127.0.0.1(rw,insecure,no_root_squash)\n@other *(ro,insecure)\n");
    let daemon = node.start();
    let mut client = client(&daemon);
    let share = client.mount(&node.path("share")).expect("exported");
    let other = client.mount(&node.path("other")).expect("exported");
    let file = client.create(&share, b"f").expect("writable");
    client.write(&file, 0, b"kept").expect("written");
    assert_eq!(nfs_error(client.create(&other, b"f")), Some(30), "read-only");
    let told = node.nfs_status();
    let exports = told["nfs"]["exports"].as_array().expect("a list");
    assert_eq!(exports.len(), 2, "{told:#}");
    assert_eq!(
        (&exports[0]["backed_up"], &exports[1]["backed_up"]),
        (&false.into(), &true.into()),
        "{told:#}"
    );
    assert_eq!(exports[0]["clients"][0], "*(ro,sync,insecure,root_squash)");

    // Wrong: said with its place, and nothing changes.
    node.write("@share 127.0.0.1(rw,insecure)\n@other *(rw,insecure,sec=krb5)\n");
    let (code, said) = node.reload();
    assert_eq!(code, 2, "{said}");
    assert!(said.contains(":2:") && said.contains("there is no Kerberos here"), "{said}");
    assert!(said.contains("the exports stay as they were"), "{said}");
    assert_eq!(client.read_all(&file).expect("as before"), b"kept");

    // Changed, removed, added: a directory in the share, with a handle of its own.
    node.write("@share 127.0.0.9(rw)\n@share/web 127.0.0.1(rw,insecure)\n");
    let (code, said) = node.reload();
    assert_eq!(code, 0, "{said}");
    let place = |what: &str, name: &str| said.contains(&format!("{what:<10}{}", node.path(name)));
    assert!(place("added", "share/web") && place("changed", "share") && place("removed", "other"), "{said}");
    assert_eq!(nfs_error(client.getattr(&file)), ACCES);
    assert_eq!(nfs_error(client.getattr(&other)), STALE);
    let web = client.mount(&node.path("share/web")).expect("exported now");
    assert_eq!(nfs_error(client.create(&web, b"x")), ACCES, "root is squashed");

    // SIGHUP does the same.
    node.write("@share 127.0.0.1(rw,insecure,no_root_squash)\n");
    let pid = daemon.child.id().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().expect("kill runs").success());
    wait("the handle from before works again", || client.read_all(&file).is_ok_and(|data| data == b"kept"));
    assert_eq!(nfs_error(client.getattr(&web)), STALE);
    assert_eq!(node.reload().0, 0);
    assert_eq!(daemon.terminate(), 0);

    // Handles survive a restart, and the change to a file without this export would be stale.
    let daemon = node.start();
    assert_eq!(self::client(&daemon).read_all(&file).expect("the same handle"), b"kept");
}

#[test]
fn a_wrong_file_starts_nothing() {
    let node = Node::new("@share web1(rw)\nshare web1(rw,rootsquash)\n");
    let arguments = node.arguments();
    let output = Command::new(EXECUTABLE).args(&arguments).output().expect("runs");
    assert_eq!(status(&output), 2);
    let said = text(&output.stderr);
    assert!(said.contains("exports:2:1: `share` does not start at the root"), "{said}");
    assert!(said.contains("exports:2:15: unknown option `rootsquash`"), "{said}");
    assert!(said.contains("write `root_squash`"), "{said}");
    let cluster = node.path("cluster.toml");
    let (share, state, exports) = (node.path("share"), node.path("state"), node.path("exports"));
    let toml = format!(
        "[hosts.one]\naddress = \"127.0.0.1\"\n[nfs1]\nhost = \"one\"\nstate = \"{state}\"\nexports = \"{exports}\"\n\
         listen = \"127.0.0.1:20499\"\ndashboard = \"127.0.0.1:20498\"\nexport.path = \"{share}\"\n\
         [backup]\nhost = \"two\"\ndirectory = \"/b\"\n[hosts.two]\naddress = \"127.0.0.2\"\n"
    );
    fs::write(&cluster, toml).expect("written");
    let checked = run(&["check", "--cluster", &cluster, "--host", "one"]);
    assert_eq!(status(&checked), 1, "{}", text(&checked.stdout));
    assert!(text(&checked.stdout).contains("exports:2:15: unknown option"), "{}", text(&checked.stdout));
    node.write("@share web1 (rw)\n@none web1\n@exports web1\n@other web1(ro) web2(rw,subtree_check)\n");
    let checked = run(&["check", "--cluster", &cluster, "--host", "one"]);
    assert_eq!(status(&checked), 1, "{}", text(&checked.stdout));
    let said = text(&checked.stdout);
    let place = |line: u32, name: &str, what: &str| {
        format!("exports:{line}:1: {} is not exported: {what}", node.path(name))
    };
    assert!(said.contains(&place(2, "none", "No such file or directory")), "{said}");
    assert!(said.contains(&place(3, "exports", "is not a directory")), "{said}");
    assert!(said.contains("(rw) has no client before it: everybody gets these options"), "{said}");
    assert!(said.contains("subtree_check can be had for the root of a file system only"), "{said}");
}

/// Runs a command where the daemon lives.
fn inside(daemon: &Daemon, words: &[&str]) {
    let pid = daemon.child.id().to_string();
    let output =
        Command::new("nsenter").args(["-t", &pid, "-m", "--"]).args(words).output().expect("nsenter runs");
    assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
}

#[test]
fn mounts_are_entered_where_that_is_allowed_and_served_while_they_are_there() {
    let node = Node::new(
        "@share *(rw,insecure,no_root_squash,crossmnt)\n@other *(rw,insecure)\n@disk *(rw,insecure,mountpoint)\n",
    );
    fs::create_dir(node.path("share/mnt")).expect("made");
    fs::create_dir(node.path("other/mnt")).expect("made");
    // A namespace of its own: what is mounted here is nobody else's.
    let script = format!(
        "mount -t tmpfs a {} && mount -t tmpfs b {} && exec \"$@\"",
        node.path("share/mnt"),
        node.path("other/mnt")
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh", EXECUTABLE]);
    command.args(node.arguments());
    let daemon = Daemon::started_by(command);
    let mut client = client(&daemon);
    inside(&daemon, &["touch", &node.path("share/mnt/inside")]);

    // crossmnt: the way in is a look-up, and another file system with numbers of its own.
    let share = client.mount(&node.path("share")).expect("exported");
    let (mnt, _) = client.lookup(&share, b"mnt").expect("entered");
    client.lookup(&mnt, b"inside").expect("what is mounted there");
    let fsid = |client: &mut Client, handle: &Handle| client.getattr(handle).expect("there").fsid;
    assert_ne!(fsid(&mut client, &share), fsid(&mut client, &mnt));
    let names = |client: &mut Client, dir: &Handle| -> Vec<Vec<u8>> {
        client.list(dir).expect("listed").into_iter().map(|entry| entry.name).collect()
    };
    assert!(names(&mut client, &share).contains(&b"mnt".to_vec()));
    client.create(&mnt, b"made").expect("writable");

    // Without: hidden, and not to be entered.
    let other = client.mount(&node.path("other")).expect("exported");
    assert_eq!(nfs_error(client.lookup(&other, b"mnt")), ACCES);
    assert!(!names(&mut client, &other).contains(&b"mnt".to_vec()));

    // mountpoint: not the empty directory that is there while the disk is not.
    assert!(client.mount(&node.path("disk")).is_err());
    let told = node.nfs_status();
    let attention = told["attention"].to_string();
    assert!(attention.contains("disk is not exported: it is not a mount point now"), "{told:#}");
    inside(&daemon, &["mount", "-t", "tmpfs", "c", &node.path("disk")]);
    wait("the disk is served when it is mounted", || client.mount(&node.path("disk")).is_ok());
    assert!(!node.nfs_status()["attention"].to_string().contains("disk is not exported"));
    let exports = node.nfs_status()["nfs"]["exports"].as_array().expect("a list").clone();
    let backed_up: Vec<&str> = exports
        .iter()
        .filter(|export| export["backed_up"] == true)
        .filter_map(|export| export["name"].as_str())
        .collect();
    assert_eq!(backed_up, [Path::new(&node.path("share")).to_str().expect("text")]);
    assert_eq!(daemon.terminate(), 0);
}
