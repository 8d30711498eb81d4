//! `errorfile`, `errorloc` (4.2 of the manual): answers instead of the built-in ones.

use super::draft::{Context, Draft};
use super::model::ErrorFile;
use super::words::{Parsed, Words};
use ehpc_proto::http::ResponseHead;
use ehpc_proto::http1::{Asked, Framing, Limits, parse_response};
use std::path::PathBuf;

/// Statuses that this proxy itself can answer.
const STATUSES: [u16; 18] =
    [200, 400, 401, 403, 404, 405, 407, 408, 410, 413, 425, 429, 500, 501, 502, 503, 504, 422];

/// What helps where a file is no whole answer.
pub(crate) const NEXT: &str = "begin it with `HTTP/1.0 503 Service Unavailable` and an empty line before the body; leave \
                               Content-Length out, or give the body's length";

/// Why `content` is no answer that can be sent whole, as HAProxy sees it (`http_str_to_htx`). Nothing at all can be sent.
pub(crate) fn fault(content: &[u8]) -> Option<String> {
    if content.is_empty() {
        return None;
    }
    let mut head = ResponseHead::default();
    // Its size is bounded already; a field weighs a little more than its text.
    let limits = Limits { head: content.len() + 1024, ..Limits::default() };
    let parsed = match parse_response(content, &limits, false, Asked::default(), &mut head) {
        Ok(Some(parsed)) => parsed,
        Ok(None) => return Some("the head is not complete".to_owned()),
        Err(bad) => return Some(format!("the head cannot be read: {} (at byte {})", bad.fault, bad.at)),
    };
    let body = content.len() - parsed.head_len;
    match parsed.framing {
        _ if parsed.interim => Some(format!("{} is no final status", head.status)),
        Framing::Chunked => Some("a body in chunks is not supported".to_owned()),
        Framing::Length(length) if length != body as u64 => {
            Some(format!("its Content-Length is {length}, but its body has {body} bytes"))
        }
        Framing::None if body > 0 => {
            Some(format!("status {} has no body, but {body} bytes follow", head.status))
        }
        _ => None,
    }
}

/// `errorfile CODE FILE`: the file's bytes are sent as they are.
pub(crate) fn error_file(draft: &mut Draft, words: &mut Words<'_>, context: &mut Context<'_>) -> Parsed<()> {
    let code = status(words)?;
    let text = words.demand("a file")?;
    let path = PathBuf::from(text);
    let most = context.bufsize as u64;
    let content = match (context.surroundings.read)(&path, most) {
        Ok(content) if content.len() as u64 > most => {
            let what = format!("`{text}` is larger than a buffer ({most} bytes)");
            return Err(words.problem_before(&what, "a smaller file", "shorten it, or raise tune.bufsize"));
        }
        Ok(content) => content,
        Err(error) => {
            let what = format!("`{text}` cannot be read: {error}");
            return Err(words.problem_before(
                &what,
                "a file with a whole answer",
                "create it, or remove this line",
            ));
        }
    };
    if let Some(fault) = fault(&content) {
        let what = format!("`{text}`: {fault}");
        return Err(words.problem_before(&what, "a whole answer", NEXT));
    }
    let site = words.site_before();
    draft.error_files.insert(code, ErrorFile { site, path, content: content.into() });
    Ok(())
}

/// `errorloc302 CODE URL`.
pub(crate) fn error_location_302(
    draft: &mut Draft,
    words: &mut Words<'_>,
    _: &mut Context<'_>,
) -> Parsed<()> {
    location(draft, words, "302 Found")
}

/// `errorloc303 CODE URL`.
pub(crate) fn error_location_303(
    draft: &mut Draft,
    words: &mut Words<'_>,
    _: &mut Context<'_>,
) -> Parsed<()> {
    location(draft, words, "303 See Other")
}

fn location(draft: &mut Draft, words: &mut Words<'_>, line: &str) -> Parsed<()> {
    let code = status(words)?;
    let url = words.demand("a URL")?;
    if url.bytes().any(|byte| byte.is_ascii_control() || byte == b' ') {
        return Err(words.problem_before("a URL has no blanks", "a URL", "write %20"));
    }
    let content =
        format!("HTTP/1.1 {line}\r\ncache-control: no-cache\r\ncontent-length: 0\r\nlocation: {url}\r\n\r\n");
    let site = words.site_before();
    let path = PathBuf::from(url);
    draft.error_files.insert(code, ErrorFile { site, path, content: content.into_bytes().into() });
    Ok(())
}

fn status(words: &mut Words<'_>) -> Parsed<u16> {
    let expected = "a status: 400 401 403 404 405 407 408 410 413 425 429 500 501 502 503 504, or 200";
    let text = words.demand(expected)?;
    text.parse::<u16>().ok().filter(|code| STATUSES.contains(code)).ok_or_else(|| {
        words.problem_before(&format!("`{text}` is no status that this proxy answers itself"), expected, "")
    })
}
