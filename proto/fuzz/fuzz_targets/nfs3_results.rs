//! Results of every NFSv3 procedure; the first byte says which.
#![no_main]

use ehpc_proto::codec::{Decoder, Encoder};
use ehpc_proto::nfs3::{Procedure, directory, results};
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
        Procedure::Getattr => both_ways::<results::Getattr>(data, again),
        Procedure::Setattr | Procedure::Remove | Procedure::Rmdir => {
            both_ways::<results::Changed>(data, again);
        }
        Procedure::Lookup => both_ways::<results::Lookup>(data, again),
        Procedure::Access => both_ways::<results::Access>(data, again),
        Procedure::Readlink => both_ways::<results::Readlink<'_>>(data, again),
        Procedure::Read => both_ways::<results::Read<'_>>(data, again),
        Procedure::Write => both_ways::<results::Write>(data, again),
        Procedure::Create | Procedure::Mkdir | Procedure::Symlink | Procedure::Mknod => {
            both_ways::<results::Created>(data, again);
        }
        Procedure::Rename => both_ways::<results::Rename>(data, again),
        Procedure::Link => both_ways::<results::Link>(data, again),
        Procedure::Readdir => both_ways::<directory::Readdir<'_>>(data, again),
        Procedure::Readdirplus => both_ways::<directory::Readdirplus<'_>>(data, again),
        Procedure::Fsstat => both_ways::<results::Fsstat>(data, again),
        Procedure::Fsinfo => both_ways::<results::Fsinfo>(data, again),
        Procedure::Pathconf => both_ways::<results::Pathconf>(data, again),
        Procedure::Commit => both_ways::<results::Commit>(data, again),
    }
});
