//! The mounts that this process sees: /proc/self/mountinfo.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// A mount.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mount {
    /// Where.
    pub point: PathBuf,
    /// Of what kind of file system: "ext4".
    pub kind: String,
}

/// Every mount, in the order in which they were made.
pub fn table() -> io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// proc(5): `36 35 98:0 /root /point options optional... - kind source options`.
fn parse(table: &[u8]) -> Vec<Mount> {
    let mount = |line: &[u8]| {
        let mut fields = line.split(|&byte| byte == b' ');
        let point = PathBuf::from(OsString::from_vec(unescape(fields.nth(4)?)));
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
        Some(Mount { point, kind: String::from_utf8_lossy(kind).into_owned() })
    };
    table.split(|&byte| byte == b'\n').filter_map(mount).collect()
}

/// mountinfo writes space, tab, newline and backslash as octal.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = (byte == b'\\')
            .then(|| after.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(value) => {
                out.push(value);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read() {
        let text = b"36 35 98:0 /mnt1 /with\\040space rw,noatime shared:1 master:2 - ext4 /dev/root rw\n\
            37 35 0:5 / /plain rw - tmpfs tmpfs rw\nnonsense\n";
        let found = parse(text);
        let shown: Vec<(&str, &str)> =
            found.iter().map(|mount| (mount.point.to_str().unwrap(), mount.kind.as_str())).collect();
        assert_eq!(shown, [("/with space", "ext4"), ("/plain", "tmpfs")]);
        assert!(table().unwrap().iter().any(|mount| mount.point == std::path::Path::new("/proc")));
    }
}
