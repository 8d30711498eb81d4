//! Who a call is made for.

use crate::vfs::Caller;
use ehpc_proto::rpc::Credential;
use smallvec::SmallVec;

/// User and group of callers without identity ("nobody").
const ANONYMOUS: u32 = 65_534;

/// The identity under which a call is done.
pub(super) fn caller(credential: &Credential<'_>) -> Caller {
    match credential {
        Credential::None => Caller { uid: ANONYMOUS, gid: ANONYMOUS, groups: SmallVec::new() },
        Credential::Sys(sys) => {
            Caller { uid: sys.uid, gid: sys.gid, groups: SmallVec::from_slice(sys.groups()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ehpc_proto::rpc::AuthSys;

    #[test]
    fn identities() {
        let nobody = caller(&Credential::None);
        assert_eq!((nobody.uid, nobody.gid, nobody.groups.len()), (65_534, 65_534, 0));
        let web = caller(&Credential::Sys(AuthSys::new(b"web", 33, 34, &[35, 36])));
        assert_eq!((web.uid, web.gid, &web.groups[..]), (33, 34, &[35, 36][..]));
    }
}
