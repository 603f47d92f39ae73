//! Getting a server to run: adopting the one that does, or starting one, as often as it takes.

use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::cluster::Cluster;
use crate::error::{ClusterError, IoContext};
use crate::layout::remove_if_there;
use crate::limits::{POLL_MAX, POLL_MIN, STOP_TIMEOUT, UNCLEAN_RETRY};
use crate::process::{Identity, PidFile, identify, pid_file_path, read_pid_file, signal};
use crate::wire::{self, Answer};

/// Growing pauses between looks at something that takes its time.
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

/// Returns when a server accepts connections: one that runs already, or one started here.
///
/// The caller holds the layout's lock, so only a person can start one beside us. A start after an unclean end is
/// repeated for [`UNCLEAN_RETRY`].
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
            // Running, or on its way out: collected before another takes its place, or its remains would pass for it.
            match wait_accepting(cluster, pid, child, layout.open_log()?.1, started) {
                Err(ClusterError::StartFailed { .. }) => continue,
                result => return result,
            }
        }
        if let Some(file) = read_pid_file(&layout.pgdata())? {
            unclean = true;
            match identify(file.pid, &layout.pgdata()) {
                Identity::Postmaster | Identity::Probably => {
                    if adopt(cluster, child, &file, started)? {
                        return Ok(());
                    }
                    continue;
                }
                Identity::Other | Identity::Remains => remove_stale_pid_file(cluster, &file)?,
                Identity::Gone => {}
            }
        }
        match launch(cluster, child, started) {
            Err(ClusterError::StartFailed { status, log_tail }) => {
                // A server started by hand in the same moment leaves its pid file.
                unclean |= pid_file_path(&layout.pgdata()).exists();
                if !unclean || started.elapsed() >= UNCLEAN_RETRY {
                    return Err(ClusterError::StartFailed { status, log_tail });
                }
                tracing::debug!(status, "PostgreSQL does not start after an unclean end yet; trying again");
                pause.sleep();
            }
            result => return result,
        }
    }
}

/// Takes over a running server. False if it was one with other addresses than ours, and is stopped now.
fn adopt(cluster: &Cluster, child: &mut Option<Child>, file: &PidFile, started: Instant) -> Result<bool, ClusterError> {
    let layout = &cluster.layout;
    let moved = file.data_dir != layout.pgdata()
        || file.port.is_some_and(|port| port != layout.port)
        || file.socket_dir.as_ref().is_some_and(|dir| *dir != layout.socket_dir());
    if moved {
        tracing::info!(pid = file.pid, "the running PostgreSQL has other addresses; restarting it");
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
        // It ended while we were looking; then the next look starts one.
        Err(ClusterError::StartFailed { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Starts a server and waits until it accepts.
fn launch(cluster: &Cluster, child: &mut Option<Child>, started: Instant) -> Result<(), ClusterError> {
    let layout = &cluster.layout;
    layout.trim_log()?;
    cluster.write_settings()?;
    layout.prepare_socket_dir(&cluster.account)?;
    let (log, log_from_bytes) = layout.open_log()?;
    let postgres = cluster.binaries().path("postgres");
    // The data directory as working directory, as the server will have it: so it is known as ours from the first moment.
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

/// Waits until the server `pid` accepts connections.
///
/// # Errors
/// `StartFailed` if it ends, `StartTimeout` if it takes too long (it is left running), `Cancelled` if it is not wanted
/// any more.
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
        // Looked at before the ping, so that a server which is gone is not taken for one that answers.
        if let Some(status) = end_of(cluster, pid, child)? {
            return Err(ClusterError::StartFailed { status, log_tail: layout.log_tail(log_from_bytes) });
        }
        match wire::ping(&layout.socket(), &cluster.config.superuser, "postgres") {
            Answer::Ready | Answer::Refused { .. } if owns_socket(cluster, pid) => return Ok(()),
            _ => {}
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

/// Waits until the server `pid` has ended and, if it is our child, is collected.
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

/// How the server `pid` ended; none while it runs.
fn end_of(cluster: &Cluster, pid: i32, child: &mut Option<Child>) -> Result<Option<String>, ClusterError> {
    let pgdata = cluster.layout.pgdata();
    match child {
        Some(own) if own.id().cast_signed() == pid => {
            let status = own.try_wait().context("waiting for", &pgdata)?;
            if status.is_some() {
                *child = None;
            }
            Ok(status.map(|status| status.to_string()))
        }
        _ if identify(pid, &pgdata).may_be_ours() => Ok(None),
        _ => Ok(Some("not a child of ours".to_owned())),
    }
}

/// Whether the server that answered is the one we mean, not one started by hand in the same moment.
fn owns_socket(cluster: &Cluster, pid: i32) -> bool {
    read_pid_file(&cluster.layout.pgdata()).is_ok_and(|file| file.is_some_and(|file| file.pid == pid))
}

/// Removes a pid file whose process id certainly does not belong to its server any more.
///
/// PostgreSQL asks kill(2) whether the process lives, and refuses to start if it does. That is wrong for one that was
/// killed and is not collected by its parent, as where a container's first process collects nobody. And it is wrong
/// where daemon and server share an account in a container: ids start over at each boot and soon meet one of the
/// daemon's threads. What a dead server's children still hold is protected by its shared memory, not by this file.
fn remove_stale_pid_file(cluster: &Cluster, file: &PidFile) -> Result<(), ClusterError> {
    tracing::info!(pid = file.pid, "removing the pid file of a server that is gone");
    remove_if_there(&pid_file_path(&cluster.layout.pgdata()))
}
