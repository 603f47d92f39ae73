//! The decisions of a channel, without I/O: which units are sent when, and when to connect and to disconnect.
//!
//! Events come in by method calls. [`UnitQueue::next`] says what the driver has to do. The queue hands each unit back exactly
//! once: as one that was refused, as one whose answer has come, or as one that failed with the connection.
//!
//! ```text
//!             push            next: Send                 answered
//!   caller ────────► queued ────────────────► in flight ────────────► caller
//!                     │  ▲                      │  │ connection lost
//!                     │  └──────── repeat ──────┘  ▼
//!                     └──────────────────────────► caller, with an error
//!                       cancelled, overdue, connecting failed
//!
//!   link      queued            in flight   next
//!   down      none              none        Sleep
//!   down      some, back-off    none        Sleep until the back-off ends, or the first unit is overdue
//!   down      some              none        Connect ──► up, or down
//!   up        none              none        Sleep until the connection is idle for too long, then Disconnect ──► down
//!   up        some              none        Send: all that is queued
//!   up        any               some        Receive
//! ```
//!
//! **Invariant:** units are sent for the first time in the order in which they were pushed, and nothing is sent while units are
//! in flight.
//! `every_unit_is_handed_back_once_and_in_order` in `queue/tests.rs` holds this and the bounds.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// The bounds of a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Units that are queued at most. Those in flight do not count.
    pub(super) units: usize,
    /// Bytes of the queued units at most. One unit that is larger may be queued alone.
    pub(super) bytes: usize,
    /// How long a connection is kept that nobody uses.
    pub(super) idle: Duration,
    /// The first pause between attempts to connect, and …
    pub(super) backoff_min: Duration,
    /// … the longest one. Each pause is twice as long as the one before.
    pub(super) backoff_max: Duration,
}

/// What the queue holds for each unit.
pub(super) trait Ticket {
    /// Whether nobody waits for the answer any more. It never goes back to `false`.
    fn is_cancelled(&self) -> bool;
}

/// Why a unit was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsent {
    /// Nobody waits for it any more.
    Cancelled,
    /// Its deadline has passed.
    Overdue,
}

/// What the driver has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Wait for a push, at most until the given time.
    Sleep(Option<Instant>),
    /// Connect, then report [`UnitQueue::connected`] or [`UnitQueue::connect_failed`].
    Connect,
    /// Send everything that [`UnitQueue::in_flight`] lists, as one pipeline and by the given time.
    Send(Instant),
    /// Wait for the answer of the oldest unit in flight, at most until the given time. Then report [`UnitQueue::answered`] or
    /// [`UnitQueue::lost`].
    Receive(Instant),
    /// Close the connection, then report [`UnitQueue::disconnected`].
    Disconnect,
}

/// What [`UnitQueue::next`] decides.
#[derive(Debug)]
pub(super) struct Decision<T> {
    /// These are not sent.
    pub(super) refused: Vec<(T, Unsent)>,
    /// What to do then.
    pub(super) action: Action,
}

struct Queued<T> {
    ticket: T,
    bytes: usize,
    deadline: Instant,
}

struct InFlight<T> {
    unit: Queued<T>,
    /// The earliest deadline of this unit and those behind it: when it passes, the connection is given up.
    due: Instant,
}

enum Link {
    /// There is no connection.
    Down {
        /// Not before this is connecting tried again.
        retry_at: Option<Instant>,
    },
    /// There is a connection.
    Up {
        /// When it was made, or had its last answer.
        used_at: Instant,
        /// Whether it has had an answer.
        is_proven: bool,
    },
}

/// The units of one channel, generic over the tickets so that tests need no connection.
pub(super) struct UnitQueue<T> {
    bounds: Bounds,
    queued: VecDeque<Queued<T>>,
    queued_bytes: usize,
    in_flight: VecDeque<InFlight<T>>,
    /// The first so many queued units were in flight already, and are sent again.
    repeated: usize,
    link: Link,
    /// Connections in a row that were not made, or were lost before they had an answer.
    failures: u32,
}

impl<T: Ticket> UnitQueue<T> {
    /// Without units and without a connection.
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            queued: VecDeque::new(),
            queued_bytes: 0,
            in_flight: VecDeque::new(),
            repeated: 0,
            link: Link::Down { retry_at: None },
            failures: 0,
        }
    }

    /// Units that are queued or in flight.
    pub(super) fn len(&self) -> usize {
        self.queued.len() + self.in_flight.len()
    }

    /// Whether nothing is in flight.
    pub(super) fn is_quiet(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// The tickets of the units in flight, oldest first.
    pub(super) fn in_flight(&self) -> impl Iterator<Item = &T> {
        self.in_flight.iter().map(|in_flight| &in_flight.unit.ticket)
    }

    /// Queues a unit that occupies so many bytes and must be answered by `deadline`. A unit that is cancelled keeps its room
    /// until [`next`](Self::next) refuses it.
    ///
    /// # Errors
    /// Gives the ticket back if there is no room.
    pub(super) fn push(&mut self, ticket: T, bytes: usize, deadline: Instant) -> Result<(), T> {
        let total_bytes = self.queued_bytes.saturating_add(bytes);
        let has_room = self.queued.len() < self.bounds.units && total_bytes <= self.bounds.bytes;
        if !has_room && !self.queued.is_empty() {
            return Err(ticket);
        }
        self.queued_bytes = total_bytes;
        self.queued.push_back(Queued { ticket, bytes, deadline });
        Ok(())
    }

    /// Decides what to do at the time `now`.
    pub(super) fn next(&mut self, now: Instant) -> Decision<T> {
        if let Some(oldest) = self.in_flight.front() {
            return Decision { refused: Vec::new(), action: Action::Receive(oldest.due) };
        }
        let refused = self.refuse(now);
        let action = match self.link {
            Link::Down { .. } if self.queued.is_empty() => Action::Sleep(None),
            Link::Down { retry_at: Some(at) } if at > now => {
                let overdue_at = self.queued.iter().map(|unit| unit.deadline).min();
                Action::Sleep(Some(overdue_at.map_or(at, |overdue_at| at.min(overdue_at))))
            }
            Link::Down { .. } => Action::Connect,
            Link::Up { used_at, .. } if self.queued.is_empty() => {
                let idle_end = used_at + self.bounds.idle;
                if idle_end <= now { Action::Disconnect } else { Action::Sleep(Some(idle_end)) }
            }
            Link::Up { .. } => Action::Send(self.fly(now)),
        };
        Decision { refused, action }
    }

    /// Takes the units out that must not be sent.
    fn refuse(&mut self, now: Instant) -> Vec<(T, Unsent)> {
        let why = |unit: &Queued<T>| match unit {
            unit if unit.ticket.is_cancelled() => Some(Unsent::Cancelled),
            unit if unit.deadline <= now => Some(Unsent::Overdue),
            _ => None,
        };
        let mut refused = Vec::new();
        if self.queued.iter().all(|unit| why(unit).is_none()) {
            return refused;
        }
        for unit in std::mem::take(&mut self.queued) {
            match why(&unit) {
                Some(why) => {
                    self.queued_bytes -= unit.bytes;
                    refused.push((unit.ticket, why));
                }
                None => self.queued.push_back(unit),
            }
        }
        refused
    }

    /// Puts all queued units, of which there are some, in flight. Returns their earliest deadline.
    fn fly(&mut self, now: Instant) -> Instant {
        assert!(self.in_flight.is_empty() && !self.queued.is_empty(), "one pipeline at a time");
        let mut due = None;
        for unit in self.queued.drain(..).rev() {
            let earliest = due.map_or(unit.deadline, |due: Instant| due.min(unit.deadline));
            due = Some(earliest);
            self.in_flight.push_front(InFlight { unit, due: earliest });
        }
        (self.queued_bytes, self.repeated) = (0, 0);
        due.unwrap_or(now)
    }

    /// There is a connection.
    pub(super) fn connected(&mut self, now: Instant) {
        assert!(matches!(self.link, Link::Down { .. }), "one connection at a time");
        self.link = Link::Up { used_at: now, is_proven: false };
    }

    /// No connection could be made. Hands back the queued units, which fail with it.
    pub(super) fn connect_failed(&mut self, now: Instant) -> Vec<T> {
        assert!(matches!(self.link, Link::Down { .. }), "one connection at a time");
        self.back_off(now);
        self.queued_bytes = 0;
        self.queued.drain(..).map(|unit| unit.ticket).collect()
    }

    /// The oldest unit in flight has its answer. Hands it back.
    pub(super) fn answered(&mut self, now: Instant) -> T {
        let Some(answered) = self.in_flight.pop_front() else { panic!("an answer belongs to a unit in flight") };
        self.failures = 0;
        self.link = Link::Up { used_at: now, is_proven: true };
        answered.unit.ticket
    }

    /// The server has skipped the oldest units in flight, so many of them. They are sent again with the next pipeline, in front
    /// of what is queued, also where that is more than the bounds allow.
    pub(super) fn repeat(&mut self, count: usize) {
        assert!(count <= self.in_flight.len(), "what is sent again was in flight");
        for InFlight { unit, .. } in self.in_flight.drain(..count) {
            self.queued_bytes += unit.bytes;
            self.queued.insert(self.repeated, unit);
            self.repeated += 1;
        }
    }

    /// The connection was lost, or given up. Hands back the units in flight, of which nobody knows whether they were carried
    /// out. Those that are queued wait for the next connection.
    pub(super) fn lost(&mut self, now: Instant) -> Vec<T> {
        self.link_down(now);
        self.in_flight.drain(..).map(|in_flight| in_flight.unit.ticket).collect()
    }

    /// The connection was closed while nothing was in flight.
    pub(super) fn disconnected(&mut self, now: Instant) {
        assert!(self.in_flight.is_empty(), "a connection with units in flight is lost, not closed");
        self.link_down(now);
    }

    /// A connection that has had an answer is replaced at once; one without an answer counts as a failure to connect.
    fn link_down(&mut self, now: Instant) {
        match self.link {
            Link::Up { is_proven: true, .. } => self.link = Link::Down { retry_at: None },
            Link::Up { is_proven: false, .. } => self.back_off(now),
            Link::Down { .. } => panic!("there is a connection that can be lost"),
        }
    }

    fn back_off(&mut self, now: Instant) {
        let doublings = self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        let pause = self.bounds.backoff_min.saturating_mul(1 << doublings).min(self.bounds.backoff_max);
        self.link = Link::Down { retry_at: Some(now + pause) };
    }
}

#[cfg(test)]
mod tests;
