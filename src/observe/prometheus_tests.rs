//! The page, read by a strict parser.

use super::*;
use crate::observe::status::{LinkStatus, SenderStatus};
use std::collections::BTreeSet;

#[test]
fn names_are_unique_and_well_formed() {
    let names: Vec<&str> = TABLE
        .iter()
        .map(|m| m.name)
        .chain(GAUGES.iter().map(|g| g.name))
        .chain(FAMILIES.iter().map(|f| f.name))
        .collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    for name in names {
        assert!(name.starts_with("ehpc_"), "{name}");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
    }
    for family in FAMILIES {
        assert_eq!(family.kind == "counter", family.name.ends_with("_total"), "{}", family.name);
    }
    for metric in TABLE {
        assert_eq!(
            matches!(metric.kind, MetricKind::Counter),
            metric.name.ends_with("_total"),
            "{}",
            metric.name
        );
    }
}

#[test]
fn lag_is_in_seconds_and_absent_sections_are_left_out() {
    let mut node = NodeStatus::default();
    assert!(!render(&node).contains("ehpc_lag_seconds"));
    node.sender = Some(SenderStatus { lag_ms: 1500, ..SenderStatus::default() });
    node.link = Some(LinkStatus::default());
    let page = render(&node);
    assert!(page.contains("# TYPE ehpc_lag_seconds gauge\nehpc_lag_seconds 1.5\n"), "{page}");
    assert!(page.contains("\nehpc_link_up 0\n") && page.contains("\nehpc_healthy 0\n"), "{page}");
    assert!(page.contains("# TYPE ehpc_batches_sent_total counter\nehpc_batches_sent_total "), "{page}");
}

/// A sample line: name, labels, value.
type Sample = (String, Vec<(String, String)>, f64);

/// A metric or label name by the format's own rule.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
        && !text.as_bytes()[0].is_ascii_digit()
}

/// `{a="x",b="y"} ` with its escapes; returns what follows the brace.
fn labels(mut rest: &str) -> (Vec<(String, String)>, &str) {
    let mut found = Vec::new();
    loop {
        let (name, after) = rest.split_once("=\"").expect("a label");
        assert!(is_name(name), "{name}");
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next().expect("the quote is closed") {
                (at, '"') => break at,
                (_, '\\') => match chars.next().expect("an escape").1 {
                    'n' => value.push('\n'),
                    c @ ('"' | '\\') => value.push(c),
                    other => panic!("unknown escape {other}"),
                },
                (_, c) => value.push(c),
            }
        };
        found.push((name.to_owned(), value));
        rest = &after[end + 1..];
        match rest.split_at(1) {
            (",", more) => rest = more,
            ("}", more) => return (found, more),
            other => panic!("{other:?} after a label"),
        }
    }
}

fn sample(line: &str) -> Sample {
    let end = line.find(['{', ' ']).expect("a name and a value");
    let (name, rest) = line.split_at(end);
    assert!(is_name(name), "{name}");
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest),
        None => (Vec::new(), rest),
    };
    let value = rest.strip_prefix(' ').expect("one blank");
    (name.to_owned(), labels, value.parse().expect("a number"))
}

/// Every family of a page: (name, kind, samples). Each has HELP, then TYPE, then samples of its own, once.
fn families(page: &str) -> Vec<(String, String, Vec<Sample>)> {
    assert!(page.ends_with('\n'));
    let mut found: Vec<(String, String, Vec<Sample>)> = Vec::new();
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        let (name, help) = line.strip_prefix("# HELP ").expect(line).split_once(' ').unwrap();
        assert!(is_name(name) && !help.is_empty());
        let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {name} ")).expect(name);
        assert!(["counter", "gauge", "histogram"].contains(&kind), "{kind}");
        assert!(found.iter().all(|(other, ..)| other != name), "{name} twice");
        let mut samples = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            samples.push(sample(line));
        }
        assert!(!samples.is_empty(), "{name} has no samples");
        let unique: BTreeSet<String> = samples.iter().map(|(n, l, _)| format!("{n}{l:?}")).collect();
        assert_eq!(unique.len(), samples.len(), "{name}: a series twice");
        found.push((name.to_owned(), kind.to_owned(), samples));
    }
    found
}

/// Buckets grow and end with +Inf, which is the count; sum and count follow.
fn check_histogram(name: &str, samples: &[Sample]) {
    let mut rest = samples;
    while !rest.is_empty() {
        let (mut last_end, mut last) = (f64::NEG_INFINITY, 0.0);
        while last_end < f64::INFINITY {
            let (sample_name, labels, n) = &rest[0];
            assert_eq!(*sample_name, format!("{name}_bucket"));
            let (le, end) = labels.last().unwrap();
            assert_eq!(le, "le");
            let end: f64 = if end == "+Inf" { f64::INFINITY } else { end.parse().unwrap() };
            assert!(end > last_end && *n >= last, "{labels:?}");
            (last_end, last) = (end, *n);
            rest = &rest[1..];
        }
        assert_eq!(rest[0].0, format!("{name}_sum"));
        assert_eq!((rest[1].0.as_str(), rest[1].2), (format!("{name}_count").as_str(), last));
        rest = &rest[2..];
    }
}

#[test]
fn the_whole_page_is_what_prometheus_reads() {
    let node = crate::observe::status::tests::full();
    let found = families(&render(&node));
    let names: BTreeSet<&str> = found.iter().map(|(name, ..)| name.as_str()).collect();
    let known = TABLE.iter().map(|m| m.name).chain(FAMILIES.iter().map(|f| f.name));
    for name in known {
        assert!(names.contains(name), "{name}");
    }
    for (name, kind, samples) in &found {
        if kind == "histogram" {
            check_histogram(name, samples);
        } else {
            assert!(samples.iter().all(|(sample, ..)| sample == name), "{name}");
        }
    }
    let value = |name: &str, labels: &[(&str, &str)]| {
        let labels: Vec<_> = labels.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let all = found.iter().flat_map(|(_, _, samples)| samples);
        all.into_iter().find(|(n, l, _)| n == name && *l == labels).map(|(_, _, value)| *value)
    };
    let export = [("export", "/sh\"are\\\n")];
    assert_eq!(value("ehpc_nfs_export_written_bytes_total", &export), Some(1536.0), "escapes go both ways");
    let stale = [("procedure", "lookup"), ("status", "STALE")];
    assert_eq!(value("ehpc_nfs_procedure_errors_total", &stale), Some(1.0));
    let lookup = |le| [("procedure", "lookup"), ("le", le)];
    assert_eq!(value("ehpc_nfs_request_seconds_bucket", &lookup("0.000004")), Some(11_000.0));
    assert_eq!(value("ehpc_nfs_request_seconds_bucket", &lookup("0.000008")), Some(11_900.0));
    assert_eq!(value("ehpc_nfs_request_seconds_bucket", &lookup("+Inf")), Some(12_000.0));
    assert_eq!(value("ehpc_nfs_request_seconds_sum", &[("procedure", "lookup")]), Some(0.048));
    assert_eq!(value("ehpc_nfs_client_read_bytes_total", &[("client", "10.182.15.51:700")]), Some(2048.0));
}
