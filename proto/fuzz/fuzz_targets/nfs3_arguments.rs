//! Arguments of every NFSv3 procedure; the first byte says which.
#![no_main]

use ehpc_proto::codec::{Decoder, Encoder};
use ehpc_proto::nfs3::{Procedure, arguments, nfs_fh3};
use ehpc_proto::xdr::{Decode, Encode};
use libfuzzer_sys::fuzz_target;

/// What decodes is encoded to something that decodes and is encoded to the same bytes.
fn both_ways<'a, T: Decode<'a> + Encode>(data: &'a [u8], again: &'a mut Vec<u8>) {
    let Ok(value) = T::decode(&mut Decoder::new(data)) else { return };
    let mut out = Encoder::new();
    value.encode(&mut out);
    *again = out.finish();
    let again: &'a [u8] = again;
    let mut input = Decoder::new(again);
    let Ok(second) = T::decode(&mut input) else { panic!("own encoding does not decode") };
    assert!(input.rest().is_empty());
    let mut out = Encoder::new();
    second.encode(&mut out);
    assert_eq!(out.as_slice(), again);
}

fuzz_target!(|data: &[u8]| {
    let Some((number, data)) = data.split_first() else { return };
    let Some(procedure) = Procedure::from_number(u32::from(*number) % 22) else { return };
    let again = &mut Vec::new();
    match procedure {
        Procedure::Null => {}
        Procedure::Getattr
        | Procedure::Readlink
        | Procedure::Fsstat
        | Procedure::Fsinfo
        | Procedure::Pathconf => both_ways::<nfs_fh3>(data, again),
        Procedure::Setattr => both_ways::<arguments::Setattr>(data, again),
        Procedure::Lookup | Procedure::Remove | Procedure::Rmdir => {
            both_ways::<arguments::DirOp<'_>>(data, again);
        }
        Procedure::Access => both_ways::<arguments::Access>(data, again),
        Procedure::Read => both_ways::<arguments::Read>(data, again),
        Procedure::Write => both_ways::<arguments::Write<'_>>(data, again),
        Procedure::Create => both_ways::<arguments::Create<'_>>(data, again),
        Procedure::Mkdir => both_ways::<arguments::Mkdir<'_>>(data, again),
        Procedure::Symlink => both_ways::<arguments::Symlink<'_>>(data, again),
        Procedure::Mknod => both_ways::<arguments::Mknod<'_>>(data, again),
        Procedure::Rename => both_ways::<arguments::Rename<'_>>(data, again),
        Procedure::Link => both_ways::<arguments::Link<'_>>(data, again),
        Procedure::Readdir => both_ways::<arguments::Readdir>(data, again),
        Procedure::Readdirplus => both_ways::<arguments::Readdirplus>(data, again),
        Procedure::Commit => both_ways::<arguments::Commit>(data, again),
    }
});
