//! `Authorization: Basic` and `Bearer` of the request.

use super::{Fetch, Run, row};
use crate::proxy::exchange::Side;
use crate::proxy::expression::arguments::{Argument, Arguments, Slot};
use crate::proxy::expression::base64;
use crate::proxy::expression::{Context, Kind, Sample};
use ehpc_proto::http::RequestHead;

pub(super) const TABLE: &[Fetch] = &[
    row("http_auth", Kind::Bool, Run::One(known), "user and password are in the userlist")
        .takes(&[Slot::Userlist], 1)
        .of(Side::Request),
    row(
        "http_auth_group",
        Kind::Text,
        Run::Many(user_of_list, groups),
        "groups of the user, if the password is right",
    )
    .takes(&[Slot::Userlist], 1)
    .of(Side::Request),
    row("http_auth_user", Kind::Text, Run::One(user), "user as sent").of(Side::Request),
    row("http_auth_pass", Kind::Text, Run::One(password), "password as sent").of(Side::Request),
    row("http_auth_type", Kind::Text, Run::One(scheme), "`Basic` or `Bearer`").of(Side::Request),
    row("http_auth_bearer", Kind::Text, Run::One(bearer), "token as sent")
        .takes(&[Slot::HeaderName], 0)
        .of(Side::Request),
];

/// Longest credentials that are looked at.
const LONGEST: usize = 4096;

/// Scheme and the rest of an authorization header.
fn split<'e>(request: &'e RequestHead, header: &[u8]) -> Option<(&'e [u8], &'e [u8])> {
    let value = request.fields.get(header)?;
    let space = value.iter().position(|byte| *byte == b' ')?;
    Some((&value[..space], value[space + 1..].trim_ascii()))
}

/// User and password of `Basic` credentials (RFC 7617).
pub(in crate::proxy) fn basic_credentials(request: &RequestHead) -> Option<(Vec<u8>, Vec<u8>)> {
    let (scheme, token) = split(request, b"authorization")?;
    if !scheme.eq_ignore_ascii_case(b"basic") || token.len() > LONGEST {
        return None;
    }
    let mut text = base64::decode(token, base64::STANDARD)?;
    let colon = text.iter().position(|byte| *byte == b':')?;
    let password = text.split_off(colon + 1);
    text.truncate(colon);
    Some((text, password))
}

fn basic(context: &Context<'_>) -> Option<(Vec<u8>, Vec<u8>)> {
    basic_credentials(&context.exchange.request)
}

fn known<'e>(context: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    let Some(Argument::Userlist(list)) = arguments.get(0) else { return None };
    let (user, password) = basic(context)?;
    Some(Sample::Bool(list.check(&user, &password).is_some()))
}

fn user_of_list<'e>(context: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    let Some(Argument::Userlist(list)) = arguments.get(0) else { return None };
    let (user, password) = basic(context)?;
    list.check(&user, &password)?;
    Some(Sample::made(user))
}

fn groups<'e>(
    context: &Context<'e>,
    arguments: &'e Arguments,
    visit: &mut dyn FnMut(Sample<'e>) -> bool,
) -> bool {
    let Some(Argument::Userlist(list)) = arguments.get(0) else { return false };
    let Some((user, password)) = basic(context) else { return false };
    let Some(user) = list.check(&user, &password) else { return false };
    user.groups.iter().any(|group| visit(Sample::text(group.as_bytes())))
}

fn user<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    basic(context).map(|(user, _)| Sample::made(user))
}

fn password<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    basic(context).map(|(_, password)| Sample::made(password))
}

fn scheme<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    let (scheme, _) = split(&context.exchange.request, b"authorization")?;
    let known = scheme.eq_ignore_ascii_case(b"basic") || scheme.eq_ignore_ascii_case(b"bearer");
    known.then(|| Sample::text(scheme))
}

fn bearer<'e>(context: &Context<'e>, arguments: &'e Arguments) -> Option<Sample<'e>> {
    let header = arguments.text(0);
    let (scheme, token) =
        split(&context.exchange.request, if header.is_empty() { b"authorization" } else { header })?;
    scheme.eq_ignore_ascii_case(b"bearer").then(|| Sample::text(token))
}
