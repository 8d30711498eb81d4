//! Portmap, rpcbind and the status monitor, in both directions.
#![no_main]

use ehpc_proto::codec::{Decoder, Encoder};
use ehpc_proto::mount::List;
use ehpc_proto::nsm::{Mon, MonId, Notify, StatResult};
use ehpc_proto::portmap::{Arguments, Binding, Entry, Mapping, parse_universal, universal};
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
    same_again::<List<Mapping>>(data, &mut Vec::new());
    same_again::<List<Binding<'_>>>(data, &mut Vec::new());
    same_again::<List<Entry<'_>>>(data, &mut Vec::new());
    same_again::<Binding<'_>>(data, &mut Vec::new());
    same_again::<Mon<'_>>(data, &mut Vec::new());
    same_again::<MonId<'_>>(data, &mut Vec::new());
    same_again::<Notify<'_>>(data, &mut Vec::new());
    same_again::<StatResult>(data, &mut Vec::new());
    if let Some(address) = parse_universal(data) {
        assert_eq!(parse_universal(universal(address).as_bytes()), Some(address));
    }
    if let [version, procedure, rest @ ..] = data {
        let _ = Arguments::decode(u32::from(*version), u32::from(*procedure), &mut Decoder::new(rest));
    }
});
