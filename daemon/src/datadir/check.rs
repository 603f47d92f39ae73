//! Looks who could have prepared the data directory, before anything is made in it.
//!
//! The daemon may be root, and what it writes may be chosen by others. A link in the place of a file would then lead it to a
//! file of root's. That no link is followed later on either is the affair of [`forebay_os::dir`].

use super::{DataDirError, LOCK_FILE, POSTGRES_DIR, WAL_DIR};
use forebay_os::dir::{Dir, Unsafe};
use rustix::fs::{FileType, Mode, Stat};
use std::{io, os::unix::fs::MetadataExt, path::Path};

/// Write permission for the group and for others.
const OTHERS_WRITE: u32 = 0o022;

/// The sticky bit: others may add names to the directory, and change only their own.
const STICKY: u32 = 0o1000;

/// Names in the data directory that the daemon uses. Other files there are not its affair.
const OWN_NAMES: [&str; 4] = [LOCK_FILE, CONTROL_SOCKET, WAL_DIR, POSTGRES_DIR];

const CONTROL_SOCKET: &str = "control.sock";

/// What the log has directories for; each lane's name begins with [`LANE`].
const LOG_DIRS: [&str; 3] = ["free", "set-aside", "dead-letters"];

const LANE: &str = "lane-";

/// What the log keeps in files.
const LOG_FILES: [&str; 5] = ["log-id", "drained", "incarnations", "incarnations.spare", "sync-method"];

/// Names in the private PostgreSQL's directory that belong to its account, and so does all below them. A name that begins with
/// the second one is a directory that `initdb` has not finished.
const OF_ACCOUNT: [&str; 3] = ["pgdata", "pgdata.init-", "run"];

/// Opens the data directory, if it belongs to this process's user, and nobody else may write to it.
pub(super) fn open_own(path: &Path) -> Result<Dir, DataDirError> {
    let link = path.symlink_metadata().map_err(DataDirError::io("find", path))?;
    if link.is_symlink() && !is_trusted(link.uid()) {
        return Err(DataDirError::Unsafe { path: path.into(), reason: Unsafe::Link });
    }
    let path = path.canonicalize().map_err(DataDirError::io("find", path))?;
    let dir = Dir::open(&path).map_err(DataDirError::io("open", &path))?;
    let stat = dir.stat_self().map_err(DataDirError::io("look at", &path))?;
    let user = rustix::process::geteuid().as_raw();
    if stat.st_uid != user {
        return Err(DataDirError::NotOurs { path, owner: stat.st_uid, user });
    }
    if stat.st_mode & OTHERS_WRITE != 0 {
        return Err(DataDirError::Writable { path, mode: stat.st_mode });
    }
    Ok(dir)
}

/// Warns if another user could replace the data directory by one of theirs.
pub(super) fn warn_about_parents(path: &Path) {
    let own_group = rustix::process::getegid().as_raw();
    for parent in path.ancestors().skip(1) {
        let Ok(found) = parent.metadata() else { continue };
        let by_group = found.mode() & 0o020 != 0 && found.gid() != own_group;
        let is_open = (by_group || found.mode() & 0o002 != 0) && found.mode() & STICKY == 0;
        if is_open || !is_trusted(found.uid()) {
            tracing::warn!(
                dir = %parent.display(),
                owner = found.uid(),
                mode = format_args!("{:04o}", found.mode() & 0o7777),
                "another user could replace the data directory, for this directory above it is theirs to write to"
            );
            return;
        }
    }
}

/// Refuses what the daemon did not make under the names that it uses: links, fifos and devices, and what belongs to others.
pub(super) fn check_below(dir: &Dir) -> Result<(), DataDirError> {
    for name in OWN_NAMES {
        let Some(is_dir) = check(dir, name)? else { continue };
        match name {
            WAL_DIR | POSTGRES_DIR if !is_dir => return Err(refused(dir, name, Unsafe::NotADirectory)),
            WAL_DIR => check_log(&below(dir, name)?)?,
            POSTGRES_DIR => check_postgres(&below(dir, name)?)?,
            _ if is_dir => return Err(refused(dir, name, Unsafe::NotAFile)),
            _ => {}
        }
    }
    Ok(())
}

/// Looks at the log's directory: what the log has directories for, and what it keeps in files.
fn check_log(dir: &Dir) -> Result<(), DataDirError> {
    for name in dir.names().map_err(DataDirError::io("list", dir.path()))? {
        let text = name.to_string_lossy();
        let Some(is_dir) = check(dir, &name)? else { continue };
        if !is_dir && (LOG_DIRS.contains(&&*text) || text.starts_with(LANE)) {
            return Err(refused(dir, &name, Unsafe::NotADirectory));
        }
        if is_dir && LOG_FILES.contains(&&*text) {
            return Err(refused(dir, &name, Unsafe::NotAFile));
        }
    }
    check_tree(dir)
}

fn check_tree(dir: &Dir) -> Result<(), DataDirError> {
    tighten(dir)?;
    for name in dir.names().map_err(DataDirError::io("list", dir.path()))? {
        if check(dir, &name)? != Some(true) {
            continue;
        }
        match dir.dir(&name) {
            Ok(below) => check_tree(&below)?,
            // Such as lost+found. What cannot be entered is not used.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(DataDirError::io("open", dir.path().join(name))(error)),
        }
    }
    Ok(())
}

fn check_postgres(dir: &Dir) -> Result<(), DataDirError> {
    tighten(dir)?;
    for name in dir.names().map_err(DataDirError::io("list", dir.path()))? {
        let [pgdata, unfinished, run] = OF_ACCOUNT;
        if name == pgdata || name == run || name.as_encoded_bytes().starts_with(unfinished.as_bytes()) {
            // PostgreSQL runs as the account that owns it, and looks at it itself.
            below(dir, &name)?;
        } else {
            check(dir, &name)?;
        }
    }
    Ok(())
}

fn below(dir: &Dir, name: impl AsRef<Path>) -> Result<Dir, DataDirError> {
    dir.dir(&name).map_err(DataDirError::io("open", dir.path().join(name.as_ref())))
}

/// Looks at one name. Returns whether it is a directory; `None` if there is nothing.
fn check(dir: &Dir, name: impl AsRef<Path>) -> Result<Option<bool>, DataDirError> {
    let path = || dir.path().join(name.as_ref());
    let Stat { st_mode, st_uid, st_nlink, .. } = match dir.stat(&name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        stat => stat.map_err(DataDirError::io("look at", path()))?,
    };
    let is_dir = match FileType::from_raw_mode(st_mode) {
        FileType::Symlink => return Err(refused(dir, name, Unsafe::Link)),
        FileType::Directory => true,
        // What is written to it would be written elsewhere as well.
        FileType::RegularFile if st_nlink > 1 => return Err(refused(dir, name, Unsafe::HardLink)),
        FileType::RegularFile => false,
        FileType::Socket if name.as_ref() == Path::new(CONTROL_SOCKET) => false,
        _ => return Err(refused(dir, name, Unsafe::NotAFile)),
    };
    if !is_trusted(st_uid) {
        let user = rustix::process::geteuid().as_raw();
        return Err(DataDirError::NotOurs { path: path(), owner: st_uid, user });
    }
    Ok(Some(is_dir))
}

/// Takes away the others' right to write, which a lax umask gave a directory that an earlier release made.
fn tighten(dir: &Dir) -> Result<(), DataDirError> {
    let failed = |error| DataDirError::io("change the mode of", dir.path())(error);
    let stat = dir.stat_self().map_err(failed)?;
    if stat.st_mode & OTHERS_WRITE == 0 || stat.st_uid != rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777 & !OTHERS_WRITE);
    rustix::fs::fchmod(dir, mode).map_err(|error| failed(error.into()))
}

/// Whether that user could do harm only to itself: this process's, or root.
fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

fn refused(dir: &Dir, name: impl AsRef<Path>, reason: Unsafe) -> DataDirError {
    DataDirError::Unsafe { path: dir.path().join(name.as_ref()), reason }
}
