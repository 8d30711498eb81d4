//! The table of answers: every statement that a replica was seen to send, and what is refused.

use super::*;

fn identity(flavor: Flavor) -> Identity {
    Identity {
        version: match flavor {
            Flavor::MariaDb => "10.11.19-MariaDB-log".to_owned(),
            Flavor::MySql => "5.6.24-log".to_owned(),
        },
        flavor,
        server_id: 7,
        server_uuid: (flavor == Flavor::MySql).then(|| "3e11fa47-71ca-11e1-9e33-c80aa9429562".to_owned()),
    }
}

fn ask(flavor: Flavor, sql: &str, wishes: &mut Wishes) -> Answer {
    let identity = identity(flavor);
    let state = GtidState::empty(flavor);
    answer(
        sql.as_bytes(),
        Now { unix: 1_700_000_000, identity: &identity, checksum: Checksum::Crc32, state: &state },
        wishes,
    )
}

fn single(answer: &Answer) -> Option<String> {
    match answer {
        Answer::Rows(rows) => {
            rows.rows.first()?.last()?.as_ref().map(|value| String::from_utf8(value.clone()).unwrap())
        }
        _ => panic!("{answer:?}"),
    }
}

#[test]
fn questions_of_mariadb() {
    let mut wishes = Wishes::default();
    let mut says = |sql: &str| single(&ask(Flavor::MariaDb, sql, &mut wishes));
    assert_eq!(says("SELECT UNIX_TIMESTAMP()").unwrap(), "1700000000");
    assert_eq!(says("SHOW VARIABLES LIKE 'SERVER_ID'").unwrap(), "7");
    assert_eq!(says("SELECT @master_binlog_checksum").unwrap(), "CRC32");
    assert_eq!(says("SELECT @@GLOBAL.gtid_domain_id").unwrap(), "0");
    assert_eq!(says("SHOW VARIABLES LIKE 'rpl_semi_sync_master_enabled'"), None);
    assert_eq!(says("SHOW VARIABLES LIKE 'SERVER_UUID'"), None);
    for sql in [
        "SET @master_heartbeat_period= 60000001024",
        "SET @master_binlog_checksum= @@global.binlog_checksum",
        "SET @mariadb_slave_capability=4",
        "SET @slave_connect_state='0-1-6,3-7-1'",
        "SET @slave_gtid_strict_mode=1",
        "SET @slave_gtid_ignore_duplicates=0",
        "SET @slave_until_gtid='0-1-9'",
        "SET NAMES utf8mb4",
    ] {
        assert_eq!(ask(Flavor::MariaDb, sql, &mut wishes), Answer::Ok, "{sql}");
    }
    let expected = Wishes {
        heartbeat: Some(Duration::from_secs(60)),
        checksums: true,
        capability: 4,
        connect_state: Some("0-1-6,3-7-1".parse().unwrap()),
        until: Some("0-1-9".parse().unwrap()),
    };
    assert_eq!(wishes, expected);
    assert_eq!(
        ask(Flavor::MariaDb, "SELECT binlog_gtid_pos('bin.000002',364)", &mut wishes),
        Answer::GtidPosition { file: "bin.000002".into(), position: 364 }
    );
}

#[test]
fn questions_of_mysql() {
    let mut wishes = Wishes::default();
    let mut says = |sql: &str| single(&ask(Flavor::MySql, sql, &mut wishes));
    assert_eq!(says("SHOW VARIABLES LIKE 'SERVER_UUID'").unwrap(), "3e11fa47-71ca-11e1-9e33-c80aa9429562");
    assert_eq!(says("SELECT @@GLOBAL.GTID_MODE").unwrap(), "OFF");
    assert_eq!(says("SELECT @@GLOBAL.SERVER_ID").unwrap(), "7");
    assert_eq!(says("SELECT @source_binlog_checksum").unwrap(), "CRC32");
    let set = "SET @master_heartbeat_period = 1000000, @source_heartbeat_period = 1000000";
    assert_eq!(ask(Flavor::MySql, set, &mut wishes), Answer::Ok);
    assert_eq!(wishes.heartbeat, Some(HEARTBEAT_MIN));
    let set = "SET @slave_uuid = '6e11fa47-71ca-11e1-9e33-c80aa9429562', @replica_uuid = 'x'";
    assert_eq!(ask(Flavor::MySql, set, &mut wishes), Answer::Ok);
    assert!(matches!(
        ask(Flavor::MySql, "SELECT @@global.rpl_semi_sync_source_enabled", &mut wishes),
        Answer::Err(ServerError { code: 1193, .. })
    ));
    assert_eq!(ask(Flavor::MySql, "KILL 5", &mut wishes), Answer::Kill(5));
    assert_eq!(ask(Flavor::MySql, "KILL QUERY 5", &mut wishes), Answer::Kill(5));
}

#[test]
fn anything_else_is_refused() {
    for sql in [
        "",
        "DROP DATABASE shop",
        "SELECT * FROM mysql.user",
        "SELECT",
        "SHOW",
        "SHOW TABLES",
        "SHOW VARIABLES",
        "SHOW VARIABLES LIKE 'server_id' OR 1",
        "SET GLOBAL read_only=0",
        "SET @@global.read_only=0",
        "SET @a",
        "SET @a='unfinished",
        "SET @a=(SELECT 1)",
        "KILL",
        "KILL x",
    ] {
        let answer = ask(Flavor::MariaDb, sql, &mut Wishes::default());
        assert!(matches!(&answer, Answer::Err(error) if error.code == 1235), "{sql}: {answer:?}");
    }
    let bad = ask(Flavor::MariaDb, "SET @slave_connect_state='0-1'", &mut Wishes::default());
    assert!(matches!(&bad, Answer::Err(error) if error.code == 1941), "{bad:?}");
    let bad = ask(Flavor::MariaDb, "SET @mariadb_slave_capability='x'", &mut Wishes::default());
    assert!(matches!(&bad, Answer::Err(error) if error.code == 1231), "{bad:?}");
    let identity = identity(Flavor::MariaDb);
    let state = GtidState::empty(Flavor::MariaDb);
    let now = Now { unix: 0, identity: &identity, checksum: Checksum::None, state: &state };
    assert!(matches!(answer(&[0xff, 0xfe], now, &mut Wishes::default()), Answer::Err(_)));
}

#[test]
fn refusals_are_short() {
    let long = format!("SELECT {}", "x".repeat(100_000));
    for answer in [
        ask(Flavor::MariaDb, &long, &mut Wishes::default()),
        ask(Flavor::MariaDb, &format!("SELECT @@{}", "x".repeat(100_000)), &mut Wishes::default()),
    ] {
        assert!(answer.packets().concat().len() < 1024);
    }
}

#[test]
fn the_banner_is_the_source_s() {
    assert_eq!(identity(Flavor::MariaDb).banner(), "5.5.5-10.11.19-MariaDB-log");
    assert_eq!(identity(Flavor::MySql).banner(), "5.6.24-log");
}

/// Random statements out of the words that the table knows: an answer is short, and nothing panics.
#[test]
fn random_statements() {
    const WORDS: &[&str] = &[
        "SET",
        "SELECT",
        "SHOW",
        "KILL",
        "GLOBAL",
        "VARIABLES",
        "LIKE",
        "NAMES",
        "'",
        "\"",
        "\\",
        "''",
        ",",
        "=",
        ":=",
        "@",
        "@@",
        "(",
        ")",
        ";",
        " ",
        "  ",
        "\n",
        "é",
        "binlog_gtid_pos",
        "@slave_connect_state",
        "@mariadb_slave_capability",
        "0-1-6",
        "'0-1-6'",
        "4",
        "18446744073709551616",
        "@@global.binlog_checksum",
        "UNIX_TIMESTAMP()",
        "'SERVER_ID'",
        "\0",
    ];
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut state = seed;
    let mut below = |end: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % end
    };
    for _ in 0..100_000 {
        let sql: String = (0..below(12)).map(|_| WORDS[below(WORDS.len())]).collect();
        let flavor = if below(2) == 0 { Flavor::MariaDb } else { Flavor::MySql };
        let answer = ask(flavor, &sql, &mut Wishes::default());
        assert!(answer.packets().concat().len() < 2048, "{sql}");
    }
}
