//! A private directory for one test.

use ehpc_tools::cluster::Cluster;

/// A fresh directory, removed when the test ends. `tools/test` puts `$TMPDIR` on a file system of its own.
pub fn directory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("ehpc-suite-").tempdir().unwrap()
}

/// Fails unless verify (reading all data) and an independent rsync find export and mirror equal.
pub fn assert_equal(cluster: &Cluster) {
    cluster.fence().unwrap();
    cluster.assert_equal().unwrap();
    assert_eq!(cluster.rsync_differences().unwrap(), "", "rsync finds differences\n{}", cluster.logs());
}
