//! How a server is started, by what it is for; and the statements that it runs first.

use super::mysqld::{ACCOUNT, Role};
use super::tools::Flavor;
use std::ffi::OsString;
use std::path::Path;

/// `--name=path`.
pub(super) fn path_option(name: &str, path: &Path) -> OsString {
    let mut option = OsString::from(format!("--{name}="));
    option.push(path);
    option
}

/// What belongs to the role.
pub(super) fn role_arguments(role: Role, flavor: Flavor) -> Vec<String> {
    let pool = buffer_pool(memory_available());
    let mut all = vec![format!("--innodb-buffer-pool-size={pool}")];
    let fixed: &[&str] = match role {
        Role::Scratch => &[
            "--skip-log-bin",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-log-file-size=256M",
            "--relay-log=relay",
            "--slave-net-timeout=60",
        ],
        Role::Standby => &[
            "--binlog-format=ROW",
            "--sync-binlog=1",
            "--innodb-flush-log-at-trx-commit=1",
            "--read-only=1",
            "--relay-log=relay",
            "--relay-log-recovery=1",
            "--slave-net-timeout=60",
        ],
        Role::Private => &[
            "--log-bin=bin",
            "--binlog-format=ROW",
            "--sync-binlog=1",
            "--innodb-flush-log-at-trx-commit=1",
            "--expire-logs-days=7",
            "--relay-log=relay",
        ],
    };
    all.extend(fixed.iter().map(|&argument| argument.to_owned()));
    if flavor == Flavor::MariaDb && role == Role::Private {
        all.extend(
            [
                "--gtid-strict-mode=1",
                "--rpl-semi-sync-master-enabled=1",
                "--rpl-semi-sync-master-timeout=10000",
                "--rpl-semi-sync-master-wait-point=AFTER_SYNC",
            ]
            .map(str::to_owned),
        );
    } else if flavor == Flavor::MariaDb {
        let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get).clamp(2, 16);
        all.push(format!("--slave-parallel-threads={threads}"));
        all.push("--slave-parallel-mode=optimistic".to_owned());
    }
    all
}

/// A quarter of what is free, within bounds, whole MiB.
fn buffer_pool(available: u64) -> u64 {
    ((available / 4).clamp(64 << 20, 2 << 30) >> 20) << 20
}

fn memory_available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(512 << 10) << 10
}

/// Run at each start, before anybody is let in; not written to the binary log.
pub(super) fn account(flavor: Flavor, role: Role, password: &str) -> String {
    let create = match flavor {
        Flavor::MariaDb => {
            format!("CREATE OR REPLACE USER '{ACCOUNT}'@'localhost' IDENTIFIED BY '{password}';")
        }
        Flavor::MySql => format!(
            "DROP USER IF EXISTS '{ACCOUNT}'@'localhost';\nCREATE USER '{ACCOUNT}'@'localhost' IDENTIFIED BY \
             '{password}';"
        ),
    };
    let root = match role {
        Role::Private => {
            "CREATE USER IF NOT EXISTS 'root'@'localhost' IDENTIFIED VIA unix_socket;\nGRANT ALL PRIVILEGES ON *.* TO 'root'@'localhost' WITH GRANT \
             OPTION;\n"
        }
        Role::Scratch | Role::Standby => "",
    };
    // Not part of ALL, and needed by whoever grants it on; a server does not let this file grant it.
    let proxy = format!(
        "REPLACE INTO mysql.proxies_priv (Host, User, Proxied_host, Proxied_user, With_grant, Grantor) VALUES ('localhost', \
         '{ACCOUNT}', '', '', 1, '');\nFLUSH PRIVILEGES;\n"
    );
    format!(
        "SET SESSION sql_log_bin = 0;\n{create}\nGRANT ALL PRIVILEGES ON *.* TO '{ACCOUNT}'@'localhost' WITH GRANT \
         OPTION;\n{proxy}{root}"
    )
}
