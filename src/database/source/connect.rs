//! A replica's connection to the server: socket or TCP, TLS, the dialogue up to the event stream.

use crate::database::dsn::{Dsn, Server, Tls, TlsMode};
use crate::database::source::fault::{Blame, SourceFault};
use crate::database::source::pace::Pace;
use crate::database::source::socket::Socket;
use crate::database::sql::CONNECT_WITHIN;
use bytes::BytesMut;
use ehpc_proto::mysql::packet::Assembler;
use ehpc_proto::mysql::replica::{Credentials, Plan, ReplicaDialogue, Say, TlsWish};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

/// Silence after which the kernel asks whether the server's host is there.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// A connection's bytes.
trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// The receiving half.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;
/// The sending half.
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// A connection on which the event stream has begun.
pub struct Stream {
    /// Events come from here, after `rest`.
    pub reader: Reader,
    /// Acknowledgements go here.
    pub writer: Writer,
    /// Bytes of the stream that came already.
    pub rest: BytesMut,
    /// `CONNECTION_ID()`.
    pub connection_id: u32,
    /// As the server greets.
    pub version: String,
}

/// Connects and asks for the dump of `plan`.
///
/// # Errors
///
/// See [`SourceFault`].
pub async fn connect(dsn: &Dsn, plan: Plan) -> Result<Stream, SourceFault> {
    let blame = Blame::new(dsn, plan.server_id);
    match tokio::time::timeout(CONNECT_WITHIN, talk(dsn, plan, &blame)).await {
        Ok(done) => done,
        Err(_) => Err(blame.lost(format!("no answer within {} s", CONNECT_WITHIN.as_secs()))),
    }
}

async fn talk(dsn: &Dsn, plan: Plan, blame: &Blame) -> Result<Stream, SourceFault> {
    let unreachable =
        |error: io::Error| SourceFault::Unreachable { server: blame.server.clone(), text: error.to_string() };
    let password = dsn.secret()?.unwrap_or_default().into_bytes();
    let credentials = Credentials { user: dsn.user.clone(), password };
    let (fd, wish): (OwnedFd, _) = match &dsn.server {
        Server::Socket(path) => {
            let unix = UnixStream::connect(path).await.and_then(UnixStream::into_std).map_err(unreachable)?;
            (unix.into(), TlsWish::Socket)
        }
        Server::Tcp(host, port) => {
            let tcp = TcpStream::connect((host.as_str(), *port)).await.map_err(unreachable)?;
            tcp.set_nodelay(true).map_err(unreachable)?;
            let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
            socket2::SockRef::from(&tcp).set_tcp_keepalive(&keepalive).map_err(unreachable)?;
            let wish = if dsn.tls.mode == TlsMode::Off { TlsWish::Off } else { TlsWish::On };
            (tcp.into_std().map_err(unreachable)?.into(), wish)
        }
    };
    // Who waits for the backup's disk is not made to wait for more.
    let pace = (!plan.semi_sync && !plan.non_blocking).then(|| Pace::new(Instant::now()));
    let stream: Box<dyn Bytes> = Box::new(Socket::new(fd, pace).map_err(unreachable)?);
    let mut talk =
        Talk { stream, dialogue: ReplicaDialogue::new(plan, credentials, wish), rest: BytesMut::new() };
    talk.run(dsn, blame).await?;
    let (reader, writer) = tokio::io::split(talk.stream);
    Ok(Stream {
        reader: Box::new(reader),
        writer: Box::new(writer),
        rest: talk.rest,
        connection_id: talk.dialogue.connection_id(),
        version: talk.dialogue.version().to_owned(),
    })
}

struct Talk {
    stream: Box<dyn Bytes>,
    dialogue: ReplicaDialogue,
    /// Received and not yet read.
    rest: BytesMut,
}

impl Talk {
    /// Until the event stream begins.
    async fn run(&mut self, dsn: &Dsn, blame: &Blame) -> Result<(), SourceFault> {
        let mut assembler = Assembler::new(self.dialogue.limit());
        loop {
            if self.rest.is_empty()
                && self.stream.read_buf(&mut self.rest).await.map_err(|e| blame.lost(e))? == 0
            {
                return Err(blame.lost("the server closed the connection during the login"));
            }
            let mut bytes = &self.rest[..];
            let packet = assembler.feed(&mut bytes).map_err(|e| blame.damaged(e))?;
            let used = self.rest.len() - bytes.len();
            let _taken = self.rest.split_to(used);
            let Some(packet) = packet else { continue };
            let says = self.dialogue.received(&packet).map_err(|e| blame.dialogue(e))?;
            if self.say(says, dsn, blame).await? {
                return Ok(());
            }
            assembler.set_limit(self.dialogue.limit());
        }
    }

    /// Does what the dialogue wants; whether the stream has begun.
    async fn say(&mut self, says: Vec<Say>, dsn: &Dsn, blame: &Blame) -> Result<bool, SourceFault> {
        for say in says {
            match say {
                Say::Packet(bytes) => self.send(&bytes, blame).await?,
                Say::Streaming { .. } => return Ok(true),
                Say::StartTls => {
                    self.start_tls(dsn, blame).await?;
                    for more in self.dialogue.secured().map_err(|e| blame.dialogue(e))? {
                        if let Say::Packet(bytes) = more {
                            self.send(&bytes, blame).await?;
                        }
                    }
                }
                // The connection for SQL logs in first and does this; the server then remembers the account.
                Say::Encrypt { .. } => {
                    return Err(SourceFault::Method {
                        server: blame.server.clone(),
                        user: blame.user.clone(),
                        text:
                            "the server wants the password over TLS; set tls = \"require\" or \"verify\" in \
                               [database]"
                                .to_owned(),
                    });
                }
            }
        }
        Ok(false)
    }

    async fn send(&mut self, bytes: &[u8], blame: &Blame) -> Result<(), SourceFault> {
        self.stream.write_all(bytes).await.map_err(|e| blame.lost(e))?;
        self.stream.flush().await.map_err(|e| blame.lost(e))
    }

    async fn start_tls(&mut self, dsn: &Dsn, blame: &Blame) -> Result<(), SourceFault> {
        let fault = |text: String| SourceFault::Tls { server: blame.server.clone(), text };
        if !self.rest.is_empty() {
            return Err(fault("something was said in clear after the wish for TLS".to_owned()));
        }
        let name = match (&dsn.tls.name, &dsn.server) {
            (Some(name), _) => name.clone(),
            (None, Server::Tcp(host, _)) => host.clone(),
            (None, Server::Socket(_)) => "localhost".to_owned(),
        };
        let name =
            ServerName::try_from(name.clone()).map_err(|_| fault(format!("`{name}` is no name for TLS")))?;
        let config = client_config(&dsn.tls).map_err(fault)?;
        let plain: Box<dyn Bytes> = std::mem::replace(
            &mut self.stream,
            Box::new(tokio::io::join(tokio::io::empty(), tokio::io::sink())),
        );
        let secured = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, plain).await;
        self.stream = Box::new(secured.map_err(|error| fault(error.to_string()))?);
        Ok(())
    }
}

/// What is asked of the server's certificate.
fn client_config(tls: &Tls) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    if tls.mode != TlsMode::Verify {
        let whoever = Arc::new(Whoever(provider));
        return Ok(builder.dangerous().with_custom_certificate_verifier(whoever).with_no_client_auth());
    }
    let mut roots = RootCertStore::empty();
    match &tls.ca {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            let unreadable = |error: rustls::pki_types::pem::Error| {
                format!("the certificates in {} cannot be read: {error}", path.display())
            };
            for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
                let certificate = certificate.map_err(unreadable)?;
                roots.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
            }
            if roots.is_empty() {
                return Err(format!("{} holds no certificate", path.display()));
            }
        }
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// `tls = "require"`: encrypted, whoever answers.
#[derive(Debug)]
struct Whoever(Arc<CryptoProvider>);

impl ServerCertVerifier for Whoever {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
