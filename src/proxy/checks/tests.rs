//! Checks against real sockets and a real MariaDB.

use super::*;
use crate::proxy::config::{Environment, Surroundings, load_bytes};
use crate::proxy::health::CheckStatus;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Command, Stdio};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Longest wait for something that must happen.
const DEADLINE: Duration = Duration::from_secs(60);

fn running(text: &str) -> Arc<Running> {
    let surroundings = Surroundings::none();
    let config = load_bytes("test.cfg", text.as_bytes(), Environment::new([]), &surroundings).unwrap();
    Running::new(Arc::new(config), 100)
}

/// What is told, in order.
struct Told<'r> {
    running: &'r Running,
    pending: VecDeque<Happening>,
}

impl Told<'_> {
    fn of(running: &Running) -> Told<'_> {
        Told { running, pending: VecDeque::new() }
    }

    /// Lines, until one has `wanted` in it.
    async fn until(&mut self, wanted: &str) -> Vec<String> {
        let mut lines = Vec::new();
        let waiting = async {
            loop {
                while let Some(happening) = self.pending.pop_front() {
                    let Happening::Line(_, _, line) = happening else { continue };
                    let found = line.contains(wanted);
                    lines.push(line);
                    if found {
                        return;
                    }
                }
                self.running.news.wait().await;
                self.pending.extend(self.running.news.take());
            }
        };
        if tokio::time::timeout(DEADLINE, waiting).await.is_err() {
            panic!("nobody told of `{wanted}`, only {lines:?}");
        }
        lines
    }
}

/// Rarely when all is well, often when it changes; a slow machine is no failure.
const TIMING: &str = "inter 1s fastinter 30 downinter 30";

const HEAD: &str = "defaults\n mode http\n timeout connect 2s\n timeout client 5s\n timeout server 5s\n \
                    option log-health-checks\n";

#[test]
fn intervals_vary_within_their_bounds() {
    let interval = Duration::from_millis(1000);
    let of = |chance| vary(interval, 20, chance).as_millis();
    assert_eq!([of(0), of(u32::MAX / 2), of(u32::MAX)], [800, 999, 1200]);
    assert_eq!(vary(interval, 0, 12345), interval);
}

/// An address of this machine that nobody else uses: 127.x.y.z has room for all.
fn own_address() -> IpAddr {
    let [a, b, c] = rand::random::<[u8; 3]>();
    IpAddr::V4(Ipv4Addr::new(127, 1 + a % 250, b, 1 + c % 250))
}

#[tokio::test]
async fn a_server_that_dies_is_taken_out_and_comes_back() {
    let address = own_address();
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let text = format!(
        "{HEAD}backend dynamic\n server web1 {address}:{port} check {TIMING} rise 2 fall 3\n server web2 {address}:1\n"
    );
    let running = running(&text);
    let _checks = start(&running);
    let mut told = Told::of(&running);
    told.until("server dynamic/web1 succeeded, reason: Layer4 check passed").await;
    drop(listener);
    let lines = told.until("is DOWN").await;
    let failed = "failed, reason: Layer4 connection problem, info: \"Connection refused\", check duration:";
    assert!(lines[0].contains(failed) && lines[0].ends_with("status: 2/3 UP."), "{lines:?}");
    let points = |line: &String| line.rsplit("status: ").next().unwrap_or_default().to_owned();
    assert_eq!(lines[..3].iter().map(points).collect::<Vec<_>>(), ["2/3 UP.", "1/3 UP.", "0/2 DOWN."]);
    assert_eq!(
        lines[3],
        "Server dynamic/web1 is DOWN. 1 active and 0 backup servers left. 0 sessions active, 0 requeued, 0 \
         remaining in queue."
    );
    let _again = TcpListener::bind((address, port)).await.unwrap();
    let lines = told.until("is UP").await;
    assert_eq!(lines.len(), 3, "1/2 DOWN, 3/3 UP, and that it is up: {lines:?}");
}

#[tokio::test]
async fn a_server_in_maintenance_is_left_alone() {
    let address = own_address();
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let text = format!("{HEAD}backend b\n server s {address}:{port} check {TIMING}\n");
    let running = running(&text);
    let backend = running.proxies[0].backend.as_ref().unwrap();
    backend.set_administration(0, super::super::state::Administration::MAINTENANCE, 0);
    let _checks = start(&running);
    let idle = tokio::time::timeout(Duration::from_millis(300), listener.accept()).await;
    assert!(idle.is_err(), "it was checked");
    backend.make_ready(0);
    tokio::time::timeout(DEADLINE, listener.accept()).await.expect("it is checked again").unwrap();
}

/// Answers every request with what `answer` says; gives the last request to `seen`.
async fn serve(
    listener: TcpListener,
    answer: tokio::sync::watch::Receiver<&'static str>,
    seen: tokio::sync::watch::Sender<String>,
) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut request = vec![0; 4096];
        let length = stream.read(&mut request).await.unwrap_or(0);
        seen.send_replace(String::from_utf8_lossy(&request[..length]).into_owned());
        let answer = *answer.borrow();
        let _ = stream.write_all(answer.as_bytes()).await;
        if answer.is_empty() {
            // Neither an answer nor an end.
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 1]).await;
            });
        }
    }
}

#[tokio::test]
async fn http_checks_tell_what_they_saw() {
    let address = own_address();
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let text = format!(
        "{HEAD} timeout check 100\nbackend http\n option httpchk\n http-check send meth GET uri /check ver HTTP/1.1 hdr \
         host www\n http-check disable-on-404\n http-check send-state\n server h {address}:{port} check {TIMING} rise 2 \
         fall 2\n"
    );
    let (set, answer) = tokio::sync::watch::channel("HTTP/1.1 200 OK\r\n\r\n");
    let (seen, saw) = tokio::sync::watch::channel(String::new());
    tokio::spawn(serve(listener, answer, seen));
    let running = running(&text);
    let _checks = start(&running);
    let mut told = Told::of(&running);
    let backend = running.proxies[0].backend.as_ref().unwrap();
    told.until("succeeded, reason: Layer7 check passed, code: 200").await;
    set.send_replace("HTTP/1.1 404 Not Found\r\n\r\n");
    told.until("Server http/h is stopping. 0 active").await;
    told.until("backend http has no server available!").await;
    assert!(backend.servers[0].is_up() && !backend.servers[0].takes_new());
    let request = saw.borrow().clone();
    let node = host_name();
    assert!(
        request.starts_with("GET /check HTTP/1.1\r\nhost: www\r\nx-haproxy-server-state: ")
            && request
                .contains(&format!("; address={address}; port={port}; name=http/h; node={node}; weight=1/")),
        "{request}"
    );
    set.send_replace("HTTP/1.1 500 Oops\r\n\r\n");
    let lines = told.until("Server http/h is DOWN").await;
    assert!(lines[0].contains("failed, reason: Layer7 wrong status, code: 500, info: \"Oops\""), "{lines:?}");
    set.send_replace("");
    told.until("failed, reason: Layer7 timeout").await;
    set.send_replace("HTTP/1.1 200 OK\r\n\r\n");
    told.until("Server http/h is UP").await;
}

#[tokio::test]
async fn a_check_that_cannot_connect_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nobody");
    let text = format!("{HEAD}backend b\n server s {} check {TIMING}\n", path.display());
    let running = running(&text);
    let _checks = start(&running);
    let mut told = Told::of(&running);
    let line = told.until("failed").await.remove(0);
    let wanted = "reason: Socket error, info: \"General socket error (No such file or directory)\"";
    assert!(line.contains(wanted), "{line}");
    let backend = running.proxies[0].backend.as_ref().unwrap();
    assert_eq!(backend.servers[0].checked().unwrap().last.status, CheckStatus::SocketError);
}

/// A MariaDB of its own; ends with the test.
struct Database {
    process: Child,
    folder: tempfile::TempDir,
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Database {
    fn start(address: IpAddr) -> Database {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let made = Command::new("mariadb-install-db")
            .args([
                "--no-defaults",
                "--auth-root-authentication-method=normal",
                "--user=root",
                "--skip-test-db",
            ])
            .arg(format!("--datadir={}", data.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(made.expect("mariadb-install-db (package mariadb-server)").success());
        let process = Command::new("mariadbd")
            .args(["--no-defaults", "--user=root", "--port=3306", "--skip-name-resolve"])
            .args([format!("--datadir={}", data.display()), format!("--bind-address={address}")])
            .arg(format!("--socket={}", folder.path().join("socket").display()))
            .arg(format!("--pid-file={}", folder.path().join("pid").display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mariadbd (package mariadb-server)");
        Database { process, folder }
    }

    /// Runs statements, again and again until the server is there.
    async fn run(&self, statements: &str) {
        let once = || {
            Command::new("mariadb")
                .args(["--no-defaults", "-uroot", "-e", statements])
                .arg(format!("--socket={}", self.folder.path().join("socket").display()))
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        };
        let done = async {
            while !once() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(DEADLINE, done).await.expect("the database does not start");
    }
}

#[tokio::test]
async fn a_real_mariadb_is_checked() {
    let address = own_address();
    let mut database = Database::start(address);
    database.run("CREATE USER haproxy@'%'; CREATE USER secret@'%' IDENTIFIED BY 'x'").await;
    let server = format!(" server m {address}:3306 check {TIMING} rise 2 fall 2\n");
    let text = format!(
        "{HEAD}defaults\n mode tcp\n timeout connect 2s\n timeout client 5s\n timeout server 5s\n option \
         log-health-checks\nbackend nouser\n option mysql-check\n{server}backend user\n option mysql-check user \
         haproxy\n{server}backend old\n option mysql-check user haproxy pre-41\n{server}backend secret\n option \
         mysql-check user secret\n{server}"
    );
    let running = running(&text);
    let _checks = start(&running);
    let mut told = Told::of(&running);
    let lines = told.until("backend secret has no server available!").await;
    let failed = lines.iter().find(|line| line.contains("server secret/m failed")).expect("a failed check");
    assert!(
        failed.contains("reason: Layer7 wrong status, code: 1045, info: \"#28000Access denied for user"),
        "{failed}"
    );
    let backend = |name: &str| {
        let found = running.config.proxies.iter().position(|proxy| proxy.name == name);
        running.proxies[found.unwrap()].backend.clone().unwrap()
    };
    for name in ["nouser", "user", "old"] {
        let passed = async {
            while backend(name).servers[0].checked().unwrap().last.status != CheckStatus::Layer7Ok {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(DEADLINE, passed).await.unwrap_or_else(|_| panic!("{name} is not well"));
        let last = backend(name).servers[0].checked().unwrap().last;
        assert!(last.code == Some(0) && last.info.contains("MariaDB"), "{name}: {last:?}");
    }
    database.process.kill().unwrap();
    told.until("Server user/m is DOWN").await;
}
