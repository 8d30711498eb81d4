//! A replica's login, from our greeting to OK: one account, `mysql_native_password`.

use super::answers::ok;
use ehpc_proto::mysql::auth::{NATIVE, native_is_right, native_stored};
use ehpc_proto::mysql::handshake::{
    CHARSET_UTF8MB4, Greeting, Login, STATUS_AUTOCOMMIT, SslRequest, capability,
};
use ehpc_proto::mysql::packet::Packet;
use ehpc_proto::mysql::response::{Response, ServerError};

/// Who may take the log. The password itself is not kept.
#[derive(Clone)]
pub struct Account {
    user: String,
    stored: [u8; 20],
}

impl Account {
    /// The account of this name.
    pub fn new(user: &str, password: &str) -> Account {
        Account { user: user.to_owned(), stored: native_stored(password.as_bytes()) }
    }
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Bytes of a challenge.
pub const SEED: usize = 20;

/// What to say next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Send this, wait for more.
    Ask(Vec<u8>),
    /// Send this: logged in.
    In(Vec<u8>),
    /// Send this and close.
    Refused(ServerError),
}

/// One login.
pub struct LoginDialogue {
    account: Account,
    seed: [u8; SEED],
    /// The user that asked, once the method was switched.
    switched: Option<String>,
}

/// What the binlog server can do.
const CAPABILITIES: u32 = capability::LONG_PASSWORD
    | capability::LONG_FLAG
    | capability::PROTOCOL_41
    | capability::TRANSACTIONS
    | capability::SECURE_CONNECTION
    | capability::PLUGIN_AUTH
    | capability::CONNECT_ATTRS
    | capability::PLUGIN_AUTH_LENENC;

impl LoginDialogue {
    /// A login to `account`. The challenge is made of `random` bytes.
    pub fn new(account: Account, random: [u8; SEED]) -> LoginDialogue {
        // The challenge is a text in old clients: printable, no NUL.
        LoginDialogue { account, seed: random.map(|byte| b'!' + byte % 94), switched: None }
    }

    /// Our first packet.
    pub fn greeting(&self, banner: &str, connection_id: u32) -> Vec<u8> {
        Greeting {
            version: banner.to_owned(),
            connection_id,
            seed: self.seed.to_vec(),
            capabilities: CAPABILITIES,
            charset: CHARSET_UTF8MB4,
            status: STATUS_AUTOCOMMIT,
            method: NATIVE.to_owned(),
        }
        .encode()
    }

    /// Takes the client's next packet.
    pub fn received(&mut self, packet: &Packet) -> Step {
        if let Some(user) = self.switched.take() {
            return self.check(&user, &packet.payload);
        }
        if SslRequest::decode(&packet.payload).is_some() {
            return refused(
                1043,
                "08S01",
                "This binlog server does not offer TLS: it listens on this host only",
            );
        }
        let login = match Login::decode(&packet.payload) {
            Ok(login) => login,
            Err(fault) => return refused(1043, "08S01", format!("Bad handshake: {fault}")),
        };
        if login.method.as_deref().is_some_and(|method| method != NATIVE) {
            self.switched = Some(login.user);
            let data = [&self.seed[..], &[0]].concat();
            return Step::Ask(Response::AuthSwitch { method: NATIVE.to_owned(), data }.encode());
        }
        self.check(&login.user, &login.answer)
    }

    fn check(&self, user: &str, answer: &[u8]) -> Step {
        let right = native_is_right(&self.account.stored, &self.seed, answer);
        if right && user == self.account.user {
            return Step::In(ok().encode());
        }
        let user: String = user.chars().take(80).collect();
        let using = if answer.is_empty() { "NO" } else { "YES" };
        refused(1045, "28000", format!("Access denied for user '{user}' (using password: {using})"))
    }
}

fn refused(code: u16, state: &str, message: impl Into<String>) -> Step {
    Step::Refused(ServerError::new(code, state, message))
}
