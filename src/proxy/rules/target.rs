//! Rewriting of the request target: path, query, whole URI.

use super::action::Part;
use ehpc_proto::http::RequestHead;

/// Start and end of a part in the target; `None` of a path that there is not (`*`, `host:port`).
fn range(request: &RequestHead, part: Part) -> Option<(usize, usize)> {
    let target = &request.target;
    let start = request.path_start();
    if part == Part::Uri {
        return Some((0, target.len()));
    }
    if start == target.len() && authority(request).is_none() {
        return None;
    }
    let mark = target[start..].iter().position(|byte| *byte == b'?').map(|at| start + at);
    Some(match part {
        Part::Query => (mark.map_or(target.len(), |mark| mark + 1), target.len()),
        Part::Path => (start, mark.unwrap_or(target.len())),
        _ => (start, target.len()),
    })
}

/// A part of the target.
pub(super) fn get(request: &RequestHead, part: Part) -> Option<&[u8]> {
    range(request, part).map(|(from, to)| &request.target[from..to])
}

/// Gives a part of the target another text. Spaces and control characters are encoded: they would end the request line
/// early, for servers that take what follows for another version or request. (HAProxy 2.6 sends spaces as they are.)
pub(super) fn set(request: &mut RequestHead, part: Part, text: &[u8]) {
    if !text.iter().any(|byte| breaks(*byte)) {
        return replace(request, part, text);
    }
    let mut encoded = Vec::with_capacity(text.len() + 16);
    for byte in text {
        match breaks(*byte) {
            true => encoded.extend(format!("%{byte:02X}").bytes()),
            false => encoded.push(*byte),
        }
    }
    replace(request, part, &encoded);
}

fn breaks(byte: u8) -> bool {
    byte <= b' ' || byte == 0x7f
}

fn replace(request: &mut RequestHead, part: Part, text: &[u8]) {
    let Some((from, to)) = range(request, part) else {
        // A path takes the place of `*`; nothing takes the place of an authority.
        if request.target == b"*" && part != Part::Query && text.first() == Some(&b'/') {
            request.target = text.to_vec();
        }
        return;
    };
    if part == Part::Query {
        let mark = from > 0 && request.target[from - 1] == b'?' && from > request.path_start();
        match (mark, text.is_empty()) {
            (false, true) => return,
            (false, false) => request.target.push(b'?'),
            (true, _) => {}
        }
        request.target.truncate(if mark { from } else { request.target.len() });
        request.target.extend_from_slice(text);
        return;
    }
    request.target.splice(from..to, text.iter().copied());
    if part == Part::Uri
        && let Some((from, to)) = authority(request)
    {
        // The host of an absolute URI and the header say the same (RFC 9112 section 3.2.2).
        let host = request.target[from..to].to_vec();
        let place = request.fields.all(b"host").next().map(|(place, _)| place);
        if let Some(place) = place {
            request.fields.replace(place, &host);
        }
    }
}

/// Where the authority of an absolute URI lies.
fn authority(request: &RequestHead) -> Option<(usize, usize)> {
    if request.target.first() == Some(&b'/') {
        return None;
    }
    let scheme = memchr::memmem::find(&request.target, b"://")?;
    Some((scheme + 3, request.path_start()))
}

/// A new `Host` is also the authority of an absolute URI.
pub(super) fn set_authority(request: &mut RequestHead, host: &[u8]) {
    if let Some((from, to)) = authority(request) {
        request.target.splice(from..to, host.iter().copied());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_end_the_request_line_is_encoded() {
        let mut request = RequestHead { target: b"/a?b".to_vec(), ..RequestHead::default() };
        set(&mut request, Part::Path, b"/x y\r\nz\x7f");
        assert_eq!(request.target, b"/x%20y%0D%0Az%7F?b");
        set(&mut request, Part::Query, b"a HTTP/1.0");
        assert_eq!(request.target, b"/x%20y%0D%0Az%7F?a%20HTTP/1.0");
    }
}
