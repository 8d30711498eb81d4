//! Peers that break the rules: each is told why, and nothing else suffers.

use super::*;

pub(super) type Tls = tokio_rustls::client::TlsStream<tokio::net::TcpStream>;

/// A TLS connection that trusts anybody, to say what a proper primary never says.
pub(super) async fn secured(identity: &Identity, address: SocketAddr, alpn: &[u8]) -> std::io::Result<Tls> {
    let config = transport::client_config(identity, Trust::Unpinned, alpn).unwrap();
    let socket = tokio::net::TcpStream::connect(address).await?;
    tokio_rustls::TlsConnector::from(config).connect(transport::server_name(), socket).await
}

/// Sends `messages` as the paired primary and returns the last that comes back before the end.
fn says(hosts: &Hosts, address: SocketAddr, messages: &[ToBackup]) -> ToPrimary {
    let identity = Identity::load_or_create(hosts.primary.path(), "nfs1").unwrap();
    hosts.runtime.block_on(async {
        let (read, write) = tokio::io::split(secured(&identity, address, ALPN_STORE).await.unwrap());
        let mut writer = FrameWriter::new(write);
        let mut reader = FrameReader::new(read, wire::MAX_FRAME);
        let mut last = None;
        for message in messages {
            writer.write(&Sealed::to_backup(message).unwrap()).await.unwrap();
            writer.flush().await.unwrap();
            if matches!(message, ToBackup::Hello { .. })
                && let Ok(Some(payload)) = reader.next(FrameKind::ToPrimary).await
            {
                last = Some(wire::decode_to_primary(&payload).unwrap());
            }
        }
        while let Ok(Some(payload)) = reader.next(FrameKind::ToPrimary).await {
            last = Some(wire::decode_to_primary(&payload).unwrap());
        }
        last.expect("no answer")
    })
}

fn first_words(version: u32) -> ToBackup {
    ToBackup::Hello { version, export: "share".to_owned(), stream: STREAM, position: None }
}

#[test]
fn what_a_primary_must_not_say_is_refused_with_the_reason() {
    let hosts = Hosts::paired();
    let receiver = hosts.receiver();
    let refused = |messages: &[ToBackup]| match says(&hosts, receiver.address(), messages) {
        ToPrimary::Refused { reason } => reason,
        other => panic!("not refused: {other:?}"),
    };
    assert!(refused(&[first_words(2)]).contains("version 2"));
    assert!(refused(&[ToBackup::Ping(1)]).contains("hello"));
    let (_, second) = next_batch(Position::start(STREAM), 0);
    let (encoded, _) = next_batch(second, 0);
    assert!(refused(&[first_words(1), ToBackup::Batch(encoded.clone())]).contains("out of order"));
    let (encoded, _) = next_batch(Position::start(StreamId([6; 16])), 0);
    assert!(refused(&[first_words(1), ToBackup::Batch(encoded.clone())]).contains("another stream"));
    assert!(refused(&[first_words(1), ToBackup::Batch(vec![0xff; 100_000].into())]).contains("batch"));
    let wrong = Blob { hash: Hash([1; 32]), ..blob(b"x") };
    assert!(refused(&[first_words(1), ToBackup::Blobs(vec![wrong])]).contains("is not its name"));
    let long = Blob { raw_len: 300_000, ..blob(&[0; 300_000]) };
    assert!(refused(&[first_words(1), ToBackup::Blobs(vec![long])]).contains("300000 bytes"));
    assert_eq!(hosts.store.durable(), 0);
}

#[test]
fn garbage_and_claims_of_2_gib_end_a_connection_and_nothing_else() {
    let hosts = Hosts::paired();
    let receiver = hosts.receiver();
    let ends = |bytes: &[u8]| {
        let mut socket = TcpStream::connect(receiver.address()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
        let _ = socket.write_all(bytes);
        let mut answer = Vec::new();
        let read = socket.read_to_end(&mut answer).map_err(|e| e.kind());
        assert!(!matches!(read, Err(std::io::ErrorKind::WouldBlock)), "still open");
        assert!(answer.len() < 100, "{} bytes were told to a stranger", answer.len());
    };
    ends(b"GET / HTTP/1.1\r\nHost: backup\r\n\r\n");
    ends(&[0xff; 100_000]);
    ends(&[0x16, 3, 1, 0xff, 0xff, 1, 0, 0, 0]);
    // Inside TLS: a stranger who pairs, and the paired primary itself.
    let identity = Identity::load_or_create(hosts.primary.path(), "nfs1").unwrap();
    for alpn in [ALPN_PAIR, ALPN_STORE, b"http/1.1"] {
        hosts.runtime.block_on(async {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let Ok(mut stream) = secured(&identity, receiver.address(), alpn).await else { return };
            let _ = stream.write_all(&[0x7f, 0xff, 0xff, 0xff, 1, 2, 3]).await;
            let _ = stream.flush().await;
            let mut answer = Vec::new();
            let closed = tokio::time::timeout(Duration::from_secs(8), stream.read_to_end(&mut answer));
            assert!(closed.await.is_ok(), "still open");
        });
    }
    let (_, link) = hosts.connector(receiver.address()).connect(hello(None)).unwrap();
    assert_eq!(link.check(), Ok(()));
}

#[test]
fn connections_that_say_nothing_do_not_pile_up() {
    let hosts = Hosts::paired();
    let receiver = hosts.receiver();
    let idle: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(receiver.address()).unwrap()).collect();
    until("four are turned away", || receiver.monitor().status().turned_away >= 4);
    drop(idle);
    let mut connector = hosts.connector(receiver.address());
    until("the primary gets in", || connector.connect(hello(None)).is_ok());
}

/// Stands in for the backup: accepts one connection, reads the hello and sends `answer`.
fn pretends(hosts: &Hosts, answer: Vec<u8>) -> SocketAddr {
    use tokio::io::AsyncWriteExt;
    let identity = Identity::load_or_create(hosts.backup.path(), "backup1").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    hosts.runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        let config = transport::server_config(&identity, Trust::Unpinned, ALPN_STORE).unwrap();
        let stream = tokio_rustls::TlsAcceptor::from(config).accept(socket).await.unwrap();
        let (read, mut write) = tokio::io::split(stream);
        let mut reader = FrameReader::new(read, wire::MAX_FRAME);
        reader.next(FrameKind::ToBackup).await.unwrap();
        write.write_all(&answer).await.unwrap();
        write.flush().await.unwrap();
        let _ = reader.next(FrameKind::ToBackup).await;
    });
    address
}

#[test]
fn a_backup_that_breaks_the_protocol_is_not_believed() {
    let hosts = Hosts::paired();
    let framed = |message: &ToPrimary| {
        let payload = wire::encode_to_primary(message);
        let mut bytes = wire::frame::header(FrameKind::ToPrimary, false, payload.len()).unwrap().to_vec();
        bytes.extend_from_slice(&payload);
        bytes
    };
    let welcome =
        |version, credit| ToPrimary::Welcome { version, position: None, shadow_known: false, credit };
    for (answer, expected) in [
        (framed(&welcome(2, 32 << 20)), "speaks version 2"),
        (framed(&welcome(1, 5)), "allows 5 bytes"),
        (framed(&ToPrimary::Ack { number: 1 }), "did not begin with a welcome"),
        (framed(&ToPrimary::Refused { reason: "not today".to_owned() }), "the backup refuses: not today"),
        (vec![0x80, 0, 0, 0], "claims 2147483648 bytes"),
        (vec![0, 0, 0, 3, 2, 9, 9], "cannot be decoded"),
        (vec![0, 0, 0, 3, 1, 9, 9], "ToBackup frame"),
    ] {
        let down = fails(&mut hosts.connector(pretends(&hosts, answer)));
        assert!(down.to_string().contains(expected), "{down} instead of {expected}");
    }
}
