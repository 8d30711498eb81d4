//! POSIX.1e access control lists, and the kernel's form of them as extended attributes
//! (include/uapi/linux/posix_acl_xattr.h: a version, then (tag, permissions, id) each, little endian).

use crate::codec::DecodeError;

/// Most entries of one list that are taken from the network or a disk (NFS_ACL_MAX_ENTRIES of Linux).
pub const MAX_ENTRIES: usize = 1024;
/// The id of an entry that has none (ACL_UNDEFINED_ID).
pub const NO_ID: u32 = u32::MAX;

/// The one version of the attribute.
const VERSION: u32 = 2;

/// Whom an entry is about (acl_tag_t); in the order in which entries stand.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u16)]
pub enum Tag {
    /// The owner.
    UserObj = 0x01,
    /// One more user.
    User = 0x02,
    /// The owning group.
    GroupObj = 0x04,
    /// One more group.
    Group = 0x08,
    /// Most that all but owner and others get.
    Mask = 0x10,
    /// Everybody else.
    Other = 0x20,
}

impl Tag {
    /// The tag of this number.
    pub fn from_number(number: u32) -> Option<Tag> {
        [Tag::UserObj, Tag::User, Tag::GroupObj, Tag::Group, Tag::Mask, Tag::Other]
            .into_iter()
            .find(|tag| *tag as u32 == number)
    }

    /// Names a user or a group by its id.
    pub fn has_id(self) -> bool {
        matches!(self, Tag::User | Tag::Group)
    }
}

/// An entry; ordered by tag, then id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Entry {
    /// Whom it is about.
    pub tag: Tag,
    /// The user or group; [`NO_ID`] for the other tags.
    pub id: u32,
    /// r 4, w 2, x 1.
    pub permissions: u8,
}

/// A list. An empty one stands for "no list": the mode says all.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Acl(pub Vec<Entry>);

impl Acl {
    /// The list that says what a mode says: three entries (posix_acl_from_mode).
    pub fn from_mode(mode: u16) -> Acl {
        let entry = |tag, shift: u16| Entry { tag, id: NO_ID, permissions: (mode >> shift & 7) as u8 };
        Acl(vec![entry(Tag::UserObj, 6), entry(Tag::GroupObj, 3), entry(Tag::Other, 0)])
    }

    /// No entries.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first entry with this tag.
    pub fn find(&self, tag: Tag) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.tag == tag)
    }

    /// Says no more than a mode does.
    pub fn is_minimal(&self) -> bool {
        self.0.iter().all(|entry| matches!(entry.tag, Tag::UserObj | Tag::GroupObj | Tag::Other))
    }

    /// The nine permission bits of a mode that go with this list: the group's are the mask's if there is one.
    pub fn mode(&self) -> u16 {
        let of = |tag| self.find(tag).map_or(0, |entry| u16::from(entry.permissions));
        let group = if self.find(Tag::Mask).is_some() { of(Tag::Mask) } else { of(Tag::GroupObj) };
        of(Tag::UserObj) << 6 | group << 3 | of(Tag::Other)
    }

    /// Would the kernel take it (posix_acl_valid)? Sorted, each entry once, owner, group and others there,
    /// and a mask if anybody else is named.
    pub fn is_valid(&self) -> bool {
        let once = |tag| self.0.iter().filter(|entry| entry.tag == tag).count() == 1;
        let ordered = self.0.windows(2).all(|pair| match pair {
            [a, b] => (a.tag, a.id) < (b.tag, b.id),
            _ => true,
        });
        let ids = self.0.iter().all(|entry| entry.tag.has_id() == (entry.id != NO_ID));
        let permissions = self.0.iter().all(|entry| entry.permissions <= 7);
        let masked = self.0.iter().all(|entry| !entry.tag.has_id()) || once(Tag::Mask);
        ordered
            && ids
            && permissions
            && masked
            && [Tag::UserObj, Tag::GroupObj, Tag::Other].into_iter().all(once)
    }

    /// From the attribute's value.
    pub fn decode(value: &[u8]) -> Result<Acl, DecodeError> {
        let Some((version, rest)) = value.split_first_chunk::<4>() else {
            return Err(DecodeError::Short { needed: 4, left: value.len() });
        };
        let version = u32::from_le_bytes(*version);
        if version != VERSION {
            return Err(DecodeError::Invalid { what: "POSIX ACL version", value: u64::from(version) });
        }
        let (entries, rest) = rest.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(DecodeError::Short { needed: 8, left: rest.len() });
        }
        if entries.len() > MAX_ENTRIES {
            let (length, limit) = (entries.len() as u64, MAX_ENTRIES as u64);
            return Err(DecodeError::TooLong { what: "POSIX ACL", length, limit });
        }
        let entry = |&[t0, t1, p0, p1, id @ ..]: &[u8; 8]| {
            let tag = u16::from_le_bytes([t0, t1]);
            let permissions = u16::from_le_bytes([p0, p1]);
            let tag = Tag::from_number(u32::from(tag))
                .ok_or(DecodeError::Invalid { what: "POSIX ACL tag", value: u64::from(tag) })?;
            if permissions > 7 {
                return Err(DecodeError::Invalid {
                    what: "POSIX ACL permissions",
                    value: u64::from(permissions),
                });
            }
            // Other tags' ids mean nothing; some writers leave a zero there.
            let id = if tag.has_id() { u32::from_le_bytes(id) } else { NO_ID };
            Ok(Entry { tag, id, permissions: permissions as u8 })
        };
        Ok(Acl(entries.iter().map(entry).collect::<Result<_, _>>()?))
    }

    /// The attribute's value.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4 + 8 * self.0.len());
        out.extend_from_slice(&VERSION.to_le_bytes());
        for entry in &self.0 {
            out.extend_from_slice(&(entry.tag as u16).to_le_bytes());
            out.extend_from_slice(&u16::from(entry.permissions).to_le_bytes());
            out.extend_from_slice(&entry.id.to_le_bytes());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(tag: Tag, id: u32, permissions: u8) -> Entry {
        Entry { tag, id, permissions }
    }

    fn extended() -> Acl {
        Acl(vec![
            entry(Tag::UserObj, NO_ID, 7),
            entry(Tag::User, 1, 4),
            entry(Tag::GroupObj, NO_ID, 5),
            entry(Tag::Mask, NO_ID, 7),
            entry(Tag::Other, NO_ID, 4),
        ])
    }

    #[test]
    fn the_kernels_own_bytes() {
        let bytes: &[u8] =
            b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x02\0\x04\0\x01\0\0\0\x04\0\x05\0\xff\xff\xff\xff\
            \x10\0\x07\0\xff\xff\xff\xff\x20\0\x04\0\xff\xff\xff\xff";
        assert_eq!(Acl::decode(bytes), Ok(extended()));
        assert_eq!(extended().encode(), bytes);
        for cut in 1..bytes.len() {
            if cut % 8 != 4 {
                assert!(Acl::decode(&bytes[..cut]).is_err(), "{cut}");
            }
        }
    }

    #[test]
    fn modes_and_lists() {
        assert_eq!(Acl::from_mode(0o100_754).mode(), 0o754);
        assert!(Acl::from_mode(0o640).is_minimal() && Acl::from_mode(0o640).is_valid());
        assert_eq!(extended().mode(), 0o774, "the mask stands for the group");
        assert!(!extended().is_minimal());
    }

    #[test]
    fn what_the_kernel_refuses_is_not_valid() {
        assert!(extended().is_valid());
        let without = |at: usize| {
            let mut acl = extended();
            acl.0.remove(at);
            acl
        };
        for (at, valid) in [(0, false), (1, true), (2, false), (3, false), (4, false)] {
            assert_eq!(without(at).is_valid(), valid, "without entry {at}");
        }
        let mut twice = extended();
        twice.0.insert(1, entry(Tag::User, 1, 7));
        assert!(!twice.is_valid());
        let mut unsorted = extended();
        unsorted.0.swap(1, 2);
        assert!(!unsorted.is_valid());
        assert!(!Acl::default().is_valid());
    }

    #[test]
    fn lists_are_bounded() {
        let many = Acl(vec![entry(Tag::User, 1, 4); MAX_ENTRIES + 1]).encode();
        assert!(matches!(Acl::decode(&many), Err(DecodeError::TooLong { length: 1025, .. })));
    }
}
