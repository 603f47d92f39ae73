//! Files that decide who may do what. They are read only if nobody else can tamper with them, or read what is secret.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Largest size of such a file in bytes: some 30,000 tokens. A larger file was named by mistake.
pub const FILE_BYTES_MAX: u64 = 8 << 20;

/// Which permissions a file must not give to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Any: the file is public, and its directory protects it.
    None,
    /// Neither the group nor others may write to it.
    Writing,
    /// The same, and others may not read it.
    Reading,
}

impl Guard {
    /// The permissions that it forbids.
    const fn forbidden(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Writing => 0o022,
            Self::Reading => 0o027,
        }
    }
}

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Others may write to it.
    #[error("others may write to it (mode {mode:03o}); say chmod go-w")]
    OthersMayWrite {
        /// Its permissions.
        mode: u32,
    },
    /// Others may read it or write to it.
    #[error("others may read or write to it (mode {mode:03o}); say chmod o-r,go-w")]
    OthersMayRead {
        /// Its permissions.
        mode: u32,
    },
    /// It has more than [`FILE_BYTES_MAX`] bytes.
    #[error("it is larger than {FILE_BYTES_MAX} bytes")]
    TooLarge,
    /// The file system refused, or the content is not UTF-8.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// An error with the file that it concerns.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct AtPath<E: std::error::Error + 'static> {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub source: E,
}

impl<E: std::error::Error + 'static> AtPath<E> {
    /// A function that adds `path` to an error; made for `map_err`.
    pub fn new(path: &Path) -> impl Fn(E) -> Self {
        move |source| Self { path: path.to_path_buf(), source }
    }
}

/// Reads the text of the file at `path`.
///
/// # Errors
/// [`FileError`].
pub fn read(path: &Path, guard: Guard) -> Result<String, FileError> {
    read_open(&mut File::open(path)?, guard)
}

/// Reads the text of an open file.
///
/// # Errors
/// [`FileError`].
pub fn read_open(file: &mut File, guard: Guard) -> Result<String, FileError> {
    let mode = file.metadata()?.mode() & 0o777;
    if mode & guard.forbidden() != 0 {
        return Err(match guard {
            Guard::Reading => FileError::OthersMayRead { mode },
            Guard::None | Guard::Writing => FileError::OthersMayWrite { mode },
        });
    }
    let mut text = String::new();
    let read_bytes = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if read_bytes as u64 > FILE_BYTES_MAX { Err(FileError::TooLarge) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_that_the_wrong_ones_can_reach_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (mode, writing, reading) in [
            (0o600, true, true),
            (0o640, true, true),
            (0o644, true, false),
            (0o660, false, false),
            (0o602, false, false),
        ] {
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(file.path(), Guard::Writing).is_ok(), writing, "{mode:o}");
            assert_eq!(read(file.path(), Guard::Reading).is_ok(), reading, "{mode:o}");
            assert!(read(file.path(), Guard::None).is_ok(), "{mode:o}");
        }
    }

    #[test]
    fn a_file_that_was_named_by_mistake_is_not_read_to_its_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(FILE_BYTES_MAX + 1).unwrap();
        assert!(matches!(read(file.path(), Guard::None), Err(FileError::TooLarge)));
        assert!(read(Path::new("/"), Guard::None).is_err());
        let error = read(Path::new("/does/not/exist"), Guard::None).map_err(AtPath::new(Path::new("/does/not/exist")));
        assert!(error.unwrap_err().to_string().starts_with("/does/not/exist: "));
    }
}
