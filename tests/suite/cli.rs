//! The command line: help, exit status, what a person reads when something is wrong, start and end of daemons.

use crate::executable::{EXECUTABLE, get, run, status, text, up, wait_healthy};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/cluster.toml");

#[test]
fn help_and_versions() {
    let help = run(&["--help"]);
    assert_eq!(status(&help), 0);
    for command in ["up", "nfs1", "backup", "verify", "status", "pair", "check", "ctl", "demo-web"] {
        assert!(
            text(&help.stdout).contains(&format!("\n  {command} ")),
            "{command} in {}",
            text(&help.stdout)
        );
        assert_eq!(status(&run(&[command, "--help"])), 0, "{command} --help");
    }
    assert_eq!(text(&run(&["--version"]).stdout), format!("ehpc-store {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(status(&run(&[])), 2);
    assert_eq!(status(&run(&["dance"])), 2);
    assert_eq!(status(&run(&["up", "--no-such-option"])), 2);
}

#[test]
fn check_reads_the_proxys_own_file_too() {
    let scratch = tempfile::tempdir().expect("a directory");
    let (file, proxy) = (scratch.path().join("cluster.toml"), scratch.path().join("haproxy.cfg"));
    let text = format!(
        "[hosts.ha1]\naddress = \"127.0.0.1\"\n[proxy.ha1]\nconfig = \"{}\"\nstate = \"{}\"\n",
        proxy.display(),
        scratch.path().join("state").display()
    );
    std::fs::write(&file, text).expect("written");
    std::fs::write(&proxy, "listen a\n    mode http\n    bnid :1\n").expect("written");
    let check = || run(&["check", "--cluster", file.to_str().expect("text"), "--host", "ha1"]);
    let found = check();
    assert_eq!(status(&found), 1, "{}", text_of(&found));
    assert!(text_of(&found).contains("haproxy.cfg:3:5"), "{}", text_of(&found));
    assert!(text_of(&found).contains("`bind`"), "{}", text_of(&found));
    let right = "listen a\n    mode http\n    bind 127.0.0.1:8099\n    timeout client 1s\n    timeout server 1s\n    timeout connect 1s\n";
    std::fs::write(&proxy, right).expect("written");
    let found = check();
    assert_eq!(status(&found), 0, "{}", text_of(&found));
    assert!(text_of(&found).contains("host ha1 can run proxy"), "{}", text_of(&found));
}

fn text_of(output: &std::process::Output) -> String {
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

#[test]
fn check_tells_every_problem_and_its_place() {
    let right = run(&["check", "--cluster", SAMPLE, "--host", "web1"]);
    assert_eq!(
        (status(&right), text(&right.stdout).as_str()),
        (0, "no problem: the file is right; host web1 has no role in it\n")
    );

    let scratch = tempfile::tempdir().expect("a directory");
    let busy = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = busy.local_addr().expect("an address").port();
    let file = scratch.path().join("c.toml");
    std::fs::write(
        &file,
        format!(
            "[hosts.one]\naddress = \"127.0.0.1\"\n[nfs1]\nhost = \"one\"\nstate = \"{state}\"\nlisten = \"127.0.0.1:{port}\"\n\
             export.path = \"{missing}\"\n[backup]\nhost = \"two\"\ndirectory = \"/b\"\n\
             [hosts.two]\naddress = \"127.0.0.2\"\n",
            state = scratch.path().join("state").display(),
            missing = scratch.path().join("missing").display(),
        ),
    )
    .expect("written");
    let file = file.to_str().expect("text");
    let wrong = run(&["check", "--cluster", file, "--host", "one"]);
    assert_eq!(status(&wrong), 1);
    let told = text(&wrong.stdout);
    let pid = std::process::id();
    assert!(
        told.contains(&format!("{file}:6:10: cannot listen on 127.0.0.1:{port}: in use by pid {pid} (")),
        "{told}"
    );
    assert!(
        told.contains(&format!("{file}:7:15: ")) && told.contains("missing: no such directory"),
        "{told}"
    );
    assert!(told.ends_with("problems; nothing was started\n"), "{told}");
    assert!(!scratch.path().join("state").exists(), "check creates nothing");

    // The daemon says the same, and starts nothing.
    let refused = run(&["nfs1", "--cluster", file, "--host", "one"]);
    assert_eq!(status(&refused), 2);
    assert!(text(&refused.stderr).contains(&format!("in use by pid {pid} (")), "{}", text(&refused.stderr));
    assert!(!scratch.path().join("state").exists());

    assert_eq!(status(&run(&["check", "--cluster", "/nonexistent.toml"])), 2);
    assert_eq!(status(&run(&["check", "--cluster", file, "--host", "three"])), 2);
    assert_eq!(
        status(&run(&["check", "--cluster", SAMPLE])),
        0,
        "another machine's name is no problem of the file"
    );
}

#[test]
fn without_a_node_the_commands_say_how_to_start_one() {
    let scratch = tempfile::tempdir().expect("a directory");
    let data = scratch.path().to_str().expect("text");
    for command in [&["status"][..], &["verify"], &["ctl", "fence"], &["ctl", "rescan"]] {
        let output = run(&[command, &["--data", data]].concat());
        assert_eq!(status(&output), 2, "{command:?}");
        let told = text(&output.stderr);
        assert!(told.contains("no ehpc-store runs with its state in "), "{told}");
        assert!(told.contains(&format!("start it with `ehpc-store up --data {data}`")), "{told}");
    }
}

#[test]
fn wrong_options_of_daemons_are_told() {
    let scratch = tempfile::tempdir().expect("a directory");
    let share = scratch.path().join("share");
    std::fs::create_dir(&share).expect("created");
    let (share, inside) = (share.to_str().expect("text"), share.join("state"));
    for (arguments, expected) in [
        (&["nfs1"][..], "--export DIR is needed"),
        (&["nfs1", "--export", share], "--state DIR is needed"),
        (&["nfs1", "--export", share, "--state", "/x"], "--backup ADDR:PORT is needed"),
        (&["backup"], "--dir DIR is needed"),
        (
            &[
                "nfs1",
                "--export",
                share,
                "--state",
                inside.to_str().expect("text"),
                "--dashboard",
                "127.0.0.1:0",
                "--backup",
                "b:1",
            ],
            "option --state: `nfs1.state` is inside `nfs1.export.path`",
        ),
        (
            &["nfs1", "--export", share, "--state", "/x", "--backup", "b:1", "--export-name", "share"],
            "`share` does not start with /",
        ),
        (&["nfs1", "--cluster", SAMPLE, "--host", "backup"], "nfs1 runs on nfs1 in the cluster file"),
        (&["backup", "--cluster", SAMPLE, "--host", "nfs1"], "backup runs on backup in the cluster file"),
        (&["up", "--cluster", SAMPLE, "--host", "web1"], "no role in the cluster file"),
        (&["nfs1", "--durability", "both"], "`both` is none of local, remote"),
        (&["nfs1", "--scan-interval", "6"], "`6` is not a duration"),
    ] {
        let output = run(arguments);
        assert_eq!(status(&output), 2, "{arguments:?}");
        assert!(text(&output.stderr).contains(expected), "{expected} in {}", text(&output.stderr));
    }
}

#[test]
fn a_node_starts_answers_and_ends() {
    let scratch = tempfile::tempdir().expect("a directory");
    let data = scratch.path().join("data");
    let node = up(&data);
    let data = data.to_str().expect("text");
    assert!(
        node.address("nfs").starts_with("127.0.0.1:")
            && node.address("replication").starts_with("127.0.0.1:")
    );
    let advice: Vec<String> =
        (0..5).map(|_| node.lines.recv_timeout(Duration::from_secs(5)).expect("advice")).collect();
    assert!(advice.iter().any(|line| line.contains("mount -t nfs -o vers=3,tcp,nolock,port=")), "{advice:?}");
    assert!(
        advice.iter().any(|line| line.contains(&format!("ehpc-store status --data {data}"))),
        "{advice:?}"
    );

    wait_healthy(data);
    let dashboard = node.address("dashboard");
    assert!(get(&dashboard, "/healthz").starts_with("HTTP/1.1 200 "), "{}", get(&dashboard, "/healthz"));
    assert!(get(&dashboard, "/metrics").contains("\nehpc_healthy 1\n"));
    assert!(get(&dashboard, "/?lang=zh").contains("正常"));
    let screen = run(&["status", "--data", data]);
    assert_eq!(status(&screen), 0);
    assert!(
        text(&screen.stdout).starts_with("node          nfs1 + backup healthy, up "),
        "{}",
        text(&screen.stdout)
    );
    let json = run(&["status", "--json", "--data", data]);
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).expect("one JSON object");
    assert_eq!(value["process"]["pid"], node.child.id());
    let by_state = run(&["status", "--json", "--state", &format!("{data}/backup")]);
    assert_eq!(status(&by_state), 0);

    // A second one on the same directory is told who is there.
    let second = run(&["up", "--any-ports", "--no-web", "--data", data]);
    assert_eq!(status(&second), 2);
    let told = text(&second.stderr);
    assert!(told.contains(&format!("is in use by pid {}", node.child.id())), "{told}");
    // What a node cannot do, it says.
    let foreign = run(&["ctl", "fence", "--state", &format!("{data}/nowhere")]);
    assert_eq!(status(&foreign), 2);

    assert_eq!(node.terminate(), 0);
    assert_eq!(status(&run(&["status", "--data", data])), 2);
    let again = up(Path::new(data));
    assert_eq!(again.terminate(), 0);
}

#[test]
fn logs_can_be_json() {
    let scratch = tempfile::tempdir().expect("a directory");
    let mut child = Command::new(EXECUTABLE)
        .args(["up", "--any-ports", "--no-web", "--log-format", "json", "--log-level", "info", "--data"])
        .arg(scratch.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs");
    let mut first = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut first).expect("a line");
    assert!(first.starts_with("ready "), "{first}");
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill runs").success());
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(0));
    let log = text(&output.stderr);
    assert!(!log.is_empty());
    for line in log.lines() {
        let value: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(value["level"].is_string() && value["message"].is_string(), "{line}");
    }
}
