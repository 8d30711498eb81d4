//! NFSACL in both directions, and ACLs as extended attributes; the first byte says which.
#![no_main]

use ehpc_proto::codec::{Decoder, Encoder};
use ehpc_proto::nfsacl::{Getacl, GetaclArgs, List, SetaclArgs};
use ehpc_proto::posix_acl::{Acl, MAX_ENTRIES};
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

/// What a client sends as an ACL is what it reads back, if the kernel would take it.
fn meaning(list: &List) {
    let Ok(acl) = list.to_posix() else { return };
    assert!(acl.0.len() <= MAX_ENTRIES);
    assert_eq!(Acl::decode(&acl.encode()), Ok(acl.clone()));
    if acl.is_valid() {
        let Some(told) = List::from_posix(Some(&acl), (1, 2), false, true) else { return };
        assert_eq!(told.to_posix(), Ok(acl));
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((which, data)) = data.split_first() else { return };
    let again = &mut Vec::new();
    match which % 4 {
        0 => both_ways::<GetaclArgs>(data, again),
        1 => {
            if let Ok(args) = SetaclArgs::decode(&mut Decoder::new(data)) {
                meaning(&args.acls.access);
                meaning(&args.acls.default);
            }
            both_ways::<SetaclArgs>(data, again);
        }
        2 => both_ways::<Getacl>(data, again),
        _ => {
            if let Ok(acl) = Acl::decode(data) {
                assert_eq!(Acl::decode(&acl.encode()), Ok(acl));
            }
        }
    }
});
