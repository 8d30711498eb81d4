//! Golden bytes, round trips and refusals of the database's lane.

use super::super::database::*;
use super::super::state::{Hash, Timestamp};
use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn lineage(number: u32) -> Lineage {
    Lineage {
        number,
        flavor: Flavor::MariaDb,
        server_id: 7,
        server_uuid: None,
        version: "10.11".to_owned(),
        first_file: "bin.000001".to_owned(),
        first_event: [9; 19],
    }
}

fn file() -> ArchivedFile {
    ArchivedFile { lineage: 1, ordinal: 2, name: "bin.000002".to_owned(), len: 300, closed: false }
}

const PLACE: Place = Place { lineage: 1, file: 2, offset: 300 };

fn to_archive() -> Vec<(ToArchive, &'static str)> {
    let time = Timestamp { seconds: 2, nanos: 1 };
    let joined = Joined { end: PLACE, gtid: "0-1-9".to_owned() };
    let nine = "09".repeat(19);
    let open = format!(
        "01020007000531302e31310a62696e2e303030303031{nine}0a62696e2e30303030303101010102fb2c0105302d312d39"
    );
    vec![
        (ToArchive::Hello { version: 1, source: "db".to_owned() }, "0001026462"),
        (
            ToArchive::Open {
                lineage: lineage(2),
                name: "bin.000001".to_owned(),
                ordinal: 1,
                joined: Some(joined),
            },
            open.leak(),
        ),
        (
            ToArchive::Bytes { offset: 4, arrived: time, bytes: Bytes::from_static(b"abc") },
            "0204040100000003616263",
        ),
        (ToArchive::Closed { name: "bin.000001".to_owned(), len: 300 }, "030a62696e2e303030303031fb2c01"),
        (
            ToArchive::Mark(Mark { time, place: PLACE, batch: 5, cut: 6, kind: MarkKind::Fence }),
            "0404010102fb2c01050601",
        ),
        (ToArchive::Ask { id: 3, query: DbQuery::Files { from: (0, 0) } }, "0503000000"),
        (
            ToArchive::Ask { id: 3, query: DbQuery::Hash { lineage: 1, ordinal: 2, from: 4, to: 300 } },
            "050301010204fb2c01",
        ),
        (
            ToArchive::Ask { id: 3, query: DbQuery::Refetch { lineage: 1, ordinal: 2, from: 4, to: 300 } },
            "050302010204fb2c01",
        ),
        (ToArchive::Patch { id: 3, offset: 4, bytes: Bytes::from_static(b"abc") }, "06030400000003616263"),
        (ToArchive::Ping(70_000), "07fc70110100"),
    ]
}

#[test]
fn messages_to_the_archive_have_these_bytes_forever() {
    for (message, expected) in to_archive() {
        let encoded = encode_to_archive(&message).joined();
        assert_eq!(hex(&encoded), expected, "{message:?}");
        assert_eq!(decode_to_archive(encoded.clone().into()).unwrap(), message);
        for length in 0..encoded.len() {
            let shorter = encoded[..length].to_vec();
            assert!(decode_to_archive(shorter.into()).is_err(), "{length} bytes of {message:?}");
        }
        let longer = [&encoded[..], &[0]].concat();
        assert!(matches!(decode_to_archive(longer.into()), Err(WireError::Trailing { extra: 1, .. })));
    }
}

#[test]
fn messages_to_the_source_have_these_bytes_forever() {
    let welcome = |lineage, file| ToSource::Welcome {
        version: 1,
        lineage,
        file,
        head: vec![0xfe],
        gtid: "0-1-9".to_owned(),
        credit: 250,
    };
    let nine = "09".repeat(19);
    let full = format!(
        "000101010007000531302e31310a62696e2e303030303031{nine}0101020a62696e2e303030303032fb2c010001fe05302d312d39fa"
    );
    let answer = |answer| ToSource::Answer { id: 3, more: false, answer };
    let messages = [
        (welcome(Some(lineage(1)), Some(file())), full.as_str()),
        (welcome(None, None), "000100000 1fe05302d312d39fa"),
        (ToSource::Durable(PLACE), "010102fb2c01"),
        (ToSource::Credit { bytes: 250 }, "02fa"),
        (answer(DbAnswer::Files(vec![file()])), "0303000001 01020a62696e2e303030303032fb2c0100"),
        (answer(DbAnswer::Refetched), "03030002"),
        (answer(DbAnswer::Failed { reason: "no".to_owned() }), "03030003026e6f"),
        (ToSource::Refused { reason: "no".to_owned() }, "04026e6f"),
        (ToSource::Pong(1), "0501"),
    ];
    for (message, expected) in messages {
        let encoded = encode_to_source(&message);
        assert_eq!(hex(&encoded), expected.replace(' ', ""), "{message:?}");
        assert_eq!(decode_to_source(&encoded).unwrap(), message);
    }
    let hash = answer(DbAnswer::Hash(Hash([2; 32])));
    assert_eq!(decode_to_source(&encode_to_source(&hash)).unwrap(), hash);
}

#[test]
fn a_piece_is_not_copied() {
    let bytes = Bytes::from(vec![7; 1000]);
    let message = ToArchive::Bytes { offset: 4, arrived: Timestamp::default(), bytes: bytes.clone() };
    let payload = encode_to_archive(&message);
    assert_eq!(payload.strings[0].as_ptr(), bytes.as_ptr());
    let whole = Bytes::from(payload.joined());
    let ToArchive::Bytes { bytes, .. } = decode_to_archive(whole.clone()).unwrap() else {
        panic!("another message")
    };
    assert!(whole.as_ptr_range().contains(&bytes.as_ptr()));
}

fn refused(message: &ToArchive) -> String {
    let encoded = encode_to_archive(message).joined();
    decode_to_archive(encoded.into()).expect_err("accepted").to_string()
}

#[test]
fn what_cannot_be_is_refused() {
    let piece = |offset, length| {
        let bytes = vec![0; length].into();
        refused(&ToArchive::Bytes { offset, arrived: Timestamp::default(), bytes })
    };
    assert!(piece(0, 0).contains("0 bytes"));
    assert!(piece(0, MAX_PIECE + 1).contains("262145"));
    assert!(piece(i64::MAX as u64, 1).contains("offset"));
    let patch = ToArchive::Patch { id: 1, offset: u64::MAX, bytes: vec![0; 1].into() };
    assert!(refused(&patch).contains("offset"));
    let arrived = Timestamp { seconds: 0, nanos: 1_000_000_000 };
    assert!(refused(&ToArchive::Bytes { offset: 0, arrived, bytes: vec![0].into() }).contains("nanoseconds"));
    let open = |lineage, name: &str, ordinal, joined| {
        refused(&ToArchive::Open { lineage, name: name.to_owned(), ordinal, joined })
    };
    assert!(open(lineage(0), "a.1", 1, None).contains("number is 0"));
    assert!(open(lineage(1), "a.1", 0, None).contains("ordinal is 0"));
    assert!(open(Lineage { first_file: "x".to_owned(), ..lineage(1) }, "a.1", 1, None).contains("name"));
    assert!(open(Lineage { version: "x".repeat(257), ..lineage(1) }, "a.1", 1, None).contains("version"));
    let after = |end, gtid: String| open(lineage(1), "a.1", 1, Some(Joined { end, gtid }));
    assert!(after(PLACE, String::new()).contains("goes on from lineage 1"));
    assert!(after(Place::default(), String::new()).contains("file 0"));
    let ask = |from, to| {
        refused(&ToArchive::Ask { id: 1, query: DbQuery::Refetch { lineage: 1, ordinal: 1, from, to } })
    };
    assert!(ask(5, 4).contains("bytes 5 to 4"));
    assert!(ask(4, 4).contains("bytes 4 to 4"));
    let welcome = |lineage, head, gtid| {
        let message =
            ToSource::Welcome { version: 1, lineage, file: Some(file()), head, gtid, credit: CREDIT };
        decode_to_source(&encode_to_source(&message)).map(|_| ()).unwrap_err().to_string()
    };
    assert!(welcome(None, vec![], String::new()).contains("without a lineage"));
    assert!(welcome(Some(lineage(1)), vec![0; 1025], String::new()).contains("1025"));
    assert!(welcome(Some(lineage(1)), vec![], "x".repeat(262_145)).contains("262145"));
    let files = ToSource::Answer { id: 1, more: false, answer: DbAnswer::Files(vec![file(); 4_097]) };
    assert!(decode_to_source(&encode_to_source(&files)).is_err());
}

#[test]
fn names_are_those_of_binary_logs() {
    for good in ["bin.000001", "mysql-bin.2147483647", "a.b_C-9.1"] {
        assert!(name_is_valid(good), "{good}");
    }
    let long = format!("{}.000001", "x".repeat(249));
    let bad = ["", "bin", ".1", ".bin.000001", "bin.", "bin.000001.index", "../x.1", "a b.1", "ä.1", "a\0.1"];
    for bad in bad.into_iter().chain([long.as_str(), "bin.12345678901", "files", "lineage.json"]) {
        assert!(!name_is_valid(bad), "{bad:?}");
    }
}

#[test]
fn a_length_alone_allocates_nothing() {
    // A piece of 4 GiB that is not there; a welcome with a head of 2^60 bytes.
    let piece = [2, 4, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3];
    assert!(decode_to_archive(piece.to_vec().into()).is_err());
    let head = [0, 1, 0, 0, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0x10, 1];
    assert!(decode_to_source(&head).is_err());
}
