//! As much of HTTP/1 as the harness needs to know where a well-formed message ends, written independently of the product.

/// Which half.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    /// `bodiless`: to HEAD.
    Response {
        bodiless: bool,
    },
}

pub(crate) fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len().max(1)).any(|window| window == text)
}

/// Length of the head with its blank line.
pub(crate) fn head_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// Value of the first header of this (lower-case) name.
pub(crate) fn header(head: &[u8], name: &str) -> Option<String> {
    String::from_utf8_lossy(head)
        .lines()
        .skip(1)
        .filter_map(|line| {
            line.split_once(':').map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        })
        .find_map(|(found, value)| (found == name).then_some(value))
}

/// Length of a chunked body, with its trailers; its data; its trailers.
pub(crate) fn chunked(body: &[u8]) -> Option<(usize, Vec<u8>, Vec<u8>)> {
    let (mut at, mut data) = (0, Vec::new());
    loop {
        let line = at + body.get(at..)?.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&body[at..line]).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            let mut end = line + 2;
            loop {
                let length = body.get(end..)?.windows(2).position(|window| window == b"\r\n")?;
                let trailers = body[line + 2..end].to_vec();
                end += length + 2;
                if length == 0 {
                    return Some((end, data, trailers));
                }
            }
        }
        data.extend_from_slice(body.get(line + 2..line + 2 + size)?);
        at = line + 2 + size + 2;
    }
}

/// Length of the message that `bytes` begin with; `None`: more is needed (or it ends with the connection).
pub(crate) fn length(bytes: &[u8], kind: Kind) -> Option<usize> {
    let head = head_length(bytes)?;
    if let Kind::Response { bodiless } = kind {
        let status = bytes.get(9..12)?;
        if bodiless || status[0] == b'1' || status == b"204" || status == b"304" {
            return Some(head);
        }
    }
    if header(&bytes[..head], "transfer-encoding")
        .is_some_and(|value| value.to_lowercase().ends_with("chunked"))
    {
        return chunked(&bytes[head..]).map(|(length, _, _)| head + length);
    }
    let body = match header(&bytes[..head], "content-length").and_then(|value| value.parse::<usize>().ok()) {
        Some(length) => length,
        None if kind == Kind::Request => 0,
        None => return None,
    };
    (bytes.len() >= head + body).then_some(head + body)
}

/// The same messages with chunked bodies in one form, however they were cut: `<chunked>data<trailers>`.
pub(crate) fn with_plain_chunks(bytes: &[u8]) -> Vec<u8> {
    let (mut rest, mut out) = (bytes, Vec::new());
    while let Some(head) = head_length(rest) {
        out.extend_from_slice(&rest[..head]);
        let transfer = header(&rest[..head], "transfer-encoding").unwrap_or_default().to_lowercase();
        rest = &rest[head..];
        if transfer.ends_with("chunked")
            && let Some((length, data, trailers)) = chunked(rest)
        {
            out.extend_from_slice(b"<chunked>");
            out.extend_from_slice(&data);
            out.extend_from_slice(b"<trailers>");
            out.extend_from_slice(&trailers);
            rest = &rest[length..];
        }
    }
    out.extend_from_slice(rest);
    out
}

#[test]
fn message_borders() {
    let all = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\nt: 1\r\n\r\nHTTP/1.1";
    let length = length(all, Kind::Response { bodiless: false }).expect("complete");
    assert_eq!(&all[length..], b"HTTP/1.1");
    assert!(with_plain_chunks(all).ends_with(b"<chunked>abcde<trailers>t: 1\r\nHTTP/1.1"));
    assert_eq!(super::message::length(&all[..length - 1], Kind::Response { bodiless: false }), None);
}
