//! The Network Lock Manager, program 100021: version 4 (RFC 1813 appendix II), and 1 and 3 with 32-bit ranges (The
//! Open Group, XNFS version 3W, chapter 10).
//!
//! One set of types for all versions; [`Width`] says how wide offsets and lengths are on the wire.

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::xdr::{Decode, Encode, decode_opaque, encode_opaque};

/// Program number.
pub const PROGRAM: u32 = 100_021;
/// The versions that are served. Version 2 was never used.
pub const VERSIONS: [u32; 3] = [1, 3, 4];
/// Longest `netobj`: cookie, handle, owner (MAXNETOBJ_SZ).
pub const OBJECT_MAX: usize = 1024;
/// Longest name of a caller (LM_MAXSTRLEN).
pub const NAME_MAX: usize = 1024;

/// How wide offsets and lengths are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    /// Versions 1 and 3.
    Bits32,
    /// Version 4.
    Bits64,
}

impl Width {
    /// Of a version of the program.
    pub fn of_version(version: u32) -> Width {
        if version >= 4 { Width::Bits64 } else { Width::Bits32 }
    }

    fn decode(self, input: &mut Decoder<'_>) -> Result<u64, DecodeError> {
        match self {
            Width::Bits32 => Ok(u64::from(input.u32()?)),
            Width::Bits64 => input.u64(),
        }
    }

    /// Values that do not fit are the largest that do.
    fn encode(self, value: u64, out: &mut Encoder) {
        match self {
            Width::Bits32 => out.u32(u32::try_from(value).unwrap_or(u32::MAX)),
            Width::Bits64 => out.u64(value),
        }
    }
}

macro_rules! procedures {
    ($($variant:ident = $number:literal $name:literal,)*) => {
        /// The procedures. Those that end in `Msg` are answered by a call of the one that ends in `Res`.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u32)]
        #[allow(missing_docs)]
        pub enum Procedure { $($variant = $number,)* }

        impl Procedure {
            /// Every procedure, in order.
            pub const ALL: [Procedure; 20] = [$(Procedure::$variant,)*];

            /// As in the RFC, lower case.
            pub fn name(self) -> &'static str {
                match self { $(Procedure::$variant => $name,)* }
            }
        }
    };
}

procedures! {
    Null = 0 "null",
    Test = 1 "test",
    Lock = 2 "lock",
    Cancel = 3 "cancel",
    Unlock = 4 "unlock",
    Granted = 5 "granted",
    TestMsg = 6 "test_msg",
    LockMsg = 7 "lock_msg",
    CancelMsg = 8 "cancel_msg",
    UnlockMsg = 9 "unlock_msg",
    GrantedMsg = 10 "granted_msg",
    TestRes = 11 "test_res",
    LockRes = 12 "lock_res",
    CancelRes = 13 "cancel_res",
    UnlockRes = 14 "unlock_res",
    GrantedRes = 15 "granted_res",
    Share = 20 "share",
    Unshare = 21 "unshare",
    NmLock = 22 "nm_lock",
    FreeAll = 23 "free_all",
}

impl Procedure {
    /// The procedure of this number in this version: version 1 has none past GRANTED_RES.
    pub fn from_number(version: u32, number: u32) -> Option<Procedure> {
        let found = Procedure::ALL.into_iter().find(|procedure| *procedure as u32 == number)?;
        (version >= 3 || number < Procedure::Share as u32).then_some(found)
    }
}

/// nlm4_stats. Versions 1 and 3 have those up to `Deadlock`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum Status {
    Granted = 0,
    Denied = 1,
    DeniedNoLocks = 2,
    Blocked = 3,
    DeniedGracePeriod = 4,
    Deadlock = 5,
    ReadOnly = 6,
    StaleHandle = 7,
    TooBig = 8,
    Failed = 9,
}

impl Status {
    /// Every status, by number.
    pub const ALL: [Status; 10] = [
        Status::Granted,
        Status::Denied,
        Status::DeniedNoLocks,
        Status::Blocked,
        Status::DeniedGracePeriod,
        Status::Deadlock,
        Status::ReadOnly,
        Status::StaleHandle,
        Status::TooBig,
        Status::Failed,
    ];

    /// What a version can say in its stead: older ones know no stale handles, only "no locks to be had".
    pub fn in_version(self, version: u32) -> Status {
        match self {
            _ if version >= 4 => self,
            Status::ReadOnly | Status::StaleHandle | Status::TooBig | Status::Failed => Status::DeniedNoLocks,
            status => status,
        }
    }
}

impl Encode for Status {
    fn encode(&self, out: &mut Encoder) {
        out.u32(*self as u32);
    }
}

impl<'a> Decode<'a> for Status {
    fn decode(input: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        let value = input.u32()?;
        Status::ALL
            .into_iter()
            .find(|status| *status as u32 == value)
            .ok_or(DecodeError::Invalid { what: "nlm4_stats", value: u64::from(value) })
    }
}

fn object<'a>(input: &mut Decoder<'a>, what: &'static str) -> Result<&'a [u8], DecodeError> {
    decode_opaque(input, what, OBJECT_MAX)
}

/// `nlm4_lock`: whose, of which file, which bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lock<'a> {
    /// The client's name.
    pub caller: &'a [u8],
    /// The file's handle.
    pub file: &'a [u8],
    /// The owner, opaque to the server.
    pub owner: &'a [u8],
    /// The owner's process, or what the client numbers in its stead.
    pub svid: u32,
    /// First byte.
    pub offset: u64,
    /// Bytes; 0 = to the end, however far it may move.
    pub length: u64,
}

impl<'a> Lock<'a> {
    /// Reads one.
    pub fn decode(width: Width, input: &mut Decoder<'a>) -> Result<Lock<'a>, DecodeError> {
        Ok(Lock {
            caller: decode_opaque(input, "name of the caller", NAME_MAX)?,
            file: object(input, "file handle")?,
            owner: object(input, "lock owner")?,
            svid: input.u32()?,
            offset: width.decode(input)?,
            length: width.decode(input)?,
        })
    }

    /// Writes it.
    pub fn encode(&self, width: Width, out: &mut Encoder) {
        [self.caller, self.file, self.owner].into_iter().for_each(|bytes| encode_opaque(out, bytes));
        out.u32(self.svid);
        width.encode(self.offset, out);
        width.encode(self.length, out);
    }
}

/// The arguments of LOCK, TEST, CANCEL, UNLOCK, GRANTED and their asynchronous forms: what a procedure does not
/// have is false or 0.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LockArguments<'a> {
    /// Given back in the result.
    pub cookie: &'a [u8],
    /// Wait for it.
    pub block: bool,
    /// A write lock.
    pub exclusive: bool,
    /// Which.
    pub lock: Lock<'a>,
    /// Held before the server restarted.
    pub reclaim: bool,
    /// The client's state number.
    pub state: u32,
}

/// Which of the five argument types.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// nlm4_lockargs: LOCK, NM_LOCK.
    Lock,
    /// nlm4_cancargs: CANCEL.
    Cancel,
    /// nlm4_testargs: TEST, GRANTED.
    Test,
    /// nlm4_unlockargs: UNLOCK.
    Unlock,
}

impl<'a> LockArguments<'a> {
    /// Reads the type that `form` says.
    pub fn decode(
        form: Form,
        width: Width,
        input: &mut Decoder<'a>,
    ) -> Result<LockArguments<'a>, DecodeError> {
        let cookie = object(input, "cookie")?;
        let block = matches!(form, Form::Lock | Form::Cancel) && bool::decode(input)?;
        let exclusive = form != Form::Unlock && bool::decode(input)?;
        let lock = Lock::decode(width, input)?;
        let (reclaim, state) =
            if form == Form::Lock { (bool::decode(input)?, input.u32()?) } else { (false, 0) };
        Ok(LockArguments { cookie, block, exclusive, lock, reclaim, state })
    }

    /// Writes the type that `form` says.
    pub fn encode(&self, form: Form, width: Width, out: &mut Encoder) {
        encode_opaque(out, self.cookie);
        if matches!(form, Form::Lock | Form::Cancel) {
            self.block.encode(out);
        }
        if form != Form::Unlock {
            self.exclusive.encode(out);
        }
        self.lock.encode(width, out);
        if form == Form::Lock {
            self.reclaim.encode(out);
            out.u32(self.state);
        }
    }
}

/// `nlm4_res`: the result of LOCK, CANCEL, UNLOCK and GRANTED.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LockResult<'a> {
    /// Of the call.
    pub cookie: &'a [u8],
    /// What became of it.
    pub status: Status,
}

impl Encode for LockResult<'_> {
    fn encode(&self, out: &mut Encoder) {
        encode_opaque(out, self.cookie);
        self.status.encode(out);
    }
}

impl<'a> Decode<'a> for LockResult<'a> {
    fn decode(input: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        Ok(LockResult { cookie: object(input, "cookie")?, status: Decode::decode(input)? })
    }
}

/// `nlm4_holder`: who is in the way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder<'a> {
    /// With a write lock.
    pub exclusive: bool,
    /// Its process.
    pub svid: u32,
    /// The owner.
    pub owner: &'a [u8],
    /// First byte.
    pub offset: u64,
    /// Bytes; 0 = to the end.
    pub length: u64,
}

/// `nlm4_testres`: the result of TEST.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TestResult<'a> {
    /// Of the call.
    pub cookie: &'a [u8],
    /// `Granted`: the lock could be had.
    pub status: Status,
    /// With `Denied`.
    pub holder: Option<Holder<'a>>,
}

impl<'a> TestResult<'a> {
    /// Reads one.
    pub fn decode(width: Width, input: &mut Decoder<'a>) -> Result<TestResult<'a>, DecodeError> {
        let cookie = object(input, "cookie")?;
        let status = Status::decode(input)?;
        let holder = match status {
            Status::Denied => Some(Holder {
                exclusive: bool::decode(input)?,
                svid: input.u32()?,
                owner: object(input, "lock owner")?,
                offset: width.decode(input)?,
                length: width.decode(input)?,
            }),
            _ => None,
        };
        Ok(TestResult { cookie, status, holder })
    }

    /// Writes it; `Denied` without a holder is not possible on the wire and becomes `Failed` or its like.
    pub fn encode(&self, version: u32, out: &mut Encoder) {
        encode_opaque(out, self.cookie);
        let width = Width::of_version(version);
        match (self.status, &self.holder) {
            (Status::Denied, Some(holder)) => {
                Status::Denied.encode(out);
                holder.exclusive.encode(out);
                out.u32(holder.svid);
                encode_opaque(out, holder.owner);
                width.encode(holder.offset, out);
                width.encode(holder.length, out);
            }
            (Status::Denied, None) => Status::Failed.in_version(version).encode(out),
            (status, _) => status.encode(out),
        }
    }
}

/// `nlm4_shareargs`: the argument of SHARE and UNSHARE (DOS file sharing).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShareArguments<'a> {
    /// Given back in the result.
    pub cookie: &'a [u8],
    /// The client's name.
    pub caller: &'a [u8],
    /// The file's handle.
    pub file: &'a [u8],
    /// The owner, opaque to the server.
    pub owner: &'a [u8],
    /// What others may not do: bit 0 read, bit 1 write (fsh4_mode).
    pub deny: u32,
    /// What the owner does: bit 0 read, bit 1 write (fsh4_access).
    pub access: u32,
    /// Held before the server restarted.
    pub reclaim: bool,
}

impl<'a> Decode<'a> for ShareArguments<'a> {
    fn decode(input: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        let mode = |input: &mut Decoder<'a>, what| match input.u32()? {
            value @ 0..=3 => Ok(value),
            value => Err(DecodeError::Invalid { what, value: u64::from(value) }),
        };
        Ok(ShareArguments {
            cookie: object(input, "cookie")?,
            caller: decode_opaque(input, "name of the caller", NAME_MAX)?,
            file: object(input, "file handle")?,
            owner: object(input, "lock owner")?,
            deny: mode(input, "fsh4_mode")?,
            access: mode(input, "fsh4_access")?,
            reclaim: bool::decode(input)?,
        })
    }
}

impl Encode for ShareArguments<'_> {
    fn encode(&self, out: &mut Encoder) {
        [self.cookie, self.caller, self.file, self.owner].into_iter().for_each(|it| encode_opaque(out, it));
        out.u32(self.deny);
        out.u32(self.access);
        self.reclaim.encode(out);
    }
}

/// `nlm4_shareres`: the result of SHARE and UNSHARE.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShareResult<'a> {
    /// Of the call.
    pub cookie: &'a [u8],
    /// What became of it.
    pub status: Status,
    /// Unused by everybody.
    pub sequence: u32,
}

impl<'a> Decode<'a> for ShareResult<'a> {
    fn decode(input: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        Ok(ShareResult {
            cookie: object(input, "cookie")?,
            status: Decode::decode(input)?,
            sequence: input.u32()?,
        })
    }
}

impl Encode for ShareResult<'_> {
    fn encode(&self, out: &mut Encoder) {
        encode_opaque(out, self.cookie);
        self.status.encode(out);
        out.u32(self.sequence);
    }
}

/// `nlm4_notify`: the argument of FREE_ALL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FreeAll<'a> {
    /// The client that has restarted.
    pub caller: &'a [u8],
    /// Its new state number; unused by everybody.
    pub state: u32,
}

impl<'a> Decode<'a> for FreeAll<'a> {
    fn decode(input: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        Ok(FreeAll { caller: decode_opaque(input, "name of the caller", NAME_MAX)?, state: input.u32()? })
    }
}

impl Encode for FreeAll<'_> {
    fn encode(&self, out: &mut Encoder) {
        encode_opaque(out, self.caller);
        out.u32(self.state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock() -> Lock<'static> {
        Lock { caller: b"web1", file: &[7; 5], owner: b"9@web1", svid: 9, offset: 1 << 33, length: 2 }
    }

    fn arguments() -> LockArguments<'static> {
        LockArguments { cookie: b"co", block: true, exclusive: true, lock: lock(), reclaim: false, state: 3 }
    }

    const COOKIE: &[u8] = b"\0\0\0\x02co\0\0";
    const TRUE: &[u8] = b"\0\0\0\x01";
    const WHO: &[u8] = b"\0\0\0\x04web1\0\0\0\x05\x07\x07\x07\x07\x07\0\0\0\0\0\0\x069@web1\0\0\0\0\0\x09";

    #[test]
    fn procedures_are_numbered_as_in_the_rfc() {
        for procedure in Procedure::ALL {
            assert_eq!(Procedure::from_number(4, procedure as u32), Some(procedure));
        }
        assert_eq!(Procedure::from_number(4, 16), None, "SM_NOTIFY of Linux is for its own statd");
        assert_eq!(Procedure::from_number(1, 20), None);
        assert_eq!(Procedure::from_number(3, 23), Some(Procedure::FreeAll));
        assert_eq!(Procedure::from_number(4, 24), None);
    }

    #[test]
    fn arguments_have_the_bytes_of_the_rfc() {
        let wide = b"\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\x02";
        let narrow = b"\xff\xff\xff\xff\0\0\0\x02";
        for (form, head, tail) in [
            (Form::Lock, &[TRUE, TRUE][..], &b"\0\0\0\0\0\0\0\x03"[..]),
            (Form::Cancel, &[TRUE, TRUE], b""),
            (Form::Test, &[TRUE], b""),
            (Form::Unlock, &[], b""),
        ] {
            for (width, range) in [(Width::Bits64, &wide[..]), (Width::Bits32, &narrow[..])] {
                let mut out = Encoder::new();
                arguments().encode(form, width, &mut out);
                let expected = [COOKIE, &head.concat(), WHO, range, tail].concat();
                assert_eq!(out.as_slice(), expected, "{form:?} {width:?}");
                let back = LockArguments::decode(form, width, &mut Decoder::new(&expected)).unwrap();
                let has = |yes: bool| yes;
                assert_eq!(back.block, has(matches!(form, Form::Lock | Form::Cancel)));
                assert_eq!(back.exclusive, form != Form::Unlock);
                assert_eq!(back.state, if form == Form::Lock { 3 } else { 0 });
                let offset = if width == Width::Bits64 { 1 << 33 } else { u64::from(u32::MAX) };
                assert_eq!(back.lock, Lock { offset, ..lock() });
                let short = &expected[..expected.len() - 1];
                assert!(LockArguments::decode(form, width, &mut Decoder::new(short)).is_err());
            }
        }
    }

    #[test]
    fn results_have_the_bytes_of_the_rfc() {
        let mut out = Encoder::new();
        LockResult { cookie: b"co", status: Status::StaleHandle }.encode(&mut out);
        assert_eq!(out.as_slice(), [COOKIE, b"\0\0\0\x07"].concat());
        let holder = Holder { exclusive: true, svid: 9, owner: b"9@", offset: 5, length: 0 };
        let test = TestResult { cookie: b"co", status: Status::Denied, holder: Some(holder) };
        let mut out = Encoder::new();
        test.encode(4, &mut out);
        let holder = b"\0\0\0\x01\0\0\0\x01\0\0\0\x09\0\0\0\x029@\0\0\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\0";
        assert_eq!(out.as_slice(), [COOKIE, holder].concat());
        assert_eq!(TestResult::decode(Width::Bits64, &mut Decoder::new(out.as_slice())), Ok(test));
        let mut out = Encoder::new();
        ShareResult { cookie: b"co", status: Status::Granted, sequence: 0 }.encode(&mut out);
        assert_eq!(out.as_slice(), [COOKIE, &[0; 8]].concat());
    }

    #[test]
    fn shares_and_free_all_have_the_bytes_of_the_rfc() {
        let share = ShareArguments {
            cookie: b"co",
            caller: b"web1",
            file: &[7; 5],
            owner: b"9@web1",
            deny: 3,
            access: 2,
            reclaim: true,
        };
        let mut out = Encoder::new();
        share.encode(&mut out);
        let who = &WHO[..WHO.len() - 4];
        assert_eq!(out.as_slice(), [COOKIE, who, b"\0\0\0\x03\0\0\0\x02\0\0\0\x01"].concat());
        assert_eq!(ShareArguments::decode(&mut Decoder::new(out.as_slice())), Ok(share));
        let free = FreeAll { caller: b"web1", state: 5 };
        let mut out = Encoder::new();
        free.encode(&mut out);
        assert_eq!(out.as_slice(), b"\0\0\0\x04web1\0\0\0\x05");
        assert_eq!(FreeAll::decode(&mut Decoder::new(out.as_slice())), Ok(free));
    }

    #[test]
    fn lengths_and_values_are_bounded() {
        let mut long = 1025u32.to_be_bytes().to_vec();
        long.resize(2000, 7);
        let refused = LockArguments::decode(Form::Lock, Width::Bits64, &mut Decoder::new(&long));
        assert!(
            matches!(refused, Err(DecodeError::TooLong { what: "cookie", length: 1025, .. })),
            "{refused:?}"
        );
        assert!(FreeAll::decode(&mut Decoder::new(&long)).is_err());
        assert!(Status::decode(&mut Decoder::new(&[0, 0, 0, 10])).is_err());
        let mut out = Encoder::new();
        ShareArguments {
            cookie: b"",
            caller: b"",
            file: b"",
            owner: b"",
            deny: 4,
            access: 0,
            reclaim: false,
        }
        .encode(&mut out);
        assert!(ShareArguments::decode(&mut Decoder::new(out.as_slice())).is_err());
    }

    #[test]
    fn older_versions_have_fewer_words() {
        for status in Status::ALL {
            assert_eq!(status.in_version(4), status);
            assert!(status.in_version(3) as u32 <= Status::Deadlock as u32);
        }
        assert_eq!(Status::StaleHandle.in_version(1), Status::DeniedNoLocks);
    }
}
