//! The pages: plain HTML, English and Chinese, nothing loaded from elsewhere.

use super::share::{Entry, Fault, Resume, text};
use crate::observe::words;
use std::fmt::Write as _;

/// Language of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Language {
    English,
    Chinese,
}

impl Language {
    /// The browser's first choice of the two (`Accept-Language`).
    pub(super) fn choose(accepted: Option<&str>) -> Language {
        let tags = accepted.unwrap_or_default().split(',').map(|tag| tag.trim().to_ascii_lowercase());
        let known = tags.filter_map(|tag| match tag.get(..2) {
            Some("zh") => Some(Language::Chinese),
            Some("en") => Some(Language::English),
            _ => None,
        });
        known.into_iter().next().unwrap_or(Language::English)
    }

    fn pick(self, english: &'static str, chinese: &'static str) -> &'static str {
        match self {
            Language::English => english,
            Language::Chinese => chinese,
        }
    }
}

/// What every page of a node has.
pub(super) struct Frame<'n> {
    pub(super) language: Language,
    /// The node's name.
    pub(super) node: &'n str,
    /// What the response's policy knows the style by.
    pub(super) nonce: &'n str,
}

const STYLE: &str = "body{font:16px/1.5 sans-serif;max-width:56em;margin:1em auto;padding:0 1em;color:#222;background:#fff}\
h1{font-size:1.4em}table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.2em 1em .2em 0;\
border-bottom:1px solid #ddd;overflow-wrap:anywhere}td:nth-child(2),th:nth-child(2){text-align:right;white-space:nowrap}\
.node{color:#070}.bad{color:#b00}form{margin:1em 0;padding:1em;border:1px solid #ccc}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}.node{color:#7d7}.bad{color:#f77}a{color:#9bf}\
td,th,form{border-color:#444}}";

impl Frame<'_> {
    fn wrap(&self, title: &str, body: &str) -> String {
        let (lang, answered) = match self.language {
            Language::English => ("en", "answered by"),
            Language::Chinese => ("zh-CN", "由此节点响应："),
        };
        format!(
            "<!DOCTYPE html><html lang={lang}><head><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
             <title>{title}</title><style nonce={}>{STYLE}</style></head><body><h1>{title}</h1>\
             <p>{answered} <b class=node>{}</b></p>{body}</body></html>\n",
            self.nonce,
            escape(self.node)
        )
    }

    /// A directory: the form (in the share's root), what is there, and the way on.
    pub(super) fn listing(&self, path: &str, entries: &[Entry], more: Option<Resume>) -> String {
        let pick = |english, chinese| self.language.pick(english, chinese);
        let mut body = String::new();
        // Writing to a String cannot fail; here and below.
        if path.is_empty() {
            let _ = write!(
                body,
                "<form method=post action=/upload enctype=multipart/form-data><input type=file name=file multiple required> \
                 <button>{}</button></form>",
                pick("Upload", "上传")
            );
        } else {
            let up = path.trim_end_matches('/').rsplit_once('/').map_or("", |(up, _)| up);
            let _ = write!(body, "<p><a href=\"{}\">..</a></p>", link(up.as_bytes(), true));
        }
        let _ = write!(
            body,
            "<table><tr><th>{}</th><th>{}</th><th>{}</th></tr>",
            pick("Name", "名称"),
            pick("Size", "大小"),
            pick("Changed (UTC)", "修改时间 (UTC)")
        );
        for entry in entries {
            let mut full = path.trim_end_matches('/').as_bytes().to_vec();
            if !full.is_empty() {
                full.push(b'/');
            }
            full.extend_from_slice(&entry.name);
            let (mark, size) = match entry.directory {
                true => ("/", String::new()),
                false => ("", words::bytes(entry.size)),
            };
            let _ = write!(
                body,
                "<tr><td><a href=\"{}\">{}{mark}</a></td><td>{size}</td><td>{}</td></tr>",
                link(&full, entry.directory),
                escape(&text(&entry.name)),
                words::utc(u64::from(entry.modified) * 1000)
            );
        }
        body.push_str("</table>");
        if entries.is_empty() {
            let _ = write!(body, "<p>{}</p>", pick("Nothing is here yet.", "这里还没有文件。"));
        }
        if let Some((cookie, verifier)) = more {
            let _ = write!(
                body,
                "<p><a href=\"{}?from={cookie}&amp;verifier={:x}\">{}</a></p>",
                link(path.trim_end_matches('/').as_bytes(), true),
                u64::from_be_bytes(verifier),
                pick("more", "更多")
            );
        }
        let title = match path.is_empty() {
            true => pick("Files of the share", "共享文件").to_owned(),
            false => escape(path),
        };
        self.wrap(&title, &body)
    }

    /// What went wrong, for a person.
    pub(super) fn fault(&self, fault: &Fault) -> String {
        let title = self.language.pick("That did not work", "操作未成功");
        let back = self.language.pick("back to the files", "返回文件列表");
        let text = escape(&fault.to_string());
        self.wrap(title, &format!("<p class=bad>{text}</p><p><a href=/>{back}</a></p>"))
    }
}

/// Address of a file or directory of the share.
pub(super) fn link(path: &[u8], directory: bool) -> String {
    if path.is_empty() {
        return "/".to_owned();
    }
    let mut address = String::from("/files/");
    for byte in path {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                address.push(char::from(*byte))
            }
            other => {
                let _ = write!(address, "%{other:02X}");
            }
        }
    }
    if directory {
        address.push('/');
    }
    address
}

/// Text as HTML text or a quoted attribute.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}
