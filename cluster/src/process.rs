//! Processes and the postmaster's pid file.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::error::ClusterError;

/// What `postmaster.pid` says (PostgreSQL's `src/include/utils/pidfile.h`). The server adds the later lines while it
/// starts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PidFile {
    /// Positive.
    pub(crate) pid: i32,
    pub(crate) data_dir: PathBuf,
    pub(crate) port: Option<u16>,
    pub(crate) socket_dir: Option<PathBuf>,
}

/// The path of the pid file.
pub(crate) fn pid_file_path(pgdata: &Path) -> PathBuf {
    pgdata.join("postmaster.pid")
}

/// Reads the pid file; none if it is missing, or of a single-user server (a negative id).
pub(crate) fn read_pid_file(pgdata: &Path) -> Result<Option<PidFile>, ClusterError> {
    let path = pid_file_path(pgdata);
    match fs::read_to_string(&path) {
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

/// Whether a process id belongs to the postmaster of a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// No such process.
    Gone,
    /// A process past its end, that its parent has not collected yet. To kill(2), and so to PostgreSQL, it is alive.
    Remains,
    /// It is: a postmaster's working directory is its data directory.
    Postmaster,
    /// It is a program named so, but we may not look at its working directory (as in a container without
    /// `CAP_SYS_PTRACE`).
    Probably,
    /// It is another program, or works in another directory: certainly not the server.
    Other,
}

impl Identity {
    pub(crate) fn may_be_ours(self) -> bool {
        matches!(self, Self::Postmaster | Self::Probably)
    }
}

/// Names a postmaster's process may have: those of the binary and of the link to it that PostgreSQL once installed.
const SERVER_NAMES: [&str; 2] = ["postgres", "postmaster"];

/// Looks at the process `pid`. `pgdata` must be canonical.
pub(crate) fn identify(pid: i32, pgdata: &Path) -> Identity {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let Ok(stat) = fs::read_to_string(proc.join("stat")) else { return Identity::Gone };
    match parse_stat(&stat) {
        Some((_, 'Z' | 'X')) => Identity::Remains,
        Some((name, _)) => match fs::read_link(proc.join("cwd")) {
            Ok(dir) if dir == pgdata => Identity::Postmaster,
            Ok(_) => Identity::Other,
            // The kernel takes the working directory away after the memory: it will never run again.
            Err(error) if error.kind() == ErrorKind::NotFound => Identity::Remains,
            Err(_) if SERVER_NAMES.contains(&name) => Identity::Probably,
            Err(_) => Identity::Other,
        },
        None => Identity::Other,
    }
}

/// Name and state in the text of /proc/PID/stat. The name may hold anything, also parentheses and spaces.
fn parse_stat(stat: &str) -> Option<(&str, char)> {
    let (head, tail) = stat.rsplit_once(')')?;
    Some((head.split_once('(')?.1, tail.trim_start().chars().next()?))
}

/// Sends a signal; a process that is gone already is no error.
pub(crate) fn signal(pid: i32, signal: Signal) -> Result<(), ClusterError> {
    let path = || PathBuf::from(format!("/proc/{pid}"));
    let error = |errno: Errno| ClusterError::io("signalling", &path(), errno.into());
    // Zero and negative numbers would mean process groups.
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
    fn a_pid_file_is_read_whole_and_half_written() {
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
    fn a_process_is_known_by_its_working_directory() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let here = std::env::current_dir().unwrap().canonicalize().unwrap();
        assert_eq!(identify(pid, &here), Identity::Postmaster);
        assert_eq!(identify(pid, Path::new("/elsewhere")), Identity::Other);
    }

    #[test]
    fn a_process_that_ended_leaves_remains_until_it_is_collected() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        while identify(pid, Path::new("/")) != Identity::Remains {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert_eq!(identify(pid, Path::new("/")), Identity::Gone);
    }

    #[test]
    fn a_process_name_may_hold_parentheses() {
        assert_eq!(parse_stat("1 (a) b (c)) S 0 1"), Some(("a) b (c)", 'S')));
        assert_eq!(parse_stat("nonsense"), None);
    }

    #[test]
    fn no_signal_goes_to_a_group_or_to_everybody() {
        for pid in [0, -1, -4711] {
            assert!(signal(pid, Signal::TERM).is_err());
        }
    }
}
