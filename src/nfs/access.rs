//! Who a call is made for, and what exports(5) lets him do: asked for every call.

use super::lookup::Lookups;
use crate::settings::exports::{Client, Names, Options, Rule, Squash};
use crate::vfs::Caller;
use ehpc_proto::mount::MountError;
use ehpc_proto::nfs3::nfsstat3;
use ehpc_proto::rpc::Credential;
use smallvec::SmallVec;
use std::net::IpAddr;

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
    /// The name service has not said yet whether it may.
    NotKnownYet,
}

impl Refusal {
    /// As an NFS procedure answers.
    pub(super) fn status(self) -> nfsstat3 {
        match self {
            Refusal::Client => nfsstat3::NFS3ERR_ACCES,
            // As Linux says it.
            Refusal::Port => nfsstat3::NFS3ERR_PERM,
            Refusal::NotKnownYet => nfsstat3::NFS3ERR_JUKEBOX,
        }
    }

    /// As MNT answers.
    pub(super) fn mount_error(self) -> MountError {
        match self {
            Refusal::Client | Refusal::Port => MountError::Access,
            Refusal::NotKnownYet => MountError::ServerFault,
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
    /// File systems that are mounted below are entered.
    pub(super) crossmnt: bool,
    /// It is not entered from the export that it is mounted in.
    pub(super) hide: bool,
    /// READDIRPLUS is answered.
    pub(super) readdirplus: bool,
    /// ACLs are told and set.
    pub(super) acl: bool,
    /// A lock takes a permission on its file.
    pub(super) auth_nlm: bool,
}

/// What a caller whom `rule` decides about may do, calling from `port`. With `groups` a user's groups are those of
/// this machine's user database, whatever the call says.
pub(super) fn grant(
    rule: &Rule,
    port: u16,
    claim: &Claim,
    groups: Option<&Lookups>,
) -> Result<Grant, Refusal> {
    let options = &rule.options;
    if options.secure && port >= FIRST_UNPRIVILEGED_PORT {
        return Err(Refusal::Port);
    }
    let grant = |claim: &Claim| Grant {
        caller: squashed(claim, options),
        read_only: options.read_only,
        crossmnt: options.crossmnt,
        hide: options.hide,
        readdirplus: options.readdirplus,
        acl: options.acl,
        auth_nlm: options.auth_nlm,
    };
    match (groups, claim) {
        (Some(lookups), Claim::Sys(caller)) if caller.uid != NO_ID && options.squash != Squash::Everybody => {
            let groups = lookups.groups_of(caller.uid).ok_or(Refusal::NotKnownYet)?;
            Ok(grant(&Claim::Sys(Caller { groups: SmallVec::from_vec(groups), ..caller.clone() })))
        }
        _ => Ok(grant(claim)),
    }
}

/// The rule that decides for a client: of the kinds of clients the first that knows it, of its rules the first.
pub(super) fn rule_for<'r>(
    rules: &'r [Rule],
    client: IpAddr,
    names: &dyn Names,
) -> Result<Option<&'r Rule>, Refusal> {
    for kind in Client::KINDS {
        for rule in rules.iter().filter(|rule| rule.client.kind() == kind) {
            match rule.client.covers(client, names) {
                Some(true) => return Ok(Some(rule)),
                Some(false) => {}
                // A later rule must not decide what this one may have to.
                None => return Err(Refusal::NotKnownYet),
            }
        }
    }
    Ok(None)
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
    use super::super::lookup::{Answer, Question};
    use super::*;
    use crate::settings::Site;
    use ehpc_proto::rpc::AuthSys;
    use std::time::{Duration, Instant};

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

    /// Names of a small network: 10.0.0.N is hostN.example.org; hosts 1 to 3 are in the netgroup "web"; nothing
    /// is known of 10.0.0.9.
    struct Network;

    impl Names for Network {
        fn is_host(&self, name: &str, address: IpAddr) -> Option<bool> {
            Some(self.names_of(address)?.iter().any(|own| own == name))
        }
        fn names_of(&self, address: IpAddr) -> Option<Vec<String>> {
            let IpAddr::V4(v4) = address else { return Some(Vec::new()) };
            match v4.octets() {
                [10, 0, 0, 9] => None,
                [10, 0, 0, n] => Some(vec![format!("host{n}.example.org")]),
                _ => Some(vec![address.to_string()]),
            }
        }
        fn in_netgroup(&self, group: &str, address: IpAddr) -> Option<bool> {
            let names = self.names_of(address)?;
            Some(
                group == "web"
                    && names.iter().any(|name| name.starts_with("host") && name < &"host4".to_owned()),
            )
        }
    }

    /// Rules for these clients, each recognised by its anonuid: the place in the list.
    fn rules(clients: &[&str]) -> Vec<Rule> {
        let rule = |(anonuid, client): (u32, &&str)| {
            let client = Client::parse(client).unwrap();
            Rule { client, options: Options { anonuid, ..Options::open() }, site: Site::Default("test") }
        };
        (0..).zip(clients).map(rule).collect()
    }

    fn decides(clients: &[&str], client: &str) -> Result<Option<u32>, Refusal> {
        let rules = rules(clients);
        let rule = rule_for(&rules, client.parse().unwrap(), &Network)?;
        Ok(rule.map(|rule| rule.options.anonuid))
    }

    #[test]
    fn the_first_kind_that_knows_a_client_decides() {
        // Written in the opposite order of what decides.
        let all =
            ["*", "@web", "*.example.org", "10.0.0.0/24", "10.0.0.0/30", "host1.example.org", "10.0.0.1"];
        let matching = |from: usize, client: &str| decides(&all[..from], client);
        assert_eq!(matching(7, "10.0.0.1"), Ok(Some(5)), "a name and an address are one kind: the first");
        assert_eq!(matching(5, "10.0.0.1"), Ok(Some(3)), "of networks the first, not the narrowest");
        assert_eq!(matching(3, "10.0.0.1"), Ok(Some(2)), "a wildcard before a netgroup");
        assert_eq!(matching(2, "10.0.0.1"), Ok(Some(1)), "a netgroup before everybody");
        assert_eq!(matching(2, "10.0.0.5"), Ok(Some(0)));
        assert_eq!(decides(&all[1..], "192.0.2.1"), Ok(None));
        assert_eq!(decides(&[], "10.0.0.1"), Ok(None));
    }

    #[test]
    fn what_is_not_known_yet_is_not_decided_by_a_later_rule() {
        assert_eq!(decides(&["*", "*.example.org"], "10.0.0.9"), Err(Refusal::NotKnownYet));
        assert_eq!(decides(&["*", "host9.example.org"], "10.0.0.9"), Err(Refusal::NotKnownYet));
        assert_eq!(decides(&["*", "10.0.0.9", "*.example.org"], "10.0.0.9"), Ok(Some(1)), "not asked for");
        assert_eq!(decides(&["*"], "10.0.0.9"), Ok(Some(0)));
    }

    #[test]
    fn secure_exports_want_a_privileged_port() {
        let rule = Rule::everybody(Options::default());
        assert!(grant(&rule, 1023, &sys(1, 1, &[]), None).is_ok());
        assert_eq!(grant(&rule, 1024, &sys(1, 1, &[]), None), Err(Refusal::Port));
    }

    #[test]
    fn groups_are_the_servers_own_where_that_is_asked() {
        let groups = |question: &Question| match question {
            Question::Groups(33) => Some(Answer::Groups((0..40).collect())),
            _ => Some(Answer::Groups(Vec::new())),
        };
        let lookups = Lookups::asking(Box::new(groups)).unwrap();
        let rule = Rule::everybody(Options { anongid: 9, squash: Squash::Root, ..Options::open() });
        let until_known = |claim: &Claim| loop {
            let seen = lookups.answered();
            match grant(&rule, 1, claim, Some(&lookups)) {
                Err(Refusal::NotKnownYet) => {
                    assert!(lookups.wait_past(seen, Instant::now() + Duration::from_secs(20)));
                }
                other => return other.unwrap().caller.groups.to_vec(),
            }
        };
        let more_than_travel: Vec<u32> = std::iter::once(9).chain(1..40).collect();
        assert_eq!(until_known(&sys(33, 33, &[77])), more_than_travel, "gid 0 squashed");
        assert!(until_known(&sys(34, 34, &[77])).is_empty(), "what the call says does not count");
    }
}
