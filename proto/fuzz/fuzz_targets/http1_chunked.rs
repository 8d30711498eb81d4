//! Chunked bodies: however they arrive, the same goes on; what goes on means the same to the next reader.
#![no_main]

use ehpc_proto::http1::{Body, Fault, Framing};
use libfuzzer_sys::fuzz_target;

/// What goes on, and where the body ends if it does.
fn relay(bytes: &[u8], to: Framing, step: usize) -> Result<(Vec<u8>, Option<usize>), Fault> {
    let mut body = Body::new(Framing::Chunked, to);
    let (mut sent, mut at, mut arrived, mut data) = (Vec::new(), 0, 0, 0);
    while arrived < bytes.len() && !body.is_done() {
        arrived = (arrived + step).min(bytes.len());
        loop {
            let step = body.step(&bytes[at..arrived]).map_err(|bad| {
                assert!(bad.at < arrived - at);
                bad.fault
            })?;
            sent.extend_from_slice(&bytes[at..at + step.send]);
            at += step.send + step.skip;
            data += step.data;
            if step.send + step.skip == 0 {
                break;
            }
        }
    }
    assert!(to == Framing::Chunked || data == sent.len());
    let end = body.is_done().then_some(at);
    if end.is_some() {
        body.write_end(&mut sent);
    }
    Ok((sent, end))
}

fuzz_target!(|data: &[u8]| {
    let Some((step, bytes)) = data.split_first() else { return };
    let whole = relay(bytes, Framing::Chunked, bytes.len().max(1));
    assert_eq!(relay(bytes, Framing::Chunked, usize::from(*step).max(1)), whole);
    let plain = relay(bytes, Framing::UntilClose, usize::from(*step).max(1));
    let Ok((sent, end)) = whole else {
        assert_eq!(plain.err(), whole.err());
        return;
    };
    let (plain, same_end) = plain.expect("the same is read");
    assert_eq!(end, same_end);
    if end.is_some() {
        assert_eq!(relay(&sent, Framing::UntilClose, sent.len()), Ok((plain, Some(sent.len()))));
    }
});
