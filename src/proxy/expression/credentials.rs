//! Users and their passwords (3.4 of the manual): crypt(3) hashes cost milliseconds, so that what was right once is
//! remembered.

use crate::proxy::config::model::{Password, User, Userlist};
use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A userlist that checks passwords.
#[derive(Debug)]
pub(in crate::proxy) struct Credentials {
    list: Arc<Userlist>,
    /// Tells the lists apart in what threads remember.
    number: u64,
}

/// Digests that a thread remembers.
const REMEMBERED: usize = 4096;

thread_local! {
    /// Digests of (list, user, password) that were right; each thread its own, so that none waits for another. Cleared
    /// when full: who does not know a password cannot put anything into it.
    static RIGHT: RefCell<HashSet<[u8; 32]>> = RefCell::new(HashSet::new());
}

impl Credentials {
    pub(in crate::proxy) fn new(list: Arc<Userlist>) -> Credentials {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Credentials { list, number: NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    /// The user, if the password is right.
    pub(in crate::proxy) fn check(&self, user: &[u8], password: &[u8]) -> Option<&User> {
        let known = self.list.users.iter().find(|known| known.name.as_bytes() == user)?;
        let right = match &known.password {
            Password::Plain(plain) => same(plain.as_bytes(), password),
            Password::Crypt(hash) => self.crypt(user, password, hash),
        };
        right.then_some(known)
    }

    fn crypt(&self, user: &[u8], password: &[u8], hash: &str) -> bool {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.number.to_le_bytes()).update(&(user.len() as u64).to_le_bytes());
        hasher.update(user).update(password);
        let digest = *hasher.finalize().as_bytes();
        if RIGHT.with_borrow(|right| right.contains(&digest)) {
            return true;
        }
        if !pwhash::unix::verify(password, hash) {
            return false;
        }
        RIGHT.with_borrow_mut(|right| {
            if right.len() >= REMEMBERED {
                right.clear();
            }
            right.insert(digest);
        });
        true
    }
}

/// Compares without telling by its duration where two texts differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

/// Whether a `password` of the configuration has a form that can be checked. The error says why not.
pub fn check_hash(hash: &str) -> Result<(), String> {
    let scheme = hash.strip_prefix('$').and_then(|rest| rest.split('$').next());
    match scheme {
        Some("1" | "5" | "6" | "2a" | "2b" | "2y") => Ok(()),
        Some(other) => Err(format!("password hashes of the form ${other}$ are not supported")),
        None if hash.len() == 13 => Ok(()),
        None => Err("it is no hash of crypt(3)".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(password: Password) -> Credentials {
        let user = User { name: "joe".into(), password, groups: vec!["staff".into()] };
        Credentials::new(Arc::new(Userlist { name: "l".into(), users: vec![user] }))
    }

    #[test]
    fn every_crypt_form_is_checked() {
        // Made with `openssl passwd -1|-5|-6 -salt saltsalt secret` and perl's crypt.
        for hash in [
            "$1$saltsalt$9xy1btjgzLYfb7hivXtC//",
            "$5$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA",
            "$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1",
            "abNANd1rDfiNc",
        ] {
            check_hash(hash).unwrap();
            let list = list(Password::Crypt(hash.into()));
            assert!(list.check(b"joe", b"secret").is_some(), "{hash}");
            assert!(list.check(b"joe", b"secret").is_some(), "{hash}: remembered");
            assert!(list.check(b"joe", b"secreT").is_none(), "{hash}");
            assert!(list.check(b"jo", b"secret").is_none(), "{hash}");
        }
        assert!(check_hash("$y$j9T$abc$def").is_err());
        let plain = list(Password::Plain("secret".into()));
        assert_eq!(plain.check(b"joe", b"secret").unwrap().groups, ["staff"]);
        assert!(plain.check(b"joe", b"secre").is_none());
    }
}
