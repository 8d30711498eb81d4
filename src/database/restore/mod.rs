//! The database as of any moment: a base snapshot, then the archive up to exactly there.

mod accounts;
pub(in crate::database) mod branches;
mod compare;
mod error;
mod fill;
mod only;
pub mod plan;
mod replay;
mod run;
mod target;
#[cfg(test)]
mod tests;

pub use compare::Difference;
pub use error::RestoreError;
pub(in crate::database) use error::is_of_machine;
pub(crate) use fill::Route;
pub use fill::Vault;
pub use run::{RestoreMoment, RestoreOptions, RestoreTarget, Restored, check, run};
