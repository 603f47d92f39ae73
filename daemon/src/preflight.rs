//! Whether this process may use io_uring. If not, the error says in one line what forbids it and what to do.

use io_uring_06::{IoUring, Probe, opcode};
use std::io;

/// Entries of the ring that is tried: the smallest useful number.
const ENTRIES: u32 = 2;

/// The first kernel that has all operations that the daemon uses.
const KERNEL_MIN: &str = "5.11";

/// What the system says about io_uring.
#[derive(Clone, Debug, Default)]
struct Surroundings {
    /// `kernel.io_uring_disabled`: 0 for nobody, 1 for all but one group, 2 for everybody; `None`: there is no such setting.
    disabled: Option<u8>,
    /// Whether system calls of this process are filtered.
    filtered: bool,
    /// The kernel's release.
    release: String,
    /// How many bytes the process may lock; `None`: no limit.
    memlock_bytes: Option<u64>,
}

/// What forbids io_uring, and what to do about it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// `kernel.io_uring_disabled` is 2.
    #[error(
        "the setting kernel.io_uring_disabled is 2; as root: sysctl -w kernel.io_uring_disabled=0, and the same in \
         /etc/sysctl.d for the next boot"
    )]
    Disabled,
    /// `kernel.io_uring_disabled` is 1.
    #[error(
        "the setting kernel.io_uring_disabled is 1, and this user is not in the group that kernel.io_uring_group names; as \
         root add it to that group, or: sysctl -w kernel.io_uring_disabled=0"
    )]
    DisabledButForGroup,
    /// A filter of system calls.
    #[error(
        "a seccomp filter forbids it, as those of container runtimes do; allow io_uring_setup, io_uring_enter and \
         io_uring_register (Docker: --security-opt seccomp=PROFILE, Kubernetes: seccompProfile, systemd: SystemCallFilter=)"
    )]
    Seccomp,
    /// SELinux, AppArmor and the like.
    #[error("a security module forbids it (SELinux, AppArmor); its log names the rule")]
    SecurityModule,
    /// The kernel has no io_uring.
    #[error("the kernel {release} has none: it is older than {KERNEL_MIN}, or was built without CONFIG_IO_URING")]
    NotInKernel {
        /// The kernel's release.
        release: String,
    },
    /// The limit of locked memory.
    #[error(
        "its memory could not be locked; the limit is {}; raise it: LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited",
        limit(*limit_bytes)
    )]
    Memlock {
        /// The limit; `None`: there is none.
        limit_bytes: Option<u64>,
    },
    /// The limit of open files.
    #[error("there is no descriptor left for it; raise the limit: LimitNOFILE= in the unit, or ulimit -n")]
    Descriptors,
}

fn limit(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "unlimited".to_owned(), |bytes| format!("{bytes} bytes"))
}

/// Why io_uring cannot be used, in one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum IoUringError {
    /// Something forbids it.
    #[error("io_uring cannot be used ({error}): {obstacle}")]
    Forbidden {
        /// What the kernel answered.
        error: io::Error,
        /// What that comes from.
        obstacle: Obstacle,
    },
    /// The kernel lacks a part of it.
    #[error("io_uring cannot be used: the kernel {release} lacks a part of it; {KERNEL_MIN} or later has all")]
    KernelTooOld {
        /// The kernel's release.
        release: String,
    },
    /// Anything else.
    #[error("io_uring cannot be used: {0}")]
    Other(io::Error),
}

/// Tries io_uring.
///
/// # Errors
/// [`IoUringError`].
pub fn check_io_uring() -> Result<(), IoUringError> {
    let ring = IoUring::new(ENTRIES).map_err(|error| reason(error, Surroundings::read()))?;
    let mut probe = Probe::new();
    let used = [
        opcode::Accept::CODE,
        opcode::AsyncCancel::CODE,
        opcode::Fsync::CODE,
        opcode::PollAdd::CODE,
        opcode::Read::CODE,
        opcode::Recv::CODE,
        opcode::Send::CODE,
        opcode::Timeout::CODE,
        opcode::Writev::CODE,
    ];
    let all = ring.submitter().register_probe(&mut probe).map(|()| used.iter().all(|code| probe.is_supported(*code)));
    match all {
        Ok(true) if ring.params().is_feature_ext_arg() => Ok(()),
        Ok(_) => Err(IoUringError::KernelTooOld { release: Surroundings::read().release }),
        Err(error) => Err(reason(error, Surroundings::read())),
    }
}

/// Why a ring could not be set up.
#[must_use]
pub fn explain(error: io::Error) -> IoUringError {
    reason(error, Surroundings::read())
}

impl Surroundings {
    fn read() -> Self {
        // What cannot be read counts as not said: the error is explained with what is left.
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_else(|_| String::new());
        let status = text("/proc/self/status");
        let seccomp = status.lines().find_map(|line| line.strip_prefix("Seccomp:")).map(str::trim);
        Self {
            disabled: text("/proc/sys/kernel/io_uring_disabled").trim().parse().ok(),
            // 0: none, 1: strict, 2: by a filter (proc_pid_status(5)).
            filtered: seccomp.is_some_and(|mode| mode != "0"),
            release: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            memlock_bytes: rustix::process::getrlimit(rustix::process::Resource::Memlock).current,
        }
    }
}

/// What an attempt that failed with `error` comes from.
fn reason(error: io::Error, around: Surroundings) -> IoUringError {
    let obstacle = match (error.raw_os_error(), around.disabled) {
        (Some(libc::EPERM), Some(2)) => Obstacle::Disabled,
        (Some(libc::EPERM), Some(1)) => Obstacle::DisabledButForGroup,
        (Some(libc::EPERM | libc::EACCES | libc::ENOSYS), _) if around.filtered => Obstacle::Seccomp,
        (Some(libc::EPERM | libc::EACCES), _) => Obstacle::SecurityModule,
        (Some(libc::ENOSYS), _) => Obstacle::NotInKernel { release: around.release },
        (Some(libc::ENOMEM), _) => Obstacle::Memlock { limit_bytes: around.memlock_bytes },
        (Some(libc::EMFILE | libc::ENFILE), _) => Obstacle::Descriptors,
        _ => return IoUringError::Other(error),
    };
    IoUringError::Forbidden { error, obstacle }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(errno: i32, around: Surroundings) -> String {
        let line = reason(io::Error::from_raw_os_error(errno), around).to_string();
        assert!(!line.contains('\n') && line.starts_with("io_uring cannot be used"), "{line}");
        line
    }

    #[test]
    fn case_44_each_thing_in_the_way_is_told_with_what_to_do() {
        let filtered = || Surroundings { filtered: true, disabled: Some(0), ..Surroundings::default() };
        let disabled = |disabled| Surroundings { disabled: Some(disabled), ..filtered() };
        assert!(line(libc::EPERM, disabled(2)).contains("sysctl -w kernel.io_uring_disabled=0"));
        assert!(line(libc::EPERM, disabled(1)).contains("kernel.io_uring_group"));
        for errno in [libc::EPERM, libc::ENOSYS] {
            assert!(line(errno, filtered()).contains("--security-opt seccomp"));
        }
        assert!(line(libc::EPERM, Surroundings::default()).contains("security module"));
        let old = Surroundings { release: "4.19.0".to_owned(), ..Surroundings::default() };
        assert!(line(libc::ENOSYS, old).contains("4.19.0"));
        let too_old = IoUringError::KernelTooOld { release: "5.4.0".to_owned() }.to_string();
        assert!(too_old.contains("5.4.0") && too_old.contains(KERNEL_MIN), "{too_old}");
        assert!(line(libc::EMFILE, filtered()).contains("LimitNOFILE"));
        assert!(line(libc::EINVAL, filtered()).contains("Invalid argument"));
    }

    #[test]
    fn case_43_too_little_memory_may_be_locked() {
        let around = Surroundings { memlock_bytes: Some(65_536), ..Surroundings::default() };
        let line = line(libc::ENOMEM, around);
        assert!(line.contains("65536 bytes") && line.contains("LimitMEMLOCK"), "{line}");
    }

    #[test]
    fn here_it_can_be_used() {
        check_io_uring().unwrap();
    }
}
