//! House rules as a test: who may import whom, what is pure, where `unsafe` may stand.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // how a test fails

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// "Who may import whom". Key: module; value: our modules it may name besides itself and `proto`.
const IMPORTS: &[(&str, &[&str])] = &[
    ("host", &[]),
    ("observe", &[]),
    ("settings", &[]),
    ("vfs", &["host", "observe", "settings"]),
    ("store", &["host", "observe", "settings"]),
    ("nfs", &["host", "observe", "settings", "vfs"]),
    ("change", &["host", "observe", "settings", "vfs"]),
    ("database", &["host", "observe", "settings", "store"]),
    ("history", &["host", "observe", "settings", "vfs", "store"]),
    ("replication", &["host", "observe", "settings", "change", "vfs", "store"]),
    ("verify", &["host", "observe", "settings", "change", "vfs", "store", "history", "database"]),
    ("proxy", &["host", "observe", "settings"]),
    ("vrrp", &["host", "observe", "settings"]),
    ("supervise", &["host", "observe", "settings"]),
    ("dashboard", &["host", "observe", "settings"]),
    ("demo_web", &["host", "observe", "settings"]),
    ("cli", &["*"]),
];

/// Pure files: bytes and time in, actions out.
const PURE: &[&str] = &[
    "proto/src",
    "src/database/binlog_server/answers.rs",
    "src/database/binlog_server/login.rs",
    "src/database/binlog_server/selection.rs",
    "src/database/binlog_server/statement.rs",
    "src/database/base/schedule.rs",
    "src/database/restore/plan.rs",
    "src/database/standby/health.rs",
    "src/database/moment.rs",
    "src/database/preflight/rules.rs",
    "src/database/source/acks.rs",
    "src/database/source/session.rs",
    "src/database/source/ship.rs",
    "src/nfs/reply_cache.rs",
    "src/nfs/lock/ranges.rs",
    "src/nfs/lock/table.rs",
    "src/proxy/log/header.rs",
    "src/replication/session",
    "src/database/archive/session.rs",
    "src/database/archive/catalog.rs",
    "src/replication/mirror/plan.rs",
    "src/proxy/config/conditional.rs",
    "src/proxy/config/lexer.rs",
    "src/proxy/config/values.rs",
    "src/proxy/balance.rs",
    "src/proxy/checks/http.rs",
    "src/proxy/checks/mysql.rs",
    "src/proxy/cookie.rs",
    "src/proxy/crumbs.rs",
    "src/proxy/health.rs",
    "src/proxy/queue.rs",
    "src/proxy/stats/columns.rs",
    "src/proxy/stats/dump.rs",
    "src/proxy/stats/info.rs",
    "src/proxy/stats/rows.rs",
    "src/proxy/stats/status.rs",
    "src/proxy/stats/value.rs",
    "src/proxy/admin/console.rs",
    "src/proxy/admin/commands.rs",
    "src/proxy/admin/servers_state.rs",
    "src/proxy/admin/frontends.rs",
    "src/proxy/expression/acl.rs",
    "src/proxy/expression/arguments.rs",
    "src/proxy/expression/base64.rs",
    "src/proxy/expression/condition.rs",
    "src/proxy/expression/hash.rs",
    "src/proxy/expression/map.rs",
    "src/proxy/expression/parse.rs",
    "src/proxy/expression/pattern.rs",
    "src/proxy/expression/sample.rs",
    "src/proxy/expression/substitution.rs",
    "src/proxy/expression/variables.rs",
    "src/proxy/rules/answer.rs",
    "src/proxy/rules/parse.rs",
    "src/proxy/rules/redirect.rs",
    "src/proxy/rules/target.rs",
    "src/proxy/stick/key.rs",
];

/// What pure code never names.
const IMPURE_WORDS: &[&str] =
    &["tokio", "std::net", "std::fs", "SystemTime", "Instant::now", "rustix", "libc::"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Rust files below `under` (a folder, or a module's name without `.rs`): (path, text).
fn sources(under: &str) -> Vec<(String, String)> {
    fn walk(path: &Path, found: &mut Vec<PathBuf>) {
        if path.is_file() {
            if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path.to_owned());
            }
            return;
        }
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            walk(&entry.path(), found);
        }
    }
    let mut found = Vec::new();
    walk(&root().join(under), &mut found);
    if !under.ends_with(".rs") {
        walk(&root().join(format!("{under}.rs")), &mut found);
    }
    found.sort();
    found
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            let text = fs::read_to_string(path).unwrap();
            (name, text)
        })
        .collect()
}

/// Source lines without comments, up to the tests at a file's end.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .map(|(n, line)| (n + 1, line.split("//").next().unwrap_or("")))
}

#[test]
fn imports_follow_the_table() {
    let known: BTreeSet<&str> = IMPORTS.iter().map(|(module, _)| *module).collect();
    let mut faults = Vec::new();
    for entry in fs::read_dir(root().join("src")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() && !known.contains(name.as_str()) {
            faults.push(format!("src/{name} is not in the import table"));
        }
    }
    for (module, allowed) in IMPORTS {
        for (file, text) in sources(&format!("src/{module}")) {
            if *allowed == ["*"] || file.ends_with("tests.rs") {
                continue;
            }
            for (number, line) in code(&text) {
                for other in named_modules(line) {
                    if known.contains(other) && other != *module && !allowed.contains(&other) {
                        faults.push(format!("{file}:{number}: `{module}` may not import `{other}`"));
                    }
                }
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// First path segments after `crate::`, one or a braced list.
fn named_modules(line: &str) -> Vec<&str> {
    let word = |text: &'_ str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let mut found = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let rest = &line[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => found.extend(list.split(',').map(str::trim).map(|item| &item[..word(item)])),
            None => found.push(&rest[..word(rest)]),
        }
    }
    found
}

#[test]
fn the_import_check_sees_every_spelling() {
    assert_eq!(named_modules("use crate::vfs::Vfs;"), ["vfs"]);
    assert_eq!(named_modules("use crate::{host::Tree, change};"), ["host", "change"]);
    assert_eq!(named_modules("let x = crate::cli::main();"), ["cli"]);
}

#[test]
fn pure_files_name_no_clock_socket_or_file() {
    let mut faults = Vec::new();
    for place in PURE {
        let files = sources(place);
        assert!(!files.is_empty(), "{place} does not exist");
        for (file, text) in files {
            for (number, line) in code(&text) {
                for word in IMPURE_WORDS {
                    if line.contains(word) {
                        faults.push(format!("{file}:{number}: `{word}` in a pure file"));
                    }
                }
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn unsafe_stands_in_host_only() {
    let mut faults = Vec::new();
    for (file, text) in ["src", "proto/src"].into_iter().flat_map(sources) {
        if file.starts_with("src/host/") {
            continue;
        }
        for (number, line) in code(&text) {
            if ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "allow(unsafe_code)"]
                .iter()
                .any(|form| line.contains(form))
            {
                faults.push(format!("{file}:{number}: `unsafe` outside src/host"));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn bincode_is_named_in_one_module() {
    let faults: Vec<String> = ["src", "proto/src"]
        .into_iter()
        .flat_map(sources)
        .filter(|(file, text)| {
            file != "proto/src/replication/wire.rs" && code(text).any(|(_, line)| line.contains("bincode"))
        })
        .map(|(file, _)| file)
        .collect();
    assert!(faults.is_empty(), "bincode outside proto/src/replication/wire.rs: {faults:?}");
}

#[test]
fn modules_have_no_vague_names() {
    let vague = ["util", "utils", "common", "manager", "helpers", "misc"];
    let faults: Vec<String> = ["src", "proto/src", "tools/src", "tools/guest/src"]
        .into_iter()
        .flat_map(sources)
        .map(|(file, _)| file)
        .filter(|file| file.split(['/', '.']).any(|part| vague.contains(&part)))
        .collect();
    assert!(faults.is_empty(), "vague names: {faults:?}");
}

#[test]
fn every_source_file_says_what_it_is() {
    let faults: Vec<String> = ["src", "proto/src", "tools/src", "tools/guest/src"]
        .into_iter()
        .flat_map(sources)
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(file, _)| file)
        .collect();
    assert!(faults.is_empty(), "no `//!` line at the top of: {faults:?}");
}

#[test]
fn every_dependency_says_why_it_is_there() {
    let mut faults = Vec::new();
    for manifest in ["Cargo.toml", "proto/Cargo.toml", "tools/Cargo.toml", "tools/guest/Cargo.toml"] {
        let text = fs::read_to_string(root().join(manifest)).unwrap();
        let mut inside = false;
        for (number, line) in text.lines().enumerate() {
            if line.starts_with('[') {
                inside = line.contains("dependencies");
            } else if inside && line.contains('=') && !line.contains('#') {
                let named_elsewhere = line.contains(".workspace") || line.contains("path =");
                if !named_elsewhere {
                    faults.push(format!("{manifest}:{}: {line}", number + 1));
                }
            }
        }
    }
    assert!(faults.is_empty(), "no reason given:\n{}", faults.join("\n"));
}
