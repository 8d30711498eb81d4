//! The request line: method, target, version; captures of them; the status line.

use super::{Fetch, Run, row};
use crate::proxy::exchange::Side;
use crate::proxy::expression::arguments::{Arguments, Slot};
use crate::proxy::expression::hash;
use crate::proxy::expression::sample::wrapping_integer;
use crate::proxy::expression::{Context, Kind, Sample};
use core::net::IpAddr;
use ehpc_proto::http::Version;

const PARAMETER: &[Slot] = &[Slot::Text, Slot::Text];
const URLP: Run = Run::Many(url_param, each_url_param);

pub(super) const TABLE: &[Fetch] = &[
    row("path", Kind::Text, Run::One(path), "path of the target").of(Side::Request),
    row("pathq", Kind::Text, Run::One(pathq), "path with the query").of(Side::Request),
    row("query", Kind::Text, Run::One(query), "what follows the question mark").of(Side::Request),
    row("url", Kind::Text, Run::One(url), "target as received").of(Side::Request),
    row("url32", Kind::Integer, Run::One(url32), "hash of Host and target").of(Side::Request),
    row("url_param", Kind::Text, URLP, "a parameter of the query").takes(PARAMETER, 0).of(Side::Request),
    row("urlp", Kind::Text, URLP, "a parameter of the query").takes(PARAMETER, 0).of(Side::Request),
    row("urlp_val", Kind::Integer, Run::Many(urlp_val, each_urlp_val), "the same as an integer")
        .takes(PARAMETER, 0)
        .of(Side::Request),
    row("base", Kind::Text, Run::One(base), "Host and path").of(Side::Request),
    row("baseq", Kind::Text, Run::One(baseq), "Host, path and query").of(Side::Request),
    row("base32", Kind::Integer, Run::One(base32), "hash of `base`").of(Side::Request),
    row("base32+src", Kind::Binary, Run::One(base32_src), "`base32` and the client's address")
        .of(Side::Request),
    row("url32+src", Kind::Binary, Run::One(url32_src), "`url32` and the client's address").of(Side::Request),
    row("method", Kind::Method, Run::One(method), "method of the request").of(Side::Request),
    row("req.proto_http", Kind::Bool, Run::One(is_http), "the request is HTTP").of(Side::Request),
    row("req_proto_http", Kind::Bool, Run::One(is_http), "the request is HTTP").of(Side::Request),
    row("req.ver", Kind::Text, Run::One(request_version), "version of the request, `1.1`").of(Side::Request),
    row("req_ver", Kind::Text, Run::One(request_version), "version of the request, `1.1`").of(Side::Request),
    row("res.ver", Kind::Text, Run::One(response_version), "version of the response").of(Side::Response),
    row("resp_ver", Kind::Text, Run::One(response_version), "version of the response").of(Side::Response),
    row("status", Kind::Integer, Run::One(status), "status of the response"),
    row("capture.req.hdr", Kind::Text, Run::One(captured_request), "captured request header")
        .takes(&[Slot::Integer], 1),
    row("capture.res.hdr", Kind::Text, Run::One(captured_response), "captured response header")
        .takes(&[Slot::Integer], 1),
    row("capture.req.method", Kind::Text, Run::One(captured_method), "method as received"),
    row("capture.req.uri", Kind::Text, Run::One(captured_uri), "path and query as received"),
    row("capture.req.ver", Kind::Text, Run::One(captured_version), "`HTTP/1.0` or `HTTP/1.1`"),
    row("capture.res.ver", Kind::Text, Run::One(captured_response_version), "`HTTP/1.0` or `HTTP/1.1`"),
];

fn path<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    Some(context.exchange.request.path()).filter(|path| !path.is_empty()).map(Sample::text)
}

fn pathq<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    let request = &context.exchange.request;
    Some(&request.target[request.path_start()..]).filter(|path| !path.is_empty()).map(Sample::text)
}

fn query<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    context.exchange.request.query().map(Sample::text)
}

fn url<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    Some(Sample::text(&context.exchange.request.target))
}

/// Shows the parameters of that name (of all, without one). They begin behind the first delimiter, and `&` and `;`
/// separate them, as does the delimiter.
fn parameters<'e>(
    context: &Context<'e>,
    arguments: &Arguments,
    visit: &mut dyn FnMut(&'e [u8]) -> bool,
) -> bool {
    let request = &context.exchange.request;
    let delimiter = arguments.text(1).first().copied().unwrap_or(b'?');
    let wanted = arguments.text(0);
    let target = &request.target[request.path_start()..];
    let Some(start) = target.iter().position(|byte| *byte == delimiter) else { return false };
    for part in target[start + 1..].split(|byte| matches!(byte, b'&' | b';') || *byte == delimiter) {
        let Some(sign) = part.iter().position(|byte| *byte == b'=') else { continue };
        if (wanted.is_empty() || part[..sign] == *wanted) && visit(&part[sign + 1..]) {
            return true;
        }
    }
    false
}

fn url_param<'e>(context: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    let mut found = None;
    parameters(context, arguments, &mut |value| {
        found = Some(value);
        true
    });
    found.map(Sample::text)
}

fn each_url_param<'e>(
    context: &Context<'e>,
    arguments: &'e Arguments,
    visit: &mut dyn FnMut(Sample<'e>) -> bool,
) -> bool {
    parameters(context, arguments, &mut |value| visit(Sample::text(value)))
}

fn urlp_val<'e>(context: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    match url_param(context, arguments)? {
        Sample::Text(value) => Some(Sample::Integer(wrapping_integer(&value))),
        _ => None,
    }
}

fn each_urlp_val<'e>(
    context: &Context<'e>,
    arguments: &'e Arguments,
    visit: &mut dyn FnMut(Sample<'e>) -> bool,
) -> bool {
    parameters(context, arguments, &mut |value| visit(Sample::Integer(wrapping_integer(value))))
}

fn with_host<'e>(context: &Context<'e>, rest: &'e [u8]) -> Option<Sample<'e>> {
    let rest = if rest.first() == Some(&b'/') { rest } else { b"" };
    match context.exchange.request.fields.get(b"host").filter(|host| !host.is_empty()) {
        Some(host) => Some(Sample::made([host, rest].concat())),
        None => Some(Sample::text(rest)).filter(|_| !rest.is_empty()),
    }
}

fn base<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    with_host(context, context.exchange.request.path())
}

fn baseq<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    let request = &context.exchange.request;
    with_host(context, &request.target[request.path_start()..])
}

fn base_hash(context: &Context<'_>) -> u32 {
    let request = &context.exchange.request;
    let host = request.fields.get(b"host").unwrap_or_default();
    let path = request.path();
    let path: &[u8] = if path.first() == Some(&b'/') { path } else { b"" };
    hash::avalanche(hash::sdbm_from(hash::sdbm_from(0, host), path))
}

fn url_hash(context: &Context<'_>) -> u32 {
    let request = &context.exchange.request;
    let host = request.fields.get(b"host").unwrap_or_default();
    hash::avalanche(hash::sdbm_from(hash::sdbm_from(0, host), &request.target[request.path_start()..]))
}

fn with_source(context: &Context<'_>, hash: u32) -> Option<Sample<'static>> {
    let mut bytes = hash.to_be_bytes().to_vec();
    match super::session::client(context)? {
        IpAddr::V4(address) => bytes.extend(address.octets()),
        IpAddr::V6(address) => bytes.extend(address.octets()),
    }
    Some(Sample::Binary(bytes.into()))
}

fn base32<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    Some(Sample::Integer(i64::from(base_hash(context))))
}

fn url32<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    Some(Sample::Integer(i64::from(url_hash(context))))
}

fn base32_src<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    with_source(context, base_hash(context))
}

fn url32_src<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    with_source(context, url_hash(context))
}

fn method<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    Some(Sample::text(context.exchange.received_method()))
}

fn number(version: Version) -> &'static [u8] {
    match version {
        Version::Http10 => b"1.0",
        Version::Http11 => b"1.1",
    }
}

fn name(version: Version) -> Sample<'static> {
    Sample::text(match version {
        Version::Http10 => b"HTTP/1.0",
        Version::Http11 => b"HTTP/1.1",
    })
}

fn is_http<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    Some(Sample::Bool(!context.exchange.request.target.is_empty()))
}

fn request_version<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    Some(Sample::text(number(context.exchange.request.version)))
}

fn response_version<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    Some(Sample::text(number(context.exchange.response.version)))
}

fn status<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    Some(context.exchange.response.status)
        .filter(|status| *status > 0)
        .map(|status| Sample::Integer(status.into()))
}

fn captured<'e>(list: &'e [Option<Vec<u8>>], arguments: &Arguments) -> Option<Sample<'e>> {
    let index = usize::try_from(arguments.integer(0)?).ok()?;
    list.get(index)?.as_deref().map(Sample::text)
}

fn captured_request<'e>(context: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    captured(&context.exchange.request_captures, arguments)
}

fn captured_response<'e>(context: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    captured(&context.exchange.response_captures, arguments)
}

/// Words of the request line as received.
pub(in crate::proxy::expression) fn line_words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b' ').filter(|word| !word.is_empty())
}

fn captured_method<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    line_words(&context.exchange.request_line).next().map(Sample::text)
}

fn captured_uri<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    let target = line_words(&context.exchange.request_line).nth(1)?;
    let start = path_start(target);
    Some(Sample::text(&target[start..])).filter(|_| start < target.len())
}

fn path_start(target: &[u8]) -> usize {
    if target.first() == Some(&b'/') {
        return 0;
    }
    let Some(scheme) = target.windows(3).position(|window| window == b"://") else { return target.len() };
    let authority = scheme + 3;
    target[authority..]
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?'))
        .map_or(target.len(), |at| authority + at)
}

fn captured_version<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    (!context.exchange.request_line.is_empty()).then(|| name(context.exchange.request.version))
}

fn captured_response_version<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    (context.exchange.response.status > 0).then(|| name(context.exchange.response.version))
}
