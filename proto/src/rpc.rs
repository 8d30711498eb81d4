//! ONC RPC version 2 (RFC 5531): headers of calls and replies, AUTH_NONE and AUTH_SYS.

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::xdr::{decode_opaque, encode_opaque};

/// The version of RPC itself.
pub const RPC_VERSION: u32 = 2;
/// Most supplementary groups in AUTH_SYS.
pub const MAX_GROUPS: usize = 16;
/// Longest machine name in AUTH_SYS.
pub const MAX_MACHINE_NAME: usize = 255;
/// Longest credential or verifier.
pub const MAX_AUTH_BYTES: usize = 400;

const CALL: u32 = 0;
const REPLY: u32 = 1;
const AUTH_NONE: u32 = 0;
/// Flavour number of AUTH_SYS.
pub const AUTH_SYS: u32 = 1;

/// Who calls, by his own word.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Credential<'a> {
    /// AUTH_NONE.
    None,
    /// AUTH_SYS.
    Sys(AuthSys<'a>),
}

/// The body of an AUTH_SYS credential.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuthSys<'a> {
    /// Chosen by the caller.
    pub stamp: u32,
    /// At most [`MAX_MACHINE_NAME`] bytes.
    pub machine_name: &'a [u8],
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    groups: [u32; MAX_GROUPS],
    group_count: usize,
}

impl<'a> AuthSys<'a> {
    /// A credential; groups past the sixteenth are left out.
    pub fn new(machine_name: &'a [u8], uid: u32, gid: u32, groups: &[u32]) -> AuthSys<'a> {
        let mut kept = [0; MAX_GROUPS];
        let group_count = groups.len().min(MAX_GROUPS);
        kept[..group_count].copy_from_slice(&groups[..group_count]);
        AuthSys { stamp: 0, machine_name, uid, gid, groups: kept, group_count }
    }

    /// Supplementary groups.
    pub fn groups(&self) -> &[u32] {
        &self.groups[..self.group_count]
    }

    fn decode(body: &'a [u8]) -> Result<AuthSys<'a>, DecodeError> {
        let mut input = Decoder::new(body);
        let stamp = input.u32()?;
        let machine_name = decode_opaque(&mut input, "machine name", MAX_MACHINE_NAME)?;
        let uid = input.u32()?;
        let gid = input.u32()?;
        let group_count = input.length("list of groups", MAX_GROUPS)?;
        let mut groups = [0; MAX_GROUPS];
        for group in &mut groups[..group_count] {
            *group = input.u32()?;
        }
        Ok(AuthSys { stamp, machine_name, uid, gid, groups, group_count })
    }

    fn encode(&self, out: &mut Encoder) {
        let mut body = Encoder::new();
        body.u32(self.stamp);
        encode_opaque(&mut body, self.machine_name);
        body.u32(self.uid);
        body.u32(self.gid);
        body.u32(self.group_count as u32);
        self.groups().iter().for_each(|group| body.u32(*group));
        out.u32(AUTH_SYS);
        encode_opaque(out, body.as_slice());
    }
}

/// The header of a call; the procedure's arguments follow it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call<'a> {
    /// Transaction, chosen by the caller.
    pub xid: u32,
    /// Program number.
    pub program: u32,
    /// Program version.
    pub version: u32,
    /// Procedure number.
    pub procedure: u32,
    /// Who calls.
    pub credential: Credential<'a>,
}

/// Why a record is no call that can be served.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CallError {
    /// Not even a call header: there is nobody to answer.
    #[error("not an RPC call: {0}")]
    Malformed(#[from] DecodeError),
    /// Can be answered: with this header, to this transaction.
    #[error("RPC call {xid:#x} refused: {reply:?}")]
    Refused {
        /// Transaction.
        xid: u32,
        /// The answer.
        reply: Reply,
    },
}

impl<'a> Call<'a> {
    /// Reads the header; `input` is then at the arguments.
    pub fn decode(input: &mut Decoder<'a>) -> Result<Call<'a>, CallError> {
        let xid = input.u32()?;
        let kind = input.u32()?;
        if kind != CALL {
            return Err(DecodeError::Invalid { what: "call", value: u64::from(kind) }.into());
        }
        let rpc_version = input.u32()?;
        if rpc_version != RPC_VERSION {
            let reply = Reply::RpcMismatch { low: RPC_VERSION, high: RPC_VERSION };
            return Err(CallError::Refused { xid, reply });
        }
        let program = input.u32()?;
        let version = input.u32()?;
        let procedure = input.u32()?;
        let refused = |status| CallError::Refused { xid, reply: Reply::AuthError(status) };
        let flavour = input.u32()?;
        let body = decode_opaque(input, "credential", MAX_AUTH_BYTES)
            .map_err(|_| refused(AuthStatus::BadCredential))?;
        let _verifier_flavour = input.u32().map_err(|_| refused(AuthStatus::BadVerifier))?;
        decode_opaque(input, "verifier", MAX_AUTH_BYTES).map_err(|_| refused(AuthStatus::BadVerifier))?;
        let credential = match flavour {
            AUTH_NONE => Credential::None,
            AUTH_SYS => {
                Credential::Sys(AuthSys::decode(body).map_err(|_| refused(AuthStatus::BadCredential))?)
            }
            _ => return Err(refused(AuthStatus::BadCredential)),
        };
        Ok(Call { xid, program, version, procedure, credential })
    }

    /// Writes the header; the arguments follow.
    pub fn encode(&self, out: &mut Encoder) {
        for word in [self.xid, CALL, RPC_VERSION, self.program, self.version, self.procedure] {
            out.u32(word);
        }
        match &self.credential {
            Credential::None => {
                out.u32(AUTH_NONE);
                out.u32(0);
            }
            Credential::Sys(sys) => sys.encode(out),
        }
        out.u32(AUTH_NONE);
        out.u32(0);
    }
}

/// auth_stat: why a caller is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum AuthStatus {
    /// AUTH_BADCRED: malformed, or a flavour that is not served.
    BadCredential = 1,
    /// AUTH_REJECTEDCRED.
    RejectedCredential = 2,
    /// AUTH_BADVERF.
    BadVerifier = 3,
    /// AUTH_REJECTEDVERF.
    RejectedVerifier = 4,
    /// AUTH_TOOWEAK.
    TooWeak = 5,
    /// Any other number.
    Other = 7,
}

/// The header of a reply; a result follows only [`Reply::Success`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply {
    /// The result follows.
    Success,
    /// No such program here.
    ProgramUnavailable,
    /// The program's versions `low` to `high` are served.
    ProgramMismatch {
        /// Lowest.
        low: u32,
        /// Highest.
        high: u32,
    },
    /// No such procedure.
    ProcedureUnavailable,
    /// The arguments could not be decoded.
    GarbageArguments,
    /// Something failed in the server.
    SystemError,
    /// RPC versions `low` to `high` are spoken.
    RpcMismatch {
        /// Lowest.
        low: u32,
        /// Highest.
        high: u32,
    },
    /// The caller is refused.
    AuthError(AuthStatus),
}

impl Reply {
    /// Writes the header of the reply to `xid`.
    pub fn encode(self, xid: u32, out: &mut Encoder) {
        out.u32(xid);
        out.u32(REPLY);
        let accepted = |status: u32, out: &mut Encoder| {
            // MSG_ACCEPTED, verifier AUTH_NONE of no bytes
            [0, AUTH_NONE, 0, status].into_iter().for_each(|word| out.u32(word));
        };
        match self {
            Reply::Success => accepted(0, out),
            Reply::ProgramUnavailable => accepted(1, out),
            Reply::ProgramMismatch { low, high } => {
                accepted(2, out);
                out.u32(low);
                out.u32(high);
            }
            Reply::ProcedureUnavailable => accepted(3, out),
            Reply::GarbageArguments => accepted(4, out),
            Reply::SystemError => accepted(5, out),
            Reply::RpcMismatch { low, high } => [1, 0, low, high].into_iter().for_each(|word| out.u32(word)),
            Reply::AuthError(status) => [1, 1, status as u32].into_iter().for_each(|word| out.u32(word)),
        }
    }

    /// Reads a header: the transaction and the reply; `input` is then at the result.
    pub fn decode(input: &mut Decoder<'_>) -> Result<(u32, Reply), DecodeError> {
        let invalid = |what, value: u32| DecodeError::Invalid { what, value: u64::from(value) };
        let xid = input.u32()?;
        let kind = input.u32()?;
        if kind != REPLY {
            return Err(invalid("reply", kind));
        }
        let reply = match input.u32()? {
            0 => {
                input.u32()?;
                decode_opaque(input, "verifier", MAX_AUTH_BYTES)?;
                match input.u32()? {
                    0 => Reply::Success,
                    1 => Reply::ProgramUnavailable,
                    2 => Reply::ProgramMismatch { low: input.u32()?, high: input.u32()? },
                    3 => Reply::ProcedureUnavailable,
                    4 => Reply::GarbageArguments,
                    5 => Reply::SystemError,
                    value => return Err(invalid("accept_stat", value)),
                }
            }
            1 => match input.u32()? {
                0 => Reply::RpcMismatch { low: input.u32()?, high: input.u32()? },
                1 => Reply::AuthError(match input.u32()? {
                    1 => AuthStatus::BadCredential,
                    2 => AuthStatus::RejectedCredential,
                    3 => AuthStatus::BadVerifier,
                    4 => AuthStatus::RejectedVerifier,
                    5 => AuthStatus::TooWeak,
                    _ => AuthStatus::Other,
                }),
                value => return Err(invalid("reject_stat", value)),
            },
            value => return Err(invalid("reply_stat", value)),
        };
        Ok((xid, reply))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call_bytes(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    fn decode(bytes: &[u8]) -> Result<Call<'_>, CallError> {
        Call::decode(&mut Decoder::new(bytes))
    }

    #[test]
    fn a_call_has_the_bytes_of_the_rfc() {
        let credential = Credential::Sys(AuthSys::new(b"web", 33, 33, &[4, 5]));
        let call = Call { xid: 0x1234, program: 100_003, version: 3, procedure: 1, credential };
        let mut out = Encoder::new();
        call.encode(&mut out);
        let mut expected = call_bytes(&[0x1234, 0, 2, 100_003, 3, 1, 1, 32, 0, 3]);
        expected.extend_from_slice(b"web\0");
        expected.extend(call_bytes(&[33, 33, 2, 4, 5, 0, 0]));
        assert_eq!(out.as_slice(), expected);
        assert_eq!(decode(&expected), Ok(call));
    }

    #[test]
    fn replies_have_the_bytes_of_the_rfc_and_come_back() {
        let cases: [(Reply, &[u32]); 8] = [
            (Reply::Success, &[9, 1, 0, 0, 0, 0]),
            (Reply::ProgramUnavailable, &[9, 1, 0, 0, 0, 1]),
            (Reply::ProgramMismatch { low: 3, high: 3 }, &[9, 1, 0, 0, 0, 2, 3, 3]),
            (Reply::ProcedureUnavailable, &[9, 1, 0, 0, 0, 3]),
            (Reply::GarbageArguments, &[9, 1, 0, 0, 0, 4]),
            (Reply::SystemError, &[9, 1, 0, 0, 0, 5]),
            (Reply::RpcMismatch { low: 2, high: 2 }, &[9, 1, 1, 0, 2, 2]),
            (Reply::AuthError(AuthStatus::BadCredential), &[9, 1, 1, 1, 1]),
        ];
        for (reply, words) in cases {
            let mut out = Encoder::new();
            reply.encode(9, &mut out);
            assert_eq!(out.as_slice(), call_bytes(words), "{reply:?}");
            assert_eq!(Reply::decode(&mut Decoder::new(out.as_slice())), Ok((9, reply)));
        }
    }

    #[test]
    fn another_rpc_version_is_told_which_is_spoken() {
        let reply = Reply::RpcMismatch { low: 2, high: 2 };
        assert_eq!(decode(&call_bytes(&[7, 0, 3])), Err(CallError::Refused { xid: 7, reply }));
    }

    #[test]
    fn what_is_no_call_is_malformed() {
        assert!(matches!(decode(&call_bytes(&[7, 1, 2])), Err(CallError::Malformed(_))));
        assert!(matches!(decode(b"\0\0\0"), Err(CallError::Malformed(DecodeError::Short { .. }))));
        assert!(matches!(decode(&call_bytes(&[7, 0, 2, 100_003, 3])), Err(CallError::Malformed(_))));
    }

    #[test]
    fn credentials_are_bounded() {
        let refused = |status| Err(CallError::Refused { xid: 7, reply: Reply::AuthError(status) });
        let head = [7, 0, 2, 100_003, 3, 0];
        // AUTH_GSS
        let gss = call_bytes(&[&head[..], &[6, 0, 0, 0]].concat());
        assert_eq!(decode(&gss), refused(AuthStatus::BadCredential));
        // seventeen groups
        let groups = [&head[..], &[1, 88, 0, 0, 0, 0, 17], &[0; 17], &[0, 0]].concat();
        assert_eq!(decode(&call_bytes(&groups)), refused(AuthStatus::BadCredential));
        // sixteen are fine
        let groups = [&head[..], &[1, 84, 0, 0, 0, 0, 16], &[5; 16], &[0, 0]].concat();
        match decode(&call_bytes(&groups)) {
            Ok(Call { credential: Credential::Sys(sys), .. }) => assert_eq!(sys.groups(), [5; 16]),
            other => panic!("{other:?}"),
        }
        // a machine name of 256 bytes
        let name = [&head[..], &[1, 276, 0, 256], &[0; 64], &[0, 0, 0, 0, 0]].concat();
        assert_eq!(decode(&call_bytes(&name)), refused(AuthStatus::BadCredential));
        // a credential longer than the protocol's 400 bytes, and one longer than the record
        assert_eq!(
            decode(&call_bytes(&[&head[..], &[1, 404], &[0; 103]].concat())),
            refused(AuthStatus::BadCredential)
        );
        assert_eq!(
            decode(&call_bytes(&[&head[..], &[1, 8, 0]].concat())),
            refused(AuthStatus::BadCredential)
        );
        // a verifier longer than allowed
        assert_eq!(
            decode(&call_bytes(&[&head[..], &[0, 0, 0, 0xffff_ffff]].concat())),
            refused(AuthStatus::BadVerifier)
        );
    }
}
