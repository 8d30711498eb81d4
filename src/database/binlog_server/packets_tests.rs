//! Events of every critical length are put together again by a client's reader.

use super::*;
use ehpc_proto::mysql::packet::Assembler;

#[tokio::test]
async fn events_of_every_critical_length() {
    for size in [1, 100, MAX_PART - 2, MAX_PART - 1, MAX_PART, 2 * MAX_PART - 1, 2 * MAX_PART + 5] {
        let event: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        let mut bytes = Vec::new();
        let mut writer = PacketWriter::new(&mut bytes);
        writer.set_sequence(254);
        writer.begin_event(size as u64);
        for piece in event.chunks(1_000_003) {
            writer.more(piece);
            if writer.is_full() {
                writer.flush().await.unwrap();
            }
        }
        writer.event(b"next");
        writer.flush().await.unwrap();
        let (mut assembler, mut rest) = (Assembler::new(usize::MAX), bytes.as_slice());
        let first = assembler.feed(&mut rest).unwrap().unwrap();
        assert_eq!((first.first, first.payload[0]), (254, 0));
        assert!(first.payload[1..] == event, "{size}");
        let second = assembler.feed(&mut rest).unwrap().unwrap();
        assert_eq!(
            (second.first, second.payload.as_slice()),
            (first.last.wrapping_add(1), b"\0next".as_slice())
        );
        assert!(rest.is_empty() && assembler.is_empty());
    }
}
