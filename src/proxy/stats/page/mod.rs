//! The page of `stats uri` (4.2): what HAProxy's shows, in its colours, with its options behind `;`, its forms and its
//! answers to them. A pure function of a request: it is called as a service, whatever carried the request.

mod action;
mod head;
mod table;
mod text;

use super::{Form, Moment, Process, Selection, View, dump};
use crate::proxy::config::model::{ProxyIndex, StatsPage};
use crate::proxy::expression::basic_credentials;
use crate::proxy::rules::Reply;
use crate::proxy::state::Running;
use ehpc_proto::http::{Method, RequestHead};
use std::sync::Arc;

/// Longest form that is read.
pub const LONGEST_FORM: usize = 16_384;
/// Longest scope that is filtered by.
const LONGEST_SCOPE: usize = 20;

/// Somebody asks for the page.
#[derive(Clone, Copy)]
pub struct Ask<'r> {
    /// What runs.
    pub running: &'r Arc<Running>,
    /// What the process says of itself.
    pub process: &'r Process,
    /// When.
    pub moment: Moment,
    /// The section with the `stats` lines.
    pub section: ProxyIndex,
    /// The request.
    pub request: &'r RequestHead,
    /// `stats admin`: its condition holds.
    pub admin: bool,
    /// Body of a POST; `None` when it was longer than [`LONGEST_FORM`].
    pub form: Option<&'r [u8]>,
}

/// Whether a request is for the page: GET, HEAD or POST, and its path (with what follows) begins with `stats uri`.
pub fn wants(page: &StatsPage, request: &RequestHead) -> bool {
    matches!(request.method, Method::Get | Method::Head | Method::Post)
        && origin(&request.target).starts_with(&page.uri)
}

/// The target without scheme and authority.
fn origin(target: &[u8]) -> &[u8] {
    let Some(at) = target.windows(3).position(|bytes| bytes == b"://") else { return target };
    if target.first() == Some(&b'/') {
        return target;
    }
    let behind = &target[at + 3..];
    behind.iter().position(|byte| *byte == b'/').map_or(b"/", |slash| &behind[slash..])
}

/// What stands behind the page's address.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Options {
    /// `;up`: servers that are down are hidden.
    up: bool,
    /// `;norefresh`
    steady: bool,
    form: Option<Form>,
    /// `;st=`: how the action before went.
    outcome: Option<String>,
    /// `?scope=`: only sections with this in their name.
    scope: String,
}

impl Options {
    fn read(behind: &[u8]) -> Options {
        let has = |word: &[u8]| behind.windows(word.len()).any(|bytes| bytes == word);
        let after = |word: &[u8]| {
            let at = behind.windows(word.len()).position(|bytes| bytes == word)?;
            Some(&behind[at + word.len()..])
        };
        let scope = after(b"?scope=").or_else(|| after(b"&scope=")).unwrap_or_default();
        let length = scope.iter().position(|byte| matches!(byte, b'&' | b';')).unwrap_or(scope.len());
        let scope = text::form_text(&scope[..length.min(3 * LONGEST_SCOPE)]);
        Options {
            up: has(b";up"),
            steady: has(b";norefresh"),
            form: match () {
                () if has(b";json") => Some(Form::Json),
                () if has(b";csv") => Some(Form::Csv),
                () => None,
            },
            outcome: after(b";st=")
                .map(|code| String::from_utf8_lossy(&code[..code.len().min(4)]).into_owned()),
            scope: scope.chars().take(LONGEST_SCOPE).collect(),
        }
    }

    /// Words for a link back to the same view.
    fn link(&self, page: &StatsPage, up: bool, steady: bool, more: &str) -> String {
        let mut link = String::from_utf8_lossy(&page.uri).into_owned();
        link.push_str(more);
        link.push_str(if up { ";up" } else { "" });
        link.push_str(if steady { ";norefresh" } else { "" });
        if !self.scope.is_empty() {
            link.push_str("?scope=");
            link.push_str(&text::query(&self.scope));
        }
        link
    }
}

/// Answers.
pub fn answer(ask: &Ask<'_>) -> Reply {
    let Some(page) = ask.running.config.proxies.get(ask.section).and_then(|proxy| proxy.stats.as_ref())
    else {
        return Reply::built_in(503);
    };
    if !page.users.is_empty() && !known(page, ask.request) {
        let mut reply = Reply::built_in(401);
        if let Reply::Message { head, .. } = &mut reply {
            head.fields.push(b"www-authenticate", format!("Basic realm=\"{}\"", page.realm).as_bytes());
        }
        return reply;
    }
    let behind = origin(&ask.request.target).get(page.uri.len()..).unwrap_or_default();
    let options = Options::read(behind);
    if ask.request.method == Method::Post {
        let outcome = action::carry_out(ask);
        let place = options.link(page, options.up, options.steady, &format!(";st={outcome}"));
        return reply(303, "text/plain", String::new(), &[("location", &place)]);
    }
    let refresh = page.refresh.filter(|_| !options.steady).map(|every| every.as_secs().max(1).to_string());
    let fields: Vec<(&str, &str)> = refresh.iter().map(|every| ("refresh", every.as_str())).collect();
    let (kind, body) = match options.form {
        Some(form) => (
            if form == Form::Json { "application/json" } else { "text/plain" },
            raw(ask, page, &options, form),
        ),
        None => ("text/html; charset=utf-8", html(ask, page, &options)),
    };
    reply(200, kind, body, &fields)
}

fn reply(status: u16, kind: &str, body: String, fields: &[(&str, &str)]) -> Reply {
    let mut reply = Reply::message(status, body.into_bytes());
    if let Reply::Message { head, .. } = &mut reply {
        head.fields.push(b"cache-control", b"no-cache");
        head.fields.push(b"content-type", kind.as_bytes());
        for (name, value) in fields {
            head.fields.push(name.as_bytes(), value.as_bytes());
        }
    }
    reply
}

/// The request names a user of `stats auth` with the right password. The whole list is compared, so that the time says
/// little of it.
fn known(page: &StatsPage, request: &RequestHead) -> bool {
    let Some((user, password)) = basic_credentials(request) else { return false };
    let same = |one: &[u8], other: &[u8]| {
        one.len() == other.len()
            && one.iter().zip(other).fold(0, |all, (one, other)| all | (one ^ other)) == 0
    };
    page.users.iter().fold(false, |found, (name, secret)| {
        found | (same(name.as_bytes(), &user) & same(secret.as_bytes(), &password))
    })
}

/// Sections that are shown: `stats scope` allows them, `?scope=` does not filter them out.
fn shown<'r>(ask: &Ask<'r>, page: &StatsPage, options: &Options) -> Vec<ProxyIndex> {
    let allowed = |index: ProxyIndex, name: &str| {
        page.scope.is_empty()
            || page.scope.iter().any(|scope| scope == name || scope == "." && index == ask.section)
    };
    let sections = ask.running.config.proxies.iter().enumerate();
    sections
        .filter(|(index, proxy)| !proxy.disabled && allowed(*index, &proxy.name))
        .filter(|(_, proxy)| proxy.name.contains(&options.scope))
        .map(|(index, _)| index)
        .collect()
}

fn raw(ask: &Ask<'_>, page: &StatsPage, options: &Options, form: Form) -> String {
    let view = View { running: ask.running, moment: ask.moment, legends: page.show_legends };
    let selection = Selection { up: options.up, ..Selection::default() };
    let mut found = Vec::new();
    for index in shown(ask, page, options) {
        view.section(index, &selection, &mut found);
    }
    dump(&found, form, false)
}

fn html(ask: &Ask<'_>, page: &StatsPage, options: &Options) -> String {
    let mut out = String::with_capacity(64 * 1024);
    head::write(ask, page, options, &mut out);
    let view = View { running: ask.running, moment: ask.moment, legends: true };
    let selection = Selection { up: options.up, ..Selection::default() };
    for index in shown(ask, page, options) {
        let mut found = Vec::new();
        view.section(index, &selection, &mut found);
        if let Some(proxy) = ask.running.config.proxies.get(index) {
            let section =
                table::Section { proxy, rows: &found, admin: ask.admin, legends: page.show_legends };
            section.write(&mut out);
        }
    }
    out.push_str("</body></html>\n");
    out
}

#[cfg(test)]
mod tests;
