//! A log full of messages that PostgreSQL has not seen.

use crate::{Settings, drain::Daemon, scenario::Scenario};
use std::{
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

/// Messages of one request.
const MESSAGES_PER_REQUEST: u64 = 1000;

/// A URL at which nothing listens.
const NOWHERE: &str = "postgres://nobody@127.0.0.1:1/none";

/// The log, of a daemon that has ended.
pub(crate) struct Backlog {
    dir: TempDir,
}

impl Backlog {
    /// Pushes the messages of `scenario`, over one connection.
    pub(crate) fn new(settings: &Settings, scenario: &Scenario) -> Self {
        let dir = scratch();
        let daemon = Daemon::start(&dir.path().join("data"), NOWHERE, &["--shutdown-grace", "0s"]);
        let mut load = Command::new(&settings.load);
        load.args(["push", "--buffered", "--connections", "1", "--url", &format!("http://{}", daemon.address)])
            .args(["--requests", &(settings.messages / MESSAGES_PER_REQUEST).to_string()])
            .args(["--messages-per-request", &MESSAGES_PER_REQUEST.to_string()])
            .args(["--payload-bytes", &scenario.payload_bytes.to_string()])
            .args(["--partitions", &scenario.partitions.to_string()]);
        if scenario.uuids {
            load.arg("--uuids");
        }
        if let Some(every) = scenario.duplicate_every {
            load.args(["--duplicate-every", &every.to_string()]);
        }
        let output = load.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        daemon.terminate();
        Self { dir }
    }

    /// A copy of its data directory for one daemon.
    pub(crate) fn copy(&self) -> (TempDir, PathBuf) {
        let to = scratch();
        let copied = Command::new("cp").arg("-r").arg(self.dir.path().join("data")).arg(to.path()).status();
        assert!(copied.unwrap().success());
        let data = to.path().join("data");
        (to, data)
    }
}

/// A new directory in `TMPDIR` if that is set, else on the disk that holds the build.
pub(crate) fn scratch() -> TempDir {
    let named = std::env::var_os("TMPDIR");
    tempfile::tempdir_in(named.as_deref().map_or(Path::new(env!("CARGO_TARGET_TMPDIR")), Path::new)).unwrap()
}
