//! Helpers of this crate's tests.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use forebay_cluster::{Cluster, ClusterConfig, StopMode};

/// Bounds every wait. Far longer than any wait here takes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A temporary directory for a cluster. Dropping it stops the cluster's server and removes the directory.
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("forebay-place-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o711)).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn cluster_dir(&self) -> PathBuf {
        self.0.join("cluster")
    }

    /// Opens the cluster with [`Place::config`].
    pub(crate) fn open(&self) -> Cluster {
        Cluster::open(self.config()).unwrap()
    }

    /// Small, without syncs by `initdb`, and with a server that ends with the test process.
    pub(crate) fn config(&self) -> ClusterConfig {
        let mut config = ClusterConfig::new(self.cluster_dir());
        config.die_with_process = true;
        config.sync_init = false;
        // Tests do what only a superuser may.
        config.superuser.clone_from(&config.role);
        config.settings.push(("shared_buffers".to_owned(), "16MB".to_owned()));
        config
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(pid) = pid_in_file(&self.cluster_dir()) {
            signal(pid, Signal::QUIT);
            let since = Instant::now();
            while is_postgres(pid) && since.elapsed() < DEADLINE {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        // A test may have removed parts of it; what cannot be removed stays in the directory for temporary files.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// The process id in the pid file, if there is one and it belongs to a running server.
pub(crate) fn pid_in_file(cluster_dir: &Path) -> Option<i32> {
    let text = fs::read_to_string(cluster_dir.join("pgdata/postmaster.pid")).ok()?;
    text.lines().next()?.parse().ok().filter(|pid| is_postgres(*pid))
}

/// Whether a process is a running PostgreSQL. Reads only files that root may read in a container.
pub(crate) fn is_postgres(pid: i32) -> bool {
    // A process that has ended has no such file.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| stat.contains(" (postgres) ") && !stat.contains(") Z "))
}

/// Sends a signal to a process. Does nothing if the process no longer exists.
pub(crate) fn signal(pid: i32, signal: Signal) {
    let sent = kill_process(Pid::from_raw(pid).unwrap(), signal);
    assert!(matches!(sent, Ok(()) | Err(Errno::SRCH)), "{sent:?}");
}

/// Runs SQL through psql and returns its output.
pub(crate) fn psql(cluster: &Cluster, sql: &str) -> String {
    let output = Command::new(cluster.binaries().path("psql"))
        .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &cluster.url(), "-c", sql])
        .output()
        .unwrap();
    assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// Waits until `condition` holds.
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < DEADLINE, "timed out waiting for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn stop(cluster: &Cluster) {
    cluster.stop(StopMode::Fast, DEADLINE).unwrap();
}

pub(crate) fn we_are_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The mode of the directory with the socket: this process reaches it as a member of the group if it is another account's.
pub(crate) fn socket_dir_mode() -> u32 {
    if we_are_root() { 0o2770 } else { 0o700 }
}
