//! Limits and signals of the process, set before it has threads.

use crate::limits::{DESCRIPTOR_TABLE_MAX, DESCRIPTORS_KEPT};
use std::sync::Arc;

/// Raises the limit of open files as far as the process may. Returns how many of them connections can have.
pub fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
    getrlimit(Resource::Nofile).current.map_or(u64::MAX, |limit| limit.saturating_sub(DESCRIPTORS_KEPT).max(1))
}

/// Raises the limit of locked memory as far as the process may: rings count against it that are made without the capability
/// `CAP_IPC_LOCK`, those of all processes of the account together.
pub fn raise_locked_memory_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Memlock).maximum;
    let raised = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None })
        .or_else(|_| setrlimit(Resource::Memlock, Rlimit { current: maximum, maximum }));
    if let Err(error) = raised {
        tracing::debug!(%error, "the limit of locked memory could not be raised");
    }
}

/// Makes the process's table of descriptors as large as it will be. If the table grows while there are several threads, the
/// thread that accepts a connection stops for ten milliseconds or more, and so does all that it serves (`synchronize_rcu` in
/// the kernel's `expand_fdtable`). To be called before the cores start.
pub fn make_room_for_descriptors(connections: u64) {
    let highest = (connections + DESCRIPTORS_KEPT).min(DESCRIPTOR_TABLE_MAX) - 1;
    let made = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)
        .and_then(|event| rustix::io::fcntl_dupfd_cloexec(event, highest as i32));
    // Without it everything works, with a pause now and then.
    if let Err(error) = made {
        tracing::debug!(%error, "the table of descriptors was not made larger; it grows on demand");
    }
}

/// Lets a write beyond the limit of file sizes fail instead of ending the process, so that its caller can handle it. The signal
/// gets a handler: the private PostgreSQL would inherit an ignored signal.
///
/// # Errors
/// When the handler cannot be set.
pub fn survive_file_size_limit() -> std::io::Result<()> {
    signal_hook::flag::register(libc::SIGXFSZ, Arc::default()).map(drop)
}

/// Numbers of the processors that the process may use.
pub fn allowed_cpus() -> Vec<usize> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else { return vec![0] };
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}
