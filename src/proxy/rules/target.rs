//! Rewriting of the request target: path, query, whole URI.

use super::action::Part;
use ehpc_proto::http::RequestHead;

/// Start and end of a part in the target.
fn range(request: &RequestHead, part: Part) -> (usize, usize) {
    let target = &request.target;
    let start = request.path_start();
    let mark = target[start..].iter().position(|byte| *byte == b'?').map(|at| start + at);
    match part {
        Part::Uri => (0, target.len()),
        Part::PathAndQuery => (start, target.len()),
        Part::Path => (start, mark.unwrap_or(target.len())),
        Part::Query => (mark.map_or(target.len(), |mark| mark + 1), target.len()),
    }
}

/// A part of the target.
pub(super) fn get(request: &RequestHead, part: Part) -> &[u8] {
    let (from, to) = range(request, part);
    &request.target[from..to]
}

/// Gives a part of the target another text.
pub(super) fn set(request: &mut RequestHead, part: Part, text: &[u8]) {
    let (from, to) = range(request, part);
    if part == Part::Query {
        let text = text.strip_prefix(b"?").unwrap_or(text);
        let start = request.path_start();
        if !request.target[start..].contains(&b'?') {
            request.target.push(b'?');
        }
        let (from, to) = range(request, part);
        request.target.splice(from..to, text.iter().copied());
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
