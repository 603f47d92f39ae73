//! Where the socket is. The address of a unix socket has 107 bytes at most, a path may have more: a longer one is named through
//! a descriptor of its directory.

use forebay_os::dir::Dir;
use rustix::{
    fs::{Mode, OFlags},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};
use std::{
    fs::File,
    io,
    os::{
        fd::AsRawFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

/// Name of the socket in the data directory.
const NAME: &str = "control.sock";

/// Connections that wait to be accepted.
const BACKLOG: i32 = 16;

/// A path for the socket in `data_dir` that is short enough, and the descriptor on which it rests.
fn short_path(data_dir: &Path) -> io::Result<(PathBuf, Option<File>)> {
    let path = data_dir.join(NAME);
    if SocketAddrUnix::new(&path).is_ok() {
        return Ok((path, None));
    }
    let dir = rustix::fs::open(data_dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let dir = File::from(dir);
    Ok((Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(NAME), Some(dir)))
}

/// Listens in `data_dir`, which this process has locked: a socket that is there is a dead daemon's, and is replaced. Only the own
/// account may connect.
///
/// # Errors
/// Those of the system.
pub(super) fn listen(data_dir: &Path) -> io::Result<UnixListener> {
    remove(data_dir)?;
    let (path, _dir) = short_path(data_dir)?;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // The file gets the mode of the socket, less the umask: there is no moment in which others may connect.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(&path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

/// Removes the socket, if there is one.
///
/// # Errors
/// Those of the file system.
pub(super) fn remove(data_dir: &Path) -> io::Result<()> {
    Dir::open(data_dir)?.remove_if_there(NAME)
}

/// Connects to the daemon of `data_dir`.
///
/// # Errors
/// Those of the system: `NotFound` and `ConnectionRefused` if no daemon listens.
pub(super) fn connect(data_dir: &Path) -> io::Result<UnixStream> {
    let (path, _dir) = short_path(data_dir)?;
    UnixStream::connect(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_dead_daemon_s_socket_is_replaced_in_a_directory_of_any_length_and_only_the_own_account_may_connect() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["short".to_owned(), "x".repeat(200)] {
            let data_dir = dir.path().join(name);
            std::fs::create_dir(&data_dir).unwrap();
            assert_eq!(connect(&data_dir).unwrap_err().kind(), io::ErrorKind::NotFound);
            drop(listen(&data_dir).unwrap());
            assert_eq!(connect(&data_dir).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
            let listener = listen(&data_dir).unwrap();
            let mode = data_dir.join(NAME).metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let _client = connect(&data_dir).unwrap();
            assert!(listener.accept().is_ok());
            remove(&data_dir).unwrap();
            assert_eq!(connect(&data_dir).unwrap_err().kind(), io::ErrorKind::NotFound);
        }
    }
}
