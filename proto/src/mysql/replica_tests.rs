//! The replica's dialogue against the server's half of the codec, and against what a real server said.

use super::*;
use crate::mysql::auth::native;
use crate::mysql::packet::Assembler;
use crate::mysql::response::{OkPacket, TextResult};

fn plan(dialect: Flavor) -> Plan {
    Plan {
        dialect,
        server_id: 4_200_001,
        start: Start::File { name: "bin.000003".to_owned(), position: 4711 },
        heartbeat: Duration::from_secs(1),
        semi_sync: false,
        annotate: true,
        non_blocking: false,
    }
}

fn dialogue(plan: Plan, tls: TlsWish) -> ReplicaDialogue {
    let credentials = Credentials { user: "ehpc".to_owned(), password: b"secret".to_vec() };
    ReplicaDialogue::new(plan, credentials, tls)
}

fn greeting(capabilities: u32) -> Greeting {
    Greeting {
        version: "5.5.5-10.11.19-MariaDB-log".to_owned(),
        connection_id: 31,
        seed: b"12345678abcdefghijkl".to_vec(),
        capabilities,
        charset: CHARSET_UTF8MB4,
        status: 2,
        method: "mysql_native_password".to_owned(),
    }
}

const ALL: u32 = capability::PROTOCOL_41
    | capability::SECURE_CONNECTION
    | capability::PLUGIN_AUTH
    | capability::PLUGIN_AUTH_LENENC
    | capability::CONNECT_ATTRS
    | capability::SSL;

fn server_says(sequence: u8, payload: Vec<u8>) -> Packet {
    Packet { first: sequence, last: sequence, payload }
}

fn heard(say: &Say) -> Packet {
    let Say::Packet(bytes) = say else { panic!("{say:?} is not a packet") };
    Assembler::new(1 << 20).feed(&mut bytes.as_slice()).unwrap().unwrap()
}

fn row(value: &str) -> Vec<Vec<u8>> {
    let rows = vec![vec![Some(value.as_bytes().to_vec())]];
    TextResult { columns: vec!["@master_binlog_checksum".into()], rows }.encode()
}

/// Plays a server after the login that answers everything; what was asked, and what the dialogue did last.
fn played(dialogue: &mut ReplicaDialogue, mut says: Vec<Say>, checksum: &str) -> (Vec<Command>, Say) {
    let mut asked = Vec::new();
    loop {
        let packet = heard(&says[0]);
        assert_eq!(packet.first, 0, "each command begins at 0");
        let command = Command::decode(&packet.payload).unwrap();
        asked.push(command.clone());
        if let Some(last) = says.get(1) {
            return (asked, last.clone());
        }
        let answers = match command {
            Command::Query(sql) if sql.starts_with(b"SELECT") => row(checksum),
            _ => vec![Response::Ok(OkPacket::default()).encode()],
        };
        for (n, answer) in answers.into_iter().enumerate() {
            says = dialogue.received(&server_says(n as u8 + 1, answer)).unwrap();
        }
    }
}

fn logged_in(dialogue: &mut ReplicaDialogue) -> Vec<Say> {
    let says = dialogue.received(&server_says(0, greeting(ALL).encode())).unwrap();
    let login = heard(&says[0]);
    assert_eq!(login.first, 1);
    let login = Login::decode(&login.payload).unwrap();
    assert_eq!((login.user.as_str(), login.capabilities & capability::SSL), ("ehpc", 0));
    assert_eq!(login.answer, native(b"secret", b"12345678abcdefghijkl"));
    dialogue.received(&server_says(2, Response::Ok(OkPacket::default()).encode())).unwrap()
}

fn texts(asked: &[Command]) -> Vec<String> {
    let text = |command: &Command| match command {
        Command::Query(sql) => String::from_utf8(sql.clone()).unwrap(),
        Command::RegisterReplica(replica) => format!("register {}", replica.server_id),
        Command::BinlogDump(dump) => format!("dump {} {} flags {}", dump.file, dump.position, dump.flags),
        other => format!("{other:?}"),
    };
    asked.iter().map(text).collect()
}

#[test]
fn mariadb_hears_what_its_own_replica_says() {
    let mut dialogue = dialogue(Plan { semi_sync: true, ..plan(Flavor::MariaDb) }, TlsWish::Socket);
    let says = logged_in(&mut dialogue);
    let (asked, last) = played(&mut dialogue, says, "CRC32");
    assert_eq!(
        texts(&asked),
        [
            "SET @master_heartbeat_period=1000000000",
            "SET @master_binlog_checksum=@@global.binlog_checksum",
            "SELECT @master_binlog_checksum",
            "SET @mariadb_slave_capability=4",
            "register 4200001",
            "SET @rpl_semi_sync_slave=1",
            "dump bin.000003 4711 flags 2",
        ]
    );
    assert_eq!(last, Say::Streaming { checksum: Checksum::Crc32 });
    assert_eq!((dialogue.version(), dialogue.connection_id()), ("5.5.5-10.11.19-MariaDB-log", 31));
}

#[test]
fn mysql_hears_its_names_and_may_have_no_checksums() {
    let mut dialogue = dialogue(plan(Flavor::MySql), TlsWish::Off);
    let says = logged_in(&mut dialogue);
    let (asked, last) = played(&mut dialogue, says, "NONE");
    let texts = texts(&asked);
    assert!(texts.iter().any(|text| text.contains("@slave_uuid='00401641-")), "{texts:?}");
    assert_eq!(texts.last().unwrap(), "dump bin.000003 4711 flags 0");
    assert_eq!(last, Say::Streaming { checksum: Checksum::None });
}

#[test]
fn a_server_without_checksums_is_not_asked_for_them() {
    let mut dialogue = dialogue(plan(Flavor::MySql), TlsWish::Off);
    let _heartbeat = logged_in(&mut dialogue);
    let ok = Response::Ok(OkPacket::default()).encode();
    dialogue.received(&server_says(1, ok)).unwrap();
    let unknown = ServerError::new(1193, "HY000", "Unknown system variable 'binlog_checksum'");
    let says = dialogue.received(&server_says(1, unknown.encode())).unwrap();
    let (asked, last) = played(&mut dialogue, says, "never asked");
    assert!(texts(&asked)[0].starts_with("SET @slave_uuid"));
    assert_eq!(last, Say::Streaming { checksum: Checksum::None });
}

#[test]
fn gtid_starts_are_said_in_each_dialect() {
    let start = Start::MariaGtid("0-1-6,1-2-9".to_owned());
    let mut maria = dialogue(Plan { start, ..plan(Flavor::MariaDb) }, TlsWish::Off);
    let says = logged_in(&mut maria);
    let (asked, _) = played(&mut maria, says, "CRC32");
    assert!(texts(&asked).contains(&"SET @slave_connect_state='0-1-6,1-2-9'".to_owned()));
    assert_eq!(texts(&asked).last().unwrap(), "dump  4 flags 2");

    let start = Start::MySqlGtid(vec![0; 8]);
    let mut mysql = dialogue(Plan { start, non_blocking: true, ..plan(Flavor::MySql) }, TlsWish::Off);
    let says = logged_in(&mut mysql);
    let (asked, _) = played(&mut mysql, says, "CRC32");
    let Some(Command::BinlogDumpGtid(dump)) = asked.last() else { panic!("{asked:?}") };
    assert_eq!((dump.flags, dump.set.len()), (DUMP_THROUGH_GTID | DUMP_NON_BLOCK, 8));

    let start = Start::MariaGtid("0-1-6'; DROP TABLE t".to_owned());
    let mut bad = dialogue(Plan { start, ..plan(Flavor::MariaDb) }, TlsWish::Off);
    let says = bad.received(&server_says(0, greeting(ALL).encode())).unwrap();
    assert_eq!(heard(&says[0]).first, 1);
    let ok = server_says(2, Response::Ok(OkPacket::default()).encode());
    assert!(matches!(bad.received(&ok), Err(DialogueError::BadPlan(_))));
}

#[test]
fn tls_comes_before_the_name_of_the_account() {
    let mut dialogue = dialogue(plan(Flavor::MariaDb), TlsWish::On);
    let says = dialogue.received(&server_says(0, greeting(ALL).encode())).unwrap();
    let request = heard(&says[0]);
    assert!(SslRequest::decode(&request.payload).is_some());
    assert_eq!(says[1], Say::StartTls);
    let ok = Response::Ok(OkPacket::default()).encode();
    assert!(dialogue.received(&server_says(2, ok)).is_err(), "nothing is said before TLS stands");
    // (The fault was the server's; the dialogue would be dropped.)
    let says = {
        let mut dialogue = super::tests::dialogue(plan(Flavor::MariaDb), TlsWish::On);
        dialogue.received(&server_says(0, greeting(ALL).encode())).unwrap();
        dialogue.secured().unwrap()
    };
    let login = heard(&says[0]);
    assert_eq!(login.first, 2);
    assert!(Login::decode(&login.payload).unwrap().capabilities & capability::SSL != 0);

    let mut bare = super::tests::dialogue(plan(Flavor::MariaDb), TlsWish::On);
    let without = greeting(ALL & !capability::SSL).encode();
    assert_eq!(bare.received(&server_says(0, without)), Err(DialogueError::NoTls));
}

#[test]
fn refusals_say_what_was_asked() {
    let mut refused = dialogue(plan(Flavor::MariaDb), TlsWish::Off);
    refused.received(&server_says(0, greeting(ALL).encode())).unwrap();
    let denied = ServerError::new(1045, "28000", "Access denied for user 'ehpc'@'localhost'");
    let error = refused.received(&server_says(2, denied.encode())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "login: Access denied for user 'ehpc'@'localhost' (error 1045, SQLSTATE 28000)"
    );

    let mut refused = dialogue(plan(Flavor::MariaDb), TlsWish::Off);
    logged_in(&mut refused);
    let error = refused.received(&server_says(1, denied.encode())).unwrap_err();
    assert!(error.to_string().starts_with("`SET @master_heartbeat_period=1000000000`: Access denied"));

    let full = ServerError::new(1040, "08004", "Too many connections").encode_greeting();
    let error = dialogue(plan(Flavor::MariaDb), TlsWish::Off).received(&server_says(0, full)).unwrap_err();
    assert!(error.to_string().contains("Too many connections"), "{error}");
}

#[test]
fn a_packet_out_of_order_ends_the_dialogue() {
    let mut dialogue = dialogue(plan(Flavor::MariaDb), TlsWish::Off);
    logged_in(&mut dialogue);
    let ok = Response::Ok(OkPacket::default()).encode();
    let error = dialogue.received(&server_says(2, ok)).unwrap_err();
    assert!(matches!(error, DialogueError::OutOfOrder { expected: 1, found: 2, .. }), "{error}");
}

#[test]
fn no_password_is_shown() {
    let dialogue = dialogue(plan(Flavor::MariaDb), TlsWish::Off);
    let shown = format!("{dialogue:?}");
    assert!(!shown.contains("secret") && !shown.contains("115, 101"), "{shown}");
}

/// Replays a recorded conversation: the dialogue must say the same bytes. How it ended.
fn replayed(recorded: &str, mut dialogue: ReplicaDialogue) -> Result<Option<Say>, DialogueError> {
    let hex = |text: &str| -> Vec<u8> {
        (0..text.len()).step_by(2).map(|n| u8::from_str_radix(&text[n..n + 2], 16).unwrap()).collect()
    };
    let mut assembler = Assembler::new(dialogue.limit());
    let mut says: VecDeque<Say> = VecDeque::new();
    for line in recorded.lines().filter(|line| !line.starts_with('#')) {
        let (who, bytes) = line.split_once(' ').unwrap();
        let bytes = hex(bytes);
        if who == ">" {
            assert_eq!(says.pop_front(), Some(Say::Packet(bytes)));
            continue;
        }
        assert!(says.is_empty(), "the server speaks, but we had more to say: {says:?}");
        let mut bytes = bytes.as_slice();
        while let Some(packet) = assembler.feed(&mut bytes).unwrap() {
            says.extend(dialogue.received(&packet)?);
        }
    }
    Ok(says.pop_front())
}

#[test]
fn a_recorded_login_with_ed25519_is_spoken_again() {
    let start = Start::File { name: "bin.000001".to_owned(), position: 4 };
    let plan = Plan { server_id: 77, start, non_blocking: true, ..plan(Flavor::MariaDb) };
    let credentials = Credentials { user: "e".to_owned(), password: b"secret".to_vec() };
    let dialogue = ReplicaDialogue::new(plan, credentials, TlsWish::Socket);
    let end = replayed(include_str!("recorded/mariadb-10.11-ed25519.txt"), dialogue);
    assert_eq!(end, Ok(Some(Say::Streaming { checksum: Checksum::Crc32 })));
}

#[test]
fn a_recorded_refusal_names_the_command() {
    let start = Start::File { name: "bin.000001".to_owned(), position: 4 };
    let plan = Plan { server_id: 77, start, non_blocking: true, ..plan(Flavor::MariaDb) };
    let credentials = Credentials { user: "nopriv".to_owned(), password: b"secret".to_vec() };
    let dialogue = ReplicaDialogue::new(plan, credentials, TlsWish::Socket);
    let end = replayed(include_str!("recorded/mariadb-10.11-no-privilege.txt"), dialogue);
    let Err(DialogueError::Refused { command, error }) = end else { panic!("{end:?}") };
    assert_eq!((command.as_str(), error.code), ("COM_REGISTER_SLAVE", 1045));
}
