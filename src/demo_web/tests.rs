//! Names, ranges and pages.

use super::page::{Frame, Language, link};
use super::server::{PATIENCE, Part, Settings, foreign, part, serve};
use super::share::{Entry, Share};
use super::upload::safe_name;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// A node over an NFS server that is not there, with a limit of 1000 bytes: what does not need a share is answered.
async fn node(patience: Duration) -> (std::net::SocketAddr, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let settings = Settings { name: "web1".to_owned(), max_upload: 1000, patience };
    tokio::spawn(serve(listener, settings, Share::new("127.0.0.1:1", "/"), stop.clone()));
    (at, stop)
}

/// Everything that is answered to these bytes, to the end of the connection.
async fn answer(request: &[u8]) -> String {
    let (at, _stop) = node(PATIENCE).await;
    let mut stream = TcpStream::connect(at).await.unwrap();
    // The answer may come, and the connection close, before everything was sent.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// An upload with these header lines and a field of this name and content.
fn form(headers: &str, field: &str, content: &str) -> Vec<u8> {
    let body = format!(
        "--b\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"a\"\r\n\r\n{content}\r\n--b--\r\n"
    );
    format!(
        "POST /upload HTTP/1.1\r\nHost: web.example:8080\r\nConnection: close\r\n{headers}\
         Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[test]
fn a_page_of_another_site_is_foreign() {
    let is = |fields: &[(&'static str, &'static str)]| {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        foreign(&headers)
    };
    let host = ("host", "web.example:8080");
    // curl; a browser's own page; an address that was typed.
    assert!(!is(&[host]));
    assert!(!is(&[host, ("origin", "http://web.example:8080")]));
    assert!(!is(&[host, ("sec-fetch-site", "same-origin"), ("origin", "http://web.example:8080")]));
    assert!(!is(&[host, ("sec-fetch-site", "none")]));
    assert!(is(&[host, ("origin", "http://evil.example")]));
    assert!(is(&[host, ("origin", "http://web.example:8081")]));
    assert!(is(&[host, ("origin", "null")]));
    assert!(is(&[host, ("sec-fetch-site", "cross-site")]));
    assert!(is(&[host, ("sec-fetch-site", "same-site"), ("origin", "http://web.example:8080")]));
    assert!(is(&[("origin", "http://web.example:8080")]));
}

#[tokio::test]
async fn a_form_of_another_site_stores_nothing() {
    let seen = answer(&form("Origin: http://evil.example\r\n", "file", "x")).await;
    assert!(seen.starts_with("HTTP/1.1 403 ") && seen.contains("another site"), "{seen}");
    // One's own gets as far as the share, which is not there.
    for own in ["", "Origin: http://web.example:8080\r\n", "Sec-Fetch-Site: same-origin\r\n"] {
        let seen = answer(&form(own, "file", "x")).await;
        assert!(seen.starts_with("HTTP/1.1 503 "), "{own}: {seen}");
    }
}

#[tokio::test]
async fn every_field_counts_for_the_limit() {
    let seen = answer(&form("", "other", &"x".repeat(1001))).await;
    assert!(seen.starts_with("HTTP/1.1 413 "), "{seen}");
    let seen = answer(&form("", "other", &"x".repeat(1000))).await;
    assert!(seen.starts_with("HTTP/1.1 400 ") && seen.contains("no field `file`"), "{seen}");
    // What stands before the first field is bounded with the whole.
    let mut long = form("", "other", "x");
    let at = long.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
    let body = [vec![b'x'; 1 << 20], long.split_off(at)].concat();
    let head = String::from_utf8(long).unwrap();
    let length = head.split_once("Content-Length: ").unwrap().1.trim_end().to_owned();
    let head = head.replace(&length, &body.len().to_string());
    let seen = answer(&[head.into_bytes(), body].concat()).await;
    assert!(seen.starts_with("HTTP/1.1 413 "), "{seen}");
}

#[tokio::test]
async fn a_slow_client_is_sent_away() {
    let (at, _stop) = node(Duration::from_millis(100)).await;
    let whole = form("", "other", "x");
    let head = whole.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
    // Nothing; a head that never ends; a body that never ends.
    for sent in [&b""[..], b"GET / HTTP/1.1\r\nHost: a\r\n", &whole[..head + 10]] {
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(sent).await.unwrap();
        let mut seen = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut seen));
        assert!(ended.await.is_ok(), "{} bytes: still held", sent.len());
        let seen = String::from_utf8_lossy(&seen);
        assert!(sent.len() < head || seen.starts_with("HTTP/1.1 408 "), "{seen}");
    }
}

#[test]
fn a_name_loses_its_directories_and_must_be_one() {
    assert_eq!(safe_name("C:\\Users\\a\\b c.txt").unwrap(), "b c.txt");
    assert_eq!(safe_name("../../etc/passwd").unwrap(), "passwd");
    assert_eq!(safe_name("报告.pdf").unwrap(), "报告.pdf");
    for bad in ["", "..", ".", "a/", "a\nb", ".upload-1", &"x".repeat(256)] {
        assert!(safe_name(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn ranges_are_those_of_the_rfc() {
    assert_eq!(part("bytes=0-99", 10), Part::Bytes(0, 10));
    assert_eq!(part("bytes=2-4", 10), Part::Bytes(2, 3));
    assert_eq!(part("bytes=7-", 10), Part::Bytes(7, 3));
    assert_eq!(part("bytes=-3", 10), Part::Bytes(7, 3));
    assert_eq!(part("bytes=-30", 10), Part::Bytes(0, 10));
    assert_eq!(part("bytes=10-", 10), Part::Outside);
    assert_eq!(part("bytes=0-", 0), Part::Outside);
    assert_eq!(part("bytes=-0", 10), Part::Outside);
    for odd in ["bytes=4-2", "bytes=a-b", "lines=1-2", "bytes=1-2,4-5", "bytes=18446744073709551615-0"] {
        assert!(matches!(part(odd, 10), Part::Whole | Part::Outside), "{odd}");
    }
}

#[test]
fn a_page_escapes_what_people_upload() {
    let entries = [
        Entry { name: b"<script>\"&'".to_vec(), directory: false, size: 3, modified: 0 },
        Entry { name: vec![0xff, b'?', b'#', b'%'], directory: true, size: 0, modified: 0 },
    ];
    let frame = Frame { language: Language::English, node: "web<1>", nonce: "n" };
    let html = frame.listing("a b", &entries, Some((7, [0; 8])));
    assert!(!html.contains("<script>") && !html.contains("web<1>"), "{html}");
    assert!(html.contains("/files/a%20b/%3Cscript%3E%22%26%27\""), "{html}");
    assert!(html.contains("/files/a%20b/%FF%3F%23%25/\""), "{html}");
    assert!(html.contains("?from=7&amp;verifier=0"), "{html}");
}

#[test]
fn the_browser_chooses_the_language() {
    assert_eq!(Language::choose(Some("fr, zh-CN;q=0.8, en;q=0.5")), Language::Chinese);
    assert_eq!(Language::choose(Some("en-GB,zh")), Language::English);
    assert_eq!(Language::choose(None), Language::English);
    assert_eq!(link(b"", true), "/");
}
