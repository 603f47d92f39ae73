//! A second server with the files of a test cluster: a standby or a backup.

use forebay_cluster::{Cluster, ClusterConfig, StopMode, TestCluster};
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const STOP_TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) fn pgdata(cluster: &TestCluster) -> PathBuf {
    cluster.dir().join("postgres/pgdata")
}

/// Takes a base backup of a running server for the same account.
pub(crate) fn back_up(cluster: &TestCluster, to: &Path) {
    let source = format!("host={} port={} user=forebay", cluster.socket_dir().display(), cluster.port());
    run(Command::new(cluster.binaries().path("pg_basebackup")).args(["-c", "fast", "-d", &source, "-D"]).arg(to));
    // The backup belongs to whoever runs the test, which may be root.
    run(Command::new("chown").arg("-R").arg(format!("--reference={}", pgdata(cluster).display())).arg(to));
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// A hot standby; it is stopped when dropped. It must be dropped before its primary's directory is deleted.
pub(crate) struct Standby {
    cluster: Cluster,
}

impl Standby {
    /// Starts a standby, which follows its primary as long as that runs.
    pub(crate) fn of(primary: &TestCluster) -> Self {
        let dir = primary.dir().join("standby");
        std::fs::create_dir(&dir).unwrap();
        let pgdata = dir.join("pgdata");
        back_up(primary, &pgdata);
        std::fs::write(pgdata.join("standby.signal"), "").unwrap();
        let follow = format!("host={} port={} user=forebay", primary.socket_dir().display(), primary.port());
        let mut config = ClusterConfig::new(dir);
        config.die_with_process = true;
        // As the primary's.
        config.superuser.clone_from(&config.role);
        let settings =
            [("shared_buffers", "32MB"), ("fsync", "off"), ("primary_conninfo", &follow), ("hot_standby", "on")];
        config.settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Self { cluster: Cluster::open(config).unwrap() }
    }

    pub(crate) fn url(&self) -> String {
        self.cluster.url()
    }

    /// The result of a query in psql's unaligned format.
    pub(crate) fn psql(&self, sql: &str) -> String {
        let psql = self.cluster.binaries().path("psql");
        run(Command::new(psql).args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &self.url(), "-c", sql]))
    }

    pub(crate) fn promote(&self) {
        assert_eq!(self.psql("SELECT pg_promote()"), "t");
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        // Anything that remains of it ends with the test's process.
        drop(self.cluster.stop(StopMode::Immediate, STOP_TIMEOUT));
    }
}
