//! Control socket and client against each other, and a client that misbehaves.

use super::super::client::Client;
use super::*;
use crate::observe::control::{Action, Outcome, Progress};
use crate::observe::{NodeStatus, Refusal};
use serde_json::json;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Default)]
struct Fake {
    abandoned: Arc<AtomicBool>,
}

struct Flag(Arc<AtomicBool>);

impl Drop for Flag {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Control for Fake {
    fn describe(&self, status: &mut NodeStatus) {
        status.process.pid = 7;
    }
    fn actions(&self) -> Vec<Action> {
        vec![Action { name: "count", help: "counts" }]
    }
    fn act(&self, action: &str, arguments: Value, progress: Progress) -> Outcome {
        let action = action.to_owned();
        let flag = Flag(Arc::clone(&self.abandoned));
        Box::pin(async move {
            match action.as_str() {
                "count" => {
                    for n in 0..arguments["to"].as_u64().unwrap_or(0) {
                        let _ = progress.send(json!(n)).await;
                    }
                    Ok(json!("done"))
                }
                "hang" => {
                    let _flag = flag;
                    std::future::pending().await
                }
                _ => Err(Refusal::Unknown { action, known: vec!["count"] }),
            }
        })
    }
}

async fn with_node(test: impl FnOnce(&Path) + Send + 'static) -> Arc<AtomicBool> {
    let scratch = tempfile::tempdir().expect("a directory");
    // Longer than a socket's address may be.
    let directory = scratch.path().join("d".repeat(120));
    fs::create_dir(&directory).expect("created");
    let fake = Fake::default();
    let abandoned = Arc::clone(&fake.abandoned);
    let listener = bind(&directory).expect("bound");
    let stop = CancellationToken::new();
    let served = tokio::spawn(serve(listener, Arc::new(fake), stop.clone()));
    tokio::task::spawn_blocking(move || {
        test(&directory);
        drop(scratch);
    })
    .await
    .expect("passes");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !abandoned.load(Ordering::SeqCst) && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.cancel();
    served.await.expect("ends");
    abandoned
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn actions_progress_and_refusals() {
    let abandoned = with_node(|directory| {
        let mode = fs::metadata(directory.join("control.sock")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let client = Client::find(directory).expect("a node");
        assert_eq!(client.status().expect("status").process.pid, 7);
        let mut steps = Vec::new();
        let done = client.act("count", json!({ "to": 100 }), &mut |step| steps.push(step)).expect("done");
        assert_eq!((steps.len(), done), (100, json!("done")));
        let refused = client.act("dance", Value::Null, &mut |_| ()).expect_err("no such action").to_string();
        assert_eq!(refused, "this node cannot do `dance`; it can do: count");
        assert!(Client::find(&directory.join("..")).is_none());

        // A client that leaves: its action is abandoned.
        let socket = socket_path(directory).expect("a path");
        let mut stream = std::os::unix::net::UnixStream::connect(&socket.path).expect("connects");
        stream.write_all(b"{\"action\":\"hang\"}\n").expect("sent");
    })
    .await;
    assert!(abandoned.load(Ordering::SeqCst));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_request_is_answered() {
    with_node(|directory| {
        let long = vec![b' '; MAX_REQUEST as usize + 10];
        for (request, expected) in [
            (b"\n".as_slice(), "not understood"),
            (b"{\"action\":7}\n", "not understood"),
            (b"{\"action\":\"status\"}", "does not end with a newline"),
            (&long, "longer than 65536 bytes"),
        ] {
            let socket = socket_path(directory).expect("a path");
            let mut stream = std::os::unix::net::UnixStream::connect(&socket.path).expect("connects");
            // The node may answer before it has read everything.
            let _ = stream.write_all(request);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.contains(expected), "{answer}");
        }
        // End the wait of `with_node`.
        let socket = socket_path(directory).expect("a path");
        let mut stream = std::os::unix::net::UnixStream::connect(&socket.path).expect("connects");
        stream.write_all(b"{\"action\":\"hang\"}\n").expect("sent");
    })
    .await;
}
