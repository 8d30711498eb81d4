//! The addresses: `/` and `/files/...` (lists and serves), `POST /upload`, `/healthz`.

use super::page::{Frame, Language, link};
use super::share::{Fault, Found, Resume, Share, TRANSFER, text};
use super::upload::{Upload, safe_name};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::multipart::MultipartError;
use axum::extract::{DefaultBodyLimit, Multipart, Query, State};
use axum::http::header::{
    ACCEPT_LANGUAGE, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HOST, IF_NONE_MATCH, LOCATION, ORIGIN, RANGE,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nfs3_client::nfs3_types::nfs3::nfsstat3;
use serde::Deserialize;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How this node presents itself and what it takes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Its name, on every page and in `X-Served-By`.
    pub name: String,
    /// Most bytes of one upload request.
    pub max_upload: u64,
    /// How long a client has for a request's head, and for each further piece of an upload.
    pub patience: Duration,
}

/// Patience with clients, as far as nobody wants another.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long accepting pauses when the system has no descriptor or memory left.
const PAUSE: Duration = Duration::from_millis(100);

/// Bytes of a form beside its file: borders, names, types.
const FORM: u64 = 64 << 10;

struct Node {
    settings: Settings,
    share: Arc<Share>,
}

type Shared = State<Arc<Node>>;

/// Serves until `stop`; requests that are being answered are finished.
pub async fn serve(
    listener: TcpListener,
    settings: Settings,
    share: Share,
    stop: CancellationToken,
) -> io::Result<()> {
    let patience = settings.patience;
    let most = usize::try_from(settings.max_upload.saturating_add(FORM)).unwrap_or(usize::MAX);
    let node = Arc::new(Node { settings, share: Arc::new(share) });
    let name = HeaderValue::from_str(&node.settings.name);
    let name = name.map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the node's name is no text"))?;
    let routes = Router::new()
        .route("/", get(root))
        .route("/files/", get(root))
        .route("/files/{*path}", get(file))
        .route("/upload", post(upload))
        .route("/healthz", get(health))
        .fallback(nothing)
        .layer(DefaultBodyLimit::max(most))
        .layer(axum::middleware::map_response(move |mut response: Response| {
            let name = name.clone();
            async move {
                response.headers_mut().insert(HeaderName::from_static("x-served-by"), name);
                response
            }
        }))
        .with_state(node);
    connections(listener, routes, patience, stop).await;
    Ok(())
}

/// Accepts until `stop`, then waits for what is being answered. A client that does not finish a request's head in time
/// is cut off, and so is a connection without a request for so long: nobody can hold them all.
async fn connections(listener: TcpListener, routes: Router, patience: Duration, stop: CancellationToken) {
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(patience);
    let mut under_way = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
            Some(_) = under_way.join_next() => continue,
        };
        let Ok((stream, _)) = accepted else {
            // No descriptor or memory: others have to end first.
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let service = TowerToHyperService::new(routes.clone());
        let connection = http.serve_connection(TokioIo::new(stream), service);
        let stop = stop.clone();
        under_way.spawn(async move {
            let mut connection = std::pin::pin!(connection);
            tokio::select! {
                _ = connection.as_mut() => return,
                () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
            }
            // How a client's connection ended is its own affair.
            let _ = connection.await;
        });
    }
    while under_way.join_next().await.is_some() {}
}

async fn health(State(node): Shared) -> Response {
    match node.share.check().await {
        Ok(()) => (StatusCode::OK, "healthy\n").into_response(),
        Err(fault) => (StatusCode::SERVICE_UNAVAILABLE, format!("{fault}\n")).into_response(),
    }
}

async fn nothing(State(node): Shared, headers: HeaderMap, uri: Uri) -> Response {
    node.fault(&headers, &Fault::Missing(uri.path().to_owned()))
}

/// Where a long listing goes on.
#[derive(Deserialize)]
struct From {
    from: Option<u64>,
    verifier: Option<String>,
}

impl From {
    fn resume(&self) -> Option<Resume> {
        let verifier = u64::from_str_radix(self.verifier.as_deref().unwrap_or("0"), 16).ok()?;
        self.from.map(|cookie| (cookie, verifier.to_be_bytes()))
    }
}

async fn root(State(node): Shared, headers: HeaderMap, Query(from): Query<From>) -> Response {
    let found = match node.share.find(b"").await {
        Ok(found) => found,
        Err(fault) => return node.fault(&headers, &fault),
    };
    node.listing(&headers, "", &found, &from).await
}

async fn file(
    State(node): Shared,
    method: Method,
    headers: HeaderMap,
    uri: Uri,
    Query(from): Query<From>,
) -> Response {
    // Names are bytes: the path is decoded here, not by a text extractor.
    let path = decode(uri.path().strip_prefix("/files/").unwrap_or_default());
    match node.share.find(&path).await {
        Err(fault) => node.fault(&headers, &fault),
        Ok(found) if found.is_directory() && !uri.path().ends_with('/') => {
            (StatusCode::MOVED_PERMANENTLY, [(LOCATION, link(&path, true))]).into_response()
        }
        Ok(found) if found.is_directory() => node.listing(&headers, &text(&path), &found, &from).await,
        Ok(found) => node.content(&method, &headers, &path, found),
    }
}

fn decode(path: &str) -> Vec<u8> {
    let bytes = path.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 3).and_then(|two| std::str::from_utf8(two).ok());
        let escaped = digits.and_then(|two| u8::from_str_radix(two, 16).ok()).filter(|_| *byte == b'%');
        out.push(escaped.unwrap_or(*byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    out
}

async fn upload(State(node): Shared, headers: HeaderMap, form: Multipart) -> Response {
    if foreign(&headers) {
        return node.fault(&headers, &Fault::Foreign);
    }
    match node.receive(form).await {
        Ok(stored) if wants_text(&headers) => {
            let lines: Vec<String> =
                stored.iter().map(|(name, bytes)| format!("stored {name} {bytes} bytes\n")).collect();
            (StatusCode::CREATED, lines.concat()).into_response()
        }
        // A browser goes back to the listing, and a reload of that sends nothing again.
        Ok(_) => (StatusCode::SEE_OTHER, [(LOCATION, "/")]).into_response(),
        Err(fault) => node.fault(&headers, &fault),
    }
}

/// A browser says that another site's page sent the form: that page must not act as who sits before the browser.
/// Programs send neither field.
pub(super) fn foreign(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return !matches!(site.as_bytes(), b"same-origin" | b"none");
    }
    let Some(origin) = headers.get(ORIGIN).map(HeaderValue::as_bytes) else { return false };
    let host = headers.get(HOST).map_or(&b""[..], HeaderValue::as_bytes);
    let at = origin.windows(3).position(|bytes| bytes == b"://").map_or(origin.len(), |at| at + 3);
    host.is_empty() || !origin[at..].eq_ignore_ascii_case(host)
}

/// A program rather than a browser asks.
fn wants_text(headers: &HeaderMap) -> bool {
    let accepted = headers.get(axum::http::header::ACCEPT).and_then(|value| value.to_str().ok());
    !accepted.is_some_and(|accepted| accepted.contains("text/html"))
}

impl Node {
    async fn receive(&self, mut form: Multipart) -> Result<Vec<(String, u64)>, Fault> {
        let most = self.settings.max_upload;
        let (mut stored, mut total) = (Vec::new(), 0_u64);
        while let Some(mut field) = self.next(form.next_field()).await? {
            if field.name() != Some("file") {
                while let Some(bytes) = self.next(field.chunk()).await? {
                    total += bytes.len() as u64;
                    if total > most {
                        return Err(Fault::TooLarge(most));
                    }
                }
                continue;
            }
            let name = safe_name(field.file_name().unwrap_or_default())?;
            let mut upload = Upload::begin(&self.share).await?;
            while let Some(bytes) = self.next(field.chunk()).await? {
                upload.push(&bytes).await?;
                if total + upload.len() > most {
                    return Err(Fault::TooLarge(most));
                }
            }
            let bytes = upload.finish(&name).await?;
            total += bytes;
            stored.push((name, bytes));
        }
        match stored.is_empty() {
            true => Err(Fault::Name("the form has no field `file` with a file in it".to_owned())),
            false => Ok(stored),
        }
    }

    /// The next piece of a form, which must come in time.
    async fn next<T>(&self, piece: impl Future<Output = Result<T, MultipartError>>) -> Result<T, Fault> {
        match tokio::time::timeout(self.settings.patience, piece).await {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(error)) if error.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                Err(Fault::TooLarge(self.settings.max_upload))
            }
            Ok(Err(error)) => Err(Fault::Name(format!("the form is broken: {error}"))),
            Err(_) => Err(Fault::Slow(self.settings.patience.as_secs())),
        }
    }

    async fn listing(&self, headers: &HeaderMap, path: &str, found: &Found, from: &From) -> Response {
        match self.share.list(found, from.resume()).await {
            Ok((entries, more)) => {
                self.html(StatusCode::OK, headers, |frame| frame.listing(path, &entries, more))
            }
            Err(fault) => self.fault(headers, &fault),
        }
    }

    fn content(&self, method: &Method, headers: &HeaderMap, path: &[u8], found: Found) -> Response {
        let attributes = &found.attributes;
        let (size, changed) = (attributes.size, attributes.ctime);
        let tag = format!("\"{:x}-{:x}-{size:x}\"", changed.seconds, changed.nseconds);
        if headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
            return (StatusCode::NOT_MODIFIED, [(ETAG, tag)]).into_response();
        }
        let range = headers.get(RANGE).and_then(|value| value.to_str().ok()).map(|range| part(range, size));
        let (status, start, length) = match range {
            None | Some(Part::Whole) => (StatusCode::OK, 0, size),
            Some(Part::Bytes(start, length)) => (StatusCode::PARTIAL_CONTENT, start, length),
            Some(Part::Outside) => {
                return (StatusCode::RANGE_NOT_SATISFIABLE, [(CONTENT_RANGE, format!("bytes */{size}"))])
                    .into_response();
            }
        };
        let kind = content_type(path);
        let mut response = Response::builder()
            .status(status)
            .header(CONTENT_TYPE, kind)
            .header(CONTENT_LENGTH, length)
            .header(ACCEPT_RANGES, "bytes")
            .header(CACHE_CONTROL, "private, no-cache")
            .header(X_CONTENT_TYPE_OPTIONS, "nosniff")
            // What people upload must not act with this site's rights.
            .header(
                CONTENT_SECURITY_POLICY,
                "sandbox; default-src 'none'; img-src 'self'; style-src 'unsafe-inline'",
            )
            .header(ETAG, tag);
        if kind == "application/octet-stream" {
            response = response.header(CONTENT_DISPOSITION, "attachment");
        }
        if status == StatusCode::PARTIAL_CONTENT {
            response =
                response.header(CONTENT_RANGE, format!("bytes {start}-{}/{size}", start + length.max(1) - 1));
        }
        let body = match *method == Method::HEAD {
            true => Body::empty(),
            false => Body::from_stream(stream(Arc::clone(&self.share), found, start, length)),
        };
        response.body(body).unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
    }

    fn fault(&self, headers: &HeaderMap, fault: &Fault) -> Response {
        let status = match fault {
            Fault::Unreachable { .. } | Fault::Restarted(_) => StatusCode::SERVICE_UNAVAILABLE,
            Fault::Missing(_) => StatusCode::NOT_FOUND,
            Fault::Special(_) | Fault::Foreign => StatusCode::FORBIDDEN,
            Fault::Slow(_) => StatusCode::REQUEST_TIMEOUT,
            Fault::Name(_) => StatusCode::BAD_REQUEST,
            Fault::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Fault::Refused { status, .. } => match status {
                nfsstat3::NFS3ERR_NOSPC | nfsstat3::NFS3ERR_DQUOT => StatusCode::INSUFFICIENT_STORAGE,
                nfsstat3::NFS3ERR_ACCES | nfsstat3::NFS3ERR_PERM | nfsstat3::NFS3ERR_ROFS => {
                    StatusCode::FORBIDDEN
                }
                nfsstat3::NFS3ERR_ISDIR | nfsstat3::NFS3ERR_EXIST => StatusCode::CONFLICT,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            },
        };
        if status.is_server_error() {
            tracing::warn!(%fault, "a request failed");
        }
        if wants_text(headers) {
            return (status, format!("{fault}\n")).into_response();
        }
        self.html(status, headers, |frame| frame.fault(fault))
    }

    fn html(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        render: impl Fn(&Frame<'_>) -> String,
    ) -> Response {
        let accepted = headers.get(ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
        let nonce = format!("{:032x}", rand::random::<u128>());
        let frame = Frame { language: Language::choose(accepted), node: &self.settings.name, nonce: &nonce };
        let policy = format!("default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self'");
        let fields = [
            (CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
            (CACHE_CONTROL, "no-store".to_owned()),
            (CONTENT_SECURITY_POLICY, policy),
        ];
        (status, fields, render(&frame)).into_response()
    }
}

/// Which bytes a `Range` field asks for (RFC 9110 section 14.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    /// Several ranges, or none that can be understood: the whole file.
    Whole,
    /// From where, how many.
    Bytes(u64, u64),
    /// None of the file's bytes.
    Outside,
}

pub(super) fn part(range: &str, size: u64) -> Part {
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Part::Whole;
    };
    match (first.trim(), last.trim()) {
        ("", suffix) => match suffix.parse::<u64>() {
            Ok(0) => Part::Outside,
            Ok(_) if size == 0 => Part::Outside,
            Ok(count) => Part::Bytes(size - count.min(size), count.min(size)),
            Err(_) => Part::Whole,
        },
        (first, last) => match (first.parse::<u64>(), last.parse::<u64>()) {
            (Ok(first), _) if first >= size => Part::Outside,
            (Ok(first), Err(_)) if last.is_empty() => Part::Bytes(first, size - first),
            (Ok(first), Ok(last)) if last >= first => Part::Bytes(first, last.min(size - 1) - first + 1),
            _ => Part::Whole,
        },
    }
}

/// Content of a file, piece by piece, read only as fast as the client takes it.
fn stream(
    share: Arc<Share>,
    found: Found,
    mut offset: u64,
    mut left: u64,
) -> impl futures_core::Stream<Item = Result<Bytes, Fault>> {
    let (pieces, taken) = mpsc::channel(1);
    tokio::spawn(async move {
        while left > 0 {
            let count = usize::try_from(left).unwrap_or(TRANSFER).min(TRANSFER);
            let read = match share.read(&found, offset, count).await {
                // It became shorter while it was sent: the announced length cannot be kept, so the connection is cut.
                Ok(bytes) if bytes.is_empty() => Err(Fault::Name("the file became shorter".to_owned())),
                other => other,
            };
            let piece = read.map(|mut bytes| {
                bytes.truncate(count);
                offset += bytes.len() as u64;
                left -= bytes.len() as u64;
                Bytes::from(bytes)
            });
            let failed = piece.is_err();
            if pieces.send(piece).await.is_err() || failed {
                return;
            }
        }
    });
    Pieces(taken)
}

struct Pieces(mpsc::Receiver<Result<Bytes, Fault>>);

impl futures_core::Stream for Pieces {
    type Item = Result<Bytes, Fault>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

/// By the name's end; anything that could act in a browser is a download.
fn content_type(path: &[u8]) -> &'static str {
    let name = text(path).to_ascii_lowercase();
    let end = name.rsplit_once('.').map_or("", |(_, end)| end);
    match end {
        "txt" | "log" | "md" | "csv" | "py" | "rs" | "c" | "h" | "sh" | "cfg" | "conf" | "ini" | "toml"
        | "json" => "text/plain; charset=utf-8",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "pdf" => "application/pdf",
        _ => "application/octet-stream",
    }
}
