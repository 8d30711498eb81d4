//! Servers of our own, loaded through the client; programs that are missing.

use super::*;
use crate::database::sql::Sql;
use ehpc_tools::process::wait_until;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

fn options(datadir: &Path, role: Role) -> MysqldOptions {
    MysqldOptions {
        datadir: datadir.to_owned(),
        role,
        server_id: 77,
        flavor: Flavor::MariaDb,
        socket: None,
        arguments: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_made_loaded_stopped_and_started_again() {
    let directory = tempfile::tempdir().unwrap();
    // Where the packages' own user can get there, the server runs as that user.
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let datadir = directory.path().join("data");
    let tools = Tools::default();
    Mysqld::init(&datadir, &tools, Flavor::MariaDb).await.unwrap();
    let error = Mysqld::init(&datadir, &tools, Flavor::MariaDb).await.unwrap_err();
    assert!(matches!(error, ServerError::NotEmpty { .. }), "{error}");
    // An installer that fails half-way leaves an empty directory.
    let (programs, half) = (directory.path().join("programs"), directory.path().join("half"));
    std::fs::create_dir(&programs).unwrap();
    let server = tools.find(Tool::Server, Flavor::MariaDb).unwrap().path;
    std::os::unix::fs::symlink(server, programs.join("mariadbd")).unwrap();
    let installer = programs.join("mariadb-install-db");
    std::fs::write(&installer, "#!/bin/sh\nmkdir mysql && echo x > ibdata1 && exit 1\n").unwrap();
    std::fs::set_permissions(&installer, std::fs::Permissions::from_mode(0o755)).unwrap();
    let error = Mysqld::init(&half, &Tools::new(Some(programs)), Flavor::MariaDb).await.unwrap_err();
    assert!(matches!(error, ServerError::Failed { .. }), "{error}");
    assert_eq!(std::fs::read_dir(&half).unwrap().count(), 0);
    let server = Mysqld::start(options(&datadir, Role::Standby), &tools).await.unwrap();
    let client = tools.find(Tool::Client, Flavor::MariaDb).unwrap();
    let dsn = server.dsn();
    let text = "CREATE DATABASE a; CREATE TABLE a.t (id INT PRIMARY KEY); INSERT INTO a.t VALUES (1), (2);\n\
                DELIMITER //\nCREATE PROCEDURE a.p() BEGIN INSERT INTO a.t VALUES (3); END //\nDELIMITER ;\nCALL a.p();\n";
    let (loader, target) = (client.clone(), dsn.clone());
    let load = move || {
        let mut client = Client::start(&loader, &target, LoadOptions { unlogged: true }).unwrap();
        let mut seen = 0;
        let never = AtomicBool::new(false);
        client.load(&mut text.as_bytes(), &mut |bytes| seen = bytes, &never).unwrap();
        assert_eq!(seen, text.len() as u64);
        client.finish(&never)
    };
    tokio::task::spawn_blocking(load).await.unwrap().unwrap();
    let mut sql = Sql::connect(&dsn).await.unwrap();
    assert_eq!(sql.number("SELECT COUNT(*) FROM a.t").await.unwrap(), Some(3));
    // Nothing that we did ourselves is in its binary log, and nobody else has an account.
    assert_eq!(sql.text("SELECT @@gtid_binlog_pos").await.unwrap().unwrap_or_default(), "");
    let users = sql.rows("SELECT User FROM mysql.user ORDER BY User").await.unwrap();
    let users: Vec<String> = users.iter().map(|row| row.string(0)).collect();
    assert_eq!(users, [ACCOUNT, "mariadb.sys"]);
    assert_eq!(sql.text("SELECT @@read_only").await.unwrap().as_deref(), Some("1"));
    // Not even a dropped account keeps us out the next time.
    sql.run(&format!("DROP USER '{ACCOUNT}'@'localhost'")).await.unwrap();
    server.stop().await.unwrap();
    assert!(!datadir.join("#sql-ehpc").exists());
    let server = Mysqld::start(options(&datadir, Role::Scratch), &tools).await.unwrap();
    let mut sql = Sql::connect(&server.dsn()).await.unwrap();
    assert_eq!(sql.number("SELECT COUNT(*) FROM a.t").await.unwrap(), Some(3));
    // What is ours in the data directory is no database.
    let databases = sql.rows("SHOW DATABASES").await.unwrap();
    let databases: Vec<String> = databases.iter().map(|row| row.string(0)).collect();
    assert_eq!(databases, ["a", "information_schema", "mysql", "performance_schema", "sys"]);
    let pid = server.pid();
    let user = std::fs::metadata(format!("/proc/{pid}")).unwrap().uid();
    let expected = crate::host::name_service::user_by_name("mysql").unwrap();
    assert_eq!(Some(user), expected.filter(|_| crate::host::privileges().euid == 0).or(Some(user)));
    server.discard().await;
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_start_and_a_text_that_fails_say_why() {
    let directory = tempfile::tempdir().unwrap();
    let datadir = directory.path().join("data");
    let tools = Tools::default();
    Mysqld::init(&datadir, &tools, Flavor::MariaDb).await.unwrap();
    let mut wrong = options(&datadir, Role::Scratch);
    wrong.arguments.push("--no-such-option=1".to_owned());
    let error = Mysqld::start(wrong, &tools).await.unwrap_err().to_string();
    assert!(error.contains("no-such-option"), "{error}");
    let mut long = options(&datadir, Role::Scratch);
    long.socket = Some(directory.path().join("s".repeat(120)));
    let error = Mysqld::start(long, &tools).await.unwrap_err().to_string();
    assert!(error.contains("107"), "{error}");
    let server = Mysqld::start(options(&datadir, Role::Scratch), &tools).await.unwrap();
    let (program, dsn) = (tools.find(Tool::Client, Flavor::MariaDb).unwrap(), server.dsn());
    let bad = move || {
        let mut client = Client::start(&program, &dsn, LoadOptions::default()).unwrap();
        let many = "SELECT * FROM nowhere.to_be_found;\n".repeat(100_000);
        let stop = AtomicBool::new(false);
        let result = client.load(&mut many.as_bytes(), &mut |_| {}, &stop).map(drop);
        let said = result.and_then(|()| client.finish(&stop)).unwrap_err().to_string();
        // A stop does not wait for what the server is busy with.
        let busy = || {
            let mut client = Client::start(&program, &dsn, LoadOptions::default()).unwrap();
            client.load(&mut &b"SELECT SLEEP(600);\n"[..], &mut |_| {}, &AtomicBool::new(false)).unwrap();
            client
        };
        let now = AtomicBool::new(true);
        assert!(matches!(busy().finish(&now), Err(ServerError::Stopped)));
        assert!(matches!(busy().write(&[b'\n'; 1 << 20], &now), Err(ServerError::Stopped)));
        said
    };
    let error = tokio::task::spawn_blocking(bad).await.unwrap();
    assert!(error.contains("ERROR 1146") && error.contains("nowhere"), "{error}");
    let pid = server.pid();
    drop(server);
    let gone = move || {
        wait_until("the dropped server's end", Duration::from_secs(60), || {
            !Path::new(&format!("/proc/{pid}")).exists()
        })
    };
    tokio::task::spawn_blocking(gone).await.unwrap().unwrap();
}

#[test]
fn a_missing_program_names_its_package() {
    let empty = tempfile::tempdir().unwrap();
    let tools = Tools::new(Some(empty.path().to_owned()));
    let error = tools.find(Tool::Dump, Flavor::MariaDb).unwrap_err().to_string();
    assert!(error.contains("mariadb-dump") && error.contains("mariadb-client"), "{error}");
    let error = tools.find(Tool::Server, Flavor::MySql).unwrap_err().to_string();
    assert!(error.contains("mysqld") && error.contains("mysql-server"), "{error}");
}

#[test]
fn programs_say_whose_they_are() {
    let tools = Tools::default();
    for tool in [Tool::Server, Tool::Dump, Tool::Binlog, Tool::Client] {
        let program = tools.find(tool, Flavor::MySql).unwrap();
        assert_eq!(program.flavor, Flavor::MariaDb, "{program}");
    }
    let dump = tools.find(Tool::Dump, Flavor::MariaDb).unwrap();
    assert!(dump.release() >= (10, 3), "{dump}");
    assert!(dump.knows("--gtid") && !dump.knows("--no-such-option"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_primary_has_all_that_a_source_needs() {
    let directory = tempfile::tempdir().unwrap();
    let datadir = directory.path().join("data");
    let tools = Tools::default();
    Mysqld::init(&datadir, &tools, Flavor::MariaDb).await.unwrap();
    let server = Mysqld::start(options(&datadir, Role::Private), &tools).await.unwrap();
    let mut sql = Sql::connect(&crate::database::dsn::Dsn::socket(server.socket(), "root")).await.unwrap();
    sql.run("CREATE DATABASE a").await.unwrap();
    let variables = [
        "log_bin",
        "binlog_format",
        "sync_binlog",
        "gtid_strict_mode",
        "rpl_semi_sync_master_enabled",
        "gtid_binlog_pos",
    ];
    let mut found = Vec::new();
    for name in variables {
        found.push(sql.variable(name).await.unwrap().unwrap());
    }
    assert_eq!(found, ["ON", "ROW", "1", "ON", "ON", "0-77-1"]);
    server.stop().await.unwrap();
}
