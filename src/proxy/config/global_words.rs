//! Words of section `global` (3 of the manual).

use super::bind_words;
use super::draft::{Context, LogChoice};
use super::identity;
use super::log_words;
use super::model::Global;
use super::values::{Unit, number, time};
use super::vocabulary::Class::{Honoured, Refused, WithoutMeaning};
use super::vocabulary::{Handler, Places, Row, row};
use super::words::{Parsed, Words};
use std::path::PathBuf;

const G: Places = Places::GLOBAL;
const UNTIL_TLS: &str = "no effect until TLS is supported";

const fn honoured(
    word: &'static str,
    read: fn(&mut Global, &mut Words<'_>, &mut Context<'_>) -> Parsed<()>,
    help: &'static str,
) -> Row {
    row(word, G, Honoured(Handler::Global(read)), help)
}

const fn done(word: &'static str, help: &'static str) -> Row {
    row(word, G, Honoured(Handler::Done), help)
}

const fn meaningless(word: &'static str, help: &'static str) -> Row {
    row(word, G, WithoutMeaning(0), help)
}

const fn refused(word: &'static str, reason: &'static str) -> Row {
    row(word, G, Refused(reason), "")
}

/// A path.
fn path(words: &mut Words<'_>, what: &str) -> Parsed<Option<PathBuf>> {
    Ok(Some(PathBuf::from(words.demand(what)?)))
}

fn set<T>(place: &mut T, value: T) -> Parsed<()> {
    *place = value;
    Ok(())
}

/// As HAProxy: what is said first counts, and a second time is told.
fn once<T>(
    place: &mut Option<T>,
    value: Option<T>,
    words: &Words<'_>,
    context: &mut Context<'_>,
) -> Parsed<()> {
    match place {
        Some(_) => {
            let word = context.line.words.first().map_or("", |word| word.text.as_str());
            context.warn(&words.site_before(), &format!("`{word}` was said before; the first counts"));
        }
        None => *place = value,
    }
    Ok(())
}

/// `log` in global: no `global` there.
fn log(global: &mut Global, words: &mut Words<'_>, context: &mut Context<'_>) -> Parsed<()> {
    match log_words::parse(words, context)? {
        LogChoice::Own(target) => global.logs.push(target),
        LogChoice::Global => {
            return Err(words.problem_before(
                "`log global` stands in section `global` itself",
                "a target",
                "",
            ));
        }
    }
    Ok(())
}

fn log_send_hostname(global: &mut Global, words: &mut Words<'_>, _: &mut Context<'_>) -> Parsed<()> {
    let own = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    global.log_hostname = Some(words.next().map_or_else(own, str::to_owned));
    Ok(())
}

fn nbproc(_: &mut Global, words: &mut Words<'_>, context: &mut Context<'_>) -> Parsed<()> {
    if words.demand("1")? != "1" {
        return Err(words.problem_before("several processes are not supported", "1", "use nbthread"));
    }
    context.meaningless("nbproc");
    Ok(())
}

fn thread_groups(_: &mut Global, words: &mut Words<'_>, context: &mut Context<'_>) -> Parsed<()> {
    if words.demand("1")? != "1" {
        return Err(words.problem_before("several thread groups are not supported", "1", "use nbthread"));
    }
    context.meaningless("thread-groups");
    Ok(())
}

fn default_path(_: &mut Global, words: &mut Words<'_>, _: &mut Context<'_>) -> Parsed<()> {
    match words.demand("current")? {
        "current" => Ok(()),
        _ => Err(words.problem_before(
            "only `default-path current` is supported",
            "current",
            "write whole paths",
        )),
    }
}

/// The words, in the order of the manual: 3.1, then 3.2.
pub(crate) const ROWS: &[Row] = &[
    honoured(
        "chroot",
        |g, w, c| {
            let value = path(w, "a directory")?;
            once(&mut g.chroot, value, w, c)
        },
        "root directory after the start",
    ),
    honoured("daemon", |g, _, _| set(&mut g.daemon, true), "go to the background"),
    honoured("default-path", default_path, "where relative paths begin"),
    honoured("description", |g, w, _| set(&mut g.description, Some(rest(w)?)), "text of the stats page"),
    honoured(
        "gid",
        |g, w, c| {
            let value = identity::id(w)?;
            once(&mut g.group, value, w, c)
        },
        "group of the process, by number",
    ),
    honoured(
        "group",
        |g, w, c| {
            let value = identity::group(w, c)?;
            once(&mut g.group, value, w, c)
        },
        "group of the process, by name",
    ),
    honoured(
        "hard-stop-after",
        |g, w, _| set(&mut g.hard_stop_after, Some(time(w, Unit::Milliseconds)?)),
        "longest duration of a soft stop",
    ),
    honoured("log", log, "where log lines go"),
    honoured("log-send-hostname", log_send_hostname, "host name in syslog headers"),
    honoured(
        "log-tag",
        |g, w, _| set(&mut g.log_tag, w.demand("a name")?.to_owned()),
        "program name in syslog headers",
    ),
    honoured("master-worker", master_worker, "a master process that reloads"),
    honoured(
        "maxconn",
        |g, w, c| {
            let value = Some(number(w, "connections", 0..=u32::MAX)?).filter(|n| *n > 0);
            once(&mut g.maxconn, value, w, c)
        },
        "connections of the process at once",
    ),
    honoured("nbproc", nbproc, "only 1"),
    honoured(
        "nbthread",
        |g, w, _| set(&mut g.nbthread, Some(number(w, "threads", 1..=64_u16)?)),
        "number of threads",
    ),
    honoured(
        "node",
        |g, w, _| set(&mut g.node, Some(w.demand("a name")?.to_owned())),
        "name of the stats page",
    ),
    honoured(
        "server-state-base",
        |g, w, _| {
            let value = path(w, "a directory")?;
            set(&mut g.server_state_base, value)
        },
        "directory of state files",
    ),
    honoured(
        "server-state-file",
        |g, w, _| {
            let value = path(w, "a file")?;
            set(&mut g.server_state_file, value)
        },
        "states of servers at the start",
    ),
    honoured(
        "spread-checks",
        |g, w, _| set(&mut g.spread_checks, number(w, "percent", 0..=50)?),
        "how much the time between checks varies",
    ),
    honoured(
        "pidfile",
        |g, w, c| {
            let value = path(w, "a file")?;
            once(&mut g.pidfile, value, w, c)
        },
        "file for the process id",
    ),
    honoured("stats socket", bind_words::stats_socket, "socket for run-time commands"),
    honoured(
        "stats timeout",
        |g, w, _| set(&mut g.stats_timeout, time(w, Unit::Milliseconds)?),
        "idle time of run-time connections",
    ),
    honoured(
        "stats maxconn",
        |g, w, _| set(&mut g.stats_maxconn, number(w, "connections", 1..=65_535)?),
        "run-time connections at once",
    ),
    honoured("thread-groups", thread_groups, "only 1"),
    honoured(
        "uid",
        |g, w, c| {
            let value = identity::id(w)?;
            once(&mut g.user, value, w, c)
        },
        "user of the process, by number",
    ),
    honoured(
        "ulimit-n",
        |g, w, c| {
            let value = Some(number(w, "descriptors", 0..=i32::MAX as u64)?);
            once(&mut g.ulimit_n, value, w, c)
        },
        "descriptors of the process",
    ),
    honoured(
        "user",
        |g, w, c| {
            let value = identity::user(w, c)?;
            once(&mut g.user, value, w, c)
        },
        "user of the process, by name",
    ),
    honoured("unix-bind", bind_words::unix_bind, "what Unix sockets get that do not say otherwise"),
    done("presetenv", "sets a variable that is not set"),
    done("resetenv", "removes all variables but some"),
    done("setenv", "sets a variable"),
    done("unsetenv", "removes variables"),
    honoured(
        "tune.bufsize",
        |g, w, _| set(&mut g.tune.bufsize, number(w, "bytes", 1_024..=1 << 20)?),
        "bytes of a buffer",
    ),
    honoured(
        "tune.maxrewrite",
        |g, w, _| set(&mut g.tune.maxrewrite, number(w, "bytes", 0..=1 << 19)?),
        "bytes for what rules add",
    ),
    honoured(
        "tune.http.maxhdr",
        |g, w, _| set(&mut g.tune.maxhdr, number(w, "header fields", 1..=32_767)?),
        "header fields of a message",
    ),
    honoured(
        "tune.http.cookielen",
        |g, w, _| set(&mut g.tune.cookielen, number(w, "bytes", 1..=65_535)?),
        "longest captured cookie",
    ),
    honoured(
        "tune.http.logurilen",
        |g, w, _| set(&mut g.tune.logurilen, number(w, "bytes", 1..=65_535)?),
        "longest logged URI",
    ),
    honoured("zero-warning", |g, _, _| set(&mut g.zero_warning, true), "a warning is a reason not to start"),
    // Without meaning here.
    meaningless("busy-polling", "how the event loop waits"),
    meaningless("cluster-secret", "only for QUIC"),
    meaningless("cpu-map", "threads are placed by the kernel"),
    meaningless("expose-experimental-directives", "every known word is accepted or refused"),
    meaningless("insecure-fork-wanted", "no program is started"),
    meaningless("insecure-setuid-wanted", "no program is started"),
    meaningless("localpeer", "there are no peers"),
    meaningless("httpclient.resolvers.id", "there is no HTTP client"),
    meaningless("httpclient.resolvers.prefer", "there is no HTTP client"),
    meaningless("httpclient.ssl.ca-file", "there is no HTTP client"),
    meaningless("httpclient.ssl.verify", "there is no HTTP client"),
    meaningless("maxcompcpuusage", "there is no compression"),
    meaningless("maxcomprate", "there is no compression"),
    meaningless("maxpipes", "data is not spliced through pipes"),
    meaningless("maxzlibmem", "there is no compression"),
    meaningless("no-memory-trimming", "memory is managed otherwise"),
    meaningless("noepoll", "the event loop is epoll"),
    meaningless("noevports", "the event loop is epoll"),
    meaningless("nogetaddrinfo", "names are resolved by the system"),
    meaningless("nokqueue", "the event loop is epoll"),
    meaningless("nopoll", "the event loop is epoll"),
    meaningless("nosplice", "data is not spliced"),
    meaningless("numa-cpu-mapping", "threads are placed by the kernel"),
    meaningless("prealloc-fd", "descriptors are allocated by the kernel"),
    meaningless("profiling.memory", "profiling of HAProxy's own parts"),
    meaningless("profiling.tasks", "profiling of HAProxy's own parts"),
    meaningless("quiet", "messages are few"),
    meaningless("set-dumpable", "core files are the system's matter"),
    meaningless("stats bind-process", "there is one process"),
    meaningless("strict-limits", "a limit that is too low is a warning"),
    meaningless("thread-group", "there is one group"),
    meaningless("tune.buffers.limit", "memory is managed otherwise"),
    meaningless("tune.buffers.reserve", "memory is managed otherwise"),
    meaningless("tune.chksize", "memory is managed otherwise"),
    meaningless("tune.comp.maxlevel", "there is no compression"),
    meaningless("tune.fail-alloc", "a test of HAProxy"),
    meaningless("tune.fd.edge-triggered", "how the event loop waits"),
    meaningless("tune.h2.header-table-size", "there is no HTTP/2 yet"),
    meaningless("tune.h2.initial-window-size", "there is no HTTP/2 yet"),
    meaningless("tune.h2.max-concurrent-streams", "there is no HTTP/2 yet"),
    meaningless("tune.h2.max-frame-size", "there is no HTTP/2 yet"),
    meaningless("tune.idle-pool.shared", "idle connections stay with their thread"),
    meaningless("tune.idletimer", "detection of streams for splicing"),
    meaningless("tune.listener.multi-queue", "how connections reach threads"),
    meaningless("tune.lua.forced-yield", "there is no Lua"),
    meaningless("tune.lua.maxmem", "there is no Lua"),
    meaningless("tune.lua.service-timeout", "there is no Lua"),
    meaningless("tune.lua.session-timeout", "there is no Lua"),
    meaningless("tune.lua.task-timeout", "there is no Lua"),
    meaningless(
        "tune.maxaccept",
        "connections are accepted while there are any and other work does not wait",
    ),
    meaningless("tune.maxpollevents", "how the event loop waits"),
    meaningless("tune.memory.hot-size", "memory is managed otherwise"),
    meaningless("tune.pattern.cache-size", "pattern look-ups are not cached"),
    meaningless("tune.peers.max-updates-at-once", "there are no peers"),
    meaningless("tune.pipesize", "data is not spliced"),
    meaningless("tune.pool-high-fd-ratio", "idle connections are bounded otherwise"),
    meaningless("tune.pool-low-fd-ratio", "idle connections are bounded otherwise"),
    meaningless("tune.quic.frontend.conn-tx-buffers.limit", "there is no QUIC"),
    meaningless("tune.quic.frontend.max-idle-timeout", "there is no QUIC"),
    meaningless("tune.quic.frontend.max-streams-bidi", "there is no QUIC"),
    meaningless("tune.quic.max-frame-loss", "there is no QUIC"),
    meaningless("tune.quic.retry-threshold", "there is no QUIC"),
    meaningless("tune.rcvbuf.client", "socket buffers are sized by the kernel"),
    meaningless("tune.rcvbuf.server", "socket buffers are sized by the kernel"),
    meaningless("tune.recv_enough", "how reads are sized"),
    meaningless("tune.runqueue-depth", "how the event loop works"),
    meaningless("tune.sched.low-latency", "how the event loop works"),
    meaningless("tune.sndbuf.client", "socket buffers are sized by the kernel"),
    meaningless("tune.sndbuf.server", "socket buffers are sized by the kernel"),
    meaningless("tune.stick-counters", "rates are not tracked yet"),
    meaningless("tune.vars.check-max-size", "variables are bounded by the buffers"),
    meaningless("tune.vars.global-max-size", "variables are bounded by the buffers"),
    meaningless("tune.vars.proc-max-size", "variables are bounded by the buffers"),
    meaningless("tune.vars.reqres-max-size", "variables are bounded by the buffers"),
    meaningless("tune.vars.sess-max-size", "variables are bounded by the buffers"),
    meaningless("tune.vars.txn-max-size", "variables are bounded by the buffers"),
    meaningless("tune.zlib.memlevel", "there is no compression"),
    meaningless("tune.zlib.windowsize", "there is no compression"),
    // They say how TLS would be done; `bind ... ssl` and `server ... ssl` themselves are refused.
    meaningless("ca-base", UNTIL_TLS),
    meaningless("crt-base", UNTIL_TLS),
    meaningless("issuers-chain-path", UNTIL_TLS),
    meaningless("maxsslconn", UNTIL_TLS),
    meaningless("ssl-default-bind-ciphers", UNTIL_TLS),
    meaningless("ssl-default-bind-ciphersuites", UNTIL_TLS),
    meaningless("ssl-default-bind-curves", UNTIL_TLS),
    meaningless("ssl-default-bind-options", UNTIL_TLS),
    meaningless("ssl-default-server-ciphers", UNTIL_TLS),
    meaningless("ssl-default-server-ciphersuites", UNTIL_TLS),
    meaningless("ssl-default-server-options", UNTIL_TLS),
    meaningless("ssl-dh-param-file", UNTIL_TLS),
    meaningless("ssl-engine", UNTIL_TLS),
    meaningless("ssl-load-extra-del-ext", UNTIL_TLS),
    meaningless("ssl-load-extra-files", UNTIL_TLS),
    meaningless("ssl-mode-async", UNTIL_TLS),
    meaningless("ssl-propquery", UNTIL_TLS),
    meaningless("ssl-provider", UNTIL_TLS),
    meaningless("ssl-provider-path", UNTIL_TLS),
    meaningless("ssl-server-verify", UNTIL_TLS),
    meaningless("ssl-skip-self-issued-ca", UNTIL_TLS),
    meaningless("tune.ssl.cachesize", UNTIL_TLS),
    meaningless("tune.ssl.capture-buffer-size", UNTIL_TLS),
    meaningless("tune.ssl.capture-cipherlist-size", UNTIL_TLS),
    meaningless("tune.ssl.default-dh-param", UNTIL_TLS),
    meaningless("tune.ssl.force-private-cache", UNTIL_TLS),
    meaningless("tune.ssl.hard-maxrecord", UNTIL_TLS),
    meaningless("tune.ssl.keylog", UNTIL_TLS),
    meaningless("tune.ssl.lifetime", UNTIL_TLS),
    meaningless("tune.ssl.maxrecord", UNTIL_TLS),
    meaningless("tune.ssl.ssl-ctx-cache-size", UNTIL_TLS),
    // Refused.
    refused("close-spread-time", "connections are closed at once in a soft stop"),
    refused("debug", "run in the foreground with -db"),
    refused("external-check", "programs are not run as checks; use option httpchk"),
    refused("grace", "removed from HAProxy; a soft stop begins at once"),
    refused("h1-accept-payload-with-any-method", "it opens a way to smuggle requests"),
    refused("h1-case-adjust", "header names are sent in lower case"),
    refused("h1-case-adjust-file", "header names are sent in lower case"),
    refused("lua-load", "Lua is not supported"),
    refused("lua-load-per-thread", "Lua is not supported"),
    refused("lua-prepend-path", "Lua is not supported"),
    refused("max-spread-checks", "not supported yet"),
    refused("maxconnrate", "rates are not limited yet; use maxconn"),
    refused("maxsessrate", "rates are not limited yet; use maxconn"),
    refused("maxsslrate", "rates are not limited yet; use maxconn"),
    refused("mworker-max-reloads", "not supported yet"),
    refused("noreuseport", "not supported yet"),
    refused("pp2-never-send-local", "the PROXY protocol is not supported yet"),
    refused("set-var", "process variables are not supported yet"),
    refused("set-var-fmt", "process variables are not supported yet"),
];

fn rest(words: &mut Words<'_>) -> Parsed<String> {
    words.clone().demand("a text")?;
    Ok(words.rest().iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" "))
}

fn master_worker(global: &mut Global, words: &mut Words<'_>, _: &mut Context<'_>) -> Parsed<()> {
    if words.peek().is_some() {
        let next = "write `master-worker` alone";
        return Err(words.problem("`master-worker` takes no argument here", "the end of the line", next));
    }
    global.master_worker = true;
    Ok(())
}
