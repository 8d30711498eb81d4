//! The page: well-formed, escaped, and its forms do what they say.

use super::*;
use crate::proxy::rules::ReplyBody;
use crate::proxy::stats::sample::{moment, parse, process};

const TEXT: &str = "\
global
  maxconn 2000
defaults
  mode http
  timeout connect 1s
  timeout client 5s
  timeout server 5s
frontend fe
  bind 127.0.0.1:18081
  default_backend be
  description \"<script>alert('x')</script>\"
backend be
  server a 127.0.0.1:1 cookie \"<i>\\\"&'\"
  server b 127.0.0.1:2 backup
  server c 127.0.0.1:3 disabled
listen st
  bind 127.0.0.1:18082
  stats uri /stats
  stats refresh 10s
  stats show-legends
  stats admin if TRUE
listen locked
  bind 127.0.0.1:18083
  stats uri /s
  stats scope .
  stats hide-version
  stats realm Open\\ sesame
  stats auth user:pass:word
";

struct Site {
    running: Arc<Running>,
}

/// Status, fields, body.
type Answered = (u16, Vec<(String, String)>, String);

impl Site {
    fn new() -> Site {
        Site { running: Running::new(Arc::new(parse(TEXT)), 2000) }
    }

    fn ask(
        &self,
        section: &str,
        admin: bool,
        fill: impl FnOnce(&mut RequestHead),
        form: Option<&str>,
    ) -> Answered {
        let section = self.running.config.proxies.iter().position(|proxy| proxy.name == section).unwrap();
        let mut request = RequestHead::default();
        fill(&mut request);
        let page = self.running.config.proxies[section].stats.as_ref().unwrap();
        assert!(wants(page, &request), "{:?}", request.target);
        let process = process();
        let reply = answer(&Ask {
            running: &self.running,
            process: &process,
            moment: moment(),
            section,
            request: &request,
            admin,
            form: form.map(str::as_bytes),
        });
        let Reply::Message { head, body } = reply else { panic!("an errorfile") };
        let body: ReplyBody = body;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let fields = head.fields.iter().map(|(name, value)| (text(name), text(value))).collect();
        (head.status, fields, text(&body))
    }

    fn get(&self, target: &str) -> Answered {
        self.ask("st", true, |request| request.target = target.as_bytes().to_vec(), None)
    }

    fn post(&self, form: &str, fields: &[(&str, &str)]) -> String {
        let (status, answered, _) = self.ask(
            "st",
            true,
            |request| {
                request.method = Method::Post;
                request.target = b"/stats".to_vec();
                fields
                    .iter()
                    .for_each(|(name, value)| request.fields.push(name.as_bytes(), value.as_bytes()));
            },
            Some(form),
        );
        assert_eq!(status, 303);
        field(&answered, "location").to_owned()
    }

    fn status(&self, server: usize) -> String {
        let view = View { running: &self.running, moment: moment(), legends: true };
        let selection = Selection { kinds: Some(4), ..Selection::default() };
        let rows = crate::proxy::stats::rows(&view, &selection);
        rows[server].get(crate::proxy::stats::columns::At::Status).text().to_owned()
    }
}

fn field<'f>(fields: &'f [(String, String)], name: &str) -> &'f str {
    fields.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
}

/// Every element that is opened is closed in order; attributes are quoted; no text holds a bare `<`. How many elements
/// of each name there are.
fn elements(html: &str) -> std::collections::BTreeMap<String, usize> {
    const VOID: &[&str] = &["meta", "link", "br", "hr", "input"];
    const OPTIONAL: &[&str] = &["p", "li"];
    let mut counts = std::collections::BTreeMap::new();
    let mut open: Vec<String> = Vec::new();
    let style = html.find("<style>").unwrap()..html.find("</style>").unwrap();
    let html = format!("{}{}", &html[..style.start + 7], &html[style.end..]);
    let mut rest = html.strip_prefix("<!DOCTYPE html>").expect("a doctype");
    while let Some(at) = rest.find('<') {
        assert!(
            !rest[..at].contains('>') && !rest[..at].contains('"')
                || open.last().is_some_and(|tag| tag == "style")
                || !rest[..at].contains('>'),
            "{}",
            &rest[..at]
        );
        rest = &rest[at + 1..];
        // Quoted values may hold `>`.
        let mut quoted = false;
        let end = rest.find(|c| {
            quoted ^= c == '"';
            c == '>' && !quoted
        });
        let tag = &rest[..end.expect("a tag ends")];
        rest = &rest[tag.len() + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            while open.last().is_some_and(|last| last != name && OPTIONAL.contains(&last.as_str())) {
                open.pop();
            }
            assert_eq!(open.pop().as_deref(), Some(name), "closed out of order");
            continue;
        }
        let name = tag.split(' ').next().unwrap();
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{name}");
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        assert!(!tag.split('"').step_by(2).any(|part| part.contains('\'')), "{tag}");
        *counts.entry(name.to_owned()).or_insert(0) += 1;
        if !VOID.contains(&name) {
            if OPTIONAL.contains(&name) && open.last().is_some_and(|last| last == name) {
                open.pop();
            }
            open.push(name.to_owned());
        }
    }
    assert!(open.iter().all(|tag| OPTIONAL.contains(&tag.as_str())), "left open: {open:?}");
    counts
}

#[test]
fn the_page_is_well_formed_and_complete() {
    let site = Site::new();
    let (status, fields, html) = site.get("/stats");
    assert_eq!((status, field(&fields, "cache-control"), field(&fields, "refresh")), (200, "no-cache", "10"));
    assert_eq!(field(&fields, "content-length"), html.len().to_string());
    let counts = elements(&html);
    // Sections with servers have a form each, one is for the scope; every server has a box.
    assert_eq!(counts["form"], 1 + 3, "be, st, locked");
    assert_eq!(html.matches("name=\"s\" value=").count(), 3);
    for part in [
        "<tr class=\"frontend\">",
        "<tr class=\"active_no_check\">",
        "<tr class=\"backup_no_check\">",
        "<tr class=\"maintain\">",
        "<tr class=\"backend\">",
        "value=\"drain\"",
        "name=\"b\" value=\"#3\"",
        "pid = </b> 1 ",
    ] {
        assert!(html.contains(part), "{part}");
    }
    // Without the tables that show when the mouse is over a number.
    let mut pieces = html.split("<table class=\"det\">");
    let mut plain = pieces.next().unwrap().to_owned();
    pieces.for_each(|piece| plain.push_str(piece.split_once("</table>").unwrap().1));
    let width = |cell: &str| {
        cell.split_once("colspan=\"")
            .map_or(1, |(_, count)| count.split('"').next().unwrap().parse().unwrap())
    };
    let rows: Vec<usize> = plain
        .lines()
        .filter(|line| line.starts_with("<tr class=") && !line.contains("titre"))
        .map(|line| line.split("<td").skip(1).map(width).sum())
        .collect();
    assert_eq!(rows.len(), 1 + 4 + 2 + 2);
    assert!(rows.iter().all(|cells| [31, 32].contains(cells)), "{rows:?}");
}

#[test]
fn names_and_scopes_are_escaped() {
    let site = Site::new();
    let (_, _, html) = site.get("/stats?scope=%22%3E%3Cscript%3Ee");
    elements(&html);
    assert!(html.contains("value=\"&quot;&gt;&lt;script&gt;e\""), "{html}");
    let (_, _, html) = site.get("/stats");
    assert!(!html.contains("<script") && html.contains("&lt;script&gt;alert(&#39;x&#39;)"));
    assert!(html.contains("cookie: &#39;&lt;i&gt;&quot;&amp;&#39;&#39;"), "{html}");
    let (_, _, html) = site.get("/stats;st=<b>x");
    elements(&html);
    assert!(html.contains("Unexpected result"));
}

#[test]
fn options_behind_the_address() {
    let site = Site::new();
    let (_, fields, html) = site.get("/stats;norefresh;up?scope=b");
    assert_eq!(field(&fields, "refresh"), "");
    assert!(html.contains("href=\"/stats;norefresh?scope=b\">Show all servers"));
    assert!(html.contains("href=\"/stats;up?scope=b\">Enable refresh"));
    assert!(!html.contains("id=\"fe\"") && html.contains("id=\"be\""));
    assert!(!html.contains("class=\"maintain\"><td><input"), "down servers are hidden");
    let (_, fields, csv) = site.get("/stats;csv;norefresh");
    assert_eq!(field(&fields, "content-type"), "text/plain");
    assert!(csv.starts_with("# pxname,") && csv.contains("\nbe,c,"));
    let (_, fields, json) = site.get("http://x/stats;json?scope=be");
    assert_eq!(field(&fields, "content-type"), "application/json");
    assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
    for (code, text) in
        [("DONE", "processed successfully"), ("DENY", "denied"), ("NONE", "Nothing"), ("EXCD", "too long")]
    {
        assert!(site.get(&format!("/stats;st={code}")).2.contains(text));
    }
}

#[test]
fn forms_change_servers() {
    let site = Site::new();
    assert_eq!(site.post("s=a&s=b&action=maint&b=%233", &[]), "/stats;st=DONE");
    assert_eq!((site.status(0).as_str(), site.status(1).as_str()), ("MAINT", "MAINT"));
    assert_eq!(site.post("s=a&action=drain&b=be", &[]), "/stats;st=DONE");
    assert_eq!(site.status(0), "DRAIN");
    assert_eq!(site.post("s=a&s=b&action=ready&b=be", &[]), "/stats;st=DONE");
    assert_eq!(site.status(0), "no check");
    assert_eq!(site.post("s=a&action=hdown&b=be", &[]), "/stats;st=DONE");
    assert_eq!(site.status(0), "DOWN");
    assert_eq!(site.post("s=a&s=nobody&action=hrunn&b=be", &[]), "/stats;st=PART");
    assert_eq!(site.status(0), "no check");
    for wrong in ["s=a&action=maint&b=nobody", "s=nobody&action=maint&b=be", "s=a&action=nonsense&b=be"] {
        assert_eq!(site.post(wrong, &[]), "/stats;st=ERRP", "{wrong}");
    }
    assert_eq!(site.post("", &[]), "/stats;st=NONE");
    assert_eq!(site.status(0), "no check");
}

#[test]
fn forms_of_other_sites_and_without_rights_are_denied() {
    let site = Site::new();
    let form = "s=a&action=maint&b=be";
    for fields in [
        &[("sec-fetch-site", "cross-site")][..],
        &[("sec-fetch-site", "same-site")],
        &[("origin", "http://evil.example"), ("host", "good.example")],
        &[("origin", "null"), ("host", "good.example")],
        &[("origin", "http://good.example")],
    ] {
        assert_eq!(site.post(form, fields), "/stats;st=DENY", "{fields:?}");
        assert_eq!(site.status(0), "no check");
    }
    let fill = |request: &mut RequestHead| {
        request.method = Method::Post;
        request.target = b"/stats;up".to_vec();
    };
    let (_, fields, _) = site.ask("st", false, fill, Some(form));
    assert_eq!(field(&fields, "location"), "/stats;st=DENY;up");
    let (_, fields, _) = site.ask("st", true, fill, None);
    assert_eq!(field(&fields, "location"), "/stats;st=EXCD;up");
    assert_eq!(site.status(0), "no check");
    assert_eq!(
        site.post(form, &[("origin", "http://good.example"), ("host", "good.example")]),
        "/stats;st=DONE"
    );
    assert_eq!(site.status(0), "MAINT");
}

#[test]
fn a_password_is_asked_for() {
    let site = Site::new();
    let ask = |credentials: Option<&str>| {
        let fill = |request: &mut RequestHead| {
            request.target = b"/s".to_vec();
            credentials.iter().for_each(|value| request.fields.push(b"authorization", value.as_bytes()));
        };
        site.ask("locked", false, fill, None)
    };
    let (status, fields, _) = ask(None);
    assert_eq!((status, field(&fields, "www-authenticate")), (401, "Basic realm=\"Open sesame\""));
    // user:pass:word, user:pass, nobody:pass:word
    assert_eq!(ask(Some("Basic dXNlcjpwYXNz")).0, 401);
    assert_eq!(ask(Some("Basic bm9ib2R5OnBhc3M6d29yZA==")).0, 401);
    let (status, _, html) = ask(Some("Basic dXNlcjpwYXNzOndvcmQ="));
    assert_eq!(status, 200);
    assert!(!html.contains("HAProxy version"));
    assert!(
        html.contains("id=\"locked\"") && !html.contains("id=\"be\"") && !html.contains("name=\"action\"")
    );
}
