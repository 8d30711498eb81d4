//! The NFS section of the status screen.

use super::{NfsClient, NfsProcedure, NodeStatus, Screen, words};
use std::time::Duration;

/// Clients and procedures are named up to this many, the most active first; `--json` has all.
const NAMED: usize = 12;

impl NodeStatus {
    pub(super) fn render_nfs(&self, out: &mut Screen) {
        let Some(nfs) = &self.nfs else { return };
        out.line("export", format!("{} = {} (durability {})", nfs.export, nfs.path, nfs.durability));
        for export in nfs.exports.iter().filter(|export| !export.clients.is_empty()) {
            let backup = if export.backed_up { "" } else { " NOT BACKED UP" };
            let implied = if export.implied { " (crossmnt)" } else { "" };
            out.line("", format!("{}{implied}{backup} {}", export.name, export.clients.join(" ")));
        }
        let connected = nfs.clients.iter().filter(|client| client.connections > 0).count();
        out.line(
            "nfs",
            format!(
                "{connected} client{}, {} connections, {:.1} operations/s, {} operations ({} with an error status), \
                 {} read, {} written",
                if connected == 1 { "" } else { "s" },
                words::count(nfs.connections),
                nfs.operations_per_second,
                words::count(nfs.operations),
                words::count(nfs.errors),
                words::bytes(nfs.read_bytes),
                words::bytes(nfs.written_bytes)
            ),
        );
        let mut clients: Vec<&NfsClient> =
            nfs.clients.iter().filter(|client| client.connections > 0).collect();
        clients.sort_by_key(|client| std::cmp::Reverse(client.operations));
        for client in clients.iter().take(NAMED) {
            let name = client.host.as_ref().map_or(String::new(), |host| format!(" ({host})"));
            out.line(
                "",
                format!(
                    "{}{name}: {} operations, {} read, {} written",
                    client.address,
                    words::count(client.operations),
                    words::bytes(client.read_bytes),
                    words::bytes(client.written_bytes)
                ),
            );
        }
        if clients.len() > NAMED {
            out.line("", format!("and {} more clients", clients.len() - NAMED));
        }
        for note in &nfs.notes {
            out.line("note", note.clone());
        }
        if nfs.in_flight_waits + nfs.memory_waits > 0 {
            let (in_flight, memory) = (words::count(nfs.in_flight_waits), words::count(nfs.memory_waits));
            out.line("limits", format!("in_flight reached {in_flight} times, memory {memory} times"));
        }
        let mut procedures: Vec<&NfsProcedure> = nfs.procedures.iter().collect();
        procedures.sort_by_key(|procedure| std::cmp::Reverse(procedure.latency.count));
        for (at, procedure) in procedures.iter().take(NAMED).enumerate() {
            out.line(if at == 0 { "procedures" } else { "" }, one_procedure(procedure));
        }
    }
}

fn one_procedure(procedure: &NfsProcedure) -> String {
    let latency = &procedure.latency;
    let errors: u64 = procedure.errors.values().sum();
    let mut text = format!(
        "{}: {}, p50 {}, p99 {}",
        procedure.name,
        words::count(latency.count),
        microseconds(latency.p50_us),
        microseconds(latency.p99_us)
    );
    if errors > 0 {
        let named: Vec<String> =
            procedure.errors.iter().map(|(status, n)| format!("{} {status}", words::count(*n))).collect();
        text.push_str(&format!(", {} errors ({})", words::count(errors), named.join(", ")));
    }
    text
}

fn microseconds(us: u64) -> String {
    match us {
        0..1000 => format!("{us} us"),
        1000..1_000_000 => format!("{:.1} ms", us as f64 / 1000.0),
        _ => words::duration(Duration::from_micros(us)),
    }
}
