//! Which names a client may use (RFC 1813 section 3.2, "General comments on filenames").

use ehpc_proto::nfs3::nfsstat3;

/// Longest name in a directory.
pub(super) const NAME_MAX: usize = 255;

/// What the name is for: decides what "." and ".." mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// "." is the directory, ".." the one above.
    Lookup,
    /// Both exist already.
    Create,
    Remove,
    RemoveDirectory,
    Rename,
}

/// Refuses what is no name, with the RFC's status.
pub(super) fn check(name: &[u8], purpose: Purpose) -> Result<(), nfsstat3> {
    if name.is_empty() {
        return Err(nfsstat3::NFS3ERR_ACCES);
    }
    if name.len() > NAME_MAX {
        return Err(nfsstat3::NFS3ERR_NAMETOOLONG);
    }
    if name.iter().any(|byte| matches!(byte, b'/' | 0)) {
        return Err(nfsstat3::NFS3ERR_ACCES); // characters that cannot be handled: comment 5
    }
    let dot_dot = name == b"..";
    if name != b"." && !dot_dot {
        return Ok(());
    }
    match purpose {
        Purpose::Lookup => Ok(()),
        Purpose::Create => Err(nfsstat3::NFS3ERR_EXIST),
        Purpose::RemoveDirectory if dot_dot => Err(nfsstat3::NFS3ERR_EXIST),
        Purpose::Remove => Err(nfsstat3::NFS3ERR_ISDIR),
        Purpose::RemoveDirectory | Purpose::Rename => Err(nfsstat3::NFS3ERR_INVAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(name: &[u8], purpose: Purpose) -> u32 {
        match check(name, purpose) {
            Ok(()) => 0,
            Err(status) => status as u32,
        }
    }

    #[test]
    fn names_that_are_none() {
        for purpose in [Purpose::Lookup, Purpose::Create, Purpose::Remove, Purpose::RemoveDirectory] {
            assert_eq!(status(b"", purpose), 13);
            assert_eq!(status(b"a/b", purpose), 13);
            assert_eq!(status(b"/", purpose), 13);
            assert_eq!(status(b"a\0b", purpose), 13);
            assert_eq!(status(&[b'a'; 256], purpose), 63);
            assert_eq!(status(&[b'a'; 255], purpose), 0);
            assert_eq!(status(b"...", purpose), 0);
            assert_eq!(status(b"\xff\xfe", purpose), 0, "names are bytes");
        }
    }

    #[test]
    fn dot_and_dot_dot() {
        assert_eq!((status(b".", Purpose::Lookup), status(b"..", Purpose::Lookup)), (0, 0));
        assert_eq!((status(b".", Purpose::Create), status(b"..", Purpose::Create)), (17, 17));
        assert_eq!((status(b".", Purpose::Remove), status(b"..", Purpose::Remove)), (21, 21));
        let rmdir = Purpose::RemoveDirectory;
        assert_eq!((status(b".", rmdir), status(b"..", rmdir)), (22, 17));
        assert_eq!((status(b".", Purpose::Rename), status(b"..", Purpose::Rename)), (22, 22));
    }
}
