//! The database has a connection of its own: what the files' link carries does not delay a commit.

use super::{Scene, holds, unprotected, waiting};
use ehpc_tools::bench::tree::Random;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

/// Name of the files' protocol; a client says it in the open, in the first packet of TLS.
const FILES: &[u8] = b"ehpc-store/1";

/// Between nfs1 and the backup: it may let only so many bytes of the files' link through.
#[derive(Default)]
struct Gate {
    count: Mutex<Count>,
    changed: Condvar,
    /// Bytes stand before it.
    waits: AtomicBool,
}

#[derive(Default)]
struct Count {
    passed: usize,
    most: Option<usize>,
}

impl Gate {
    /// Shuts when so much more has passed.
    fn shut_after(&self, bytes: usize) {
        let mut count = self.count.lock().unwrap();
        count.most = Some(count.passed + bytes);
    }

    fn open(&self) {
        self.count.lock().unwrap().most = None;
        self.changed.notify_all();
    }

    fn pass(&self, bytes: usize) {
        let mut count = self.count.lock().unwrap();
        while count.most.is_some_and(|most| count.passed >= most) {
            self.waits.store(true, Ordering::SeqCst);
            count = self.changed.wait(count).unwrap();
        }
        count.passed += bytes;
    }

    fn stand_before(self: &Arc<Gate>, backup: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind((backup.ip(), 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let gate = Arc::clone(self);
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let Ok(near) = near else { return };
                let Ok(far) = TcpStream::connect(backup) else { continue };
                let (back_from, back_to) = (far.try_clone().unwrap(), near.try_clone().unwrap());
                std::thread::spawn(move || drop(std::io::copy(&mut &back_from, &mut &back_to)));
                let gate = Arc::clone(&gate);
                std::thread::spawn(move || gate.forward(&near, &far));
            }
        });
        address
    }

    fn forward(&self, mut near: &TcpStream, mut far: &TcpStream) {
        let (mut buffer, mut files) = (vec![0; 16 * 1024], None);
        while let Ok(read @ 1..) = near.read(&mut buffer) {
            let bytes = &buffer[..read];
            let files = *files.get_or_insert_with(|| bytes.windows(FILES.len()).any(|w| w == FILES));
            if files {
                self.pass(read);
            }
            if far.write_all(bytes).is_err() {
                break;
            }
        }
        let _ = (near.shutdown(Shutdown::Both), far.shutdown(Shutdown::Both));
    }
}

/// The backup's address in the cluster file, and the file with another one.
fn rerouted(text: &str, to: impl FnOnce(SocketAddr) -> SocketAddr) -> String {
    let (before, backup) = text.split_once("[backup]").unwrap();
    let listen = backup.split_once("listen = \"").unwrap().1.split_once('"').unwrap().0;
    let to = to(listen.parse().unwrap());
    format!("{before}[backup]{}", backup.replacen(listen, &to.to_string(), 1))
}

#[test]
fn a_commit_is_acknowledged_while_the_files_are_stuck() {
    let mut scene = Scene::new(waiting(), "durability = \"remote\"");
    let gate = Arc::new(Gate::default());
    scene.stack.start_backup().unwrap();
    let file = scene.stack.cluster_file();
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, rerouted(&text, |backup| gate.stand_before(backup))).unwrap();
    scene.stack.start_nfs1().unwrap();
    scene.stack.wait("semi-sync holds", || holds(&scene)).unwrap();
    std::fs::write(scene.stack.share().join("before"), "files arrive").unwrap();
    let arrived = |name: &str, content: &[u8]| {
        std::fs::read(scene.stack.mirror().join(name)).is_ok_and(|there| there == content)
    };
    scene.stack.wait("a file arrives", || arrived("before", b"files arrive")).unwrap();
    assert!(gate.count.lock().unwrap().passed > 0, "the files come another way");

    gate.shut_after(4 << 20);
    let mut bulk = vec![0; 48 << 20];
    Random(7).fill(&mut bulk);
    std::fs::write(scene.stack.share().join("bulk"), &bulk).unwrap();
    scene.stack.wait("chunks wait", || gate.waits.load(Ordering::SeqCst)).unwrap();
    scene.server.sql("CREATE DATABASE d; CREATE TABLE d.t (a INT)").unwrap();
    for value in 0..20 {
        scene.server.sql(&format!("INSERT INTO d.t VALUES ({value})")).unwrap();
    }
    assert_eq!(unprotected(&scene), "0", "a commit did not wait");
    let gtid = scene.server.value("SELECT @@gtid_binlog_pos").unwrap();
    let status = scene.stack.status("backup").unwrap();
    assert_eq!(status["archive"]["gtid"], gtid.as_str(), "{status:#}");
    assert!(!arrived("bulk", &bulk), "the files were not stuck");

    gate.open();
    scene.stack.wait("the file arrives in the end", || arrived("bulk", &bulk)).unwrap();
}
