//! Adding a token to the file: under a lock, and whole or not at all.

use super::{
    file,
    file::{Document, Row, Table, TokensFileError},
};
use crate::{
    access::scope::Scope,
    private_files::{FileError, Guard, read_open},
};
use rustix::fs::{FlockOperation, Gid, Mode, OFlags, Uid};
use std::{
    ffi::OsString,
    fs::File,
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Why a token is not added. The file is then as it was.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The file that is there is wrong, or the token would be.
    #[error(transparent)]
    File(#[from] TokensFileError),
    /// Names are unique.
    #[error("there is a token of this name already")]
    NameTaken,
    /// The token cannot be written as TOML.
    #[error(transparent)]
    Toml(#[from] toml::ser::Error),
    /// The file system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<FileError> for AppendError {
    fn from(error: FileError) -> Self {
        Self::File(error.into())
    }
}

impl From<rustix::io::Errno> for AppendError {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// Adds a token to the file, which is made with mode 0600 if it is missing. The file's content stays, comments included. The
/// file that replaces it has the same owner and mode.
///
/// # Errors
/// [`AppendError`].
pub fn append(path: &Path, row: &Row) -> Result<(), AppendError> {
    // A link to the file stays a link.
    let path = &std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let mut locked = lock(path)?;
    let mut text = read_open(&mut locked, Guard::Writing)?;
    let rows = file::parse(&text)?;
    if row.name.is_some() && rows.iter().any(|other| other.name == row.name) {
        return Err(AppendError::NameTaken);
    }
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&as_toml(row)?);
    // A text that cannot be read back is not written.
    file::parse(&text)?;
    Ok(replace(path, &locked, text.as_bytes())?)
}

/// The file, locked against others who add to it.
fn lock(path: &Path) -> Result<File, AppendError> {
    loop {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
        let file = File::from(file);
        // Another process may have replaced the file while this one waited for the lock.
        let locked = file.metadata()?;
        match std::fs::metadata(path) {
            Ok(now) if (now.dev(), now.ino()) == (locked.dev(), locked.ino()) => return Ok(file),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn replace(path: &Path, old: &File, content: &[u8]) -> io::Result<()> {
    let mut name = OsString::from(path);
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(name);
    let outcome = write_like(&temporary, old, content).and_then(|()| std::fs::rename(&temporary, path));
    if let Err(error) = outcome {
        if let Err(other) = std::fs::remove_file(&temporary) {
            // The error that is returned says more.
            tracing::debug!(error = %other, path = %temporary.display(), "a temporary file was not removed");
        }
        return Err(error);
    }
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

fn write_like(path: &Path, old: &File, content: &[u8]) -> io::Result<()> {
    let old = old.metadata()?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?);
    let new = file.metadata()?;
    if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
        rustix::fs::fchown(&file, Some(Uid::from_raw(old.uid())), Some(Gid::from_raw(old.gid())))?;
    }
    rustix::fs::fchmod(&file, Mode::from_raw_mode(old.mode() & 0o777))?;
    file.write_all(content)?;
    file.sync_all()
}

/// A token's table as TOML.
fn as_toml(row: &Row) -> Result<String, toml::ser::Error> {
    let table = Table {
        name: row.name.clone(),
        hash: row.hash.to_string(),
        scopes: Scope::ALL.into_iter().filter(|scope| row.scopes.has(*scope)).collect(),
        queue_prefix: row.queue_prefix.clone(),
        rate: row.rate.map(|rate| rate.messages_per_s),
        burst: row.rate.map(|rate| rate.burst),
        created: Some(humantime::format_rfc3339_seconds(SystemTime::now()).to_string()),
    };
    toml::to_string(&Document { token: vec![table] })
}

#[cfg(test)]
mod tests {
    use super::{super::super::token::TokenHash, *};
    use std::os::unix::fs::PermissionsExt;

    fn row(token: &str) -> Row {
        Row {
            name: Some(format!("it's \"{token}\"\n")),
            hash: TokenHash::of(token),
            scopes: [Scope::Push, Scope::Pop].into_iter().collect(),
            queue_prefix: Some("a\\b.".into()),
            rate: Some(file::RowRate { messages_per_s: 5, burst: 6 }),
        }
    }

    #[test]
    fn what_is_appended_is_read_again_and_what_stood_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.toml");
        append(&path, &row("one")).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let before = std::fs::read_to_string(&path).unwrap() + "# a remark, without an end of line";
        std::fs::write(&path, &before).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        append(&path, &row("other")).unwrap();
        let after = std::fs::read_to_string(&path).unwrap();
        assert!(after.starts_with(&before));
        let rows = file::read(&path).unwrap();
        assert_eq!(rows.len(), 2);
        for (row, token) in rows.iter().zip(["one", "other"]) {
            assert!(bool::from(row.hash.is(&TokenHash::of(token))));
            assert_eq!(row.name, Some(format!("it's \"{token}\"\n")));
            assert_eq!((row.queue_prefix.as_deref(), row.rate.map(|rate| rate.burst)), (Some("a\\b."), Some(6)));
        }
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o640, "the mode stays");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left there");
    }

    #[test]
    fn a_name_stands_for_one_token() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.toml");
        append(&path, &row("one")).unwrap();
        let before = std::fs::read(&path).unwrap();
        assert!(matches!(append(&path, &row("one")), Err(AppendError::NameTaken)));
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    #[test]
    fn a_file_that_is_not_to_be_trusted_or_not_understood_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.toml");
        for (content, mode) in [("", 0o666), ("no toml", 0o600)] {
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            append(&path, &row("one")).unwrap_err();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
    }

    #[test]
    fn those_who_append_at_once_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.toml");
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let path = &path;
                scope.spawn(move || (0..8).for_each(|count| append(path, &row(&format!("{thread}-{count}"))).unwrap()));
            }
        });
        assert_eq!(file::read(&path).unwrap().len(), 32);
    }
}
