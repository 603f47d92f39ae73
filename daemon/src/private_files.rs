//! Files that say who may do what: read only where those who must not have their hands on them cannot.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
};

/// Bytes of such a file at most: some 30,000 tokens. Anything larger was named by mistake.
pub const FILE_BYTES_MAX: u64 = 8 << 20;

/// Who must not have their hands on a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Nobody is kept from it: it is public, and its place in the file system is its own guard.
    None,
    /// Neither the group nor others may write to it.
    Writing,
    /// The same, and others may not read it.
    Reading,
}

impl Guard {
    /// Permissions that it forbids.
    const fn forbidden(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Writing => 0o022,
            Self::Reading => 0o027,
        }
    }
}

/// A complaint that names the file.
pub fn of_path(path: &Path, what: &dyn std::fmt::Display) -> String {
    format!("{}: {what}", path.display())
}

/// The text of the file at `path`.
///
/// # Errors
/// What is wrong with it, in words that name it.
pub fn read(path: &Path, guard: Guard) -> Result<String, String> {
    let mut file = File::open(path).map_err(|error| of_path(path, &error))?;
    read_open(&mut file, guard).map_err(|what| of_path(path, &what))
}

/// The text of an open file.
///
/// # Errors
/// What is wrong with it, in words that do not name it.
pub fn read_open(file: &mut File, guard: Guard) -> Result<String, String> {
    let mode = file.metadata().map_err(|error| error.to_string())?.mode() & 0o777;
    if mode & guard.forbidden() != 0 {
        let (what, cure) =
            if guard == Guard::Reading { ("read or write to", "o-r,go-w") } else { ("write to", "go-w") };
        return Err(format!("others may {what} it (mode {mode:03o}); say chmod {cure}"));
    }
    read_bounded(file).map_err(|error| error.to_string())
}

fn read_bounded(file: &mut File) -> io::Result<String> {
    let mut text = String::new();
    let read_bytes = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if read_bytes as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
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
        assert!(read(file.path(), Guard::None).unwrap_err().contains("larger than"));
        assert!(read(Path::new("/"), Guard::None).is_err());
        assert!(read(Path::new("/does/not/exist"), Guard::None).unwrap_err().starts_with("/does/not/exist: "));
    }
}
