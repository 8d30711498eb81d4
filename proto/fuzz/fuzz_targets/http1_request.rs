//! Heads of requests: however they arrive, the same comes of them; what is taken is written so that it is read the same
//! again, by this reader and by httparse.
#![no_main]

use ehpc_proto::http::RequestHead;
use ehpc_proto::http1::{
    BadMessage, Fault, Framing, Limits, ParsedRequest, RequestParser, parse_request, write_request,
};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { head: 2000, fields: 20 };

fn by_pieces(
    bytes: &[u8],
    step: usize,
    lenient: bool,
) -> (Result<Option<ParsedRequest>, BadMessage>, RequestHead) {
    let (mut parser, mut head) = (RequestParser::default(), RequestHead::default());
    let mut end = 0;
    loop {
        end = (end + step).min(bytes.len());
        match parser.parse(&bytes[..end], &LIMITS, lenient, &mut head) {
            Ok(None) if end < bytes.len() => {}
            outcome => return (outcome, head),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some(([how, step], bytes)) = data.split_first_chunk() else { return };
    let lenient = how & 1 == 1;
    let (outcome, head) = by_pieces(bytes, usize::from(*step).max(1), lenient);
    let (whole, same_head) = by_pieces(bytes, bytes.len().max(1), lenient);
    // What is wrong in a line is told when the line is complete, or at its first sight; a head that is too large is known
    // to be so at the latest when no more of it may come.
    let late = outcome == Ok(None) || outcome.as_ref().is_err_and(|bad| bad.fault == Fault::TooLarge);
    assert!(outcome == whole || late && whole.is_err(), "{outcome:?} {whole:?}");
    let Ok(Some(parsed)) = whole else { return };
    let (mut sent, mut same) = (Vec::new(), Vec::new());
    write_request(&head, &mut sent);
    write_request(&same_head, &mut same);
    assert_eq!(sent, same);
    let mut again = RequestHead::default();
    let roomy = Limits { head: 4000, ..LIMITS };
    let reread = parse_request(&sent, &roomy, lenient, &mut again).expect("taken").expect("complete");
    assert_eq!((reread.framing, reread.head_len), (parsed.framing, sent.len()));
    assert!(head.fields.iter().eq(again.fields.iter()) && head.target == again.target);
    if lenient || sent.iter().any(|b| *b == 0x7f || *b < b' ' && !b"\t\r\n".contains(b)) {
        return; // httparse takes no control characters in values, HAProxy does
    }
    let mut slots = [httparse::EMPTY_HEADER; 20];
    let mut theirs = httparse::Request::new(&mut slots);
    assert_eq!(theirs.parse(&sent), Ok(httparse::Status::Complete(sent.len())));
    assert!(theirs.headers.iter().map(|h| (h.name.as_bytes(), h.value)).eq(head.fields.iter()));
    let count = |name: &str| theirs.headers.iter().filter(|h| h.name == name).count();
    let framed = (count("transfer-encoding"), count("content-length"));
    match parsed.framing {
        Framing::Chunked => assert_eq!(framed, (1, 0)),
        Framing::Length(_) => assert_eq!(framed, (0, 1)),
        Framing::None | Framing::UntilClose => assert_eq!(framed, (0, 0)),
    }
});
