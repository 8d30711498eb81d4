//! Database servers and their programs as children of this product: scratch servers for restores and drills, the
//! managed standby, and the client that loads a dump.

mod arguments;
mod datadir;
mod error;
mod load;
mod mysqld;
mod owner;
#[cfg(test)]
mod tests;
mod tools;

pub(crate) use datadir::empty;
pub use error::ServerError;
pub use load::{Client, LoadOptions};
pub(crate) use load::{last_words, with_credentials};
pub use mysqld::{ACCOUNT, Mysqld, MysqldOptions, Role};
pub use tools::{Flavor, Program, Tool, ToolMissing, Tools};
