//! The first look: `up` with its proxy and its two web nodes, as a browser meets them, and what happens when parts die.

use crate::executable::{Daemon, get, run, status, text, wait_healthy};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

struct Front {
    node: Daemon,
    data: std::path::PathBuf,
    _scratch: tempfile::TempDir,
}

fn front() -> Front {
    let scratch = tempfile::tempdir().expect("a directory");
    let data = scratch.path().join("d");
    let node = Daemon::start(&["up", "--any-ports", "--data", data.to_str().expect("text")]);
    wait_healthy(data.to_str().expect("text"));
    Front { node, data, _scratch: scratch }
}

fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < until, "not within a minute: {what}");
        let _ = std::process::Command::new("true").status();
    }
}

/// curl, whose standard output it is.
fn curl(arguments: &[&str]) -> String {
    let output =
        Command::new("curl").args(["-sS", "--max-time", "30"]).args(arguments).output().expect("curl runs");
    assert!(output.status.success(), "curl {arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn served_by(answer: &str) -> &str {
    answer.lines().find_map(|line| line.strip_prefix("x-served-by: ")).map_or("nobody", str::trim)
}

impl Front {
    fn at(&self) -> &str {
        self.data.to_str().expect("text")
    }

    fn child(&self, name: &str) -> Value {
        let output = run(&["status", "--json", "--data", self.at()]);
        let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let children = status["children"].as_array().expect("children");
        children.iter().find(|child| child["name"] == name).expect("known").clone()
    }

    fn kill(&self, name: &str) -> u64 {
        let pid = self.child(name)["pid"].as_u64().expect("it runs");
        assert!(
            Command::new("kill").args(["-KILL", &pid.to_string()]).status().expect("kill runs").success()
        );
        pid
    }

    fn upload(&self, file: &Path, name: &str) -> String {
        let field = format!("file=@{};filename={name}", file.display());
        curl(&["-F", &field, &format!("http://{}/upload", self.node.address("proxy"))])
    }
}

#[test]
fn a_file_uploaded_through_the_proxy_is_on_the_backup() {
    let front = front();
    let proxy = front.node.address("proxy");
    let mut content = vec![0_u8; 3_000_000];
    for (at, byte) in content.iter_mut().enumerate() {
        *byte = (at * 7 % 251) as u8;
    }
    let local = front.data.join("local");
    fs::write(&local, &content).expect("written");
    assert_eq!(front.upload(&local, "a report.bin"), "stored a report.bin 3000000 bytes\n");
    assert!(fs::read(front.data.join("share/a report.bin")).expect("in the share") == content);
    wait("the replica has the file", || {
        fs::read(front.data.join("backup/mirror/a report.bin")).is_ok_and(|bytes| bytes == content)
    });
    // Both nodes list and serve it, and nothing of an upload is left.
    for node in ["web1", "web2"] {
        let address = front.node.address(node);
        assert!(get(&address, "/").contains("/files/a%20report.bin"), "{node}");
        let fetched = front.data.join("fetched");
        curl(&["-o", fetched.to_str().expect("text"), &format!("http://{address}/files/a%20report.bin")]);
        assert!(fs::read(&fetched).expect("fetched") == content, "{node}");
    }
    let names: Vec<String> = fs::read_dir(front.data.join("share"))
        .expect("there")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("text"))
        .collect();
    assert_eq!(names, ["a report.bin"]);

    // The dashboard has the proxy's metrics, the traffic port has not.
    let metrics = get(&front.node.address("dashboard"), "/metrics");
    let counted = metrics
        .lines()
        .find(|line| line.starts_with("haproxy_frontend_http_requests_total{proxy=\"proxy\"}"));
    assert!(counted.is_some_and(|line| !line.ends_with(" 0")), "{metrics}");
    assert!(metrics.contains("\nehpc_"), "{metrics}");
    assert!(get(&proxy, "/metrics").starts_with("HTTP/1.1 404"));

    // A browser stays with its node; without a cookie the nodes take turns.
    let jar = front.data.join("jar");
    let jar = jar.to_str().expect("text");
    let page = format!("http://{proxy}/");
    let first = curl(&["-i", "-c", jar, &page]);
    assert!(first.contains("set-cookie: SESSION_ID="), "{first}");
    for _ in 0..4 {
        assert_eq!(served_by(&curl(&["-i", "-b", jar, &page])), served_by(&first));
    }
    let turns: Vec<String> = (0..4).map(|_| served_by(&curl(&["-i", &page])).to_owned()).collect();
    assert!(turns.contains(&"web1".to_owned()) && turns.contains(&"web2".to_owned()), "{turns:?}");
    assert_eq!(front.node.terminate(), 0);
}

#[test]
fn what_dies_comes_back_and_ends_with_its_parent() {
    let front = front();
    let page = format!("http://{}/", front.node.address("proxy"));
    let killed = front.kill("web1");
    // One node is left: every request is answered, by it.
    for _ in 0..6 {
        let answer = curl(&["-i", &page]);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    wait("web1 is back under its address", || {
        let child = front.child("web1");
        child["pid"].as_u64().is_some_and(|pid| pid != killed) && child["restarts"] == 1
    });
    wait("the proxy uses it again", || served_by(&curl(&["-i", &page])) == "web1");
    front.kill("proxy");
    wait("the proxy is back", || front.child("proxy")["restarts"] == 1);
    wait("and answers", || {
        let output = Command::new("curl").args(["-sS", "-i", &page]).output().expect("curl runs");
        text(&output.stdout).starts_with("HTTP/1.1 200")
    });

    let pids: Vec<u64> =
        ["web1", "web2", "proxy"].map(|name| front.child(name)["pid"].as_u64().expect("runs")).into();
    drop(front.node); // SIGKILL
    wait("no child outlives its parent", || {
        pids.iter().all(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        })
    });
}

#[test]
fn a_broken_upload_leaves_nothing_and_says_why() {
    let front = front();
    let address = front.node.address("web1");
    let answer = curl(&["-i", "-F", "other=1", &format!("http://{address}/upload")]);
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("no field `file`"), "{answer}");
    // A client that goes away in the middle.
    {
        use std::io::Write;
        let mut stream = std::net::TcpStream::connect(&address).expect("connects");
        write!(
            stream,
            "POST /upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 9000000\r\n\r\n\
             --b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"half\"\r\n\r\n"
        )
        .expect("sent");
        stream.write_all(&vec![b'x'; 700_000]).expect("sent");
        let share = front.data.join("share");
        wait("the upload has begun", || {
            fs::read_dir(&share)
                .expect("there")
                .flatten()
                .any(|entry| entry.metadata().is_ok_and(|m| m.len() > 0))
        });
    }
    wait("nothing of it is left", || fs::read_dir(front.data.join("share")).expect("there").next().is_none());
    let output = run(&["demo-web", "--listen", &address]);
    assert_eq!(status(&output), 2);
    assert!(text(&output.stderr).contains("--listen"), "{}", text(&output.stderr));
    assert_eq!(front.node.terminate(), 0);
}
