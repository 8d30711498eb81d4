//! `cookie` in a backend (4.2 of the manual).

use super::draft::{Context, Draft};
use super::model::{CookieKind, CookiePolicy};
use super::values::{Unit, time};
use super::words::{Parsed, Words};

/// `cookie NAME [rewrite|insert|prefix] [words]`.
pub(crate) fn cookie(draft: &mut Draft, words: &mut Words<'_>, context: &mut Context<'_>) -> Parsed<()> {
    let name = words.demand("the name of a cookie")?;
    if name.bytes().any(|byte| !byte.is_ascii_graphic() || b"=;,".contains(&byte)) {
        return Err(words.problem_before(
            &format!("`{name}` cannot name a cookie"),
            "a name without = ; ,",
            "",
        ));
    }
    let mut policy = CookiePolicy {
        name: name.as_bytes().to_vec(),
        kind: CookieKind::Passive,
        indirect: false,
        nocache: false,
        postonly: false,
        preserve: false,
        httponly: false,
        secure: false,
        domains: Vec::new(),
        maxidle: None,
        maxlife: None,
        attributes: Vec::new(),
    };
    let mut kind = None;
    while let Some(word) = words.next() {
        match word {
            "rewrite" | "insert" | "prefix" => {
                if kind.is_some_and(|before| before != word) {
                    let what = "`rewrite`, `insert` and `prefix` exclude each other";
                    return Err(words.problem_before(what, "one of them", "remove all but one"));
                }
                kind = Some(word);
                policy.kind = match word {
                    "rewrite" => CookieKind::Rewrite,
                    "insert" => CookieKind::Insert,
                    _ => CookieKind::Prefix,
                };
            }
            "indirect" => policy.indirect = true,
            "nocache" => policy.nocache = true,
            "postonly" => policy.postonly = true,
            "preserve" => policy.preserve = true,
            "httponly" => policy.httponly = true,
            "secure" => policy.secure = true,
            "domain" => policy.domains.push(domain(words, context)?),
            "maxidle" => policy.maxidle = Some(time(words, Unit::Seconds)?),
            "maxlife" => policy.maxlife = Some(time(words, Unit::Seconds)?),
            "attr" => policy.attributes.push(attribute(words)?),
            "dynamic" => {
                let next = "give each server a `cookie` of its own";
                return Err(words.problem_before("`dynamic` is not supported yet", "", next));
            }
            other => {
                let what = format!("unknown word `{other}`");
                let expected = "rewrite, insert, prefix, indirect, nocache, postonly, preserve, httponly, secure, \
                                domain, maxidle, maxlife, attr";
                return Err(words.problem_before(&what, expected, ""));
            }
        }
    }
    consistent(&policy, words)?;
    draft.cookie = Some(policy);
    Ok(())
}

/// What HAProxy refuses of combinations.
fn consistent(policy: &CookiePolicy, words: &Words<'_>) -> Parsed<()> {
    let refuse = |what: &str, next: &str| Err(words.problem_before(what, "", next));
    if policy.kind == CookieKind::Rewrite && policy.indirect {
        return refuse("`rewrite` and `indirect` exclude each other", "remove one");
    }
    if policy.preserve && policy.kind != CookieKind::Insert && !policy.indirect {
        return refuse("`preserve` needs `insert` or `indirect`", "add one of them");
    }
    Ok(())
}

fn domain(words: &mut Words<'_>, context: &mut Context<'_>) -> Parsed<Vec<u8>> {
    let text = words.demand("a domain such as .example.com")?;
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    if !plain {
        return Err(words.problem_before(&format!("`{text}` is not a domain"), "letters, digits, - . _", ""));
    }
    if !text.contains('.') {
        let what =
            format!("the domain `{text}` has no dot; browsers may refuse its cookies (RFC 6265, 5.2.3)");
        context.warn(&words.site_before(), &what);
    }
    Ok(text.as_bytes().to_vec())
}

fn attribute(words: &mut Words<'_>) -> Parsed<Vec<u8>> {
    let text = words.demand("an attribute such as SameSite=Strict")?;
    match text.bytes().any(|byte| byte == b';' || byte.is_ascii_control()) {
        false => Ok(text.as_bytes().to_vec()),
        true => {
            Err(words.problem_before("an attribute has no `;` and no control character", "NAME=VALUE", ""))
        }
    }
}
