//! The rules: facts in, findings out.

use super::facts::Facts;
use super::{Finding, Severity, privileges};
use crate::database::dialect::{Dialect, Version};
use crate::database::sql::{quote_table, quote_text};
use crate::settings::{Database, Durability};

/// Tables of other engines that a finding names; the rest is counted.
const NAMED: usize = 20;
/// Below it a lost connection turns into a fall-back too easily, in milliseconds.
const SEMI_SYNC_TIMEOUT: u64 = 10_000;
/// Above it a restart may take too long, in milliseconds.
const SEMI_SYNC_LONG: u64 = 60_000;
/// Clocks may differ so much without a word, in seconds.
const CLOCKS: u64 = 5;
/// A base's statements are up to 4 MiB, and a row may be longer.
const PACKET: u64 = 16 << 20;

/// Everything that is not as it should be.
pub(super) fn all(facts: &Facts, settings: &Database) -> Vec<Finding> {
    let mut found: Vec<Finding> =
        [log_bin(facts), privileges_lack(facts, settings), encrypted(facts), comparing(facts), clock(facts)]
            .into_iter()
            .flatten()
            .collect();
    found.extend(server_id(facts, settings));
    // What follows is about a log that is written.
    if facts.is_on("log_bin") {
        let one: [Option<Finding>; 10] = [
            format(facts),
            row_image(facts),
            retention(facts, settings),
            checksum(facts),
            gtid(facts),
            filters(facts),
            commits_wait(facts),
            replica_updates(facts),
            sync(facts),
            packet(facts),
        ];
        found.extend(one.into_iter().flatten());
        if settings.durability == Durability::Remote {
            found.extend(semi_sync(facts));
            found.extend(reserve(facts));
        }
    }
    found.extend(engines(facts, settings));
    found
}

fn finding(name: &str, severity: Severity, what: impl Into<String>, why: &str) -> Finding {
    Finding {
        name: name.to_owned(),
        severity,
        what: what.into(),
        why: why.to_owned(),
        repair_sql: Vec::new(),
        repair_cnf: Vec::new(),
        or_else: None,
    }
}

/// A variable that can be set while the server runs.
fn set(mut finding: Finding, name: &str, value: &str) -> Finding {
    let literal = match value.parse::<u64>() {
        Ok(number) => number.to_string(),
        Err(_) => quote_text(value),
    };
    finding.repair_sql.push(format!("SET GLOBAL {name} = {literal}"));
    finding.repair_cnf.push(format!("{name} = {value}"));
    finding
}

/// A variable that is read at start only.
fn restart(mut finding: Finding, lines: &[&str]) -> Finding {
    finding.repair_cnf.extend(lines.iter().map(|&line| line.to_owned()));
    finding
}

fn log_bin(facts: &Facts) -> Option<Finding> {
    (!facts.is_on("log_bin")).then(|| {
        let found = finding(
            "log_bin",
            Severity::Error,
            "the server writes no binary log (log_bin = OFF)",
            "the backup is made of it",
        );
        let mut found = restart(found, &["log_bin = bin", "binlog_format = ROW", "sync_binlog = 1"]);
        if facts.number("server_id").unwrap_or(0) == 0 {
            found.repair_cnf.push("server_id = 1".to_owned());
        }
        found
    })
}

fn format(facts: &Facts) -> Option<Finding> {
    let value = facts.variable("binlog_format")?;
    let (severity, why) = match value.to_ascii_uppercase().as_str() {
        "ROW" => return None,
        "MIXED" => (
            Severity::Warning,
            "some changes are logged as statements, whose result on the standby is computed once more",
        ),
        _ => (
            Severity::Error,
            "a statement that is repeated elsewhere may have another result; sessions that are open keep the old \
             format until they end",
        ),
    };
    let what = format!("binlog_format = {value}, not ROW");
    Some(set(finding("binlog_format", severity, what, why), "binlog_format", "ROW"))
}

fn row_image(facts: &Facts) -> Option<Finding> {
    let value = facts.variable("binlog_row_image")?;
    (!value.eq_ignore_ascii_case("FULL")).then(|| {
        let found = finding(
            "binlog_row_image",
            Severity::Warning,
            format!("binlog_row_image = {value}, not FULL"),
            "a row that already differs on the standby is then changed without being noticed",
        );
        set(found, "binlog_row_image", "FULL")
    })
}

fn server_id(facts: &Facts, settings: &Database) -> Vec<Finding> {
    let Some(id) = facts.number("server_id") else { return Vec::new() };
    // An identifier that nobody here has.
    let free =
        (1..).find(|free| *free != settings.server_id && Some(*free) != standby_id(settings)).unwrap_or(1);
    let change = |what: String, why| {
        set(finding("server_id", Severity::Error, what, why), "server_id", &free.to_string())
    };
    if id == 0 {
        return vec![change("server_id = 0".to_owned(), "such a server refuses every replica")];
    }
    let mut found = Vec::new();
    if id == u64::from(settings.server_id) {
        let mut clash = change(
            format!("the server's own server_id is {id}, which is also that of the backup's connection"),
            "a server ignores a replica that carries its own number",
        );
        clash.or_else = Some("another server_id in [database] of cluster.toml".to_owned());
        found.push(clash);
    }
    if standby_id(settings).is_some_and(|standby| u64::from(standby) == id) {
        let mut clash = change(
            format!("the server's own server_id is {id}, which is also that of the standby"),
            "a standby skips all changes that carry its own number",
        );
        clash.or_else = Some("another server_id in [database.standby] of cluster.toml".to_owned());
        found.push(clash);
    }
    found
}

fn standby_id(settings: &Database) -> Option<u32> {
    settings.standby.as_ref().map(|standby| standby.server_id)
}

/// Those of a list that the account does not have.
fn lacking<'a>(facts: &Facts, wanted: &[&'a str]) -> Vec<&'a str> {
    if facts.privileges.contains("ALL PRIVILEGES") || facts.privileges.contains("ALL") {
        return Vec::new();
    }
    let has = |name: &str| {
        facts.privileges.contains(name)
            || (name == facts.dialect.monitor_privilege()
                && facts.privileges.contains(facts.dialect.monitor_privilege_alias()))
            || (name == "BINLOG ADMIN" && facts.privileges.contains("SUPER"))
    };
    wanted.iter().copied().filter(|name| !has(name)).collect()
}

fn grant(mut finding: Finding, facts: &Facts, list: &str) -> Finding {
    let (user, host) = &facts.account;
    finding.repair_sql.push(format!("GRANT {list} ON *.* TO {}@{}", quote_text(user), quote_text(host)));
    finding
}

fn privileges_lack(facts: &Facts, settings: &Database) -> Option<Finding> {
    let list = lacking(facts, &privileges(facts.dialect, settings)).join(", ");
    (!list.is_empty()).then(|| {
        let found = finding(
            "privileges",
            Severity::Error,
            format!("the account {} lacks {list}", facts.account.0),
            "the log's stream, the base snapshots or the comparison are refused without",
        );
        grant(found, facts, &list)
    })
}

/// Privileges without which verify works, but less well.
fn comparing(facts: &Facts) -> Option<Finding> {
    let log_admin = match facts.dialect {
        Dialect::MariaDb(version) if version >= Version::new(10, 5, 2) => "BINLOG ADMIN",
        _ => "SUPER",
    };
    let list = lacking(facts, &["PROCESS", log_admin]).join(", ");
    (!list.is_empty()).then(|| {
        let found = finding(
            "comparing",
            Severity::Advice,
            format!("the account {} lacks {list}", facts.account.0),
            "verify then makes an ALTER TABLE wait until it ends (it cannot leave the log's own transaction), and needs \
             one round more to tell a table that was emptied meanwhile from one that differs",
        );
        grant(found, facts, &list)
    })
}

/// With all connections taken by commits that wait for the backup, the one that would acknowledge them must get in.
fn reserve(facts: &Facts) -> Option<Finding> {
    let name = match facts.dialect {
        Dialect::MariaDb(version) if version >= Version::new(10, 5, 2) => "CONNECTION ADMIN",
        Dialect::MySql(version) if version >= Version::new(8, 0, 0) => "CONNECTION_ADMIN",
        _ => "SUPER",
    };
    let list = lacking(facts, &[name]).join(", ");
    (!list.is_empty()).then(|| {
        let found = finding(
            "max_connections",
            Severity::Advice,
            format!("the account {} lacks {list}", facts.account.0),
            "when commits that wait for the backup have taken all of max_connections, nfs1 cannot come back to \
             acknowledge them before they time out; this privilege has one connection in reserve",
        );
        grant(found, facts, &list)
    })
}

/// Times of transactions are told by both clocks: by this host's for what is seen live, by the server's for the rest.
fn clock(facts: &Facts) -> Option<Finding> {
    let away = facts.clock_ahead.unsigned_abs();
    (away > CLOCKS).then(|| {
        let way = if facts.clock_ahead > 0 { "ahead of" } else { "behind" };
        let mut found = finding(
            "clock",
            Severity::Warning,
            format!("the server's clock is {away} s {way} this host's"),
            "moments (--at TIME) are told by both, so that a restore may stop earlier or later than was meant",
        );
        found.or_else = Some("timedatectl set-ntp true, on the host whose clock is wrong".to_owned());
        found
    })
}

fn retention(facts: &Facts, settings: &Database) -> Option<Finding> {
    let wanted = settings.base_every.0.as_secs();
    let (best, unit) = facts.dialect.retention();
    // MySQL 8 counts both, one of them being zero.
    let kept = [("binlog_expire_logs_seconds", 1), ("expire_logs_days", 86_400)]
        .into_iter()
        .filter_map(|(name, unit)| facts.number(name).map(|value| value.saturating_mul(unit)))
        .filter(|seconds| *seconds > 0)
        .min()?;
    (kept < wanted).then(|| {
        let value = wanted.div_ceil(unit);
        let found = finding(
            "retention",
            Severity::Error,
            format!("the server keeps its binary logs for {kept} s, less than base_every ({wanted} s)"),
            "what it removes while the backup is away is lost to the backup",
        );
        set(found, best, &value.to_string())
    })
}

fn checksum(facts: &Facts) -> Option<Finding> {
    let value = facts.variable("binlog_checksum")?;
    value.eq_ignore_ascii_case("NONE").then(|| {
        let found = finding(
            "binlog_checksum",
            Severity::Warning,
            "binlog_checksum = NONE",
            "damage in the log on its way from the server's disk cannot be told",
        );
        set(found, "binlog_checksum", "CRC32")
    })
}

fn gtid(facts: &Facts) -> Option<Finding> {
    if facts.dialect.is_mariadb() {
        return (!facts.is_on("gtid_strict_mode")).then(|| {
            let found = finding(
                "gtid_strict_mode",
                Severity::Advice,
                "gtid_strict_mode = OFF",
                "numbers of transactions may then go backwards, and the place after a failover is not certain",
            );
            set(found, "gtid_strict_mode", "ON")
        });
    }
    let mode = facts.variable("gtid_mode").unwrap_or("OFF");
    (!mode.eq_ignore_ascii_case("ON")).then(|| {
        let mut found = finding(
            "gtid_mode",
            Severity::Warning,
            format!("gtid_mode = {mode}"),
            "after a failover to another server the backup cannot find its place, and takes a new base",
        );
        if facts.dialect.version() >= Version::new(5, 7, 6) {
            found.repair_sql = ["OFF_PERMISSIVE", "ON_PERMISSIVE", "ON"]
                .iter()
                .map(|step| format!("SET GLOBAL gtid_mode = {step}"))
                .collect();
            found.repair_sql.insert(0, "SET GLOBAL enforce_gtid_consistency = ON".to_owned());
        }
        let lines = ["gtid_mode = ON", "enforce_gtid_consistency = ON", "log_slave_updates = ON"];
        restart(found, &lines)
    })
}

fn encrypted(facts: &Facts) -> Option<Finding> {
    if facts.is_on("encrypt_binlog") {
        let found = finding(
            "encrypt_binlog",
            Severity::Error,
            "the binary log is encrypted (encrypt_binlog = ON)",
            "the server sends it in clear, so the archive could never be equal to the server's files",
        );
        return Some(restart(found, &["encrypt_binlog = OFF"]));
    }
    facts.is_on("binlog_encryption").then(|| {
        let found = finding(
            "binlog_encryption",
            Severity::Error,
            "the binary log is encrypted (binlog_encryption = ON)",
            "the server sends it in clear, so the archive could never be equal to the server's files",
        );
        set(found, "binlog_encryption", "OFF")
    })
}

fn filters(facts: &Facts) -> Option<Finding> {
    let (only, but) = &facts.filters;
    if only.is_empty() && but.is_empty() {
        return None;
    }
    let what = match only.is_empty() {
        false => format!("the binary log holds only the databases {only} (binlog_do_db)"),
        true => format!("the binary log leaves out the databases {but} (binlog_ignore_db)"),
    };
    let mut found = finding(
        "binlog_filter",
        Severity::Error,
        what,
        "commits in the others never reach the backup, and cannot be restored",
    );
    found.repair_cnf.push("# remove the lines binlog_do_db and binlog_ignore_db".to_owned());
    Some(found)
}

fn commits_wait(facts: &Facts) -> Option<Finding> {
    facts.commits_wait.then(|| {
        finding(
            "commits_wait",
            Severity::Warning,
            "commits wait at the moment, probably for a semi-synchronous replica",
            "until they go through, the server does not tell whether its binary log leaves databases out",
        )
    })
}

fn replica_updates(facts: &Facts) -> Option<Finding> {
    let name = ["log_replica_updates", "log_slave_updates"]
        .into_iter()
        .find(|name| facts.variable(name).is_some())?;
    (facts.is_replica && !facts.is_on(name)).then(|| {
        let found = finding(
            "log_slave_updates",
            Severity::Error,
            format!("the server follows another one, and {name} = OFF"),
            "what it receives from there is not in its own binary log",
        );
        restart(found, &[&format!("{name} = ON")])
    })
}

fn sync(facts: &Facts) -> Option<Finding> {
    let weak = ["sync_binlog", "innodb_flush_log_at_trx_commit"]
        .into_iter()
        .filter(|name| facts.number(name).is_some_and(|value| value != 1));
    let weak: Vec<&str> = weak.collect();
    if weak.is_empty() {
        return None;
    }
    let shown: Vec<String> =
        weak.iter().map(|name| format!("{name} = {}", facts.variable(name).unwrap_or_default())).collect();
    let mut found = finding(
        "sync_binlog",
        Severity::Advice,
        shown.join(", "),
        "after a power cut the server may lack commits that the backup already has; the backup then stops and asks",
    );
    for name in weak {
        found = set(found, name, "1");
    }
    Some(found)
}

fn packet(facts: &Facts) -> Option<Finding> {
    let value = facts.number("max_allowed_packet")?;
    (value < PACKET).then(|| {
        let found = finding(
            "max_allowed_packet",
            Severity::Warning,
            format!("max_allowed_packet = {value}"),
            "a base snapshot's statements are up to 4 MiB and a row's length; they may not fit when restored here",
        );
        set(found, "max_allowed_packet", &(64 << 20).to_string())
    })
}

fn semi_sync(facts: &Facts) -> Vec<Finding> {
    let names = facts.dialect.semi_sync();
    let why = "durability = \"remote\" promises that a commit is answered when the backup has it";
    if facts.variable(names.enabled).is_none() {
        let what = "semi-synchronous replication is not loaded";
        let mut found = finding("semi_sync", Severity::Error, what, why);
        found.repair_sql.extend(names.install.map(str::to_owned));
        found.repair_sql.push(format!("SET GLOBAL {} = ON", names.enabled));
        found.repair_cnf.extend(names.install_cnf.map(str::to_owned));
        found.repair_cnf.push(format!("{} = ON", names.enabled));
        return vec![found];
    }
    let mut all = Vec::new();
    if !facts.is_on(names.enabled) {
        let what = format!("{} = OFF", names.enabled);
        all.push(set(finding("semi_sync", Severity::Error, what, why), names.enabled, "ON"));
    }
    if let Some(name) = names.wait_point
        && let Some(value) = facts.variable(name)
        && !value.eq_ignore_ascii_case("AFTER_SYNC")
    {
        let why = "others see a commit before the backup has it";
        let found = finding("semi_sync_wait_point", Severity::Warning, format!("{name} = {value}"), why);
        all.push(set(found, name, "AFTER_SYNC"));
    }
    all.extend(semi_sync_timeout(facts));
    all
}

fn semi_sync_timeout(facts: &Facts) -> Option<Finding> {
    let names = facts.dialect.semi_sync();
    let value = facts.number(names.timeout)?;
    let found =
        |why| finding("semi_sync_timeout", Severity::Warning, format!("{} = {value} ms", names.timeout), why);
    if value < SEMI_SYNC_TIMEOUT {
        let found = found("after so short a wait the server goes on without the backup");
        return Some(set(found, names.timeout, &SEMI_SYNC_TIMEOUT.to_string()));
    }
    if value <= SEMI_SYNC_LONG || !facts.dialect.repairs_definitions_at_start() {
        return None;
    }
    let found = found(
        "a server that was killed within a CREATE, ALTER or DROP repairs that before it opens its socket, and waits there \
         so long for the backup, which cannot connect yet",
    );
    let mut found = set(found, names.timeout, &SEMI_SYNC_LONG.to_string());
    found.or_else = Some(format!(
        "for such a start {0} = OFF in its my.cnf, and SET GLOBAL {0} = ON when it is up",
        names.enabled
    ));
    Some(found)
}

fn engines(facts: &Facts, settings: &Database) -> Option<Finding> {
    if facts.others.is_empty() || settings.base_lock {
        return None;
    }
    let named: Vec<String> = facts
        .others
        .iter()
        .take(NAMED)
        .map(|table| format!("{} ({})", quote_table(&table.schema, &table.name), table.engine))
        .collect();
    let more = match facts.others.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let mut found = finding(
        "engine",
        Severity::Warning,
        format!("tables without transactions: {}{more}", named.join(", ")),
        "a base snapshot may hold a later state of them than of the others, and they cannot be compared exactly",
    );
    found.repair_sql = facts
        .others
        .iter()
        .map(|table| format!("ALTER TABLE {} ENGINE = InnoDB", quote_table(&table.schema, &table.name)))
        .collect();
    found.or_else =
        Some("base_lock = true in [database] of cluster.toml (writers then wait for each base)".to_owned());
    Some(found)
}
