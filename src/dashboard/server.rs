//! The four addresses.

use super::listener::Bounded;
use super::page::{self, Language};
use crate::observe::{Control, prometheus};
use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT_LANGUAGE, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use std::io;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Serves until `stop`; connections that are being answered are finished.
pub async fn serve(listener: TcpListener, node: Arc<dyn Control>, stop: CancellationToken) -> io::Result<()> {
    let routes = Router::new()
        .route("/", get(page))
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .route("/status", get(status))
        .fallback(nothing)
        .with_state(node);
    axum::serve(Bounded::new(listener), routes).with_graceful_shutdown(stop.cancelled_owned()).await
}

fn answer(status: StatusCode, kind: &'static str, body: String) -> Response {
    guarded(status, kind, body, "default-src 'none'".to_owned())
}

/// Nothing comes from elsewhere, and no browser needs to keep it.
fn guarded(status: StatusCode, kind: &'static str, body: String, policy: String) -> Response {
    let headers: [(HeaderName, String); 3] = [
        (CONTENT_TYPE, kind.to_owned()),
        (CACHE_CONTROL, "no-store".to_owned()),
        (CONTENT_SECURITY_POLICY, policy),
    ];
    (status, headers, body).into_response()
}

const JSON: &str = "application/json";

async fn page(State(node): State<Arc<dyn Control>>, uri: Uri, headers: HeaderMap) -> Response {
    let accepted = headers.get(ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
    let language = Language::choose(uri.query(), accepted);
    // The style stands in the page; the policy names it, and nothing else may style or run.
    let nonce = format!("{:032x}", rand::random::<u128>());
    let html = page::render(&node.status(), language, &nonce);
    let policy = format!("default-src 'none'; style-src 'nonce-{nonce}'");
    guarded(StatusCode::OK, "text/html; charset=utf-8", html, policy)
}

async fn metrics(State(node): State<Arc<dyn Control>>) -> Response {
    let text = prometheus::render(&node.status()) + &node.metrics().await;
    answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
}

async fn health(State(node): State<Arc<dyn Control>>) -> Response {
    let reasons = node.unhealthy();
    let (status, word) = match reasons.is_empty() {
        true => (StatusCode::OK, "healthy"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "unhealthy"),
    };
    answer(status, JSON, json!({ "status": word, "reasons": reasons }).to_string())
}

async fn status(State(node): State<Arc<dyn Control>>) -> Response {
    match serde_json::to_string(&node.status()) {
        Ok(body) => answer(StatusCode::OK, JSON, body),
        Err(error) => {
            answer(StatusCode::INTERNAL_SERVER_ERROR, JSON, json!({ "error": error.to_string() }).to_string())
        }
    }
}

async fn nothing() -> Response {
    let text = "not here; there are /, /metrics, /healthz and /status\n".to_owned();
    answer(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", text)
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
