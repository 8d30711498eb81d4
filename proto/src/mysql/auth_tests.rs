//! Passwords: vectors of the specifications, of servers, and both sides against each other.

use super::*;

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|n| u8::from_str_radix(&text[n..n + 2], 16).unwrap()).collect()
}

#[test]
fn native_agrees_with_the_server() {
    // SELECT PASSWORD('secret') of MariaDB 10.11.
    assert_eq!(native_stored(b"secret").to_vec(), hex("14e65567abdb5135d0cfd9a70b3032c179a49ee7"));
    let seed = b"abcdefghij1234567890";
    let stored = native_stored(b"secret");
    assert!(native_is_right(&stored, seed, &native(b"secret", seed)));
    assert!(!native_is_right(&stored, seed, &native(b"Secret", seed)));
    assert!(!native_is_right(&stored, b"abcdefghij1234567891", &native(b"secret", seed)));
    assert!(!native_is_right(&stored, seed, b""));
    assert!(native(b"", seed).is_empty());
}

#[test]
fn caching_sha2_is_the_formula_of_the_manual() {
    // XOR(SHA256(password), SHA256(SHA256(SHA256(password)), seed)), worked out with sha256sum's bytes.
    let seed = b"abcdefghij1234567890";
    let once: [u8; 32] = Sha256::digest(b"secret").into();
    assert_eq!(once[..4], hex("2bb80d53"), "echo -n secret | sha256sum");
    let twice: [u8; 32] = Sha256::digest(once).into();
    let mask: [u8; 32] = Sha256::digest([&twice[..], seed].concat()).into();
    let answer = caching_sha2(b"secret", seed);
    assert!(answer.iter().zip(mask).zip(once).all(|((answer, mask), once)| answer ^ mask == once));
    assert!(caching_sha2(b"", seed).is_empty());
}

#[test]
fn ed25519_has_the_key_that_the_server_keeps() {
    // CREATE USER .. IDENTIFIED VIA ed25519 USING PASSWORD('secret') of MariaDB 10.11, and its knowledge base.
    let stored = "ZIgUREUg5PVgQ6LskhXmO+eZLS0nC8be6HPjYWR4YJY";
    assert_eq!(base64(&ed25519_stored(b"secret")), stored);
    // The signature is checked as RFC 8032 has it: S B = R + H(R, A, M) A.
    let seed = [9; 32];
    let answer = ed25519(b"secret", &seed);
    let point = curve25519_dalek::edwards::CompressedEdwardsY::from_slice(&answer[..32]).unwrap();
    let public = curve25519_dalek::edwards::CompressedEdwardsY(ed25519_stored(b"secret"));
    let s = Scalar::from_canonical_bytes(answer[32..].try_into().unwrap()).unwrap();
    let hash = Sha512::new().chain_update(point.0).chain_update(public.0).chain_update(seed).finalize();
    let k = Scalar::from_bytes_mod_order_wide(&hash.into());
    let right = point.decompress().unwrap() + k * public.decompress().unwrap();
    assert_eq!(EdwardsPoint::mul_base(&s), right);
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bit = |n: usize| bytes.get(n / 8).is_some_and(|byte| byte & (0x80 >> (n % 8)) != 0);
    let group = |at: usize| (at..at + 6).fold(0, |value, n| value << 1 | usize::from(bit(n)));
    (0..bytes.len() * 8).step_by(6).map(|at| char::from(ALPHABET[group(at)])).collect()
}

#[test]
fn a_switch_is_followed_and_an_unknown_method_named() {
    let seed = b"abcdefghij1234567890";
    let (mut exchange, first) = Exchange::start(NATIVE, seed, b"secret", false).unwrap();
    assert_eq!(first, native(b"secret", seed));
    let switch = Response::AuthSwitch { method: ED25519.to_owned(), data: vec![3; 32] };
    assert_eq!(exchange.received(&switch), Ok(Next::Send(ed25519(b"secret", &[3; 32]))));
    assert_eq!(exchange.received(&Response::Ok(Default::default())), Ok(Next::Done));

    let switch = Response::AuthSwitch { method: NATIVE.to_owned(), data: [&seed[..], &[0]].concat() };
    let (mut exchange, _) = Exchange::start(CACHING_SHA2, seed, b"secret", false).unwrap();
    assert_eq!(exchange.received(&switch), Ok(Next::Send(native(b"secret", seed))));
    let dialog = Response::AuthSwitch { method: "dialog".to_owned(), data: Vec::new() };
    assert_eq!(exchange.received(&dialog), Err(AuthError::UnknownMethod("dialog".to_owned())));
    let short = Response::AuthSwitch { method: NATIVE.to_owned(), data: vec![1; 8] };
    assert_eq!(exchange.received(&short), Err(AuthError::BadSeed { method: NATIVE, length: 8 }));
}

#[test]
fn sha2_sends_a_password_in_clear_only_where_nobody_reads_along() {
    let seed = b"abcdefghij1234567890";
    let full = Response::AuthMore(vec![4]);
    let (mut exchange, _) = Exchange::start(CACHING_SHA2, seed, b"secret", true).unwrap();
    assert_eq!(exchange.received(&Response::AuthMore(vec![3])), Ok(Next::Wait));
    assert_eq!(exchange.received(&full), Ok(Next::Send(b"secret\0".to_vec())));

    let (mut exchange, _) = Exchange::start(CACHING_SHA2, seed, b"secret", false).unwrap();
    let pem = b"-----BEGIN PUBLIC KEY-----\n".to_vec();
    assert!(exchange.received(&Response::AuthMore(pem.clone())).is_err(), "a key that was not asked for");
    assert_eq!(exchange.received(&full), Ok(Next::Send(vec![2])));
    let Ok(Next::NeedRsa { pem: key, clear }) = exchange.received(&Response::AuthMore(pem.clone())) else {
        panic!("a key");
    };
    assert_eq!(key, pem);
    let back: Vec<u8> = clear.iter().zip(seed).map(|(a, b)| a ^ b).collect();
    assert_eq!(back, b"secret\0");
    assert!(!format!("{exchange:?}").contains("115"), "no password in what is logged");
}

#[test]
fn a_server_that_asks_for_ever_is_left() {
    let (mut exchange, _) = Exchange::start(CACHING_SHA2, b"abcdefghij1234567890", b"secret", true).unwrap();
    let answers = (0..20).map(|_| exchange.received(&Response::AuthMore(vec![3])));
    assert!(answers.filter(Result::is_err).count() > 5);
}
