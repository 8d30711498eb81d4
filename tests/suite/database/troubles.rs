//! Servers, accounts and clocks that are wrong: each is named with what helps, and once that is done all is well without
//! a restart of ours.

use crate::scratch;
use ehpc_tools::database::{Clock, Maria, Options, Stack};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Waits until nfs1 says this; its words, which `db status` has too.
fn told(stack: &Stack, state: &str, words: &[&str]) -> String {
    let mut said = String::new();
    let source = || stack.status("nfs1").map(|status| status["source"].clone());
    let holds = || {
        let Ok(source) = source() else { return false };
        said = source["last_error"].as_str().unwrap_or_default().to_owned();
        source["state"] == state && words.iter().all(|word| said.contains(word))
    };
    let found = stack.wait(&format!("{state}, with {words:?}"), holds);
    found.unwrap_or_else(|error| panic!("{error:#}\nsaid: {said}"));
    let (status, out, _) = stack.command("nfs1", &["db", "status"]).unwrap();
    assert!(status == 1 && words.iter().all(|word| out.contains(word)), "{out}");
    said
}

fn streams(stack: &Stack) {
    let well = || stack.status("nfs1").is_ok_and(|status| status["source"]["well"] == true);
    stack.wait("it streams", well).unwrap();
}

/// Whether something in the preflight's findings of nfs1 has these words.
fn found(stack: &Stack, words: &str) -> bool {
    let status = stack.status("nfs1").unwrap_or_default();
    let findings = status["source"]["findings"].as_array().cloned().unwrap_or_default();
    findings.iter().any(|finding| finding.as_str().unwrap_or_default().contains(words))
}

/// An authority, and a certificate and key of `db.example` that are signed by it.
fn authority(directory: &Path) -> (String, PathBuf, PathBuf) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = parameters.self_signed(&key).unwrap().pem();
    let issuer = rcgen::Issuer::new(parameters, key);
    let key = rcgen::KeyPair::generate().unwrap();
    let named = rcgen::CertificateParams::new(vec!["db.example".to_owned()]).unwrap();
    let (certificate, path) = (named.signed_by(&key, &issuer).unwrap().pem(), directory.join("cert.pem"));
    std::fs::write(&path, certificate).unwrap();
    std::fs::write(directory.join("key.pem"), key.serialize_pem()).unwrap();
    (ca, path, directory.join("key.pem"))
}

#[test]
fn what_is_wrong_with_the_server_is_named_and_well_again_when_repaired() {
    let directory = scratch::directory();
    let at = |name: &str| directory.path().join(name);
    let clock = Clock::new(&at("clock")).unwrap();
    let mut server = Maria::start(Options::default().tcp().within(clock.environment())).unwrap();
    server.sql("CREATE USER ehpc@'%' IDENTIFIED BY 'right'").unwrap();
    let mut secret = std::fs::OpenOptions::new();
    let mut secret = secret.write(true).create_new(true).mode(0o600).open(at("password")).unwrap();
    std::io::Write::write_all(&mut secret, b"right\n").unwrap();
    let (ca, certificate, key) = authority(directory.path());
    let (another, ..) = authority(scratch::directory().path());
    std::fs::write(at("ca.pem"), another).unwrap();
    let lines = format!(
        "address = \"127.0.0.1:{}\"\nuser = \"ehpc\"\npassword_file = \"{}\"\nserver_id = 4200077\n\
         tls = \"verify\"\ntls_ca = \"{}\"\ntls_name = \"db.example\"",
        server.port().unwrap(),
        at("password").display(),
        at("ca.pem").display()
    );
    let mut stack = Stack::new(directory.path(), &lines).unwrap();
    stack.start().unwrap();

    // A server without TLS, where a certificate is to be verified.
    told(&stack, "refused", &["no TLS with the database server", "ssl_cert, ssl_key in the server's my.cnf"]);
    let (certificate, key) =
        (format!("--ssl-cert={}", certificate.display()), format!("--ssl-key={}", key.display()));
    server.set_arguments(&[&certificate, &key]);
    server.restart().unwrap();
    // One whose certificate is of another authority.
    told(&stack, "refused", &["certificate", "check tls, tls_ca and tls_name"]);
    std::fs::write(at("ca.pem"), ca).unwrap();
    // An account that may log in and nothing else; the statement that is printed helps.
    let said = told(&stack, "refused", &["lacks a privilege", "GRANT REPLICATION SLAVE"]);
    server.sql(said.split("as an administrator there: ").nth(1).unwrap()).unwrap();
    streams(&stack);

    // Another replica with the same number.
    let mut twin = Command::new("setpriv")
        .args([
            "--pdeathsig",
            "KILL",
            "mariadb-binlog",
            "--no-defaults",
            "--read-from-remote-server",
            "--raw",
        ])
        .args(["--stop-never", "--stop-never-slave-server-id=4200077", "--user=root", "bin.000001"])
        .arg(format!("--socket={}", server.socket().display()))
        .arg(format!("--result-file={}/", directory.path().display()))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    told(&stack, "server-id", &["server_id 4200077 too", "in [database] of the cluster file"]);
    twin.kill().unwrap();
    twin.wait().unwrap();
    streams(&stack);

    // The server's clock jumps ahead, and is set right. (It is looked at when the server is connected to, and now and then.)
    clock.set("+1d").unwrap();
    stack.wait("the server has jumped", || day_ahead(&server)).unwrap();
    disturb(&server);
    stack.wait("the clock is found", || found(&stack, "s ahead of this host's")).unwrap();
    let (status, out, _) = stack.command("nfs1", &["db", "status"]).unwrap();
    assert!(status == 1 && out.contains("timedatectl set-ntp true"), "{out}");
    clock.set("+0").unwrap();
    stack.wait("the server is back", || !day_ahead(&server)).unwrap();
    disturb(&server);
    stack.wait("the clock is right", || !found(&stack, "of this host's")).unwrap();

    // That of the whole host: what arrives then has such times, and the backup says for how long.
    stack.kill_nfs1().unwrap();
    clock.set("+1d").unwrap();
    stack.wait("the server has jumped", || day_ahead(&server)).unwrap();
    stack.environment = clock.environment();
    stack.start_nfs1().unwrap();
    streams(&stack);
    server.sql("CREATE DATABASE d").unwrap();
    stack.fence().unwrap();
    stack.kill_nfs1().unwrap();
    stack.environment.clear();
    stack.start_nfs1().unwrap();
    streams(&stack);
    let (status, out, _) = stack.command("backup", &["db", "status"]).unwrap();
    assert!(
        status == 1 && out.contains("in the future") && out.contains("--at latest"),
        "{out}{:#?}",
        stack.status("backup")
    );
}

fn day_ahead(server: &Maria) -> bool {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let there: u64 = server.value("SELECT UNIX_TIMESTAMP()").unwrap().parse().unwrap();
    there > now + 80_000
}

/// Ends the replica's connection.
fn disturb(server: &Maria) {
    let dumps =
        server.sql("SELECT id FROM information_schema.processlist WHERE command = 'Binlog Dump'").unwrap();
    for dump in dumps {
        // It may have ended by itself.
        let _ = server.sql(&format!("KILL {}", dump[0]));
    }
}
