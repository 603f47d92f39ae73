//! Names that PostgreSQL does not create, and when they are tried again. They are known beyond a session: to try some of them
//! costs the session.

use super::{batch::RowRefusal, obstacle::Obstacle};
use crate::limits::{LONE_FAILURES, NAME_RETRY_DOUBLINGS, NAME_RETRY_INTERVAL};
use forebay_pgwire::{Error, SqlState};
use std::{collections::HashMap, time::Instant};

/// Names that are kept. With more of them all are tried again.
const NAMES_MAX: usize = 100_000;

/// A queue with a partition that PostgreSQL does not create.
struct UncreatedName {
    /// Attempts in a row that failed.
    failures: u32,
    /// Why its messages become dead letters.
    refusal: RowRefusal,
    retry_at: Instant,
}

/// The names of one drainer, as a batch groups them.
#[derive(Default)]
pub(crate) struct UncreatedNames {
    names: HashMap<Box<[u8]>, UncreatedName>,
}

impl UncreatedNames {
    /// Why the messages of `name` become dead letters; `None`: that is not settled.
    pub(super) fn refusal(&self, name: &[u8]) -> Option<&RowRefusal> {
        self.names.get(name).filter(|name| name.failures >= LONE_FAILURES).map(|name| &name.refusal)
    }

    /// Whether an attempt to create `name` is due.
    pub(super) fn is_due(&self, name: &[u8]) -> bool {
        self.names.get(name).is_none_or(|name| name.failures < LONE_FAILURES || name.retry_at <= Instant::now())
    }

    /// `name` is there.
    pub(super) fn created(&mut self, name: &[u8]) {
        self.names.remove(name);
    }

    /// It was found out that `name` is at fault.
    pub(super) fn judged(&mut self, name: &[u8], refusal: RowRefusal) {
        self.insert(name, UncreatedName { failures: LONE_FAILURES, refusal, retry_at: retry_at(0) });
    }

    /// `name` is missing although PostgreSQL reported no error. Returns what stands in its way.
    pub(super) fn skipped(&mut self, name: &[u8]) -> Obstacle {
        let failures = self.names.get(name).map_or(0, |before| before.failures) + 1;
        let obstacle = Obstacle::not_created();
        self.insert(name, UncreatedName { failures, refusal: obstacle.refusal(), retry_at: retry_at(0) });
        obstacle
    }

    /// Another attempt to create `name`, which is at fault, failed.
    pub(super) fn failed_again(&mut self, name: &[u8], error: &Error) {
        let failures = self.names.get(name).map_or(LONE_FAILURES, |before| before.failures).saturating_add(1);
        let is_costly = error.ends_connection() || error.sqlstate() == Some(SqlState::QUERY_CANCELED);
        let doublings = if is_costly { (failures - LONE_FAILURES).min(NAME_RETRY_DOUBLINGS) } else { 0 };
        let refusal = Obstacle::of(error).refusal();
        self.insert(name, UncreatedName { failures, refusal, retry_at: retry_at(doublings) });
    }

    fn insert(&mut self, name: &[u8], uncreated: UncreatedName) {
        if self.names.len() >= NAMES_MAX {
            self.names.clear();
        }
        self.names.insert(name.into(), uncreated);
    }
}

fn retry_at(doublings: u32) -> Instant {
    Instant::now() + NAME_RETRY_INTERVAL * 2_u32.pow(doublings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_name_that_costs_the_session_is_tried_again_after_a_longer_and_longer_time() {
        let mut names = UncreatedNames::default();
        let lost = Error::Io { during: "a statement", source: std::io::ErrorKind::ConnectionReset.into() };
        names.judged(b"bad", Obstacle::of(&lost).refusal());
        let mut waits: Vec<Duration> = Vec::new();
        for _ in 0..NAME_RETRY_DOUBLINGS + 2 {
            names.failed_again(b"bad", &lost);
            assert!(names.refusal(b"bad").is_some() && !names.is_due(b"bad"));
            waits.push(names.names[&b"bad"[..]].retry_at - Instant::now());
        }
        assert!(waits.windows(2).take(5).all(|pair| pair[1] > pair[0]), "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= NAME_RETRY_INTERVAL * 2_u32.pow(NAME_RETRY_DOUBLINGS)), "{waits:?}");
        names.created(b"bad");
        assert!(names.is_due(b"bad") && names.refusal(b"bad").is_none());
    }

    #[test]
    fn a_name_that_is_missing_without_an_error_is_at_fault_the_third_time() {
        let mut names = UncreatedNames::default();
        for failures in 1..=LONE_FAILURES {
            assert!(names.is_due(b"name"));
            names.skipped(b"name");
            assert_eq!(names.refusal(b"name").is_some(), failures == LONE_FAILURES);
        }
    }
}
