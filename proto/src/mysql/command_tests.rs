//! Commands: what real replicas sent, and everything back and forth.

use super::*;

#[test]
fn commands_come_back() {
    let commands = [
        Command::Quit,
        Command::Ping,
        Command::query("SELECT 1"),
        Command::RegisterReplica(RegisterReplica {
            server_id: 4_200_001,
            host: "backup".into(),
            user: "repl".into(),
            port: 3306,
        }),
        Command::BinlogDump(BinlogDump {
            position: 4,
            flags: DUMP_ANNOTATE,
            server_id: 9,
            file: "bin.000001".into(),
        }),
        Command::BinlogDumpGtid(BinlogDumpGtid {
            flags: DUMP_THROUGH_GTID,
            server_id: 9,
            file: String::new(),
            position: 4,
            set: vec![0; 8],
        }),
        Command::Other(0x1f),
    ];
    for command in commands {
        let bytes = command.encode();
        assert_eq!(Command::decode(&bytes).unwrap(), command);
        for cut in 0..bytes.len() {
            let _no_panic = Command::decode(&bytes[..cut]);
        }
    }
}

#[test]
fn a_dump_is_written_as_a_replica_writes_it() {
    let dump = BinlogDump { position: 4, flags: 2, server_id: 4_200_001, file: "bin.000007".into() };
    assert_eq!(Command::BinlogDump(dump).encode(), b"\x12\x04\0\0\0\x02\0\x41\x16\x40\0bin.000007");
}

#[test]
fn an_acknowledgement_is_written_as_a_replica_writes_it() {
    let ack = SemiSyncAck { position: 1234, file: "bin.000001".into() };
    let bytes = ack.encode();
    assert_eq!(bytes, b"\xef\xd2\x04\0\0\0\0\0\0bin.000001");
    assert_eq!(SemiSyncAck::decode(&bytes).unwrap(), ack);
    assert!(SemiSyncAck::decode(b"\xee\0\0\0\0\0\0\0\0").is_err());
}

#[test]
fn names_and_sets_longer_than_they_may_be_are_refused() {
    let mut bytes = b"\x12\x04\0\0\0\x02\0\x41\x16\x40\0".to_vec();
    bytes.resize(bytes.len() + 256, b'x');
    assert!(Command::decode(&bytes).is_err());
    let huge_name = b"\x1e\0\0\x01\0\0\0\xff\xff\xff\xffx";
    assert!(Command::decode(huge_name).is_err());
    let huge_set = b"\x1e\0\0\x01\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\xff\xff\xff\xffx";
    assert!(Command::decode(huge_set).is_err());
}
