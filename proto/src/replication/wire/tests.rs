//! Golden bytes, round trips and refusals.

use super::super::message::{Answer, Blob, BlobKind, Codec, Query, ToBackup, ToPrimary};
use super::super::state::*;
use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn file(id: u64, size: u32) -> ObjectState {
    ObjectState {
        id: ObjectId(id),
        key: vec![1, 0, 0, 0, 1, 7, 7, 7, 7],
        kind: Kind::File,
        mode: 0o644,
        uid: 1000,
        gid: 33,
        size: u64::from(size),
        mtime: Timestamp { seconds: 1_700_000_000, nanos: 5 },
        rdev: (0, 0),
        target: vec![],
        xattrs: vec![Xattr { name: b"user.a".to_vec(), value: b"1".to_vec() }],
        content: Manifest::Inline(vec![Extent::Data { hash: Hash([9; 32]), len: size }]),
        fuzzy: false,
    }
}

fn sample() -> Batch {
    Batch {
        number: 1,
        previous: Hash([3; 32]),
        cut: 300,
        time: Timestamp { seconds: -1, nanos: 999_999_999 },
        objects: vec![file(2, 4)],
        entries: vec![
            EntryState { parent: ObjectId::ROOT, name: b"a\xff".to_vec(), child: Some(ObjectId(2)) },
            EntryState { parent: ObjectId::ROOT, name: b"b".to_vec(), child: None },
        ],
        destroyed: vec![ObjectId(3)],
    }
}

#[test]
fn batch_has_these_bytes_forever() {
    let encoded = encode_batch(&sample());
    assert_eq!(
        hex(&encoded),
        "010303030303030303030303030303030303030303030303030303030303030303fb2c0101fcffc99a3b01020901000000010707070700fba401fbe8032104fc00e2a7ca050000000106757365722e6101310001000909090909090909090909090909090909090909090909090909090909090909040002010261ff0102010162000103"
    );
    assert_eq!(decode_batch(&encoded).unwrap(), sample());
    assert_eq!(chain(&encoded), Hash::of(&encoded));
}

#[test]
fn messages_have_these_bytes_forever() {
    let position = Position { stream: StreamId([7; 16]), number: 5, chain: Hash([8; 32]) };
    let hello = ToBackup::Hello {
        version: 1,
        export: "share".to_owned(),
        stream: StreamId([7; 16]),
        position: Some(position),
    };
    let blobs = ToBackup::Blobs(vec![Blob {
        kind: BlobKind::Chunk,
        hash: Hash([1; 32]),
        raw_len: 3,
        codec: Codec::Raw,
        bytes: Bytes::from_static(b"abc"),
    }]);
    let ask = ToBackup::Ask { id: 1, query: Query::Buckets { applied: 2, first: 3, count: 4 } };
    let to_backup = [
        (
            hello,
            "0001057368617265070707070707070707070707070707070107070707070707070707070707070707050808080808080808080808080808080808080808080808080808080808080808",
        ),
        (
            ToBackup::Offer { hashes: vec![Hash([2; 32])] },
            "01010202020202020202020202020202020202020202020202020202020202020202",
        ),
        (blobs, "0201000101010101010101010101010101010101010101010101010101010101010101030000000003616263"),
        (ToBackup::Batch(Bytes::from_static(&[1, 2, 3])), "0300000003010203"),
        (ask, "040103020304"),
        (ToBackup::Ping(70_000), "05fc70110100"),
    ];
    for (message, expected) in to_backup {
        let encoded = encode_to_backup(&message).joined();
        assert_eq!(hex(&encoded), expected, "{message:?}");
        assert_eq!(decode_to_backup(encoded.clone().into()).unwrap(), message);
        for length in 0..encoded.len() {
            assert!(
                decode_to_backup(encoded[..length].to_vec().into()).is_err(),
                "{length} bytes of {message:?}"
            );
        }
        let longer = [&encoded[..], &[0]].concat();
        assert!(matches!(decode_to_backup(longer.into()), Err(WireError::Trailing { extra: 1, .. })));
    }
    let welcome = ToPrimary::Welcome { version: 1, position: None, shadow_known: true, credit: 33_554_432 };
    let answer = ToPrimary::Answer { id: 9, more: true, answer: Answer::Blobs(vec![None, Some(vec![5])]) };
    let to_primary = [
        (welcome, "00010001fc00000002"),
        (ToPrimary::Refused { reason: "no".to_owned() }, "01026e6f"),
        (ToPrimary::Lacking(vec![true, false]), "02020100"),
        (ToPrimary::Ack { number: 251 }, "03fbfb00"),
        (ToPrimary::Credit { bytes: 250 }, "04fa"),
        (answer, "050901020200010105"),
        (ToPrimary::Pong(1), "0601"),
    ];
    for (message, expected) in to_primary {
        let encoded = encode_to_primary(&message);
        assert_eq!(hex(&encoded), expected, "{message:?}");
        assert_eq!(decode_to_primary(&encoded).unwrap(), message);
    }
}

#[test]
fn every_truncation_and_every_extra_byte_is_refused() {
    let encoded = encode_batch(&sample());
    for length in 0..encoded.len() {
        assert!(decode_batch(&encoded[..length]).is_err(), "{length} bytes were accepted");
    }
    let mut longer = encoded.clone();
    longer.push(0);
    assert_eq!(decode_batch(&longer), Err(WireError::Trailing { what: "batch", extra: 1 }));
}

#[test]
fn a_flipped_bit_never_panics_and_never_gives_the_same_chain() {
    let encoded = encode_batch(&sample());
    for bit in 0..encoded.len() * 8 {
        let mut damaged = encoded.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let _ = decode_batch(&damaged);
        assert_ne!(chain(&damaged), chain(&encoded));
    }
}

/// What is wrong with `change`d sample; panics when nothing is.
fn refused(change: impl FnOnce(&mut Batch)) -> String {
    let mut batch = sample();
    change(&mut batch);
    decode_batch(&encode_batch(&batch)).expect_err("accepted").to_string()
}

#[test]
fn batches_that_say_impossible_things_are_refused() {
    assert!(refused(|b| b.number = 0).contains("number is 0"));
    assert!(refused(|b| b.time.nanos = 1_000_000_000).contains("nanoseconds"));
    assert!(refused(|b| b.objects.push(file(2, 4))).contains("twice"));
    assert!(refused(|b| b.destroyed.push(ObjectId(2))).contains("destroyed"));
    assert!(refused(|b| b.destroyed.push(ObjectId(3))).contains("destroyed"));
    assert!(refused(|b| b.destroyed.push(ObjectId::ROOT)).contains("destroys object 1"));
    assert!(refused(|b| b.entries[1].name = b"a\xff".to_vec()).contains("twice"));
    assert!(refused(|b| b.entries[1].child = Some(ObjectId(3))).contains("which it destroys"));
    assert!(refused(|b| b.entries[0].child = Some(ObjectId::ROOT)).contains("root"));
    assert!(refused(|b| b.entries[0].parent = ObjectId(2)).contains("contains itself"));
    for name in [&b""[..], b".", b"..", b"a/b", b"a\0b", &[b'x'; 256]] {
        assert!(refused(|b| b.entries[0].name = name.to_vec()).contains("name"), "{name:?}");
    }
    assert!(refused(|b| b.objects[0].id = ObjectId(0)).contains("number 0"));
    assert!(refused(|b| b.objects[0].key.clear()).contains("key"));
    assert!(refused(|b| b.objects[0].key = vec![1; 46]).contains("key"));
    assert!(refused(|b| b.objects[0].mode = 0o10000).contains("mode"));
    assert!(refused(|b| b.objects[0].mtime.nanos = u32::MAX).contains("nanoseconds"));
    assert!(refused(|b| b.objects[0].rdev = (1, 3)).contains("device"));
    assert!(refused(|b| b.objects[0].target = b"x".to_vec()).contains("target"));
    assert!(refused(|b| b.objects[0].kind = Kind::Directory).contains("with content"));
    assert!(refused(|b| b.objects[0].size = 5).contains("cover 4"));
    let extents = |extents: Vec<Extent>| refused(|b| b.objects[0].content = Manifest::Inline(extents));
    assert!(extents(vec![Extent::Hole { len: 1 }; 17]).contains("17 extents"));
    assert!(extents(vec![Extent::Hole { len: 0 }]).contains("0 bytes"));
    assert!(extents(vec![Extent::Hole { len: u64::MAX }; 2]).contains("2^63"));
    assert!(extents(vec![Extent::Data { hash: Hash([0; 32]), len: 262_145 }]).contains("262145"));
    let twice = Xattr { name: b"user.a".to_vec(), value: vec![] };
    assert!(refused(|b| b.objects[0].xattrs.push(twice)).contains("not in order"));
    let link = |target: &[u8]| {
        refused(|b| {
            let object = &mut b.objects[0];
            (object.kind, object.size, object.content) = (Kind::Symlink, 0, Manifest::EMPTY);
            object.target = target.to_vec();
        })
    };
    assert!(link(b"").contains("target"));
    assert!(link(b"a\0").contains("target"));
    assert!(link(&[b'x'; 4096]).contains("target"));
}

fn round_trip(message: &ToBackup) -> Result<ToBackup, WireError> {
    decode_to_backup(encode_to_backup(message).joined().into())
}

#[test]
fn messages_over_their_limits_are_refused() {
    let offer = ToBackup::Offer { hashes: vec![Hash([0; 32]); 4097] };
    assert!(round_trip(&offer).is_err());
    let blob = |kind, raw_len, codec, length: usize| {
        let bytes = vec![0; length].into();
        round_trip(&ToBackup::Blobs(vec![Blob { kind, hash: Hash([0; 32]), raw_len, codec, bytes }]))
    };
    assert!(blob(BlobKind::Chunk, 262_144, Codec::Raw, 262_144).is_ok());
    assert!(blob(BlobKind::Chunk, 262_145, Codec::Raw, 262_145).is_err());
    assert!(blob(BlobKind::Page, 262_145, Codec::Raw, 262_145).is_ok());
    assert!(blob(BlobKind::Page, u32::MAX, Codec::Zstd, 10).is_err());
    assert!(blob(BlobKind::Chunk, 0, Codec::Raw, 0).is_err());
    assert!(blob(BlobKind::Chunk, 5, Codec::Raw, 4).is_err());
    assert!(blob(BlobKind::Chunk, 5, Codec::Zstd, 6).is_err());
    assert!(round_trip(&ToBackup::Batch(Bytes::new())).is_err());
    let ask = |query| round_trip(&ToBackup::Ask { id: 1, query });
    assert!(ask(Query::Live { after: ObjectId(0), limit: 4097 }).is_err());
    assert!(ask(Query::Versions { objects: vec![], from: 2, to: 1 }).is_err());
    assert!(ask(Query::Buckets { applied: 0, first: u64::MAX, count: 1 }).is_err());
    assert!(ask(Query::Buckets { applied: 0, first: 0, count: 65_537 }).is_err());
}

#[test]
fn a_claimed_length_is_checked_against_the_bytes_that_are_there() {
    // ToBackup::Batch with a byte string that claims 4 GiB - 1, and 16 MiB, bytes.
    for claim in [[0xff; 4], [1, 0, 0, 0]] {
        let message = [&[3][..], &claim].concat();
        assert!(matches!(decode_to_backup(message.into()), Err(WireError::Encoding { .. })));
    }
    // ToBackup::Offer that claims 2^40 hashes, ToBackup::Blobs of 2^40 blobs.
    for kind in [1, 2] {
        assert!(decode_to_backup(vec![kind, 0xfd, 0, 0, 0, 0, 0, 1, 0, 0].into()).is_err());
    }
}

#[test]
fn frames_come_together_from_pieces_of_every_size() {
    let payloads: [&[u8]; 4] = [b"", b"a", &[7; 1000], &[1; 300_000]];
    let mut stream = Vec::new();
    for payload in payloads {
        stream.extend_from_slice(&frame::header(FrameKind::ToPrimary, false, payload.len()).unwrap());
        stream.extend_from_slice(payload);
    }
    for piece in [1, 2, 3, 7, 1001, 100_000, usize::MAX] {
        let mut assembler = FrameAssembler::new(MAX_FRAME);
        let mut frames = Vec::new();
        for mut bytes in stream.chunks(piece.min(stream.len())) {
            while let Some(frame) = assembler.push(&mut bytes).unwrap() {
                assert_eq!((frame.kind, frame.compressed), (FrameKind::ToPrimary, false));
                frames.push(frame.payload);
            }
        }
        assert!(assembler.is_idle());
        assert_eq!(frames, payloads, "pieces of {piece}");
    }
}

#[test]
fn frame_has_these_bytes_forever() {
    assert_eq!(frame::header(FrameKind::ToBackup, false, 2).unwrap(), [0, 0, 0, 3, 1]);
    assert_eq!(frame::header(FrameKind::ToPrimary, true, 0x01_0203).unwrap(), [0, 1, 2, 4, 0x82]);
    assert_eq!(frame::header(FrameKind::Pairing, false, 0).unwrap(), [0, 0, 0, 1, 3]);
    assert!(frame::header(FrameKind::ToBackup, false, MAX_FRAME).is_err());
}

#[test]
fn bad_frames_are_refused_before_anything_is_allocated() {
    let refused = |mut bytes: &[u8]| FrameAssembler::new(MAX_FRAME).push(&mut bytes).unwrap_err();
    let limit = MAX_FRAME;
    assert_eq!(refused(&[0x80, 0, 0, 0]), WireError::TooLong { length: 1 << 31, limit });
    assert_eq!(refused(&[0, 0x80, 0, 1]), WireError::TooLong { length: limit as u64 + 1, limit });
    assert_eq!(refused(&[0, 0, 0, 0]), WireError::Empty);
    assert_eq!(refused(&[0, 0, 0, 2, 9]), WireError::UnknownKind { kind: 9 });
    let mut assembler = FrameAssembler::new(MAX_FRAME);
    assert_eq!(assembler.push(&mut &[0, 0x80, 0, 0, 1, 5][..]), Ok(None));
    assert!(bytes::BufMut::remaining_mut(&assembler.space()) <= 2 << 20, "space grows with what arrives");
}
