//! `-v` and `-vv`. Scripts read the lines of HAProxy's own output: version, TARGET, feature list, services.

use crate::proxy::config::conditional::{COMPATIBLE_VERSION, FEATURES};
use std::fmt::Write;

/// The text; `long`: what it was built with too.
pub(super) fn text(long: bool) -> String {
    let own = env!("CARGO_PKG_VERSION");
    let haproxy = COMPATIBLE_VERSION;
    let mut text = format!("HAProxy version {haproxy}-ehpc-store-{own} - the proxy of ehpc-store {own}\n");
    if !long {
        return text;
    }
    // Writing into a string does not fail.
    let _ = write!(
        text,
        "\
Build options :
  TARGET  = linux-glibc
  CPU     = {arch}

Feature list : {features}

Default settings :
  bufsize = 16384, maxrewrite = 1024, maxpollevents = 200

Built with multi-threading support (MAX_THREADS=64, default={threads}).

Available polling systems :
      epoll : pref=300,  test result OK
Total: 1 (1 usable), will use epoll.

Available multiplexer protocols :
  <default> : mode=HTTP  side=FE|BE  mux=H1    flags=HTX
         h1 : mode=HTTP  side=FE|BE  mux=H1    flags=HTX|NO_UPG
  <default> : mode=TCP   side=FE|BE  mux=PASS  flags=
       none : mode=TCP   side=FE|BE  mux=PASS  flags=NO_UPG

Available services : prometheus-exporter

Available filters : none
",
        arch = std::env::consts::ARCH,
        features = features(),
        threads = std::thread::available_parallelism().map_or(1, usize::from),
    );
    text
}

/// Names that HAProxy's list has and this product has not; scripts look for the sign before them.
const ABSENT: &[&str] = &[
    "51DEGREES",
    "DEVICEATLAS",
    "LUA",
    "NS",
    "OPENSSL",
    "OT",
    "PCRE",
    "PCRE2",
    "QUIC",
    "SLZ",
    "TFO",
    "TPROXY",
    "WURFL",
    "ZLIB",
];

fn features() -> String {
    let signed = |sign: char| move |name: &&str| format!("{sign}{name}");
    let mut all: Vec<String> =
        FEATURES.iter().map(signed('+')).chain(ABSENT.iter().map(signed('-'))).collect();
    all.sort_by(|a, b| a[1..].cmp(&b[1..]));
    all.join(" ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn scripts_find_their_lines() {
        let text = super::text(true);
        assert!(text.starts_with("HAProxy version 2.6.12-"), "{text}");
        for wanted in ["\n  TARGET  = linux-glibc\n", "\nFeature list : ", "\nAvailable services : "] {
            assert!(text.contains(wanted), "{wanted} in {text}");
        }
        assert_eq!(super::text(false).lines().count(), 1);
    }
}
