//! What may be wrong, and what is said about it.

use super::*;
use crate::database::dsn::{Password, Server, TlsMode};
use crate::database::source::session::StreamSession;

fn account(server: &Maria, grants: &str) -> Dsn {
    server.sql("CREATE USER ehpc@localhost IDENTIFIED BY 'right'").unwrap();
    server.sql(&format!("GRANT {grants} ON *.* TO ehpc@localhost")).unwrap();
    Dsn::socket(server.socket(), "ehpc").with_password(Password::Text("right".to_owned()))
}

fn error(status: &DatabaseSourceStatus) -> &str {
    assert!(!status.well);
    status.last_error.as_deref().unwrap()
}

#[test]
fn a_wrong_password_is_said_and_never_shown() {
    let runtime = runtime();
    let server = server(Options::default());
    let dsn = account(&server, "REPLICATION SLAVE, BINLOG MONITOR");
    let end = FarEnd::new();
    let wrong = dsn.clone().with_password(Password::Text("sesame".to_owned()));
    let source = start_from(&runtime, wrong, &end);
    let status = wait_state(&source, "refused");
    assert!(error(&status).contains("Access denied for user 'ehpc'@'localhost'"), "{}", error(&status));
    assert!(!error(&status).contains("sesame"));
    let source = start_from(&runtime, dsn, &end);
    wait_state(&source, "streaming");
}

#[test]
fn missing_privileges_are_named_with_the_grant() {
    let runtime = runtime();
    let server = server(Options::default());
    let dsn = account(&server, "BINLOG MONITOR");
    let end = FarEnd::new();
    let source = start_from(&runtime, dsn, &end);
    let status = wait_state(&source, "refused");
    let grant = "GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO 'ehpc'@'localhost'";
    assert!(error(&status).contains(grant), "{}", error(&status));
    server.sql(grant).unwrap();
    source.shared.again.notify_one();
    wait_state(&source, "streaming");
}

#[test]
fn ed25519_and_the_socket_prove_an_account_too() {
    let runtime = runtime();
    let server = server(Options::default().with("--plugin-load-add=auth_ed25519"));
    let grant = "GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO";
    server.sql("CREATE USER e@localhost IDENTIFIED VIA ed25519 USING PASSWORD('secret')").unwrap();
    server.sql(&format!("{grant} e@localhost")).unwrap();
    server.sql("ALTER USER root@localhost IDENTIFIED VIA unix_socket").unwrap();
    for dsn in [
        Dsn::socket(server.socket(), "e").with_password(Password::Text("secret".to_owned())),
        Dsn::socket(server.socket(), "root"),
    ] {
        let end = FarEnd::new();
        let source = start_from(&runtime, dsn, &end);
        wait_state(&source, "streaming");
        runtime.block_on(source.stop());
    }
}

#[test]
fn purged_files_are_a_gap_that_may_be_crossed() {
    let (runtime, server, end, source) = streamed(Options::default());
    server.sql(TABLE).unwrap();
    caught_up(&runtime, &source);
    runtime.block_on(source.stop());
    server.sql("INSERT INTO d.t VALUES (1); FLUSH BINARY LOGS; INSERT INTO d.t VALUES (2)").unwrap();
    server.sql("FLUSH BINARY LOGS; INSERT INTO d.t VALUES (3); PURGE BINARY LOGS TO 'bin.000003'").unwrap();
    let source = start(&runtime, &server, &end);
    let status = wait_state(&source, "gap");
    let text = error(&status);
    assert!(text.contains("bin.000001:") && text.contains("bin.000003") && text.contains("on_gap"), "{text}");
    assert_eq!(end.contents.lock().lineages.len(), 1);
    runtime.block_on(source.stop());

    let over = SourceOptions { over_gaps: true, ..options(vec![root(&server.socket())], &end) };
    let source = Source::start(runtime.handle(), over);
    caught_up(&runtime, &source);
    let contents = end.contents.lock();
    let (lineage, joined) = &contents.lineages[1];
    assert_eq!((lineage.number, lineage.first_file.as_str(), joined), (2, "bin.000003", &None));
}

#[test]
fn the_same_server_id_twice_is_said() {
    let runtime = runtime();
    let server = server(Options::default());
    let (end, other) = (FarEnd::new(), FarEnd::new());
    let first = start(&runtime, &server, &end);
    wait_state(&first, "streaming");
    let second = start(&runtime, &server, &other);
    wait_state(&second, "streaming");
    let status = wait_state(&first, "server-id");
    assert!(error(&status).contains("server_id 4200001"), "{}", error(&status));
}

#[test]
fn an_encrypted_log_is_refused_with_the_reason() {
    let runtime = runtime();
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys");
    std::fs::write(&keys, "1;a7addd9adea9978fda19f21e6be987880e68ac92632ca052e5bb42b1a506939a\n").unwrap();
    let server = server(
        Options::default()
            .with("--plugin-load-add=file_key_management")
            .with(format!("--file-key-management-filename={}", keys.display()))
            .with("--encrypt-binlog=1"),
    );
    let end = FarEnd::new();
    let source = start(&runtime, &server, &end);
    let status = wait_state(&source, "encrypted");
    assert!(error(&status).contains("encrypt_binlog = OFF"), "{}", error(&status));
}

#[test]
fn a_server_without_binary_log_is_said() {
    let (_runtime, _server, _end, source) = streamed(Options { log_bin: false, ..Options::default() });
    let status = wait_state(&source, "no-binlog");
    assert!(error(&status).contains("log_bin = mysql-bin"), "{}", error(&status));
}

#[test]
fn an_archive_that_is_ahead_is_never_cut() {
    let runtime = runtime();
    let mut server = server(Options::default());
    server
        .sql("CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY); INSERT INTO d.t VALUES (1)")
        .unwrap();
    server.stop().unwrap();
    let before = Maria::start_on(&server.datadir(), Options::default()).unwrap();
    next_second();
    server.restart().unwrap();
    let end = FarEnd::new();
    let source = start(&runtime, &server, &end);
    server.sql("INSERT INTO d.t VALUES (2)").unwrap();
    caught_up(&runtime, &source);
    runtime.block_on(source.stop());
    let files = end.files();

    // A power cut with sync_binlog=0: the log's end is lost, and its number is given out again.
    server.kill9().unwrap();
    let path = server.binlog_files().unwrap().pop().unwrap();
    let log = std::fs::read(&path).unwrap();
    std::fs::write(&path, &log[..last_group(&log).start as usize]).unwrap();
    server.restart().unwrap();
    server.sql("INSERT INTO d.t VALUES (5); INSERT INTO d.t VALUES (6)").unwrap();
    let source = start(&runtime, &server, &end);
    let status = wait_state(&source, "ahead");
    assert!(
        error(&status).contains("GTID 0-1-4") && error(&status).contains("GTID 0-1-5 now"),
        "{}",
        error(&status)
    );
    runtime.block_on(source.stop());

    // The same server as it was before: it lost the last commit.
    let source = start(&runtime, &before, &end);
    let status = wait_state(&source, "ahead");
    let text = error(&status);
    assert!(text.contains("GTID 0-1-4") && text.contains("accept-loss"), "{text}");
    // It goes on, past the archive's number: that GTID is another transaction there.
    let still_ahead = |statements: &str, at: &str| {
        before.sql(statements).unwrap();
        let asked = source.status().reconnects;
        source.shared.again.notify_one();
        wait("it asks again", || source.status().reconnects > asked);
        let status = wait_state(&source, "ahead");
        assert!(error(&status).contains(&format!("GTID {at} now")), "{}", error(&status));
    };
    still_ahead("INSERT INTO d.t VALUES (7); INSERT INTO d.t VALUES (8)", "0-1-5");
    still_ahead("FLUSH BINARY LOGS", "0-1-5");
    // A log that began anew: the file's name is not there, and then it is.
    still_ahead(
        "RESET MASTER; DELETE FROM d.t; DROP TABLE d.t; CREATE TABLE d.t (a INT PRIMARY KEY)",
        "0-1-3",
    );
    still_ahead(
        "INSERT INTO d.t VALUES (1); INSERT INTO d.t VALUES (2); INSERT INTO d.t VALUES (3)",
        "0-1-6",
    );
    still_ahead("FLUSH BINARY LOGS; INSERT INTO d.t SELECT seq FROM d.seq_10_to_5000", "0-1-7");
    assert_eq!(end.files().len(), files.len());
    assert_eq!(end.contents.lock().lineages.len(), 1);
    source.accept_loss();
    caught_up(&runtime, &source);
    let contents = end.contents.lock();
    assert_eq!(contents.lineages.len(), 2);
    assert_eq!(contents.lineages[1].0.first_file, "bin.000002", "the newest");
    assert!(contents.files[..files.len()].iter().zip(&files).all(|(a, b)| a.bytes == b.bytes));
}

/// An address that leads to another machine for a minute, such as a virtual IP.
#[test]
fn a_clone_behind_the_address_is_refused_while_it_is_there() {
    let runtime = runtime();
    let mut server = server(Options::default());
    server.sql(TABLE).unwrap();
    server.stop().unwrap();
    let clone = Maria::start_on(&server.datadir(), Options::default()).unwrap();
    next_second();
    server.restart().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let address = directory.path().join("address");
    let leads_to = |socket: &Path| {
        let next = directory.path().join("next");
        std::os::unix::fs::symlink(socket, &next).unwrap();
        std::fs::rename(&next, &address).unwrap();
    };
    leads_to(&server.socket());
    let end = FarEnd::new();
    let source = start_from(&runtime, root(&address), &end);
    // SQL cannot tell them apart: the same transactions end at the same byte of a file of the same name.
    let insert = "INSERT INTO d.t VALUES (1)";
    server.sql(insert).unwrap();
    clone.sql(insert).unwrap();
    caught_up(&runtime, &source);
    let lineages = || end.contents.lock().lineages.len();
    let status = |server: &Maria| server.sql("SHOW MASTER STATUS").unwrap()[0][1].clone();
    assert_eq!(status(&server), status(&clone));

    leads_to(&clone.socket());
    end.cut_connections();
    wait_state(&source, "ahead");
    // It stays so, and nothing of the clone counts as a stream.
    let streams = source.connected();
    let asked = source.status().reconnects;
    source.shared.again.notify_one();
    wait("it asks again", || source.status().reconnects > asked);
    wait_state(&source, "ahead");
    assert!(!streams.has_changed().unwrap());

    leads_to(&server.socket());
    server.sql("INSERT INTO d.t VALUES (2)").unwrap();
    source.shared.again.notify_one();
    caught_up(&runtime, &source);
    assert_equal(&server.binlog_files().unwrap(), &end);
    assert_eq!(lineages(), 1);

    // A person may accept the clone.
    leads_to(&clone.socket());
    end.cut_connections();
    wait_state(&source, "ahead");
    source.accept_loss();
    wait("the new lineage", || lineages() == 2);
    caught_up(&runtime, &source);
}

/// `BINLOG_GTID_POS` knows 32 bits.
#[test]
fn a_file_beyond_four_gigabytes_goes_on_in_its_lineage() {
    use super::super::fault::{Blame, Finding};
    use super::super::lane::ArchiveEnd;
    use super::super::locate::{Permission, locate};
    use crate::database::sql::Sql;
    use ehpc_proto::replication::database::ArchivedFile;
    let (runtime, server, end, source) = streamed(Options::default());
    server.sql("CREATE DATABASE d").unwrap();
    caught_up(&runtime, &source);
    runtime.block_on(source.stop());
    let lineage = end.contents.lock().lineages[0].0.clone();
    let file = end.files().remove(0);
    let (dsn, len) = (root(&server.socket()), 5_000_000_000);
    let ask = |gtid: &str, found| {
        let file = ArchivedFile { lineage: 1, ordinal: 1, name: file.name.clone(), len, closed: false };
        let lineage = Some(lineage.clone());
        let end = ArchiveEnd {
            lineage,
            file: Some(file),
            head: end.files()[0].bytes.clone(),
            gtid: gtid.to_owned(),
        };
        let permission = Permission { found, replicas: true, ..Permission::default() };
        runtime.block_on(async {
            let mut sql = Sql::connect(&dsn).await.unwrap();
            locate(&mut sql, &dsn, &end, permission, &Blame::new(&dsn, 7)).await
        })
    };
    let located = ask("0-1-1", None).unwrap();
    assert_eq!((located.new, located.offset), (false, len));
    assert_eq!(StreamSession::dump_from(located.offset), 4);
    let format = located.expected.expect("the file is known by its format description");
    assert_eq!(format.bytes(), &file.bytes[4..4 + format.bytes().len()]);
    // It was found to be another one, or shorter.
    assert_eq!(ask("0-1-1", Some(Finding::Another)).unwrap_err().state(), "ahead");
}

#[test]
fn a_promoted_replica_is_followed_where_the_history_goes_on() {
    let runtime = runtime();
    let mut primary = server(Options::default().tcp());
    let replica = server(Options::default().server_id(2).with("--log-slave-updates=1"));
    primary
        .sql("CREATE USER repl@'%' IDENTIFIED BY 'r'; GRANT REPLICATION SLAVE ON *.* TO repl@'%'")
        .unwrap();
    let dsn = account(&primary, "REPLICATION SLAVE, BINLOG MONITOR");
    primary.sql(TABLE).unwrap();
    let port = primary.port().unwrap();
    replica
        .sql(&format!(
            "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={port}, MASTER_USER='repl', MASTER_PASSWORD='r', \
             MASTER_USE_GTID=slave_pos; START SLAVE"
        ))
        .unwrap();
    let end = FarEnd::new();
    let servers = vec![dsn.clone(), Dsn { server: Server::Socket(replica.socket()), ..dsn }];
    let source = Source::start(runtime.handle(), options(servers, &end));
    primary.sql("INSERT INTO d.t VALUES (1); INSERT INTO d.t VALUES (2)").unwrap();
    caught_up(&runtime, &source);
    let gtid = primary.value("SELECT @@gtid_binlog_pos").unwrap();
    assert_eq!(replica.value(&format!("SELECT MASTER_GTID_WAIT('{gtid}', 30)")).unwrap(), "0");
    primary.kill9().unwrap();
    // Whether it replicates must be seen.
    let grant = "GRANT REPLICATION SLAVE, BINLOG MONITOR, SLAVE MONITOR ON *.* TO 'ehpc'@'localhost'";
    let status = wait_state(&source, "refused");
    assert!(error(&status).contains(grant), "{}", error(&status));
    replica.sql(&format!("SET sql_log_bin = 0; {grant}")).unwrap();
    wait_state(&source, "connecting");
    let again = source.status().reconnects + 3;
    wait("it asks both", || source.status().reconnects >= again);
    assert!(error(&source.status()).contains("still a replica"), "{}", error(&source.status()));
    replica.sql("STOP SLAVE; RESET SLAVE ALL; INSERT INTO d.t VALUES (3)").unwrap();
    wait("the new lineage", || end.contents.lock().lineages.len() == 2);
    caught_up(&runtime, &source);
    // The old one is back: it is not the one that is followed now.
    primary.restart().unwrap();
    end.cut_connections();
    replica.sql("INSERT INTO d.t VALUES (4)").unwrap();
    caught_up(&runtime, &source);
    let contents = end.contents.lock();
    let (lineage, joined) = &contents.lineages[1];
    assert_eq!((lineage.server_id, lineage.first_file.as_str()), (2, "bin.000001"));
    let joined = joined.as_ref().unwrap();
    assert_eq!((joined.gtid.as_str(), joined.end.lineage), (gtid.as_str(), 1));
    assert_eq!(source.status().gtid, replica.value("SELECT @@gtid_binlog_pos").unwrap());
}

#[test]
fn a_replica_that_lacks_the_last_commits_is_not_followed() {
    let runtime = runtime();
    let primary = server(Options::default());
    let other = server(Options::default().server_id(2));
    primary
        .sql("CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY); INSERT INTO d.t VALUES (1)")
        .unwrap();
    other.sql("CREATE DATABASE d").unwrap();
    let end = FarEnd::new();
    let source = start(&runtime, &primary, &end);
    caught_up(&runtime, &source);
    runtime.block_on(source.stop());
    let source = start(&runtime, &other, &end);
    let status = wait_state(&source, "diverged");
    assert!(error(&status).contains("GTID 0-1-3") && error(&status).contains("0-2-1"), "{}", error(&status));
    // It goes on, and passes the archive's number: still another history.
    other.sql("CREATE TABLE d.t (a INT PRIMARY KEY); INSERT INTO d.t VALUES (1), (2); INSERT INTO d.t VALUES (3)").unwrap();
    other.sql("INSERT INTO d.t VALUES (4)").unwrap();
    source.shared.again.notify_one();
    wait("it asks again", || source.status().reconnects >= 2);
    let status = wait_state(&source, "diverged");
    assert!(
        error(&status).contains("0-2-5") && error(&status).contains("diverged due to"),
        "{}",
        error(&status)
    );
    assert_eq!(end.contents.lock().lineages.len(), 1);
}

/// A server with a certificate for `name`, signed by an authority whose file is returned.
fn with_tls(name: &str, directory: &Path) -> (Maria, std::path::PathBuf) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = parameters.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(parameters, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let file = |name: &str, text: String| {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let ca = file("ca.pem", authority.pem());
    let options = Options::default()
        .tcp()
        .with(format!("--ssl-cert={}", file("cert.pem", certificate.pem()).display()))
        .with(format!("--ssl-key={}", file("key.pem", key.serialize_pem()).display()));
    (server(options), ca)
}

#[test]
fn tls_is_as_strict_as_it_is_told_to_be() {
    let runtime = runtime();
    let directory = tempfile::tempdir().unwrap();
    let (server, ca) = with_tls("db.example", directory.path());
    server.sql("CREATE USER t@'%' IDENTIFIED BY 'p' REQUIRE SSL").unwrap();
    server.sql("GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO t@'%'").unwrap();
    let port = server.port().unwrap();
    let dsn = |mode, ca: Option<&Path>, name: Option<&str>| {
        let mut dsn = Dsn::new(Server::Tcp("127.0.0.1".to_owned(), port), "t");
        dsn.password = Password::Text("p".to_owned());
        (dsn.tls.mode, dsn.tls.ca, dsn.tls.name) = (mode, ca.map(Path::to_owned), name.map(str::to_owned));
        dsn
    };
    for good in [dsn(TlsMode::Require, None, None), dsn(TlsMode::Verify, Some(&ca), Some("db.example"))] {
        let end = FarEnd::new();
        let source = start_from(&runtime, good, &end);
        wait_state(&source, "streaming");
        caught_up(&runtime, &source);
        runtime.block_on(source.stop());
    }
    for (bad, why) in [
        (dsn(TlsMode::Verify, Some(&ca), Some("other.example")), "certificate"),
        (dsn(TlsMode::Verify, None, Some("db.example")), "certificate"),
        (dsn(TlsMode::Off, None, None), "Access denied"),
        (dsn(TlsMode::Verify, Some(&directory.path().join("none.pem")), None), "none.pem"),
    ] {
        let end = FarEnd::new();
        let source = start_from(&runtime, bad.clone(), &end);
        let status = wait_state(&source, "refused");
        assert!(error(&status).contains(why), "{:?}: {}", bad.tls, error(&status));
        runtime.block_on(source.stop());
    }
}

#[test]
fn mysql_is_followed_by_its_sets_of_gtids() {
    use ehpc_tools::database::MySql56;
    let runtime = runtime();
    let mut primary = MySql56::start(gtids().tcp()).unwrap();
    let mut replica = MySql56::start(gtids().server_id(2)).unwrap();
    primary.sql(TABLE).unwrap();
    let port = primary.port().unwrap();
    replica
        .sql(&format!(
            "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={port}, MASTER_USER='root', MASTER_AUTO_POSITION=1; \
             START SLAVE"
        ))
        .unwrap();
    let end = FarEnd::new();
    let servers = vec![root(&primary.socket()), root(&replica.socket())];
    let source = Source::start(runtime.handle(), options(servers, &end));
    primary.sql("INSERT INTO d.t VALUES (1)").unwrap();
    caught_up(&runtime, &source);
    let held = source.status().gtid;
    let waited = replica.sql(&format!("SELECT WAIT_UNTIL_SQL_THREAD_AFTER_GTIDS('{held}', 30)")).unwrap();
    assert_ne!(waited[0][0], "-1");
    primary.kill9().unwrap();
    replica.sql("STOP SLAVE; RESET SLAVE ALL; FLUSH BINARY LOGS; INSERT INTO d.t VALUES (2)").unwrap();
    wait("the new lineage", || end.contents.lock().lineages.len() == 2);
    caught_up(&runtime, &source);
    {
        let contents = end.contents.lock();
        let (lineage, joined) = &contents.lineages[1];
        assert_eq!(
            (lineage.server_id, lineage.first_file.as_str()),
            (2, "bin.000002"),
            "the newest file that will do"
        );
        assert_eq!(joined.as_ref().unwrap().gtid, held);
    }
    let executed = &replica.sql("SELECT @@GLOBAL.gtid_executed").unwrap()[0][0];
    let executed: String = executed.replace("\\n", "").split_whitespace().collect();
    assert_eq!(source.status().gtid, executed);

    // Behind a file that is complete, the history goes on in the next.
    replica.sql("FLUSH BINARY LOGS; INSERT INTO d.t VALUES (3)").unwrap();
    caught_up(&runtime, &source);
    runtime.block_on(source.stop());
    let newest = end.contents.lock().files.pop().unwrap();
    let source = start_from(&runtime, root(&replica.socket()), &end);
    caught_up(&runtime, &source);
    runtime.block_on(source.stop());
    assert_eq!(end.files().last().unwrap().bytes, newest.bytes);
    // The newest file and the end of the one before are lost, and their numbers are given out again.
    replica.kill9().unwrap();
    next_second();
    let file = |name: &str| replica.datadir().join(name);
    std::fs::remove_file(file("bin.000003")).unwrap();
    std::fs::write(file("bin.index"), "./bin.000001\n./bin.000002\n").unwrap();
    let second = std::fs::read(file("bin.000002")).unwrap();
    let cut = last_group(&second).start;
    std::fs::write(file("bin.000002"), &second[..cut as usize]).unwrap();
    replica.restart().unwrap();
    let insert = "INSERT INTO d.t VALUES";
    replica.sql(&format!("{insert} (12); {insert} (13); {insert} (14); {insert} (15)")).unwrap();
    for popped in [false, true] {
        if popped {
            end.contents.lock().files.pop();
        }
        let source = start_from(&runtime, root(&replica.socket()), &end);
        let status = wait_state(&source, "ahead");
        assert!(error(&status).contains("accept-loss"), "{}", error(&status));
        runtime.block_on(source.stop());
    }
    assert_eq!(end.contents.lock().lineages.len(), 2);
}
