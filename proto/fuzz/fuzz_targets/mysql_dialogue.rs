//! Whatever a server or a client sends, the decoders and the replica's dialogue answer with a value or an error; what
//! decodes and can be written is read back the same.
#![no_main]

use ehpc_proto::mysql::Flavor;
use ehpc_proto::mysql::command::{Command, SemiSyncAck};
use ehpc_proto::mysql::handshake::{Greeting, Login, SslRequest};
use ehpc_proto::mysql::packet::Assembler;
use ehpc_proto::mysql::replica::{Credentials, Plan, ReplicaDialogue, Say, Start, TlsWish};
use ehpc_proto::mysql::response::{Response, TextRows};
use libfuzzer_sys::fuzz_target;
use std::time::Duration;

fn dialogue(choice: u8) -> ReplicaDialogue {
    let dialect = if choice & 1 == 0 { Flavor::MariaDb } else { Flavor::MySql };
    let tls = [TlsWish::Off, TlsWish::Socket, TlsWish::On, TlsWish::Off][usize::from(choice >> 1 & 3)];
    let start = match choice >> 3 & 3 {
        0 | 1 => Start::File { name: "bin.000001".to_owned(), position: 4 },
        2 => Start::MariaGtid("0-1-1".to_owned()),
        _ => Start::MySqlGtid(vec![0; 8]),
    };
    let plan = Plan {
        dialect,
        server_id: 7,
        start,
        heartbeat: Duration::from_secs(1),
        semi_sync: choice & 0x20 != 0,
        annotate: true,
        non_blocking: choice & 0x40 != 0,
    };
    let credentials = Credentials { user: "u".to_owned(), password: b"secret".to_vec() };
    ReplicaDialogue::new(plan, credentials, tls)
}

fn talk(choice: u8, mut bytes: &[u8]) {
    let mut dialogue = dialogue(choice);
    let mut assembler = Assembler::new(dialogue.limit());
    while let Ok(Some(packet)) = assembler.feed(&mut bytes) {
        let Ok(mut says) = dialogue.received(&packet) else { return };
        if says.last() == Some(&Say::StartTls) {
            let Ok(more) = dialogue.secured() else { return };
            says.extend(more);
        }
        if let Some(Say::Encrypt { .. }) = says.last() {
            says.push(dialogue.rsa(vec![1; 256]));
        }
        assert!(says.len() <= 4);
        if matches!(says.last(), Some(Say::Streaming { .. })) {
            return;
        }
        assembler.set_limit(dialogue.limit());
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else { return };
    talk(*choice, bytes);
    let _ = Greeting::decode(bytes);
    let _ = SslRequest::decode(bytes);
    let _ = Response::decode_login(bytes);
    let _ = Response::decode(bytes);
    if let Ok(command) = Command::decode(bytes) {
        let again = Command::decode(&command.encode()).unwrap();
        // A replica's host and account are text: what is not UTF-8 is replaced, and cut where it becomes too long.
        assert!(again == command || matches!(again, Command::RegisterReplica(_)));
    }
    if let Ok(login) = Login::decode(bytes) {
        let again = Login::decode(&login.encode()).unwrap();
        assert!(Login::decode(&again.encode()).unwrap() == again);
    }
    if let Ok(ack) = SemiSyncAck::decode(bytes) {
        let _ = SemiSyncAck::decode(&ack.encode());
    }
    let mut rows = TextRows::new();
    let step = usize::from(*choice).max(1);
    for packet in bytes.chunks(step) {
        match rows.received(packet) {
            Ok(None) => {}
            Ok(Some(_)) | Err(_) => break,
        }
    }
});
