//! Whether the kernel lets this process use io_uring, and if not, which of kernel, sysctl, seccomp and memlock stands in the
//! way, in one line that says what to do.

use io_uring_06::{IoUring, Probe, opcode};
use std::io;

/// Entries of the ring that is tried: as few as there can be.
const ENTRIES: u32 = 2;

/// The first kernel that has all that is used.
const KERNEL_MIN: &str = "5.11";

/// What the answer to an attempt is judged by.
#[derive(Clone, Debug, Default)]
struct Surroundings {
    /// `kernel.io_uring_disabled`: 0 for everybody, 1 for one group, 2 for nobody; `None`: there is no such setting.
    disabled: Option<u8>,
    /// Whether system calls of this process are filtered.
    filtered: bool,
    /// The kernel's release.
    release: String,
    /// How many bytes the process may lock; `None`: as many as it likes.
    memlock_bytes: Option<u64>,
}

/// Tries io_uring.
///
/// # Errors
/// One line: what stands in the way, and what to do.
pub fn check_io_uring() -> Result<(), String> {
    let ring = IoUring::new(ENTRIES).map_err(|error| reason(&error, &Surroundings::read()))?;
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
        Ok(_) => Err(too_old(&Surroundings::read())),
        Err(error) => Err(reason(&error, &Surroundings::read())),
    }
}

impl Surroundings {
    fn read() -> Self {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
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
fn reason(error: &io::Error, around: &Surroundings) -> String {
    let what = match (error.raw_os_error(), around.disabled) {
        (Some(libc::EPERM), Some(2)) => {
            "the setting kernel.io_uring_disabled is 2; as root: sysctl -w kernel.io_uring_disabled=0, and the same in \
             /etc/sysctl.d for the next boot"
                .to_owned()
        }
        (Some(libc::EPERM), Some(1)) => {
            "the setting kernel.io_uring_disabled is 1, and this user is not in the group that kernel.io_uring_group names; as \
             root add it to that group, or: sysctl -w kernel.io_uring_disabled=0"
                .to_owned()
        }
        (Some(libc::EPERM | libc::EACCES | libc::ENOSYS), _) if around.filtered => {
            "a seccomp filter forbids it, as those of container runtimes do; allow io_uring_setup, io_uring_enter and \
             io_uring_register (Docker: --security-opt seccomp=PROFILE, Kubernetes: seccompProfile, systemd: SystemCallFilter=)"
                .to_owned()
        }
        (Some(libc::EPERM | libc::EACCES), _) => {
            "a security module forbids it (SELinux, AppArmor); its log names the rule".to_owned()
        }
        (Some(libc::ENOSYS), _) => format!(
            "the kernel {} has none: it is older than {KERNEL_MIN}, or was built without CONFIG_IO_URING",
            around.release
        ),
        (Some(libc::ENOMEM), _) => format!(
            "its memory could not be locked; the limit is {}; raise it: LimitMEMLOCK=infinity in the unit, or ulimit -l \
             unlimited",
            around.memlock_bytes.map_or("unlimited".to_owned(), |bytes| format!("{bytes} bytes"))
        ),
        (Some(libc::EMFILE | libc::ENFILE), _) => {
            "there is no descriptor left for it; raise the limit: LimitNOFILE= in the unit, or ulimit -n".to_owned()
        }
        _ => return format!("io_uring cannot be used: {error}"),
    };
    format!("io_uring cannot be used ({error}): {what}")
}

fn too_old(around: &Surroundings) -> String {
    format!("io_uring cannot be used: the kernel {} lacks a part of it; {KERNEL_MIN} or later has all", around.release)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(errno: i32, around: Surroundings) -> String {
        let line = reason(&io::Error::from_raw_os_error(errno), &around);
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
        assert!(line(libc::ENOSYS, old.clone()).contains("4.19.0") && too_old(&old).contains(KERNEL_MIN));
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
