//! The statistics page beside HAProxy's: the same rows in the same colours, the same effect of its form.

use super::driver::Browser;
use super::eventually;
use crate::proxy::inside::inside;
use crate::proxy_process::process::{HAPROXY, Place};
use serde_json::Value;
use std::net::TcpListener;
use std::path::Path;

const TEXT: &str = "\
defaults
    mode http
    option socket-stats
    timeout connect 1s
    timeout client 60s
    timeout server 60s
frontend pages
    bind {ip}:80 name door
    stats uri /stats
    stats auth operator:secret
    stats admin if TRUE
    stats refresh 30s
    default_backend web
backend web
    default-server inter 100 rise 1 fall 1
    server well {ip}:9001 check
    server dead {ip}:9002 check
    server unchecked {ip}:9001
    server away {ip}:9001 check disabled
    server second {ip}:9001 check backup
    server gone {ip}:9002 check backup
    stats uri /stats
    stats auth operator:secret
    stats admin if TRUE
";

/// Name of each row, its colours, its status and last check without durations.
const ROWS: &str = "
    const rows = [];
    for (const row of document.querySelectorAll('tr[class]')) {
        const name = row.querySelector('a.lfsb');
        if (!name || !row.closest('table.tbl')) continue;
        const cells = [...row.querySelectorAll(':scope > td')].map(cell => cell.firstElementChild?.tagName == 'U'
            ? cell.firstElementChild.firstChild.textContent : cell.innerText);
        const check = cells.find(text => /L4|L7/.test(text)) || '';
        const status = cells.map(text => /(UP|DOWN|MAINT|DRAIN|OPEN|no check).*/.exec(text)?.[0]).find(text => text) || '';
        rows.push([name.textContent, getComputedStyle(row).backgroundColor, status.trim(), check.replace(/ in .*/, '').trim()]);
    }
    return rows;";

fn rows(browser: &Browser, page: &str) -> Vec<[String; 4]> {
    browser.open(page);
    let of = |row: &Value| {
        let cell = |at: usize| row[at].as_str().unwrap_or_default().to_owned();
        [cell(0), cell(1), cell(2), cell(3)]
    };
    browser.run(ROWS).as_array().map(|rows| rows.iter().map(of).collect()).unwrap_or_default()
}

/// Chooses a server and an action, and sends the form.
fn act(browser: &Browser, page: &str, server: &str, action: &str) -> String {
    browser.open(page);
    browser.click(&format!("input[name=s][value={server}]"));
    browser.click(&format!("select[name=action] option[value={action}]"));
    browser.click("form[method=post] input[type=submit]");
    eventually("the page says what came of it", || browser.text(), |text| text.contains("[X]"))
}

#[test]
fn the_page_has_haproxys_rows_colours_and_actions() {
    inside("browser::statistics::the_page_has_haproxys_rows_colours_and_actions", || {
        let browser = Browser::start();
        let mut seen = Vec::new();
        for (address, ours) in [("10.1.0.2", false), ("10.1.0.3", true)] {
            let listener = TcpListener::bind((address, 9001)).expect("the port is free");
            std::thread::spawn(move || listener.incoming().for_each(drop));
            let place = Place::new(&TEXT.replace("{ip}", address));
            let program = if ours { place.ours.clone() } else { Path::new(HAPROXY).to_owned() };
            let _proxy = place.start(&program, &["-db"]);
            eventually("it listens", || crate::proxy::side::listens(address, 80), |listens| *listens);
            let page = format!("http://operator:secret@{address}/stats");
            let settled = |rows: &Vec<[String; 4]>| {
                let of = |name: &str| rows.iter().find(|row| row[0] == name);
                of("dead").is_some_and(|row| row[2].starts_with("DOWN") && row[3].starts_with("L4CON"))
                    && of("gone").is_some_and(|row| row[2].starts_with("DOWN"))
                    && ["well", "second"].map(|name| of(name).is_some_and(|row| row[3] == "L4OK"))
                        == [true; 2]
            };
            let mut states = vec![eventually("checks have results", || rows(&browser, &page), settled)];
            for (server, action) in [
                ("well", "maint"),
                ("unchecked", "drain"),
                ("away", "ready"),
                ("well", "ready"),
                ("second", "maint"),
            ] {
                let text = act(&browser, &page, server, action);
                assert!(
                    text.contains("Action processed successfully"),
                    "{address}: {action} {server}: {text}"
                );
                // What the action began is over when the row stands still.
                states.push(eventually(
                    "the row is as the action wants it",
                    || rows(&browser, &page),
                    |rows| {
                        let row = rows.iter().find(|row| row[0] == server).expect("shown");
                        match action {
                            "maint" => row[2].starts_with("MAINT"),
                            "drain" => row[2].starts_with("DRAIN"),
                            _ => row[2].starts_with("UP") && row[3] == "L4OK",
                        }
                    },
                ));
            }
            // Without a password nothing is shown.
            browser.open(&format!("http://wrong:word@{address}/stats"));
            assert_eq!(browser.run(ROWS).as_array().map(Vec::len), Some(0));
            seen.push(states);
        }
        let (theirs, ours) = (&seen[0], &seen[1]);
        println!("{:#?}", ours[0]);
        for (their, our) in theirs.iter().zip(ours) {
            assert_eq!(their, our);
        }
    });
}
