//! The upper part: what the process does, what the colours mean, how the page can be shown.

use super::super::PRODUCT;
use super::text::escaped;
use super::{Ask, Options};
use crate::proxy::config::model::StatsPage;
use crate::proxy::stats::info;
use std::fmt::Write as _;

/// From the first byte to the first section's table.
pub(super) fn write(ask: &Ask<'_>, page: &StatsPage, options: &Options, out: &mut String) {
    let node = page.show_node.as_deref();
    let on_node = node.map(|node| format!(" on {}", escaped(node))).unwrap_or_default();
    let _ = write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <title>Statistics Report for HAProxy{on_node}</title>\n<link rel=\"icon\" href=\"data:,\">\n\
         <style>\n{}</style></head>\n<body>\n",
        include_str!("style.css")
    );
    if !page.hide_version {
        let _ = writeln!(out, "<h1>{} version {}</h1>", PRODUCT.0, PRODUCT.1);
    }
    let description = page.show_desc.as_deref();
    let description = description.map(|text| format!(": {}", escaped(text))).unwrap_or_default();
    let _ = write!(
        out,
        "<h2>Statistics Report for pid {}{on_node}{description}</h2>\n<hr>\n\
         <h3>&gt; General process information</h3>\n<div class=\"overview\">\n",
        ask.process.id
    );
    process(ask, out);
    legend(out);
    display_options(page, options, out);
    out.push_str("</div>\n");
    if let Some(code) = &options.outcome {
        outcome(page, options, code, out);
    }
}

fn process(ask: &Ask<'_>, out: &mut String) {
    let facts = info::Facts { running: ask.running, process: ask.process, moment: ask.moment };
    let value = |name: &str| info::value(&facts, name).to_string();
    let _ = write!(
        out,
        "<p><b>pid = </b> {} (process #1, nbproc = 1, nbthread = {})<br>\n<b>uptime = </b> {}<br>\n\
         <b>system limits:</b> ulimit-n = {}<br>\n<b>maxsock = </b> {}; <b>maxconn = </b> {}<br>\n\
         current conns = {}; conn rate = {}/sec<br>\n</p>\n",
        value("Pid"),
        value("Nbthread"),
        value("Uptime"),
        value("Ulimit-n"),
        value("Maxsock"),
        value("Maxconn"),
        value("CurrConns"),
        value("ConnRate"),
    );
}

fn legend(out: &mut String) {
    const PAIRS: &[(&str, &str, &str, &str)] = &[
        ("active_up", "active UP", "backup_up", "backup UP"),
        ("active_going_down", "active UP, going down", "backup_going_down", "backup UP, going down"),
        ("active_going_up", "active DOWN, going up", "backup_going_up", "backup DOWN, going up"),
        ("active_down", "active or backup DOWN", "active_no_check", "not checked"),
        ("maintain", "DOWN for maintenance (MAINT)", "active_draining", "SOFT STOPPED for maintenance"),
    ];
    out.push_str("<div><table class=\"lgd\">\n");
    for (class, meaning, other, means) in PAIRS {
        let _ = writeln!(
            out,
            "<tr><td class=\"{class}\"></td><td class=\"noborder\">{meaning}</td>\
             <td class=\"{other}\"></td><td class=\"noborder\">{means}</td></tr>"
        );
    }
    out.push_str("</table>\nNote: \"NOLB\"/\"DRAIN\" = UP with load-balancing disabled.</div>\n");
}

fn display_options(page: &StatsPage, options: &Options, out: &mut String) {
    let Options { up, steady, .. } = *options;
    let _ = write!(
        out,
        "<div><b>Display option:</b>\n<ul><li><form method=\"GET\">Scope : <input value=\"{}\" name=\"scope\" \
         size=\"8\" maxlength=\"{}\"></form>\n",
        escaped(&options.scope),
        super::LONGEST_SCOPE
    );
    let mut link = |target: String, text: &str| {
        let _ = writeln!(out, "<li><a href=\"{}\">{text}</a>", escaped(&target));
    };
    let hide = if up { "Show all servers" } else { "Hide 'DOWN' servers" };
    link(options.link(page, !up, steady, ""), hide);
    if page.refresh.is_some() {
        let refresh = if steady { "Enable refresh" } else { "Disable refresh" };
        link(options.link(page, up, !steady, ""), refresh);
    }
    link(options.link(page, up, steady, ""), "Refresh now");
    link(options.link(page, false, page.refresh.is_some(), ";csv"), "CSV export");
    link(options.link(page, false, page.refresh.is_some(), ";json"), "JSON export");
    out.push_str("</ul></div>\n");
}

/// How the action before went (`;st=`).
fn outcome(page: &StatsPage, options: &Options, code: &str, out: &mut String) {
    let (class, text) = match code {
        "DONE" => ("active_up", "Action processed successfully."),
        "NONE" => ("active_going_down", "Nothing has changed."),
        "PART" => (
            "active_going_down",
            "Action partially processed.<br>Some server names are probably unknown or ambiguous.",
        ),
        "ERRP" => (
            "active_down",
            "Action not processed because of invalid parameters: the action, the backend or a server is unknown.",
        ),
        "EXCD" => (
            "active_down",
            "<b>Action not processed: the form is too long.<br>You should retry with less servers at a time.</b>",
        ),
        "DENY" => ("active_down", "<b>Action denied.</b>"),
        "IVAL" => ("active_down", "<b>Invalid request.</b>"),
        _ => ("active_no_check", "Unexpected result."),
    };
    let back = escaped(&options.link(page, options.up, options.steady, ""));
    let _ = writeln!(
        out,
        "<p class=\"{class}\"><a class=\"lfsb\" href=\"{back}\" title=\"Remove this message\">[X]</a> {text}</p>"
    );
}
