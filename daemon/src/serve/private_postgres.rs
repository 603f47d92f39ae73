//! The private PostgreSQL: a helper process keeps it, since the daemon gives up the rights that this takes.

use super::ServeError;
use crate::{config::Config, datadir::DataDir};
use forebay_cluster::{ClusterConfig, HelpedServer, Helper, keep as keep_cluster};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::{
    io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, ExitCode},
    sync::{Arc, OnceLock},
    time::Duration,
};

/// The helper's subcommand.
const SUBCOMMAND: &str = "keep-private-postgres";

/// Time that PostgreSQL gets to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Time beyond it until the helper counts as gone.
const ANSWER_MARGIN: Duration = Duration::from_secs(5);

/// Starts the helper, which waits for [`open`].
pub(super) fn start_helper(config: &Config, data_dir: &DataDir) -> io::Result<Helper> {
    // This very program, also if an upgrade has replaced its file.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("forebay").arg(SUBCOMMAND).arg("--dir").arg(data_dir.postgres()).arg("--log").arg(&config.log);
    if let Some(format) = config.log_format {
        command.arg("--log-format").arg(format.name());
    }
    Helper::start(command)
}

/// Lets the helper start or adopt the server, waits until it accepts connections, and publishes its URL.
pub(super) fn open(mut helper: Helper, url: &OnceLock<String>) -> Result<(Helper, HelpedServer), ServeError> {
    let server = helper.open().map_err(|error| ServeError::Setup(format!("the private PostgreSQL: {error}")))?;
    if url.set(server.url.clone()).is_err() {
        tracing::debug!("the private PostgreSQL was named before");
    }
    Ok((helper, server))
}

/// Lets the helper stop the server.
pub(super) fn stop(helper: Helper) {
    if let Err(error) = helper.stop(STOP_TIMEOUT + ANSWER_MARGIN) {
        tracing::error!(code = "embedded_postgres_not_stopped", %error, "the private PostgreSQL did not end");
    }
}

/// The helper's whole life: keeps the private PostgreSQL in `dir`.
///
/// # Errors
/// When a signal's handler cannot be set.
pub fn keep(dir: &Path) -> io::Result<ExitCode> {
    // A supervisor may signal all processes. The daemon still drains into the server then, and says when to stop. Handlers and
    // not ignored signals, for PostgreSQL would inherit those.
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::default())?;
    }
    Ok(keep_cluster(ClusterConfig::new(dir), STOP_TIMEOUT))
}
