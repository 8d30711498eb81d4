//! NLM, every version, in both directions.
#![no_main]

use ehpc_proto::codec::{Decoder, Encoder};
use ehpc_proto::nlm::{
    Form, FreeAll, LockArguments, LockResult, ShareArguments, ShareResult, TestResult, Width,
};
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
    for (version, width) in [(3, Width::Bits32), (4, Width::Bits64)] {
        for form in [Form::Lock, Form::Cancel, Form::Test, Form::Unlock] {
            let Ok(arguments) = LockArguments::decode(form, width, &mut Decoder::new(data)) else { continue };
            let mut out = Encoder::new();
            arguments.encode(form, width, &mut out);
            assert_eq!(LockArguments::decode(form, width, &mut Decoder::new(out.as_slice())), Ok(arguments));
        }
        if let Ok(result) = TestResult::decode(width, &mut Decoder::new(data)) {
            let mut out = Encoder::new();
            result.encode(version, &mut out);
            assert_eq!(TestResult::decode(width, &mut Decoder::new(out.as_slice())), Ok(result));
        }
    }
    same_again::<LockResult<'_>>(data, &mut Vec::new());
    same_again::<ShareArguments<'_>>(data, &mut Vec::new());
    same_again::<ShareResult<'_>>(data, &mut Vec::new());
    same_again::<FreeAll<'_>>(data, &mut Vec::new());
});
