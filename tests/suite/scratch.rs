//! A private directory for one test, on the same disk as the build.

use ehpc_tools::cluster::Cluster;
use std::path::Path;

/// A fresh directory, removed when the test passed.
pub fn directory() -> tempfile::TempDir {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/suite");
    std::fs::create_dir_all(&target).unwrap();
    tempfile::Builder::new().prefix("t-").tempdir_in(target).unwrap()
}

/// Fails unless verify (reading all data) and an independent rsync find export and mirror equal.
pub fn assert_equal(cluster: &Cluster) {
    cluster.fence().unwrap();
    cluster.assert_equal().unwrap();
    assert_eq!(cluster.rsync_differences().unwrap(), "", "rsync finds differences\n{}", cluster.logs());
}
