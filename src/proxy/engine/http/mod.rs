//! HTTP/1 connections.

use super::live::Live;
use super::session::Client;
use super::thread::Thread;
use crate::proxy::config::model::Proxy;
use crate::proxy::exchange::Session;

/// The life of an HTTP session.
pub(crate) async fn serve(
    thread: &Thread,
    live: &Live,
    proxy: &Proxy,
    client: &mut Client,
    session: Session,
) {
    let _ = (thread, live, proxy, client, session);
}
