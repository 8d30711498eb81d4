//! `errorfile`, `errorloc` (4.2 of the manual): answers instead of the built-in ones.

use super::draft::{Context, Draft};
use super::model::ErrorFile;
use super::words::{Parsed, Words};
use std::path::PathBuf;

/// Statuses that this proxy itself can answer.
const STATUSES: [u16; 18] =
    [200, 400, 401, 403, 404, 405, 407, 408, 410, 413, 425, 429, 500, 501, 502, 503, 504, 422];

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
    if !content.is_empty() && !content.starts_with(b"HTTP/") {
        let what = format!("`{text}` does not begin with a status line");
        let next = "begin it with `HTTP/1.0 503 Service Unavailable` and an empty line before the body";
        return Err(words.problem_before(&what, "a whole answer", next));
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
