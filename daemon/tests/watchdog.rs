//! The watchdog reports a core whose loop is stuck, and reports when it continues.

// System calls that no crate wraps.
#![allow(unsafe_code)]
// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Daemon, NOWHERE, data_dir, wait_until};

/// The id of the thread with this name.
fn thread(pid: u32, name: &str) -> i32 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let named = |path: &std::path::Path| std::fs::read_to_string(path.join("comm")).unwrap().trim() == name;
    let task = tasks.map(|task| task.unwrap().path()).find(|path| named(path)).unwrap();
    task.file_name().unwrap().to_str().unwrap().parse().unwrap()
}

fn ptrace(request: libc::c_uint, thread: i32) {
    let nothing = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: the requests made here neither read nor write memory of this process.
    let outcome = unsafe { libc::ptrace(request, thread, nothing, nothing) };
    assert_eq!(outcome, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn a_core_that_stands_still_is_told_and_the_daemon_is_not_ready_until_it_goes_on() {
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), NOWHERE, &["--cores", "2"]);
    let mut other = daemon.connect_to_lane(1);
    assert_eq!(other.get("/ready").unwrap().status, 200);
    let core = thread(daemon.pid(), "core-0");
    ptrace(libc::PTRACE_SEIZE, core);
    ptrace(libc::PTRACE_INTERRUPT, core);
    wait_until("the stalled core is told", || daemon.log().contains("core_stalled"));
    let refused = other.get("/ready").unwrap();
    assert_eq!((refused.status, refused.code()), (503, "core_stalled".to_owned()));
    assert_eq!(other.post("/push/q", b"1").unwrap().status, 201, "the other one serves");
    ptrace(libc::PTRACE_DETACH, core);
    wait_until("it goes on", || other.get("/ready").unwrap().status == 200);
    assert_eq!(daemon.log().matches("core_stalled").count(), 1);
}
