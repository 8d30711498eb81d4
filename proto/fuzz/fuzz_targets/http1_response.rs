//! Heads of responses: however they arrive, the same comes of them; what is sent to the client is read the same again.
#![no_main]

use ehpc_proto::http::{ResponseHead, Version};
use ehpc_proto::http1::{
    Asked, BadMessage, Client, Fault, Framing, Limits, ParsedResponse, ResponseParser, Upgrade,
    parse_response, prepare_response, write_response,
};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { head: 2000, fields: 20 };

fn by_pieces(
    bytes: &[u8],
    step: usize,
    lenient: bool,
    asked: Asked,
) -> (Result<Option<ParsedResponse>, BadMessage>, ResponseHead) {
    let (mut parser, mut head) = (ResponseParser::default(), ResponseHead::default());
    let mut end = 0;
    loop {
        end = (end + step).min(bytes.len());
        match parser.parse(&bytes[..end], &LIMITS, lenient, asked, &mut head) {
            Ok(None) if end < bytes.len() => {}
            outcome => return (outcome, head),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some(([how, step], bytes)) = data.split_first_chunk() else { return };
    let upgrade =
        [Upgrade::None, Upgrade::Unnamed, Upgrade::Named, Upgrade::WebSocket][usize::from(how >> 3 & 3)];
    let asked = Asked { head: how & 2 != 0, connect: how & 4 != 0, upgrade };
    let lenient = how & 1 == 1;
    let (outcome, mut head) = by_pieces(bytes, usize::from(*step).max(1), lenient, asked);
    let (whole, same) = by_pieces(bytes, bytes.len().max(1), lenient, asked);
    let late = outcome == Ok(None) || outcome.as_ref().is_err_and(|bad| bad.fault == Fault::TooLarge); // see http1_request
    assert!(outcome == whole || late && whole.is_err());
    let Ok(Some(parsed)) = whole else { return };
    assert!(
        head.fields.iter().eq(same.fields.iter()) && head.status == same.status && head.reason == same.reason
    );
    let version = if how & 0x20 == 0 { Version::Http11 } else { Version::Http10 };
    let outgoing = prepare_response(&mut head, &parsed, Client { version, keep_alive: how & 0x40 != 0 });
    let mut sent = Vec::new();
    write_response(&head, &mut sent);
    let mut again = ResponseHead::default();
    let roomy = Limits { head: 4000, fields: 21 };
    let reread = parse_response(&sent, &roomy, lenient, asked, &mut again).expect("taken").expect("complete");
    assert_eq!((reread.head_len, reread.interim, reread.tunnel), (sent.len(), parsed.interim, parsed.tunnel));
    assert_eq!(reread.framing, outgoing.framing);
    if version == Version::Http10 || head.version == Version::Http10 {
        assert!(outgoing.framing != Framing::Chunked);
    }
});
