//! Headers of calls and replies: what decodes is encoded to something that decodes to the same.
#![no_main]

use ehpc_proto::codec::{Decoder, Encoder};
use ehpc_proto::rpc::{Call, Reply};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(call) = Call::decode(&mut Decoder::new(data)) {
        let mut out = Encoder::new();
        call.encode(&mut out);
        assert_eq!(Call::decode(&mut Decoder::new(out.as_slice())).as_ref(), Ok(&call));
    }
    if let Ok((xid, reply)) = Reply::decode(&mut Decoder::new(data)) {
        let mut out = Encoder::new();
        reply.encode(xid, &mut out);
        assert_eq!(Reply::decode(&mut Decoder::new(out.as_slice())), Ok((xid, reply)));
    }
});
