//! Authentication methods: `mysql_native_password`, `caching_sha2_password`, MariaDB's `client_ed25519`, and the
//! switch between them that a server may ask for.
//!
//! Source: "Authentication Plugin - SHA-1", "- ed25519" of MariaDB's knowledge base; "Caching SHA-2 Pluggable
//! Authentication" of MySQL's internals manual.

use super::response::{Response, ServerError};
use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::scalar::{Scalar, clamp_integer};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

/// A method's name on the wire.
pub const NATIVE: &str = "mysql_native_password";
/// A method's name on the wire.
pub const CACHING_SHA2: &str = "caching_sha2_password";
/// A method's name on the wire.
pub const ED25519: &str = "client_ed25519";

/// Bytes of the challenge of native and caching_sha2.
pub const SEED: usize = 20;
/// Bytes of the challenge of ed25519.
const ED25519_SEED: usize = 32;
/// More rounds than any method has.
const MAX_ROUNDS: u8 = 8;

/// Why a login fails.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AuthError {
    /// The server said no.
    #[error(transparent)]
    Refused(#[from] ServerError),
    /// A method that is not built in.
    #[error(
        "the account uses the authentication method `{0}`; known are mysql_native_password, caching_sha2_password and \
         client_ed25519"
    )]
    UnknownMethod(String),
    /// The challenge has another length than the method says.
    #[error("the server's challenge for {method} has {length} bytes")]
    BadSeed {
        /// The method.
        method: &'static str,
        /// What it has.
        length: usize,
    },
    /// Something that the method does not have.
    #[error("the server's {what} does not belong to {method}")]
    Unexpected {
        /// The method.
        method: &'static str,
        /// What came.
        what: &'static str,
    },
}

/// How a password is proved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// SHA-1 of 4.1.
    Native,
    /// SHA-256; MySQL 8's default.
    CachingSha2,
    /// MariaDB's signature.
    Ed25519,
}

impl Method {
    /// From its name on the wire.
    pub fn named(name: &str) -> Option<Method> {
        [Method::Native, Method::CachingSha2, Method::Ed25519]
            .into_iter()
            .find(|method| method.name() == name)
    }

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Method::Native => NATIVE,
            Method::CachingSha2 => CACHING_SHA2,
            Method::Ed25519 => ED25519,
        }
    }
}

/// What to do next.
#[derive(Clone, PartialEq, Eq)]
pub enum Next {
    /// Send this as a packet.
    Send(Vec<u8>),
    /// Encrypt `clear` for the key (RSA, OAEP with SHA-1) and send the result as a packet.
    NeedRsa {
        /// The server's public key.
        pem: Vec<u8>,
        /// The password, already mixed with the challenge.
        clear: Vec<u8>,
    },
    /// The server has more to say.
    Wait,
    /// Logged in.
    Done,
}

impl std::fmt::Debug for Next {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Next::Send(_) => "Send",
            Next::NeedRsa { .. } => "NeedRsa",
            Next::Wait => "Wait",
            Next::Done => "Done",
        })
    }
}

/// The client's side of a login, from the challenge to OK.
#[derive(Clone)]
pub struct Exchange {
    method: Method,
    seed: Vec<u8>,
    password: Vec<u8>,
    secure: bool,
    rounds: u8,
    key_asked: bool,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").field("method", &self.method).finish_non_exhaustive()
    }
}

impl Exchange {
    /// Begins with the method and challenge of the greeting; the login's answer. A method that is not known is answered
    /// as native: the account may have another one, and then the server asks for the switch. `secure`: what is sent
    /// cannot be read on the way (TLS, a unix socket), so a password may go in clear where the method wants it.
    pub fn start(
        method: &str,
        seed: &[u8],
        password: &[u8],
        secure: bool,
    ) -> Result<(Exchange, Vec<u8>), AuthError> {
        let mut exchange = Exchange {
            method: Method::named(method).unwrap_or(Method::Native),
            seed: seed.to_vec(),
            password: password.to_vec(),
            secure,
            rounds: 0,
            key_asked: false,
        };
        let answer = exchange.answer(seed)?;
        Ok((exchange, answer))
    }

    /// The method that is in use now.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Takes what the server says during the login.
    pub fn received(&mut self, response: &Response) -> Result<Next, AuthError> {
        self.rounds += 1;
        if self.rounds > MAX_ROUNDS {
            return Err(self.unexpected("further round"));
        }
        match response {
            Response::Ok(_) => Ok(Next::Done),
            Response::Err(error) => Err(error.clone().into()),
            Response::AuthSwitch { method, data } => {
                self.method =
                    Method::named(method).ok_or_else(|| AuthError::UnknownMethod(method.clone()))?;
                self.key_asked = false;
                Ok(Next::Send(self.answer(data)?))
            }
            Response::AuthMore(data) if self.method == Method::CachingSha2 => self.sha2_more(data),
            Response::AuthMore(_) => Err(self.unexpected("further question")),
            Response::Eof => Err(self.unexpected("EOF")),
        }
    }

    fn unexpected(&self, what: &'static str) -> AuthError {
        AuthError::Unexpected { method: self.method.name(), what }
    }

    /// The answer to a challenge.
    fn answer(&mut self, seed: &[u8]) -> Result<Vec<u8>, AuthError> {
        let wanted = match self.method {
            Method::Native | Method::CachingSha2 => SEED,
            Method::Ed25519 => ED25519_SEED,
        };
        let seed = match seed {
            // The challenge of the first two ends with a NUL in a switch.
            [head @ .., 0] if head.len() == wanted => head,
            _ if seed.len() == wanted => seed,
            _ => return Err(AuthError::BadSeed { method: self.method.name(), length: seed.len() }),
        };
        self.seed = seed.to_vec();
        Ok(match self.method {
            Method::Native => native(&self.password, seed),
            Method::CachingSha2 => caching_sha2(&self.password, seed),
            Method::Ed25519 => ed25519(&self.password, seed),
        })
    }

    fn sha2_more(&mut self, data: &[u8]) -> Result<Next, AuthError> {
        const FAST: u8 = 3;
        const FULL: u8 = 4;
        const ASK_KEY: u8 = 2;
        match data {
            [FAST] => Ok(Next::Wait),
            [FULL] if self.secure => Ok(Next::Send(with_nul(&self.password))),
            [FULL] => {
                self.key_asked = true;
                Ok(Next::Send(vec![ASK_KEY]))
            }
            pem if self.key_asked && pem.starts_with(b"-----BEGIN ") => {
                self.key_asked = false;
                let seed = self.seed.iter().cycle();
                let clear = with_nul(&self.password).iter().zip(seed).map(|(a, b)| a ^ b).collect();
                Ok(Next::NeedRsa { pem: pem.to_vec(), clear })
            }
            _ => Err(self.unexpected("further question")),
        }
    }
}

fn with_nul(password: &[u8]) -> Vec<u8> {
    [password, &[0]].concat()
}

fn xor<const N: usize>(a: [u8; N], b: [u8; N]) -> [u8; N] {
    std::array::from_fn(|n| a[n] ^ b[n])
}

/// What a server keeps for an account with `mysql_native_password`: SHA-1 of SHA-1.
pub fn native_stored(password: &[u8]) -> [u8; 20] {
    Sha1::digest(Sha1::digest(password)).into()
}

/// The answer of `mysql_native_password`; empty for an empty password.
pub fn native(password: &[u8], seed: &[u8]) -> Vec<u8> {
    if password.is_empty() {
        return Vec::new();
    }
    let mask = Sha1::new().chain_update(seed).chain_update(native_stored(password)).finalize();
    xor::<20>(Sha1::digest(password).into(), mask.into()).to_vec()
}

/// A server's check of an answer to `mysql_native_password`. Takes the same time wherever they differ.
pub fn native_is_right(stored: &[u8; 20], seed: &[u8], answer: &[u8]) -> bool {
    let Ok(answer) = <[u8; 20]>::try_from(answer) else { return false };
    let mask = Sha1::new().chain_update(seed).chain_update(stored).finalize();
    let found: [u8; 20] = Sha1::digest(xor(answer, mask.into())).into();
    found.iter().zip(stored).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

/// The first answer of `caching_sha2_password`; empty for an empty password.
pub fn caching_sha2(password: &[u8], seed: &[u8]) -> Vec<u8> {
    if password.is_empty() {
        return Vec::new();
    }
    let once = Sha256::digest(password);
    let mask = Sha256::new().chain_update(Sha256::digest(once)).chain_update(seed).finalize();
    xor::<32>(once.into(), mask.into()).to_vec()
}

/// The expanded key that a password is: secret scalar (clamped bytes), the rest of SHA-512, public key.
fn ed25519_key(password: &[u8]) -> (Scalar, [u8; 32], [u8; 32]) {
    let expanded: [u8; 64] = Sha512::digest(password).into();
    let (mut low, mut high) = ([0; 32], [0; 32]);
    low.copy_from_slice(&expanded[..32]);
    high.copy_from_slice(&expanded[32..]);
    let secret = Scalar::from_bytes_mod_order(clamp_integer(low));
    (secret, high, EdwardsPoint::mul_base(&secret).compress().to_bytes())
}

/// What a server keeps for an account with `ed25519`: the public key, in `mysql.user` as base64 without padding.
pub fn ed25519_stored(password: &[u8]) -> [u8; 32] {
    ed25519_key(password).2
}

/// The answer of `client_ed25519`: an Ed25519 signature of the challenge, whose expanded key is SHA-512 of the password
/// itself (RFC 8032 has SHA-512 of a 32-byte seed).
pub fn ed25519(password: &[u8], seed: &[u8]) -> Vec<u8> {
    let (secret, high, public) = ed25519_key(password);
    let wide = |hash: Sha512| Scalar::from_bytes_mod_order_wide(&hash.finalize().into());
    let nonce = wide(Sha512::new().chain_update(high).chain_update(seed));
    let point = EdwardsPoint::mul_base(&nonce).compress().to_bytes();
    let challenge = wide(Sha512::new().chain_update(point).chain_update(public).chain_update(seed));
    [point, (nonce + challenge * secret).to_bytes()].concat()
}

#[cfg(test)]
#[path = "auth_tests.rs"]
mod tests;
