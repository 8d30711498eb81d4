//! The NFSACL side protocol, version 3 (nfs_acl.x of Solaris; linux/fs/nfs_common/nfsacl.c): POSIX ACLs
//! beside NFSv3, on the same port.

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::nfs3::{Reply, nfs_fh3, post_op_attr};
use crate::posix_acl::{Acl, Entry, MAX_ENTRIES, NO_ID, Tag};
use crate::xdr::{Decode, Encode, xdr_struct};

/// Program number (NFS_ACL_PROGRAM).
pub const PROGRAM: u32 = 100_227;
/// The one version that is served; version 2 goes with NFSv2.
pub const VERSION: u32 = 3;

/// Bits of a `secattr`'s mask: what is asked for, told or set.
pub mod mask {
    /// The entries of the access ACL.
    pub const ACL: u32 = 0x1;
    /// Their number.
    pub const ACL_COUNT: u32 = 0x2;
    /// The entries of a directory's default ACL.
    pub const DEFAULT: u32 = 0x4;
    /// Their number.
    pub const DEFAULT_COUNT: u32 = 0x8;
    /// Every bit that is defined.
    pub const ALL: u32 = 0xf;
}

/// Marks the tag of a default ACL's entry (NFS_ACL_DEFAULT).
pub const DEFAULT_ENTRY: u32 = 0x1000;
/// Most bytes of two lists with their counts.
pub const MAX_LISTS: usize = 2 * (8 + 12 * MAX_ENTRIES);

/// Procedures.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum Procedure {
    Null = 0,
    Getacl = 1,
    Setacl = 2,
}

impl Procedure {
    /// Every procedure, by number.
    pub const ALL: [Procedure; 3] = [Procedure::Null, Procedure::Getacl, Procedure::Setacl];

    /// The procedure of this number.
    pub fn from_number(number: u32) -> Option<Procedure> {
        Procedure::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// Lower case.
    pub fn name(self) -> &'static str {
        ["null", "getacl", "setacl"][self as usize]
    }
}

xdr_struct! {
    /// An entry as it travels (aclent).
    #[derive(Copy, PartialEq, Eq)]
    ListEntry {
        /// [`Tag`], with [`DEFAULT_ENTRY`] in a default ACL.
        tag: u32,
        /// User or group; the owner's for the owner's entry; 0 for mask and others.
        id: u32,
        /// r 4, w 2, x 1.
        permissions: u32,
    }
}

/// A list as it travels: its number of entries, and the entries unless only the number was asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct List {
    /// Entries that the list has.
    pub count: u32,
    /// The entries: all of them, or none.
    pub entries: Vec<ListEntry>,
}

impl List {
    /// How an ACL travels: at least four entries, because Solaris knows no list without a mask, and with the
    /// ids of owner and group. `None` or an empty one is a list without entries. More than [`MAX_ENTRIES`]
    /// cannot travel.
    pub fn from_posix(
        acl: Option<&Acl>,
        owner: (u32, u32),
        default: bool,
        with_entries: bool,
    ) -> Option<List> {
        let Some(acl) = acl.filter(|acl| !acl.is_empty()) else { return Some(List::default()) };
        let flag = if default { DEFAULT_ENTRY } else { 0 };
        let wire = |entry: &Entry| ListEntry {
            tag: entry.tag as u32 | flag,
            id: match entry.tag {
                Tag::UserObj => owner.0,
                Tag::GroupObj => owner.1,
                Tag::User | Tag::Group => entry.id,
                Tag::Mask | Tag::Other => 0,
            },
            permissions: u32::from(entry.permissions),
        };
        let mut entries: Vec<ListEntry> = acl.0.iter().map(wire).collect();
        if acl.is_minimal()
            && let Some(at) = acl.0.iter().position(|entry| entry.tag == Tag::GroupObj)
            && let Some(group) = acl.0.get(at)
        {
            entries.insert(at + 1, wire(&Entry { tag: Tag::Mask, ..*group }));
        }
        let count = u32::try_from(entries.len()).ok().filter(|&count| count as usize <= MAX_ENTRIES)?;
        if !with_entries {
            entries.clear();
        }
        Some(List { count, entries })
    }

    /// The ACL that is meant: sorted, and without the mask that says what the group's entry says.
    pub fn to_posix(&self) -> Result<Acl, DecodeError> {
        if self.count as usize != self.entries.len() {
            return Err(DecodeError::Invalid { what: "number of ACL entries", value: u64::from(self.count) });
        }
        let mut entries = self.entries.iter().map(from_wire).collect::<Result<Vec<Entry>, _>>()?;
        entries.sort();
        let find = |tag| entries.iter().position(|entry| entry.tag == tag);
        if let [_, _, _, _] = entries[..]
            && let (Some(group), Some(mask)) = (find(Tag::GroupObj), find(Tag::Mask))
            && entries.get(group).map(|entry| entry.permissions)
                == entries.get(mask).map(|entry| entry.permissions)
        {
            entries.remove(mask);
        }
        Ok(Acl(entries))
    }
}

fn from_wire(entry: &ListEntry) -> Result<Entry, DecodeError> {
    let tag = entry.tag & !DEFAULT_ENTRY;
    let tag = Tag::from_number(tag).ok_or(DecodeError::Invalid { what: "ACL tag", value: u64::from(tag) })?;
    // Solaris sets more bits in masks.
    let permissions = if tag == Tag::Mask { entry.permissions & 7 } else { entry.permissions };
    let permissions = u8::try_from(permissions)
        .ok()
        .filter(|&bits| bits <= 7)
        .ok_or(DecodeError::Invalid { what: "ACL permissions", value: u64::from(permissions) })?;
    if tag.has_id() && entry.id == NO_ID {
        return Err(DecodeError::Invalid { what: "id in an ACL", value: u64::from(entry.id) });
    }
    Ok(Entry { tag, id: if tag.has_id() { entry.id } else { NO_ID }, permissions })
}

impl Encode for List {
    fn encode(&self, out: &mut Encoder) {
        out.u32(self.count);
        out.u32(self.entries.len() as u32);
        self.entries.iter().for_each(|entry| entry.encode(out));
    }
}

impl<'a> Decode<'a> for List {
    fn decode(input: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        let count = input.length("ACL", MAX_ENTRIES)? as u32;
        let length = input.length("ACL", MAX_ENTRIES)?;
        // Before anything is allocated: are they there?
        if input.rest().len() < 12 * length {
            return Err(DecodeError::Short { needed: 12 * length, left: input.rest().len() });
        }
        let entries = (0..length).map(|_| ListEntry::decode(input)).collect::<Result<_, _>>()?;
        Ok(List { count, entries })
    }
}

xdr_struct! {
    /// Both lists (secattr).
    #[derive(PartialEq, Eq)]
    SecAttr {
        /// Which of them mean something: [`mask`].
        mask: u32,
        /// The access ACL.
        access: List,
        /// The default ACL of a directory.
        default: List,
    }
}

xdr_struct! {
    /// Arguments of GETACL.
    GetaclArgs {
        /// Of what.
        object: nfs_fh3,
        /// What is asked for: [`mask`].
        mask: u32,
    }
}

xdr_struct! {
    /// Arguments of SETACL.
    SetaclArgs {
        /// Of what.
        object: nfs_fh3,
        /// What is set; a list without entries removes the ACL.
        acls: SecAttr,
    }
}

xdr_struct! {
    /// GETACL answered.
    GetaclOk {
        /// The object's attributes.
        attributes: post_op_attr,
        /// What was asked for.
        acls: SecAttr,
    }
}

/// The result of GETACL.
pub type Getacl = Reply<GetaclOk, post_op_attr>;
/// The result of SETACL.
pub type Setacl = Reply<post_op_attr, post_op_attr>;

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(tag: Tag, id: u32, permissions: u8) -> Entry {
        Entry { tag, id, permissions }
    }

    fn encoded(value: &impl Encode) -> Vec<u8> {
        let mut out = Encoder::new();
        value.encode(&mut out);
        out.finish()
    }

    #[test]
    fn a_minimal_acl_travels_with_a_mask_and_comes_back_without() {
        let acl = Acl::from_mode(0o640);
        let list = List::from_posix(Some(&acl), (33, 44), false, true).unwrap();
        let wire = |tag, id, permissions| ListEntry { tag, id, permissions };
        assert_eq!(list.count, 4);
        assert_eq!(list.entries, [wire(1, 33, 6), wire(4, 44, 4), wire(0x10, 0, 4), wire(0x20, 0, 0)]);
        assert_eq!(list.to_posix(), Ok(acl));
    }

    #[test]
    fn an_extended_acl_is_sorted_and_keeps_its_mask() {
        let acl = Acl(vec![
            entry(Tag::UserObj, NO_ID, 7),
            entry(Tag::User, 7, 6),
            entry(Tag::User, 70, 4),
            entry(Tag::GroupObj, NO_ID, 5),
            entry(Tag::Mask, NO_ID, 5),
            entry(Tag::Other, NO_ID, 0),
        ]);
        let mut list = List::from_posix(Some(&acl), (1, 2), true, true).unwrap();
        assert!(list.entries.iter().all(|entry| entry.tag & DEFAULT_ENTRY != 0));
        list.entries.reverse();
        assert_eq!(list.to_posix(), Ok(acl.clone()));
        // Four entries, but the mask says something of its own.
        let mut four = List::from_posix(Some(&Acl::from_mode(0o770)), (1, 2), false, true).unwrap();
        four.entries[2].permissions = 0o7775;
        let kept = four.to_posix().unwrap();
        assert_eq!(kept.find(Tag::Mask), Some(&entry(Tag::Mask, NO_ID, 5)));
        let counted = List::from_posix(Some(&acl), (1, 2), false, false).unwrap();
        assert_eq!((counted.count, counted.entries.len()), (6, 0));
        assert_eq!(List::from_posix(None, (1, 2), true, true), Some(List::default()));
    }

    #[test]
    fn malformed_lists_are_refused() {
        let one = |tag, id, permissions| List { count: 1, entries: vec![ListEntry { tag, id, permissions }] };
        for bad in [one(3, 0, 7), one(0x40, 0, 7), one(1, 0, 8), one(2, NO_ID, 7), one(0x20, 0, 0o10)] {
            assert!(bad.to_posix().is_err(), "{bad:?}");
        }
        assert!(one(2, 5, 7).to_posix().is_ok());
        assert!(List { count: 2, ..one(2, 5, 7) }.to_posix().is_err());
        let too_many = [(MAX_ENTRIES as u32 + 1).to_be_bytes(), 0u32.to_be_bytes()].concat();
        assert!(matches!(List::decode(&mut Decoder::new(&too_many)), Err(DecodeError::TooLong { .. })));
        let claims = [1024u32.to_be_bytes(), 1024u32.to_be_bytes()].concat();
        assert_eq!(
            List::decode(&mut Decoder::new(&claims)),
            Err(DecodeError::Short { needed: 12 * 1024, left: 0 })
        );
        let big = Acl(vec![entry(Tag::User, 1, 4); MAX_ENTRIES + 1]);
        assert_eq!(List::from_posix(Some(&big), (0, 0), false, true), None);
    }

    #[test]
    fn everything_round_trips() {
        let list = List::from_posix(Some(&Acl::from_mode(0o755)), (0, 0), false, true).unwrap();
        let acls = SecAttr { mask: mask::ALL, access: list, default: List::default() };
        let args = SetaclArgs { object: nfs_fh3 { data: vec![1, 2, 3, 4] }, acls: acls.clone() };
        let bytes = encoded(&args);
        assert_eq!(bytes.len(), 8 + 4 + (8 + 4 * 12) + 8);
        let again = SetaclArgs::decode(&mut Decoder::new(&bytes)).unwrap();
        assert_eq!(again.acls, acls);
        for (number, procedure) in (0u32..).zip(Procedure::ALL) {
            assert_eq!(Procedure::from_number(number), Some(procedure));
        }
        assert_eq!(Procedure::from_number(3), None);
        assert_eq!(Procedure::Setacl.name(), "setacl");
    }
}
