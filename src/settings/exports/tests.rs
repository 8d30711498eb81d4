//! Exports files, good and bad, with exact places.

use super::*;
use crate::settings::Problems;
use std::fs;
use std::path::Path;

/// What a file says: (path, rules as exports(5) writes them), and its warnings as "line:column: what".
fn good(text: &str) -> (Vec<(String, Vec<String>)>, Vec<String>) {
    let mut parsed = parse::Parsed::default();
    parse::parse(Path::new("exports"), text.as_bytes(), &mut parsed);
    assert_eq!(parsed.problems, [], "{text}");
    let exported = parsed.exported.iter().map(|exported| {
        let rules = exported.rules.iter().map(Rule::to_string).collect();
        (exported.path.display().to_string(), rules)
    });
    (exported.collect(), parsed.warnings.iter().map(|p| format!("{}: {}", p.site, p.what)).collect())
}

/// The problems of a file, without what comes next.
fn bad(text: &str) -> Vec<String> {
    let mut parsed = parse::Parsed::default();
    parse::parse(Path::new("exports"), text.as_bytes(), &mut parsed);
    let mut problems = parsed.problems;
    problems.extend(conflicts(&parsed.exported));
    problems.iter().map(|p| format!("{}: {}", p.site, p.what)).collect()
}

fn only(text: &str) -> Vec<String> {
    let (exported, warnings) = good(text);
    assert_eq!(warnings, Vec::<String>::new(), "{text}");
    assert_eq!(exported.len(), 1, "{text}");
    exported[0].1.clone()
}

#[test]
fn the_sample_holds_the_deployment_guides_own_line() {
    let text = include_str!("../../../config/exports");
    assert!(text.contains("\n/home/share   web1(rw,sync,no_root_squash) web2(rw,sync,no_root_squash) \n"));
    assert_eq!(only(text), ["web1(rw,sync,secure,no_root_squash)", "web2(rw,sync,secure,no_root_squash)"]);
}

#[test]
fn clients_options_and_defaults() {
    assert_eq!(only("/a web1"), ["web1(ro,sync,secure,root_squash)"]);
    assert_eq!(only("/a web1()"), ["web1(ro,sync,secure,root_squash)"]);
    assert_eq!(only("/a *(rw)"), ["*(rw,sync,secure,root_squash)"]);
    assert_eq!(
        only("/a -rw,async -insecure web1 web2(ro) @trusted(all_squash,anonuid=33)"),
        [
            "web1(rw,async,insecure,root_squash)",
            "web2(ro,async,insecure,root_squash)",
            "@trusted(rw,async,insecure,all_squash,anonuid=33)"
        ]
    );
    assert_eq!(only("/a 10.0.0.0/255.0.0.0(rw,)"), ["10.0.0.0/8(rw,sync,secure,root_squash)"]);
    assert_eq!(
        only("/a \\\n  fe80::/10(rw) \\\n  2001:db8::1"),
        ["fe80::/10(rw,sync,secure,root_squash)", "2001:db8::1(ro,sync,secure,root_squash)"]
    );
    let (exported, _) = good("\"/with space\" a\n/with\\040space b\n/x//y/./z/ a\n/ a # all\n");
    let paths: Vec<&str> = exported.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["/with space", "/x/y/z", "/"]);
    assert_eq!(exported[0].1.len(), 2, "two lines of one path");
}

#[test]
fn what_is_written_and_probably_not_meant_is_said() {
    let (exported, warnings) = good("/a web1 (rw)\n");
    assert_eq!(exported[0].1, ["web1(ro,sync,secure,root_squash)", "*(rw,sync,secure,root_squash)"]);
    assert_eq!(warnings, ["exports:1:9: (rw) has no client before it: everybody gets these options"]);
    let (exported, warnings) = good("\n  /a\n");
    assert_eq!(exported[0].1, ["*(ro,sync,secure,root_squash)"]);
    assert_eq!(warnings, ["exports:2:3: /a is exported to everybody: no client is named"]);
    let (exported, warnings) = good("/a web1(rw)\n/a web2 web1(ro)\n");
    assert_eq!(exported[0].1, ["web1(rw,sync,secure,root_squash)", "web2(ro,sync,secure,root_squash)"]);
    assert_eq!(warnings, ["exports:2:9: /a is exported to web1 twice; the first counts: exports:1:4"]);
    let (_, warnings) = good("/a 192.168.1.*(rw)");
    assert_eq!(warnings, ["exports:1:4: `192.168.1.*`: wildcards match names of hosts, not their addresses"]);
}

#[test]
fn bad_lines_and_their_places() {
    for (text, expected) in [
        ("a web1", "1:1: `a` does not start at the root"),
        ("/a/../b web1", "1:1: `/a/../b` holds `..`"),
        ("/a web1(rw", "1:8: `web1(rw`: the list of options does not end with the word"),
        ("/a web1(rw, sync)", "1:8: `web1(rw,`: the list of options does not end with the word"),
        ("/a web1(rw)x", "1:8: `web1(rw)x`: the list of options does not end with the word"),
        ("/a web1(rw)(ro)", "1:9: unknown option `rw)(ro`"),
        ("# c\n/a web1(rw,krb)", "2:12: unknown option `krb`"),
        ("/a web1(rw,sec=krb5p)", "1:12: `sec=krb5p` cannot be had"),
        ("/a \\\n web1(ro,\\\n", "2:6: `web1(ro,`: the list of options does not end with the word"),
        ("/a \\\n\tweb1(ro,refer=/x@y)", "2:10: the option `refer` is not supported"),
        ("/a -rw,pnfs web1", "1:8: the option `pnfs` is not supported"),
        ("/a web1 -rw", "1:9: `-rw` stands after a client"),
        ("/a gss/krb5(rw)", "1:4: the client `gss/krb5` is not supported: there is no Kerberos here"),
        ("/a 10.0.0.0/40", "1:4: `10.0.0.0/40` is not a network"),
        ("/a web1,web2(rw)", "1:4: `web1,web2` is not a host name"),
        ("/a \"web1", "1:4: the quote is not closed"),
        ("/\u{e4}\u{f6} web1(x)", "1:10: unknown option `x`"),
        ("/a web1(fsid=1) web2(fsid=2)", "1:17: /a has another `fsid` for another client"),
        ("/a web1(mp) web2(mp=/x)", "1:13: /a has another `mountpoint` for another client"),
        ("/a web1(fsid=1)\n/b web1(fsid=1)", "2:1: /b has the fsid 1 of /a"),
    ] {
        let problems = bad(text);
        let first = problems.first().map_or("", |problem| problem.strip_prefix("exports:").unwrap());
        assert_eq!(first, expected, "{text}: {problems:?}");
    }
    assert_eq!(bad(&format!("/{} a", "x".repeat(1024))), ["exports:1:1: the path is longer than 1024 bytes"]);
    assert_eq!(bad("a b(x)\n/c d(y) e/(z)").len(), 5, "everything wrong is said at once");
}

#[test]
fn the_file_and_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("exports");
    let problems = |result: Result<ExportsFile, Problems>| result.unwrap_err().to_string();
    assert!(problems(load(&file)).contains("cannot be read"));
    fs::write(&file, "/a web1\n").unwrap();
    assert_eq!(load(&file).unwrap().exported.len(), 1);
    let beside = dir.path().join("exports.d");
    fs::create_dir(&beside).unwrap();
    fs::write(beside.join("2.exports"), "/c web2(rw)\n/a web2\n").unwrap();
    fs::write(beside.join("1.exports"), "/b web1\n").unwrap();
    fs::write(beside.join("not-this-one"), "nonsense").unwrap();
    fs::write(beside.join(".hidden.exports"), "nonsense").unwrap();
    let loaded = load(&file).unwrap();
    let paths: Vec<_> = loaded.exported.iter().map(|exported| exported.path.display().to_string()).collect();
    assert_eq!(paths, ["/a", "/b", "/c"]);
    assert_eq!(loaded.exported[0].rules.len(), 2);
    fs::write(beside.join("3.exports"), "nonsense\n").unwrap();
    let told = problems(load(&file));
    assert!(told.contains("exports.d/3.exports:1:1: `nonsense` does not start at the root"), "{told}");
    fs::remove_file(beside.join("3.exports")).unwrap();
    fs::remove_file(&file).unwrap();
    assert_eq!(load(&file).unwrap().exported.len(), 3, "the directory is enough");
}

#[test]
fn what_is_the_exports_own() {
    let mut parsed = parse::Parsed::default();
    let text = "/a web1(async) web2(fsid=9,async)\n/b web1(async) web2";
    parse::parse(Path::new("exports"), text.as_bytes(), &mut parsed);
    let [a, b] = parsed.exported.as_slice() else { panic!("two exports") };
    assert!(!a.sync() && b.sync(), "durable if it is for one client");
    assert_eq!((a.fsid(), b.fsid()), (Some(Fsid::Number(9)), None));
    assert_eq!(Fsid::Uuid([1; 16]).attribute(), 0);
    let mut uuid = [0; 16];
    (uuid[7], uuid[15]) = (5, 6);
    assert_eq!(Fsid::Uuid(uuid).attribute(), 3);
    uuid[7] = 0;
    assert_eq!(Fsid::Uuid(uuid).to_string(), "00000000-0000-0000-0000-000000000006");
}

/// Whatever the bytes are: no panic, and every place lies within the file.
#[test]
fn any_bytes_are_read() {
    use rand::{Rng, SeedableRng};
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let pieces: [&[u8]; 22] = [
        b"/a",
        b" ",
        b"\n",
        b"\\\n",
        b"\"",
        b"#",
        b"(",
        b")",
        b",",
        b"web1",
        b"*",
        b"rw",
        b"-",
        b"@",
        b"[",
        b"]",
        b"\\040",
        b"fsid=",
        b"10.0.0.0/8",
        b"\xff",
        b"\xc3\xa4",
        b"=",
    ];
    for _ in 0..5_000 {
        let count = random.random_range(0..30);
        let text: Vec<u8> =
            (0..count).flat_map(|_| pieces[random.random_range(0..pieces.len())].to_vec()).collect();
        let mut parsed = parse::Parsed::default();
        parse::parse(Path::new("exports"), &text, &mut parsed);
        let lines = text.split(|byte| *byte == b'\n').count();
        for problem in parsed.problems.iter().chain(&parsed.warnings) {
            let Site::At { line, column, .. } = &problem.site else { panic!("{problem}") };
            assert!((1..=lines).contains(line) && (1..=text.len() + 1).contains(column), "{problem}");
        }
        assert!(
            parsed.exported.iter().all(|exported| !exported.rules.is_empty() || !parsed.problems.is_empty())
        );
    }
}
