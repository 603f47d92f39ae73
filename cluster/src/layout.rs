//! The paths of a cluster's files.

use std::env;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use forebay_os::dir::Dir;
use rustix::fs::{Mode, OFlags, fchown};
use rustix::process::{Gid, Uid, getegid, geteuid};

use crate::account::Account;
use crate::error::{ClusterError, IoContext};
use crate::limits::{CONFIG_MAX_BYTES, LOG_MAX_BYTES, LOG_TAIL_BYTES, LOG_TAIL_LINES, MAX_SOCKET_PATH_BYTES};

/// Name of PostgreSQL's own data directory.
pub(crate) const PGDATA: &str = "pgdata";
/// Names of the other files.
const LOG_FILE: &str = "server.log";
const OLD_LOG_FILE: &str = "server.log.1";
const LOCK_FILE: &str = "start.lock";

/// The files of one cluster.
///
/// All but `pgdata` and the socket directory belong to this process's account. They are reached from the directory's
/// descriptor, and no link is followed. What belongs to the unprivileged account is used with that account's rights.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// Canonical.
    root: PathBuf,
    /// The same, opened.
    pub(crate) dir: Dir,
    pub(crate) port: u16,
}

impl Layout {
    /// Creates the directory unless it exists.
    pub(crate) fn create(root: &Path, port: u16) -> Result<Self, ClusterError> {
        let (Some(parent), Some(name)) = (root.parent(), root.file_name()) else {
            return Err(ClusterError::io("creating", root, ErrorKind::InvalidInput.into()));
        };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        fs::create_dir_all(parent).context("creating", parent)?;
        let parent = fs::canonicalize(parent).context("resolving", parent)?;
        // If we are root, another account runs the server. It must enter the directory, but need not list it.
        let mode = if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 };
        let dir = Dir::open(&parent).and_then(|parent| parent.make_dir(name, mode)).context("creating", root)?;
        Ok(Self { root: dir.path().to_owned(), dir, port })
    }

    /// The cluster's directory.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// One for the tests that look at paths only.
    #[cfg(test)]
    pub(crate) fn unmade(root: impl Into<PathBuf>) -> Self {
        let dir = Dir::open(Path::new("/")).unwrap_or_else(|error| panic!("{error}"));
        Self { root: root.into(), dir, port: 5432 }
    }

    /// Whether PostgreSQL's own data directory exists.
    pub(crate) fn has_pgdata(&self) -> Result<bool, ClusterError> {
        match self.dir.stat(PGDATA) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            stat => stat.map(|_| true).context("looking at", &self.pgdata()),
        }
    }

    /// PostgreSQL's own data directory.
    pub(crate) fn pgdata(&self) -> PathBuf {
        self.root().join(PGDATA)
    }

    /// Our settings, included by `postgresql.conf`.
    pub(crate) fn settings_file(&self) -> PathBuf {
        self.root().join("forebay.conf")
    }

    pub(crate) fn hba_file(&self) -> PathBuf {
        self.root().join("pg_hba.conf")
    }

    pub(crate) fn log_file(&self) -> PathBuf {
        self.root().join(LOG_FILE)
    }

    /// Keeps other processes from creating or starting the cluster until the returned file is dropped.
    pub(crate) fn lock(&self) -> Result<File, ClusterError> {
        let path = self.root().join(LOCK_FILE);
        let file = self.dir.open_or_create(LOCK_FILE).context("opening", &path)?;
        // An account that may open the file could lock it for ever. Earlier releases made it with mode 0644.
        file.set_permissions(fs::Permissions::from_mode(0o600)).context("changing the mode of", &path)?;
        file.lock().context("locking", &path)?;
        Ok(file)
    }

    /// The directory of the socket, normally `run` below the root.
    ///
    /// That path is not usable if it is too long for the kernel, or if it contains a comma, which libpq takes for the
    /// end of a host's name. The socket is then in a directory named after a hash of the root's path, in `/tmp` or, if we
    /// are not root, in `$XDG_RUNTIME_DIR`.
    pub(crate) fn socket_dir(&self) -> PathBuf {
        let inside = self.root().join("run");
        if self.is_usable(&inside) {
            return inside;
        }
        let name = format!("forebay-{:016x}", fnv1a(self.root().as_os_str().as_bytes()));
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

    /// Creates the socket directory unless it exists. Only the account and this process may use it: it belongs to the
    /// account, with mode 0700. If that is another account, this process reaches the directory as a member of its group, for
    /// it keeps no capability; the mode is 2770, so that the socket has the same group.
    ///
    /// # Errors
    /// [`ClusterError::UnsafeSocketDir`] if others may use the directory, [`ClusterError::Io`].
    pub(crate) fn prepare_socket_dir(&self, account: &Account) -> Result<(), ClusterError> {
        let path = self.socket_dir();
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            unreachable!("a socket directory has a name");
        };
        let own = (geteuid().as_raw(), getegid().as_raw());
        let made = Dir::open(parent).and_then(|parent| parent.make_dir(name, 0o700));
        let dir = made.context("creating", &path)?;
        let stat = dir.stat_self().context("looking at", &path)?;
        // Any account can create a directory of this name in /tmp before us.
        let by_group = stat.st_mode & 0o070 != 0 && ![own.1, account.gid].contains(&stat.st_gid);
        if ![own.0, account.uid].contains(&stat.st_uid) || stat.st_mode & 0o007 != 0 || by_group {
            return Err(ClusterError::UnsafeSocketDir { dir: path });
        }
        let (group, mode) = if account.switched { (own.1, 0o2770) } else { (stat.st_gid, 0o700) };
        if (stat.st_uid, stat.st_gid) != (account.uid, group) {
            let given = fchown(&dir, Some(Uid::from_raw(account.uid)), Some(Gid::from_raw(group)));
            given.map_err(io::Error::from).context("changing the owner of", &path)?;
        }
        if stat.st_mode & 0o7777 != mode || stat.st_gid != group {
            let changed = rustix::fs::fchmod(&dir, Mode::from_raw_mode(mode));
            changed.map_err(io::Error::from).context("changing the mode of", &path)?;
        }
        Ok(())
    }

    /// Whether this process can connect through the socket of a running server without a capability. Earlier releases let
    /// only the account itself use it.
    pub(crate) fn is_socket_ours(&self, account: &Account) -> bool {
        let Ok(meta) = fs::symlink_metadata(self.socket()) else { return true };
        !account.switched || meta.gid() == getegid().as_raw() && meta.mode() & 0o060 == 0o060
    }

    /// Opens the server's log for appending, and returns its length in bytes.
    pub(crate) fn open_log(&self) -> Result<(File, u64), ClusterError> {
        let path = self.log_file();
        let file = self.dir.open_or_create(LOG_FILE).context("opening", &path)?;
        let len = file.metadata().context("looking at", &path)?.len();
        Ok((file, len))
    }

    /// Moves the content of the server's log to `server.log.1` if it is longer than [`LOG_MAX_BYTES`]. The server keeps
    /// the file open, so the content is copied and the file truncated; lines that the server writes in between are lost.
    pub(crate) fn trim_log(&self) -> Result<(), ClusterError> {
        let path = self.log_file();
        if !self.dir.stat(LOG_FILE).is_ok_and(|stat| stat.st_size.unsigned_abs() > LOG_MAX_BYTES) {
            return Ok(());
        }
        let trim = || -> io::Result<()> {
            let mut log = self.dir.open_or_create(LOG_FILE)?;
            io::copy(&mut log, &mut self.dir.recreate_file(OLD_LOG_FILE, OFlags::empty())?)?;
            log.set_len(0)
        };
        trim().context("trimming", &path)
    }

    /// The last lines of the server's log from the position `from_bytes` on.
    pub(crate) fn log_tail(&self, from_bytes: u64) -> String {
        let mut bytes = Vec::new();
        let read = self.dir.open_file(LOG_FILE, OFlags::RDONLY).and_then(|mut file| {
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
        if self.dir.read(path, CONFIG_MAX_BYTES).is_ok_and(|old| old == content) {
            return Ok(false);
        }
        let temporary = path.with_extension("new");
        let mut file = self.dir.recreate_file(&temporary, OFlags::empty()).context("creating", &temporary)?;
        if account.switched {
            let given = fchown(&file, None, Some(Gid::from_raw(account.gid)));
            given.map_err(io::Error::from).context("changing the group of", &temporary)?;
            file.set_permissions(fs::Permissions::from_mode(0o640)).context("changing the mode of", &temporary)?;
        }
        file.write_all(content).and_then(|()| file.sync_all()).context("writing", &temporary)?;
        self.dir.rename(&temporary, path).context("renaming", &temporary)?;
        self.sync()?;
        Ok(true)
    }

    /// Makes the names in the cluster's directory durable.
    pub(crate) fn sync(&self) -> Result<(), ClusterError> {
        self.dir.sync().context("syncing", self.root())
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
        let fits = Layout::unmade(format!("/{}", "d".repeat(MAX_SOCKET_PATH_BYTES - fixed - 1)));
        assert_eq!(fits.socket().as_os_str().len(), MAX_SOCKET_PATH_BYTES);
        assert!(fits.socket_dir().starts_with(&fits.root));
        let long = Layout::unmade(format!("/{}", "d".repeat(MAX_SOCKET_PATH_BYTES - fixed)));
        assert!(!long.socket_dir().starts_with(&long.root));
        assert!(long.socket().as_os_str().len() <= MAX_SOCKET_PATH_BYTES);
    }

    #[test]
    fn a_path_with_a_comma_gets_a_socket_elsewhere() {
        let layout = Layout::unmade("/a,b");
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
