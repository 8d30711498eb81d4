//! Userlists (3.4).

/// Section `userlist` (3.4).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct Userlist {
    pub name: String,
    pub users: Vec<User>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct User {
    pub name: String,
    /// crypt(3) hash, or the password itself.
    pub password: Password,
    pub groups: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Password {
    Crypt(String),
    Plain(String),
}
