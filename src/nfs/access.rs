//! Who a call is made for, and what exports(5) lets him do: asked for every call.

use crate::settings::exports::{Options, Rule, Squash};
use crate::vfs::Caller;
use ehpc_proto::mount::MountError;
use ehpc_proto::nfs3::nfsstat3;
use ehpc_proto::rpc::Credential;
use smallvec::SmallVec;
use std::net::{IpAddr, SocketAddr};

/// No user and no group has this number; a call that claims it is made for nobody.
const NO_ID: u32 = u32::MAX;
/// `secure` exports serve ports below this one.
const FIRST_UNPRIVILEGED_PORT: u16 = 1024;

/// Who a call says that it is made for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Claim {
    /// AUTH_NONE: nobody in particular.
    Anonymous,
    /// AUTH_SYS.
    #[allow(missing_docs)]
    Sys(Caller),
}

impl Claim {
    pub(super) fn of(credential: &Credential<'_>) -> Claim {
        match credential {
            Credential::None => Claim::Anonymous,
            Credential::Sys(sys) => {
                Claim::Sys(Caller { uid: sys.uid, gid: sys.gid, groups: SmallVec::from_slice(sys.groups()) })
            }
        }
    }
}

impl Claim {
    /// The ids that are claimed, as MNT walks a path.
    pub(super) fn unsquashed(&self) -> Caller {
        squashed(self, &Options::open())
    }
}

/// Why a client may not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// No rule of the export is about this client.
    Client,
    /// `secure`, and the call comes from a port that every user may open.
    Port,
}

impl Refusal {
    /// As an NFS procedure answers.
    pub(super) fn status(self) -> nfsstat3 {
        match self {
            Refusal::Client => nfsstat3::NFS3ERR_ACCES,
            // As Linux says it.
            Refusal::Port => nfsstat3::NFS3ERR_PERM,
        }
    }

    /// As MNT answers.
    pub(super) fn mount_error(self) -> MountError {
        match self {
            Refusal::Client | Refusal::Port => MountError::Access,
        }
    }
}

/// What a call may do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Grant {
    /// Under whose ids, after squashing.
    pub(super) caller: Caller,
    /// Nothing may be changed.
    pub(super) read_only: bool,
    /// READDIRPLUS is answered.
    pub(super) readdirplus: bool,
    /// ACLs are told and set.
    pub(super) acl: bool,
    /// A lock takes a permission on its file.
    pub(super) auth_nlm: bool,
}

/// What `peer` may do under `rules`, who says that it calls for `claim`.
pub(super) fn admit(rules: &[Rule], peer: SocketAddr, claim: &Claim) -> Result<Grant, Refusal> {
    let rule = rule_for(rules, peer.ip()).ok_or(Refusal::Client)?;
    let options = &rule.options;
    if options.secure && peer.port() >= FIRST_UNPRIVILEGED_PORT {
        return Err(Refusal::Port);
    }
    Ok(Grant {
        caller: squashed(claim, options),
        read_only: options.read_only,
        readdirplus: options.readdirplus,
        acl: options.acl,
        auth_nlm: options.auth_nlm,
    })
}

/// The rule that decides for a client: of the kinds of clients the first that knows it, of its rules the first.
pub(super) fn rule_for(rules: &[Rule], client: IpAddr) -> Option<&Rule> {
    // `min_by_key` returns the first of several equal ones.
    rules.iter().filter(|rule| rule.client.covers(client)).min_by_key(|rule| rule.client.kind())
}

/// The identity under which a call is done.
fn squashed(claim: &Claim, options: &Options) -> Caller {
    let anonymous = Caller { uid: options.anonuid, gid: options.anongid, groups: SmallVec::new() };
    let caller = match (claim, options.squash) {
        (Claim::Anonymous, _) | (_, Squash::Everybody) => return anonymous,
        (Claim::Sys(caller), _) => caller,
    };
    let root = options.squash == Squash::Root;
    let user = |uid: u32| if uid == NO_ID || (root && uid == 0) { anonymous.uid } else { uid };
    let group = |gid: u32| if gid == NO_ID || (root && gid == 0) { anonymous.gid } else { gid };
    Caller {
        uid: user(caller.uid),
        gid: group(caller.gid),
        groups: caller.groups.iter().map(|&gid| group(gid)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Site;
    use crate::settings::exports::Client;
    use ehpc_proto::rpc::AuthSys;

    fn sys(uid: u32, gid: u32, groups: &[u32]) -> Claim {
        Claim::of(&Credential::Sys(AuthSys::new(b"web", uid, gid, groups)))
    }

    fn ids(claim: &Claim, squash: Squash) -> (u32, u32, Vec<u32>) {
        let options = Options { squash, anonuid: 71, anongid: 72, ..Options::default() };
        let caller = squashed(claim, &options);
        (caller.uid, caller.gid, caller.groups.to_vec())
    }

    #[test]
    fn squashing_replaces_what_it_says_and_nothing_else() {
        let root = sys(0, 0, &[0, 5, 0]);
        assert_eq!(ids(&root, Squash::Nobody), (0, 0, vec![0, 5, 0]));
        assert_eq!(ids(&root, Squash::Root), (71, 72, vec![72, 5, 72]));
        assert_eq!(ids(&root, Squash::Everybody), (71, 72, vec![]));
        let web = sys(33, 0, &[34, 0]);
        assert_eq!(ids(&web, Squash::Root), (33, 72, vec![34, 72]), "gid 0 is squashed without uid 0");
        assert_eq!(ids(&web, Squash::Everybody), (71, 72, vec![]));
        for squash in [Squash::Nobody, Squash::Root, Squash::Everybody] {
            assert_eq!(ids(&Claim::of(&Credential::None), squash), (71, 72, vec![]));
        }
        assert_eq!(ids(&sys(u32::MAX, u32::MAX, &[u32::MAX]), Squash::Nobody), (71, 72, vec![72]));
    }

    fn rule(client: Client, anonuid: u32) -> Rule {
        let options = Options { anonuid, ..Options::open() };
        Rule { client, options, site: Site::Default("test") }
    }

    #[test]
    fn kinds_decide_before_the_order_of_lines() {
        let net = |address: &str, prefix| Client::Network { address: address.parse().unwrap(), prefix };
        let rules = [
            rule(Client::Everybody, 1),
            rule(net("10.0.0.0", 8), 2),
            rule(net("10.1.0.0", 16), 3),
            rule(Client::Address("10.1.2.3".parse().unwrap()), 4),
        ];
        let decides = |client: &str| rule_for(&rules, client.parse().unwrap()).map(|r| r.options.anonuid);
        assert_eq!(decides("10.1.2.3"), Some(4), "an address before networks");
        assert_eq!(decides("10.1.2.4"), Some(2), "of one kind the first, not the narrowest");
        assert_eq!(decides("192.0.2.1"), Some(1));
        assert_eq!(rule_for(&rules[1..], "192.0.2.1".parse().unwrap()), None);
    }

    #[test]
    fn secure_exports_want_a_privileged_port() {
        let rules = [Rule::everybody(Options::default())];
        let from = |port| admit(&rules, SocketAddr::from(([10, 0, 0, 1], port)), &sys(1, 1, &[]));
        assert!(from(1023).is_ok());
        assert_eq!(from(1024).unwrap_err(), Refusal::Port);
        assert_eq!(admit(&[], SocketAddr::from(([10, 0, 0, 1], 1)), &sys(1, 1, &[])), Err(Refusal::Client));
    }
}
