//! Whatever a peer sends: frames, messages, batches. Nothing panics, and what decodes survives a round trip.
#![no_main]

use bytes::Bytes;
use ehpc_proto::replication::message::ToBackup;
use ehpc_proto::replication::wire::{self, FrameAssembler, FrameKind};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut assembler = FrameAssembler::new(wire::MAX_FRAME);
    let mut rest = data;
    while let Ok(Some(frame)) = assembler.push(&mut rest) {
        match frame.kind {
            FrameKind::ToBackup => to_backup(frame.payload),
            FrameKind::ToPrimary => to_primary(&frame.payload),
            FrameKind::Pairing => pairing(&frame.payload),
            FrameKind::ToArchive => to_archive(frame.payload),
            FrameKind::ToSource => to_source(&frame.payload),
        }
    }
    to_backup(Bytes::copy_from_slice(data));
    to_primary(data);
    pairing(data);
    to_archive(Bytes::copy_from_slice(data));
    to_source(data);
    batch(data);
});

fn to_backup(payload: Bytes) {
    if let Ok(message) = wire::decode_to_backup(payload) {
        let again = wire::encode_to_backup(&message).joined();
        assert_eq!(wire::decode_to_backup(again.into()).as_ref(), Ok(&message));
        if let ToBackup::Batch(encoded) = message {
            batch(&encoded);
        }
    }
}

fn to_primary(payload: &[u8]) {
    if let Ok(message) = wire::decode_to_primary(payload) {
        assert_eq!(wire::decode_to_primary(&wire::encode_to_primary(&message)), Ok(message));
    }
}

fn pairing(payload: &[u8]) {
    if let Ok(message) = wire::decode_pairing(payload) {
        assert_eq!(wire::decode_pairing(&wire::encode_pairing(&message)), Ok(message));
    }
}

fn to_archive(payload: Bytes) {
    if let Ok(message) = wire::decode_to_archive(payload) {
        let again = wire::encode_to_archive(&message).joined();
        assert_eq!(wire::decode_to_archive(again.into()), Ok(message));
    }
}

fn to_source(payload: &[u8]) {
    if let Ok(message) = wire::decode_to_source(payload) {
        assert_eq!(wire::decode_to_source(&wire::encode_to_source(&message)), Ok(message));
    }
}

fn batch(encoded: &[u8]) {
    if let Ok(batch) = wire::decode_batch(encoded) {
        assert_eq!(wire::decode_batch(&wire::encode_batch(&batch)), Ok(batch));
    }
}
