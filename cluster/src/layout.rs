//! The paths of a cluster's files.

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use crate::account::Account;
use crate::error::{ClusterError, IoContext};
use crate::limits::{LOG_MAX_BYTES, LOG_TAIL_BYTES, LOG_TAIL_LINES, MAX_SOCKET_PATH_BYTES};

/// The paths of one cluster.
///
/// All files but `pgdata` and the socket directory belong to this process's account. The unprivileged account therefore
/// cannot place a link where this process writes as root.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// Canonical.
    pub(crate) root: PathBuf,
    pub(crate) port: u16,
}

impl Layout {
    /// Creates the root directory unless it exists.
    pub(crate) fn create(root: &Path, port: u16) -> Result<Self, ClusterError> {
        if let Some(parent) = root.parent() {
            fs::create_dir_all(parent).context("creating", parent)?;
        }
        // If we are root, another account runs the server. It must enter the directory, but need not list it.
        let mode = if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 };
        match DirBuilder::new().mode(mode).create(root) {
            // The umask may have removed the execute bit.
            Ok(()) => fs::set_permissions(root, fs::Permissions::from_mode(mode)).context("opening", root)?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(ClusterError::io("creating", root, error)),
        }
        Ok(Self { root: fs::canonicalize(root).context("resolving", root)?, port })
    }

    /// PostgreSQL's own data directory.
    pub(crate) fn pgdata(&self) -> PathBuf {
        self.root.join("pgdata")
    }

    /// Our settings, included by `postgresql.conf`.
    pub(crate) fn settings_file(&self) -> PathBuf {
        self.root.join("forebay.conf")
    }

    pub(crate) fn hba_file(&self) -> PathBuf {
        self.root.join("pg_hba.conf")
    }

    pub(crate) fn log_file(&self) -> PathBuf {
        self.root.join("server.log")
    }

    /// Locked while a process creates or starts the cluster.
    pub(crate) fn lock_file(&self) -> PathBuf {
        self.root.join("start.lock")
    }

    /// The directory of the socket, normally `run` below the root.
    ///
    /// That path is not usable if it is too long for the kernel, or if it contains a comma, which libpq takes for the
    /// end of a host's name. The socket is then in a directory named after a hash of the root's path, in `/tmp` or, if we
    /// are not root, in `$XDG_RUNTIME_DIR`.
    pub(crate) fn socket_dir(&self) -> PathBuf {
        let inside = self.root.join("run");
        if self.is_usable(&inside) {
            return inside;
        }
        let name = format!("forebay-{:016x}", fnv1a(self.root.as_os_str().as_bytes()));
        let private = env::var_os("XDG_RUNTIME_DIR")
            .filter(|_| !rustix::process::geteuid().is_root())
            .map(|dir| Path::new(&dir).join(&name))
            .filter(|dir| dir.is_absolute() && dir.parent().is_some_and(Path::is_dir) && self.is_usable(dir));
        private.unwrap_or_else(|| Path::new("/tmp").join(name))
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.socket_in(&self.socket_dir())
    }

    fn is_usable(&self, socket_dir: &Path) -> bool {
        let path = self.socket_in(socket_dir);
        path.as_os_str().len() <= MAX_SOCKET_PATH_BYTES && !path.as_os_str().as_bytes().contains(&b',')
    }

    fn socket_in(&self, dir: &Path) -> PathBuf {
        dir.join(format!(".s.PGSQL.{}", self.port))
    }

    /// Creates the socket directory with mode 0700, owned by the account. If it exists, checks its mode and owner.
    ///
    /// # Errors
    /// [`ClusterError::UnsafeSocketDir`] if mode or owner differ, [`ClusterError::Io`].
    pub(crate) fn prepare_socket_dir(&self, account: &Account) -> Result<(), ClusterError> {
        let dir = self.socket_dir();
        match DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => account.give(&dir)?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(ClusterError::io("creating", &dir, error)),
        }
        // Any account can create a directory or link of this name in /tmp before us.
        let meta = fs::symlink_metadata(&dir).context("looking at", &dir)?;
        if !meta.is_dir() || meta.uid() != account.uid || meta.mode() & 0o777 != 0o700 {
            return Err(ClusterError::UnsafeSocketDir { dir });
        }
        Ok(())
    }

    /// Opens the server's log for appending, and returns its length in bytes.
    pub(crate) fn open_log(&self) -> Result<(File, u64), ClusterError> {
        let path = self.log_file();
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path).context("opening", &path)?;
        let len = file.metadata().context("looking at", &path)?.len();
        Ok((file, len))
    }

    /// Moves the content of the server's log to `server.log.1` if it is longer than [`LOG_MAX_BYTES`]. The server keeps
    /// the file open, so the content is copied and the file truncated; lines that the server writes in between are lost.
    pub(crate) fn trim_log(&self) -> Result<(), ClusterError> {
        let path = self.log_file();
        if !fs::metadata(&path).is_ok_and(|meta| meta.len() > LOG_MAX_BYTES) {
            return Ok(());
        }
        fs::copy(&path, self.root.join("server.log.1")).context("copying", &path)?;
        OpenOptions::new().write(true).truncate(true).open(&path).context("truncating", &path)?;
        Ok(())
    }

    /// The last lines of the server's log from the position `from_bytes` on.
    pub(crate) fn log_tail(&self, from_bytes: u64) -> String {
        let mut bytes = Vec::new();
        let read = File::open(self.log_file()).and_then(|mut file| {
            let len = file.metadata()?.len();
            file.seek(SeekFrom::Start(from_bytes.max(len.saturating_sub(LOG_TAIL_BYTES)).min(len)))?;
            file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)
        });
        match read {
            Ok(_) => last_lines(&String::from_utf8_lossy(&bytes)),
            Err(error) => format!("(unreadable: {error})"),
        }
    }

    /// Writes a file that the account may read, atomically, unless it has this content already. Returns whether the
    /// content differed.
    pub(crate) fn write_file(&self, path: &Path, content: &[u8], account: &Account) -> Result<bool, ClusterError> {
        if fs::read(path).is_ok_and(|old| old == content) {
            return Ok(false);
        }
        let temporary = path.with_extension("new");
        remove_if_there(&temporary)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o640)
            .open(&temporary)
            .context("creating", &temporary)?;
        if account.switched {
            fchown(&file, None, Some(account.gid)).context("changing the group of", &temporary)?;
        }
        file.write_all(content).and_then(|()| file.sync_all()).context("writing", &temporary)?;
        fs::rename(&temporary, path).context("renaming", &temporary)?;
        sync_dir(&self.root)?;
        Ok(true)
    }
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), ClusterError> {
    File::open(dir).and_then(|file| file.sync_all()).context("syncing", dir)
}

/// Removes a file. It is no error if the file does not exist.
pub(crate) fn remove_if_there(path: &Path) -> Result<(), ClusterError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(ClusterError::io("removing", path, error)),
        _ => Ok(()),
    }
}

/// The last [`LOG_TAIL_LINES`] lines.
pub(crate) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}

/// FNV-1a, 64 bits, with offset basis and prime of draft-eastlake-fnv. Gives the same directory name in every version of
/// the compiler and of this crate, so that a running server is found again.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_outside_the_directory_exactly_if_its_path_would_be_too_long() {
        let fixed = "/run/.s.PGSQL.5432".len();
        let fits =
            Layout { root: PathBuf::from(format!("/{}", "d".repeat(MAX_SOCKET_PATH_BYTES - fixed - 1))), port: 5432 };
        assert_eq!(fits.socket().as_os_str().len(), MAX_SOCKET_PATH_BYTES);
        assert!(fits.socket_dir().starts_with(&fits.root));
        let long =
            Layout { root: PathBuf::from(format!("/{}", "d".repeat(MAX_SOCKET_PATH_BYTES - fixed))), port: 5432 };
        assert!(!long.socket_dir().starts_with(&long.root));
        assert!(long.socket().as_os_str().len() <= MAX_SOCKET_PATH_BYTES);
    }

    #[test]
    fn a_path_with_a_comma_gets_a_socket_elsewhere() {
        let layout = Layout { root: PathBuf::from("/a,b"), port: 5432 };
        assert!(!layout.socket_dir().starts_with(&layout.root));
    }

    #[test]
    fn the_hash_is_fnv_1a() {
        // Test vectors of the draft's appendix.
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let text: String = (0..50).map(|n| format!("line {n}\n")).collect();
        let kept = last_lines(&text);
        assert!(kept.starts_with("line 30\n") && kept.ends_with("line 49"));
        assert_eq!(last_lines(""), "");
    }
}
