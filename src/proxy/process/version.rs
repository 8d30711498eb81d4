//! `-v` and `-vv`. Scripts read the lines of HAProxy's own output: version, TARGET, feature list, services.

use std::fmt::Write;

/// The HAProxy whose configuration and behaviour this proxy has.
pub(super) const HAPROXY: &str = "2.6.12";

/// The text; `long`: what it was built with too.
pub(super) fn text(long: bool) -> String {
    let own = env!("CARGO_PKG_VERSION");
    let mut text = format!("HAProxy version {HAPROXY}-ehpc-store-{own} - the proxy of ehpc-store {own}\n");
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

Feature list : +EPOLL +THREAD -OPENSSL -LUA -PCRE -PCRE2 -SLZ -ZLIB -QUIC -NS -NETFILTER -DEVICEATLAS -51DEGREES \
-WURFL -OT +GETADDRINFO +ACCEPT4 +CRYPT_H +LIBCRYPT +SYSTEMD +PRCTL +RT -TFO -TPROXY

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

Available services : none

Available filters : none
",
        arch = std::env::consts::ARCH,
        threads = std::thread::available_parallelism().map_or(1, usize::from),
    );
    text
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
