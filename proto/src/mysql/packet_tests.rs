//! Packets in every cut, and their bounds.

use super::*;

fn framed(payloads: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut sequence = 0;
    for payload in payloads {
        write_packet(&mut out, &mut sequence, payload);
    }
    out
}

/// Packets of a stream, joined from pieces, fed `step` bytes at a time.
fn streamed(bytes: &[u8], step: usize) -> Result<Vec<Vec<u8>>, PacketError> {
    let mut assembler = StreamAssembler::new();
    let (mut done, mut now): (Vec<Vec<u8>>, Option<Vec<u8>>) = (Vec::new(), None);
    for mut chunk in bytes.chunks(step) {
        while let Some(piece) = assembler.push(&mut chunk)? {
            match piece {
                Piece::Start { first } => assert!(now.replace(first.to_vec()).is_none()),
                Piece::More(more) => {
                    assert!(!more.is_empty());
                    now.as_mut().unwrap().extend_from_slice(more);
                }
                Piece::End => done.push(now.take().unwrap()),
            }
        }
        assert!(chunk.is_empty());
    }
    assert_eq!(assembler.is_empty(), now.is_none());
    Ok(done)
}

fn whole(bytes: &[u8], step: usize, limit: usize) -> Result<Vec<Packet>, PacketError> {
    let mut assembler = Assembler::new(limit);
    let mut done = Vec::new();
    for mut chunk in bytes.chunks(step) {
        while let Some(packet) = assembler.feed(&mut chunk)? {
            done.push(packet);
        }
    }
    assert!(assembler.is_empty());
    Ok(done)
}

#[test]
fn packets_come_back_however_they_are_cut() {
    let payloads: [&[u8]; 4] = [b"one", b"", b"three and more", &[7; 300]];
    let bytes = framed(&payloads);
    for step in [1, 2, 3, 4, 5, 7, 64, bytes.len()] {
        assert_eq!(streamed(&bytes, step).unwrap(), payloads);
        let packets = whole(&bytes, step, 300).unwrap();
        assert_eq!(packets.iter().map(|packet| packet.payload.as_slice()).collect::<Vec<_>>(), payloads);
        assert_eq!(packets.iter().map(|packet| packet.first).collect::<Vec<_>>(), [0, 1, 2, 3]);
    }
}

#[test]
fn long_packets_go_in_parts_and_an_exact_multiple_ends_with_an_empty_one() {
    for extra in [0, 1, 5] {
        let payload: Vec<u8> = (0..2 * MAX_PART + extra).map(|n| n as u8).collect();
        let bytes = framed(&[&payload, b"next"]);
        assert_eq!(bytes.len(), payload.len() + 3 * HEADER + HEADER + 4);
        for step in [65_536, MAX_PART, MAX_PART + HEADER, bytes.len()] {
            assert!(streamed(&bytes, step).unwrap() == [payload.clone(), b"next".to_vec()]);
            let packets = whole(&bytes, step, payload.len()).unwrap();
            assert!(packets[0].payload == payload);
            assert_eq!((packets[0].first, packets[0].last, packets[1].first), (0, 2, 3));
        }
    }
}

#[test]
fn nothing_is_allocated_for_a_packet_over_the_limit() {
    let mut assembler = Assembler::new(1000);
    let error = assembler.feed(&mut &[0xe9, 3, 0, 0][..]);
    assert_eq!(error, Err(PacketError::TooLong { length: 1001, limit: 1000 }));
    assert_eq!(assembler.payload.capacity(), 0);
}

#[test]
fn parts_must_count_on_but_packets_of_a_stream_need_not() {
    let mut bytes = vec![0xff, 0xff, 0xff, 255];
    bytes.resize(HEADER + MAX_PART, 1);
    let good = [&bytes[..], &[1, 0, 0, 0, 9][..]].concat();
    assert_eq!(streamed(&good, good.len()).unwrap()[0].len(), MAX_PART + 1, "255 is followed by 0");
    let bad = [&bytes[..], &[1, 0, 0, 1, 9][..]].concat();
    let error = PacketError::OutOfOrder { expected: 0, found: 1 };
    assert_eq!(streamed(&bad, bad.len()), Err(error));
    assert_eq!(whole(&bad, bad.len(), bad.len()), Err(error));
    assert_eq!(streamed(&[1, 0, 0, 9, b'a', 1, 0, 0, 1, b'b'], 3).unwrap(), [b"a", b"b"]);
}
