//! A directory, and the files below it, without following links.

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Stat},
    io::Errno,
};
use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::{Component, Path, PathBuf},
    sync::Arc,
};

/// Mode of a file that is created: only the own account may use it.
const FILE_MODE: Mode = Mode::from_raw_mode(0o600);

/// Added to the name of a file while its new content is written.
const TEMPORARY: &str = ".tmp";

/// Why a name is not used, inside an [`io::Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsafe {
    /// It, or a directory on the way to it, is a symbolic link.
    #[error("it is a symbolic link, and links are not followed here")]
    Link,
    /// It is a fifo, a device, a socket or a directory.
    #[error("it is not a regular file")]
    NotAFile,
    /// It is something else.
    #[error("it is not a directory")]
    NotADirectory,
    /// The file has another name as well, which may be in another directory.
    #[error("it is a hard link: the file has another name")]
    HardLink,
    /// The path leads out of the directory.
    #[error("the path leads out of the directory")]
    Outside,
}

impl Unsafe {
    /// The reason inside an error, if it is one of these.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }

    fn error(self) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidInput, self)
    }
}

/// An open directory. Clones share the descriptor.
///
/// All functions take paths that are relative to the directory, or that begin with [`Dir::path`]. Their errors are those of
/// the system, or [`Unsafe`].
#[derive(Clone, Debug)]
pub struct Dir {
    fd: Arc<OwnedFd>,
    path: Arc<Path>,
}

impl Dir {
    /// Opens a directory that the caller chose. Links on the way to it are followed.
    ///
    /// # Errors
    /// Those of the system.
    pub fn open(path: &Path) -> io::Result<Self> {
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { fd: Arc::new(fd), path: path.into() })
    }

    /// The path that it was opened with.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a directory below.
    ///
    /// # Errors
    /// Those of the system, [`Unsafe`].
    pub fn dir(&self, path: impl AsRef<Path>) -> io::Result<Self> {
        let (parent, name) = self.locate(path.as_ref())?;
        let fd = open_dir_at(parent.as_fd(), &name, OFlags::RDONLY)?;
        Ok(Self { fd: Arc::new(fd), path: self.path.join(self.relative(path.as_ref())?).into() })
    }

    /// Opens a directory below. Creates it with `mode` if it is missing. Its name is durable afterwards, whoever created it.
    ///
    /// # Errors
    /// Those of the system, [`Unsafe`].
    pub fn make_dir(&self, path: impl AsRef<Path>, mode: u32) -> io::Result<Self> {
        let (parent, name) = self.locate(path.as_ref())?;
        match rustix::fs::mkdirat(parent.as_fd(), &name, Mode::RWXU) {
            Ok(()) => {
                let made = self.dir(path)?;
                // The umask counts for `mkdirat`.
                rustix::fs::fchmod(&made.fd, Mode::from_raw_mode(mode))?;
                sync(parent.as_fd())?;
                return Ok(made);
            }
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let found = self.dir(path)?;
        sync(parent.as_fd())?;
        Ok(found)
    }

    /// Opens a regular file below. `flags` say for what, such as `OFlags::RDONLY | OFlags::DIRECT`.
    ///
    /// # Errors
    /// Those of the system, [`Unsafe`].
    pub fn open_file(&self, path: impl AsRef<Path>, flags: OFlags) -> io::Result<File> {
        let (parent, name) = self.locate(path.as_ref())?;
        // A fifo would wait for its other end.
        let safe = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(parent.as_fd(), &name, flags | safe, FILE_MODE);
        let fd = opened.map_err(|error| match error {
            Errno::LOOP => Unsafe::Link.error(),
            // A fifo that nobody reads, or a socket.
            Errno::NXIO | Errno::ISDIR => Unsafe::NotAFile.error(),
            error => error.into(),
        })?;
        if FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) != FileType::RegularFile {
            return Err(Unsafe::NotAFile.error());
        }
        // Older kernels refuse to wait for the disk if a file of io_uring has the flag.
        rustix::fs::fcntl_setfl(&fd, flags & (OFlags::APPEND | OFlags::DIRECT))?;
        Ok(fd.into())
    }

    /// Creates a file below and opens it for writing, with further `flags`. It is an error if the name is taken.
    ///
    /// # Errors
    /// Those of the system, [`Unsafe`].
    pub fn create_file(&self, path: impl AsRef<Path>, flags: OFlags) -> io::Result<File> {
        self.open_file(path, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | flags)
    }

    /// As [`create_file`](Self::create_file), but first removes a file that has the name.
    ///
    /// # Errors
    /// Those of the system, [`Unsafe`].
    pub fn recreate_file(&self, path: impl AsRef<Path>, flags: OFlags) -> io::Result<File> {
        self.remove_if_there(path.as_ref())?;
        self.create_file(path, flags)
    }

    /// Opens a file below for appending, or creates it. The file must have no other name.
    ///
    /// # Errors
    /// Those of the system, [`Unsafe`].
    pub fn open_or_create(&self, path: impl AsRef<Path>) -> io::Result<File> {
        let file = self.open_file(path, OFlags::RDWR | OFlags::APPEND | OFlags::CREATE)?;
        if rustix::fs::fstat(&file)?.st_nlink > 1 {
            return Err(Unsafe::HardLink.error());
        }
        Ok(file)
    }

    /// Reads a file below, at most `max_bytes` of it.
    ///
    /// # Errors
    /// Those of the system, [`Unsafe`].
    pub fn read(&self, path: impl AsRef<Path>, max_bytes: u64) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        self.open_file(path, OFlags::RDONLY)?.take(max_bytes).read_to_end(&mut content)?;
        Ok(content)
    }

    /// As [`read`](Self::read), for text.
    ///
    /// # Errors
    /// Those of the system, `InvalidData` if it is not UTF-8, [`Unsafe`].
    pub fn read_text(&self, path: impl AsRef<Path>, max_bytes: u64) -> io::Result<String> {
        String::from_utf8(self.read(path, max_bytes)?)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Creates or replaces a file below, whole: after a crash it has the old content or the new one. What has its name is
    /// replaced, and never written to.
    ///
    /// # Errors
    /// Those of the system, [`Unsafe`].
    pub fn write_whole(&self, path: impl AsRef<Path>, content: &[u8]) -> io::Result<()> {
        let path = path.as_ref();
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(TEMPORARY);
        let mut file = self.recreate_file(&temporary, OFlags::empty())?;
        file.write_all(content)?;
        file.sync_all()?;
        self.rename(&temporary, path)?;
        let (parent, _) = self.locate(path)?;
        sync(parent.as_fd())
    }

    /// Renames a file or directory below. Replaces a file that has the name.
    ///
    /// # Errors
    /// Those of the system, [`Unsafe`].
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
        let ((from_parent, from), (to_parent, to)) = (self.locate(from.as_ref())?, self.locate(to.as_ref())?);
        Ok(rustix::fs::renameat(from_parent.as_fd(), &from, to_parent.as_fd(), &to)?)
    }

    /// Removes a file below, or a link.
    ///
    /// # Errors
    /// Those of the system, [`Unsafe`].
    pub fn remove(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let (parent, name) = self.locate(path.as_ref())?;
        Ok(rustix::fs::unlinkat(parent.as_fd(), &name, AtFlags::empty())?)
    }

    /// As [`remove`](Self::remove). It is no error if there is no such file.
    ///
    /// # Errors
    /// Those of the system, [`Unsafe`].
    pub fn remove_if_there(&self, path: impl AsRef<Path>) -> io::Result<()> {
        match self.remove(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        }
    }

    /// The names in this directory, in no order.
    ///
    /// # Errors
    /// Those of the system.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            let name = OsString::from_vec(entry?.file_name().to_bytes().to_vec());
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// What the system knows of a name below. A link is not followed.
    ///
    /// # Errors
    /// Those of the system, [`Unsafe`].
    pub fn stat(&self, path: impl AsRef<Path>) -> io::Result<Stat> {
        let (parent, name) = self.locate(path.as_ref())?;
        Ok(rustix::fs::statat(parent.as_fd(), &name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// What the system knows of this directory.
    ///
    /// # Errors
    /// Those of the system.
    pub fn stat_self(&self) -> io::Result<Stat> {
        Ok(rustix::fs::fstat(&self.fd)?)
    }

    /// Makes the names in this directory durable.
    ///
    /// # Errors
    /// Those of the system.
    pub fn sync(&self) -> io::Result<()> {
        sync(self.fd.as_fd())
    }

    /// `path` as seen from this directory.
    fn relative<'a>(&self, path: &'a Path) -> io::Result<&'a Path> {
        let relative = if path.is_absolute() || path.starts_with(&*self.path) {
            path.strip_prefix(&*self.path).map_err(|_| Unsafe::Outside.error())?
        } else {
            path
        };
        let is_inside = relative.components().all(|part| matches!(part, Component::Normal(_)));
        if is_inside { Ok(relative) } else { Err(Unsafe::Outside.error()) }
    }

    /// Opens the directory that a path's last name is in. Returns it with that name; `.` for this directory itself.
    fn locate(&self, path: &Path) -> io::Result<(Parent<'_>, PathBuf)> {
        let relative = self.relative(path)?;
        let Some(name) = relative.file_name() else { return Ok((Parent::Same(self.fd.as_fd()), PathBuf::from("."))) };
        let mut parent = Parent::Same(self.fd.as_fd());
        for part in relative.parent().into_iter().flat_map(Path::components) {
            parent = Parent::Below(open_dir_at(parent.as_fd(), Path::new(part.as_os_str()), OFlags::RDONLY)?);
        }
        Ok((parent, PathBuf::from(name)))
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The directory that holds a name.
enum Parent<'a> {
    Same(BorrowedFd<'a>),
    Below(OwnedFd),
}

impl AsFd for Parent<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Same(fd) => *fd,
            Self::Below(fd) => fd.as_fd(),
        }
    }
}

fn open_dir_at(parent: BorrowedFd<'_>, name: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(|error| {
        let is_link = || {
            let found = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
            found.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
        };
        // The kernel says only that a link is no directory.
        if error == Errno::LOOP || error == Errno::NOTDIR && is_link() { Unsafe::Link.error() } else { error.into() }
    })
}

fn sync(dir: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::fs::fsync(dir)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt, os::unix::fs::symlink};

    /// A directory, and another one that links may lead to.
    fn places() -> (tempfile::TempDir, Dir, PathBuf) {
        let all = tempfile::tempdir().unwrap();
        let (inside, outside) = (all.path().join("inside"), all.path().join("outside"));
        fs::create_dir(&inside).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "kept").unwrap();
        let dir = Dir::open(&inside).unwrap();
        (all, dir, outside)
    }

    #[test]
    fn no_link_is_followed_neither_at_the_end_of_a_path_nor_on_the_way() {
        let (_all, dir, outside) = places();
        symlink(outside.join("file"), dir.path().join("link")).unwrap();
        symlink(outside.join("missing"), dir.path().join("dangling")).unwrap();
        symlink(&outside, dir.path().join("way")).unwrap();
        let is_link = |error: io::Error| Unsafe::of(&error) == Some(Unsafe::Link);
        for name in ["link", "dangling", "way/file", "way/new"] {
            assert!(is_link(dir.read(name, 9).unwrap_err()), "{name}");
            assert!(is_link(dir.open_or_create(name).unwrap_err()), "{name}");
        }
        assert!(is_link(dir.dir("way").unwrap_err()) && is_link(dir.make_dir("way", 0o700).unwrap_err()));
        for outcome in [dir.remove("way/file"), dir.write_whole("way/file", b"no"), dir.rename("link", "way/file")] {
            assert!(is_link(outcome.unwrap_err()));
        }
        assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "kept");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_written_whole_takes_the_place_of_a_link() {
        let (_all, dir, outside) = places();
        for name in ["state", "state.tmp"] {
            symlink(outside.join("file"), dir.path().join(name)).unwrap();
        }
        dir.write_whole("state", b"new").unwrap();
        assert_eq!(dir.read_text("state", 9).unwrap(), "new");
        assert_eq!(dir.read("state", 2).unwrap(), b"ne");
        assert_eq!(fs::metadata(dir.path().join("state")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "kept");
        assert_eq!(dir.names().unwrap(), ["state"]);
    }

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let (_all, dir, outside) = places();
        rustix::fs::mkfifoat(&dir, "fifo", FILE_MODE).unwrap();
        dir.make_dir("dir", 0o700).unwrap();
        for name in ["fifo", "dir"] {
            for flags in [OFlags::RDONLY, OFlags::WRONLY, OFlags::RDWR] {
                let error = dir.open_file(name, flags).unwrap_err();
                assert_eq!(Unsafe::of(&error), Some(Unsafe::NotAFile), "{name} {error}");
            }
        }
        fs::hard_link(outside.join("file"), dir.path().join("hard")).unwrap();
        assert_eq!(Unsafe::of(&dir.open_or_create("hard").unwrap_err()), Some(Unsafe::HardLink));
        assert_eq!(dir.create_file("hard", OFlags::empty()).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn paths_stay_within_the_directory_and_may_begin_with_its_own() {
        let (_all, dir, _) = places();
        for path in ["../outside/file", "/etc/passwd", "a/../../outside/file"] {
            assert_eq!(Unsafe::of(&dir.read(path, 9).unwrap_err()), Some(Unsafe::Outside), "{path}");
        }
        let below = dir.make_dir("below", 0o711).unwrap();
        assert_eq!(below.stat_self().unwrap().st_mode & 0o777, 0o711);
        dir.write_whole(below.path().join("file"), b"1").unwrap();
        assert_eq!(dir.read("below/file", 9).unwrap(), b"1");
        assert_eq!(below.read("file", 9).unwrap(), b"1");
        assert!(dir.stat("below/missing").is_err_and(|error| error.kind() == io::ErrorKind::NotFound));
        dir.remove_if_there("below/missing").unwrap();
        dir.make_dir(dir.path(), 0o700).unwrap();
    }
}
