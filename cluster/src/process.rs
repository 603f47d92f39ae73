//! Processes and the postmaster's pid file.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use forebay_os::dir::Dir;

use crate::account::Account;
use crate::error::ClusterError;
use crate::limits::SMALL_FILE_MAX_BYTES;

/// Content of `postmaster.pid` (PostgreSQL's `src/include/utils/pidfile.h`). The server adds the later lines during its
/// start.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PidFile {
    /// Positive.
    pub(crate) pid: i32,
    pub(crate) data_dir: PathBuf,
    pub(crate) port: Option<u16>,
    pub(crate) socket_dir: Option<PathBuf>,
}

/// The pid file below the directory of a cluster.
pub(crate) const PID_FILE: &str = "pgdata/postmaster.pid";

/// Reads the pid file as the account that owns it. None if it is missing, incomplete, or that of a single-user server (a
/// negative id).
pub(crate) fn read_pid_file(root: &Dir, account: &Account) -> Result<Option<PidFile>, ClusterError> {
    let path = root.path().join(PID_FILE);
    match account.act(|| root.read_text(PID_FILE, SMALL_FILE_MAX_BYTES)).and_then(|read| read) {
        Ok(text) => Ok(parse_pid_file(&text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ClusterError::io("reading", &path, error)),
    }
}

fn parse_pid_file(text: &str) -> Option<PidFile> {
    let line = |number: usize| text.lines().nth(number - 1).map(str::trim).filter(|line| !line.is_empty());
    Some(PidFile {
        pid: line(1)?.parse().ok().filter(|pid| *pid > 0)?,
        data_dir: PathBuf::from(line(2)?),
        port: line(4).and_then(|port| port.parse().ok()),
        socket_dir: line(5).map(PathBuf::from),
    })
}

/// What a process id stands for, with respect to a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// No such process.
    Gone,
    /// A process that has ended, but that its parent has not reaped. kill(2), and so PostgreSQL, takes it for alive.
    Dead,
    /// The postmaster of the data directory, which is its working directory.
    Postmaster,
    /// A process with the postmaster's name whose working directory we may not see, as in a container without
    /// `CAP_SYS_PTRACE`.
    Probably,
    /// Another program, or one with another working directory: certainly not the postmaster.
    Other,
}

impl Identity {
    pub(crate) fn may_be_ours(self) -> bool {
        matches!(self, Self::Postmaster | Self::Probably)
    }
}

/// Names that a postmaster's process may have: the binary, and the link to it that PostgreSQL before 16 installs.
const SERVER_NAMES: [&str; 2] = ["postgres", "postmaster"];

/// Finds out what the process `pid` of `account` is. `pgdata` must be canonical.
pub(crate) fn identify(account: &Account, pid: i32, pgdata: &Path) -> Identity {
    // The account may see where its own processes are; root without `CAP_SYS_PTRACE` may not.
    account.act(|| identify_here(pid, pgdata)).unwrap_or_else(|error| {
        tracing::debug!(%error, "cannot look at PostgreSQL's process as its account");
        identify_here(pid, pgdata)
    })
}

fn identify_here(pid: i32, pgdata: &Path) -> Identity {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let Ok(stat) = fs::read_to_string(proc.join("stat")) else { return Identity::Gone };
    match parse_stat(&stat) {
        Some((_, 'Z' | 'X')) => Identity::Dead,
        Some((name, _)) => match fs::read_link(proc.join("cwd")) {
            Ok(dir) if dir == pgdata => Identity::Postmaster,
            Ok(_) => Identity::Other,
            // An ending process loses its working directory after its memory, so this one never runs again.
            Err(error) if error.kind() == ErrorKind::NotFound => Identity::Dead,
            Err(_) if SERVER_NAMES.contains(&name) => Identity::Probably,
            Err(_) => Identity::Other,
        },
        None => Identity::Other,
    }
}

/// Name and state in the text of /proc/PID/stat. The name may contain any characters, also parentheses and spaces.
fn parse_stat(stat: &str) -> Option<(&str, char)> {
    let (head, tail) = stat.rsplit_once(')')?;
    Some((head.split_once('(')?.1, tail.trim_start().chars().next()?))
}

/// Sends a signal to a process. It is no error if the process no longer exists.
pub(crate) fn signal(pid: i32, signal: Signal) -> Result<(), ClusterError> {
    let path = || PathBuf::from(format!("/proc/{pid}"));
    let error = |errno: Errno| ClusterError::io("signalling", &path(), errno.into());
    // Zero and negative numbers would address process groups.
    let target = Some(pid).filter(|pid| *pid > 0).and_then(Pid::from_raw).ok_or_else(|| error(Errno::INVAL))?;
    match kill_process(target, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(errno) => Err(error(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_is_read_both_complete_and_half_written() {
        let whole = "4711\n/data/pg\n1700000000\n5432\n/data/run\n\n  123456  7\nready   \n";
        let read = parse_pid_file(whole).unwrap();
        assert_eq!((read.pid, read.port), (4711, Some(5432)));
        assert_eq!((read.data_dir, read.socket_dir), (PathBuf::from("/data/pg"), Some(PathBuf::from("/data/run"))));
        let half = parse_pid_file("4711\n/data/pg\n1700000000\n5432\n").unwrap();
        assert_eq!((half.port, half.socket_dir), (Some(5432), None));
        assert_eq!(parse_pid_file(""), None);
        assert_eq!(parse_pid_file("-4711\n/data/pg\n"), None, "a single-user server");
    }

    #[test]
    fn a_process_is_recognized_by_its_working_directory() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let here = std::env::current_dir().unwrap().canonicalize().unwrap();
        assert_eq!(identify_here(pid, &here), Identity::Postmaster);
        assert_eq!(identify_here(pid, Path::new("/elsewhere")), Identity::Other);
    }

    #[test]
    fn a_process_that_ended_is_dead_until_it_is_reaped() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        while identify_here(pid, Path::new("/")) != Identity::Dead {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert_eq!(identify_here(pid, Path::new("/")), Identity::Gone);
    }

    #[test]
    fn a_process_name_may_contain_parentheses() {
        assert_eq!(parse_stat("1 (a) b (c)) S 0 1"), Some(("a) b (c)", 'S')));
        assert_eq!(parse_stat("nonsense"), None);
    }

    #[test]
    fn a_signal_is_never_sent_to_a_process_group() {
        for pid in [0, -1, -4711] {
            assert!(signal(pid, Signal::TERM).is_err());
        }
    }
}
