//! Sections into the model: defaults are applied already, now names become indices, and conditions, expressions, rules
//! and formats are compiled.

use super::draft::{BalanceChoice, CheckChoice, Draft, FormatChoice, LogChoice, ServerDraft, StatsDraft};
use super::model::{
    BackendName, Balance, Captures, Check, Config, Global, HttpCheck, LogTarget, Mode, Proxy, ProxyIndex,
    Server, StatsPage, StickRule, UseBackend,
};
use super::sections::Sections;
use super::surroundings::Surroundings;
use super::values::{Unit, number, time};
use super::words::{Line, Parsed, Words};
use crate::proxy::expression::{
    Acl, Acls, Condition, Expression, LogFormat, Moment, Names, Scope, SectionName, VariableNames,
};
use crate::proxy::rules::{RequestRule, ResponseRule, TcpRule};
use crate::settings::problem::nearest;
use crate::settings::{Problem, Problems};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Largest pattern file, map, error file of a rule.
const LARGEST_FILE: u64 = 64 << 20;

/// The model of everything that was read. Problems are added; what has one is left out.
pub(crate) fn compile(sections: Sections, surroundings: &Surroundings, problems: &mut Problems) -> Config {
    let Sections { global, proxies: drafts, mut userlists, without_meaning, warnings, .. } = sections;
    let userlists: Vec<_> = userlists.drain(..).map(|draft| Arc::new(draft.list)).collect();
    let names = Names { proxies: drafts.iter().map(section_name).collect(), userlists: userlists.clone() };
    let variables = RefCell::new(VariableNames::default());
    let read = |path: &Path| read_whole(surroundings, path);
    let mut config = Config { global, userlists, without_meaning, warnings, ..Config::default() };
    for (index, draft) in drafts.iter().enumerate() {
        let mut compiler = Compiler {
            index,
            draft,
            cookielen: config.global.tune.cookielen,
            names: &names,
            variables: &variables,
            read: &read,
            acls: Acls::default(),
            warnings: &mut config.warnings,
            without_meaning: &mut config.without_meaning,
            problems,
        };
        let proxy = compiler.proxy(&config.global);
        config.proxies.push(proxy);
    }
    config
}

fn section_name(draft: &Draft) -> SectionName {
    SectionName {
        name: draft.name.clone(),
        front: draft.kind.front(),
        back: draft.kind.back(),
        servers: draft.servers.iter().map(|server| server.server.name.clone()).collect(),
        table: draft.stick_table.is_some(),
    }
}

fn read_whole(surroundings: &Surroundings, path: &Path) -> io::Result<Vec<u8>> {
    let bytes = (surroundings.read)(path, LARGEST_FILE)?;
    match bytes.len() as u64 > LARGEST_FILE {
        true => Err(io::Error::other("the file is larger than 64 MiB")),
        false => Ok(bytes),
    }
}

/// One section being compiled.
struct Compiler<'c> {
    index: ProxyIndex,
    draft: &'c Draft,
    cookielen: usize,
    names: &'c Names,
    variables: &'c RefCell<VariableNames>,
    read: &'c dyn Fn(&Path) -> io::Result<Vec<u8>>,
    acls: Acls,
    warnings: &'c mut Vec<String>,
    without_meaning: &'c mut BTreeMap<String, usize>,
    problems: &'c mut Problems,
}

impl Compiler<'_> {
    fn proxy(&mut self, global: &Global) -> Proxy {
        let draft = self.draft;
        let mut proxy = plain(draft, global);
        proxy.default_backend = self.default_backend();
        for line in &draft.deferred {
            let mut words = Words::new(line);
            if let Err(problem) = self.line(&mut proxy, &mut words) {
                self.problems.0.push(*problem);
            }
        }
        proxy.log_format = Arc::new(self.log_format(&proxy.captures));
        self.without_effect(&proxy);
        proxy.balance = self.balance(&proxy.captures);
        let admin = draft.deferred.iter().any(|line| line.words[0].text == "stats");
        let page = draft.stats.clone().or_else(|| admin.then(StatsDraft::default));
        proxy.stats = page.map(|stats| self.stats(&stats, &proxy.captures));
        proxy
    }

    /// Lines that another line would have to give an effect.
    fn without_effect(&mut self, proxy: &Proxy) {
        let (draft, site) = (self.draft, &self.draft.site);
        let (check, send) = (&draft.http_check, &draft.check_send);
        let asked = check.expect.is_some() || send.uri.is_some() || !send.headers.is_empty();
        if draft.kind.back() && asked && draft.check != CheckChoice::Http {
            let what = "`http-check` has no effect without `option httpchk`";
            self.warnings.push(format!("{site}: `{}`: {what}", draft.name));
        }
        if let FormatChoice::Own(line) = &draft.log_format
            && draft.kind.front()
            && proxy.logs.is_empty()
        {
            let what = format!("`{}` has no `log`: its log-format has no effect", draft.name);
            self.warnings.push(format!("{}: {what}", Words::new(line).site()));
        }
    }

    fn keep<T>(&mut self, parsed: Parsed<T>) -> Option<T> {
        match parsed {
            Ok(value) => Some(value),
            Err(problem) => {
                self.problems.0.push(*problem);
                None
            }
        }
    }

    fn scope<'s>(&'s self, captures: &'s Captures) -> Scope<'s> {
        Scope {
            proxy: Some(self.index),
            names: self.names,
            acls: &self.acls,
            captures,
            variables: self.variables,
            moment: Moment::Any,
            read: self.read,
        }
    }

    /// Notes a word that means nothing in this engine.
    fn note(&mut self, word: Option<&str>) {
        if let Some(word) = word {
            *self.without_meaning.entry(word.to_owned()).or_default() += 1;
        }
    }

    /// One line that waited.
    fn line(&mut self, proxy: &mut Proxy, words: &mut Words<'_>) -> Parsed<()> {
        let captures = proxy.captures.clone();
        let first = words.next().unwrap_or_default();
        match first {
            "acl" => {
                let acl = Acl::parse(words, &self.scope(&captures))?;
                self.acls.add(acl);
            }
            "capture" => capture(proxy, words, self.cookielen)?,
            "declare" => {
                words.next();
                declare(proxy, words)?;
            }
            "http-request" | "redirect" => {
                let scope = self.scope(&captures);
                let rule = match first {
                    "redirect" => RequestRule::parse_redirect(words, &scope)?,
                    _ => RequestRule::parse(words, &scope)?,
                };
                self.note(rule.without_meaning());
                if let Some(length) = rule.declared_capture() {
                    proxy.captures.request.push((Vec::new(), length));
                }
                proxy.request_rules.push(rule);
            }
            "http-response" => {
                let rule = ResponseRule::parse(words, &self.scope(&captures))?;
                self.note(rule.without_meaning());
                proxy.response_rules.push(rule);
            }
            "http-after-response" => {
                proxy.after_response_rules.push(ResponseRule::parse_after(words, &self.scope(&captures))?);
            }
            "tcp-request" => {
                if words.take("inspect-delay") {
                    // No rule looks at bytes that would have to be waited for.
                    time(words, Unit::Milliseconds)?;
                    self.note(Some("tcp-request inspect-delay"));
                } else {
                    proxy.tcp_request.push(TcpRule::parse(words, &self.scope(&captures))?);
                }
            }
            "monitor" => {
                words.next();
                proxy.monitor_fail.push(Condition::parse(words, &self.scope(&captures))?);
            }
            "use_backend" => {
                let rule = self.use_backend(words, &captures)?;
                proxy.use_backend.push(rule);
            }
            "stick" => {
                let rule = self.stick(words, &captures)?;
                proxy.stick_rules.push(rule);
            }
            // Compiled with the page.
            "stats" => return Ok(()),
            other => return Err(words.problem_before(&format!("unknown word `{other}`"), "", "")),
        }
        words.end()
    }

    fn backend(&self, name: &str, words: &Words<'_>) -> Parsed<ProxyIndex> {
        self.names
            .backend(name)
            .ok_or_else(|| words.problem_before(&no_backend(name), "", &self.near_backend(name)))
    }

    fn near_backend(&self, name: &str) -> String {
        let known =
            self.names.proxies.iter().filter(|section| section.back).map(|section| section.name.as_str());
        match nearest(name, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("add a section `backend {name}`"),
        }
    }

    fn default_backend(&mut self) -> Option<ProxyIndex> {
        let (name, site) = self.draft.default_backend.as_ref().filter(|_| self.draft.kind.front())?;
        let found = self.names.backend(name);
        if found.is_none() && !self.draft.disabled {
            let next = self.near_backend(name);
            let what = no_backend(name);
            self.problems.0.push(Problem { site: site.clone(), what, expected: String::new(), next });
        }
        found
    }

    fn use_backend(&self, words: &mut Words<'_>, captures: &Captures) -> Parsed<UseBackend> {
        let scope = self.scope(captures);
        let dynamic = words.peek().is_some_and(|name| name.contains('%'));
        let target = if dynamic {
            BackendName::Dynamic(LogFormat::parse_text(words, &scope)?)
        } else {
            let name = words.demand("the name of a backend")?;
            BackendName::Fixed(self.backend(name, words)?)
        };
        Ok(UseBackend { target, condition: Condition::parse_optional(words, &scope)? })
    }

    fn stick(&self, words: &mut Words<'_>, captures: &Captures) -> Parsed<StickRule> {
        let kind = words.demand("on, match, store-request or store-response")?;
        let moment = if kind == "store-response" { Moment::Response } else { Moment::Request };
        let scope = Scope { moment, ..self.scope(captures) };
        let expression = Expression::parse(words, &scope)?;
        let table = match words.take("table") {
            true => {
                let name = words.demand("the name of a backend")?;
                self.backend(name, words)?
            }
            false => self.index,
        };
        if self.names.proxies.get(table).is_none_or(|section| !section.table) {
            let next = "add `stick-table type ip size 200k expire 30m` to it";
            return Err(words.problem_before("the backend has no stick-table", "a stick-table", next));
        }
        Ok(StickRule {
            matches: matches!(kind, "on" | "match"),
            stores: matches!(kind, "on" | "store-request" | "store-response"),
            of_response: kind == "store-response",
            expression,
            table,
            condition: Condition::parse_optional(words, &scope)?,
        })
    }

    fn log_format(&mut self, captures: &Captures) -> LogFormat {
        let http = self.draft.mode == Mode::Http;
        match &self.draft.log_format {
            FormatChoice::Default => LogFormat::connect_from(),
            FormatChoice::Http if http => LogFormat::httplog(),
            FormatChoice::HttpClf if http => LogFormat::httplog_clf(),
            FormatChoice::Tcp => LogFormat::tcplog(),
            FormatChoice::Http | FormatChoice::HttpClf => {
                let (name, site) = (&self.draft.name, &self.draft.site);
                if self.draft.kind.front() {
                    let what =
                        format!("`option httplog` needs `mode http`; `{name}` logs as with `option tcplog`");
                    self.warnings.push(format!("{site}: {what}"));
                }
                LogFormat::tcplog()
            }
            FormatChoice::Own(line) => self.format_of(line, captures).unwrap_or_default(),
        }
    }

    /// The format in a line `log-format FORMAT`.
    fn format_of(&mut self, line: &Line, captures: &Captures) -> Option<LogFormat> {
        let mut words = Words::new(line);
        words.next();
        let parsed = LogFormat::parse(&mut words, &self.scope(captures));
        let parsed = parsed.and_then(|format| words.end().map(|()| format));
        self.keep(parsed)
    }

    fn balance(&mut self, captures: &Captures) -> Balance {
        match &self.draft.balance {
            BalanceChoice::RoundRobin => Balance::RoundRobin,
            BalanceChoice::StaticRoundRobin => Balance::StaticRoundRobin,
            BalanceChoice::LeastConn => Balance::LeastConn,
            BalanceChoice::First => Balance::First,
            BalanceChoice::Source => Balance::Source,
            BalanceChoice::Random => Balance::Random,
            BalanceChoice::Hash(line) => {
                let parsed = Expression::parse(&mut Words::new(line), &self.scope(captures));
                self.keep(parsed).map_or(Balance::RoundRobin, Balance::Hash)
            }
        }
    }

    fn stats(&mut self, stats: &StatsDraft, captures: &Captures) -> StatsPage {
        let mut admin = Vec::new();
        for line in self.draft.deferred.iter().filter(|line| line.words[0].text == "stats") {
            let mut words = Words::new(line);
            words.next();
            words.next();
            let parsed = Condition::parse(&mut words, &self.scope(captures));
            admin.extend(self.keep(parsed));
        }
        StatsPage {
            uri: stats.uri.clone().unwrap_or_else(|| b"/haproxy?stats".to_vec()),
            realm: stats.realm.clone().unwrap_or_else(|| "HAProxy Statistics".to_owned()),
            users: stats.users.clone(),
            refresh: stats.refresh,
            hide_version: stats.hide_version,
            show_node: stats.show_node.clone(),
            show_desc: stats.show_desc.clone(),
            show_legends: stats.show_legends,
            scope: stats
                .scope
                .iter()
                .map(|name| if name == "." { self.draft.name.clone() } else { name.clone() })
                .collect(),
            admin,
        }
    }
}

fn no_backend(name: &str) -> String {
    format!("there is no backend `{name}`")
}

/// `most_cookie`: `tune.http.cookielen`. `capture cookie NAME len N`, `capture request|response header NAME len N`.
fn capture(proxy: &mut Proxy, words: &mut Words<'_>, most_cookie: usize) -> Parsed<()> {
    let kind = words.demand("cookie, request header or response header")?;
    if kind != "cookie" {
        let word = words.demand("header")?;
        if word != "header" {
            return Err(words.problem_before(&format!("`{word}` cannot be captured"), "header", ""));
        }
    }
    let name = words.demand("a name")?;
    let length = length(words)?;
    match kind {
        "cookie" => {
            // A name captures every cookie that begins so; one with `=` at its end only itself.
            let exact = name.strip_suffix('=');
            let name = exact.unwrap_or(name).as_bytes().to_vec();
            proxy.captures.cookie = Some((name, exact.is_none(), length.min(most_cookie)));
        }
        "request" => proxy.captures.request.push((name.to_ascii_lowercase().into_bytes(), length)),
        _ => proxy.captures.response.push((name.to_ascii_lowercase().into_bytes(), length)),
    }
    Ok(())
}

/// `declare capture request|response len N`.
fn declare(proxy: &mut Proxy, words: &mut Words<'_>) -> Parsed<()> {
    let side = words.demand("request or response")?;
    let captures = match side {
        "request" => &mut proxy.captures.request,
        "response" => &mut proxy.captures.response,
        other => {
            return Err(words.problem_before(&format!("unknown word `{other}`"), "request or response", ""));
        }
    };
    captures.push((Vec::new(), length(words)?));
    Ok(())
}

fn length(words: &mut Words<'_>) -> Parsed<usize> {
    match words.demand("len N")? {
        "len" => number(words, "bytes", 1..=65_535_usize),
        other => Err(words.problem_before(&format!("unknown word `{other}`"), "len N", "")),
    }
}

/// What needs no look at other sections.
fn plain(draft: &Draft, global: &Global) -> Proxy {
    Proxy {
        name: draft.name.clone(),
        site: draft.site.clone(),
        front: draft.kind.front(),
        back: draft.kind.back(),
        mode: draft.mode,
        disabled: draft.disabled,
        id: draft.id.unwrap_or(0),
        description: draft.description.clone(),
        binds: draft.binds.clone(),
        maxconn: draft.maxconn,
        backlog: draft.backlog,
        default_backend: None,
        use_backend: Vec::new(),
        monitor_uri: draft.monitor_uri.clone(),
        monitor_fail: Vec::new(),
        captures: draft.captures.clone(),
        tcp_request: Vec::new(),
        servers: draft.servers.iter().map(server).collect(),
        balance: Balance::RoundRobin,
        cookie: draft.cookie.clone(),
        retries: draft.retries,
        redispatch: draft.redispatch,
        fullconn: draft.fullconn,
        load_state: draft.load_state,
        state_file_name: draft.state_file_name.clone(),
        check: check(draft),
        stick_table: draft.stick_table.clone(),
        stick_rules: Vec::new(),
        reuse: draft.reuse,
        timeouts: draft.timeouts,
        connection: draft.connection,
        options: draft.options,
        forward_for: draft.forward_for.clone(),
        original_to: draft.original_to.clone(),
        request_rules: Vec::new(),
        response_rules: Vec::new(),
        after_response_rules: Vec::new(),
        stats: None,
        error_files: draft.error_files.clone(),
        logs: logs(draft, global),
        log_tag: draft.log_tag.clone(),
        log_format: Arc::default(),
    }
}

fn logs(draft: &Draft, global: &Global) -> Vec<LogTarget> {
    let mut targets = Vec::new();
    for log in &draft.logs {
        match log {
            LogChoice::Global => targets.extend(global.logs.iter().cloned()),
            LogChoice::Own(target) => targets.push(target.clone()),
        }
    }
    targets
}

fn check(draft: &Draft) -> Check {
    match &draft.check {
        CheckChoice::Connect => Check::Connect,
        CheckChoice::Http => Check::Http(http_check(draft)),
        CheckChoice::Mysql { user, post_41 } => Check::Mysql { user: user.clone(), post_41: *post_41 },
    }
}

/// `option httpchk` with what `http-check send` adds.
fn http_check(draft: &Draft) -> HttpCheck {
    let (mut check, send) = (draft.http_check.clone(), &draft.check_send);
    check.method = send.method.clone().unwrap_or(check.method);
    check.uri = send.uri.clone().unwrap_or(check.uri);
    check.version = send.version.unwrap_or(check.version);
    check.headers.extend(send.headers.iter().cloned());
    check.body.clone_from(&send.body);
    check
}

fn server(draft: &ServerDraft) -> Server {
    let mut server = draft.server.clone();
    server.id = draft.id.unwrap_or(0);
    server.check = draft.check.then(|| draft.timing.clone());
    // Slow start of no length is none.
    server.slowstart = server.slowstart.filter(|time| *time > Duration::ZERO);
    server
}
