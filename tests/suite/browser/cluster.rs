//! The first look, as README shows it: `up`, the page on 8080, a file chosen and sent, and it is on the backup.

use super::driver::Browser;
use super::eventually;
use crate::executable::{Daemon, wait_healthy};
use crate::proxy::inside::inside;
use std::fs;

#[test]
fn a_file_sent_from_a_browser_is_on_the_backup() {
    inside("browser::cluster::a_file_sent_from_a_browser_is_on_the_backup", || {
        let scratch = tempfile::tempdir().expect("a directory");
        let data = scratch.path().join("d");
        let node = Daemon::start(&["up", "--any-ports", "--data", data.to_str().expect("text")]);
        wait_healthy(data.to_str().expect("text"));
        let file = scratch.path().join("report.txt");
        fs::write(&file, "figures\n".repeat(50_000)).expect("written");
        let browser = Browser::start();
        browser.open(&format!("http://{}/", node.address("proxy")));
        browser.write("input[type=file]", file.to_str().expect("text"));
        browser.click("form button");
        let shown =
            eventually("the page lists the file", || browser.text(), |text| text.contains("report.txt"));
        assert!(shown.contains("web1") || shown.contains("web2"), "{shown}");
        let mirror = data.join("backup/mirror/report.txt");
        let same = || fs::read(&mirror).ok() == fs::read(&file).ok();
        eventually("the replica has it", same, |same| *same);
        // And the dashboard shows a healthy cluster, without an error in the page.
        browser.open(&format!("http://{}/", node.address("dashboard")));
        eventually("the dashboard", || browser.text(), |text| text.to_lowercase().contains("healthy"));
        assert_eq!(node.terminate(), 0);
    });
}
