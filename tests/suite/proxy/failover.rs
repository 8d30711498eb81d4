//! Servers that die and come back, and reloads, while clients ask: nobody notices, but for the requests that a server
//! which was killed had already got.

use super::load::{Failure, Load};
use super::running::{self, Running, Style};
use super::syslog::Syslog;
use super::web::{Kind, Web};
use super::{haproxy, inside};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

const CLIENTS: usize = 24;
const ADDRESS: &str = "10.1.0.5";

/// The guide's configuration with faster checks.
fn configuration(directory: &Path) -> String {
    format!(
        "global\n    log {ADDRESS}:514 local0\n    maxconn 4000\n    stats socket {}/admin mode 600 level admin expose-fd listeners\n\
         defaults\n    log global\n    mode http\n    option httplog\n    option dontlognull\n    option http-server-close\n    \
         option forwardfor except 127.0.0.0/8\n    option redispatch\n    retries 3\n    timeout http-keep-alive 10s\n    timeout check 10s\n    \
         timeout connect 5s\n    timeout client 50s\n    timeout server 50s\n\
         frontend proxy\n    bind {ADDRESS}:80\n    default_backend dynamic\n\
         backend dynamic\n    balance roundrobin\n    cookie SESSION_ID insert indirect nocache\n    \
         server web1 {ADDRESS}:9001 inter 300 rise 2 fall 3 check maxconn 1000 cookie A\n    \
         server web2 {ADDRESS}:9002 inter 300 rise 2 fall 3 check maxconn 1000 cookie B\n",
        directory.display()
    )
}

/// Whatever failed was in flight when a server was ended; at most all clients each time.
fn assert_excused(failures: &[Failure], ends: &[(Instant, Instant)], said: &str) {
    // What a server had got and answered with nothing, or with a part: 502, or a cut response.
    let lost =
        |failure: &Failure| failure.what.starts_with("HTTP/1.1 502") || failure.what.contains(" after: ");
    let excused = |failure: &Failure, end: &(Instant, Instant)| {
        lost(failure) && failure.began <= end.1 && failure.ended >= end.0
    };
    let unexcused: Vec<&str> = failures
        .iter()
        .filter(|failure| !ends.iter().any(|end| excused(failure, end)))
        .map(|failure| failure.what.as_str())
        .collect();
    assert!(
        unexcused.is_empty(),
        "{} requests failed, {} without a reason: {unexcused:#?}\n{said}",
        failures.len(),
        unexcused.len()
    );
    for end in ends {
        let count = failures.iter().filter(|failure| excused(failure, end)).count();
        assert!(count <= CLIENTS, "{count} failures at one end of a server");
    }
}

struct Scene {
    directory: tempfile::TempDir,
    webs: [Web; 2],
    proxy: Running,
    load: Load,
    /// The program closes idle connections when it stops.
    repeats: bool,
    ends: Vec<(Instant, Instant)>,
    log: Syslog,
}

impl Scene {
    fn new(program: &Path, style: Style, rest: u64) -> Scene {
        let directory = tempfile::Builder::new().prefix("ehpc-failover-").tempdir().expect("a directory");
        let path = directory.path().to_owned();
        let webs = [
            Web::start(Kind::Nginx, "web1", ADDRESS, 9001, &path),
            Web::start(Kind::Gunicorn, "web2", ADDRESS, 9002, &path),
        ];
        let log = Syslog::start(ADDRESS);
        let proxy = Running::start(program, &configuration(&path), &path, style, (ADDRESS, 80));
        let socket = path.join("admin").display().to_string();
        let take_over = if program == haproxy() { vec!["-x", &socket] } else { vec![] };
        let proxy = proxy.with_take_over(&take_over);
        let load = Load::start(ADDRESS, 80, CLIENTS, rest);
        load.more(200);
        Scene { directory, webs, proxy, load, repeats: program == haproxy(), ends: Vec::new(), log }
    }

    /// One server is killed or stopped, load goes on with the other, it comes back and is used again.
    fn flap(&mut self, which: usize, kill: bool) {
        let end = if kill { self.webs[which].kill() } else { self.webs[which].quit() };
        self.ends.push(end);
        println!(
            "  {} ended ({}) in {:?}",
            self.webs[which].name,
            if kill { "killed" } else { "stopped" },
            end.1 - end.0
        );
        self.load.more_by(self.webs[1 - which].name);
        self.load.more(300);
        let begun = Instant::now();
        self.webs[which].restart();
        let listening = begun.elapsed();
        self.load.more_by(self.webs[which].name);
        self.wait_up(self.webs[which].name);
        println!("  {} listens after {listening:?}, used after {:?}", self.webs[which].name, begun.elapsed());
    }

    /// Waits until the proxy's checks say that a server is well. It may have been used before: a check that failed
    /// before it came back may be the one that takes it out, and then no server would be left at the next end.
    fn wait_up(&self, name: &str) {
        let until = Instant::now() + Duration::from_secs(30);
        let mut said = String::new();
        while Instant::now() < until {
            said.clear();
            let asked = UnixStream::connect(self.directory.path().join("admin")).and_then(|mut stream| {
                stream.write_all(b"show stat\n")?;
                stream.shutdown(Shutdown::Write)?;
                stream.read_to_string(&mut said)
            });
            let field = |line: &str, at: usize| line.split(',').nth(at).unwrap_or_default().to_owned();
            let row = said.lines().find(|line| field(line, 1) == name);
            // status, check_status
            if asked.is_ok()
                && row.is_some_and(|row| field(row, 17) == "UP" && field(row, 36).ends_with("L4OK"))
            {
                // A sticky request tries its dead server for some seconds before it goes to the other, as HAProxy's:
                // for it, too, one server is always up.
                self.load.settle();
                return;
            }
        }
        panic!("{name} is not up:\n{said}");
    }

    fn finish(self) -> (u64, u64) {
        let (mut said, repeated) = (self.proxy.said(), self.load.repeated());
        let (answered, connections, failures) = self.load.stop();
        // What its log says of failures and of servers.
        while let Some(line) = self.log.next(Instant::now()) {
            if !line.contains(" 200 ") && !line.contains(" 502 ") {
                said.push_str(&line);
            }
        }
        println!(
            "{answered} requests over {connections} connections, {repeated} repeated, {} failed at {} ends of servers",
            failures.len(),
            self.ends.len()
        );
        let mut kinds = std::collections::BTreeMap::<&str, usize>::new();
        failures.iter().for_each(|failure| *kinds.entry(failure.what.as_str()).or_default() += 1);
        println!("  failures: {kinds:?}");
        assert!(
            self.repeats || repeated == 0,
            "{repeated} kept connections were closed under a request\n{said}"
        );
        assert_excused(&failures, &self.ends, &said);
        (answered, connections)
    }
}

fn scenario(program: &Path, style: Style) {
    let mut scene = Scene::new(program, style, 5);
    let (mut all, begun) = (Vec::new(), Instant::now());
    for (which, kill) in [(0, true), (1, true), (0, false), (1, false)] {
        scene.flap(which, kill);
        let reload = Instant::now();
        all.extend(scene.proxy.reload());
        scene.load.more(300);
        println!("  reload and 300 answers in {:?}", reload.elapsed());
    }
    println!("{:?}: four flaps with reloads", begun.elapsed());
    // In the middle of a failure.
    let end = scene.webs[0].kill();
    scene.ends.push(end);
    all.extend(scene.proxy.reload());
    scene.load.more(300);
    scene.webs[0].restart();
    scene.load.more_by("web1");
    scene.wait_up("web1");
    println!("{:?}: a reload during a failure", begun.elapsed());
    // One after the other, without a pause.
    for _ in 0..5 {
        all.extend(scene.proxy.reload());
    }
    scene.load.more(300);
    println!("{:?}: five reloads", begun.elapsed());
    scene.proxy.wait_ended(&all[..all.len().saturating_sub(1)]);
    println!("{:?}: old processes have ended", begun.elapsed());
    let (answered, connections) = scene.finish();
    assert!(answered > 2000 && connections > 500, "hardly any load: {answered} over {connections}");
}

/// Reloads alone lose nothing at all.
fn reloads(program: &Path, style: Style) {
    let mut scene = Scene::new(program, style, 5);
    for _ in 0..10 {
        scene.proxy.reload();
        scene.load.more(200);
    }
    scene.finish();
}

/// The scene itself: HAProxy with its own hand-over of sockets keeps what this file asks for.
#[test]
fn haproxy_fails_over() {
    inside::inside("proxy::failover::haproxy_fails_over", || scenario(&haproxy(), Style::Finish));
}

#[test]
fn fails_over_and_reloads_with_sf() {
    inside::inside("proxy::failover::fails_over_and_reloads_with_sf", || {
        let program = ehpc_tools::process::executable();
        reloads(&program, Style::Finish);
        scenario(&program, Style::Finish);
    });
}

#[test]
fn fails_over_and_reloads_with_a_master() {
    inside::inside("proxy::failover::fails_over_and_reloads_with_a_master", || {
        let program = ehpc_tools::process::executable();
        reloads(&program, Style::Master);
        scenario(&program, Style::Master);
    });
}

/// HAProxy under HTTP load is replaced without having been told before, and takes over again, as often as one likes.
#[test]
fn haproxy_is_replaced_and_comes_back_under_http_load() {
    inside::inside("proxy::failover::haproxy_is_replaced_and_comes_back_under_http_load", || {
        let ours = ehpc_tools::process::executable();
        let mut scene = Scene::new(&haproxy(), Style::Finish, 2);
        let socket = scene.directory.path().join("admin").display().to_string();
        for round in 0..4 {
            let given = ["-x", &socket];
            scene.proxy.become_next(&ours, if round % 2 == 0 { &[] } else { &given });
            let old = scene.proxy.reload();
            scene.load.more(500);
            scene.proxy.wait_ended(&old);
            scene.wait_up("web1");
            // HAProxy closes what is idle when it stops; ours lets a request that is on its way come in.
            let repeated = scene.load.repeated();
            scene.proxy.become_next(&haproxy(), &["-x", &socket]);
            let old = scene.proxy.reload();
            scene.load.more(500);
            scene.proxy.wait_ended(&old);
            assert_eq!(scene.load.repeated(), repeated, "ours closed connections under requests");
        }
        assert!(!scene.proxy.said().contains("cannot"), "{}", scene.proxy.said());
        scene.finish();
    });
}

/// `--full`: 10 minutes (or $EHPC_SOAK_SECONDS) at full load, servers flapping, a reload every 30 s; neither memory nor descriptors grow.
#[test]
fn soak() {
    if !std::env::var("EHPC_TEST_FULL").is_ok_and(|full| !full.is_empty()) {
        println!("only with tools/test --full");
        return;
    }
    inside::inside("proxy::failover::soak", || {
        let mut scene = Scene::new(&ehpc_tools::process::executable(), Style::Master, 0);
        let seconds =
            std::env::var("EHPC_SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(600);
        let until = Instant::now() + Duration::from_secs(seconds);
        let (mut prints, mut turn) = (Vec::new(), 0);
        while Instant::now() < until {
            let old = scene.proxy.reload();
            let next = Instant::now() + Duration::from_secs(30);
            while Instant::now() < next {
                scene.flap(turn % 2, turn % 3 != 0);
                turn += 1;
            }
            scene.proxy.wait_ended(&old);
            let worker = *scene.proxy.workers().last().expect("a worker");
            let master = scene.proxy.master().expect("a master");
            prints.push((running::footprint(worker), running::footprint(master)));
            println!("worker, master (KiB, descriptors): {:?}", prints.last().expect("just added"));
        }
        let (first, last) = (prints[1], prints[prints.len() - 1]);
        let grown = |before: (u64, usize), after: (u64, usize)| {
            after.0 > before.0 + before.0 / 4 + 1024 || after.1 > before.1 + CLIENTS
        };
        assert!(!grown(first.0, last.0), "the worker grew: {:?} to {:?}", first.0, last.0);
        assert!(!grown(first.1, last.1), "the master grew: {:?} to {:?}", first.1, last.1);
        scene.finish();
    });
}
