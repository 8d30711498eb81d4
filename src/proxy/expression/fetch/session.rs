//! The client's connection, and the sections and servers of this exchange.

use super::{Fetch, Run, row};
use crate::proxy::exchange::Endpoint;
use crate::proxy::expression::arguments::Arguments;
use crate::proxy::expression::{Context, Kind, Sample};
use core::net::IpAddr;

pub(super) const TABLE: &[Fetch] = &[
    row("src", Kind::Address, Run::One(src), "client's address"),
    row("src_port", Kind::Integer, Run::One(src_port), "client's port"),
    row("src_is_local", Kind::Bool, Run::One(src_is_local), "the client is this machine"),
    row("dst", Kind::Address, Run::One(dst), "address that the client connected to"),
    row("dst_port", Kind::Integer, Run::One(dst_port), "port that the client connected to"),
    row("dst_is_local", Kind::Bool, Run::One(dst_is_local), "the address is of this machine"),
    row("fe_id", Kind::Integer, Run::One(fe_id), "number of the frontend"),
    row("fe_name", Kind::Text, Run::One(fe_name), "name of the frontend"),
    row("fe_defbe", Kind::Text, Run::One(fe_defbe), "default backend of the frontend"),
    row("be_id", Kind::Integer, Run::One(be_id), "number of the backend"),
    row("be_name", Kind::Text, Run::One(be_name), "name of the backend"),
    row("srv_id", Kind::Integer, Run::One(srv_id), "number of the server"),
    row("srv_name", Kind::Text, Run::One(srv_name), "name of the server"),
    row("so_id", Kind::Integer, Run::One(so_id), "number of the bind"),
    row("so_name", Kind::Text, Run::One(so_name), "name of the bind"),
    row("http_first_req", Kind::Bool, Run::One(first), "the first request of its connection"),
];

pub(super) fn client(context: &Context<'_>) -> Option<IpAddr> {
    address(context.exchange.session.client)
}

fn address(endpoint: Endpoint) -> Option<IpAddr> {
    match endpoint {
        Endpoint::Tcp(address) => Some(address.ip().to_canonical()),
        Endpoint::Unix => None,
    }
}

fn port(endpoint: Endpoint) -> Option<Sample<'static>> {
    match endpoint {
        Endpoint::Tcp(address) => Some(Sample::Integer(i64::from(address.port()))),
        Endpoint::Unix => None,
    }
}

fn src<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    client(context).map(Sample::Address)
}

fn src_port<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    port(context.exchange.session.client)
}

fn dst<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    address(context.exchange.session.local).map(Sample::Address)
}

fn dst_port<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    port(context.exchange.session.local)
}

/// A connection's both ends are on this machine when their addresses are equal, or loopback.
fn is_local(one: Endpoint, other: Endpoint) -> Option<Sample<'static>> {
    let (one, other) = (address(one)?, address(other)?);
    Some(Sample::Bool(one.is_loopback() || one == other))
}

fn src_is_local<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    is_local(context.exchange.session.client, context.exchange.session.local)
}

/// The connection was accepted on that address, so that it is local.
fn dst_is_local<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    address(context.exchange.session.local).map(|_| Sample::Bool(true))
}

fn fe_id<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    Some(Sample::Integer(context.frontend()?.id.into()))
}

fn fe_name<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    Some(Sample::text(context.frontend()?.name.as_bytes()))
}

fn fe_defbe<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    let backend = context.config().proxies.get(context.frontend()?.default_backend?)?;
    Some(Sample::text(backend.name.as_bytes()))
}

fn be_id<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    Some(Sample::Integer(context.backend()?.id.into()))
}

fn be_name<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    Some(Sample::text(context.backend()?.name.as_bytes()))
}

fn srv_id<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    Some(Sample::Integer(context.server()?.id.into()))
}

fn srv_name<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    Some(Sample::text(context.server()?.name.as_bytes()))
}

fn so_id<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    Some(Sample::Integer(context.frontend()?.binds.get(context.exchange.session.bind)?.id.into()))
}

fn so_name<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    let bind = context.frontend()?.binds.get(context.exchange.session.bind)?;
    bind.name.as_ref().map(|name| Sample::text(name.as_bytes()))
}

fn first<'e>(context: &Context<'e>, _: &'e Arguments) -> Option<Sample<'e>> {
    Some(Sample::Bool(context.exchange.first))
}
