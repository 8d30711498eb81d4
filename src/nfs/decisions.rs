//! Which rule of an export decides for which client: remembered, so that names are not compared on every call.

use super::access::{Refusal, rule_for};
use super::lookup::Lookups;
use crate::settings::exports::Rule;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// A decision is made again after this time: that is also what has old answers of the name service asked again.
const TRUSTED: Duration = Duration::from_secs(10);
/// Most clients that are remembered.
const MAX_CLIENTS: usize = 4096;

struct Decision {
    /// Index of the rule; `None`: no rule is about this client.
    rule: Option<usize>,
    made: Instant,
    /// The state of the name service's answers that it rests on.
    changes: u64,
}

/// The rules of one export.
#[derive(Default)]
pub(super) struct Decisions {
    made: RwLock<HashMap<IpAddr, Decision>>,
}

impl Decisions {
    /// The rule that decides for `client`.
    pub(super) fn rule<'r>(
        &self,
        rules: &'r [Rule],
        client: IpAddr,
        lookups: &Lookups,
    ) -> Result<&'r Rule, Refusal> {
        if !rules.iter().any(|rule| rule.client.needs_names()) {
            return rule_for(rules, client, lookups)?.ok_or(Refusal::Client);
        }
        let (now, changes) = (Instant::now(), lookups.changes());
        if let Some(decision) = self.made.read().get(&client)
            && decision.changes == changes
            && now.duration_since(decision.made) < TRUSTED
        {
            return decision.rule.and_then(|index| rules.get(index)).ok_or(Refusal::Client);
        }
        let found = rule_for(rules, client, lookups)?;
        let rule = found.and_then(|found| rules.iter().position(|rule| std::ptr::eq(rule, found)));
        let mut made = self.made.write();
        if made.len() >= MAX_CLIENTS {
            made.clear();
        }
        made.insert(client, Decision { rule, made: now, changes });
        found.ok_or(Refusal::Client)
    }
}
