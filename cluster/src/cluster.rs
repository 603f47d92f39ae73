//! One cluster: opened, started, adopted and stopped.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;

use crate::account::Account;
use crate::binaries::{Binaries, find_binaries, find_binaries_of};
use crate::client::{self, Answer};
use crate::error::ClusterError;
use crate::init::{InitOptions, data_major, init_if_missing};
use crate::launch::Launcher;
use crate::layout::Layout;
use crate::limits::{DEFAULT_PORT, STOP_TIMEOUT};
use crate::process::{Identity, PidFile, identify, read_pid_file, signal};
use crate::settings::{hba_text, settings_text};
use crate::start;

/// Which cluster to open, and how.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// The directory that holds all files of the cluster. It and its parents are created if missing.
    pub data_dir: PathBuf,
    /// Name of the database to create. Default `forebay`.
    pub database: String,
    /// Name of the role that clients use. It owns the database and is no superuser, unless it is `superuser`. Default
    /// `forebay`.
    pub role: String,
    /// Name of the superuser that a new cluster has. Default `postgres`.
    pub superuser: String,
    /// Server settings beyond PostgreSQL's defaults, as name and value, written at each start. An adopted server takes
    /// those that need a restart when it is next restarted. `ALTER SYSTEM` overrides them.
    pub settings: Vec<(String, String)>,
    /// Lines for `pg_hba.conf`, placed before "trust on the socket, reject the rest". They must leave the roles
    /// trusted on the socket. Default none.
    pub hba_lines: Vec<String>,
    /// Port on 127.0.0.1 to listen on besides the unix socket. Default none: the server does not listen on TCP.
    pub listen_tcp: Option<u16>,
    /// How long a start may take, crash recovery included. Default 5 minutes.
    pub start_timeout: Duration,
    /// Whether the kernel shuts the server down when this process ends, for whatever reason. For tests. Default false.
    pub die_with_process: bool,
    /// Whether `initdb` waits until its files are on disk. Tests switch it off. Default true.
    pub sync_init: bool,
}

impl ClusterConfig {
    /// The defaults, with the files in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            database: "forebay".to_owned(),
            role: "forebay".to_owned(),
            superuser: "postgres".to_owned(),
            settings: Vec::new(),
            hba_lines: Vec::new(),
            listen_tcp: None,
            start_timeout: crate::limits::START_TIMEOUT,
            die_with_process: false,
            sync_init: true,
        }
    }
}

/// How to stop a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Ends the sessions, writes a checkpoint and stops (SIGINT).
    Fast,
    /// Stops at once, as in a crash (SIGQUIT). The next start recovers from the WAL; nothing committed is lost.
    Immediate,
}

/// A private PostgreSQL cluster.
///
/// Several threads may call its methods at once. [`Cluster::stop`] stops the server. Dropping the handle, like the death
/// of the process, leaves the server running; the next [`Cluster::open`] adopts it.
#[derive(Debug)]
pub struct Cluster {
    pub(crate) config: ClusterConfig,
    pub(crate) layout: Layout,
    pub(crate) account: Account,
    pub(crate) launcher: Launcher,
    binaries: Binaries,
    /// Whether the server is to run. False after [`Cluster::stop`]: a start under way gives up, and the watch does not
    /// start the server again.
    wanted: AtomicBool,
    /// Process id of the last known postmaster; 0 for none.
    pid: AtomicI32,
    /// The postmaster, if it is a child of this process. Locked during a start or stop.
    child: Mutex<Option<Child>>,
}

impl Cluster {
    /// Opens the cluster in `config.data_dir`. Creates the cluster if it does not exist, adopts its server or starts
    /// one, waits until the server accepts connections, and creates the database if it does not exist.
    ///
    /// If this process is root, the server runs as the account that owns the cluster. A new cluster is given to
    /// `postgres`, or to `nobody` if there is no `postgres`. If that account may not enter the directory, the server
    /// runs with a capability, see [`Cluster::has_lent_capability`].
    ///
    /// Blocks for some seconds if the cluster is new, and for the crash recovery (at most `start_timeout`) if the server
    /// crashed.
    ///
    /// # Errors
    /// Any [`ClusterError`] except `Cancelled`. If the server's log explains the failure, the error contains its last
    /// lines.
    pub fn open(config: ClusterConfig) -> Result<Self, ClusterError> {
        let layout = Layout::create(&config.data_dir, config.listen_tcp.unwrap_or(DEFAULT_PORT))?;
        let lock = layout.lock()?;
        let account = Account::choose(&layout.dir)?;
        let binaries = match data_major(&layout, &account)? {
            Some(major) => find_binaries_of(major)?,
            None => find_binaries()?,
        };
        let postgres = binaries.path("postgres");
        let launcher = Launcher::new(account.clone(), layout.root(), &postgres, config.die_with_process)?;
        if launcher.lends() {
            tracing::warn!(
                code = "capability_lent",
                account = account.name,
                dir = %layout.root().display(),
                "the account may not enter the directory, so PostgreSQL runs with CAP_DAC_READ_SEARCH; let the account pass the \
                 directories above it (chmod o+x)"
            );
        }
        let init = InitOptions { superuser: &config.superuser, sync: config.sync_init };
        init_if_missing(&layout, &binaries, &account, &launcher, init)?;
        let cluster = Self {
            config,
            layout,
            account,
            launcher,
            binaries,
            wanted: AtomicBool::new(true),
            pid: AtomicI32::new(0),
            child: Mutex::new(None),
        };
        start::ensure_running(&cluster, &mut cluster.lock_child())?;
        let roles = (cluster.config.superuser.as_str(), cluster.config.role.as_str());
        client::create_role_and_database(&cluster.layout, roles, &cluster.config.database)?;
        drop(lock);
        Ok(cluster)
    }

    /// Starts the server, or adopts it if it runs, and waits until it accepts connections.
    ///
    /// # Errors
    /// As [`Cluster::open`].
    pub fn start(&self) -> Result<(), ClusterError> {
        self.wanted.store(true, Ordering::SeqCst);
        self.start_if_wanted()
    }

    /// As [`Cluster::start`], but does not overrule an earlier [`Cluster::stop`].
    ///
    /// # Errors
    /// As [`Cluster::open`]; [`ClusterError::Cancelled`] if [`Cluster::stop`] was called before or is called meanwhile.
    pub(crate) fn start_if_wanted(&self) -> Result<(), ClusterError> {
        let mut child = self.lock_child();
        if !self.is_wanted() {
            return Err(ClusterError::Cancelled);
        }
        let _lock = self.layout.lock()?;
        start::ensure_running(self, &mut child)
    }

    /// Stops the server and waits for its end. Cancels a start under way in another thread. Does nothing if no server
    /// runs.
    ///
    /// # Errors
    /// [`ClusterError::StopTimeout`] if the server still runs after `timeout`; it got the signal and may stop later.
    pub fn stop(&self, mode: StopMode, timeout: Duration) -> Result<(), ClusterError> {
        self.wanted.store(false, Ordering::SeqCst);
        self.end(mode.signal(), timeout)
    }

    /// Stops the server with [`StopMode::Fast`] and starts it again.
    ///
    /// # Errors
    /// As [`Cluster::stop`] and [`Cluster::start`].
    pub fn restart(&self) -> Result<(), ClusterError> {
        self.stop(StopMode::Fast, STOP_TIMEOUT)?;
        self.start()
    }

    /// As [`Cluster::restart`], but does not overrule an earlier [`Cluster::stop`].
    pub(crate) fn restart_if_wanted(&self) -> Result<(), ClusterError> {
        self.end(StopMode::Fast.signal(), STOP_TIMEOUT)?;
        self.start_if_wanted()
    }

    /// Kills the postmaster with SIGKILL and waits for its end, so that a test can simulate a crash. A
    /// [`Watch`](crate::Watch) starts it again.
    ///
    /// # Errors
    /// [`ClusterError::Io`] if the signal cannot be sent, [`ClusterError::StopTimeout`] if the postmaster does not end.
    pub fn kill9(&self) -> Result<(), ClusterError> {
        self.end(Signal::KILL, STOP_TIMEOUT)
    }

    /// Whether a server runs, including one that was restarted by hand. It may still be recovering.
    pub fn is_alive(&self) -> bool {
        self.postmaster_pid().is_some()
    }

    /// Whether the server accepts connections now. Tries a log-in, which takes up to two seconds if the server hangs.
    pub fn is_accepting(&self) -> bool {
        match client::ping(&self.layout, &self.config.role) {
            Ok(answer) => matches!(answer, Answer::Ready | Answer::Refused),
            Err(error) => {
                tracing::debug!(%error, "cannot ask PostgreSQL whether it accepts connections");
                false
            }
        }
    }

    /// Process id of the running postmaster; none if no server runs.
    pub fn postmaster_pid(&self) -> Option<i32> {
        let known = self.pid.load(Ordering::SeqCst);
        if known > 0 && self.identify(known).may_be_ours() {
            return Some(known);
        }
        let file = match self.read_pid_file() {
            Ok(file) => file?,
            Err(error) => {
                tracing::debug!(%error, "cannot tell which PostgreSQL runs");
                return None;
            }
        };
        self.identify(file.pid).may_be_ours().then(|| {
            self.pid.store(file.pid, Ordering::SeqCst);
            file.pid
        })
    }

    /// The directory of the unix socket.
    pub fn socket_dir(&self) -> PathBuf {
        self.layout.socket_dir()
    }

    /// The port. It is part of the socket's name and, with `listen_tcp`, the TCP port.
    pub fn port(&self) -> u16 {
        self.layout.port
    }

    /// The server's binaries.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// The server's log, in PostgreSQL's own format.
    pub fn log_file(&self) -> PathBuf {
        self.layout.log_file()
    }

    /// Name of the account that the server runs as; its uid if it has no name.
    pub fn account(&self) -> &str {
        &self.account.name
    }

    /// Whether the server runs with `CAP_DAC_READ_SEARCH`, because its account may not enter the cluster's directory.
    pub fn has_lent_capability(&self) -> bool {
        self.launcher.lends()
    }

    /// The server's address for libpq: `postgres://forebay@/forebay?host=%2F…`, with the socket directory
    /// percent-encoded, and with `&port=` if the port is not 5432.
    pub fn url(&self) -> String {
        let user = percent_encoded(self.config.role.as_bytes());
        let database = percent_encoded(self.config.database.as_bytes());
        let host = percent_encoded(self.socket_dir().as_os_str().as_bytes());
        let mut url = format!("postgres://{user}@/{database}?host={host}");
        if self.port() != DEFAULT_PORT {
            url.push_str("&port=");
            url.push_str(&self.port().to_string());
        }
        url
    }

    /// Whether the server is to run.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst)
    }

    pub(crate) fn set_pid(&self, pid: i32) {
        self.pid.store(pid, Ordering::SeqCst);
    }

    /// Writes the configuration files. Returns whether any of them changed.
    pub(crate) fn write_settings(&self) -> Result<bool, ClusterError> {
        let (tcp, shared_socket) = (self.config.listen_tcp.is_some(), self.account.switched);
        let settings = settings_text(&self.layout, tcp, shared_socket, &self.config.settings);
        let hba = hba_text(&self.config.hba_lines);
        let settings_changed = self.layout.write_file(&self.layout.settings_file(), &settings, &self.account)?;
        Ok(self.layout.write_file(&self.layout.hba_file(), &hba, &self.account)? || settings_changed)
    }

    pub(crate) fn read_pid_file(&self) -> Result<Option<PidFile>, ClusterError> {
        read_pid_file(&self.layout.dir, &self.account)
    }

    /// What the process `pid` is to this cluster.
    pub(crate) fn identify(&self, pid: i32) -> Identity {
        identify(&self.account, pid, &self.layout.pgdata())
    }

    fn lock_child(&self) -> MutexGuard<'_, Option<Child>> {
        // A panicking thread leaves either a child or none; both are valid.
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Signals the postmaster and waits for its end.
    fn end(&self, with: Signal, timeout: Duration) -> Result<(), ClusterError> {
        let mut child = self.lock_child();
        // A child that ended by itself is reaped here; a server that was started by hand may have replaced it.
        if child.as_mut().is_some_and(|own| !matches!(own.try_wait(), Ok(None))) {
            *child = None;
        }
        // Our child comes first: if it was started a moment ago, it does not look like a postmaster yet.
        let own = child.as_ref().map(|own| own.id().cast_signed());
        let Some(pid) = own.or_else(|| self.postmaster_pid()) else { return Ok(()) };
        signal(pid, with)?;
        start::wait_for_end(self, pid, &mut child, timeout)
    }
}

impl StopMode {
    fn signal(self) -> Signal {
        match self {
            Self::Fast => Signal::INT,
            Self::Immediate => Signal::QUIT,
        }
    }
}

/// Replaces all characters but the unreserved ones of RFC 3986, section 2.3, by `%XX`.
fn percent_encoded(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push('%');
            text.extend([byte >> 4, byte & 15].map(|digit| char::from(b"0123456789ABCDEF"[usize::from(digit)])));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_in_a_url_is_percent_encoded() {
        assert_eq!(percent_encoded("/tmp/a b%é~".as_bytes()), "%2Ftmp%2Fa%20b%25%C3%A9~");
    }
}
