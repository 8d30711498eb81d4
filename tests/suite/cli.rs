//! The command line: help, exit status, what a person reads when something is wrong, start and end of daemons.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_ehpc-store");
const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/cluster.toml");

fn run(arguments: &[&str]) -> Output {
    Command::new(EXECUTABLE).args(arguments).stdin(Stdio::null()).output().expect("the executable runs")
}

fn status(output: &Output) -> i32 {
    output.status.code().expect("ended by itself")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A daemon that is killed when the test ends.
struct Daemon {
    child: Child,
    lines: mpsc::Receiver<String>,
    ready: String,
}

impl Daemon {
    fn start(arguments: &[&str]) -> Daemon {
        let mut child = Command::new(EXECUTABLE)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the executable runs");
        let (send, lines) = mpsc::channel();
        let stdout = child.stdout.take().expect("piped");
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| send.send(line))
        });
        let mut daemon = Daemon { child, lines, ready: String::new() };
        match daemon.lines.recv_timeout(Duration::from_secs(60)) {
            Ok(line) if line.starts_with("ready ") => daemon.ready = line,
            other => {
                let _ = daemon.child.kill();
                let mut log = String::new();
                let _ = daemon.child.stderr.take().expect("piped").read_to_string(&mut log);
                panic!("{other:?} instead of ready:\n{log}");
            }
        }
        // Keep draining, so that the daemon never waits for its log's reader.
        let mut stderr = daemon.child.stderr.take().expect("piped");
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        daemon
    }

    fn address(&self, key: &str) -> String {
        let found = self.ready.split_whitespace().filter_map(|word| word.split_once('=')).find(|(name, _)| *name == key);
        found.unwrap_or_else(|| panic!("no {key}= in {}", self.ready)).1.to_owned()
    }

    fn terminate(mut self) -> i32 {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
        let until = Instant::now() + Duration::from_secs(30);
        let (_keep, never) = mpsc::channel::<()>();
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().expect("waits") {
                return status.code().unwrap_or(-1);
            }
            let _ = never.recv_timeout(Duration::from_millis(5));
        }
        panic!("no end within 30 s of SIGTERM");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    answer
}

fn up(data: &Path) -> Daemon {
    Daemon::start(&["up", "--any-ports", "--data", data.to_str().expect("text")])
}

#[test]
fn help_and_versions() {
    let help = run(&["--help"]);
    assert_eq!(status(&help), 0);
    for command in ["up", "nfs1", "backup", "verify", "status", "pair", "check", "ctl"] {
        assert!(text(&help.stdout).contains(&format!("\n  {command} ")), "{command} in {}", text(&help.stdout));
        assert_eq!(status(&run(&[command, "--help"])), 0, "{command} --help");
    }
    assert_eq!(text(&run(&["--version"]).stdout), format!("ehpc-store {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(status(&run(&[])), 2);
    assert_eq!(status(&run(&["dance"])), 2);
    assert_eq!(status(&run(&["up", "--no-such-option"])), 2);
}

#[test]
fn check_tells_every_problem_and_its_place() {
    let right = run(&["check", "--cluster", SAMPLE, "--host", "web1"]);
    assert_eq!((status(&right), text(&right.stdout).as_str()), (0, "no problem: the file is right; host web1 has no role in it\n"));

    let scratch = tempfile::tempdir().expect("a directory");
    let busy = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = busy.local_addr().expect("an address").port();
    let file = scratch.path().join("c.toml");
    std::fs::write(
        &file,
        format!(
            "[hosts.one]\naddress = \"127.0.0.1\"\n[nfs1]\nhost = \"one\"\nstate = \"{state}\"\nlisten = \"127.0.0.1:{port}\"\n\
             export.path = \"{missing}\"\n",
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
    assert!(told.contains(&format!("{file}:6:10: cannot listen on 127.0.0.1:{port}: in use by pid {pid} (")), "{told}");
    assert!(told.contains(&format!("{file}:7:15: ")) && told.contains("missing: no such directory"), "{told}");
    assert!(told.ends_with("problems; nothing was started\n"), "{told}");
    assert!(!scratch.path().join("state").exists(), "check creates nothing");

    // The daemon says the same, and starts nothing.
    let refused = run(&["nfs1", "--cluster", file, "--host", "one"]);
    assert_eq!(status(&refused), 2);
    assert!(text(&refused.stderr).contains(&format!("in use by pid {pid} (")), "{}", text(&refused.stderr));
    assert!(!scratch.path().join("state").exists());

    assert_eq!(status(&run(&["check", "--cluster", "/nonexistent.toml"])), 2);
    assert_eq!(status(&run(&["check", "--cluster", file, "--host", "two"])), 2);
    assert_eq!(status(&run(&["check", "--cluster", SAMPLE])), 0, "another machine's name is no problem of the file");
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
        (&["backup"], "--dir DIR is needed"),
        (
            &["nfs1", "--export", share, "--state", inside.to_str().expect("text"), "--dashboard", "127.0.0.1:0"],
            "option --state: `nfs1.state` is inside `nfs1.export.path`",
        ),
        (&["nfs1", "--export", share, "--state", "/x", "--export-name", "share"], "`share` does not start with /"),
        (&["nfs1", "--cluster", SAMPLE, "--host", "backup"], "nfs1 runs on nfs1 in the cluster file"),
        (&["backup", "--cluster", SAMPLE, "--host", "nfs1"], "backup runs on backup in the cluster file"),
        (&["up", "--cluster", SAMPLE, "--host", "ha1"], "neither nfs1 nor backup"),
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
    assert!(node.address("nfs").starts_with("127.0.0.1:") && node.address("replication").starts_with("127.0.0.1:"));
    let advice: Vec<String> = (0..5).map(|_| node.lines.recv_timeout(Duration::from_secs(5)).expect("advice")).collect();
    assert!(advice.iter().any(|line| line.contains("mount -t nfs -o vers=3,tcp,nolock,port=")), "{advice:?}");
    assert!(advice.iter().any(|line| line.contains(&format!("ehpc-store status --data {data}"))), "{advice:?}");

    wait_healthy(data);
    let dashboard = node.address("dashboard");
    assert!(get(&dashboard, "/healthz").starts_with("HTTP/1.1 200 "), "{}", get(&dashboard, "/healthz"));
    assert!(get(&dashboard, "/metrics").contains("\nehpc_healthy 1\n"));
    assert!(get(&dashboard, "/?lang=zh").contains("正常"));
    let screen = run(&["status", "--data", data]);
    assert_eq!(status(&screen), 0);
    assert!(text(&screen.stdout).starts_with("node          nfs1 + backup healthy, up "), "{}", text(&screen.stdout));
    let json = run(&["status", "--json", "--data", data]);
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).expect("one JSON object");
    assert_eq!(value["process"]["pid"], node.child.id());
    let by_state = run(&["status", "--json", "--state", &format!("{data}/backup")]);
    assert_eq!(status(&by_state), 0);

    // A second one on the same directory is told who is there.
    let second = run(&["up", "--any-ports", "--data", data]);
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

fn wait_healthy(data: &str) {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let output = run(&["status", "--data", data]);
        if status(&output) == 0 {
            return;
        }
        assert!(Instant::now() < until, "not healthy: {}{}", text(&output.stdout), text(&output.stderr));
    }
}

#[test]
fn logs_can_be_json() {
    let scratch = tempfile::tempdir().expect("a directory");
    let mut child = Command::new(EXECUTABLE)
        .args(["up", "--any-ports", "--log-format", "json", "--log-level", "info", "--data"])
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
        let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(value["level"].is_string() && value["message"].is_string(), "{line}");
    }
}
