//! The options of exports(5): one table from which they are read and told.

use super::{Fsid, MountPoint, Options, Squash};
use crate::settings::problem::nearest;
use std::path::PathBuf;

/// What is wrong with an option: what, what was expected, what to do.
pub(super) struct Wrong {
    pub(super) what: String,
    pub(super) expected: String,
    pub(super) next: String,
}

type Apply = fn(&mut Options, &str) -> Result<(), &'static str>;

/// Does an option have a value?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Value {
    Never,
    May,
    Must,
}

/// Name, whether it has a value, and what it does. What is meant for NFSv4 or for the kernel's own server and is
/// true here in any case is accepted and does nothing.
const OPTIONS: &[(&str, Value, Apply)] = &[
    ("ro", Value::Never, |options, _| set(&mut options.read_only, true)),
    ("rw", Value::Never, |options, _| set(&mut options.read_only, false)),
    ("sync", Value::Never, |options, _| set(&mut options.sync, true)),
    ("async", Value::Never, |options, _| set(&mut options.sync, false)),
    // Writes that come together share one flush in any case, and a write that comes alone waits for none.
    ("wdelay", Value::Never, |_, _| Ok(())),
    ("no_wdelay", Value::Never, |_, _| Ok(())),
    ("secure", Value::Never, |options, _| set(&mut options.secure, true)),
    ("insecure", Value::Never, |options, _| set(&mut options.secure, false)),
    ("hide", Value::Never, |options, _| set(&mut options.hide, true)),
    ("nohide", Value::Never, |options, _| set(&mut options.hide, false)),
    ("crossmnt", Value::Never, |options, _| set(&mut options.crossmnt, true)),
    ("nocrossmnt", Value::Never, |options, _| set(&mut options.crossmnt, false)),
    ("subtree_check", Value::Never, |options, _| set(&mut options.subtree_check, true)),
    ("no_subtree_check", Value::Never, |options, _| set(&mut options.subtree_check, false)),
    ("auth_nlm", Value::Never, |options, _| set(&mut options.auth_nlm, true)),
    ("no_auth_nlm", Value::Never, |options, _| set(&mut options.auth_nlm, false)),
    ("secure_locks", Value::Never, |options, _| set(&mut options.auth_nlm, true)),
    ("insecure_locks", Value::Never, |options, _| set(&mut options.auth_nlm, false)),
    ("acl", Value::Never, |options, _| set(&mut options.acl, true)),
    ("no_acl", Value::Never, |options, _| set(&mut options.acl, false)),
    ("nordirplus", Value::Never, |options, _| set(&mut options.readdirplus, false)),
    ("root_squash", Value::Never, |options, _| set(&mut options.squash, Squash::Root)),
    ("no_root_squash", Value::Never, |options, _| set(&mut options.squash, Squash::Nobody)),
    ("all_squash", Value::Never, |options, _| set(&mut options.squash, Squash::Everybody)),
    ("no_all_squash", Value::Never, |options, _| {
        let less = if options.squash == Squash::Everybody { Squash::Root } else { options.squash };
        set(&mut options.squash, less)
    }),
    ("anonuid", Value::Must, |options, value| set(&mut options.anonuid, id(value)?)),
    ("anongid", Value::Must, |options, value| set(&mut options.anongid, id(value)?)),
    ("fsid", Value::Must, |options, value| set(&mut options.fsid, Some(fsid(value)?))),
    ("mountpoint", Value::May, mount_point),
    ("mp", Value::May, mount_point),
    ("sec", Value::Must, |_, value| match value {
        "sys" | "unix" => Ok(()),
        "none" | "null" => Err("sec=sys; to treat everybody as anonymous, say all_squash"),
        _ => Err("sec=sys: there is no Kerberos here"),
    }),
    ("no_pnfs", Value::Never, |_, _| Ok(())),
];

/// Known elsewhere, not here, and what to do about it.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("pnfs", "remove it: NFSv3 has no layouts"),
    ("refer", "remove it: NFSv3 has no referrals; let clients mount the other server themselves"),
    ("replicas", "remove it: NFSv3 has no replica lists; the backup node is the replica here"),
    ("fslocations", "remove it: NFSv3 has no referrals"),
    ("xprtsec", "remove it: there is no RPC-with-TLS here; protect the network, by WireGuard for example"),
    ("security_label", "remove it: labels are of NFSv4.2"),
    ("reexport", "remove it: an NFS mount is not exported again here"),
    ("squash_uids", "use anonuid with all_squash"),
    ("squash_gids", "use anongid with all_squash"),
    ("map_static", "remove it: ids are the same on both sides"),
    ("map_daemon", "remove it: ids are the same on both sides"),
    ("map_identity", "remove it: ids are the same on both sides in any case"),
    ("noaccess", "move what is not to be exported out of the exported directory"),
    ("link_relative", "remove it: symbolic links are shown as they are"),
    ("link_absolute", "remove it: symbolic links are shown as they are in any case"),
];

fn set<T>(place: &mut T, value: T) -> Result<(), &'static str> {
    *place = value;
    Ok(())
}

fn mount_point(options: &mut Options, value: &str) -> Result<(), &'static str> {
    let path = PathBuf::from(value);
    options.mount_point = Some(match value {
        "" => MountPoint::Itself,
        _ if path.is_absolute() => MountPoint::At(path),
        _ => return Err("a path that starts at the root"),
    });
    Ok(())
}

fn id(value: &str) -> Result<u32, &'static str> {
    match value.parse() {
        Ok(u32::MAX) | Err(_) => Err("a number from 0 to 4294967294; nobody is 65534"),
        Ok(id) => Ok(id),
    }
}

fn fsid(value: &str) -> Result<Fsid, &'static str> {
    if value == "root" {
        return Ok(Fsid::Number(0));
    }
    if let Ok(number) = value.parse() {
        return Ok(Fsid::Number(number));
    }
    let digits: Vec<u8> = value.bytes().filter(|byte| !matches!(byte, b'-' | b':' | b'.')).collect();
    let hex = std::str::from_utf8(&digits).ok().filter(|hex| hex.bytes().all(|c| c.is_ascii_hexdigit()));
    match hex.filter(|hex| hex.len() == 32).and_then(|hex| u128::from_str_radix(hex, 16).ok()) {
        Some(uuid) => Ok(Fsid::Uuid(uuid.to_be_bytes())),
        None => Err("a number up to 4294967295, `root`, or a UUID of 32 hexadecimal digits"),
    }
}

/// Applies one option as it is written: `rw`, `anonuid=33`.
pub(super) fn apply(options: &mut Options, written: &str) -> Result<(), Wrong> {
    let (name, value) = match written.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (written, None),
    };
    let wrong = |what: String, expected: &str, next: &str| {
        Err(Wrong { what, expected: expected.to_owned(), next: next.to_owned() })
    };
    let Some((_, takes, act)) = OPTIONS.iter().find(|(known, ..)| *known == name) else {
        return Err(unknown(name));
    };
    match (takes, value) {
        (Value::Never, Some(_)) => {
            wrong(format!("`{written}`: {name} takes no value"), name, &format!("write `{name}`"))
        }
        (Value::Must, None | Some("")) => {
            wrong(format!("`{written}` has no value"), &format!("{name}=VALUE"), "")
        }
        _ => act(options, value.unwrap_or_default())
            .or_else(|expected| wrong(format!("`{}` cannot be had", written.escape_debug()), expected, "")),
    }
}

fn unknown(name: &str) -> Wrong {
    if let Some((_, next)) = UNSUPPORTED.iter().find(|(known, _)| *known == name) {
        return Wrong {
            what: format!("the option `{name}` is not supported"),
            expected: String::new(),
            next: (*next).to_owned(),
        };
    }
    let names = OPTIONS.iter().map(|(name, ..)| *name);
    Wrong {
        what: format!("unknown option `{}`", name.escape_debug()),
        expected: "an option of exports(5)".to_owned(),
        next: match nearest(name, names) {
            Some(near) => format!("write `{near}`"),
            None => "remove it".to_owned(),
        },
    }
}

impl Options {
    /// As exports(5) writes them, in a fixed order: what `status` shows.
    pub fn words(&self) -> Vec<String> {
        let either = |yes: bool, a: &str, b: &str| if yes { a.to_owned() } else { b.to_owned() };
        let mut words = vec![
            either(self.read_only, "ro", "rw"),
            either(self.sync, "sync", "async"),
            either(self.secure, "secure", "insecure"),
        ];
        words.push(match self.squash {
            Squash::Nobody => "no_root_squash".to_owned(),
            Squash::Root => "root_squash".to_owned(),
            Squash::Everybody => "all_squash".to_owned(),
        });
        let defaults = Options::default();
        let mut unusual = |differs: bool, word: String| {
            if differs {
                words.push(word);
            }
        };
        unusual(!self.hide, "nohide".to_owned());
        unusual(self.crossmnt, "crossmnt".to_owned());
        unusual(self.subtree_check, "subtree_check".to_owned());
        unusual(!self.auth_nlm, "no_auth_nlm".to_owned());
        unusual(!self.acl, "no_acl".to_owned());
        unusual(!self.readdirplus, "nordirplus".to_owned());
        unusual(self.anonuid != defaults.anonuid, format!("anonuid={}", self.anonuid));
        unusual(self.anongid != defaults.anongid, format!("anongid={}", self.anongid));
        if let Some(fsid) = &self.fsid {
            words.push(format!("fsid={fsid}"));
        }
        match &self.mount_point {
            Some(MountPoint::Itself) => words.push("mountpoint".to_owned()),
            Some(MountPoint::At(path)) => words.push(format!("mountpoint={}", path.display())),
            None => {}
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(list: &str) -> Options {
        let mut options = Options::default();
        for word in list.split(',').filter(|word| !word.is_empty()) {
            apply(&mut options, word).unwrap_or_else(|wrong| panic!("{word}: {}", wrong.what));
        }
        options
    }

    #[test]
    fn what_is_written_is_read_back() {
        let usual = "ro,sync,secure,root_squash";
        assert_eq!(read("").words().join(","), usual);
        for list in [
            "rw,async,insecure,no_root_squash",
            "rw,sync,secure,all_squash,anonuid=33,anongid=34",
            "ro,sync,secure,root_squash,nohide,crossmnt,subtree_check,no_auth_nlm,no_acl,nordirplus",
            "ro,sync,secure,root_squash,fsid=7,mountpoint",
            "ro,sync,secure,root_squash,fsid=01020304-0506-0708-090a-0b0c0d0e0f10,mountpoint=/a b",
        ] {
            assert_eq!(read(list).words().join(","), list);
            // The last word counts: every option has its opposite.
            let opposites = "ro,sync,secure,root_squash,hide,nocrossmnt,no_subtree_check,auth_nlm,acl";
            let mut back = read(&format!("{list},{opposites},no_wdelay,wdelay,sec=sys,no_pnfs"));
            back = Options { anonuid: 65_534, anongid: 65_534, fsid: None, mount_point: None, ..back };
            assert_eq!(Options { readdirplus: true, ..back }, Options::default(), "{list}");
        }
        assert_eq!(read("fsid=root").fsid, Some(Fsid::Number(0)));
        assert!(!read("secure_locks,insecure_locks").auth_nlm);
        assert!(read("insecure_locks,secure_locks").auth_nlm);
        assert_eq!(read("all_squash,no_all_squash").squash, Squash::Root);
        assert_eq!(read("no_root_squash,no_all_squash").squash, Squash::Nobody);
        assert_eq!(read("mp=/x").mount_point, Some(MountPoint::At("/x".into())));
    }

    #[test]
    fn what_cannot_be_had_is_refused_with_what_to_do() {
        let wrong = |word: &str| {
            let error =
                apply(&mut Options::default(), word).err().unwrap_or_else(|| panic!("{word} is taken"));
            format!("{}|{}|{}", error.what, error.expected, error.next)
        };
        assert_eq!(wrong("sec=krb5p"), "`sec=krb5p` cannot be had|sec=sys: there is no Kerberos here|");
        assert_eq!(wrong("sec=sys:krb5"), "`sec=sys:krb5` cannot be had|sec=sys: there is no Kerberos here|");
        assert!(wrong("sec=none").contains("all_squash"));
        assert_eq!(wrong("pnfs"), "the option `pnfs` is not supported||remove it: NFSv3 has no layouts");
        for (name, _) in UNSUPPORTED {
            assert!(wrong(name).contains("is not supported"), "{name}");
            assert!(wrong(&format!("{name}=/x@host")).contains("is not supported"), "{name}");
        }
        assert_eq!(
            wrong("rootsquash"),
            "unknown option `rootsquash`|an option of exports(5)|write `root_squash`"
        );
        assert!(wrong("RW").starts_with("unknown option"));
        assert_eq!(wrong("rw=1"), "`rw=1`: rw takes no value|rw|write `rw`");
        for bad in [
            "anonuid",
            "anonuid=",
            "anonuid=-1",
            "anonuid=4294967295",
            "anonuid=x",
            "fsid=",
            "fsid=4294967296",
            "fsid=12345678-1234",
            "mp=relative",
            "",
            "=",
        ] {
            wrong(bad);
        }
    }
}
