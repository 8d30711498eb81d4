//! Packets: however the bytes are cut, the same packets come out, whole and in pieces.
#![no_main]

use ehpc_proto::mysql::packet::{Assembler, PacketError, Piece, StreamAssembler};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 5000;

fn whole(bytes: &[u8], step: usize) -> (Vec<Vec<u8>>, Option<PacketError>) {
    let mut assembler = Assembler::new(LIMIT);
    let mut packets = Vec::new();
    for mut piece in bytes.chunks(step) {
        loop {
            match assembler.feed(&mut piece) {
                Ok(Some(packet)) => {
                    assert!(packet.payload.len() <= LIMIT);
                    packets.push(packet.payload);
                }
                Ok(None) => break,
                Err(error) => return (packets, Some(error)),
            }
        }
        assert!(piece.is_empty());
    }
    (packets, None)
}

fn streamed(bytes: &[u8], step: usize) -> (Vec<Vec<u8>>, Vec<u8>) {
    let mut assembler = StreamAssembler::new();
    let (mut done, mut now) = (Vec::new(), Vec::new());
    let mut open = false;
    for mut chunk in bytes.chunks(step) {
        loop {
            match assembler.push(&mut chunk) {
                Ok(Some(Piece::Start { first })) => {
                    assert!(!open);
                    open = true;
                    now.extend_from_slice(first);
                }
                Ok(Some(Piece::More(more))) => {
                    assert!(open && !more.is_empty());
                    now.extend_from_slice(more);
                }
                Ok(Some(Piece::End)) => {
                    assert!(open);
                    open = false;
                    done.push(std::mem::take(&mut now));
                }
                Ok(None) => break,
                Err(_) => return (done, now),
            }
        }
        assert!(chunk.is_empty());
    }
    (done, now)
}

fuzz_target!(|data: &[u8]| {
    let Some((step, bytes)) = data.split_first() else { return };
    let step = usize::from(*step).max(1);
    let all = bytes.len().max(1);
    let (packets, error) = whole(bytes, step);
    assert_eq!((&packets, &error), (&whole(bytes, all).0, &whole(bytes, all).1));
    let (pieces, left) = streamed(bytes, step);
    assert_eq!((&pieces, &left), (&streamed(bytes, all).0, &streamed(bytes, all).1));
    assert_eq!(pieces[..packets.len()], packets);
    assert!(error.is_some() || pieces.len() == packets.len());
});
