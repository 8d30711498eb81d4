//! Where the proxy differs from HAProxy 2.6 on purpose. An entry that no longer differs fails the test.

use super::compare::Allowed;
#[expect(unused_imports, reason = "entries come with the engine")]
use super::compare::Difference::{Ours, Text};

/// Each with its reason.
pub(crate) const LIST: &[Allowed] = &[];
