//! What a person reads when the file or the machine is wrong, word for word.

use super::cluster::*;
use super::environment::{self, Roles};
use super::units::{HostPort, Seconds};
use crate::settings::Database;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::Duration;

const SAMPLE: &str = include_str!("../../config/cluster.toml");

fn sample_with(from: &str, to: &str) -> String {
    assert!(SAMPLE.contains(from), "{from}");
    SAMPLE.replacen(from, to, 1)
}

fn problems(text: &str) -> String {
    Cluster::parse(Path::new("c.toml"), text).expect_err("there are problems").to_string()
}

#[test]
fn the_sample_loads_unmodified_as_the_guide_says() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/cluster.toml");
    let cluster = Cluster::load(&file).unwrap_or_else(|problems| panic!("{problems}"));
    let hosts: Vec<String> =
        cluster.hosts.iter().map(|host| format!("{} {}", host.name, host.address)).collect();
    assert_eq!(
        hosts,
        [
            "backup 10.182.15.53",
            "ha1 10.182.15.46",
            "nfs1 10.182.15.50",
            "web1 10.182.15.51",
            "web2 10.182.15.52"
        ]
    );
    let nfs1 = cluster.nfs1.as_ref().expect("nfs1");
    assert_eq!(nfs1.export.path, Path::new("/home/share"));
    assert_eq!(nfs1.export.name, "/home/share");
    assert_eq!(nfs1.export.durability, Durability::Local);
    assert!(nfs1.export.sync);
    assert_eq!(nfs1.backup, Some(HostPort { host: "10.182.15.53".to_owned(), port: 12090 }));
    assert_eq!(nfs1.portmap, PortmapMode::Auto);
    assert_eq!(nfs1.grace, Seconds(Duration::from_secs(45)));
    assert_eq!(nfs1.scan_interval, Seconds(Duration::from_secs(6 * 3600)));
    let backup = cluster.backup.as_ref().expect("backup");
    assert!(backup.mirror);
    assert_eq!(cluster.host_named("10.182.15.51".parse().expect("address")), Some("web1"));
    assert_eq!(cluster.host_named("::ffff:10.182.15.51".parse().expect("address")), Some("web1"));
    assert_eq!(cluster.host_named("10.182.15.99".parse().expect("address")), None);
}

/// The sample with its section [database] in force.
fn sample_with_database() -> String {
    let (before, rest) = SAMPLE.split_once("# [database]\n").expect("a section");
    let (section, after) = rest.split_once("\n\n").expect("its end");
    let lines: Vec<&str> = section.lines().map(|line| line.strip_prefix("# ").expect("a remark")).collect();
    // What is a remark within it is an alternative: in force too.
    let lines: Vec<&str> = lines.iter().map(|line| line.strip_prefix("# ").unwrap_or(line)).collect();
    format!("{before}[database]\n{}\n\n{after}", lines.join("\n"))
}

#[test]
fn the_database_of_the_sample_is_right_and_says_the_defaults() {
    let text = sample_with_database();
    let cluster = Cluster::parse(Path::new("c.toml"), &text).unwrap_or_else(|problems| panic!("{problems}"));
    let written = cluster.database.expect("it is there");
    let plain = Database::at(written.address.clone(), Path::new("/var/lib/ehpc-store/backup"));
    let standby = written.standby.clone().expect("it is there");
    assert_eq!(standby.datadir, plain.directory.join("standby"));
    let said = Database { standby: None, tls: None, tls_ca: None, tls_name: None, base_at: None, ..written };
    let said = Database { password_file: None, tools: None, ..said };
    assert_eq!(said, plain);
}

#[test]
fn every_problem_of_a_file_is_told_at_once_with_its_place() {
    let text = r#"
[hosts.nfs1]
address = "10.182.15.50"
[hosts.backup]
adress = "10.182.15.53"
address = "10.182.15"

[nfs1]
host = "nsf1"
state = 7
listen = "0.0.0.0"
dashbord = "0.0.0.0:8900"
watcher = "inotify"
scan_interval = "1s"
connections = 70_000
in_flight = "many"
memory = "1 MiB"
slow_request = "2h"

[nfs1.export]
path = "home/share"
durability = "remte"
sync = "yes"

[backup]
host = "backup"
listen = "0.0.0.0:12090"
mirror = 1

[databse]
"#;
    assert_eq!(
        problems(text),
        r#"c.toml:5:1: unknown key `adress` in [hosts.backup]
    expected: one of address
    next: write `address`
c.toml:6:11: `10.182.15` is not an IP address
    expected: an IP address in quotes, such as "10.182.15.50"
c.toml:9:8: there is no host `nsf1`
    expected: one of backup, nfs1
    next: write "nfs1"
c.toml:10:9: `state` is an integer
    expected: an absolute path in quotes, such as "/home/share"
c.toml:11:10: `0.0.0.0` is not an IP address with a port
    expected: an IP address of this host (0.0.0.0 for all) and a port in quotes, such as "0.0.0.0:2049"
c.toml:12:1: unknown key `dashbord` in [nfs1]
    expected: one of host, state, listen, dashboard, watcher, scan_interval, connections, in_flight, memory, slow_request, export, exports, manage_gids, portmap, grace
    next: write `dashboard`
c.toml:13:11: unknown word `inotify`, did you mean `notify`?
    expected: one of "auto", "fanotify", "notify"
c.toml:14:17: a scan every 1s
    expected: from "10s" to "30d"
c.toml:15:15: connections of 70000
    expected: from 1 to 65536
c.toml:16:13: `in_flight` is a string
    expected: a whole number, without quotes
c.toml:17:10: memory of 1 MiB
    expected: from "16 MiB" to "64 GiB"
c.toml:18:16: slow_request of 2h
    expected: from "1ms" to "1h", or "0s" for none
c.toml:21:8: `home/share` does not start at the root
    expected: an absolute path in quotes, such as "/home/share"
c.toml:22:14: unknown word `remte`, did you mean `remote`?
    expected: one of "local", "remote"
c.toml:23:8: `sync` is a string
    expected: true or false, without quotes
c.toml:25:2: [backup] has no `directory`
    expected: an absolute path in quotes, such as "/home/share"
    next: add `directory = ...`
c.toml:28:10: `mirror` is an integer
    expected: true or false, without quotes
c.toml:30:2: unknown key `databse` at the top
    expected: one of hosts, nfs1, backup, database, proxy, web, log
    next: write `database`
18 problems; nothing was started"#
    );
}

#[test]
fn what_is_not_toml_is_placed() {
    let text = problems("[nfs1]\nhost = \nstate = x\n[backup\nhost = \"b\"\n");
    for place in ["c.toml:2:8: not TOML: ", "c.toml:3:9: not TOML: ", "c.toml:4:8: not TOML: "] {
        assert!(text.contains(place), "{place} in: {text}");
    }
    assert!(text.ends_with("3 problems; nothing was started"), "consequences are not told: {text}");
    let lonely = problems("[backup]\nhost = \"b\"\ndirectory = \"/b\"\n");
    assert!(
        lonely.contains("there is no host `b`\n    expected: a host that has a section [hosts.NAME]"),
        "{lonely}"
    );
    assert!(problems("").contains("no host has a role"));
    let columns = problems("[hosts.\"é\"]\naddress = \"ü\" # x\n");
    assert!(columns.contains("c.toml:2:11: `ü` is not an IP address"), "{columns}");
}

#[test]
fn contradictions_are_found() {
    let same_host = sample_with("host = \"backup\"", "host = \"nfs1\"");
    assert!(
        problems(&same_host).contains(
            "`backup.dashboard` uses port 8900 of host nfs1, as does `nfs1.dashboard`\n    expected: a port"
        ),
        "{}",
        problems(&same_host)
    );
    let inside = sample_with("state = \"/var/lib/ehpc-store/nfs1\"", "state = \"/home/share/.state\"");
    assert!(
        problems(&inside).contains("c.toml:25:9: `nfs1.state` is inside `nfs1.export.path` (/home/share)")
    );
    let twice = sample_with("10.182.15.52", "10.182.15.51");
    assert!(problems(&twice).contains("hosts web1 and web2 have the same address 10.182.15.51"));
    for name in ["share", "/a/../b", "/a\\u0007"] {
        let bad = sample_with("name = \"/home/share\"", &format!("name = \"{name}\""));
        assert!(problems(&bad).contains("the path that clients mount"), "{name}");
    }
    let port = sample_with("0.0.0.0:2049", "0.0.0.0:0");
    assert!(problems(&port).contains("`0.0.0.0:0` has port 0"));
    let no_backup = SAMPLE.split("# The node that keeps the history").next().expect("a first part");
    assert!(problems(no_backup).contains("[nfs1] has no backup"), "{}", problems(no_backup));
    let tiny = sample_with("\"256 MiB\"", "\"64 KiB\"");
    assert!(
        problems(&tiny).contains("packs of 64 KiB\n    expected: from \"8 MiB\" to \"4 GiB\""),
        "{}",
        problems(&tiny)
    );
    let no_export = SAMPLE.replace("[nfs1.export]", "[other]");
    assert!(problems(&no_export).contains("[nfs1] has no section [nfs1.export]"));
}

#[test]
fn a_missing_file_says_what_to_do() {
    let error = Cluster::load(Path::new("/nonexistent/c.toml")).expect_err("no such file").to_string();
    assert!(error.starts_with("/nonexistent/c.toml: cannot be read: No such file"), "{error}");
    assert!(error.contains("--cluster FILE"));
}

#[test]
fn the_machine_is_checked_and_a_port_in_use_names_its_holder() {
    let scratch = tempfile::tempdir().expect("a directory");
    let busy = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = busy.local_addr().expect("an address").port();
    let file = scratch.path().join("file");
    std::fs::write(&file, b"x").expect("written");
    let text = format!(
        r#"
[hosts.one]
address = "127.0.0.1"
[nfs1]
host = "one"
state = "{file}/state"
listen = "127.0.0.1:{port}"
dashboard = "203.0.113.7:{port}"
export = {{ path = "{missing}" }}
[backup]
host = "one"
directory = "{backup}"
listen = "127.0.0.1:1"
dashboard = "127.0.0.1:2"
"#,
        file = file.display(),
        missing = scratch.path().join("missing").display(),
        backup = scratch.path().join("backup").display(),
    );
    let cluster = Cluster::parse(Path::new("c.toml"), &text).unwrap_or_else(|problems| panic!("{problems}"));
    let roles = Roles { nfs1: true, ..Roles::default() };
    let text = environment::check(&cluster, roles, &[]).expect_err("four problems").to_string();
    let pid = std::process::id();
    assert!(
        text.contains("file is not a directory\n    expected: a directory that this user can write"),
        "{text}"
    );
    assert!(
        text.contains(&format!("c.toml:7:10: cannot listen on 127.0.0.1:{port}: in use by pid {pid} (")),
        "{text}"
    );
    assert!(text.contains(&format!("next: stop pid {pid} or choose another port")), "{text}");
    assert!(text.contains("c.toml:8:13: cannot listen on 203.0.113.7"), "{text}");
    assert!(text.contains("203.0.113.7 is not an address of this machine"), "{text}");
    assert!(text.contains("missing: no such directory"), "{text}");
    assert!(text.ends_with("4 problems; nothing was started"), "{text}");
    let own = environment::check(&cluster, roles, &[pid]).expect_err("three problems").to_string();
    assert!(!own.contains("in use"), "{own}");
    assert!(environment::check(&cluster, Roles::default(), &[]).is_ok());
}

#[test]
fn the_defaults_of_up_are_those_of_the_documents() {
    let cluster = Cluster::local(Path::new("ehpc-data"), IpAddr::V4(Ipv4Addr::LOCALHOST));
    let nfs1 = cluster.nfs1.as_ref().expect("nfs1");
    let backup = cluster.backup.as_ref().expect("backup");
    assert_eq!(nfs1.listen.to_string(), "127.0.0.1:12049");
    assert_eq!(nfs1.dashboard.map(|a| a.to_string()).as_deref(), Some("127.0.0.1:8900"));
    assert_eq!(
        (nfs1.export.name.as_str(), nfs1.export.path.as_path()),
        ("/share", Path::new("ehpc-data/share"))
    );
    assert_eq!(backup.listen.to_string(), "127.0.0.1:12090");
    assert_eq!(backup.directory, Path::new("ehpc-data/backup"));
    assert_eq!(nfs1.backup.as_ref().map(ToString::to_string).as_deref(), Some("127.0.0.1:12090"));
    assert_eq!(cluster.site("nfs1.listen").to_string(), "default of nfs1.listen");
}
