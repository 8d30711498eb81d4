//! MOUNT3 in both directions.
#![no_main]

use ehpc_proto::codec::{Decoder, Encoder};
use ehpc_proto::mount::{DirPath, ExportEntry, List, MountEntry, MountReply};
use ehpc_proto::xdr::{Decode, Encode};
use libfuzzer_sys::fuzz_target;

fn same_again<'a, T: Decode<'a> + Encode + PartialEq + std::fmt::Debug>(
    data: &'a [u8],
    again: &'a mut Vec<u8>,
) {
    let Ok(value) = T::decode(&mut Decoder::new(data)) else { return };
    let mut out = Encoder::new();
    value.encode(&mut out);
    *again = out.finish();
    assert_eq!(T::decode(&mut Decoder::new(again)), Ok(value));
}

fuzz_target!(|data: &[u8]| {
    same_again::<DirPath<'_>>(data, &mut Vec::new());
    same_again::<List<MountEntry<'_>>>(data, &mut Vec::new());
    same_again::<List<ExportEntry<'_>>>(data, &mut Vec::new());
    if let Ok(reply) = MountReply::decode(&mut Decoder::new(data)) {
        let mut out = Encoder::new();
        reply.encode(&mut out);
        assert!(MountReply::decode(&mut Decoder::new(out.as_slice())).is_ok());
    }
});
