//! `[database]` as people write it.

use super::super::Cluster;
use super::*;

const AROUND: &str = "
[hosts.nfs1]
address = \"10.0.0.1\"
[hosts.backup]
address = \"10.0.0.2\"
[nfs1]
host = \"nfs1\"
state = \"/var/lib/nfs1\"
[nfs1.export]
path = \"/home/share\"
[backup]
host = \"backup\"
directory = \"/var/lib/backup\"
";

fn read(section: &str) -> Result<Database, String> {
    let text = format!("{AROUND}{section}");
    let cluster =
        Cluster::parse(Path::new("cluster.toml"), &text).map_err(|problems| problems.to_string())?;
    cluster.database.ok_or_else(|| "no database".to_owned())
}

#[test]
fn only_the_address_is_needed() {
    let database = read("[database]\naddress = \"/run/mysqld/mysqld.sock\"").unwrap();
    assert_eq!(database.directory, Path::new("/var/lib/backup/database"));
    assert_eq!(database.user, "ehpc");
    assert_eq!(database.tls_to(&database.address[0]), DatabaseTls::Off);
    assert_eq!(database.standby, None);
}

#[test]
fn a_server_elsewhere_is_verified() {
    let database = read("[database]\naddress = [\"db1\", \"10.0.0.9:3307\"]").unwrap();
    let at: Vec<String> = database.address.iter().map(ToString::to_string).collect();
    assert_eq!(at, ["db1:3306", "10.0.0.9:3307"]);
    assert_eq!(database.tls_to(&database.address[1]), DatabaseTls::Verify);
}

#[test]
fn a_standby_has_defaults() {
    let database = read("[database]\naddress = \"db1\"\n[database.standby]\noptions = [\"--x=1\"]").unwrap();
    let standby = database.standby.unwrap();
    assert_eq!(standby.mode, StandbyMode::Managed);
    assert_eq!(standby.datadir, Path::new("/var/lib/backup/database/standby"));
    assert_eq!(standby.options, ["--x=1"]);
}

#[test]
fn every_fault_is_named_with_its_place() {
    for (section, words) in [
        ("[database]\nuser = \"x\"", "[database] has no `address`"),
        ("[database]\naddress = \"a:b:c\"", "neither the path of a socket nor a host"),
        ("[database]\naddress = []", "the list is empty"),
        ("[database]\naddress = \"db\"\nserver_id = 0", "a server_id of 0"),
        ("[database]\naddress = \"db\"\nserver_id = 4294967296", "a server_id of 4294967296"),
        ("[database]\naddress = \"db\"\nbase_every = \"1m\"", "a base snapshot every 1m"),
        ("[database]\naddress = \"db\"\nbase_keep = 0", "0 base snapshots"),
        ("[database]\naddress = \"db\"\nbase_every = \"20d\"", "binary logs kept for 14d"),
        ("[database]\naddress = \"db\"\nmark_every = \"2h\"", "a mark every 2h"),
        ("[database]\naddress = \"db\"\nbase_at = \"24:00\"", "`24:00` is not a time of day"),
        ("[database]\naddress = \"db\"\nlisten = \"0.0.0.0:12306\"", "open to others on 0.0.0.0:12306"),
        ("[database]\naddress = \"db\"\non_gap = \"go\"", "unknown word `go`"),
        ("[database]\naddress = \"db\"\nusr = \"go\"", "write `user`"),
        ("[database]\naddress = \"db\"\n[database.standby]\nmode = \"external\"", "has no `address`"),
        ("[database]\naddress = \"db\"\n[database.standby]\nserver_id = 4200001", "has the server_id"),
    ] {
        let said = read(section).unwrap_err();
        assert!(said.contains(words), "{section}: {said}");
        assert!(said.contains("cluster.toml:1"), "no place: {said}");
    }
}

#[test]
fn a_database_needs_the_host_that_reads_it() {
    let text = "[hosts.b]\naddress = \"10.0.0.2\"\n[backup]\nhost = \"b\"\ndirectory = \"/b\"\n[database]\naddress = \"db\"";
    let said = Cluster::parse(Path::new("c.toml"), text).unwrap_err().to_string();
    assert!(said.contains("[database] has no [nfs1]"), "{said}");
}
