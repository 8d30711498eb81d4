//! Names, ranges and pages.

use super::page::{Frame, Language, link};
use super::server::{Part, part};
use super::share::Entry;
use super::upload::safe_name;

#[test]
fn a_name_loses_its_directories_and_must_be_one() {
    assert_eq!(safe_name("C:\\Users\\a\\b c.txt").unwrap(), "b c.txt");
    assert_eq!(safe_name("../../etc/passwd").unwrap(), "passwd");
    assert_eq!(safe_name("报告.pdf").unwrap(), "报告.pdf");
    for bad in ["", "..", ".", "a/", "a\nb", ".upload-1", &"x".repeat(256)] {
        assert!(safe_name(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn ranges_are_those_of_the_rfc() {
    assert_eq!(part("bytes=0-99", 10), Part::Bytes(0, 10));
    assert_eq!(part("bytes=2-4", 10), Part::Bytes(2, 3));
    assert_eq!(part("bytes=7-", 10), Part::Bytes(7, 3));
    assert_eq!(part("bytes=-3", 10), Part::Bytes(7, 3));
    assert_eq!(part("bytes=-30", 10), Part::Bytes(0, 10));
    assert_eq!(part("bytes=10-", 10), Part::Outside);
    assert_eq!(part("bytes=0-", 0), Part::Outside);
    assert_eq!(part("bytes=-0", 10), Part::Outside);
    for odd in ["bytes=4-2", "bytes=a-b", "lines=1-2", "bytes=1-2,4-5", "bytes=18446744073709551615-0"] {
        assert!(matches!(part(odd, 10), Part::Whole | Part::Outside), "{odd}");
    }
}

#[test]
fn a_page_escapes_what_people_upload() {
    let entries = [
        Entry { name: b"<script>\"&'".to_vec(), directory: false, size: 3, modified: 0 },
        Entry { name: vec![0xff, b'?', b'#', b'%'], directory: true, size: 0, modified: 0 },
    ];
    let frame = Frame { language: Language::English, node: "web<1>", nonce: "n" };
    let html = frame.listing("a b", &entries, Some((7, [0; 8])));
    assert!(!html.contains("<script>") && !html.contains("web<1>"), "{html}");
    assert!(html.contains("/files/a%20b/%3Cscript%3E%22%26%27\""), "{html}");
    assert!(html.contains("/files/a%20b/%FF%3F%23%25/\""), "{html}");
    assert!(html.contains("?from=7&amp;verifier=0"), "{html}");
}

#[test]
fn the_browser_chooses_the_language() {
    assert_eq!(Language::choose(Some("fr, zh-CN;q=0.8, en;q=0.5")), Language::Chinese);
    assert_eq!(Language::choose(Some("en-GB,zh")), Language::English);
    assert_eq!(Language::choose(None), Language::English);
    assert_eq!(link(b"", true), "/");
}
