//! The watchdogs. One notices when a core's loop stands still, for then the connections that the kernel gave to that core are
//! not served. The other one notices when the log's files are removed, replaced or truncated, and writes the list of incarnations
//! again if that is removed.
//!
//! A core beats with each of its sweeps. The watchdog counts its own checks instead of time: a process or a machine that was
//! stopped as a whole is no stalled core.

use crate::{
    limits::STALLED_CHECKS,
    panics::panic_if_planted,
    state::{
        log_identity::LogIdentity,
        log_view::{LogFailure, LogView},
        pulse::Pulse,
    },
};
use forebay_wal::{error::LogError, presence::Presence};
use std::{io, sync::Arc, time::Duration};

/// Time between checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Time between looks for the log's files. Whoever removes them is to be told within a second.
const PRESENCE_INTERVAL: Duration = Duration::from_millis(250);

/// What the checks have seen of one core.
#[derive(Default)]
struct Watched {
    beats: u64,
    /// Checks without a beat.
    silent_checks: u32,
}

/// A change of a core's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Stalled,
    GoesOn,
}

impl Watched {
    /// Checks a core. Returns a change since the last check.
    fn check(&mut self, pulse: &Pulse) -> Option<Change> {
        let beats = pulse.beats();
        self.silent_checks = if beats == self.beats { self.silent_checks.saturating_add(1) } else { 0 };
        self.beats = beats;
        let is_stalled = self.silent_checks >= STALLED_CHECKS;
        let has_changed = pulse.set_stalled(is_stalled) != is_stalled;
        has_changed.then_some(if is_stalled { Change::Stalled } else { Change::GoesOn })
    }
}

/// Starts the watchdog's thread. It ends with the process, or once `is_stopping`: a core that has ended beats no more.
///
/// # Errors
/// When the system gives no thread.
pub fn start(pulses: Arc<[Pulse]>, is_stopping: impl Fn() -> bool + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name("watchdog".into()).spawn(move || {
        let mut watched: Vec<Watched> = pulses.iter().map(|_| Watched::default()).collect();
        while !is_stopping() {
            std::thread::sleep(CHECK_INTERVAL);
            panic_if_planted("watchdog");
            for (core, (pulse, watched)) in pulses.iter().zip(&mut watched).enumerate() {
                match watched.check(pulse) {
                    Some(Change::Stalled) => tracing::error!(
                        code = "core_stalled",
                        core,
                        checks = watched.silent_checks,
                        "the loop of a core stands still; its connections are not served"
                    ),
                    Some(Change::GoesOn) => tracing::warn!(core, "the loop of the core goes on"),
                    None => {}
                }
            }
        }
    })?;
    Ok(())
}

/// Starts the thread that looks for the log's files. It ends with the process, once `is_stopping`, or when they are gone: no core
/// takes a push from then on, and `on_failure` is called.
///
/// # Errors
/// When the system gives no thread.
pub fn watch_presence(
    mut presence: Presence,
    (log, identity): (Arc<LogView>, Arc<LogIdentity>),
    is_stopping: impl Fn() -> bool + Send + 'static,
    on_failure: impl FnOnce(LogError) + Send + 'static,
) -> io::Result<()> {
    std::thread::Builder::new().name("presence".into()).spawn(move || {
        let mut list = ListWatch::begin(&identity);
        while !is_stopping() {
            std::thread::sleep(PRESENCE_INTERVAL);
            if let Err(error) = presence.check() {
                log.set_failed(LogFailure::Storage);
                tracing::error!(
                    code = "log_removed",
                    %error,
                    "the log's files are not where they were; pushes are refused, and the daemon ends once the drain had its time"
                );
                return on_failure(error);
            }
            list.check(&identity);
        }
    })?;
    Ok(())
}

/// Looks for `wal/incarnations`. Without it the next start would take this directory for a copy.
struct ListWatch {
    /// On a full disk it may not be written before a checkpoint names the incarnation.
    was_there: bool,
    is_failure_logged: bool,
}

impl ListWatch {
    fn begin(identity: &LogIdentity) -> Self {
        Self { was_there: identity.is_written_down(), is_failure_logged: false }
    }

    fn check(&mut self, identity: &LogIdentity) {
        if identity.is_written_down() {
            *self = Self { was_there: true, is_failure_logged: false };
        } else if self.was_there {
            match identity.write_again() {
                Ok(()) => tracing::warn!("wal/incarnations was removed while the daemon runs; it is written again"),
                Err(error) if !self.is_failure_logged => {
                    self.is_failure_logged = true;
                    tracing::error!(
                        code = "incarnation_not_written",
                        %error,
                        "wal/incarnations was removed while the daemon runs, and cannot be written again"
                    );
                }
                Err(error) => tracing::debug!(%error, "wal/incarnations still cannot be written again"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_is_told_once_when_it_stalls_and_once_when_it_goes_on() {
        let (pulse, mut watched) = (Pulse::default(), Watched::default());
        pulse.beat();
        for _ in 0..STALLED_CHECKS {
            assert_eq!((watched.check(&pulse), pulse.is_stalled()), (None, false));
        }
        assert_eq!((watched.check(&pulse), pulse.is_stalled()), (Some(Change::Stalled), true));
        assert_eq!(watched.check(&pulse), None);
        pulse.beat();
        assert_eq!((watched.check(&pulse), pulse.is_stalled()), (Some(Change::GoesOn), false));
        pulse.beat();
        assert_eq!(watched.check(&pulse), None);
    }
}
