//! Requirements on the system, and the daemon's error message for each one that is not met.

// System calls that no crate wraps.
#![allow(unsafe_code)]
// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Daemon, NOWHERE, data_dir};
use serde_json::json;
use std::{
    io,
    os::unix::process::CommandExt,
    process::{Command, Output, Stdio},
};

/// Makes `io_uring_setup` fail with `errno` in this process from here on, like the filter of a container runtime.
fn forbid_io_uring(errno: i32) -> io::Result<()> {
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut steps = [
        // The number of the system call is the first field of struct seccomp_data.
        step(LOAD_WORD, 0, 0, 0),
        step(JUMP_IF_EQUAL, 0, 1, libc::SYS_io_uring_setup as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    rustix::thread::set_no_new_privs(true)?;
    // SAFETY: the program and the steps that it points to live until the call returns.
    match unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn start_without_io_uring(errno: i32) -> Output {
    let dir = data_dir();
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--postgres", NOWHERE, "--data-dir"]);
    command.arg(dir.path().join("data")).stdin(Stdio::null());
    // SAFETY: between fork and exec, the closure makes two system calls on memory of its own stack frame.
    unsafe { command.pre_exec(move || forbid_io_uring(errno)) };
    let output = command.output().unwrap();
    assert!(!dir.path().join("data").exists(), "nothing is made");
    output
}

#[test]
fn case_44_io_uring_forbidden_by_seccomp_is_told_in_one_line_that_says_what_to_do() {
    for errno in [libc::EPERM, libc::ENOSYS] {
        let output = start_without_io_uring(errno);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(
            said.contains("io_uring") && said.contains("seccomp filter") && said.contains("io_uring_setup"),
            "{said}"
        );
    }
}

#[test]
fn case_43_little_memory_that_may_be_locked_is_enough_or_is_told() {
    let dir = data_dir();
    // Root raises the limit for itself. For others the rings of one core are small enough for it.
    let daemon = Daemon::start_by(&["prlimit", "--memlock=65536", "--"], dir.path(), NOWHERE, &["--cores", "1"]);
    let answer = daemon.connect().push(&json!({"items": [{"queue": "q", "payload": 1}], "qos0": true})).unwrap();
    assert_eq!((answer.status, answer.header("Forebay-Durability")), (201, Some("disk")));
}
