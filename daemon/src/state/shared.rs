//! What the threads of one daemon share: counters, signals, and where the log and the drain stand.

use super::{
    drain_signal::DrainSignal, lane_progress::LaneProgress, local_drain_state::Remembered, mailbox::Mailbox,
    pulse::Pulse,
};
use crate::{access::Gate, config::Config, datadir::wal_dir, errands::ErrandsHandle};
use forebay_wal::{keeper::KeeperHandle, log::Numbers};
use std::{
    collections::HashSet,
    sync::{
        Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// What is known of PostgreSQL, from the drain's connection itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseHealth {
    /// Not tried yet.
    Unknown = 0,
    /// The last transaction went well.
    Connected = 1,
    /// The connection failed, or the drain is paused.
    Disconnected = 2,
}

/// Figures that only grow.
#[derive(Default)]
pub struct Counters {
    /// Messages accepted.
    pub pushed_messages: AtomicU64,
    /// Drain transactions committed.
    pub drain_transactions: AtomicU64,
    /// Messages that PostgreSQL has taken.
    pub drained_messages: AtomicU64,
    /// Messages whose transaction id was there already.
    pub duplicate_messages: AtomicU64,
    /// Records of the log that were durable and are gone.
    pub lost_records: AtomicU64,
}

/// Shared by all threads.
pub struct Shared {
    /// The settings.
    pub config: Config,
    /// Who may do what.
    pub gate: Gate,
    /// The log's id.
    pub log_id: [u8; 16],
    /// The counter of numbers.
    pub numbers: Numbers,
    /// Every lane found in the log, in order of their numbers.
    pub lanes: Vec<LaneProgress>,
    /// Asks for segments to be released.
    pub keeper: KeeperHandle,
    /// Size of new segments in bytes.
    pub segment_bytes: u64,
    /// The log's quota in bytes.
    pub quota_bytes: u64,
    /// Tells the drain what waits.
    pub drain: DrainSignal,
    /// One a core, by its lane's number.
    pub mailboxes: Vec<Mailbox>,
    /// One a core: whether its loop comes round.
    pub pulses: Vec<Pulse>,
    /// Where cores ask for errands to PostgreSQL.
    pub errands: ErrandsHandle,
    /// Figures.
    pub counters: Counters,
    /// Messages in dead letters that wait for a person.
    pub dead_letters: AtomicU64,
    /// When the oldest message not yet in PostgreSQL was accepted, in microseconds since 1970; 0: not known.
    pub oldest_pending_us: AtomicU64,
    /// What the drain takes out of the log, in bytes a second, over the last rounds; 0: not known.
    pub drain_bytes_per_s: AtomicU64,
    /// Whether this process has found its checkpoint once.
    pub has_checkpoint: AtomicBool,
    /// Names of the queues in PostgreSQL, where a push may not make one; `None`: not known yet.
    pub known_queues: RwLock<Option<HashSet<String>>>,
    remembered: Mutex<Option<Remembered>>,
    /// Whether `remembered` stands in its file.
    is_remembered_written: AtomicBool,
    health: AtomicU8,
    /// When a drain transaction committed, or a session began, in milliseconds since `started`.
    committed_ms: AtomicU64,
    started: Instant,
    storage_failed: AtomicBool,
    stopping: AtomicBool,
}

impl Shared {
    /// The state of a daemon that has opened its log.
    pub fn new(
        (config, gate): (Config, Gate),
        log: &forebay_wal::log::Log,
        (segment_bytes, quota_bytes): (u64, u64),
        drain: DrainSignal,
        mailboxes: Vec<Mailbox>,
        errands: ErrandsHandle,
    ) -> Self {
        let remembered = Remembered::read(&wal_dir(&config.data_dir), log.id);
        let lanes = log.found.iter().map(|found| {
            LaneProgress::new(found, remembered.as_ref().and_then(|remembered| remembered.lane(found.lane)))
        });
        Self {
            log_id: log.id,
            numbers: log.numbers.clone(),
            lanes: lanes.collect(),
            keeper: log.keeper(),
            segment_bytes,
            quota_bytes,
            drain,
            pulses: mailboxes.iter().map(|_| Pulse::default()).collect(),
            mailboxes,
            errands,
            counters: Counters::default(),
            dead_letters: AtomicU64::new(0),
            oldest_pending_us: AtomicU64::new(0),
            drain_bytes_per_s: AtomicU64::new(0),
            has_checkpoint: AtomicBool::new(false),
            known_queues: RwLock::new(None),
            config,
            gate,
            remembered: Mutex::new(remembered),
            is_remembered_written: AtomicBool::new(true),
            health: AtomicU8::new(DatabaseHealth::Unknown as u8),
            committed_ms: AtomicU64::new(0),
            started: Instant::now(),
            storage_failed: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        }
    }

    /// What the data directory remembers of the drain, or would if it could be written.
    pub fn remembered(&self) -> Option<Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what the data directory remembers, and whether it could be written.
    pub fn set_remembered(&self, remembered: Remembered, is_written: bool) {
        *self.remembered.lock().unwrap_or_else(PoisonError::into_inner) = Some(remembered);
        self.is_remembered_written.store(is_written, Ordering::Relaxed);
    }

    /// Whether what is remembered stands in its file, so that it is known after a restart too.
    pub fn is_remembered_written(&self) -> bool {
        self.is_remembered_written.load(Ordering::Relaxed)
    }

    /// Keeps drained segments as long as was asked for. Those that are known to be drained from an earlier life of the process
    /// make room from now on, also while PostgreSQL is away; without retention they go once the checkpoint was read.
    pub fn retain_drained(&self) {
        let retention = self.config.retain_drained;
        self.keeper.retain(retention);
        if !retention.is_zero() {
            self.lanes.iter().for_each(|progress| self.release(progress));
        }
    }

    /// What is known of PostgreSQL.
    pub fn health(&self) -> DatabaseHealth {
        match self.health.load(Ordering::Relaxed) {
            0 => DatabaseHealth::Unknown,
            1 => DatabaseHealth::Connected,
            _ => DatabaseHealth::Disconnected,
        }
    }

    /// Notes what became of PostgreSQL. When it goes away, those who wait for a commit are told.
    pub fn set_health(&self, health: DatabaseHealth) {
        let before = self.health.swap(health as u8, Ordering::Relaxed);
        if health == DatabaseHealth::Disconnected && before != health as u8 {
            self.mailboxes.iter().for_each(|mailbox| mailbox.send(crate::state::mailbox::Letter::DatabaseAway));
        }
    }

    /// Notes that PostgreSQL has answered as it should.
    pub fn postgres_answered(&self) {
        self.committed_ms.store(self.started.elapsed().as_millis() as u64, Ordering::Relaxed);
        if self.health() != DatabaseHealth::Connected {
            self.set_health(DatabaseHealth::Connected);
        }
    }

    /// A plain push waited in vain. If PostgreSQL has not answered since it began to, nobody else should: it counts as away
    /// until it does.
    pub fn waited_in_vain(&self, waited: Duration) {
        let silent_ms =
            (self.started.elapsed().as_millis() as u64).saturating_sub(self.committed_ms.load(Ordering::Relaxed));
        if u128::from(silent_ms) >= waited.as_millis() && self.health() == DatabaseHealth::Connected {
            tracing::warn!(
                silent_ms,
                "PostgreSQL does not answer; plain pushes are answered from the log until it does"
            );
            self.set_health(DatabaseHealth::Disconnected);
        }
    }

    /// Whether a lane took a failed write: no core takes pushes any more, and the daemon ends once the drain had its time.
    pub fn has_storage_failed(&self) -> bool {
        self.storage_failed.load(Ordering::Relaxed)
    }

    /// Lets no core take pushes any more.
    pub fn storage_failed(&self) {
        self.storage_failed.store(true, Ordering::Relaxed);
    }

    /// Whether the daemon is to end.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Lets the daemon end.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.mailboxes.iter().for_each(|mailbox| mailbox.send(crate::state::mailbox::Letter::Stop));
    }

    /// Whether there is a queue of this name in PostgreSQL, as of the last look; `None`: there was none yet.
    pub fn has_queue(&self, name: &str) -> Option<bool> {
        let known = self.known_queues.read().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().map(|known| known.contains(name))
    }

    /// Messages that are durable and not yet in PostgreSQL.
    pub fn pending(&self) -> u64 {
        self.lanes.iter().map(LaneProgress::pending).sum()
    }

    /// Bytes of the log that are not drained.
    pub fn used_bytes(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.pending_bytes(self.segment_bytes)).sum()
    }

    /// Lets go of the segments of a lane all of whose records PostgreSQL confirmed.
    pub fn release(&self, progress: &LaneProgress) {
        self.keeper.release(progress.lane.lane(), progress.release());
    }

    /// When trying again may help someone who was refused for want of room, in seconds: when the drain has emptied a
    /// segment, by its measured rate.
    pub fn retry_after_s(&self) -> u64 {
        const UNKNOWN_S: u64 = 5;
        const MAX_S: u64 = 60;
        match self.drain_bytes_per_s.load(Ordering::Relaxed) {
            0 => UNKNOWN_S,
            rate => self.segment_bytes.div_ceil(rate).clamp(1, MAX_S),
        }
    }

    /// Share of the quota that is used, in hundredths from 0 to 100, once `coming_bytes` are durable as well.
    pub fn fill_percent(&self, coming_bytes: usize) -> u8 {
        percent(self.used_bytes() + coming_bytes as u64, self.quota_bytes)
    }
}

/// A part of a whole, which is not 0, in hundredths; at most all of it.
fn percent(part: u64, whole: u64) -> u8 {
    (part.saturating_mul(100).saturating_add(whole / 2) / whole).min(100) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_and_never_more_than_all() {
        for (part, expected) in [(0, 0), (124, 12), (125, 13), (994, 99), (996, 100), (1000, 100), (u64::MAX, 100)] {
            assert_eq!(percent(part, 1000), expected, "{part}");
        }
    }
}
