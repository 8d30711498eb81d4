//! One section: its frontend, listeners, servers and backend as a table, with the form of actions.

use super::super::columns::At;
use super::super::{Kind, Row, Value};
use super::text::{duration, escaped, grouped};
use crate::proxy::config::model::{Mode, Proxy};
use std::fmt::Write as _;

/// What a table is made of.
pub(super) struct Section<'p> {
    pub(super) proxy: &'p Proxy,
    pub(super) rows: &'p [Row],
    pub(super) admin: bool,
    pub(super) legends: bool,
}

/// Actions of the form: value, text.
const ACTIONS: &[(&str, &str)] = &[
    ("", ""),
    ("ready", "Set state to READY"),
    ("drain", "Set state to DRAIN"),
    ("maint", "Set state to MAINT"),
    ("dhlth", "Health: disable checks"),
    ("ehlth", "Health: enable checks"),
    ("hrunn", "Health: force UP"),
    ("hnolb", "Health: force NOLB"),
    ("hdown", "Health: force DOWN"),
];

/// The two lines of headings, behind the columns of the check boxes and of the name.
const GROUPS: &[(&str, &[&str])] = &[
    ("Queue", &["Cur", "Max", "Limit"]),
    ("Session rate", &["Cur", "Max", "Limit"]),
    ("Sessions", &["Cur", "Max", "Limit", "Total", "LbTot", "Last"]),
    ("Bytes", &["In", "Out"]),
    ("Denied", &["Req", "Resp"]),
    ("Errors", &["Req", "Conn", "Resp"]),
    ("Warnings", &["Retr", "Redis"]),
    ("Server", &["Status", "LastChk", "Wght", "Act", "Bck", "Chk", "Dwn", "Dwntme", "Thrtle"]),
];

impl Section<'_> {
    pub(super) fn write(&self, out: &mut String) {
        let admin = self.admin && self.proxy.back;
        out.push_str(if admin { "<form method=\"post\">" } else { "" });
        self.title(out);
        out.push_str("<table class=\"tbl\">\n<tr class=\"titre\">");
        if admin {
            out.push_str(
                "<th rowspan=\"2\"><input type=\"checkbox\" onclick=\"for (const box of \
                 this.form.querySelectorAll('input[name=s]')) box.checked = this.checked\"></th>",
            );
        }
        out.push_str("<th rowspan=\"2\"></th>");
        for (group, columns) in GROUPS {
            let _ = write!(out, "<th colspan=\"{}\">{group}</th>", columns.len());
        }
        out.push_str("</tr>\n<tr class=\"titre\">");
        for column in GROUPS.iter().flat_map(|(_, columns)| *columns) {
            let _ = write!(out, "<th>{column}</th>");
        }
        out.push_str("</tr>\n");
        for row in self.rows {
            self.row(row, admin, out);
        }
        out.push_str("</table>\n");
        if admin {
            self.actions(out);
        }
        out.push_str("<p>\n");
    }

    fn title(&self, out: &mut String) {
        let name = escaped(&self.proxy.name);
        let _ = write!(
            out,
            "<table class=\"tbl\"><tr class=\"titre\"><th class=\"pxname\"><a id=\"{name}\"></a>"
        );
        let link = format!("<a class=\"px\" href=\"#{name}\">{name}</a>");
        let tips = self.legends.then(|| {
            let kind = match (self.proxy.front, self.proxy.back) {
                (true, true) => "proxy",
                (true, false) => "frontend",
                _ => "backend",
            };
            let mode = if self.proxy.mode == Mode::Http { "http" } else { "tcp" };
            format!("cap: {kind}, mode: {mode}, id: {}", self.proxy.id)
        });
        out.push_str(&with_tips(&link, tips.as_deref()));
        let description = self.proxy.description.as_deref().map(escaped).unwrap_or_default();
        let _ = writeln!(out, "</th><th class=\"desc\">{description}</th></tr></table>");
    }

    fn row(&self, row: &Row, admin: bool, out: &mut String) {
        let _ = write!(out, "<tr class=\"{}\">", class(row));
        let name = row.get(At::Svname).text();
        if admin {
            match row.kind {
                Kind::Server => {
                    let _ = write!(
                        out,
                        "<td><input type=\"checkbox\" name=\"s\" value=\"{}\"></td>",
                        escaped(name)
                    );
                }
                _ => out.push_str("<td></td>"),
            }
        }
        self.name(row, name, out);
        cells(row, out);
        state(row, out);
        out.push_str("</tr>\n");
    }

    fn name(&self, row: &Row, name: &str, out: &mut String) {
        let (shown, anchor) = match row.kind {
            Kind::Frontend => ("Frontend", "Frontend".to_owned()),
            Kind::Backend => ("Backend", "Backend".to_owned()),
            Kind::Listener => (name, format!("+{name}")),
            Kind::Server => (name, name.to_owned()),
        };
        let anchor = escaped(&format!("{}/{anchor}", self.proxy.name));
        let link =
            format!("<a id=\"{anchor}\"></a><a class=\"lfsb\" href=\"#{anchor}\">{}</a>", escaped(shown));
        let tips = self.legends.then(|| legend(row)).filter(|tips| !tips.is_empty());
        let _ = write!(out, "<td class=\"ac\">{}</td>", with_tips(&link, tips.as_deref()));
    }

    fn actions(&self, out: &mut String) {
        out.push_str("Choose the action to perform on the checked servers : <select name=\"action\">");
        for (value, text) in ACTIONS {
            let _ = write!(out, "<option value=\"{value}\">{text}</option>");
        }
        let _ = writeln!(
            out,
            "</select><input type=\"hidden\" name=\"b\" value=\"#{}\">&nbsp;<input type=\"submit\" \
             value=\"Apply\"></form>",
            self.proxy.id
        );
    }
}

/// What `stats show-legends` shows of a row, behind its name.
fn legend(row: &Row) -> String {
    let mut parts = Vec::new();
    let text = |at: At| Some(row.get(at).text()).filter(|text| !text.is_empty());
    parts.extend(text(At::Addr).map(str::to_owned));
    match row.kind {
        Kind::Server | Kind::Listener => parts.push(format!("id: {}", row.id)),
        _ => {}
    }
    parts.extend(text(At::Cookie).map(|cookie| format!("cookie: '{cookie}'")));
    parts.extend(text(At::Algo).map(|algorithm| format!("balancing: {algorithm}")));
    escaped(&parts.join(", "))
}

/// HTML that shows more of it when the mouse is over it.
fn with_tips(html: &str, tips: Option<&str>) -> String {
    match tips {
        Some(tips) => format!("<u>{html}<span class=\"tips\">{tips}</span></u>"),
        None => html.to_owned(),
    }
}

/// Colour of a row.
fn class(row: &Row) -> String {
    let status = row.get(At::Status).text();
    match row.kind {
        Kind::Frontend => return "frontend".to_owned(),
        Kind::Listener => return "socket".to_owned(),
        Kind::Backend => return "backend".to_owned(),
        Kind::Server if status.starts_with("MAINT") => return "maintain".to_owned(),
        Kind::Server => {}
    }
    let partly = status.contains('/');
    let what = match status.split(' ').next().unwrap_or("") {
        "DOWN" if partly => "going_up",
        "DOWN" => "down",
        "UP" | "NOLB" if partly => "going_down",
        "UP" => "up",
        "NOLB" => "nolb",
        "DRAIN" => "draining",
        _ => "no_check",
    };
    format!("{}_{what}", if row.get(At::Bck).number() == Some(1) { "backup" } else { "active" })
}

/// The cells of numbers, up to the warnings.
fn cells(row: &Row, out: &mut String) {
    const LIMITS: &[At] = &[At::Qlimit, At::RateLim];
    const CELLS: &[At] = &[
        At::Qcur,
        At::Qmax,
        At::Qlimit,
        At::Rate,
        At::RateMax,
        At::RateLim,
        At::Scur,
        At::Smax,
        At::Slim,
        At::Stot,
        At::Lbtot,
        At::Lastsess,
        At::Bin,
        At::Bout,
        At::Dreq,
        At::Dresp,
        At::Ereq,
        At::Econ,
        At::Eresp,
        At::Wretr,
        At::Wredis,
    ];
    for at in CELLS {
        let value = row.get(*at);
        let text = match (at, value.number()) {
            (At::Lastsess, Some(seconds)) => duration(seconds),
            (_, Some(0)) if LIMITS.contains(at) => "-".to_owned(),
            (_, Some(number)) => grouped(number),
            (At::Slim | At::Qlimit, None) if row.kind == Kind::Server => "-".to_owned(),
            (_, None) => String::new(),
        };
        let tips = match at {
            At::Stot => Some(totals(row)),
            At::Eresp if row.kind != Kind::Frontend && !value.is_empty() => Some(format!(
                "Connection resets during transfers: {} client, {} server",
                row.get(At::CliAbrt),
                row.get(At::SrvAbrt)
            )),
            _ => None,
        };
        let _ = write!(out, "<td>{}</td>", with_tips(&text, tips.filter(|tips| !tips.is_empty()).as_deref()));
    }
}

/// What is behind the total of sessions.
fn totals(row: &Row) -> String {
    const LINES: &[(&str, At)] = &[
        ("Cum. connections:", At::ConnTot),
        ("Cum. sessions:", At::Stot),
        ("New connections:", At::Connect),
        ("Reused connections:", At::Reuse),
        ("Cum. HTTP requests:", At::ReqTot),
        ("- HTTP 1xx responses:", At::Hrsp1xx),
        ("- HTTP 2xx responses:", At::Hrsp2xx),
        ("- HTTP 3xx responses:", At::Hrsp3xx),
        ("- HTTP 4xx responses:", At::Hrsp4xx),
        ("- HTTP 5xx responses:", At::Hrsp5xx),
        ("- other responses:", At::HrspOther),
        ("Intercepted requests:", At::Intercepted),
        ("Internal errors:", At::Eint),
    ];
    const TIMES: &[(&str, At, At)] = &[
        ("- Queue time:", At::QtimeMax, At::Qtime),
        ("- Connect time:", At::CtimeMax, At::Ctime),
        ("- Responses time:", At::RtimeMax, At::Rtime),
        ("- Total time:", At::TtimeMax, At::Ttime),
    ];
    if row.kind == Kind::Listener {
        return String::new();
    }
    let mut out = "<table class=\"det\">".to_owned();
    for (title, at) in LINES {
        if let Some(number) = row.get(*at).number() {
            let _ = write!(out, "<tr><th>{title}</th><td>{}</td></tr>", grouped(number));
        }
    }
    if !row.get(At::Qtime).is_empty() {
        out.push_str("<tr><th colspan=\"2\">Max / Avg over last 1024 success. conn.</th></tr>");
        for (title, most, average) in TIMES {
            let (most, average) = (row.get(*most), row.get(*average));
            let _ = write!(out, "<tr><th>{title}</th><td>{most} / {average} ms</td></tr>");
        }
    }
    out.push_str("</table>");
    out
}

/// The cells under `Server`.
fn state(row: &Row, out: &mut String) {
    let status = escaped(row.get(At::Status).text());
    let age = row.get(At::Lastchg).number().map(duration);
    let status = match age {
        Some(_) if status == "no check" => "<i>no check</i>".to_owned(),
        Some(age) if status.starts_with("MAINT") => format!("{age} {status}"),
        Some(age) => format!("{age} {status}{}", arrow(row)),
        None => status,
    };
    let _ = write!(out, "<td class=\"ac\">{status}</td>");
    if matches!(row.kind, Kind::Frontend | Kind::Listener) {
        out.push_str("<td class=\"ac\" colspan=\"8\"></td>");
        return;
    }
    let _ = write!(out, "<td class=\"ac\">{}</td>", last_check(row));
    let _ = write!(out, "<td class=\"ac\">{}/{}</td>", row.get(At::Weight), row.get(At::Uweight));
    for at in [At::Act, At::Bck] {
        let text = match (row.kind, row.get(at).number()) {
            (Kind::Server, Some(1)) => "Y".to_owned(),
            (Kind::Server, _) => "-".to_owned(),
            (_, number) => number.map(grouped).unwrap_or_default(),
        };
        let _ = write!(out, "<td class=\"ac\">{text}</td>");
    }
    for at in [At::Chkfail, At::Chkdown] {
        let _ = write!(out, "<td>{}</td>", row.get(at).number().map(grouped).unwrap_or_default());
    }
    let down = row.get(At::Downtime).number().map(duration).unwrap_or_default();
    let slow = match row.get(At::Throttle) {
        Value::Empty if row.kind == Kind::Server => "-".to_owned(),
        Value::Empty => String::new(),
        percent => format!("{percent} %"),
    };
    let _ = write!(out, "<td>{down}</td><td class=\"ac\">{slow}</td>");
}

/// Where a server is going: checks that contradict its status (`stats_dump_fields_html` of HAProxy).
fn arrow(row: &Row) -> &'static str {
    if row.kind != Kind::Server {
        return "";
    }
    let number = |at: At| row.get(at).number().unwrap_or(0);
    let health = number(At::CheckHealth);
    let levels = number(At::CheckRise) + number(At::CheckFall);
    if row.get(At::Status).text().starts_with("DOWN") {
        if health > 0 { " &uarr;" } else { "" }
    } else if levels == 0 || health < levels - 1 {
        // Also of who is not checked.
        " &darr;"
    } else {
        ""
    }
}

/// `L7OK/200 in 1ms`, with its meaning behind it.
fn last_check(row: &Row) -> String {
    let status = row.get(At::CheckStatus).text();
    if status.is_empty() {
        return String::new();
    }
    let mut text = escaped(status);
    if let Some(code) = row.get(At::CheckCode).number() {
        let _ = write!(text, "/{code}");
    }
    if let Some(duration) = row.get(At::CheckDuration).number() {
        let _ = write!(text, " in {duration}ms");
    }
    let (meaning, more) = (row.get(At::CheckDesc).text(), row.get(At::LastChk).text());
    let tips = if more.is_empty() { escaped(meaning) } else { escaped(&format!("{meaning}: {more}")) };
    with_tips(&text, Some(&tips))
}
