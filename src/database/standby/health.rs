//! What a replica says of itself. Pure: a row of its status comes in, a judgement goes out.

/// The columns that are looked at, as the server wrote them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Said {
    /// `Yes`, `No`, `Connecting`, `Preparing`.
    pub(super) receiver: String,
    /// `Yes`, `No`.
    pub(super) applier: String,
    /// Empty when it has none.
    pub(super) receiver_error: String,
    /// Empty when it has none.
    pub(super) applier_error: String,
    /// Its number.
    pub(super) applier_errno: u32,
    /// Seconds behind its source; absent while it does not apply.
    pub(super) behind: Option<u64>,
}

/// How it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Health {
    /// Both threads run.
    Running,
    /// It tries to reach the binlog server; why it does not, if it says so.
    Connecting(String),
    /// It could not apply something: only a person can tell what it should hold.
    Failed(String),
    /// The binlog server does not give it what it asks for: a new standby has to be built.
    Refused(String),
    /// Stopped without an error: somebody stopped it, or what stopped it at a place did not come back.
    Halted,
}

impl Said {
    /// Errors of a replica that is refused for good start with this number.
    const FATAL: &'static str = "1236";

    pub(super) fn health(&self) -> Health {
        let yes = |text: &str| text.eq_ignore_ascii_case("Yes");
        if !self.applier_error.is_empty() && !yes(&self.applier) {
            return Health::Failed(self.applier_error.clone());
        }
        match (yes(&self.receiver), yes(&self.applier)) {
            (true, true) => Health::Running,
            (false, _) if !self.receiver_error.is_empty() && self.receiver.eq_ignore_ascii_case("No") => {
                Health::Refused(self.receiver_error.clone())
            }
            (false, true) if !self.receiver.eq_ignore_ascii_case("No") => {
                Health::Connecting(self.receiver_error.clone())
            }
            _ => Health::Halted,
        }
    }

    /// Is it of no use to start it again?
    pub(super) fn is_final(&self) -> bool {
        self.receiver_error.contains(Self::FATAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(receiver: &str, applier: &str, receiver_error: &str, applier_error: &str) -> Said {
        Said {
            receiver: receiver.to_owned(),
            applier: applier.to_owned(),
            receiver_error: receiver_error.to_owned(),
            applier_error: applier_error.to_owned(),
            ..Said::default()
        }
    }

    #[test]
    fn a_replica_is_judged_by_its_threads_and_their_errors() {
        let cases = [
            (said("Yes", "Yes", "", ""), Health::Running),
            (said("Connecting", "Yes", "", ""), Health::Connecting(String::new())),
            (said("Connecting", "Yes", "refused", ""), Health::Connecting("refused".to_owned())),
            (said("Preparing", "Yes", "", ""), Health::Connecting(String::new())),
            (said("Yes", "No", "", "duplicate"), Health::Failed("duplicate".to_owned())),
            (said("No", "No", "gone", "duplicate"), Health::Failed("duplicate".to_owned())),
            (said("No", "Yes", "log event 1236", ""), Health::Refused("log event 1236".to_owned())),
            (said("No", "No", "", ""), Health::Halted),
            (said("Yes", "No", "", ""), Health::Halted),
        ];
        for (said, health) in cases {
            assert_eq!(said.health(), health, "{said:?}");
        }
        assert!(said("No", "Yes", "error 1236: could not find", "").is_final());
    }
}
