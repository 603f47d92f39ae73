//! A panic in any thread ends the process, never a part of it.
//!
//! A thread that is gone while the others go on serves nobody: pushes that nobody drains, or connections that nobody answers.
//! A supervisor sees a process that ended.

use forebay_os::rights::without_capabilities;
use std::{
    any::Any,
    panic::PanicHookInfo,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

/// Exit code of a process in which a thread panicked. It is part of the contract.
pub const EXIT_CODE: u8 = 6;

/// Time that the process has beyond its grace before it is ended by force.
const MARGIN: Duration = Duration::from_secs(5);

/// Notices panics.
#[derive(Clone)]
pub struct PanicWatch(Arc<AtomicBool>);

impl PanicWatch {
    /// Calls `on_panic` at each panic from now on, on the thread that panics and before it unwinds. The process ends after the
    /// first one: in order if the caller sees to that within `grace` and five seconds, else by force. To be called once.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(grace: Duration, on_panic: impl Fn() + Send + Sync + 'static) -> std::io::Result<Self> {
        let has_panicked = Arc::new(AtomicBool::new(false));
        let (first, seen) = channel();
        let last_resort = move || end_by_force(&seen, grace + MARGIN);
        without_capabilities(|| thread::Builder::new().name("last-resort".into()).spawn(last_resort))??;
        let flag = Arc::clone(&has_panicked);
        std::panic::set_hook(Box::new(move |info| {
            flag.store(true, Ordering::SeqCst);
            on_panic();
            tell(&first);
            report(info);
        }));
        Ok(Self(has_panicked))
    }

    /// Whether a thread has panicked.
    #[must_use]
    pub fn has_panicked(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

fn tell(first: &Sender<()>) {
    if first.send(()).is_err() {
        tracing::debug!("the process is ended by force already");
    }
}

/// Ends the process when `patience` is over after the first panic. Nothing of the process is used for that: the thread that
/// ends it in order may be the one that panicked, or wait for that one.
fn end_by_force(seen: &Receiver<()>, patience: Duration) {
    // A hook that is gone sees no more panics.
    if seen.recv().is_ok() {
        thread::sleep(patience);
        signal_hook::low_level::exit(EXIT_CODE.into());
    }
}

fn report(info: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let at = info.location().map(ToString::to_string);
    tracing::error!(
        code = "thread_panicked",
        thread = thread.name().unwrap_or("unnamed"),
        at = at.as_deref().unwrap_or("an unknown place"),
        panic = message(info.payload()),
        "a thread panicked: pushes are refused, what is durable is drained for the grace, and the daemon ends"
    );
}

fn message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// Panics if the environment asks for it: the file that `FOREBAY_PANIC_FILE` names holds `place`. Only builds for tests have it.
#[cfg(debug_assertions)]
#[track_caller]
pub fn panic_if_planted(place: &str) {
    use std::sync::OnceLock;
    static FILE: OnceLock<Option<std::path::PathBuf>> = OnceLock::new();
    let file = FILE.get_or_init(|| std::env::var_os("FOREBAY_PANIC_FILE").map(Into::into));
    if let Some(file) = file
        && std::fs::read_to_string(file).is_ok_and(|planted| planted == place)
    {
        panic!("planted");
    }
}

/// Does nothing: only builds for tests plant panics.
#[cfg(not(debug_assertions))]
#[inline]
pub fn panic_if_planted(_place: &str) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_s_message_is_its_text() {
        assert_eq!(message(&"a text"), "a text");
        assert_eq!(message(&format!("{} text", 1)), "1 text");
        assert_eq!(message(&7_u8), "no message");
    }
}
