//! One cluster: opened, started, adopted, stopped.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;

use crate::account::Account;
use crate::binaries::{Binaries, find_binaries, find_binaries_of};
use crate::error::{ClusterError, IoContext};
use crate::init::{InitOptions, data_major, init_if_missing};
use crate::launch::{Launcher, LentCapability};
use crate::layout::Layout;
use crate::limits::{DEFAULT_PORT, STOP_TIMEOUT};
use crate::process::{identify, read_pid_file, signal};
use crate::settings::{hba_text, settings_text};
use crate::start;
use crate::wire;

/// What to open, and how.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// The directory that holds all of the cluster's files; created if missing, its parents too.
    pub data_dir: PathBuf,
    /// Name of the database to make. Default `forebay`.
    pub database: String,
    /// Name of the superuser, the only role of a new cluster. Default `forebay`.
    pub superuser: String,
    /// Server settings beyond PostgreSQL's defaults, name and value. They are written at each start; those that need a
    /// restart apply to an adopted server at its next one. `ALTER SYSTEM` overrides them.
    pub settings: Vec<(String, String)>,
    /// Lines for `pg_hba.conf`, before "trust on the socket, reject the rest". They must leave the superuser trusted on
    /// the socket. Default none.
    pub hba_lines: Vec<String>,
    /// Port to listen on, on 127.0.0.1, beside the unix socket. Default none: no TCP at all.
    pub listen_tcp: Option<u16>,
    /// How long a start, recovery included, may take. Default 5 minutes.
    pub start_timeout: Duration,
    /// True: the server is shut down by the kernel when this process ends in whatever way. For tests. Default false.
    pub die_with_process: bool,
    /// False: `initdb` does not wait for its files to be on disk. For tests. Default true.
    pub sync_init: bool,
}

impl ClusterConfig {
    /// The defaults, with the files in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            database: "forebay".to_owned(),
            superuser: "forebay".to_owned(),
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
    /// Ends the sessions, writes a checkpoint, stops (SIGINT).
    Fast,
    /// Stops at once, as in a crash; the next start recovers from the WAL (SIGQUIT). Nothing committed is lost.
    Immediate,
}

/// A private PostgreSQL cluster whose server this process keeps running.
///
/// All methods can be called from several threads. Dropping it leaves the server running, as the death of the process
/// does, to be adopted by the next [`Cluster::open`]; [`Cluster::stop`] stops it.
#[derive(Debug)]
pub struct Cluster {
    pub(crate) config: ClusterConfig,
    pub(crate) layout: Layout,
    pub(crate) account: Account,
    pub(crate) launcher: Launcher,
    binaries: Binaries,
    /// False once the server was told to stop: whoever is starting it gives up, and the watch leaves it alone.
    wanted: AtomicBool,
    /// The postmaster last known; 0 for none.
    pid: AtomicI32,
    /// The postmaster, if it is our child. Held while starting and stopping.
    child: Mutex<Option<Child>>,
}

impl Cluster {
    /// Opens the cluster in `config.data_dir`: makes it if there is none, adopts its server if one runs, else starts
    /// one, waits until it accepts connections, and makes the database if missing.
    ///
    /// As root the server runs as the account that owns the cluster; for a new one that is `postgres`, else `nobody`.
    /// If that account may not enter the directory, it is lent a capability, see [`Cluster::lent_capability`].
    ///
    /// Blocks: some seconds for a new cluster, as long as the recovery takes (at most `start_timeout`) for one that
    /// crashed.
    ///
    /// # Errors
    /// Any [`ClusterError`] but `StopTimeout`; with the end of the server's log where that says more.
    pub fn open(config: ClusterConfig) -> Result<Self, ClusterError> {
        let layout = Layout::create(&config.data_dir, config.listen_tcp.unwrap_or(DEFAULT_PORT))?;
        let lock = lock(&layout)?;
        let account = Account::choose(&layout.pgdata())?;
        let binaries = match data_major(&layout.pgdata())? {
            Some(major) => find_binaries_of(major)?,
            None => find_binaries()?,
        };
        let postgres = binaries.path("postgres");
        let launcher = Launcher::new(account.clone(), &layout.root, &postgres, config.die_with_process)?;
        if let Some(capability) = launcher.lent() {
            tracing::info!(
                capability = capability.name(),
                account = account.name,
                dir = %layout.root.display(),
                "the account may not enter the directory; PostgreSQL runs with a capability that lets it"
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
        wire::create_database(&cluster.layout.socket(), &cluster.config.superuser, &cluster.config.database)?;
        drop(lock);
        Ok(cluster)
    }

    /// Starts the server, or adopts it if it runs; waits until it accepts.
    ///
    /// # Errors
    /// As [`Cluster::open`].
    pub fn start(&self) -> Result<(), ClusterError> {
        self.wanted.store(true, Ordering::SeqCst);
        self.start_if_wanted()
    }

    /// As [`Cluster::start`], unless the server was told to stop.
    ///
    /// # Errors
    /// As [`Cluster::open`]; [`ClusterError::Cancelled`] if it was told to stop, before or meanwhile.
    pub(crate) fn start_if_wanted(&self) -> Result<(), ClusterError> {
        let mut child = self.lock_child();
        if !self.is_wanted() {
            return Err(ClusterError::Cancelled);
        }
        let _lock = lock(&self.layout)?;
        start::ensure_running(self, &mut child)
    }

    /// Stops the server and waits for its end. A start under way elsewhere is given up. No error if none runs.
    ///
    /// # Errors
    /// [`ClusterError::StopTimeout`] if it still runs after `timeout`; it has its signal and may stop later.
    pub fn stop(&self, mode: StopMode, timeout: Duration) -> Result<(), ClusterError> {
        self.wanted.store(false, Ordering::SeqCst);
        self.end(mode.signal(), timeout)
    }

    /// Stops the server in order, and starts it again.
    ///
    /// # Errors
    /// Those of [`Cluster::stop`] and [`Cluster::start`].
    pub fn restart(&self) -> Result<(), ClusterError> {
        self.stop(StopMode::Fast, STOP_TIMEOUT)?;
        self.start()
    }

    /// As [`Cluster::restart`], unless it was told to stop, before or meanwhile.
    pub(crate) fn restart_if_wanted(&self) -> Result<(), ClusterError> {
        self.end(StopMode::Fast.signal(), STOP_TIMEOUT)?;
        self.start_if_wanted()
    }

    /// Kills the postmaster with SIGKILL and waits for its end: a crash, for tests. A [`Watch`](crate::Watch) starts it
    /// again.
    ///
    /// # Errors
    /// [`ClusterError::Io`] if it cannot be signalled, [`ClusterError::StopTimeout`] if it does not end.
    pub fn kill9(&self) -> Result<(), ClusterError> {
        self.end(Signal::KILL, STOP_TIMEOUT)
    }

    /// Whether the server runs, also one that was restarted by hand. It may be recovering still.
    pub fn is_alive(&self) -> bool {
        self.postmaster_pid().is_some()
    }

    /// Whether the server accepts connections now. Asks it, which takes up to two seconds if it hangs.
    pub fn is_accepting(&self) -> bool {
        let answer = wire::ping(&self.layout.socket(), &self.config.superuser, "postgres");
        matches!(answer, wire::Answer::Ready | wire::Answer::Refused { .. })
    }

    /// Process id of the running postmaster; none if it does not run.
    pub fn postmaster_pid(&self) -> Option<i32> {
        let pgdata = self.layout.pgdata();
        let known = self.pid.load(Ordering::SeqCst);
        if known > 0 && identify(known, &pgdata).may_be_ours() {
            return Some(known);
        }
        let file = read_pid_file(&pgdata).ok().flatten()?;
        identify(file.pid, &pgdata).may_be_ours().then(|| {
            self.pid.store(file.pid, Ordering::SeqCst);
            file.pid
        })
    }

    /// The directory of the unix socket.
    pub fn socket_dir(&self) -> PathBuf {
        self.layout.socket_dir()
    }

    /// The port: that of the socket's name and, with `listen_tcp`, of TCP.
    pub fn port(&self) -> u16 {
        self.layout.port
    }

    /// The server's binaries.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// The server's log. Lines are in PostgreSQL's own format.
    pub fn log_file(&self) -> PathBuf {
        self.layout.log_file()
    }

    /// Name of the account the server runs as.
    pub fn account(&self) -> &str {
        &self.account.name
    }

    /// The capability the server runs with, if its account could not enter its directory otherwise.
    pub fn lent_capability(&self) -> Option<LentCapability> {
        self.launcher.lent()
    }

    /// `postgres://forebay@/forebay?host=%2F…`, the socket directory percent-encoded; with `&port=` where the port is
    /// not 5432. As libpq reads it.
    pub fn url(&self) -> String {
        let user = percent_encoded(self.config.superuser.as_bytes());
        let database = percent_encoded(self.config.database.as_bytes());
        let host = percent_encoded(self.socket_dir().as_os_str().as_bytes());
        let mut url = format!("postgres://{user}@/{database}?host={host}");
        if self.port() != DEFAULT_PORT {
            url.push_str("&port=");
            url.push_str(&self.port().to_string());
        }
        url
    }

    /// Whether the server is meant to run.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst)
    }

    pub(crate) fn set_pid(&self, pid: i32) {
        self.pid.store(pid, Ordering::SeqCst);
    }

    /// Writes the configuration files; returns whether that changed one.
    pub(crate) fn write_settings(&self) -> Result<bool, ClusterError> {
        let settings = settings_text(&self.layout, self.config.listen_tcp.is_some(), &self.config.settings);
        let hba = hba_text(&self.config.hba_lines);
        let settings_changed = self.layout.write_file(&self.layout.settings_file(), &settings, &self.account)?;
        Ok(self.layout.write_file(&self.layout.hba_file(), &hba, &self.account)? || settings_changed)
    }

    fn lock_child(&self) -> MutexGuard<'_, Option<Child>> {
        // What a panicking thread left is a child or none, both of which are whole.
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Signals the postmaster and waits for its end.
    fn end(&self, with: Signal, timeout: Duration) -> Result<(), ClusterError> {
        let mut child = self.lock_child();
        // Collects one that ended by itself; a server started by hand may have followed it.
        if child.as_mut().is_some_and(|own| !matches!(own.try_wait(), Ok(None))) {
            *child = None;
        }
        // Our child before all others: it may have been started a moment ago, and not look like a postmaster yet.
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

/// Keeps other processes from making or starting the same cluster until the file is dropped.
fn lock(layout: &Layout) -> Result<File, ClusterError> {
    let path = layout.lock_file();
    let file = File::options().create(true).append(true).open(&path).context("opening", &path)?;
    file.lock().context("locking", &path)?;
    Ok(file)
}

/// All but the unreserved characters of RFC 3986, section 2.3, as `%XX`.
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
