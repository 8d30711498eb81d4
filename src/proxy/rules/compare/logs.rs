//! Log lines that are compared: each format in a frontend of its own.

use super::REQUESTS;
use super::peer::{Peer, Request};
use std::net::UdpSocket;
use std::time::Duration;

/// Lines of the frontend that choose its format.
const FORMATS: &[&str] = &[
    "option httplog",
    "option httplog clf",
    "option tcplog",
    "log-format '%ci  %cp   %fi %fp %f %ft %b %s'",
    "log-format '%{+Q}o %ci %f %b %s %r %HM %HU %HP %HPO %HQ %HV %ST %CC %CS'",
    "log-format '%{+X}o %ci %fi %fp %f'",
    "log-format '%HM|%HU|%HP|%HPO|%HQ|%HV|%r'",
    "log-format '%hr %hs|%hrl %hsl|%{+Q}hr|%{+Q}hrl'",
    "log-format '%{+E}hr %{+Q,+E}hr %{+E}r %{+E}HU %{+E}[capture.req.hdr(1)]'",
    "log-format '%[src] %[var(txn.text)] %{+Q}[var(txn.text)] %[var(txn.none)] %{+Q}[var(txn.none)]'",
    "log-format '%[capture.req.hdr(1),lower] %{+Q,+E}[capture.req.uri] %[capture.req.method] %[capture.req.ver]'",
    "log-format '%B %ac %fc %bc %sc %rc %sq %bq %tsc %ts %Th %Tw %Tc %Tr %Td %ID %si %sp'",
    "log-format '%{-M}CC|%{-M}[var(txn.none)]|%{+Q}CC|%% %{+Q}o%CC'",
    "log-format '%ST  %{+Q}r %H'",
    "log-format %T|%Tl|%trg|%trl|%t|%tr|%Ts",
];

/// What differs from run to run, made equal: dates, and times that a slow machine stretches.
fn masked(line: &str) -> String {
    let mut text = line.to_owned();
    for (pattern, instead) in [
        (r"\d\d/[A-Z][a-z][a-z]/\d{4}:\d\d:\d\d:\d\d\.\d{3}", "MOMENT"),
        (r"\d\d/[A-Z][a-z][a-z]/\d{4}:\d\d:\d\d:\d\d ([+-]\d{4})", "SECOND $1"),
        (r"\b\d+/-1/-1/-1/\d+ ", "TIMES "),
        (r" -1/-1/\d+ ", "TCPTIMES "),
        (r#"\d{3} "front" "front" (\S+) \d+ -1 -1 -1 \d+ "#, "MS ${1} CLF "),
        (r"\b17\d{8}\b", "SECONDS"),
    ] {
        text = regex::Regex::new(pattern).unwrap().replace_all(&text, instead).into_owned();
    }
    text
}

#[test]
fn log_lines_are_haproxys() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let log = format!("  log 127.0.0.1:{} len 8192 format raw local0\n", socket.local_addr().unwrap().port());
    let mut differences = Vec::new();
    for format in FORMATS {
        let lines = format!(
            "  {format}\n  http-request return status 404 content-type text/plain string no if {{ path -m found }}\n  \
             http-request deny\n"
        );
        let peer = Peer::start_with(&lines, &log, "");
        for raw in REQUESTS {
            let request = Request::new(raw, "l");
            peer.ask(&request);
            let mut buffer = [0; 8192];
            let length = socket.recv(&mut buffer).unwrap();
            let theirs = String::from_utf8_lossy(&buffer[..length]).trim_end_matches(['\n', '\0']).to_owned();
            let ours = peer.log_line(&request);
            if masked(&theirs) != masked(&ours) {
                differences
                    .push(format!("{format}\n    of {raw:?}\n    haproxy {theirs}\n    ours    {ours}"));
            }
        }
    }
    let peer = Peer::start_with("  option httplog\n", &log, "");
    let request = Request::unreadable();
    peer.ask(&request);
    let mut buffer = [0; 8192];
    let length = socket.recv(&mut buffer).unwrap();
    let theirs = String::from_utf8_lossy(&buffer[..length]).trim_end_matches(['\n', '\0']).to_owned();
    let times =
        |line: &str| regex::Regex::new("-1/-1/-1/-1/[0-9]+ ").unwrap().replace(line, "TIMES ").into_owned();
    let unread = peer.unread_line(&request);
    assert_eq!(times(&masked(&theirs)), times(&masked(&unread)), "{theirs}\n{unread}");
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
}
