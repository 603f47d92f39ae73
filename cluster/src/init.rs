//! Making a new cluster, whole or not at all.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::Output;

use crate::account::Account;
use crate::binaries::Binaries;
use crate::error::{ClusterError, IoContext};
use crate::launch::Launcher;
use crate::layout::{Layout, last_lines, sync_dir};
use crate::settings::INCLUDE_LINE;

/// Beginning of the name of a data directory that `initdb` has not finished. Only a finished one gets its real name,
/// so a real name is the mark of a whole cluster.
const UNFINISHED: &str = "pgdata.init-";

/// What decides the content of a new cluster, beside the binaries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InitOptions<'a> {
    pub(crate) superuser: &'a str,
    /// False: leave it to the page cache. For clusters that need not survive a crash of the machine.
    pub(crate) sync: bool,
}

impl InitOptions<'_> {
    /// Arguments for `initdb`, but for the directory.
    ///
    /// Texts compare by their bytes, which is the same everywhere and the fastest for indexes; letters are told by
    /// Unicode, where `locale` says so. Nobody gets in over TCP, whoever reaches the private socket does.
    pub(crate) fn arguments(&self, locale: &str) -> Vec<String> {
        let mut arguments: Vec<String> =
            ["--encoding=UTF8", "--lc-collate=C", "--auth-local=trust", "--auth-host=reject"].map(String::from).into();
        arguments.push(format!("--locale={locale}"));
        arguments.push(format!("--username={}", self.superuser));
        if !self.sync {
            arguments.push("--no-sync".to_owned());
        }
        arguments
    }
}

/// The locales tried, the better one first: not every system has `C.UTF-8`.
pub(crate) const LOCALES: [&str; 2] = ["C.UTF-8", "C"];

/// Makes `pgdata` unless it is there. What an interrupted attempt left behind is removed first.
///
/// The caller holds the layout's lock.
pub(crate) fn init_if_missing(
    layout: &Layout,
    binaries: &Binaries,
    account: &Account,
    launcher: &Launcher,
    options: InitOptions<'_>,
) -> Result<(), ClusterError> {
    remove_unfinished(&layout.root);
    if layout.pgdata().exists() {
        return Ok(());
    }
    tracing::info!(dir = %layout.root.display(), version = binaries.version(), account = account.name, "making a private PostgreSQL cluster");
    let mut failure = None;
    for (attempt, locale) in LOCALES.iter().enumerate() {
        // A name of its own for each attempt: an initdb that outlived the process which started it must not write
        // into the next one's directory.
        let unfinished = layout.root.join(format!("{UNFINISHED}{}-{attempt}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&unfinished).context("creating", &unfinished)?;
        account.give(&unfinished)?;
        let output = run_initdb(binaries, launcher, &unfinished, &options.arguments(locale))?;
        if output.status.success() {
            include_settings(&unfinished, options.sync)?;
            fs::rename(&unfinished, layout.pgdata()).context("renaming", &unfinished)?;
            return if options.sync { sync_dir(&layout.root) } else { Ok(()) };
        }
        let text = [output.stdout, output.stderr].concat();
        let output_text = last_lines(&String::from_utf8_lossy(&text));
        remove_unfinished(&layout.root);
        failure = Some(ClusterError::InitFailed { status: output.status.to_string(), output: output_text });
    }
    failure.map_or(Ok(()), Err)
}

fn run_initdb(
    binaries: &Binaries,
    launcher: &Launcher,
    pgdata: &Path,
    arguments: &[String],
) -> Result<Output, ClusterError> {
    let initdb = binaries.path("initdb");
    let mut command = launcher.command(&initdb, pgdata);
    command.arg("--pgdata").arg(pgdata).args(arguments);
    command.output().context("running", &initdb)
}

/// Appends the line that includes our settings to `postgresql.conf`.
fn include_settings(pgdata: &Path, sync: bool) -> Result<(), ClusterError> {
    let path = pgdata.join("postgresql.conf");
    let mut file = OpenOptions::new().append(true).open(&path).context("opening", &path)?;
    file.write_all(INCLUDE_LINE.as_bytes()).context("writing", &path)?;
    if sync {
        file.sync_all().context("syncing", &path)?;
    }
    Ok(())
}

/// Removes what unfinished attempts left. An orphaned `initdb` may still be writing; then some of it stays, under a
/// name that means nothing, until the next start.
fn remove_unfinished(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes()) {
            tracing::info!(dir = %entry.path().display(), "removing the rest of an interrupted initdb");
            if let Err(error) = fs::remove_dir_all(entry.path()) {
                tracing::warn!(dir = %entry.path().display(), %error, "cannot remove it yet");
            }
        }
    }
}

/// The major version that made the data directory; none if there is no data directory.
pub(crate) fn data_major(pgdata: &Path) -> Result<Option<u32>, ClusterError> {
    if !pgdata.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(pgdata.join("PG_VERSION")).unwrap_or_default();
    let major = text.trim().parse().map_err(|_| ClusterError::NotACluster { dir: pgdata.to_owned() })?;
    Ok(Some(major))
}
