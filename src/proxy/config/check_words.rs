//! `option httpchk`, `http-check`, `option mysql-check`, `option tcp-check` (4.2 of the manual).

use super::draft::{CheckChoice, Context, Draft};
use super::model::{Expected, HttpExpect};
use super::words::{Parsed, Words};
use ehpc_proto::http::Version;

/// `option httpchk [METHOD] URI [VERSION[\r\nHEADER: VALUE]...]`.
pub(crate) fn httpchk(draft: &mut Draft, words: &mut Words<'_>, _: &mut Context<'_>) -> Parsed<()> {
    draft.check = CheckChoice::Http;
    let check = &mut draft.http_check;
    check.method = b"OPTIONS".to_vec();
    check.uri = b"/".to_vec();
    check.version = Version::Http10;
    check.headers.clear();
    let Some(first) = words.next() else { return Ok(()) };
    if words.peek().is_none() {
        check.uri = token(first, words)?;
        return Ok(());
    }
    check.method = token(first, words)?;
    let uri = words.demand("a URI")?;
    check.uri = token(uri, words)?;
    let Some(version) = words.next() else { return Ok(()) };
    // Before `http-check send`, headers were written behind the version: HTTP/1.1\r\nHost:\ www.
    let mut lines = version.split("\r\n");
    check.version = self::version(lines.next().unwrap_or_default(), words)?;
    for line in lines.filter(|line| !line.is_empty()) {
        let Some((name, value)) = line.split_once(':') else {
            return Err(words.problem_before(&format!("`{line}` is not a header"), "NAME: VALUE", ""));
        };
        check.headers.push((token(name, words)?, header_value(value.trim(), words)?));
    }
    Ok(())
}

/// `http-check disable-on-404`.
pub(crate) fn disable_on_404(draft: &mut Draft, _: &mut Words<'_>, _: &mut Context<'_>) -> Parsed<()> {
    draft.http_check.disable_on_404 = true;
    Ok(())
}

/// `http-check send-state`.
pub(crate) fn send_state(draft: &mut Draft, _: &mut Words<'_>, _: &mut Context<'_>) -> Parsed<()> {
    draft.http_check.send_state = true;
    Ok(())
}

/// `http-check send [meth M] [uri U] [ver V] [hdr NAME VALUE]... [body TEXT]`.
pub(crate) fn send(draft: &mut Draft, words: &mut Words<'_>, _: &mut Context<'_>) -> Parsed<()> {
    let check = &mut draft.check_send;
    while let Some(word) = words.next() {
        match word {
            "meth" => {
                let method = words.demand("a method")?;
                check.method = Some(token(method, words)?);
            }
            "uri" => {
                let uri = words.demand("a URI")?;
                check.uri = Some(token(uri, words)?);
            }
            "ver" => {
                let text = words.demand("HTTP/1.0 or HTTP/1.1")?;
                check.version = Some(version(text, words)?);
            }
            "hdr" => {
                let name = words.demand("a header's name and value")?;
                let name = token(name, words)?;
                let value = words.demand("the header's value")?;
                if value.contains("%[") {
                    return Err(words.problem_before(
                        "expressions in checks are not supported yet",
                        "a text",
                        "",
                    ));
                }
                check.headers.push((name, header_value(value, words)?));
            }
            "body" => check.body = words.demand("a text")?.as_bytes().to_vec(),
            "comment" => drop(words.demand("a text")?),
            "uri-lf" | "body-lf" => {
                return Err(words.problem_before(
                    "formats in checks are not supported yet",
                    "uri or body",
                    "",
                ));
            }
            other => {
                let what = format!("unknown word `{other}`");
                return Err(words.problem_before(&what, "meth, uri, ver, hdr, body, comment", ""));
            }
        }
    }
    Ok(())
}

/// `http-check expect [!] status|rstatus|string|rstring PATTERN`.
pub(crate) fn expect(draft: &mut Draft, words: &mut Words<'_>, _: &mut Context<'_>) -> Parsed<()> {
    let mut negated = false;
    let expected = "[!] status, rstatus, string or rstring, then a pattern";
    let word = loop {
        match words.demand(expected)? {
            "!" => negated = !negated,
            "comment" => drop(words.demand("a text")?),
            word => break word,
        }
    };
    let pattern = words.demand("a pattern")?;
    let what = match word {
        "status" => Expected::Status(statuses(pattern, words)?),
        "rstatus" => Expected::StatusRegex(regex(pattern, words)?),
        "string" => Expected::Body(pattern.as_bytes().to_vec()),
        "rstring" => Expected::BodyRegex(regex(pattern, words)?),
        "min-recv" | "hdr" | "fhdr" | "string-lf" | "ok-status" | "error-status" | "tout-status"
        | "on-success" | "on-error" | "status-code" => {
            let what = format!("`http-check expect {word}` is not supported yet");
            return Err(words.problem_before(&what, expected, ""));
        }
        other => return Err(words.problem_before(&format!("unknown word `{other}`"), expected, "")),
    };
    draft.http_check.expect = Some(HttpExpect { negated, what });
    Ok(())
}

/// `option mysql-check [user NAME [post-41|pre-41]]`.
pub(crate) fn mysql_check(draft: &mut Draft, words: &mut Words<'_>, _: &mut Context<'_>) -> Parsed<()> {
    let mut user = None;
    let mut post_41 = true;
    if words.peek().is_some() {
        if !words.take("user") {
            return Err(words.problem("`option mysql-check` knows only `user`", "user NAME", ""));
        }
        user = Some(words.demand("a user's name")?.as_bytes().to_vec());
        match words.next() {
            None | Some("post-41") => {}
            Some("pre-41") => post_41 = false,
            Some(other) => {
                return Err(words.problem_before(
                    &format!("unknown word `{other}`"),
                    "post-41 or pre-41",
                    "",
                ));
            }
        }
    }
    draft.check = CheckChoice::Mysql { user, post_41 };
    Ok(())
}

/// `option tcp-check` without `tcp-check` lines is a connection.
pub(crate) fn tcp_check(draft: &mut Draft, _: &mut Words<'_>, _: &mut Context<'_>) -> Parsed<()> {
    draft.check = CheckChoice::Connect;
    Ok(())
}

/// Text without blanks and control characters: a part of a request line.
fn token(text: &str, words: &Words<'_>) -> Parsed<Vec<u8>> {
    match text.is_empty() || text.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        false => Ok(text.as_bytes().to_vec()),
        true => Err(words.problem_before(&format!("{text:?} has blanks"), "a word without blanks", "")),
    }
}

fn header_value(text: &str, words: &Words<'_>) -> Parsed<Vec<u8>> {
    match text.bytes().any(|byte| (byte < b' ' && byte != b'\t') || byte == 0x7f) {
        false => Ok(text.as_bytes().to_vec()),
        true => Err(words.problem_before("a header's value has no control characters", "a text", "")),
    }
}

fn version(text: &str, words: &Words<'_>) -> Parsed<Version> {
    match text {
        "HTTP/1.0" => Ok(Version::Http10),
        "HTTP/1.1" => Ok(Version::Http11),
        _ => {
            let what = format!("`{text}` is not a version that checks can speak");
            Err(words.problem_before(&what, "HTTP/1.0 or HTTP/1.1", ""))
        }
    }
}

/// `200-299,301`.
fn statuses(text: &str, words: &Words<'_>) -> Parsed<Vec<(u16, u16)>> {
    let range = |part: &str| {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let (low, high): (u16, u16) = (low.parse().ok()?, high.parse().ok()?);
        (100..=999).contains(&low).then_some((low, high)).filter(|(low, high)| low <= high && *high <= 999)
    };
    text.split(',').map(range).collect::<Option<Vec<_>>>().ok_or_else(|| {
        words.problem_before(&format!("`{text}` is not a list of statuses"), "such as 200-299,301", "")
    })
}

fn regex(text: &str, words: &Words<'_>) -> Parsed<regex::bytes::Regex> {
    regex::bytes::RegexBuilder::new(text).unicode(false).size_limit(1 << 20).build().map_err(|error| {
        let reason = error.to_string();
        let reason = reason.lines().last().unwrap_or_default().to_owned();
        words.problem_before(&format!("`{text}` is not a regular expression: {reason}"), "", "")
    })
}
