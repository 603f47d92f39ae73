//! A cluster for one test.

use std::env;
use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Write};
use std::net::TcpListener;
use std::ops::Deref;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use forebay_os::dir::Dir;
use rustix::fs::OFlags;
use rustix::process::Signal;

use crate::account::Account;
use crate::binaries::find_binaries;
use crate::cluster::{Cluster, ClusterConfig, StopMode};
use crate::error::{ClusterError, IoContext};
use crate::init::{InitOptions, LOCALES};
use crate::layout::last_lines;
use crate::limits::TEST_SWEEP_MIN_AGE;
use crate::process::{identify, read_pid_file, signal};

/// Prefix of the names of test directories, in the system's directory for temporary files.
const TEST_PREFIX: &str = "forebay-test-";

/// How long the end of a test waits for its server to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// How many TCP ports are tried: another process may take a free port before the server listens on it.
const TCP_ATTEMPTS: u32 = 5;

/// Pauses between two attempts to remove a test's directory, and how many attempts there are.
const REMOVE_PAUSE: Duration = Duration::from_millis(50);
/// See [`REMOVE_PAUSE`].
const REMOVE_ATTEMPTS: u32 = 3;

/// Options of a test's cluster.
#[derive(Clone, Debug)]
pub struct TestOptions {
    /// Whether the server syncs. Without syncs it is faster, which suits tests that neither crash PostgreSQL nor examine
    /// its files. Default true, as in production.
    pub fsync: bool,
    /// Additional settings, as name and value.
    pub settings: Vec<(String, String)>,
    /// See [`ClusterConfig::hba_lines`].
    pub hba_lines: Vec<String>,
    /// Files for the server, as name and content. They are written to its data directory with mode 0600 before it
    /// starts. Settings such as `ssl_cert_file` refer to them by this name. Default none.
    pub files: Vec<(String, Vec<u8>)>,
    /// Whether the server also listens on a free TCP port of 127.0.0.1, see [`Cluster::port`]. Default false.
    pub tcp: bool,
}

impl Default for TestOptions {
    fn default() -> Self {
        Self { fsync: true, settings: Vec::new(), hba_lines: Vec::new(), files: Vec::new(), tcp: false }
    }
}

/// A cluster for one test, in a temporary directory. Dropping it stops the server and removes the directory, also during
/// a panic. Dereferences to [`Cluster`].
///
/// If the test's process is killed, the kernel stops the server (if setpriv(1) is installed), and the next test process
/// that starts a cluster removes the directory.
#[derive(Debug)]
pub struct TestCluster {
    cluster: Arc<Cluster>,
    dir: TestDir,
}

impl TestCluster {
    /// Starts a cluster that syncs as in production, for tests that crash it.
    ///
    /// # Errors
    /// As [`Cluster::open`].
    pub fn start() -> Result<Self, ClusterError> {
        Self::start_with(TestOptions::default())
    }

    /// Starts a cluster that never syncs, which is faster, for tests that do not crash it.
    ///
    /// # Errors
    /// As [`Cluster::open`].
    pub fn start_without_fsync() -> Result<Self, ClusterError> {
        Self::start_with(TestOptions { fsync: false, ..TestOptions::default() })
    }

    /// Starts a cluster with options.
    ///
    /// # Errors
    /// As [`Cluster::open`].
    pub fn start_with(options: TestOptions) -> Result<Self, ClusterError> {
        let dir = TestDir::create()?;
        let mut config = ClusterConfig::new(dir.path.join("postgres"));
        config.die_with_process = true;
        config.sync_init = false;
        // Tests do what only a superuser may.
        config.superuser.clone_from(&config.role);
        // Small, because many servers run at the same time.
        config.settings.push(("shared_buffers".to_owned(), "32MB".to_owned()));
        if !options.fsync {
            for name in ["fsync", "full_page_writes", "synchronous_commit"] {
                config.settings.push((name.to_owned(), "off".to_owned()));
            }
        }
        config.settings.extend(options.settings);
        config.hba_lines = options.hba_lines;
        copy_template(&config.data_dir)?;
        put_files(&config.data_dir.join("pgdata"), &options.files)?;
        let cluster = Arc::new(if options.tcp { open_on_free_port(&config)? } else { Cluster::open(config)? });
        Ok(Self { cluster, dir })
    }

    /// The cluster, for a [`Watch`](crate::Watch).
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// The test's temporary directory. The cluster is in `postgres` below it; the test may use the rest.
    pub fn dir(&self) -> &Path {
        &self.dir.path
    }

    /// Runs SQL in the cluster's database through `psql`. Returns the rows, one a line, with columns separated by `|`.
    ///
    /// # Errors
    /// [`ClusterError::Command`] with the error output of `psql`, [`ClusterError::Io`] if `psql` cannot be run.
    pub fn psql(&self, sql: &str) -> Result<String, ClusterError> {
        psql(&self.cluster, sql)
    }
}

/// See [`TestCluster::psql`].
fn psql(cluster: &Cluster, sql: &str) -> Result<String, ClusterError> {
    let program = cluster.binaries().path("psql");
    let mut command = Command::new(&program);
    command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d"]).arg(cluster.url()).arg("-c").arg(sql);
    let output = command.stdin(Stdio::null()).output().context("running", &program)?;
    if !output.status.success() {
        let output = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(ClusterError::Command { command: "psql", output });
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

impl Deref for TestCluster {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        if self.cluster.stop(StopMode::Immediate, STOP_TIMEOUT).is_err() {
            // If this fails, too, nothing else is left to try. A panic here would hide the test's own.
            drop(self.cluster.kill9());
        }
        // Only for a socket directory outside `dir`. If it cannot be removed, an empty directory stays in /tmp.
        drop(fs::remove_dir_all(self.cluster.socket_dir()));
    }
}

/// A temporary directory with a lock file, which is locked while the owner is alive.
#[derive(Debug)]
struct TestDir {
    path: PathBuf,
    _owner: File,
}

impl TestDir {
    fn create() -> Result<Self, ClusterError> {
        static SWEEP: Once = Once::new();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let parent = env::temp_dir();
        SWEEP.call_once(|| sweep(&parent));
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("{TEST_PREFIX}{}-{number}", std::process::id()));
            // Mode 0711, because the server's account must enter. Access is restricted in the cluster's own directory.
            match DirBuilder::new().mode(0o711).create(&path) {
                Ok(()) => {
                    let lock = path.join("owner.lock");
                    let owner = File::create(&lock).context("creating", &lock)?;
                    owner.lock().context("locking", &lock)?;
                    return Ok(Self { path, _owner: owner });
                }
                // A dead process with the same id left it behind; the next number is tried.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(ClusterError::io("creating", &path, error)),
            }
        }
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        // The last children of a killed server may still be writing. If files are left, a later sweep removes them.
        for _ in 0..REMOVE_ATTEMPTS {
            if fs::remove_dir_all(&self.path).is_ok() {
                break;
            }
            std::thread::sleep(REMOVE_PAUSE);
        }
    }
}

/// Removes the directories of dead owners, and stops the servers that run in them. Everything here may fail: the next
/// test process tries again.
fn sweep(parent: &Path) {
    let euid = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if !entry.file_name().as_encoded_bytes().starts_with(TEST_PREFIX.as_bytes()) {
            continue;
        }
        let old_and_ours = fs::symlink_metadata(entry.path()).is_ok_and(|meta| {
            // A time in the future counts as fresh.
            let age = meta.modified().map_or(Duration::ZERO, |time| time.elapsed().unwrap_or(Duration::ZERO));
            meta.is_dir() && meta.uid() == euid && age >= TEST_SWEEP_MIN_AGE
        });
        if !old_and_ours || is_owner_alive(&entry.path()) {
            continue;
        }
        stop_server_in(&entry.path().join("postgres"));
        drop(fs::remove_dir_all(entry.path()));
    }
}

/// Stops a server that an owner left running. Without one nothing is to be done.
fn stop_server_in(root: &Path) {
    let Ok(dir) = Dir::open(root) else { return };
    if let Ok(account) = Account::choose(&dir)
        && let Ok(Some(file)) = read_pid_file(&dir, &account)
        && identify(&account, file.pid, &root.join("pgdata")).may_be_ours()
    {
        drop(signal(file.pid, Signal::QUIT));
    }
}

fn is_owner_alive(dir: &Path) -> bool {
    File::open(dir.join("owner.lock")).is_ok_and(|lock| lock.try_lock().is_err())
}

fn open_on_free_port(config: &ClusterConfig) -> Result<Cluster, ClusterError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let address = ("127.0.0.1", 0);
        let free = TcpListener::bind(address).and_then(|listener| listener.local_addr());
        let port = free.context("searching a free port of", Path::new("127.0.0.1"))?.port();
        match Cluster::open(ClusterConfig { listen_tcp: Some(port), ..config.clone() }) {
            Err(ClusterError::StartFailed { .. }) if attempt < TCP_ATTEMPTS => {}
            result => return result,
        }
    }
}

/// Copies the template of this version and account, which is several times faster than `initdb`.
fn copy_template(data_dir: &Path) -> Result<(), ClusterError> {
    let template = template()?;
    let mut command = Command::new("cp");
    command.arg("-a").arg(&template).arg(data_dir);
    let output = command.output().context("copying", &template)?;
    if !output.status.success() {
        let output = last_lines(&String::from_utf8_lossy(&output.stderr));
        return Err(ClusterError::Command { command: "cp", output });
    }
    Ok(())
}

/// Writes files to the server's directory that only its account may read.
fn put_files(pgdata: &Path, files: &[(String, Vec<u8>)]) -> Result<(), ClusterError> {
    let dir = Dir::open(pgdata).context("opening", pgdata)?;
    let stat = dir.stat_self().context("looking at", pgdata)?;
    for (name, content) in files {
        let path = pgdata.join(name);
        let mut file = dir.create_file(name, OFlags::empty()).context("creating", &path)?;
        file.write_all(content).context("writing", &path)?;
        std::os::unix::fs::fchown(&file, Some(stat.st_uid), Some(stat.st_gid))
            .context("changing the owner of", &path)?;
    }
    Ok(())
}

/// The directory of the template, created if missing. It gets its name only when it is complete.
fn template() -> Result<PathBuf, ClusterError> {
    let binaries = find_binaries()?;
    let nothing = Path::new("/nonexistent");
    let account = Account::of_a_new_cluster()?;
    let defaults = ClusterConfig::new(nothing);
    let arguments = InitOptions { superuser: &defaults.role, sync: false }.arguments(LOCALES[0]);
    // Everything that determines the content, so that a change leads to another template.
    let content = format!("{binaries:?} {arguments:?} {} {}", defaults.database, defaults.role);
    let name = format!("forebay-template-{}-{:08x}", account.uid, crate::layout::fnv1a(content.as_bytes()));
    let template = env::temp_dir().join(name);
    let lock_path = template.with_extension("lock");
    let lock = File::options().create(true).append(true).open(&lock_path).context("opening", &lock_path)?;
    lock.lock().context("locking", &lock_path)?;
    if is_trusted(&template) {
        return Ok(template);
    }
    let unfinished = template.with_extension("new");
    match fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(ClusterError::io("removing", &unfinished, error));
        }
        _ => {}
    }
    let superuser = defaults.role;
    let config =
        ClusterConfig { superuser, sync_init: false, die_with_process: true, ..ClusterConfig::new(&unfinished) };
    // Not synced: temporary files need not survive a crash of the machine.
    let cluster = Cluster::open(ClusterConfig { settings: vec![("fsync".to_owned(), "off".to_owned())], ..config })?;
    cluster.stop(StopMode::Fast, STOP_TIMEOUT)?;
    fs::rename(&unfinished, &template).context("renaming", &unfinished)?;
    Ok(template)
}

/// Whether the directory belongs to our account and no other account can change it. Any account can create a directory of
/// this name.
fn is_trusted(template: &Path) -> bool {
    let euid = rustix::process::geteuid().as_raw();
    fs::symlink_metadata(template).is_ok_and(|meta| meta.is_dir() && meta.uid() == euid && meta.mode() & 0o022 == 0)
}
