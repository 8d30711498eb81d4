//! One real server a finding: it is found, what it prints is done, and it is gone.

use super::*;
use crate::database::sql::{Dsn, Password};
use crate::settings::{Database, DatabaseAddress, Durability, Seconds, Standby, StandbyMode};
use ehpc_tools::database::{Maria, MySql56, Options};
use std::path::Path;
use std::time::Duration;

fn settings() -> Database {
    let address = DatabaseAddress::Socket("/run/mysqld/mysqld.sock".into());
    Database::at(vec![address], Path::new("/backup"))
}

fn found_at(dsn: &Dsn, settings: &Database) -> Vec<Finding> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut sql = Sql::connect(dsn).await.unwrap();
        check(&mut sql, settings).await.unwrap()
    })
}

fn root(server: &Maria) -> Dsn {
    Dsn::socket(server.socket(), "root")
}

fn of<'a>(findings: &'a [Finding], name: &str) -> &'a Finding {
    match findings.iter().find(|finding| finding.name == name) {
        Some(finding) => finding,
        None => panic!("no finding {name} in {findings:#?}"),
    }
}

/// Arguments that say what the lines of a configuration file say.
fn arguments(lines: &[String]) -> Vec<String> {
    lines.iter().map(|line| format!("--{}", line.replace(" = ", "="))).collect()
}

/// Starts a server that is wrong, and does what the finding says: SQL when it has any, else the file and a restart.
fn repaired(name: &str, severity: Severity, options: Options, settings: &Database) {
    let mut server = Maria::start(options.clone()).unwrap();
    let findings = found_at(&root(&server), settings);
    let finding = of(&findings, name);
    assert_eq!(finding.severity, severity, "{finding}");
    assert_eq!(findings.len(), 1, "nothing else is wrong: {findings:#?}");
    if finding.repair_sql.is_empty() {
        let mut lines: Vec<String> = options.arguments.clone();
        lines.extend(arguments(&finding.repair_cnf));
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        server.set_arguments(&lines);
        server.restart().unwrap();
    } else {
        server.sql(&format!("{};", finding.repair_sql.join(";\n"))).unwrap();
    }
    assert_eq!(found_at(&root(&server), settings), Vec::new(), "after {finding}");
    // Its other line is right too: a server that starts with it has nothing to complain of.
    if !finding.repair_sql.is_empty() && !finding.repair_cnf.is_empty() {
        let mut lines: Vec<String> = options.arguments;
        lines.extend(arguments(&finding.repair_cnf));
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        server.set_arguments(&lines);
        server.restart().unwrap();
        assert_eq!(found_at(&root(&server), settings), Vec::new(), "after a restart with {finding}");
    }
}

#[test]
fn a_good_server_has_no_findings() {
    let server = Maria::start(Options::default()).unwrap();
    assert_eq!(found_at(&root(&server), &settings()), Vec::new());
    // The same server with another clock.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let facts = runtime.block_on(async {
        let mut sql = Sql::connect(&root(&server)).await.unwrap();
        Facts::ask(&mut sql).await.unwrap()
    });
    let judged = |clock_ahead| judge(&Facts { clock_ahead, ..facts.clone() }, &settings());
    assert_eq!((judged(5), judged(-5)), (Vec::new(), Vec::new()));
    let (ahead, behind) = (judged(3600), judged(-6));
    assert!(of(&ahead, "clock").what.contains("3600 s ahead of"), "{ahead:?}");
    assert!(of(&behind, "clock").what.contains("6 s behind"), "{behind:?}");
    // With commits that wait for the backup.
    let remote = Database { durability: Durability::Remote, ..settings() };
    let waits = |timeout: u64| {
        let mut facts = facts.clone();
        for (name, value) in
            [("enabled", "ON"), ("wait_point", "AFTER_SYNC"), ("timeout", &timeout.to_string())]
        {
            facts.variables.insert(format!("rpl_semi_sync_master_{name}"), value.to_owned());
        }
        judge(&facts, &remote)
    };
    assert_eq!(waits(60_000), Vec::new());
    let long = waits(60_001);
    assert!(of(&long, "semi_sync_timeout").why.contains("before it opens its socket"), "{long:?}");
    assert_eq!(
        of(&long, "semi_sync_timeout").repair_sql,
        ["SET GLOBAL rpl_semi_sync_master_timeout = 60000"]
    );
}

#[test]
fn no_binary_log() {
    repaired("log_bin", Severity::Error, Options { log_bin: false, ..Options::default() }, &settings());
}

#[test]
fn binlog_formats() {
    repaired(
        "binlog_format",
        Severity::Error,
        Options::default().with("--binlog-format=STATEMENT"),
        &settings(),
    );
    repaired(
        "binlog_format",
        Severity::Warning,
        Options::default().with("--binlog-format=MIXED"),
        &settings(),
    );
}

#[test]
fn row_image() {
    let options = Options::default().with("--binlog-row-image=MINIMAL");
    repaired("binlog_row_image", Severity::Warning, options, &settings());
}

#[test]
fn server_id_clashes() {
    let mut settings = settings();
    settings.server_id = 77;
    repaired("server_id", Severity::Error, Options::default().server_id(77), &settings);
    settings.server_id = 1;
    settings.standby = Some(Standby {
        mode: StandbyMode::Managed,
        datadir: "/x".into(),
        server_id: 78,
        address: DatabaseAddress::Socket("/x/s".into()),
        user: "root".into(),
        password_file: None,
        options: Vec::new(),
    });
    repaired("server_id", Severity::Error, Options::default().server_id(78), &settings);
}

#[test]
fn retention() {
    let mut settings = settings();
    settings.base_every = Seconds(Duration::from_secs(3 * 86_400 + 1));
    let days = Options::default().with("--expire-logs-days=3");
    repaired("retention", Severity::Error, days, &settings);
    let seconds = Options::default().with("--binlog-expire-logs-seconds=3600");
    repaired("retention", Severity::Error, seconds, &settings);
    let server = Maria::start(Options::default().with("--expire-logs-days=4")).unwrap();
    assert_eq!(found_at(&root(&server), &settings), Vec::new());
}

#[test]
fn checksum() {
    repaired(
        "binlog_checksum",
        Severity::Warning,
        Options::default().with("--binlog-checksum=NONE"),
        &settings(),
    );
}

#[test]
fn gtid_strictness() {
    repaired(
        "gtid_strict_mode",
        Severity::Advice,
        Options::default().with("--gtid-strict-mode=0"),
        &settings(),
    );
}

#[test]
fn packets_and_syncing() {
    let options = Options::default().with("--max-allowed-packet=1M");
    repaired("max_allowed_packet", Severity::Warning, options, &settings());
    let options = Options::default().with("--sync-binlog=0").with("--innodb-flush-log-at-trx-commit=2");
    repaired("sync_binlog", Severity::Advice, options, &settings());
}

#[test]
fn encrypted_log() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    std::fs::write(
        &keys,
        format!("1;{}\n", "a7addd9adea9978fda19f21e6be987880e68ac92632ca052e5bb42b1a506939a"),
    )
    .unwrap();
    let options = Options::default()
        .with("--plugin-load-add=file_key_management")
        .with(format!("--file-key-management-filename={}", keys.display()))
        .with("--encrypt-binlog=1");
    repaired("encrypt_binlog", Severity::Error, options, &settings());
}

#[test]
fn semi_sync() {
    let mut settings = settings();
    settings.durability = Durability::Remote;
    let good = |timeout: &str, point: &str, enabled: &str| {
        Options::default()
            .with(format!("--rpl-semi-sync-master-timeout={timeout}"))
            .with(format!("--rpl-semi-sync-master-wait-point={point}"))
            .with(format!("--rpl-semi-sync-master-enabled={enabled}"))
    };
    repaired("semi_sync", Severity::Error, good("10000", "AFTER_SYNC", "0"), &settings);
    repaired("semi_sync_wait_point", Severity::Warning, good("10000", "AFTER_COMMIT", "1"), &settings);
    repaired("semi_sync_timeout", Severity::Warning, good("9999", "AFTER_SYNC", "1"), &settings);
}

#[test]
fn engines() {
    let mut settings = settings();
    let server = Maria::start(Options::default()).unwrap();
    server
        .sql(
            "CREATE DATABASE `d``1`; CREATE TABLE `d``1`.`t``ä` (a INT) ENGINE = Aria;
             CREATE TABLE `d``1`.m (a INT) ENGINE = MyISAM; CREATE TABLE `d``1`.i (a INT) ENGINE = InnoDB;
             CREATE SEQUENCE `d``1`.s; CREATE VIEW `d``1`.v AS SELECT 1;",
        )
        .unwrap();
    let findings = found_at(&root(&server), &settings);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    let finding = of(&findings, "engine");
    assert!(finding.what.ends_with("`d``1`.`m` (MyISAM), `d``1`.`t``ä` (Aria)"), "{finding}");
    settings.base_lock = true;
    assert_eq!(found_at(&root(&server), &settings), Vec::new());
    settings.base_lock = false;
    server.sql(&finding.repair_sql.join(";")).unwrap();
    assert_eq!(found_at(&root(&server), &settings), Vec::new());
}

#[test]
fn filters() {
    let mut server = Maria::start(Options::default().with("--binlog-ignore-db=secret")).unwrap();
    let findings = found_at(&root(&server), &settings());
    assert!(of(&findings, "binlog_filter").what.contains("leaves out the databases secret"), "{findings:#?}");
    server.set_arguments(&[]);
    server.restart().unwrap();
    assert_eq!(found_at(&root(&server), &settings()), Vec::new());
}

#[test]
fn a_replica_that_logs_nothing() {
    let options = Options::default().with("--skip-slave-start");
    let mut server = Maria::start(options).unwrap();
    let change = "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT=1, MASTER_USER='x'";
    server.sql(change).unwrap();
    let findings = found_at(&root(&server), &settings());
    let finding = of(&findings, "log_slave_updates");
    let lines = arguments(&finding.repair_cnf);
    let mut all = vec!["--skip-slave-start"];
    all.extend(lines.iter().map(String::as_str));
    server.set_arguments(&all);
    server.restart().unwrap();
    assert_eq!(found_at(&root(&server), &settings()), Vec::new());
}

#[test]
fn privileges_are_granted_by_what_is_printed() {
    let mut settings = settings();
    settings.user = "ba'ckup".to_owned();
    settings.address = vec![DatabaseAddress::Socket("/x".into())];
    let server = Maria::start(Options::default()).unwrap();
    server.sql("CREATE USER 'ba''ckup'@localhost IDENTIFIED BY 'pw'; GRANT SELECT ON *.* TO 'ba''ckup'@localhost").unwrap();
    let dsn = Dsn::socket(server.socket(), "ba'ckup").with_password(Password::Text("pw".into()));
    for locked in [false, true] {
        settings.base_lock = locked;
        let findings = found_at(&dsn, &settings);
        let finding = of(&findings, "privileges");
        assert!(!finding.repair_sql[0].contains("SELECT"), "only what lacks: {finding}");
        server.sql(&finding.repair_sql[0]).unwrap();
        let left = found_at(&dsn, &settings);
        assert!(left.iter().all(|left| left.name == "comparing"), "after {finding}: {left:#?}");
        if locked {
            // What makes comparing better is advice.
            assert_eq!(left[0].severity, Severity::Advice);
            server.sql(&left[0].repair_sql[0]).unwrap();
            assert_eq!(found_at(&dsn, &settings), Vec::new());
        }
    }
    // The whole account, for a server that does not know it.
    settings.user = "fresh".to_owned();
    settings.password_file = Some("/etc/pw".into());
    let dialect = Dialect::detect("10.11.1-MariaDB", "").unwrap();
    let statements =
        account_sql(dialect, &settings).join(";\n").replace("the password of password_file", "pw2");
    server.sql(&statements).unwrap();
    let dsn = Dsn::socket(server.socket(), "fresh").with_password(Password::Text("pw2".into()));
    let left = found_at(&dsn, &settings);
    assert_eq!(left.iter().map(|left| left.name.as_str()).collect::<Vec<_>>(), ["comparing"]);
    // Where commits wait for us, a connection in reserve is worth a privilege.
    settings.durability = Durability::Remote;
    let advised = found_at(&dsn, &settings);
    let reserve = of(&advised, "max_connections");
    assert_eq!(reserve.repair_sql, ["GRANT CONNECTION ADMIN ON *.* TO 'fresh'@'localhost'"]);
    server.sql(&reserve.repair_sql[0]).unwrap();
    assert!(found_at(&dsn, &settings).iter().all(|finding| finding.name != "max_connections"));
    settings.durability = Durability::Local;
    // Of several servers the source asks which are replicas.
    settings.address.push(DatabaseAddress::Socket("/y".into()));
    let several = found_at(&dsn, &settings);
    let replica = of(&several, "privileges");
    assert_eq!(replica.repair_sql, ["GRANT SLAVE MONITOR ON *.* TO 'fresh'@'localhost'"]);
    server.sql(&replica.repair_sql[0]).unwrap();
    assert!(found_at(&dsn, &settings).iter().all(|finding| finding.name != "privileges"));
    settings.address.pop();
    // By a role.
    server.sql("CREATE ROLE r; GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, REPLICATION SLAVE, BINLOG MONITOR, LOCK TABLES, RELOAD, PROCESS, BINLOG ADMIN ON *.* TO r; CREATE USER viarole; GRANT r TO viarole; SET DEFAULT ROLE r FOR viarole").unwrap();
    assert_eq!(found_at(&Dsn::socket(server.socket(), "viarole"), &settings), Vec::new());
}

#[test]
fn mysql_56() {
    let mut settings = settings();
    settings.durability = Durability::Remote;
    let server = MySql56::start(Options::default()).unwrap();
    let dsn = Dsn::socket(server.socket(), "root");
    let findings = found_at(&dsn, &settings);
    let names: Vec<&str> = findings.iter().map(|finding| finding.name.as_str()).collect();
    assert!(names.contains(&"gtid_mode"), "{names:?}");
    assert!(of(&findings, "semi_sync").repair_sql[0].starts_with("INSTALL PLUGIN"), "{names:?}");
}

#[test]
fn grants_are_read() {
    let lines = [
        "GRANT SELECT, REPLICATION SLAVE ON *.* TO `a`@`b` IDENTIFIED BY PASSWORD '*X'",
        "GRANT ALL PRIVILEGES ON `db`.* TO `a`@`b`",
        "GRANT r TO `a`@`b`",
    ]
    .map(str::to_owned);
    let found = facts::global_privileges(&lines);
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["REPLICATION SLAVE", "SELECT"]);
}

#[test]
fn a_finding_reads_well() {
    let finding = Finding {
        name: "x".into(),
        severity: Severity::Error,
        what: "a is b".into(),
        why: "c".into(),
        repair_sql: vec!["SET GLOBAL a = 1".into()],
        repair_cnf: vec!["a = 1".into()],
        or_else: Some("d".into()),
    };
    assert_eq!(
        finding.to_string(),
        "error: a is b: c\n    SQL     SET GLOBAL a = 1;\n    my.cnf  a = 1   # [mysqld]: keeps it so\n    or      d"
    );
}
