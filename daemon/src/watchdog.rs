//! Sees that each core's loop makes progress, and tells when one does not: whoever the kernel gave to that core waits for nothing.
//!
//! A core beats with each of its sweeps. The watchdog counts its own looks, not the clock: a process, or a machine, that was
//! stopped as a whole is no stalled core.

use crate::{
    limits::STALLED_LOOKS,
    state::{pulse::Pulse, shared::Shared},
};
use std::{io, sync::Arc, time::Duration};

/// Time between looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What was seen of one core so far.
#[derive(Default)]
struct Watched {
    beats: u64,
    /// Looks without a beat.
    looks: u32,
}

impl Watched {
    /// Looks at a core. Returns whether it just stalled (`Some(true)`), or goes on after it had (`Some(false)`).
    fn look(&mut self, pulse: &Pulse) -> Option<bool> {
        let beats = pulse.beats();
        self.looks = if beats == self.beats { self.looks.saturating_add(1) } else { 0 };
        self.beats = beats;
        let is_stalled = self.looks >= STALLED_LOOKS;
        (pulse.set_stalled(is_stalled) != is_stalled).then_some(is_stalled)
    }
}

/// Starts the thread; it ends with the process.
///
/// # Errors
/// When the system gives no thread.
pub fn start(shared: &Arc<Shared>) -> io::Result<()> {
    let shared = Arc::clone(shared);
    std::thread::Builder::new().name("watchdog".into()).spawn(move || {
        let mut watched: Vec<Watched> = shared.pulses.iter().map(|_| Watched::default()).collect();
        // A core that has ended beats no more.
        while !shared.is_stopping() {
            std::thread::sleep(LOOK_INTERVAL);
            for (core, (pulse, watched)) in shared.pulses.iter().zip(&mut watched).enumerate() {
                match watched.look(pulse) {
                    Some(true) => tracing::error!(
                        code = "core_stalled",
                        core,
                        looks = watched.looks,
                        "a core's loop does not come round; its connections are not served"
                    ),
                    Some(false) => tracing::warn!(core, "the core's loop goes on"),
                    None => {}
                }
            }
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_is_told_once_when_it_stalls_and_once_when_it_goes_on() {
        let (pulse, mut watched) = (Pulse::default(), Watched::default());
        pulse.beat();
        for _ in 0..STALLED_LOOKS {
            assert_eq!((watched.look(&pulse), pulse.is_stalled()), (None, false));
        }
        assert_eq!((watched.look(&pulse), pulse.is_stalled()), (Some(true), true));
        assert_eq!(watched.look(&pulse), None);
        pulse.beat();
        assert_eq!((watched.look(&pulse), pulse.is_stalled()), (Some(false), false));
        pulse.beat();
        assert_eq!(watched.look(&pulse), None);
    }
}
