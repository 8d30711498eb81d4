//! pjdfstest over the mount: POSIX as far as NFSv3 can carry it.

use super::{Cluster, Guest, Lan, mounted, tool};
use crate::scratch;

/// What NFSv3 makes impossible, with the reason. pjdfstest fails a run in which one of them passes.
const UNAVOIDABLE: &[(&str, &str)] = &[
    (
        "unlink::open_file_not_freed",
        "NFSv3 has no open files: the client keeps one that is unlinked by renaming it (.nfs...), so its link count \
         stays 1",
    ),
    ("utimensat::y2038", "nfstime3 has 32 bits of seconds (RFC 1813 section 2.5)"),
];

/// What pjdfstest itself cannot run here.
const SKIPPED: &[(&str, &str)] = &[(
    "link::link_count_max",
    "the Linux client has no way to ask an application's pathconf(_PC_LINK_MAX) of the server",
)];

/// tmpfs as the second file system; every feature that Linux has.
fn configuration(remount: bool) -> String {
    let names: Vec<String> = UNAVOIDABLE.iter().map(|(name, _)| format!("{name:?}")).collect();
    format!(
        "[features]\nposix_fallocate = {{}}\nrename_ctime = {{}}\nutime_now = {{}}\nutimensat = {{}}\n\
         [settings]\nnaptime = 0.02\nallow_remount = {remount}\nexpected_failures = [{}]\n\
         [dummy_auth]\nentries = [[\"nobody\", \"nobody\"], [\"tests\", \"tests\"]]\n",
        names.join(", ")
    )
}

/// Names of the cases that ended with `result`.
fn cases<'a>(output: &'a str, result: &str) -> Vec<&'a str> {
    output
        .lines()
        .filter_map(|line| line.trim_end().strip_suffix(result))
        .map(str::trim)
        .filter(|name| name.contains("::") && !name.contains(' '))
        .collect()
}

#[test]
fn pjdfstest_passes() {
    let lan = Lan::new().unwrap();
    let directory = scratch::directory();
    let cluster = Cluster::started_on(&lan, directory.path()).unwrap();
    // The read-only cases run first and by themselves: `open_file_not_freed` leaves a file open when it fails, and
    // a file system with one cannot be made read-only.
    let script = r#"
export NO_COLOR=1
/pjdfstest -c /remount.toml -p /mnt -s /tmp erofs
echo ALL-BUT-READ-ONLY
/pjdfstest -c /all.toml -p /mnt -s /tmp"#;
    let mut spec = mounted(&format!("{script}\n")).file("/pjdfstest", tool("pjdfstest"));
    for (name, remount) in [("remount.toml", true), ("all.toml", false)] {
        let file = directory.path().join(name);
        std::fs::write(&file, configuration(remount)).unwrap();
        spec = spec.file(&format!("/{name}"), file);
    }
    let guest = Guest::boot(&spec.on(&lan.port("web1", 11).unwrap())).unwrap();
    let output = super::finish(guest, &cluster).output;
    let (read_only, all) = output.split_once("ALL-BUT-READ-ONLY").unwrap();
    let passed = cases(read_only, "ok").len() + cases(all, "ok").len();
    assert_eq!(cases(read_only, "ok").len(), 13, "{output}");
    assert_eq!(passed, 395, "{output}");
    assert_eq!(cases(all, "failed as expected").len(), UNAVOIDABLE.len(), "{output}");
    let skipped: Vec<&str> =
        cases(all, "skipped").into_iter().filter(|name| !name.contains("::erofs_")).collect();
    assert_eq!(skipped, SKIPPED.iter().map(|(name, _)| *name).collect::<Vec<_>>(), "{output}");
    scratch::assert_equal(&cluster);
}
