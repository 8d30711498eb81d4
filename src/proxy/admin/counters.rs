//! `clear counters`.

use super::commands::Caller;
use super::{Answer, Context};
use crate::proxy::config::model::Level;

/// Forgets the highest values; with `all` everything that was counted.
pub(super) fn clear(context: &Context<'_>, caller: &Caller, arguments: &[&str]) -> Answer {
    let all = arguments.first() == Some(&"all");
    if all && caller.level < Level::Admin {
        return Answer::error("Permission denied\n");
    }
    context.running.clear_counters(all);
    Answer::Done
}
