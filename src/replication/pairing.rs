//! Making two hosts known to each other with a one-time code.
//!
//! The code is made on the backup and typed on the primary. Both prove that they know it, bound to this very TLS
//! connection and to both certificates; only then either records the other. A wrong code learns nothing but that
//! it is wrong, and after five of them, or ten minutes, the offer is gone.

use super::identity::{Fingerprint, Identity, IdentityError, PeerRecord, Peers, Role};
use super::transport::{
    self, ALPN_PAIR, FrameReader, FrameWriter, HANDSHAKE_WITHIN, Sealed, Socket, TransportError, Trust,
};
use ehpc_proto::replication::Hash;
use ehpc_proto::replication::message::PROTOCOL_VERSION;
use ehpc_proto::replication::pairing::Pairing;
use ehpc_proto::replication::wire::{self, FrameKind, MAX_PAIRING_FRAME, WireError};
use parking_lot::Mutex;
use rand::Rng;
use rustls_pki_types::CertificateDer;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client, server};

/// How long a code is good for.
pub const CODE_LIFETIME: Duration = Duration::from_secs(600);
/// Wrong codes that end an offer.
pub const CODE_TRIES: u32 = 5;
/// Digits of a code: 80 bits.
const CODE_DIGITS: usize = 16;
/// Crockford's base 32: no I, L, O, U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Either side waits at most so long for the other's next word.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Why two hosts are not paired.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum PairingError {
    #[error(
        "\"{code}\" is not a pairing code: it has {CODE_DIGITS} letters and digits, as XXXX-XXXX-XXXX-XXXX"
    )]
    Code { code: String },
    #[error("cannot reach {address}: {reason}; is `ehpc-store backup` running there, and the port open?")]
    Unreachable { address: String, reason: String },
    #[error("the backup refuses to pair: {reason}")]
    Refused { reason: String },
    #[error(
        "whoever answers at {address} does not know the code: it is not that backup, or somebody is in between"
    )]
    Impostor { address: String },
    #[error("the conversation broke: {0}")]
    Transport(#[from] TransportError),
    #[error("the other host did not answer within {} s", ANSWER_WITHIN.as_secs())]
    Silent,
    #[error("the other host does not keep to the protocol: {got}")]
    Protocol { got: String },
    #[error("{0}")]
    Identity(#[from] IdentityError),
}

impl From<WireError> for PairingError {
    fn from(error: WireError) -> PairingError {
        PairingError::Transport(error.into())
    }
}

/// What a code becomes: it keys the proofs.
#[derive(Clone)]
struct CodeKey([u8; 32]);

impl CodeKey {
    /// Accepts what people type: lower case, no dashes, O for 0, I and L for 1.
    fn parse(code: &str) -> Result<CodeKey, PairingError> {
        let mut digits = Vec::with_capacity(CODE_DIGITS);
        for typed in code.chars().filter(|c| !c.is_whitespace() && *c != '-') {
            let digit = match typed.to_ascii_uppercase() {
                'O' => '0',
                'I' | 'L' => '1',
                other => other,
            };
            if !digit.is_ascii() || !ALPHABET.contains(&(digit as u8)) {
                return Err(PairingError::Code { code: code.to_owned() });
            }
            digits.push(digit as u8);
        }
        if digits.len() != CODE_DIGITS {
            return Err(PairingError::Code { code: code.to_owned() });
        }
        Ok(CodeKey(blake3::derive_key("ehpc-store 2026 pairing code", &digits)))
    }

    /// What the host in role `prover` says to show that it knows the code.
    fn proof(&self, connection: &Connection, prover: Role) -> blake3::Hash {
        let mut mac = blake3::Hasher::new_keyed(&self.0);
        mac.update(&connection.exporter);
        mac.update(connection.primary.as_bytes());
        mac.update(connection.backup.as_bytes());
        mac.update(prover.to_string().as_bytes());
        mac.finalize()
    }
}

/// What both ends of one TLS connection agree on, and nobody in between.
struct Connection {
    exporter: [u8; 32],
    primary: Fingerprint,
    backup: Fingerprint,
}

const EXPORTER_LABEL: &[u8] = b"EXPORTER-ehpc-store-pairing";

/// A code that waits on the backup to be used.
pub struct PairingOffer {
    key: CodeKey,
    expires: Instant,
    tries: u32,
}

impl PairingOffer {
    /// A new code, for people, and the offer that knows it.
    pub fn new() -> (String, PairingOffer) {
        PairingOffer::lasting(CODE_LIFETIME)
    }

    fn lasting(lifetime: Duration) -> (String, PairingOffer) {
        let mut random = rand::rng();
        let digits: Vec<u8> = (0..CODE_DIGITS).map(|_| ALPHABET[random.random_range(0..32)]).collect();
        let key = CodeKey(blake3::derive_key("ehpc-store 2026 pairing code", &digits));
        let code: Vec<String> =
            digits.chunks(4).map(|part| String::from_utf8_lossy(part).into_owned()).collect();
        (code.join("-"), PairingOffer { key, expires: Instant::now() + lifetime, tries: CODE_TRIES })
    }
}

/// The backup's open offer, if any; held by the receiver.
#[derive(Default)]
pub struct PairingDesk {
    offer: Mutex<Option<PairingOffer>>,
}

impl PairingDesk {
    /// Opens an offer in place of the one before, and returns its code.
    pub fn open(&self) -> String {
        self.open_for(CODE_LIFETIME)
    }

    pub(super) fn open_for(&self, lifetime: Duration) -> String {
        let (code, offer) = PairingOffer::lasting(lifetime);
        *self.offer.lock() = Some(offer);
        code
    }

    /// Is there an offer that somebody may use?
    pub fn is_open(&self) -> bool {
        self.offer.lock().as_ref().is_some_and(|offer| offer.expires > Instant::now())
    }

    /// Checks the primary's proof, which counts as a try. Gives the backup's own proof.
    fn check(&self, connection: &Connection, proof: Hash) -> Result<Hash, String> {
        let mut slot = self.offer.lock();
        let Some(offer) = slot.as_mut().filter(|offer| offer.expires > Instant::now()) else {
            *slot = None;
            return Err(
                "no pairing is open here: run `ehpc-store pair` on the backup for a new code".to_owned()
            );
        };
        // Hashes of blake3 compare in constant time.
        if offer.key.proof(connection, Role::Primary) == blake3::Hash::from_bytes(proof.0) {
            return Ok(Hash(*offer.key.proof(connection, Role::Backup).as_bytes()));
        }
        offer.tries -= 1;
        let left = offer.tries;
        if left == 0 {
            *slot = None;
            return Err("the code is wrong, and was so too often: get a new one on the backup".to_owned());
        }
        Err(format!("the code is wrong ({left} tries left)"))
    }

    /// The code was used.
    fn close(&self) {
        *self.offer.lock() = None;
    }
}

/// Frames of a pairing conversation, each awaited for a bounded time.
struct Talk<S> {
    reader: FrameReader<ReadHalf<S>>,
    writer: FrameWriter<WriteHalf<S>>,
}

impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite> Talk<S> {
    fn over(stream: S) -> Talk<S> {
        let (read, write) = tokio::io::split(stream);
        Talk { reader: FrameReader::new(read, MAX_PAIRING_FRAME), writer: FrameWriter::new(write) }
    }

    async fn say(&mut self, message: &Pairing) -> Result<(), PairingError> {
        self.writer.write(&Sealed::pairing(message)?).await?;
        Ok(self.writer.flush().await?)
    }

    async fn hear(&mut self) -> Result<Pairing, PairingError> {
        let next = tokio::time::timeout(ANSWER_WITHIN, self.reader.next(FrameKind::Pairing));
        let payload = next.await.map_err(|_| PairingError::Silent)??.ok_or(TransportError::Cut)?;
        match wire::decode_pairing(&payload)? {
            Pairing::Refused { reason } => Err(PairingError::Refused { reason }),
            message => Ok(message),
        }
    }

    async fn refuse(&mut self, reason: String) -> PairingError {
        // The reason is a courtesy: that it did not arrive changes nothing.
        let _ = self.say(&Pairing::Refused { reason: reason.clone() }).await;
        let _ = self.writer.finish().await;
        PairingError::Refused { reason }
    }
}

fn peer_of(certificates: Option<&[CertificateDer<'_>]>) -> Result<Fingerprint, PairingError> {
    let certificate = certificates.and_then(|chain| chain.first());
    let missing = || PairingError::Protocol { got: "no certificate".to_owned() };
    certificate.map(Fingerprint::of).ok_or_else(missing)
}

fn unexpected(message: &Pairing) -> PairingError {
    let got = match message {
        Pairing::Propose { .. } => "Propose",
        Pairing::Accept { .. } => "Accept",
        Pairing::Confirm => "Confirm",
        Pairing::Done => "Done",
        Pairing::Refused { .. } => "Refused",
    };
    PairingError::Protocol { got: format!("{got} where it does not belong") }
}

/// The backup's side of one conversation.
pub(super) async fn serve(
    stream: server::TlsStream<Socket>,
    identity: &Identity,
    peers: &Peers,
    desk: &PairingDesk,
) -> Result<PeerRecord, PairingError> {
    let session = stream.get_ref().1;
    let exported = session.export_keying_material([0; 32], EXPORTER_LABEL, None);
    let connection = Connection {
        exporter: exported.map_err(TransportError::Tls)?,
        primary: peer_of(session.peer_certificates())?,
        backup: identity.fingerprint(),
    };
    let mut talk = Talk::over(stream);
    let (version, name, proof) = match talk.hear().await? {
        Pairing::Propose { version, name, proof } => (version, name, proof),
        other => return Err(unexpected(&other)),
    };
    if version != PROTOCOL_VERSION {
        let reason =
            format!("this host speaks version {PROTOCOL_VERSION} of the replication protocol, not {version}");
        return Err(talk.refuse(reason).await);
    }
    let own = match desk.check(&connection, proof) {
        Ok(own) => own,
        Err(reason) => return Err(talk.refuse(reason).await),
    };
    talk.say(&Pairing::Accept { name: identity.name.clone(), proof: own }).await?;
    match talk.hear().await? {
        Pairing::Confirm => {}
        other => return Err(unexpected(&other)),
    }
    let record = PeerRecord { name, fingerprint: connection.primary, role: Role::Primary };
    if let Err(error) = peers.set(&record) {
        talk.refuse(format!("the backup cannot record it: {error}")).await;
        return Err(error.into());
    }
    desk.close();
    talk.say(&Pairing::Done).await?;
    talk.writer.finish().await?;
    Ok(record)
}

/// The primary's side: pairs with the backup at `address` (host:port) and records it in `peers`.
pub async fn pair(
    address: &str,
    code: &str,
    identity: &Identity,
    peers: &Peers,
) -> Result<PeerRecord, PairingError> {
    let key = CodeKey::parse(code)?;
    let stream = connect(address, identity).await?;
    let session = stream.get_ref().1;
    let exported = session.export_keying_material([0; 32], EXPORTER_LABEL, None);
    let connection = Connection {
        exporter: exported.map_err(TransportError::Tls)?,
        primary: identity.fingerprint(),
        backup: peer_of(session.peer_certificates())?,
    };
    let mut talk = Talk::over(stream);
    let proof = Hash(*key.proof(&connection, Role::Primary).as_bytes());
    talk.say(&Pairing::Propose { version: PROTOCOL_VERSION, name: identity.name.clone(), proof }).await?;
    let (name, proof) = match talk.hear().await? {
        Pairing::Accept { name, proof } => (name, proof),
        other => return Err(unexpected(&other)),
    };
    if key.proof(&connection, Role::Backup) != blake3::Hash::from_bytes(proof.0) {
        return Err(PairingError::Impostor { address: address.to_owned() });
    }
    let record = PeerRecord { name, fingerprint: connection.backup, role: Role::Backup };
    peers.set(&record)?;
    talk.say(&Pairing::Confirm).await?;
    match talk.hear().await? {
        Pairing::Done => Ok(record),
        other => Err(unexpected(&other)),
    }
}

async fn connect(address: &str, identity: &Identity) -> Result<client::TlsStream<Socket>, PairingError> {
    let unreachable = |reason: String| PairingError::Unreachable { address: address.to_owned(), reason };
    let config = transport::client_config(identity, Trust::Unpinned, ALPN_PAIR)?;
    let secured = async {
        let socket = TcpStream::connect(address).await.map_err(TransportError::Io)?;
        let socket = transport::tuned(socket).map_err(TransportError::Io)?;
        let connecting = TlsConnector::from(config).connect(transport::server_name(), socket);
        connecting.await.map_err(TransportError::from_tls)
    };
    match tokio::time::timeout(HANDSHAKE_WITHIN, secured).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(unreachable(error.to_string())),
        Err(_) => Err(unreachable(TransportError::Late.to_string())),
    }
}

/// Pairs two roles of one machine: each state directory gets an identity (if it has none) and records the other.
pub fn pair_locally(
    primary_state: &Path,
    primary_name: &str,
    backup_state: &Path,
    backup_name: &str,
) -> Result<(), PairingError> {
    let primary = Identity::load_or_create(primary_state, primary_name)?;
    let backup = Identity::load_or_create(backup_state, backup_name)?;
    let record = |identity: &Identity, role| PeerRecord {
        name: identity.name.clone(),
        fingerprint: identity.fingerprint(),
        role,
    };
    for (state, record) in
        [(primary_state, record(&backup, Role::Backup)), (backup_state, record(&primary, Role::Primary))]
    {
        let peers = Peers::of(state);
        if peers.in_role(record.role)?.as_ref() != Some(&record) {
            peers.set(&record)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(byte: u8) -> Connection {
        let fingerprint = |n: u8| Fingerprint::of(&CertificateDer::from(vec![n]));
        Connection { exporter: [byte; 32], primary: fingerprint(1), backup: fingerprint(2) }
    }

    fn proof(code: &str, connection: &Connection, role: Role) -> Hash {
        Hash(*CodeKey::parse(code).unwrap().proof(connection, role).as_bytes())
    }

    #[test]
    fn codes_are_read_as_people_type_them() {
        let desk = PairingDesk::default();
        let code = desk.open();
        assert_eq!(code.len(), 19);
        let typed =
            format!(" {} ", code.to_lowercase().replace('-', " ").replace('0', "o").replace('1', "l"));
        assert!(desk.check(&connection(1), proof(&typed, &connection(1), Role::Primary)).is_ok());
        for wrong in ["", "ABCD", "ABCD-EFGH-JKMN-PQRU", "ABCD-EFGH-JKMN-PQRST", "ÄBCD-EFGH-JKMN-PQRS"] {
            assert!(matches!(CodeKey::parse(wrong), Err(PairingError::Code { .. })), "{wrong}");
        }
    }

    #[test]
    fn a_proof_holds_for_one_connection_and_one_role() {
        let desk = PairingDesk::default();
        let code = desk.open();
        let good = proof(&code, &connection(1), Role::Primary);
        assert!(desk.check(&connection(2), good).is_err(), "relayed from another connection");
        let reflected = proof(&code, &connection(1), Role::Backup);
        assert!(desk.check(&connection(1), reflected).is_err(), "the backup's own words");
        let own = desk.check(&connection(1), good).unwrap();
        assert_eq!(own, reflected);
    }

    #[test]
    fn five_wrong_tries_or_its_time_end_an_offer() {
        let desk = PairingDesk::default();
        let code = desk.open();
        for left in (1..5).rev() {
            let refused = desk.check(&connection(1), Hash([0; 32])).unwrap_err();
            assert!(refused.contains(&format!("{left} tries left")), "{refused}");
        }
        assert!(desk.check(&connection(1), Hash([0; 32])).unwrap_err().contains("too often"));
        let good = proof(&code, &connection(1), Role::Primary);
        assert!(desk.check(&connection(1), good).unwrap_err().contains("no pairing is open"));

        let code = desk.open_for(Duration::ZERO);
        let good = proof(&code, &connection(1), Role::Primary);
        assert!(desk.check(&connection(1), good).unwrap_err().contains("no pairing is open"));
        assert!(!desk.is_open());
    }
}
