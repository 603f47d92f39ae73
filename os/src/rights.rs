//! Capabilities, and acting as another account. Both belong to a thread: threads that it starts inherit them.

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs};
use std::{io, thread};

/// An account by its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Leaves the calling thread with those of its capabilities that are in `kept`, and lets no program that it starts gain any.
/// User 0 without capabilities can use what belongs to user 0, and nothing else.
///
/// # Errors
/// Those of the system.
pub fn keep_only(kept: CapabilitySet) -> io::Result<()> {
    gain_nothing()?;
    let had = capabilities(None)?;
    let kept = kept & had.permitted;
    // Ambient capabilities go with the inheritable ones.
    Ok(set_capabilities(
        None,
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() },
    )?)
}

/// Lets no program that the calling thread starts gain any right that the thread does not have.
///
/// # Errors
/// Those of the system.
pub fn gain_nothing() -> io::Result<()> {
    Ok(set_no_new_privs(true)?)
}

/// Runs `work` on a thread without capabilities, and waits for it.
///
/// # Errors
/// Those of the system.
pub fn without_capabilities<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    with_only(CapabilitySet::empty(), work)
}

/// Runs `work` on a thread that [keeps only](keep_only) these capabilities, and waits for it.
///
/// # Errors
/// Those of the system.
pub fn with_only<T: Send>(kept: CapabilitySet, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    on_a_thread(work, move || keep_only(kept))
}

/// Runs `work` on a thread that has the rights of another account, and waits for it. The caller needs `CAP_SETUID` and
/// `CAP_SETGID`.
///
/// # Errors
/// Those of the system.
pub fn as_account<T: Send>(account: Ids, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    on_a_thread(work, || become_account(account))
}

/// Gives the calling thread the rights of another account for the rest of its life.
fn become_account(Ids { uid, gid }: Ids) -> io::Result<()> {
    let (uid, gid) = (rustix::process::Uid::from_raw(uid), rustix::process::Gid::from_raw(gid));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    Ok(rustix::thread::set_thread_res_uid(uid, uid, uid)?)
}

fn on_a_thread<T: Send>(
    work: impl FnOnce() -> T + Send,
    prepare: impl FnOnce() -> io::Result<()> + Send,
) -> io::Result<T> {
    thread::scope(|scope| {
        let started = thread::Builder::new().name("other-rights".into()).spawn_scoped(scope, || {
            prepare()?;
            Ok(work())
        })?;
        started.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_without_capabilities_passes_none_on_and_the_others_keep_theirs() {
        let before = capabilities(None).unwrap();
        let seen = without_capabilities(|| thread::spawn(|| capabilities(None).unwrap()).join().unwrap()).unwrap();
        assert_eq!((seen.effective, seen.permitted), (CapabilitySet::empty(), CapabilitySet::empty()));
        assert_eq!(capabilities(None).unwrap(), before);
    }

    #[test]
    fn as_another_account_a_thread_reads_what_that_one_may_read() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not root: this process cannot act as another account, and the test does nothing");
            return;
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        let ids = Ids { uid: 65_534, gid: 65_534 };
        let read = || std::fs::read(file.path()).map_err(|error| error.kind());
        assert_eq!(as_account(ids, read).unwrap(), Err(io::ErrorKind::PermissionDenied));
        assert_eq!(read(), Ok(Vec::new()));
        let uid = as_account(ids, || rustix::process::geteuid().as_raw()).unwrap();
        assert_eq!((uid, rustix::process::geteuid().as_raw()), (65_534, 0));
    }
}
