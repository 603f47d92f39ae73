//! Makes a server run: adopts one that runs, or starts one.

use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::{self, Answer};
use crate::cluster::Cluster;
use crate::error::{ClusterError, IoContext};
use crate::limits::{POLL_MAX, POLL_MIN, STOP_TIMEOUT, UNCLEAN_RETRY};
use crate::process::{Identity, PID_FILE, PidFile, signal};

/// The pause between two polls. It grows by half with each, from [`POLL_MIN`] to [`POLL_MAX`].
#[derive(Debug)]
pub(crate) struct Pause(Duration);

impl Pause {
    pub(crate) fn new() -> Self {
        Self(POLL_MIN)
    }

    pub(crate) fn sleep(&mut self) {
        thread::sleep(self.0);
        self.0 = (self.0 * 3 / 2).min(POLL_MAX);
    }
}

/// Adopts or starts a server and waits until it accepts connections. Retries a start after an unclean end for
/// [`UNCLEAN_RETRY`].
///
/// The caller holds the layout's lock, so no other process of this program starts a server at the same time. A person
/// still can.
pub(crate) fn ensure_running(cluster: &Cluster, child: &mut Option<Child>) -> Result<(), ClusterError> {
    let layout = &cluster.layout;
    let started = Instant::now();
    let mut unclean = false;
    let mut pause = Pause::new();
    loop {
        if !cluster.is_wanted() {
            return Err(ClusterError::Cancelled);
        }
        if let Some(pid) = child.as_ref().map(|own| own.id().cast_signed()) {
            // Our child runs, or is ending. In the second case it is reaped before another server is started, because
            // its zombie would be taken for a running one.
            match wait_accepting(cluster, pid, child, layout.open_log()?.1, started) {
                Err(ClusterError::StartFailed { .. }) => continue,
                result => return result,
            }
        }
        if let Some(file) = cluster.read_pid_file()? {
            unclean = true;
            match cluster.identify(file.pid) {
                Identity::Postmaster | Identity::Probably => {
                    if adopt(cluster, child, &file, started)? {
                        return Ok(());
                    }
                    continue;
                }
                Identity::Other | Identity::Dead => remove_stale_pid_file(cluster, &file)?,
                Identity::Gone => {}
            }
        }
        match launch(cluster, child, started) {
            Err(ClusterError::StartFailed { status, log_tail }) => {
                // A pid file here belongs to a server that was started by hand at the same moment.
                unclean |= cluster.read_pid_file()?.is_some();
                if !unclean || started.elapsed() >= UNCLEAN_RETRY {
                    return Err(ClusterError::StartFailed { status, log_tail });
                }
                tracing::debug!(status, "PostgreSQL does not start after an unclean end; retrying");
                pause.sleep();
            }
            result => return result,
        }
    }
}

/// Takes over the running server of `file` and waits until it accepts connections. Returns false if there is none to
/// take over any more: it ended by itself, or it was stopped here because it listened on another address than ours.
fn adopt(cluster: &Cluster, child: &mut Option<Child>, file: &PidFile, started: Instant) -> Result<bool, ClusterError> {
    let layout = &cluster.layout;
    let moved = file.data_dir != layout.pgdata()
        || file.port.is_some_and(|port| port != layout.port)
        || file.socket_dir.as_ref().is_some_and(|dir| *dir != layout.socket_dir())
        || !layout.is_socket_ours(&cluster.account);
    if moved {
        tracing::info!(pid = file.pid, "the running PostgreSQL cannot be reached where it should be; restarting it");
        signal(file.pid, Signal::INT)?;
        wait_for_end(cluster, file.pid, child, STOP_TIMEOUT)?;
        return Ok(false);
    }
    cluster.set_pid(file.pid);
    if cluster.write_settings()? {
        signal(file.pid, Signal::HUP)?;
    }
    match wait_accepting(cluster, file.pid, child, 0, started) {
        Ok(()) => {
            tracing::info!(pid = file.pid, "adopted the running PostgreSQL");
            Ok(true)
        }
        Err(ClusterError::StartFailed { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Starts a server and waits until it accepts connections.
fn launch(cluster: &Cluster, child: &mut Option<Child>, started: Instant) -> Result<(), ClusterError> {
    let layout = &cluster.layout;
    layout.trim_log()?;
    cluster.write_settings()?;
    layout.prepare_socket_dir(&cluster.account)?;
    let (log, log_from_bytes) = layout.open_log()?;
    let postgres = cluster.binaries().path("postgres");
    // The server itself changes to its data directory. Starting it there makes it recognizable as ours at once.
    let mut command = cluster.launcher.command(&postgres, &layout.pgdata());
    let log_copy = log.try_clone().context("opening", &layout.log_file())?;
    command.arg("-D").arg(layout.pgdata()).stdout(Stdio::from(log_copy)).stderr(Stdio::from(log));
    let spawned = cluster.launcher.spawn(command).context("starting", &postgres)?;
    let pid = spawned.id().cast_signed();
    *child = Some(spawned);
    cluster.set_pid(pid);
    wait_accepting(cluster, pid, child, log_from_bytes, started)?;
    tracing::info!(pid, socket = %layout.socket().display(), "PostgreSQL runs");
    Ok(())
}

/// Waits until the server `pid` accepts connections. `started` is when the wait for a server began.
///
/// # Errors
/// `StartFailed` if the server ends, with its log from `log_from_bytes` on; `StartTimeout` if it does not accept
/// connections in time, and it is left running; `Cancelled` after [`Cluster::stop`].
fn wait_accepting(
    cluster: &Cluster,
    pid: i32,
    child: &mut Option<Child>,
    log_from_bytes: u64,
    started: Instant,
) -> Result<(), ClusterError> {
    let layout = &cluster.layout;
    let mut pause = Pause::new();
    loop {
        // This check comes before the ping: after it, another server may answer in place of one that ended.
        if let Some(status) = end_of(cluster, pid, child)? {
            return Err(ClusterError::StartFailed { status, log_tail: layout.log_tail(log_from_bytes) });
        }
        match client::ping(layout, &cluster.config.role)? {
            Answer::Ready | Answer::Refused if owns_socket(cluster, pid) => return Ok(()),
            Answer::Ready | Answer::Refused | Answer::Starting | Answer::Away => {}
        }
        if !cluster.is_wanted() {
            return Err(ClusterError::Cancelled);
        }
        if started.elapsed() >= cluster.config.start_timeout {
            let log_tail = layout.log_tail(log_from_bytes);
            return Err(ClusterError::StartTimeout { waited: started.elapsed(), log_tail });
        }
        pause.sleep();
    }
}

/// Waits until the server `pid` has ended and, if it is our child, reaps it.
pub(crate) fn wait_for_end(
    cluster: &Cluster,
    pid: i32,
    child: &mut Option<Child>,
    timeout: Duration,
) -> Result<(), ClusterError> {
    let started = Instant::now();
    let mut pause = Pause::new();
    while end_of(cluster, pid, child)?.is_none() {
        if started.elapsed() >= timeout {
            return Err(ClusterError::StopTimeout { pid, waited: started.elapsed() });
        }
        pause.sleep();
    }
    Ok(())
}

/// The exit status of the server `pid`; none while it runs. Reaps it if it is our child.
fn end_of(cluster: &Cluster, pid: i32, child: &mut Option<Child>) -> Result<Option<String>, ClusterError> {
    match child {
        Some(own) if own.id().cast_signed() == pid => {
            let status = own.try_wait().context("waiting for", &cluster.layout.pgdata())?;
            if status.is_some() {
                *child = None;
            }
            Ok(status.map(|status| status.to_string()))
        }
        _ if cluster.identify(pid).may_be_ours() => Ok(None),
        _ => Ok(Some("status unknown: not a child of this process".to_owned())),
    }
}

/// Whether the server that answered is `pid`, not one that was started by hand at the same moment. False as well while
/// the pid file cannot be read: the caller then asks again.
fn owns_socket(cluster: &Cluster, pid: i32) -> bool {
    cluster.read_pid_file().is_ok_and(|file| file.is_some_and(|file| file.pid == pid))
}

/// Removes a pid file whose process id certainly no longer belongs to its server.
///
/// PostgreSQL asks kill(2) whether that process exists, and refuses to start if it does. The answer is misleading in two
/// cases. A killed server stays a zombie if its parent does not reap it, as with an init process in a container that
/// reaps no orphans. And in a container where daemon and server share an account, process ids start over at each boot
/// and soon match one of the daemon's threads. The file is not needed to protect the data from surviving children of a
/// dead server; the shared memory segment does that.
fn remove_stale_pid_file(cluster: &Cluster, file: &PidFile) -> Result<(), ClusterError> {
    tracing::info!(pid = file.pid, "removing the pid file of a server that is gone");
    let dir = &cluster.layout.dir;
    let removed = cluster.account.act(|| dir.remove_if_there(PID_FILE)).and_then(|removed| removed);
    removed.context("removing", &dir.path().join(PID_FILE))
}
