//! The Network Status Monitor, program 100024 version 1 (The Open Group, XNFS version 3W, chapter 11): who is told
//! that a host has restarted.

use crate::xdr::{Opaque, xdr_struct};

/// Program number.
pub const PROGRAM: u32 = 100_024;
/// The one version.
pub const VERSION: u32 = 1;
/// Longest host name (SM_MAXSTRLEN).
pub const NAME_MAX: usize = 1024;

/// A host's name.
pub type Name<'a> = Opaque<'a, NAME_MAX>;

/// Procedures.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum Procedure {
    Null = 0,
    Stat = 1,
    Mon = 2,
    Unmon = 3,
    UnmonAll = 4,
    SimuCrash = 5,
    Notify = 6,
}

impl Procedure {
    /// Every procedure, by number.
    pub const ALL: [Procedure; 7] = [
        Procedure::Null,
        Procedure::Stat,
        Procedure::Mon,
        Procedure::Unmon,
        Procedure::UnmonAll,
        Procedure::SimuCrash,
        Procedure::Notify,
    ];

    /// The procedure of this number.
    pub fn from_number(number: u32) -> Option<Procedure> {
        Procedure::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// Lower case.
    pub fn name(self) -> &'static str {
        ["null", "stat", "mon", "unmon", "unmon_all", "simu_crash", "notify"][self as usize]
    }
}

xdr_struct! {
    /// `my_id`: whom to call when a monitored host has restarted.
    #[derive(PartialEq, Eq)]
    MyId<'a> {
        /// The host that asks.
        name: Name<'a>,
        /// Program to call there.
        program: u32,
        /// Its version.
        version: u32,
        /// Its procedure.
        procedure: u32,
    }
}

xdr_struct! {
    /// `mon_id`: a host to be monitored, and for whom. The argument of UNMON.
    #[derive(PartialEq, Eq)]
    MonId<'a> {
        /// The host that is monitored.
        name: Name<'a>,
        /// Whom to call.
        me: MyId<'a>,
    }
}

xdr_struct! {
    /// The argument of MON.
    #[derive(PartialEq, Eq)]
    Mon<'a> {
        /// Whom to monitor.
        id: MonId<'a>,
        /// Given back in the call.
        private: [u8; 16],
    }
}

xdr_struct! {
    /// `sm_stat_res`: the result of STAT and MON.
    #[derive(Copy, PartialEq, Eq)]
    StatResult {
        /// 0: agrees to monitor, 1: does not.
        refused: bool,
        /// State number of this host: odd while it is up.
        state: u32,
    }
}

xdr_struct! {
    /// `stat_chge`: the argument of NOTIFY.
    #[derive(PartialEq, Eq)]
    Notify<'a> {
        /// The host that has restarted.
        name: Name<'a>,
        /// Its new state number.
        state: u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{DecodeError, Decoder, Encoder};
    use crate::xdr::{Decode, Encode};

    fn encoded(value: &impl Encode) -> Vec<u8> {
        let mut out = Encoder::new();
        value.encode(&mut out);
        out.finish()
    }

    #[test]
    fn numbers_and_names_of_procedures() {
        for (number, procedure) in (0u32..).zip(Procedure::ALL) {
            assert_eq!(procedure as u32, number);
            assert_eq!(Procedure::from_number(number), Some(procedure));
        }
        assert_eq!(Procedure::from_number(7), None);
        assert_eq!(Procedure::Notify.name(), "notify");
    }

    #[test]
    fn messages_have_the_bytes_of_the_specification() {
        let notify = Notify { name: Opaque(b"web1"), state: 5 };
        let bytes = encoded(&notify);
        assert_eq!(bytes, b"\0\0\0\x04web1\0\0\0\x05");
        assert_eq!(Notify::decode(&mut Decoder::new(&bytes)), Ok(notify));
        let me = MyId { name: Opaque(b"me"), program: 100_021, version: 4, procedure: 16 };
        let mon = Mon { id: MonId { name: Opaque(b"web1"), me }, private: *b"0123456789abcdef" };
        let bytes = encoded(&mon);
        assert_eq!(
            bytes,
            b"\0\0\0\x04web1\0\0\0\x02me\0\0\0\x01\x86\xb5\0\0\0\x04\0\0\0\x100123456789abcdef"
        );
        assert_eq!(Mon::decode(&mut Decoder::new(&bytes)), Ok(mon));
        assert_eq!(encoded(&StatResult { refused: true, state: 3 }), [0, 0, 0, 1, 0, 0, 0, 3]);
    }

    #[test]
    fn a_name_over_its_limit_is_refused() {
        let mut bytes = 1025u32.to_be_bytes().to_vec();
        bytes.resize(1100, b'a');
        assert!(matches!(
            Notify::decode(&mut Decoder::new(&bytes)),
            Err(DecodeError::TooLong { length: 1025, limit: 1024, .. })
        ));
    }
}
