//! `verify` of the database: a byte that rots in the archive is found where it is, and fetched from the server again; so is a
//! file that is gone.

use crate::executable::{Daemon, run, status, text, wait_healthy};
use crate::scratch;
use ehpc_tools::database::Access;
use std::os::unix::fs::FileExt as _;

#[test]
fn a_rotten_byte_of_the_archive_is_found_and_mended() {
    let directory = scratch::directory();
    let data = directory.path().join("d");
    let at = data.to_str().unwrap();
    let node = Daemon::start(&["up", "--database", "--any-ports", "--no-web", "--data", at]);
    wait_healthy(at);
    let access = Access::at(&data.join("database/mysqld.sock"));
    access
        .sql(
            "CREATE DATABASE shop; CREATE TABLE shop.orders (id INT PRIMARY KEY); INSERT INTO shop.orders VALUES (1);
             FLUSH BINARY LOGS; INSERT INTO shop.orders VALUES (2)",
        )
        .unwrap();
    let verify = |more: &[&str]| {
        let arguments: Vec<&str> = ["verify", "--data", at].iter().chain(more).copied().collect();
        let output = run(&arguments);
        (status(&output), format!("{}{}", text(&output.stdout), text(&output.stderr)))
    };
    let (code, shown) = verify(&[]);
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("EQUAL: the backup") && shown.contains("EQUAL: the database"), "{shown}");

    let path = data.join("backup/database/0001/bin.000001");
    let sound = std::fs::read(&path).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[sound[400] ^ 8], 400).unwrap();
    let (code, shown) = verify(&["--database"]);
    assert_eq!(code, 1, "{shown}");
    assert!(shown.contains("bin.000001 (lineage 1): damaged on the backup at byte"), "{shown}");
    assert!(shown.contains("--repair"), "{shown}");
    // The files are not what is different.
    assert_eq!(verify(&["--files"]).0, 0);
    assert_eq!(verify(&[]).0, 1);

    let (code, shown) = verify(&["--database", "--repair"]);
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("were different before the repair (1)"), "{shown}");
    assert_eq!(std::fs::read(&path).unwrap(), sound);
    assert_eq!(
        sound,
        std::fs::read(data.join("database/bin.000001")).unwrap(),
        "byte for byte the server's own"
    );
    // A file that is gone is a difference, whoever took it: it is named, nobody restores over it, and it comes back.
    std::fs::remove_file(&path).unwrap();
    let (code, shown) = verify(&["--database"]);
    assert_eq!(code, 1, "{shown}");
    assert!(shown.contains("bin.000001 (lineage 1): damaged on the backup: it is gone"), "{shown}");
    let named = run(&["db", "status", "--data", at]);
    assert!(text(&named.stdout).contains("0001/bin.000001: it is gone"), "{}", text(&named.stdout));
    let (code, shown) = verify(&["--database", "--repair"]);
    assert_eq!(code, 0, "{shown}");
    assert_eq!(std::fs::read(&path).unwrap(), sound);
    let report: serde_json::Value = serde_json::from_str(&verify(&["--json"]).1).unwrap();
    assert_eq!(
        (&report["verdict"], &report["database"]["equal"]),
        (&"equal".into(), &true.into()),
        "{report}"
    );
    for wrong in [&["--files", "--deep"][..], &["--database", "--read-data"]] {
        assert_eq!(verify(wrong).0, 2);
    }
    assert_eq!(node.terminate(), 0);
}
