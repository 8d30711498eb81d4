//! Commands beside the real haproxy, in one conversation each.

use super::*;
use crate::proxy::config::model::Level;
use crate::proxy::listen::ListeningSocket;
use crate::proxy::state::Running;
use crate::proxy::stats::sample::{Real, ask, moment, process, running};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What a connection answers to bytes that arrive at once, and whether it is closed then.
fn converse(running: &Running, level: Level, bytes: &[u8]) -> (String, bool) {
    let process = process();
    let context = Context { running, process: &process, moment: moment() };
    let mut console = Console::new(level, Duration::from_secs(10));
    let mut out = Vec::new();
    let mut after = console.receive(bytes);
    while let Some(words) = console.next_command() {
        // As an engine without sessions answers.
        let answer = match execute(&context, console.level(), &words) {
            Answer::Ask(Question::Sessions(wanted)) => sessions::listed(&context, &[], wanted),
            Answer::Ask(Question::Kill(which)) => sessions::ended(which, 0),
            answer => answer,
        };
        if console.answer(answer, &mut out) == After::Close {
            after = After::Close;
            break;
        }
    }
    let closed = after == After::Close || console.after() == After::Close;
    (String::from_utf8(out).unwrap(), closed)
}

/// Said to both in this order; the answers must be equal to the byte.
const SAME: &[&str] = &[
    "show cli level",
    "user; show cli level; set weight be/a 1",
    "operator; show cli level; set weight be/a 1",
    "user; operator; show cli level",
    "operator; clear counters all",
    "operator; clear counters",
    "show cli sockets",
    "show backend",
    "show env NO_SUCH_VARIABLE",
    "show stat 1 1 0",
    "show stat nobody 1 1",
    "show stat be 2 1",
    "show stat 3 4 -1 typed",
    "show stat no-maint",
    "show stat up",
    "show stat typed desc",
    "show stat json",
    "show servers state",
    "show servers state be",
    "show servers state nobody",
    "show servers conn",
    "show servers conn be",
    "show servers conn nobody",
    "get weight",
    "get weight be",
    "get weight be/a",
    "get weight be/nobody",
    "get weight nobody/a",
    "get weight #3/#2",
    "set weight be/b",
    "set weight be/b 50%",
    "get weight be/b",
    "set weight be/b 300",
    "set weight be/b 99999999999999999999",
    "set weight be/b -1",
    "set weight be/b many",
    "set weight be/b 5x",
    "set weight be/b 2000%",
    "get weight be/b",
    "set weight be/b 100%",
    "set server",
    "set server be",
    "set server be/a",
    "set server be/a nonsense",
    "set server be/a weight 7",
    "get weight be/a",
    "set server be/a state",
    "set server be/a state nonsense",
    "set server be/a state maint",
    "show servers state",
    "show stat",
    "set server be/a state drain",
    "show servers state",
    "show stat",
    "set server be/a state ready",
    "disable server be/a",
    "show servers state",
    "enable server be/a",
    "show servers state",
    "enable server be/c",
    "set server be/c weight 3",
    "show servers state",
    "show stat",
    "set server be/a health",
    "set server be/a health down",
    "show servers state",
    "show stat",
    "set server be/a health stopping",
    "show stat",
    "set server be/a health up",
    "show stat",
    "set server be/a agent up",
    "set server be/a agent-addr 1.1.1.1",
    "set server be/a agent-port 1",
    "set server be/a agent-send x",
    "set server be/a check-port 1",
    "set server be/a fqdn example.org",
    "set server be/a ssl on",
    "set server be/a addr",
    "set server be/a addr nonsense",
    "set server be/a addr 127.0.0.1",
    "set server be/a addr 127.0.0.1 port 1",
    "set server be/a addr 127.0.0.2",
    "set server be/a addr 127.0.0.3 port 81",
    "set server be/a addr 127.0.0.3 port 82",
    "show servers state be",
    "enable agent be/a",
    "disable agent be/a",
    "enable server",
    "disable server be/nobody",
    "enable frontend fe",
    "disable frontend fe",
    "disable frontend fe",
    "show stat fe 1 -1",
    "enable frontend fe",
    "enable frontend be",
    "enable frontend",
    "set maxconn server be/a",
    "set maxconn server be/a 50",
    "set maxconn server be/a x",
    "set maxconn server be/a 5x",
    "set maxconn server be/nobody 5",
    "set maxconn frontend fe",
    "set maxconn frontend fe 100",
    "set maxconn frontend fe -1",
    "set maxconn frontend nobody 1",
    "show stat",
    "set maxconn global",
    "set maxconn global 100",
    "set maxconn global 99999",
    "set maxconn global 0",
    "set timeout",
    "set timeout cli",
    "set timeout cli x",
    "set timeout cli 1m",
    "set timeout other 1",
    "set severity-output",
    "set severity-output number; get weight be; show cli level",
    "set severity-output string; get weight be; show cli level",
    "show table",
    "show table int",
    "set table",
    "set table int",
    "set table int nonsense",
    "set table int key",
    "set table int key nonsense",
    "set table int key 7",
    "set table int key 7 data.server_id 1",
    "set table bin key 616263",
    "set table nobody key 1",
    "show table int",
    "show table int nonsense",
    "show table int key 8",
    "show table int key 7",
    "show table int data.gpc0 gt 1",
    "show table text",
    "show table text data.server_id gt 1",
    "clear table text data.server_id eq 1",
    "show table text",
    "clear table",
    "clear table nobody",
    "clear table int nonsense",
    "clear table int key",
    "clear table int key 9",
    "clear table int key 7",
    "show table int",
    "clear table int",
    "show sess 0x1",
    "show errors nobody",
    "shutdown session",
    "shutdown session 0x1234567",
    "shutdown sessions server",
    "shutdown sessions server be/nobody",
    "enable health be/b",
    "disable health be/b",
    "enable health be/nobody",
    "enable health checked/s",
    "disable health checked/s",
    "show stat checked 4 -1",
    "show servers state checked",
    "clear counters",
    "clear counters all",
    "show stat",
    "quit; show cli level",
    "prompt",
    "prompt;show cli level",
    "prompt; prompt; show cli level",
    "show\tcli\\ level",
    "show cli level # and what is too much is passed over",
    "show cli level;show cli level",
    "show cli level <<\npayload\n\nshow cli level",
];

/// Seconds since the last change, and in which a server was down, differ by when one was asked.
fn masked(answer: &str) -> String {
    let line = |line: &str| {
        if line.starts_with("[[{") {
            let counts = |field: &&str| !field.contains("lastchg") && !field.contains("downtime");
            return line.split("{\"objType\"").filter(counts).collect::<Vec<_>>().join("\n");
        }
        let separator = if line.contains(',') { "," } else { " " };
        let mut fields: Vec<&str> = line.split(separator).collect();
        match (separator, fields.len()) {
            (",", 100..) if !line.starts_with('#') => (fields[23], fields[24]) = ("-", "-"),
            // The health of what is not checked is whatever its last change of state left there.
            (" ", 25) if !line.starts_with('#') => (fields[9], fields[12]) = ("-", "-"),
            _ => {}
        }
        if let Some(entry) = fields.first_mut().filter(|field| field.starts_with("0x")) {
            *entry = "0x:";
        }
        let line = fields.join(separator);
        let counted = [".lastchg.1:MAP:u32:", ".downtime.1:MCP:u32:"];
        match counted.iter().find_map(|seconds| line.split_once(seconds)) {
            Some((before, _)) => format!("{before}.seconds"),
            None => line,
        }
    };
    answer.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn commands_answer_as_haproxy() {
    let real = Real::start();
    let ours = running(real.path());
    let mut faults = Vec::new();
    for command in SAME {
        let theirs = masked(&real.ask("admin.sock", command));
        let (our, _) = converse(&ours, Level::Admin, format!("{command}\n").as_bytes());
        let our = masked(&our);
        // A list of near commands: which are near is each one's own affair.
        if theirs == our || command.contains("cli\\ level") && our.starts_with("Unknown command, but") {
            continue;
        }
        let differing: Vec<String> = theirs
            .lines()
            .zip(our.lines())
            .filter(|(their, our)| their != our)
            .map(|(their, our)| format!("  {their}\n  here: {our}"))
            .collect();
        faults.push(format!(
            "{command}: {}",
            if differing.is_empty() { format!("{theirs:?}\nhere {our:?}") } else { differing.join("\n") }
        ));
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn entries_of_tables_name_their_servers() {
    // HAProxy forgets to note the server's name when the number is set by hand, and shows `-`.
    let running = running("/tmp");
    let say = |line: &str| masked(&converse(&running, Level::Admin, format!("{line}\n").as_bytes()).0);
    assert_eq!(say("set table text key /b data.server_id 1; set table text key /c data.server_id 9"), "\n\n");
    let heading = "# table: text, type: string, size:1024, used:2\n";
    let one = "0x: key=/b use=0 exp=0 server_id=1 server_key=s\n\n";
    assert_eq!(say("show table text data.server_id lt 2"), format!("{heading}{one}"));
    assert_eq!(
        say("clear table text data.server_id gt 2; show table text"),
        format!("\n{}{one}", heading.replace("used:2", "used:1"))
    );
}

#[test]
fn rights_are_haproxys() {
    let real = Real::start();
    let ours = running(real.path());
    for command in [
        "clear counters",
        "set table int key 5",
        "show errors nobody",
        "show sess 0x1",
        "shutdown session 0x1",
        "shutdown sessions server be/nobody",
        "enable health be/b",
        "show table",
        "disable agent be/a",
        "disable frontend fe",
        "disable server be/a",
        "enable agent be/a",
        "enable frontend fe",
        "enable server be/a",
        "get weight be/a",
        "operator",
        "set maxconn frontend fe 10",
        "set maxconn global 10",
        "set maxconn server be/a 10",
        "set server be/a state maint",
        "set timeout cli 10",
        "set weight be/a 1",
        "show backend",
        "show cli level",
        "show env NOTHING",
        "show servers state",
        "show servers conn",
        "show stat",
        "show startup-logs",
        "user",
    ] {
        let denied = |answer: &str| answer.starts_with("Permission denied");
        for (level, word) in [(Level::User, "user"), (Level::Operator, "operator")] {
            let theirs = real.ask("admin.sock", &format!("{word};{command}"));
            let (our, _) = converse(&ours, level, format!("{command}\n").as_bytes());
            assert_eq!(denied(theirs.trim_start()), denied(&our), "{command} as {word}: {theirs}");
        }
        let theirs = real.ask("user.sock", command);
        let (our, _) = converse(&ours, Level::User, format!("{command}\n").as_bytes());
        assert_eq!(masked(&theirs), masked(&our), "{command} on a user's socket");
    }
}

#[test]
fn help_shows_what_haproxy_shows_of_the_same_commands() {
    let real = Real::start();
    let theirs = real.ask("admin.sock", "help");
    let (ours, _) = converse(&running(real.path()), Level::Admin, b"help\n");
    for line in ours.lines().filter(|line| !line.ends_with("(not in HAProxy)")) {
        assert!(theirs.lines().any(|their| their == line), "{line}");
    }
    let (near, _) = converse(&running(real.path()), Level::Admin, b"set maxconn\n");
    assert_eq!(near, real.ask("admin.sock", "set maxconn"));
    let (near, _) = converse(&running(real.path()), Level::Admin, b"shwo stats\n");
    assert!(near.contains("  show stat "), "{near}");
    let (refused, _) = converse(&running(real.path()), Level::Admin, b"add map x y z\n");
    assert_eq!(refused, "acls and maps do not change at run time here: change the file and reload.\n\n");
}

#[test]
fn lines_come_in_pieces_and_together() {
    let running = running("/tmp");
    assert_eq!(converse(&running, Level::Admin, b"show cli lev"), (String::new(), false));
    let (answer, closed) = converse(&running, Level::Admin, b"show cli level\r\nshow cli level\nshow");
    assert_eq!((answer.as_str(), closed), ("admin\n\nadmin\n\n", true));
    let (answer, closed) = converse(&running, Level::Admin, b"prompt\nshow cli level\n");
    assert_eq!((answer.as_str(), closed), ("\n> admin\n\n> ", false));
    assert_eq!(converse(&running, Level::Admin, &[b'x'; 20_000]), (String::new(), true));
    let mut console = Console::new(Level::User, Duration::from_secs(1));
    for byte in b"show cli level\n" {
        assert_eq!(console.receive(&[*byte]), After::More);
    }
    assert_eq!(console.next_command().unwrap(), ["show", "cli", "level"]);
}

/// This one's sockets on a runtime of its own, until dropped.
struct Served {
    dir: tempfile::TempDir,
    running: Arc<Running>,
    _runtime: tokio::runtime::Runtime,
}

fn serve(maxconn: u32) -> Served {
    let dir = tempfile::tempdir().unwrap();
    let mut config = crate::proxy::stats::sample::config(dir.path().to_str().unwrap());
    config.global.stats_maxconn = maxconn;
    config.global.stats_timeout = Duration::from_secs(20);
    let running = Running::new(Arc::new(config), 2000);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listen = |name: &str| std::os::unix::net::UnixListener::bind(dir.path().join(name)).unwrap();
    let hand_over: socket::HandOver =
        Arc::new(|mut stream| std::io::Write::write_all(&mut stream, b"sockets"));
    let sockets = [("admin.sock", Level::Admin), ("user.sock", Level::User)].map(|(name, level)| {
        let socket = ListeningSocket::Unix(listen(name));
        socket::OpenSocket { socket, level, hand_over: Some(hand_over.clone()) }
    });
    let asked = running.clone();
    runtime.spawn(socket::serve(sockets.into(), asked, Arc::new(process), None, CancellationToken::new()));
    Served { dir, running, _runtime: runtime }
}

/// Whoever does not read what was answered gets no more: otherwise one line could make hundreds of answers wait.
#[test]
fn a_command_is_carried_out_when_the_answers_before_it_are_sent() {
    use std::io::{Read, Write};
    let served = serve(10);
    let weight = || {
        let mut backends = served.running.proxies.iter().filter_map(|proxy| proxy.backend.as_ref());
        let backend = backends.find(|backend| backend.name == "be").unwrap();
        backend.servers.iter().find(|server| server.name == "a").unwrap().weight.load(SeqCst)
    };
    let before = weight();
    let mut stream = std::os::unix::net::UnixStream::connect(served.dir.path().join("admin.sock")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let line = format!("{}set weight be/a 77\n", "show stat;".repeat(390));
    assert!(line.len() < 4_096, "one read");
    stream.write_all(line.as_bytes()).unwrap();
    // More than the socket holds is still to come.
    stream.read_exact(&mut [0]).unwrap();
    assert_eq!(weight(), before);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.len() > 1_000_000, "{}", rest.len());
    assert_eq!(weight(), 77);
}

#[test]
fn sockets_answer_and_close() {
    let served = serve(10);
    let path = |name: &str| served.dir.path().join(name);
    assert_eq!(ask(&path("admin.sock"), "show cli level\n"), "admin\n\n");
    assert_eq!(ask(&path("user.sock"), "show cli level\n"), "user\n\n");
    assert_eq!(ask(&path("admin.sock"), "show cli level"), "");
    assert_eq!(ask(&path("admin.sock"), "prompt\nshow cli level\nquit\n"), "\n> admin\n\n> ");
    assert_eq!(ask(&path("admin.sock"), "_getsocks\n"), "sockets");
    assert!(ask(&path("user.sock"), "_getsocks\n").starts_with("Unknown command"));
    let csv = ask(&path("admin.sock"), "show stat\n");
    assert!(csv.starts_with("# pxname,svname,") && csv.ends_with("\n\n"));
}

#[test]
fn no_more_than_stats_maxconn_connections_are_served() {
    use std::io::{Read, Write};
    let served = serve(1);
    let path = served.dir.path().join("admin.sock");
    let mut first = std::os::unix::net::UnixStream::connect(&path).unwrap();
    first.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    first.write_all(b"prompt\n").unwrap();
    let mut answer = [0; 3];
    first.read_exact(&mut answer).unwrap();
    let second = {
        let path = path.clone();
        std::thread::spawn(move || ask(&path, "show cli level\n"))
    };
    // The second waits until the first has gone; then it is served.
    first.write_all(b"show cli level\n").unwrap();
    let mut answer = [0; 9];
    first.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"admin\n\n> ");
    assert!(!second.is_finished());
    drop(first);
    assert_eq!(second.join().unwrap(), "admin\n\n");
}

/// Commands cut, doubled, joined and with bytes changed: no panic, an answer no longer than a dump, and what follows is
/// understood. `EHPC_FUZZ_SEED` repeats a run.
#[test]
fn mutated_commands_are_answered() {
    use rand::{Rng, SeedableRng};
    let seed = std::env::var("EHPC_FUZZ_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or_else(rand::random);
    println!("EHPC_FUZZ_SEED={seed}");
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let running = running("/tmp");
    let words: Vec<&str> = SAME.iter().flat_map(|line| line.split(' ')).collect();
    for round in 0..4_000 {
        let mut bytes = SAME[random.random_range(0..SAME.len())].as_bytes().to_vec();
        for _ in 0..random.random_range(1..6) {
            let at = random.random_range(0..=bytes.len());
            match random.random_range(0..5) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, random.random()),
                2 => {
                    let word = words[random.random_range(0..words.len())];
                    bytes.splice(at..at, format!(" {word} ").into_bytes());
                }
                3 => {
                    let number = random.random::<i64>().to_string();
                    bytes.splice(at..at, number.into_bytes());
                }
                _ => bytes.extend_from_slice(&bytes.clone()[at..]),
            }
        }
        // Otherwise the last command might never be answered, or the level be gone.
        bytes.truncate(8_000);
        bytes.push(b'\n');
        let commands = bytes.iter().filter(|byte| matches!(byte, b';' | b'\n')).count();
        let (answer, _) = converse(&running, Level::Admin, &bytes);
        assert!(answer.len() <= commands * 400_000, "round {round} of seed {seed}: {} bytes", answer.len());
        if round % 100 == 0 {
            let (answer, closed) = converse(&running, Level::Admin, b"show cli level\n");
            assert_eq!((answer.as_str(), closed), ("admin\n\n", true), "seed {seed}");
        }
    }
}
