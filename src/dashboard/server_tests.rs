//! The endpoints over a real socket.

use super::*;
use crate::observe::control::{Action, Outcome, Progress};
use crate::observe::status::{LinkStatus, NodeStatus, ProcessStatus};
use crate::observe::{Refusal, metrics};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

struct Fake(AtomicBool);

impl Control for Fake {
    fn describe(&self, status: &mut NodeStatus) {
        let up = self.0.load(Ordering::Relaxed);
        status.process =
            ProcessStatus { version: "9.9.9".into(), roles: vec!["nfs1".into()], ..ProcessStatus::default() };
        status.link = Some(LinkStatus { up, state: "connecting".into(), ..LinkStatus::default() });
    }
    fn actions(&self) -> Vec<Action> {
        Vec::new()
    }
    fn act(&self, action: &str, _: serde_json::Value, _: Progress) -> Outcome {
        let action = action.to_owned();
        Box::pin(async move { Err(Refusal::Unknown { action, known: Vec::new() }) })
    }
}

fn get(address: SocketAddr, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n").expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("answered");
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn page_metrics_health_and_status() {
    let node = Arc::new(Fake(AtomicBool::new(true)));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let stop = CancellationToken::new();
    let served = tokio::spawn(serve(listener, node.clone(), stop.clone()));
    tokio::task::spawn_blocking(move || {
        let page = get(address, "/", "Accept-Language: en\r\n");
        assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
        assert!(page.contains("healthy</span>") && page.contains("9.9.9"), "{page}");
        assert!(get(address, "/?lang=zh", "").contains("正常"));
        assert!(get(address, "/", "Accept-Language: zh-CN\r\n").contains("正常"));

        let text = get(address, "/metrics", "");
        assert!(text.contains("content-type: text/plain; version=0.0.4"), "{text}");
        for metric in metrics::TABLE {
            assert!(text.contains(&format!("# TYPE {} ", metric.name)), "{}", metric.name);
        }
        assert!(text.contains("\nehpc_link_up 1\n"), "{text}");

        let health = get(address, "/healthz", "");
        assert!(
            health.starts_with("HTTP/1.1 200 ") && health.ends_with(r#"{"reasons":[],"status":"healthy"}"#),
            "{health}"
        );
        let status = get(address, "/status", "");
        let body = status.split("\r\n\r\n").nth(1).expect("a body");
        let parsed: NodeStatus = serde_json::from_str(body).expect("NodeStatus");
        assert_eq!(parsed.process.version, "9.9.9");

        node.0.store(false, Ordering::Relaxed);
        let health = get(address, "/healthz", "");
        assert!(health.starts_with("HTTP/1.1 503 "), "{health}");
        assert!(health.contains("the replication link is down (connecting)"), "{health}");
        assert!(get(address, "/", "").contains("not healthy"));
        assert!(get(address, "/nothing", "").starts_with("HTTP/1.1 404 "));
    })
    .await
    .expect("answers");
    stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(10), served).await.expect("ends when told to");
    ended.expect("no panic").expect("no error");
}
