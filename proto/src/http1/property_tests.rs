//! Random messages: what is written is read back the same, however it is cut; what is taken is passed on in a form that
//! another reader (httparse) and this one, read again, understand the same way. The seed is printed with a failure.

use super::*;
use crate::http::{Method, RequestHead, Version};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    fn text(&mut self, alphabet: &[u8], longest: usize) -> Vec<u8> {
        (0..self.below(longest + 1)).map(|_| alphabet[self.below(alphabet.len())]).collect()
    }
}

/// Runs `check` with many seeds; `HTTP1_SEED` repeats one.
fn with_seeds(runs: u64, check: impl Fn(&mut Random)) {
    let told = std::env::var("HTTP1_SEED").ok().map(|seed| seed.parse().expect("a number"));
    let start = u64::from(std::process::id()) << 32;
    for seed in told.map_or(start..start + runs, |seed| seed..seed + 1) {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&mut Random(seed))));
        if let Err(panic) = outcome {
            eprintln!("repeat with HTTP1_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

const TOKENS: &[u8] = b"abcXYZ019-_!#$%&'*+.^`|~";

fn random_head(random: &mut Random) -> RequestHead {
    let mut head = RequestHead::default();
    let other = [b"M".to_vec(), random.text(TOKENS, 5)].concat();
    head.method = Method::new(random.pick(&[b"GET".as_slice(), b"POST", b"PUT", b"HEAD", &other]));
    head.target = [b"/".to_vec(), random.text(b"ab/?=&%20.;:@\"<>\\^`{|}", 30)].concat();
    head.version = if random.below(2) == 0 { Version::Http10 } else { Version::Http11 };
    head.fields.push(b"host", b"h");
    for _ in 0..random.below(12) {
        let name = [b"x".to_vec(), random.text(TOKENS, 20)].concat();
        let inside = random.text(b"ab \t,;=\"\\:\xc3\x80\x01\x7f", 60);
        let value = if inside.is_empty() { Vec::new() } else { [b"v".as_slice(), &inside, b"w"].concat() };
        head.fields.push(&name, &value);
    }
    head
}

fn same(one: &RequestHead, other: &RequestHead) {
    assert_eq!((&one.method, &one.target, one.version), (&other.method, &other.target, other.version));
    assert_eq!(one.fields.iter().collect::<Vec<_>>(), other.fields.iter().collect::<Vec<_>>());
}

#[test]
fn what_is_written_is_read_however_it_is_cut() {
    with_seeds(500, |random| {
        let head = random_head(random);
        let mut wire = Vec::new();
        write_request(&head, &mut wire);
        let end = wire.len();
        wire.extend_from_slice(b"body");
        let (mut parser, mut read) = (RequestParser::default(), RequestHead::default());
        let mut arrived = 0;
        let parsed = loop {
            arrived = (arrived + 1 + random.below(20)).min(wire.len());
            let outcome = parser.parse(&wire[..arrived], &Limits::default(), false, &mut read).unwrap();
            assert!(outcome.is_some() == (arrived >= end), "complete at {arrived} of {end}");
            if let Some(parsed) = outcome {
                break parsed;
            }
        };
        assert_eq!(parsed.head_len, end);
        same(&head, &read);
    });
}

/// Pieces that smuggled requests are made of.
const PIECES: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\n",
    b"POST /a HTTP/1.0\r\n",
    b"Host: h\r\n",
    b"Host: i\r\n",
    b"Content-Length: 3\r\n",
    b"Content-Length: 4\r\n",
    b"content-length:03, 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding:\x0bchunked\r\n",
    b"transfer-encoding: x, chunked\r\n",
    b"Transfer-Encoding : chunked\r\n",
    b"Connection: close, x\r\n",
    b"X: y\r\n",
    b" folded\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b":",
    b" ",
    b"\t",
    b",",
    b"\0",
    b"3\r\nabc\r\n",
    b"0\r\n\r\n",
];

fn random_pieces(random: &mut Random) -> Vec<u8> {
    let mut wire = random
        .pick(&[b"GET / HTTP/1.1\r\nHost: h\r\n".as_slice(), b"POST / HTTP/1.1\r\nHost: h\r\n", b""])
        .to_vec();
    for _ in 0..random.below(7) {
        wire.extend_from_slice(random.pick(PIECES));
    }
    wire.extend_from_slice(b"\r\n\r\n");
    if random.below(3) == 0 {
        let at = random.below(wire.len());
        wire[at] = *random.pick(&[&b' ', &b'\t', &b'\r', &b'\n', &b':', &0, &b',', &0xff, &0x0b]);
    }
    wire
}

#[test]
fn what_is_taken_is_passed_on_in_a_form_that_has_one_meaning() {
    with_seeds(20_000, |random| {
        let wire = random_pieces(random);
        let lenient = random.below(4) == 0;
        let mut head = RequestHead::default();
        let Ok(Some(parsed)) = parse_request(&wire, &Limits::default(), lenient, &mut head) else { return };
        let mut sent = Vec::new();
        write_request(&head, &mut sent);
        // The next strict reader of this kind sees the same; what it refuses can only be what was overlooked.
        let mut again = RequestHead::default();
        match parse_request(&sent, &Limits::default(), lenient, &mut again) {
            Ok(Some(once_more)) => {
                same(&head, &again);
                assert_eq!((once_more.framing, once_more.head_len), (parsed.framing, sent.len()), "{wire:?}");
            }
            other => panic!("{wire:?} was passed on as {sent:?}: {other:?}"),
        }
        if lenient {
            return;
        }
        let mut slots = [httparse::EMPTY_HEADER; 100];
        let mut theirs = httparse::Request::new(&mut slots);
        let outcome = theirs.parse(&sent);
        if sent.iter().any(|byte| *byte == 0x7f || *byte < b' ' && !b"\t\r\n".contains(byte)) {
            return; // httparse takes no control characters in values, HAProxy does
        }
        assert_eq!(outcome, Ok(httparse::Status::Complete(sent.len())), "{sent:?}");
        let fields: Vec<_> =
            theirs.headers.iter().map(|field| (field.name.as_bytes(), field.value)).collect();
        assert_eq!(fields, head.fields.iter().collect::<Vec<_>>());
        let framing = |name: &str| theirs.headers.iter().filter(|field| field.name == name).count();
        match parsed.framing {
            Framing::Chunked => assert_eq!((framing("transfer-encoding"), framing("content-length")), (1, 0)),
            Framing::Length(_) => {
                assert_eq!((framing("transfer-encoding"), framing("content-length")), (0, 1))
            }
            _ => assert_eq!((framing("transfer-encoding"), framing("content-length")), (0, 0)),
        }
    });
}

/// Relays to the end: what is sent on, and where the body ends.
fn relay(
    wire: &[u8],
    to: Framing,
    mut cut: impl FnMut() -> usize,
) -> Result<Option<(Vec<u8>, usize)>, Fault> {
    let mut body = Body::new(Framing::Chunked, to);
    let (mut sent, mut at, mut arrived) = (Vec::new(), 0, 0);
    while arrived < wire.len() && !body.is_done() {
        arrived = (arrived + cut()).min(wire.len());
        loop {
            let step = body.step(&wire[at..arrived]).map_err(|bad| bad.fault)?;
            sent.extend_from_slice(&wire[at..at + step.send]);
            at += step.send + step.skip;
            if step.send + step.skip == 0 {
                break;
            }
        }
    }
    body.write_end(&mut sent);
    Ok(body.is_done().then_some((sent, at)))
}

#[test]
fn chunks_mean_the_same_to_the_next_reader() {
    let pieces: &[&[u8]] = &[
        b"3\r\nabc\r\n",
        b"03;x=\"y\"\r\nabc\r\n",
        b"a\r\n0123456789\r\n",
        b"2 \r\n\r\n\r\n",
        b"0\r\n",
        b"\r\n",
        b"X: y\r\n",
        b"0",
        b";",
        b"\r",
        b"\n",
        b"fff\r\n",
        b"-1\r\n",
        b"GET / HTTP/1.1\r\n",
    ];
    with_seeds(20_000, |random| {
        let mut wire = Vec::new();
        for _ in 0..random.below(6) {
            wire.extend_from_slice(random.pick(pieces));
        }
        wire.extend_from_slice(b"0\r\n\r\nrest");
        let whole = relay(&wire, Framing::Chunked, || usize::MAX / 2);
        let cuts = relay(&wire, Framing::Chunked, || 1 + random.below(5));
        assert_eq!(whole, cuts, "{wire:?}");
        let Ok(Some((sent, end))) = whole else { return };
        let (data, same_end) = relay(&wire, Framing::UntilClose, || 1 + random.below(5)).unwrap().unwrap();
        let (again, all) = relay(&sent, Framing::UntilClose, || usize::MAX / 2).unwrap().unwrap();
        assert_eq!((end, &data, sent.len()), (same_end, &again, all), "{wire:?}");
    });
}
