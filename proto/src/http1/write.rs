//! Heads as bytes.

use crate::http::{RequestHead, ResponseHead, Version};

impl Version {
    /// As it stands in start lines.
    pub fn as_bytes(self) -> &'static [u8] {
        match self {
            Version::Http10 => b"HTTP/1.0",
            Version::Http11 => b"HTTP/1.1",
        }
    }
}

/// Appends a request's head.
pub fn write_request(head: &RequestHead, out: &mut Vec<u8>) {
    let method = head.method.as_bytes();
    out.reserve(method.len() + head.target.len() + head.fields.text_len() + 16);
    out.extend_from_slice(method);
    out.push(b' ');
    out.extend_from_slice(&head.target);
    out.push(b' ');
    out.extend_from_slice(head.version.as_bytes());
    out.extend_from_slice(b"\r\n");
    head.fields.write_to(out);
    out.extend_from_slice(b"\r\n");
}

/// Appends a response's head.
pub fn write_response(head: &ResponseHead, out: &mut Vec<u8>) {
    out.reserve(head.reason.len() + head.fields.text_len() + 24);
    out.extend_from_slice(head.version.as_bytes());
    out.push(b' ');
    let digit = |place: u16| b'0' + u8::try_from(head.status / place % 10).unwrap_or(0);
    out.extend_from_slice(&[digit(100), digit(10), digit(1), b' ']);
    out.extend_from_slice(&head.reason);
    out.extend_from_slice(b"\r\n");
    head.fields.write_to(out);
    out.extend_from_slice(b"\r\n");
}
