//! Creates a new cluster atomically.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::process::Output;

use rustix::fs::OFlags;

use crate::account::Account;
use crate::binaries::Binaries;
use crate::error::{ClusterError, IoContext};
use crate::launch::Launcher;
use crate::layout::{Layout, PGDATA, last_lines};
use crate::limits::SMALL_FILE_MAX_BYTES;
use crate::settings::INCLUDE_LINE;

/// Prefix of the name of a data directory that `initdb` has not finished. A directory gets its final name only when it
/// is complete.
const UNFINISHED: &str = "pgdata.init-";

/// What determines the content of a new cluster, besides the binaries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InitOptions<'a> {
    pub(crate) superuser: &'a str,
    /// Whether `initdb` syncs its files. Not needed for clusters that need not survive a crash of the machine.
    pub(crate) sync: bool,
}

impl InitOptions<'_> {
    /// Arguments for `initdb`, except the directory.
    ///
    /// Texts are compared by their bytes, which is the same on every machine and fastest for indexes. What counts as a
    /// letter is decided by `locale`. Clients of the private socket are trusted; TCP clients are rejected.
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

/// The locales to try, in this order: not every system has `C.UTF-8`.
pub(crate) const LOCALES: [&str; 2] = ["C.UTF-8", "C"];

/// Creates `pgdata` unless it exists. Removes what interrupted attempts left behind.
///
/// The caller holds the layout's lock.
///
/// # Errors
/// [`ClusterError::InitFailed`] with the output for the last locale; [`ClusterError::Io`].
pub(crate) fn init_if_missing(
    layout: &Layout,
    binaries: &Binaries,
    account: &Account,
    launcher: &Launcher,
    options: InitOptions<'_>,
) -> Result<(), ClusterError> {
    remove_unfinished(layout.root());
    if layout.has_pgdata()? {
        return Ok(());
    }
    tracing::info!(
        dir = %layout.root().display(),
        version = binaries.version(),
        account = account.name,
        "creating a private PostgreSQL cluster"
    );
    let mut failure = None;
    for (attempt, locale) in LOCALES.iter().enumerate() {
        // Each attempt has a directory of its own, because the initdb of a killed process may still be writing.
        let name = format!("{UNFINISHED}{}-{attempt}", std::process::id());
        let unfinished = layout.root().join(&name);
        let dir = layout.dir.make_dir(&name, 0o700).context("creating", &unfinished)?;
        account.give(&dir, &unfinished)?;
        let output = run_initdb(binaries, launcher, &unfinished, &options.arguments(locale))?;
        if output.status.success() {
            include_settings(layout, account, &unfinished, options.sync)?;
            layout.dir.rename(&name, PGDATA).context("renaming", &unfinished)?;
            return if options.sync { layout.sync() } else { Ok(()) };
        }
        let text = [output.stdout, output.stderr].concat();
        let output_text = last_lines(&String::from_utf8_lossy(&text));
        remove_unfinished(layout.root());
        failure = Some(ClusterError::InitFailed { status: output.status.to_string(), output: output_text });
    }
    Err(failure.unwrap_or_else(|| unreachable!("there is at least one locale")))
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

/// Appends [`INCLUDE_LINE`] to `postgresql.conf`, as the account that owns it.
fn include_settings(layout: &Layout, account: &Account, pgdata: &Path, sync: bool) -> Result<(), ClusterError> {
    let path = pgdata.join("postgresql.conf");
    let append = || -> io::Result<()> {
        let mut file = layout.dir.open_file(&path, OFlags::WRONLY | OFlags::APPEND)?;
        file.write_all(INCLUDE_LINE.as_bytes())?;
        if sync { file.sync_all() } else { Ok(()) }
    };
    account.act(append).and_then(|appended| appended).context("writing", &path)
}

/// Removes the directories of unfinished attempts. If an orphaned `initdb` is still writing, some of its files may stay
/// until the next start; nothing uses them.
fn remove_unfinished(root: &Path) {
    // If the directory cannot be listed, nothing can be removed from it; creating the cluster there reports the error.
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes()) {
            tracing::info!(dir = %entry.path().display(), "removing the files of an interrupted initdb");
            if let Err(error) = fs::remove_dir_all(entry.path()) {
                tracing::warn!(dir = %entry.path().display(), %error, "cannot remove the files of an interrupted initdb");
            }
        }
    }
}

/// The major version that created the data directory; none if there is no data directory.
///
/// # Errors
/// [`ClusterError::NotACluster`] if the directory has no `PG_VERSION` with a number, [`ClusterError::Io`] if that file
/// cannot be read.
pub(crate) fn data_major(layout: &Layout, account: &Account) -> Result<Option<u32>, ClusterError> {
    if !layout.has_pgdata()? {
        return Ok(None);
    }
    let not_a_cluster = || ClusterError::NotACluster { dir: layout.pgdata() };
    let path = layout.pgdata().join("PG_VERSION");
    let text = match account.act(|| layout.dir.read_text(&path, SMALL_FILE_MAX_BYTES)).and_then(|read| read) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Err(not_a_cluster());
        }
        read => read.context("reading", &path)?,
    };
    text.trim().parse().map(Some).map_err(|_| not_a_cluster())
}
