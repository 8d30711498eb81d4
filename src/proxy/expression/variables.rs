//! Variables (`set-var`, `var()`; 2.8 of the manual): names become numbers when the file is read.

use super::Sample;

/// How long a variable lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VariableScope {
    /// `sess`: the client's connection.
    Session,
    /// `txn`: request and response.
    Transaction,
    /// `req`: until the response.
    Request,
    /// `res`: the response only.
    Response,
}

/// A variable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Variable {
    /// Where it is kept.
    pub scope: VariableScope,
    number: u32,
}

/// Every name that the configuration uses.
#[derive(Clone, Debug, Default)]
pub struct VariableNames(Vec<String>);

impl VariableNames {
    /// `txn.name` and so on. The error says what is wrong.
    pub fn variable(&mut self, full: &str) -> Result<Variable, String> {
        let (scope, name) = full.split_once('.').unwrap_or(("", full));
        let scope = match scope {
            "sess" => VariableScope::Session,
            "txn" => VariableScope::Transaction,
            "req" => VariableScope::Request,
            "res" => VariableScope::Response,
            "proc" => return Err("variables of the process (`proc.`) are not supported yet".to_owned()),
            "check" => return Err("variables of checks (`check.`) are not supported yet".to_owned()),
            _ => return Err(format!("`{full}` has no scope: it must begin with sess., txn., req. or res.")),
        };
        if name.is_empty()
            || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        {
            return Err(format!("`{full}`: a name is made of letters, digits, `_`, `-` and `.`"));
        }
        let known = self.0.iter().position(|known| known == name);
        let number = known.unwrap_or_else(|| {
            self.0.push(name.to_owned());
            self.0.len() - 1
        });
        let number = u32::try_from(number).map_err(|_| "too many variables".to_owned())?;
        Ok(Variable { scope, number })
    }
}

/// Values of one holder: the session's, or the exchange's. Few, so a list.
#[derive(Clone, Debug, Default)]
pub struct Variables(Vec<(Variable, Sample<'static>)>);

impl Variables {
    /// Forgets all and keeps the memory.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Forgets those of one scope: `req` when the response begins.
    pub fn clear_scope(&mut self, scope: VariableScope) {
        self.0.retain(|(variable, _)| variable.scope != scope);
    }

    /// Its value.
    pub fn get(&self, variable: Variable) -> Option<&Sample<'static>> {
        self.0.iter().find(|(known, _)| *known == variable).map(|(_, value)| value)
    }

    /// Sets it.
    pub fn set(&mut self, variable: Variable, value: Sample<'static>) {
        match self.0.iter_mut().find(|(known, _)| *known == variable) {
            Some(known) => known.1 = value,
            None => self.0.push((variable, value)),
        }
    }

    /// Forgets it.
    pub fn unset(&mut self, variable: Variable) {
        self.0.retain(|(known, _)| *known != variable);
    }
}
