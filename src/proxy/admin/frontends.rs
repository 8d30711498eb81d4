//! Commands on frontends and on the process's limit.

use super::commands::Caller;
use super::{Answer, Context};
use crate::proxy::state::Frontend;
use std::sync::atomic::Ordering::SeqCst;

fn find<'r>(context: &Context<'r>, name: Option<&&str>) -> Result<&'r Frontend, Answer> {
    let name = name.ok_or_else(|| Answer::error("A frontend name is expected.\n"))?;
    let proxies = context.running.config.proxies.iter().zip(&context.running.proxies);
    proxies
        .filter(|(proxy, _)| proxy.name == **name)
        .find_map(|(_, state)| state.frontend.as_ref())
        .ok_or_else(|| Answer::error("No such frontend.\n"))
}

/// `disable frontend`: connections wait in the backlog.
pub(super) fn disable(context: &Context<'_>, _: &Caller, arguments: &[&str]) -> Answer {
    match find(context, arguments.first()) {
        Ok(frontend) if frontend.paused.swap(true, SeqCst) => {
            Answer::info("All sockets are already disabled.\n")
        }
        Ok(_) => Answer::Done,
        Err(answer) => answer,
    }
}

/// `enable frontend`.
pub(super) fn enable(context: &Context<'_>, _: &Caller, arguments: &[&str]) -> Answer {
    match find(context, arguments.first()) {
        Ok(frontend) if !frontend.paused.swap(false, SeqCst) => {
            Answer::info("All sockets are already enabled.\n")
        }
        Ok(_) => Answer::Done,
        Err(answer) => answer,
    }
}

/// `set maxconn frontend NAME N`.
pub(super) fn set_maxconn(context: &Context<'_>, _: &Caller, arguments: &[&str]) -> Answer {
    let frontend = match find(context, arguments.first()) {
        Ok(frontend) => frontend,
        Err(answer) => return answer,
    };
    let Some(limit) = arguments.get(1).and_then(|number| number.parse::<i64>().ok()) else {
        return Answer::error("Integer value expected.\n");
    };
    match u32::try_from(limit) {
        Ok(limit) => {
            frontend.gate.set_limit(limit);
            Answer::Done
        }
        Err(_) => Answer::error("Value out of range.\n"),
    }
}

/// `set maxconn global N`: at most what the process was started with; 0 goes back to that.
pub(super) fn set_process_maxconn(context: &Context<'_>, _: &Caller, arguments: &[&str]) -> Answer {
    let Some(limit) = arguments.first().and_then(|number| number.parse::<i64>().ok()) else {
        return Answer::error("Expects an integer value.\n");
    };
    let most = context.running.maxconn;
    match u32::try_from(limit) {
        Ok(0) => context.running.gate.set_limit(most),
        Ok(limit) if limit <= most => context.running.gate.set_limit(limit),
        _ => return Answer::error("Value out of range.\n"),
    }
    Answer::Done
}
