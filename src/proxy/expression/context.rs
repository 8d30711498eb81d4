//! What an expression is evaluated over.

use super::{Sample, Variable, VariableScope};
use crate::proxy::config::Config;
use crate::proxy::config::model::{Proxy, Server};
use crate::proxy::exchange::Exchange;
use crate::proxy::state::Running;

/// One exchange in a running proxy.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Context<'e> {
    pub exchange: &'e Exchange,
    pub running: &'e Running,
}

impl<'e> Context<'e> {
    /// The configuration.
    pub fn config(&self) -> &'e Config {
        &self.running.config
    }

    /// The frontend's section.
    pub fn frontend(&self) -> Option<&'e Proxy> {
        self.config().proxies.get(self.exchange.session.frontend)
    }

    /// The backend's section; the frontend's while none was chosen.
    pub fn backend(&self) -> Option<&'e Proxy> {
        let index = self.exchange.route.backend.unwrap_or(self.exchange.session.frontend);
        self.config().proxies.get(index)
    }

    /// A variable's value.
    pub fn variable(&self, variable: Variable) -> Option<&'e Sample<'static>> {
        match variable.scope {
            VariableScope::Session => self.exchange.session.variables.get(variable),
            _ => self.exchange.variables.get(variable),
        }
    }

    /// The server that was chosen.
    pub fn server(&self) -> Option<&'e Server> {
        self.backend()?.servers.get(self.exchange.route.server?)
    }
}
