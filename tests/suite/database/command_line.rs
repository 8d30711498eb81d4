//! What a person is told when the server is not as a backup needs it, or not there.

use super::Scene;
use ehpc_tools::database::{Maria, Options};
use ehpc_tools::process::executable;
use std::process::{Command, Stdio};

#[test]
fn check_says_the_statement_that_repairs() {
    let scene = Scene::new(Options::default().with("--binlog-format=STATEMENT"), "");
    let (status, out, error) = scene.stack.command("nfs1", &["check"]).unwrap();
    assert_eq!(status, 1, "{out}{error}");
    let statement =
        out.lines().find_map(|line| line.trim().strip_prefix("SQL ")).unwrap_or_else(|| panic!("{out}"));
    scene.server.sql(statement.trim()).unwrap();
    let (status, out, error) = scene.stack.command("nfs1", &["check"]).unwrap();
    assert_eq!(status, 0, "{out}{error}");
}

#[test]
fn a_server_that_refuses_or_is_away_is_named_with_what_helps() {
    let mut scene = Scene::started(Options::default(), "");
    scene
        .stack
        .wait("it streams", || scene.stack.status("nfs1").is_ok_and(|s| s["source"]["well"] == true))
        .unwrap();
    // Nothing is lost: there is nothing to accept, neither now nor later.
    let (status, out, error) = scene.stack.command("nfs1", &["db", "accept-loss"]).unwrap();
    assert!(status != 0 && error.contains("there is no loss to accept"), "{out}{error}");
    scene.server.stop().unwrap();
    scene
        .stack
        .wait("it is seen", || scene.stack.status("nfs1").is_ok_and(|s| s["source"]["well"] == false))
        .unwrap();
    let (status, out, _) = scene.stack.command("nfs1", &["db", "status"]).unwrap();
    assert!(status == 1 && out.contains(scene.server.socket().to_str().unwrap()), "{out}");
    let (status, out, error) = scene.stack.command("nfs1", &["check"]).unwrap();
    assert!(status == 1 && out.contains("CREATE USER"), "{out}{error}");
    scene.server.restart().unwrap();
    scene
        .stack
        .wait("it streams again", || scene.stack.status("nfs1").is_ok_and(|s| s["source"]["well"] == true))
        .unwrap();
}

#[test]
fn a_wrong_password_is_refused_with_the_account() {
    let scene = Scene::new(Options::default(), "");
    scene.server.sql("CREATE USER ehpc@localhost IDENTIFIED BY 'right'").unwrap();
    let file = scene.path("password");
    std::fs::write(&file, "wrong\n").unwrap();
    std::process::Command::new("chmod").arg("600").arg(&file).status().unwrap();
    let mut scene = scene;
    let lines = format!(
        "address = \"{}\"\nuser = \"ehpc\"\npassword_file = \"{}\"",
        scene.server.socket().display(),
        file.display()
    );
    scene.stack.configure(&lines).unwrap();
    scene.stack.start().unwrap();
    scene
        .stack
        .wait("it is refused", || scene.stack.status("nfs1").is_ok_and(|s| s["source"]["state"] == "refused"))
        .unwrap();
    let status = scene.stack.status("nfs1").unwrap();
    let said = status["source"]["last_error"].as_str().unwrap();
    assert!(said.contains("ehpc") && !said.contains("wrong\n"), "{said}");
    // The right one helps without a restart, and so do the privileges that are named.
    let (_, out, _) = scene.stack.command("nfs1", &["check"]).unwrap();
    assert!(out.contains("GRANT"), "{out}");
    let grant = out.find("GRANT").map(|at| out[at..].split(';').next().unwrap().to_owned()).unwrap();
    scene.server.sql(&grant).unwrap();
    std::fs::write(&file, "right\n").unwrap();
    scene
        .stack
        .wait("it streams", || scene.stack.status("nfs1").is_ok_and(|s| s["source"]["well"] == true))
        .unwrap();
}

#[test]
fn an_encrypted_binary_log_is_refused_with_the_reason() {
    let directory = crate::scratch::directory();
    let keys = directory.path().join("keys");
    std::fs::write(
        &keys,
        format!("1;{}\n", "a7addd9adea9978fda19f21e6be987880e68ac92632ca052e5bb42b1a506939a"),
    )
    .unwrap();
    let options = Options::default()
        .with("--plugin-load-add=file_key_management")
        .with(format!("--file-key-management-filename={}", keys.display()))
        .with("--encrypt-binlog=1");
    let server = Maria::start(options).unwrap();
    let lines = format!("address = \"{}\"\nuser = \"root\"", server.socket().display());
    let stack = ehpc_tools::database::Stack::new(directory.path(), &lines).unwrap();
    let (status, out, error) = stack.command("nfs1", &["check"]).unwrap();
    assert!(status == 1 && out.contains("encrypt_binlog"), "{out}{error}");
}

#[test]
fn a_snapshot_that_nobody_waits_for_any_more_is_given_up() {
    let scene = Scene::started(Options::default(), "");
    scene.server.sql("CREATE DATABASE d; CREATE TABLE d.t (a INT); INSERT INTO d.t VALUES (1)").unwrap();
    // The first one is taken by itself.
    scene
        .stack
        .wait("a base", || scene.stack.status("backup").is_ok_and(|s| s["bases"]["count"] == 1))
        .unwrap();
    let running = || scene.stack.status("nfs1").map(|s| s["snapshot"]["running"].clone()).unwrap_or_default();
    scene.stack.wait("it is over", || running().is_null()).unwrap();
    let mut holder = scene.server.connect().unwrap();
    holder.run("LOCK TABLES d.t WRITE;").unwrap();
    let mut asker = Command::new(executable())
        .args(["db", "snapshot", "--host", "nfs1", "--cluster"])
        .arg(scene.stack.cluster_file())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    scene.stack.wait("it is being taken", || !running().is_null()).unwrap();
    asker.kill().unwrap();
    asker.wait().unwrap();
    scene.stack.wait("it is given up", || running().is_null()).unwrap();
    let status = scene.stack.status("nfs1").unwrap();
    assert!(status["snapshot"]["last_error"].is_null(), "{status:#}");
    holder.run("UNLOCK TABLES;").unwrap();
    scene.snapshot();
    let status = scene.stack.status("backup").unwrap();
    assert_eq!(status["bases"]["count"], 2, "{status:#}");
}
