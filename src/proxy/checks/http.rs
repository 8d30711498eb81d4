//! HTTP checks (4.2 `option httpchk`, `http-check`): the request, and what the answer means. Pure.

use crate::proxy::config::model::{Expected, HttpCheck, HttpExpect};
use crate::proxy::health::{CheckReport, CheckStatus};
use ehpc_proto::http::{Method, ResponseHead, Version};
use ehpc_proto::http1::{Asked, Body, Framing, Limits, parse_response};

/// Most bytes of an answer that are looked at (HAProxy's `tune.bufsize`).
pub(super) const MOST: usize = 16_384;

/// The request. `state`: value of `X-Haproxy-Server-State`.
pub(super) fn request(check: &HttpCheck, state: Option<&str>) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let newer = check.version == Version::Http11;
    let version: &[u8] = if newer { b" HTTP/1.1\r\n" } else { b" HTTP/1.0\r\n" };
    for part in [&check.method[..], b" ", &check.uri, version] {
        out.extend_from_slice(part);
    }
    let mut field = |name: &[u8], value: &[u8]| {
        out.extend(name.to_ascii_lowercase());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    };
    for (name, value) in &check.headers {
        field(name, value);
    }
    if let Some(state) = state {
        field(b"x-haproxy-server-state", state.as_bytes());
    }
    if !check.body.is_empty() {
        field(b"content-length", check.body.len().to_string().as_bytes());
    }
    if newer {
        field(b"connection", b"close");
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&check.body);
    out
}

/// What an answer means, `None` while it takes more of it to tell. `ended`: no more will come.
pub(super) fn judge(check: &HttpCheck, bytes: &[u8], ended: bool) -> Option<CheckReport> {
    let ended = ended || bytes.len() >= MOST;
    let invalid = || CheckReport::new(CheckStatus::Layer7Response);
    let mut head = ResponseHead::default();
    let asked = Asked { head: Method::new(&check.method) == Method::Head, ..Asked::default() };
    let parsed = match parse_response(bytes, &Limits::default(), false, asked, &mut head) {
        Ok(Some(parsed)) => parsed,
        Ok(None) => return ended.then(invalid),
        Err(_) => return Some(invalid()),
    };
    let rest = &bytes[parsed.head_len.min(bytes.len())..];
    if parsed.interim && rest.is_empty() {
        return ended.then(invalid);
    }
    let status = head.status;
    let wrong_status = || {
        let reason = String::from_utf8_lossy(&head.reason).into_owned();
        CheckReport::new(CheckStatus::Layer7Status).with_code(status).with_info(reason)
    };
    let passed = || CheckReport::new(CheckStatus::Layer7Ok).with_code(status);
    if check.disable_on_404 && status == 404 {
        return Some(CheckReport::new(CheckStatus::Layer7Conditional).with_code(status));
    }
    let Some(HttpExpect { negated, what }) = &check.expect else {
        return Some(if (200..400).contains(&status) { passed() } else { wrong_status() });
    };
    let matches = match what {
        Expected::Status(ranges) => ranges.iter().any(|(low, high)| (*low..=*high).contains(&status)),
        Expected::StatusRegex(regex) => regex.is_match(status.to_string().as_bytes()),
        Expected::Body(_) | Expected::BodyRegex(_) => {
            return judge_body(rest, parsed.framing, what, *negated, ended, passed);
        }
    };
    Some(if matches != *negated { passed() } else { wrong_status() })
}

fn judge_body(
    bytes: &[u8],
    framing: Framing,
    what: &Expected,
    negated: bool,
    ended: bool,
    passed: impl Fn() -> CheckReport,
) -> Option<CheckReport> {
    let failed = |why: &str| Some(CheckReport::new(CheckStatus::Layer7Response).with_info(why));
    let mut content = Vec::new();
    let mut body = Body::new(framing, Framing::UntilClose);
    let mut left = bytes;
    loop {
        let Ok(step) = body.step(left) else { return failed("") };
        if step.send == 0 && step.skip == 0 {
            break;
        }
        content.extend_from_slice(&left[..step.send]);
        left = &left[step.send + step.skip..];
    }
    let matches = match what {
        Expected::Body(text) => memchr::memmem::find(&content, text).is_some(),
        Expected::BodyRegex(regex) => regex.is_match(&content),
        Expected::Status(_) | Expected::StatusRegex(_) => false,
    };
    match (matches, negated) {
        (true, false) => Some(passed()),
        (true, true) => failed("HTTP check matched unwanted content"),
        _ if !ended && !body.is_done() => None,
        (false, true) if !content.is_empty() => Some(passed()),
        (false, _) if content.is_empty() => failed("HTTP content check could not find a response body"),
        (false, _) => failed("HTTP content check did not match"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut HttpCheck)) -> HttpCheck {
        let (method, uri) = (b"OPTIONS".to_vec(), b"/".to_vec());
        let mut check = HttpCheck { method, uri, version: Version::Http10, ..HttpCheck::default() };
        change(&mut check);
        check
    }

    fn expect(negated: bool, what: Expected) -> HttpCheck {
        check(|check| check.expect = Some(HttpExpect { negated, what }))
    }

    fn answer(status: &str, body: &str) -> Vec<u8> {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    /// The report without the time, as HAProxy's `log-health-checks` has it.
    fn shown(check: &HttpCheck, bytes: &[u8], ended: bool) -> String {
        let Some(report) = judge(check, bytes, ended) else { return "more".to_owned() };
        let reason = report.reason();
        let end = reason.find(", check duration").unwrap();
        reason["reason: ".len()..end].to_owned()
    }

    #[test]
    fn requests_are_haproxys() {
        assert_eq!(request(&check(|_| {}), None), b"OPTIONS / HTTP/1.0\r\n\r\n");
        let full = check(|check| {
            check.method = b"POST".to_vec();
            check.uri = b"/c".to_vec();
            check.version = Version::Http11;
            check.headers = vec![(b"Host".to_vec(), b"www".to_vec())];
            check.body = b"hello".to_vec();
        });
        assert_eq!(
            String::from_utf8_lossy(&request(&full, Some("UP"))),
            "POST /c HTTP/1.1\r\nhost: www\r\nx-haproxy-server-state: UP\r\ncontent-length: 5\r\nconnection: \
             close\r\n\r\nhello"
        );
    }

    /// Recorded from HAProxy 2.6.12: one backend a case, the server answers and closes.
    #[test]
    fn answers_are_judged_as_haproxy_judges_them() {
        let plain = check(|_| {});
        let conditional = check(|check| check.disable_on_404 = true);
        let text = |text: &str| Expected::Body(text.as_bytes().to_vec());
        let regex = |text: &str| regex::bytes::Regex::new(text).unwrap();
        let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
        let continued = [&b"HTTP/1.1 100 Continue\r\n\r\n"[..], &answer("200 OK", "abc")].concat();
        let cases: Vec<(&str, HttpCheck, Vec<u8>, &str)> = vec![
            ("ok", plain.clone(), answer("200 OK", "abc"), "Layer7 check passed, code: 200"),
            ("302", plain.clone(), answer("302 Found", ""), "Layer7 check passed, code: 302"),
            (
                "404",
                plain.clone(),
                answer("404 Not Found", ""),
                "Layer7 wrong status, code: 404, info: \"Not Found\"",
            ),
            ("no reason", plain.clone(), b"HTTP/1.1 404\r\n\r\n".to_vec(), "Layer7 wrong status, code: 404"),
            ("100", plain.clone(), b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), "Layer7 invalid response"),
            ("100 and 200", plain.clone(), continued, "Layer7 wrong status, code: 100, info: \"Continue\""),
            ("no HTTP", plain.clone(), b"SSH-2.0 x\r\n".to_vec(), "Layer7 invalid response"),
            ("cut", plain.clone(), b"HTTP/1.1 200 OK\r\nx: y".to_vec(), "Layer7 invalid response"),
            ("nothing", plain.clone(), Vec::new(), "Layer7 invalid response"),
            ("1.0", plain.clone(), b"HTTP/1.0 200 OK\r\n\r\n".to_vec(), "Layer7 check passed, code: 200"),
            ("LF", plain.clone(), b"HTTP/1.1 200 OK\n\n".to_vec(), "Layer7 check passed, code: 200"),
            (
                "length",
                plain.clone(),
                b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n".to_vec(),
                "Layer7 invalid response",
            ),
            (
                "404c",
                conditional,
                answer("404 Not Found", ""),
                "Layer7 check conditionally passed, code: 404",
            ),
            (
                "status",
                expect(false, Expected::Status(vec![(200, 200)])),
                answer("200 OK", ""),
                "Layer7 check passed, code: 200",
            ),
            (
                "not status",
                expect(true, Expected::Status(vec![(200, 200)])),
                answer("200 OK", ""),
                "Layer7 wrong status, code: 200, info: \"OK\"",
            ),
            (
                "ranges",
                expect(false, Expected::Status(vec![(200, 299), (404, 404)])),
                answer("500 Oops", ""),
                "Layer7 wrong status, code: 500, info: \"Oops\"",
            ),
            (
                "rstatus",
                expect(false, Expected::StatusRegex(regex("^2"))),
                answer("201 OK", ""),
                "Layer7 check passed, code: 201",
            ),
            ("string", expect(false, text("abc")), answer("500 OK", "abc"), "Layer7 check passed, code: 500"),
            (
                "no string",
                expect(false, text("abd")),
                answer("200 OK", "abc"),
                "Layer7 invalid response, info: \"HTTP content check did not match\"",
            ),
            (
                "not string",
                expect(true, text("abc")),
                answer("200 OK", "abc"),
                "Layer7 invalid response, info: \"HTTP check matched unwanted content\"",
            ),
            (
                "not other",
                expect(true, text("abd")),
                answer("200 OK", "abc"),
                "Layer7 check passed, code: 200",
            ),
            (
                "rstring",
                expect(false, Expected::BodyRegex(regex("a.c"))),
                answer("200 OK", "abc"),
                "Layer7 check passed, code: 200",
            ),
            ("chunks", expect(false, text("abc")), chunked.to_vec(), "Layer7 check passed, code: 200"),
            (
                "empty",
                expect(false, text("abc")),
                answer("200 OK", ""),
                "Layer7 invalid response, info: \"HTTP content check could not find a response body\"",
            ),
            (
                "until close",
                expect(false, text("abc")),
                b"HTTP/1.1 200 OK\r\n\r\nxxabc".to_vec(),
                "Layer7 check passed, code: 200",
            ),
            (
                "cut body",
                expect(false, text("abc")),
                b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nxxab".to_vec(),
                "Layer7 invalid response, info: \"HTTP content check did not match\"",
            ),
        ];
        for (name, check, bytes, expected) in cases {
            assert_eq!(shown(&check, &bytes, true), expected, "{name}");
        }
    }

    #[test]
    fn nothing_is_said_before_it_is_certain() {
        let plain = check(|_| {});
        assert_eq!(shown(&plain, b"HTTP/1.1 200 OK\r\nx: y", false), "more");
        let unfinished = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n";
        assert_eq!(shown(&plain, unfinished, false), "Layer7 check passed, code: 200");
        let wanted = expect(false, Expected::Body(b"abc".to_vec()));
        assert_eq!(shown(&wanted, unfinished, false), "more");
        let early = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nxxabc";
        assert_eq!(shown(&wanted, early, false), "Layer7 check passed, code: 200");
    }

    #[test]
    fn an_answer_without_end_is_judged_by_its_beginning() {
        let wanted = expect(false, Expected::Body(b"abc".to_vec()));
        let mut endless = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        endless.resize(MOST, b'x');
        assert!(shown(&wanted, &endless, false).starts_with("Layer7 invalid response"));
    }
}
