//! Who is let in, and how two hosts get to know each other.

use super::*;

#[test]
fn only_the_paired_keys_are_let_in() {
    let hosts = Hosts::paired();
    let receiver = hosts.receiver();

    // A third host that knows the backup's key, but is not the backup's primary.
    let stranger = tempfile::tempdir().unwrap();
    let known = Peers::of(hosts.primary.path()).in_role(Role::Backup).unwrap().unwrap();
    Peers::of(stranger.path()).set(&known).unwrap();
    let down = fails(&mut hosts.connector_of(stranger.path(), receiver.address()));
    assert!(down.to_string().contains("does not know this host's key"), "{down}");
    until("the stranger is counted", || receiver.monitor().status().turned_away == 1);
    assert_eq!(receiver.monitor().status().connections, 0);

    // Somebody else answers in place of the backup.
    let impostor = Hosts::paired();
    let other = impostor.receiver();
    let down = fails(&mut hosts.connector(other.address()));
    assert!(down.to_string().contains("key is not the paired one"), "{down}");
}

#[test]
fn an_unpaired_host_is_told_so_and_let_in_once_it_is_paired() {
    let hosts = Hosts::unpaired();
    let receiver = hosts.receiver();
    let mut connector = hosts.connector(receiver.address());
    assert_eq!(fails(&mut connector), LinkDown::NotPaired);
    let backup = Identity::load_or_create(hosts.backup.path(), "backup1").unwrap();
    let record = crate::replication::identity::PeerRecord {
        name: "backup1".to_owned(),
        fingerprint: backup.fingerprint(),
        role: Role::Backup,
    };
    Peers::of(hosts.primary.path()).set(&record).unwrap();
    let down = fails(&mut connector);
    assert!(down.to_string().contains("does not know this host's key"), "{down}");

    let code = receiver.monitor().open_pairing();
    let identity = Identity::load_or_create(hosts.primary.path(), "nfs1").unwrap();
    let peers = Peers::of(hosts.primary.path());
    let address = receiver.address().to_string();
    let paired = hosts.runtime.block_on(pair(&address, &code, &identity, &peers)).unwrap();
    assert_eq!(paired, record);
    assert_eq!(receiver.monitor().paired().unwrap().fingerprint, identity.fingerprint());
    assert!(!receiver.monitor().status().pairing_open, "a code is good for one pairing");
    connector.connect(hello(None)).unwrap();
}

#[test]
fn wrong_codes_change_nothing_and_end_the_offer() {
    let hosts = Hosts::unpaired();
    let receiver = hosts.receiver();
    let address = receiver.address().to_string();
    let identity = Identity::load_or_create(hosts.primary.path(), "nfs1").unwrap();
    let peers = Peers::of(hosts.primary.path());
    let attempt = |code: &str| {
        let refused = hosts.runtime.block_on(pair(&address, code, &identity, &peers)).unwrap_err();
        assert_eq!(peers.list().unwrap(), []);
        assert_eq!(Peers::of(hosts.backup.path()).list().unwrap(), []);
        refused.to_string()
    };
    assert!(attempt("ABCD-ABCD-ABCD-ABCD").contains("no pairing is open"));
    let code = receiver.monitor().open_pairing();
    for left in [4, 3, 2, 1] {
        assert!(attempt("ABCD-ABCD-ABCD-ABCD").contains(&format!("{left} tries left")));
    }
    assert!(attempt("ABCD-ABCD-ABCD-ABCD").contains("too often"));
    assert!(attempt(&code).contains("no pairing is open"));
    assert!(attempt("short").contains("not a pairing code"));
    drop(receiver);
}

#[test]
fn a_backup_that_does_not_know_the_code_is_found_out() {
    let hosts = Hosts::unpaired();
    let receiver = hosts.receiver();
    let code = receiver.monitor().open_pairing();
    // Somebody in between ends the TLS connection and opens another to the backup, relaying what is said.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let middle = tempfile::tempdir().unwrap();
    let middle = Arc::new(Identity::load_or_create(middle.path(), "middle").unwrap());
    let (between, backup) = (listener.local_addr().unwrap(), receiver.address());
    hosts.runtime.spawn(async move {
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let (near, _) = listener.accept().await.unwrap();
        let config = transport::server_config(&middle, Trust::Unpinned, ALPN_PAIR).unwrap();
        let mut near = tokio_rustls::TlsAcceptor::from(config).accept(near).await.unwrap();
        let mut far = secured(&middle, backup, ALPN_PAIR).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    });
    let identity = Identity::load_or_create(hosts.primary.path(), "nfs1").unwrap();
    let peers = Peers::of(hosts.primary.path());
    let refused = hosts.runtime.block_on(pair(&between.to_string(), &code, &identity, &peers)).unwrap_err();
    assert!(matches!(&refused, PairingError::Refused { reason } if reason.contains("wrong")), "{refused}");
    assert_eq!(peers.list().unwrap(), []);
    assert_eq!(receiver.monitor().paired(), None);
}
