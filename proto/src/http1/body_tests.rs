//! Where bodies end, and what of them goes on.

use super::*;

/// Relays `input` cut into pieces of `step` bytes: what the other side got, and where the body ended (`None`: it did
/// not).
fn relay(
    input: &[u8],
    incoming: Framing,
    outgoing: Framing,
    step: usize,
) -> Result<(Vec<u8>, Option<usize>), Fault> {
    let mut body = Body::new(incoming, outgoing);
    let mut sent = Vec::new();
    let (mut at, mut end, mut data) = (0, 0, 0);
    while end < input.len() && !body.is_done() {
        end = (end + step).min(input.len());
        loop {
            let step = body.step(&input[at..end]).map_err(|bad| {
                assert!(bad.at < end - at);
                bad.fault
            })?;
            sent.extend_from_slice(&input[at..at + step.send]);
            at += step.send + step.skip;
            data += step.data;
            if step == Step::default() {
                break;
            }
        }
        assert!(body.is_done() || at == end, "bytes were left although the body goes on");
    }
    if incoming != outgoing {
        assert_eq!(sent.len(), data);
    }
    if body.is_done() {
        body.write_end(&mut sent);
        return Ok((sent, Some(at)));
    }
    Ok((sent, None))
}

/// What a chunked body becomes for a peer with chunks and for one without, and what is left; the same for every cut.
fn chunked(input: &str) -> Result<(String, String, &str), Fault> {
    let run = |outgoing, step| relay(input.as_bytes(), Framing::Chunked, outgoing, step);
    let (whole, bare) =
        (run(Framing::Chunked, input.len().max(1)), run(Framing::UntilClose, input.len().max(1)));
    for step in 1..input.len() {
        assert_eq!(run(Framing::Chunked, step), whole, "{input:?} {step}");
        assert_eq!(run(Framing::UntilClose, step), bare, "{input:?} {step}");
    }
    let ((whole, end), (bare, _)) = (whole?, bare?);
    let text = |bytes| String::from_utf8(bytes).unwrap().replace("\r\n", "|");
    Ok((text(whole), text(bare), end.map_or("incomplete", |at| &input[at..])))
}

#[test]
fn chunks_go_on_without_what_only_one_hop_needs() {
    for (input, whole, bare, left) in [
        ("3\r\nabc\r\n0\r\n\r\n", "3|abc|0||", "abc", ""),
        ("3\r\nabc\r\n0\r\n\r\nGET /next", "3|abc|0||", "abc", "GET /next"),
        ("0\r\n\r\n", "0||", "", ""),
        ("00000\r\n\r\n", "0||", "", ""),
        ("03\r\nabc\r\n0\r\n\r\n", "3|abc|0||", "abc", ""),
        ("00000000000000003\r\nabc\r\n0\r\n\r\n", "3|abc|0||", "abc", ""),
        ("3;a=b\r\nabc\r\n0;z\r\n\r\n", "3|abc|0||", "abc", ""),
        ("3 ;a=b\r\nabc\r\n1\t \r\nd\r\n0 \r\n\r\n", "3|abc|1|d|0||", "abcd", ""),
        ("3;a=\"\u{e9}\"\r\nabc\r\n0\r\n\r\n", "3|abc|0||", "abc", ""),
        (
            "a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n",
            "a|0123456789|A|0123456789|0||",
            "01234567890123456789",
            "",
        ),
        ("10\r\n0123456789abcdef\r\n0\r\n\r\n", "10|0123456789abcdef|0||", "0123456789abcdef", ""),
        ("2\r\n\r\n\r\n0\r\n\r\n", "2|||0||", "|", ""),
        ("3\r\nabc\r\n0\r\nX-T: v\r\nY:w \r\n\r\nGET", "3|abc|0|x-t: v|y: w||", "abc", "GET"),
        ("3\r\nabc\r\n0\r\n", "3|abc|", "abc", "incomplete"),
        ("fffffffff\r\nabc", "fffffffff|abc", "abc", "incomplete"),
        ("fffffffffffffff\r\nabc", "fffffffffffffff|abc", "abc", "incomplete"),
    ] {
        assert_eq!(chunked(input), Ok((whole.to_owned(), bare.to_owned(), left)), "{input:?}");
    }
}

#[test]
fn broken_chunks_are_refused() {
    for (input, fault) in [
        (" 3\r\nabc\r\n0\r\n\r\n", Fault::ChunkSize),
        ("0x3\r\nabc\r\n0\r\n\r\n", Fault::ChunkSize),
        ("+3\r\nabc\r\n0\r\n\r\n", Fault::ChunkSize),
        ("-3\r\nabc\r\n0\r\n\r\n", Fault::ChunkSize),
        ("g\r\nabc\r\n0\r\n\r\n", Fault::ChunkSize),
        ("\r\nabc\r\n0\r\n\r\n", Fault::ChunkSize),
        (";a\r\nabc\r\n0\r\n\r\n", Fault::ChunkSize),
        ("3 3\r\nabc\r\n0\r\n\r\n", Fault::ChunkSize),
        ("3,x\r\nabc\r\n0\r\n\r\n", Fault::ChunkSize),
        ("3_\r\nabc\r\n0\r\n\r\n", Fault::ChunkSize),
        ("1000000000000000\r\nabc", Fault::ChunkSize),
        ("FFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n", Fault::ChunkSize),
        ("10000000000000003\r\nabc\r\n0\r\n\r\n", Fault::ChunkSize),
        ("3\rabc\r\n0\r\n\r\n", Fault::BareCarriageReturn),
        ("3\nabc\n0\n\n", Fault::BareLineFeed), // HAProxy takes it, as the next two
        ("3\nabc\r\n0\r\n\r\n", Fault::BareLineFeed),
        ("3\r\nabc\n0\r\n\r\n", Fault::ChunkEnd),
        ("3\r\nabcd\r\n0\r\n\r\n", Fault::ChunkEnd),
        ("3\r\nabc0\r\n\r\n", Fault::ChunkEnd),
        ("3\r\nabc\r0\r\n\r\n", Fault::ChunkEnd),
        ("3;a\nb\r\nabc\r\n0\r\n\r\n", Fault::BareLineFeed),
        ("3;a\rb\r\nabc\r\n0\r\n\r\n", Fault::BareCarriageReturn),
        ("3;a=\"\r\n\"\r\nabc\r\n0\r\n\r\n", Fault::ChunkEnd),
        ("3;a\0\r\nabc\r\n0\r\n\r\n", Fault::ChunkExtension), // HAProxy takes it
        ("0\n\r\n", Fault::BareLineFeed),                     // HAProxy takes it, as the next
        ("0\r\n\n", Fault::BareLineFeed),
        ("0\r\n\rX", Fault::BareCarriageReturn),
        ("0\r\nX: v\n\r\n", Fault::BareLineFeed), // HAProxy takes it
        ("0\r\nX: a\rb\r\n\r\n", Fault::BareCarriageReturn),
        ("0\r\nX: v\r\n w\r\n\r\n", Fault::FoldedLine), // HAProxy takes it
        ("0\r\nX T: v\r\n\r\n", Fault::FieldName),
        ("0\r\nX : v\r\n\r\n", Fault::SpaceBeforeColon),
        ("0\r\nnocolon\r\n\r\n", Fault::NoColon),
        ("0\r\nX: \0\r\n\r\n", Fault::Nul), // HAProxy takes it
        // HAProxy drops the first and passes the others on.
        ("0\r\nContent-Length: 5\r\n\r\n", Fault::ForbiddenTrailer),
        ("0\r\nTransfer-Encoding: chunked\r\n\r\n", Fault::ForbiddenTrailer),
        ("0\r\nHost: evil\r\n\r\n", Fault::ForbiddenTrailer),
        ("0\r\nConnection: close\r\n\r\n", Fault::ForbiddenTrailer),
    ] {
        assert_eq!(chunked(input), Err(fault), "{input:?}");
    }
}

#[test]
fn what_is_no_data_is_bounded() {
    let refused =
        |input: String| relay(input.as_bytes(), Framing::Chunked, Framing::Chunked, 1000).unwrap_err();
    let long = "x".repeat(5000);
    assert_eq!(refused(format!("3;{long}\r\nabc\r\n")), Fault::ChunkExtensionTooLarge);
    assert_eq!(refused("0".repeat(5000)), Fault::ChunkExtensionTooLarge);
    assert_eq!(refused(format!("1;{}\r\na\r\n", "x".repeat(1000)).repeat(50)), Fault::ChunkExtensionTooLarge);
    assert_eq!(refused(format!("0\r\nX: {}", "x".repeat(20_000))), Fault::TooLarge);
    assert_eq!(refused(format!("0\r\n{}", "X: y\r\n".repeat(101))), Fault::TooManyFields);
    // Signatures of 85 bytes on chunks of 64 bytes are no fault, nor are many small chunks.
    let signed = format!("40;chunk-signature={}\r\n{}\r\n", "a".repeat(64), "b".repeat(64)).repeat(1000);
    assert!(relay(signed.as_bytes(), Framing::Chunked, Framing::Chunked, 1000).is_ok());
    let small = "1\r\na\r\n".repeat(50_000);
    assert!(relay(small.as_bytes(), Framing::Chunked, Framing::Chunked, 1000).is_ok());
}

#[test]
fn other_bodies_end_where_they_say() {
    for step in 1..10 {
        let run = |input: &[u8], framing| relay(input, framing, framing, step).unwrap();
        assert_eq!(run(b"abcdef", Framing::Length(3)), (b"abc".to_vec(), Some(3)));
        assert_eq!(run(b"abc", Framing::Length(4)), (b"abc".to_vec(), None));
        assert_eq!(run(b"abc", Framing::None), (Vec::new(), Some(0)));
        assert_eq!(run(b"abc", Framing::UntilClose), (b"abc".to_vec(), None));
    }
    let mut body = Body::new(Framing::UntilClose, Framing::UntilClose);
    assert!(!body.is_done() && body.left().is_none());
    assert!(body.close() && body.is_done());
    assert!(!Body::new(Framing::Length(1), Framing::Length(1)).close());
    assert!(!Body::new(Framing::Chunked, Framing::Chunked).close());
    assert_eq!(Body::new(Framing::Length(u64::MAX), Framing::Length(u64::MAX)).left(), Some(u64::MAX));
}

#[test]
fn chunks_that_are_written_are_read() {
    for len in [1, 9, 10, 15, 16, 17, 255, 256, 4095, 4096, 70_000] {
        let data = vec![b'x'; len];
        let mut wire = Vec::new();
        write_chunk(&data, &mut wire);
        write_chunk(&[], &mut wire);
        assert!(wire.starts_with(format!("{len:X}\r\n").as_bytes()));
        Body::new(Framing::Chunked, Framing::Chunked).write_end(&mut wire);
        let read = relay(&wire, Framing::Chunked, Framing::UntilClose, 1000).unwrap();
        assert_eq!(read, (data, Some(wire.len())));
    }
}
