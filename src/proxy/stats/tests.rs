//! The dumps beside those of the real haproxy.

use super::sample::{Real, moment, process, running};
use super::*;
use crate::proxy::state::Running;

/// Lines of a CSV without the last, empty one; the fields of each.
fn fields(csv: &str) -> Vec<Vec<&str>> {
    csv.lines().filter(|line| !line.is_empty()).map(|line| line.split(',').collect()).collect()
}

/// Columns whose numbers depend on what happened before: only whether they are empty is compared. `lastchg` and `downtime` count seconds;
/// HAProxy expects to need a connection for what it has once used.
const FREE: &[&str] = &["lastchg", "downtime"];

#[test]
fn every_column_of_every_row_is_as_haproxys() {
    let real = Real::start();
    let theirs = real.ask("admin.sock", "show stat");
    let running = running(real.path());
    let view = View { running: &running, moment: moment(), legends: true };
    let ours = csv(&rows(&view, &Selection::default()));
    let (theirs, ours) = (fields(&theirs), fields(&ours));
    assert_eq!(theirs[0], ours[0], "the header");
    assert_eq!(theirs.len(), ours.len(), "rows");
    let mut faults = Vec::new();
    for (their, our) in theirs.iter().zip(&ours).skip(1) {
        assert_eq!((their.len(), &their[..2]), (our.len(), &our[..2]));
        for (at, name) in theirs[0].iter().enumerate() {
            let same = match FREE.contains(name) {
                true => their[at].is_empty() == our[at].is_empty(),
                false => their[at] == our[at],
            };
            if !same {
                faults.push(format!("{}/{} {name}: {:?}, here {:?}", our[0], our[1], their[at], our[at]));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// `show stat typed` and `show info typed` without their values.
fn shapes(typed: &str) -> Vec<String> {
    let masked = |line: &str| {
        let mut parts = line.splitn(4, ':');
        let [name, tags, kind] = [parts.next()?, parts.next()?, parts.next()?];
        Some(format!("{name}:{tags}:{kind}"))
    };
    typed.lines().filter_map(masked).collect()
}

#[test]
fn types_and_tags_are_haproxys() {
    let real = Real::start();
    let running = running(real.path());
    let view = View { running: &running, moment: moment(), legends: true };
    let ours = shapes(&typed(&rows(&view, &Selection::default()), false));
    let theirs = shapes(&real.ask("admin.sock", "show stat typed"));
    let differs = |(their, our): &(&String, &String)| their != our;
    assert_eq!(theirs.iter().zip(&ours).find(differs), None);
    assert_eq!(theirs.len(), ours.len());
    let process = process();
    let facts = info::Facts { running: &running, process: &process, moment: moment() };
    let ours = shapes(&info::show(&facts, Form::Typed, false));
    let theirs = shapes(&real.ask("admin.sock", "show info typed"));
    assert_eq!(theirs.iter().zip(&ours).find(differs), None);
    assert_eq!(theirs.len(), ours.len());
    let names = |text: &str| {
        text.lines()
            .filter_map(|line| line.split_once(": "))
            .map(|(name, _)| name.to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&info::show(&facts, Form::Csv, false)), names(&real.ask("admin.sock", "show info")));
}

#[test]
fn json_says_what_typed_says() {
    let running = running("/tmp");
    let view = View { running: &running, moment: moment(), legends: true };
    let rows = rows(&view, &Selection::default());
    let parsed: serde_json::Value = serde_json::from_str(&json(&rows)).unwrap();
    let mut lines = Vec::new();
    for row in parsed.as_array().unwrap() {
        for field in row.as_array().unwrap() {
            let letter = &field["objType"].as_str().unwrap()[..1];
            let value = &field["value"]["value"];
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let [origin, nature, scope] =
                ["origin", "nature", "scope"].map(|key| field["tags"][key].as_str().unwrap()[..1].to_owned());
            let nature = match field["tags"]["nature"].as_str().unwrap() {
                "Avg" => "a".to_owned(),
                _ => nature,
            };
            lines.push(format!(
                "{letter}.{}.{}.{}.{}.1:{origin}{nature}{scope}:{}:{value}",
                field["proxyId"],
                field["id"],
                field["field"]["pos"],
                field["field"]["name"].as_str().unwrap(),
                field["value"]["type"].as_str().unwrap()
            ));
        }
    }
    assert_eq!(lines, typed(&rows, false).lines().collect::<Vec<_>>());
    let process = process();
    let facts = info::Facts { running: &running, process: &process, moment: moment() };
    let parsed: serde_json::Value = serde_json::from_str(&info::show(&facts, Form::Json, false)).unwrap();
    assert_eq!(parsed.as_array().unwrap().len(), info::FIELDS.len() - 1, "no description is set");
}

#[test]
fn texts_cannot_break_a_dump() {
    let mut config = sample::config("/tmp");
    config.proxies[1].servers[0].cookie = Some(b"a,\"b\"\nc".to_vec());
    let running = Running::new(std::sync::Arc::new(config), 10);
    let view = View { running: &running, moment: moment(), legends: true };
    let rows =
        rows(&view, &Selection { proxy: Some(3), kinds: Some(4), id: Some(1), ..Selection::default() });
    assert_eq!(rows.len(), 1);
    assert!(csv(&rows).contains(",\"a,\"\"b\"\" c\",http,"), "{}", csv(&rows));
    assert!(serde_json::from_str::<serde_json::Value>(&json(&rows)).is_ok());
    assert_eq!(typed(&rows, false).lines().filter(|line| !line.starts_with("S.3.1.")).count(), 0);
}

#[test]
fn selections_choose_rows() {
    let running = running("/tmp");
    let view = View { running: &running, moment: moment(), legends: true };
    let names = |selection: Selection| {
        let rows = rows(&view, &selection);
        rows.iter().map(|row| row.get(columns::At::Svname).to_string()).collect::<Vec<_>>().join(" ")
    };
    let be = Selection { proxy: Some(3), ..Selection::default() };
    assert_eq!(names(be), "a b c d BACKEND");
    assert_eq!(names(Selection { kinds: Some(2), ..be }), "BACKEND");
    assert_eq!(names(Selection { kinds: Some(4), id: Some(2), ..be }), "b");
    assert_eq!(names(Selection { without_maintenance: true, ..be }), "a b d BACKEND");
    assert_eq!(names(Selection { up: true, ..be }), "a b d BACKEND");
    assert_eq!(names(Selection { kinds: Some(8), ..Selection::default() }), "lis sock-2 sock-1 sock-1");
    assert_eq!(names(Selection { proxy: Some(99), ..be }), "");
    let up = rows(&view, &Selection { kinds: Some(2), up: true, ..be });
    assert_eq!(up[0].get(columns::At::Status).text(), "UP (3/4)");
}

/// Metric names with their types and the labels' names, in a page that a strict reader understands.
fn metrics(page: &str) -> std::collections::BTreeMap<String, (String, std::collections::BTreeSet<String>)> {
    let mut found = std::collections::BTreeMap::<String, (String, std::collections::BTreeSet<String>)>::new();
    let mut current = String::new();
    for line in page.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge"].contains(&kind), "{line}");
            let before = found.insert(name.to_owned(), (kind.to_owned(), Default::default()));
            assert!(before.is_none(), "{name} twice");
            current = name.to_owned();
            continue;
        }
        if line.starts_with("# HELP ") {
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(value == "NaN" || value.parse::<f64>().is_ok(), "{line}");
        let (name, labels) = name.split_once('{').map_or((name, ""), |(name, labels)| {
            (name, labels.strip_suffix('}').unwrap_or_else(|| panic!("{line}")))
        });
        assert_eq!(name, current, "a sample outside of its family");
        let names = labels.split("\",").filter(|label| !label.is_empty()).map(|label| {
            let (name, value) = label.split_once("=\"").expect("a label");
            let state = if matches!(name, "state" | "code") {
                format!("={}", value.trim_end_matches('"'))
            } else {
                String::new()
            };
            format!("{name}{state}")
        });
        found.get_mut(name).unwrap().1.extend(names);
    }
    found
}

#[test]
fn metrics_are_haproxys() {
    let real = Real::start();
    let mut stream = sample::connect(&real.dir.path().join("metrics.sock"));
    std::io::Write::write_all(&mut stream, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut page = String::new();
    std::io::Read::read_to_string(&mut stream, &mut page).unwrap();
    let (head, body) = page.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    let (mut rest, mut body) = (body, String::new());
    while let Some((length, chunk)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        body.push_str(&chunk[..length]);
        rest = &chunk[length..][2..];
    }
    let theirs = metrics(&body);
    let running = running(real.path());
    let ours = metrics(&prometheus::render(&running, &process(), moment()));
    // Of stick tables nothing is exported here; the memory of a compression that is not there is no number.
    let mut missing: Vec<&String> = theirs.keys().filter(|name| !ours.contains_key(*name)).collect();
    missing.retain(|name| !name.contains("sticktable") && !name.contains("zlib"));
    // Of these no server in the test has a value: HAProxy says NaN, here the metric is left out.
    missing.retain(|name| {
        !["_current_throttle", "_check_", "_idle_connections_limit", "_downtime_", "_queue_limit"]
            .iter()
            .any(|part| name.contains(part))
    });
    assert!(missing.is_empty(), "{missing:?}");
    for (name, described) in &ours {
        assert_eq!(Some(described), theirs.get(name), "{name}");
    }
}
