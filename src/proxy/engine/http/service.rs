//! What the proxy shows of itself over HTTP: the statistics page and the Prometheus exporter.

use super::{At, Next, answer, head, received};
use crate::proxy::config::model::{Proxy, ProxyIndex};
use crate::proxy::engine::record::{self, Presence};
use crate::proxy::expression::Context;
use crate::proxy::rules::Reply;
use crate::proxy::stats::{Moment, Process, page, prometheus};
use ehpc_proto::http1::{Framing, ParsedRequest};
use std::time::Instant;

/// Whether a section answers this request with its page.
pub(super) fn is_page(at: &At<'_>, section: &Proxy) -> bool {
    section.stats.as_ref().is_some_and(|page| page::wants(page, &at.exchange.request))
}

/// Answers with the page of a section.
pub(super) async fn statistics(at: &mut At<'_>, section: ProxyIndex, mut parsed: ParsedRequest) -> Next {
    let form = match read_form(at, &parsed).await {
        Form::Whole(form) => {
            // Nothing of the request is left: another may follow.
            parsed.framing = Framing::None;
            Some(form)
        }
        Form::TooLong => None,
        Form::Torn => {
            answer::note(at.exchange, b'C', b'R');
            return Next::Close;
        }
    };
    let reply = {
        let running = &at.thread.running;
        let context = Context { exchange: at.exchange, running };
        let page = running.config.proxies.get(section).and_then(|proxy| proxy.stats.as_ref());
        let admin = page.is_some_and(|page| page.admin.iter().any(|condition| condition.holds(&context)));
        page::answer(&page::Ask {
            running,
            process: &Process::of(running),
            moment: Moment::now(),
            section,
            request: &at.exchange.request,
            admin,
            form: form.as_deref(),
        })
    };
    served(at, "<STATS>");
    let _presence = Presence::new(at.thread, section);
    answer::send(at, Box::new(reply), &parsed).await
}

/// Answers with the exporter's text.
pub(super) async fn metrics(at: &mut At<'_>, parsed: &ParsedRequest) -> Next {
    let running = &at.thread.running;
    let text = prometheus::render(running, &Process::of(running), Moment::now());
    let mut reply = Reply::message(200, text.into_bytes());
    if let Reply::Message { head, .. } = &mut reply {
        head.fields.push(b"cache-control", b"no-cache");
        head.fields.push(b"content-type", b"text/plain; version=0.0.4");
    }
    served(at, "<PROMEX>");
    answer::send(at, Box::new(reply), parsed).await
}

/// How it is logged and counted.
fn served(at: &mut At<'_>, service: &'static str) {
    at.exchange.route.service = Some(service);
    // Nothing was waited for: the log shows 0, not -1.
    let now = Some(Instant::now());
    let times = &mut at.exchange.times;
    (times.dequeued, times.connected, times.response_head) = (now, now, now);
    answer::note(at.exchange, b'L', b'R');
    // As HAProxy: only what a frontend answers before a backend is chosen.
    let elsewhere = at.exchange.route.backend.is_some_and(|backend| backend != at.exchange.session.frontend);
    let frontend = record::concerned(at.thread, at.exchange).frontend;
    frontend.filter(|_| !elsewhere).inspect(|one| one.intercepted.add(1));
}

enum Form {
    Whole(Vec<u8>),
    TooLong,
    /// The client went away, or was too slow.
    Torn,
}

/// The body of a POST. Chunks are taken for too long: no browser sends a form in them.
async fn read_form(at: &mut At<'_>, parsed: &ParsedRequest) -> Form {
    let length = match parsed.framing {
        Framing::None => return Form::Whole(Vec::new()),
        Framing::Length(length) if length <= page::LONGEST_FORM as u64 => length,
        _ => return Form::TooLong,
    };
    let length = usize::try_from(length).unwrap_or(0);
    let there = received(&at.client.input).len();
    if parsed.expect_continue && there == 0 && !answer::write(at, b"HTTP/1.1 100 Continue\r\n\r\n", &[]).await
    {
        return Form::Torn;
    }
    while received(&at.client.input).len() < length {
        if head::more(at).await.is_err() {
            return Form::Torn;
        }
    }
    let form = received(&at.client.input).get(..length).unwrap_or_default().to_vec();
    head::take(at, length);
    at.bytes_in += length as u64;
    Form::Whole(form)
}
