//! The table of states, row by row, and random walks through it.

use super::*;
use proptest::prelude::*;
use std::{cell::Cell, rc::Rc};

const BOUNDS: Bounds = Bounds {
    units: 4,
    bytes: 100,
    idle: Duration::from_secs(60),
    backoff_min: Duration::from_millis(50),
    backoff_max: Duration::from_millis(300),
};

#[derive(Clone, Debug)]
struct Unit {
    id: usize,
    cancelled: Rc<Cell<bool>>,
}

impl Ticket for Unit {
    fn is_cancelled(&self) -> bool {
        self.cancelled.get()
    }
}

fn unit(id: usize) -> Unit {
    Unit { id, cancelled: Rc::default() }
}

fn ids(units: &[Unit]) -> Vec<usize> {
    units.iter().map(|unit| unit.id).collect()
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// What it decides, where nothing is refused.
fn action(queue: &mut UnitQueue<Unit>, now: Instant) -> Action {
    let decision = queue.next(now);
    assert!(decision.refused.is_empty(), "{decision:?}");
    decision.action
}

#[test]
fn what_waits_while_a_pipeline_is_out_is_the_next_pipeline() {
    let now = Instant::now();
    let deadline = now + ms(1000);
    let mut queue = UnitQueue::new(BOUNDS);
    assert_eq!(action(&mut queue, now), Action::Sleep(None));
    queue.push(unit(0), 1, deadline).unwrap();
    assert_eq!(action(&mut queue, now), Action::Connect);
    queue.push(unit(1), 1, deadline).unwrap();
    queue.connected(now);
    assert!(matches!(action(&mut queue, now), Action::Send(_)));
    assert!(queue.in_flight().map(|unit| unit.id).eq([0, 1]));
    for id in 2..5 {
        queue.push(unit(id), 1, deadline).unwrap();
        assert_eq!(action(&mut queue, now), Action::Receive(deadline));
    }
    assert_eq!((queue.answered(now).id, queue.answered(now).id), (0, 1));
    assert!(matches!(action(&mut queue, now), Action::Send(_)));
    assert!(queue.in_flight().map(|unit| unit.id).eq([2, 3, 4]));
}

#[test]
fn the_connection_is_given_up_at_the_earliest_deadline_of_what_is_in_flight() {
    let now = Instant::now();
    let mut queue = UnitQueue::new(BOUNDS);
    for (id, milliseconds) in [(0, 500), (1, 100), (2, 300)] {
        queue.push(unit(id), 1, now + ms(milliseconds)).unwrap();
    }
    queue.connected(now);
    assert!(matches!(action(&mut queue, now), Action::Send(_)));
    assert_eq!(action(&mut queue, now), Action::Receive(now + ms(100)));
    queue.answered(now);
    assert_eq!(action(&mut queue, now), Action::Receive(now + ms(100)));
    queue.answered(now);
    assert_eq!(action(&mut queue, now), Action::Receive(now + ms(300)));
    queue.push(unit(3), 1, now + ms(900)).unwrap();
    assert_eq!(ids(&queue.lost(now + ms(301))), [2], "what was not sent waits for the next connection");
    assert_eq!(action(&mut queue, now + ms(301)), Action::Connect);
}

#[test]
fn who_left_and_who_is_late_is_not_sent() {
    let now = Instant::now();
    let mut queue = UnitQueue::new(BOUNDS);
    let left = unit(1);
    queue.push(unit(0), 1, now + ms(100)).unwrap();
    queue.push(left.clone(), 1, now + ms(900)).unwrap();
    queue.push(unit(2), 1, now + ms(900)).unwrap();
    left.cancelled.set(true);
    queue.connected(now);
    let decision = queue.next(now + ms(100));
    let refused: Vec<(usize, Unsent)> = decision.refused.iter().map(|(unit, why)| (unit.id, *why)).collect();
    assert_eq!(refused, [(0, Unsent::Overdue), (1, Unsent::Cancelled)]);
    assert_eq!(decision.action, Action::Send(now + ms(900)));
    assert!(queue.in_flight().map(|unit| unit.id).eq([2]));
}

#[test]
fn a_full_queue_takes_no_unit_and_an_empty_one_takes_any() {
    let deadline = Instant::now() + ms(1000);
    let mut queue = UnitQueue::new(BOUNDS);
    queue.push(unit(0), 1000, deadline).unwrap();
    assert_eq!(queue.push(unit(1), 1, deadline).unwrap_err().id, 1);
    queue.connected(Instant::now());
    queue.next(Instant::now());
    for id in 2..6 {
        queue.push(unit(id), 25, deadline).unwrap();
    }
    assert_eq!(queue.push(unit(6), 0, deadline).unwrap_err().id, 6, "four units");
    assert_eq!(queue.len(), 5);
}

#[test]
fn pauses_between_attempts_grow_to_their_bound_and_an_answer_ends_them() {
    let mut now = Instant::now();
    let mut queue = UnitQueue::new(BOUNDS);
    for pause in [50, 100, 200, 300, 300] {
        queue.push(unit(0), 1, now + ms(10_000)).unwrap();
        assert_eq!(action(&mut queue, now), Action::Connect);
        assert_eq!(ids(&queue.connect_failed(now)), [0]);
        queue.push(unit(1), 1, now + ms(10_000)).unwrap();
        assert_eq!(action(&mut queue, now), Action::Sleep(Some(now + ms(pause))));
        now += ms(pause);
        assert_eq!(action(&mut queue, now), Action::Connect);
        // A connection that is lost before it has answered is as bad as none.
        queue.connected(now);
        assert!(matches!(action(&mut queue, now), Action::Send(_)));
        assert_eq!(ids(&queue.lost(now)), [1]);
        queue.failures -= 1;
        queue.link = Link::Down { retry_at: None };
    }
    queue.push(unit(2), 1, now + ms(10_000)).unwrap();
    queue.connected(now);
    queue.next(now);
    queue.answered(now);
    queue.disconnected(now);
    queue.push(unit(3), 1, now + ms(10_000)).unwrap();
    assert_eq!(action(&mut queue, now), Action::Connect, "at once");
    queue.connect_failed(now);
    queue.push(unit(4), 1, now + ms(20)).unwrap();
    assert_eq!(action(&mut queue, now), Action::Sleep(Some(now + ms(20))), "nobody waits longer than its deadline");
    assert_eq!(queue.next(now + ms(20)).refused[0].1, Unsent::Overdue);
}

#[test]
fn a_connection_that_nobody_uses_is_closed() {
    let now = Instant::now();
    let mut queue = UnitQueue::<Unit>::new(BOUNDS);
    queue.connected(now);
    assert_eq!(action(&mut queue, now), Action::Sleep(Some(now + BOUNDS.idle)));
    queue.push(unit(0), 1, now + ms(1000)).unwrap();
    queue.next(now);
    queue.answered(now + ms(500));
    assert_eq!(action(&mut queue, now + BOUNDS.idle), Action::Sleep(Some(now + ms(500) + BOUNDS.idle)));
    assert_eq!(action(&mut queue, now + ms(500) + BOUNDS.idle), Action::Disconnect);
    queue.disconnected(now + ms(500) + BOUNDS.idle);
    assert_eq!(action(&mut queue, now + ms(500) + BOUNDS.idle), Action::Sleep(None));
}

#[test]
fn what_the_server_has_skipped_is_sent_again_in_front_of_what_waits() {
    let now = Instant::now();
    let deadline = now + ms(1000);
    let mut queue = UnitQueue::new(BOUNDS);
    queue.connected(now);
    for ids in [0..4, 4..8] {
        ids.for_each(|id| queue.push(unit(id), 1, deadline).unwrap());
        queue.next(now);
    }
    assert_eq!(queue.answered(now).id, 0);
    queue.repeat(1);
    assert_eq!(queue.answered(now).id, 2);
    queue.repeat(1);
    assert_eq!(action(&mut queue, now), Action::Send(deadline));
    assert!(queue.in_flight().map(|unit| unit.id).eq([1, 3, 4, 5, 6, 7]));
}

/// Something that happens.
#[derive(Clone, Debug)]
enum Event {
    Push {
        bytes: usize,
        timeout_ms: u64,
    },
    /// The unit that was pushed at this place is given up by its caller.
    Cancel(usize),
    /// Time passes.
    Wait(u64),
    /// The driver does what it has to do next; the attempt fails, or does not.
    Drive {
        fails: bool,
    },
    /// The server has skipped the unit whose answer is waited for.
    Skip,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..60_usize, 1..400_u64).prop_map(|(bytes, timeout_ms)| Event::Push { bytes, timeout_ms }),
        1 => (0..64_usize).prop_map(Event::Cancel),
        1 => (0..500_u64).prop_map(Event::Wait),
        1 => Just(Event::Wait(60_000)),
        8 => prop::bool::weighted(0.2).prop_map(|fails| Event::Drive { fails }),
        1 => Just(Event::Skip),
    ]
}

/// A queue, and what must be true of it.
struct Walk {
    queue: UnitQueue<Unit>,
    now: Instant,
    /// All that were taken, by id, with their deadlines.
    taken: Vec<(Unit, Instant)>,
    /// How often each was handed back.
    handed_back: Vec<usize>,
    /// Those that were sent, in order.
    sent: Vec<usize>,
    /// Those that are in flight, in order.
    in_flight: VecDeque<usize>,
    /// Those that the server has skipped and that were not sent again yet, in order.
    skipped: VecDeque<usize>,
    is_up: bool,
}

impl Walk {
    fn hand_back(&mut self, units: &[Unit]) {
        for id in ids(units) {
            self.handed_back[id] += 1;
            assert_eq!(self.handed_back[id], 1, "unit {id} is handed back once");
        }
    }

    fn push(&mut self, bytes: usize, timeout_ms: u64) {
        let id = self.taken.len();
        let ticket = unit(id);
        let deadline = self.now + ms(timeout_ms);
        let (before, before_bytes) = (self.queue.queued.len(), self.queue.queued_bytes);
        match self.queue.push(ticket.clone(), bytes, deadline) {
            Ok(()) => {
                self.taken.push((ticket, deadline));
                self.handed_back.push(0);
            }
            Err(refused) => {
                assert_eq!(refused.id, id);
                // Units that the server has skipped return also to a full queue.
                assert!(before >= BOUNDS.units || before > 0 && before_bytes + bytes > BOUNDS.bytes);
            }
        }
    }

    fn drive(&mut self, fails: bool) {
        let decision = self.queue.next(self.now);
        for (unit, why) in &decision.refused {
            match why {
                Unsent::Cancelled => assert!(unit.is_cancelled()),
                Unsent::Overdue => assert!(self.taken[unit.id].1 <= self.now),
            }
            assert!(!self.sent.contains(&unit.id) || self.skipped.contains(&unit.id));
            self.skipped.retain(|id| *id != unit.id);
        }
        let refused: Vec<Unit> = decision.refused.into_iter().map(|(unit, _)| unit).collect();
        self.hand_back(&refused);
        match decision.action {
            Action::Sleep(until) => assert!(until.is_none_or(|until| until > self.now), "no sleep is for nothing"),
            Action::Connect => {
                assert!(!self.is_up);
                if fails {
                    let failed = self.queue.connect_failed(self.now);
                    self.skipped.clear();
                    self.hand_back(&failed);
                } else {
                    self.queue.connected(self.now);
                    self.is_up = true;
                }
            }
            Action::Send(due) => self.send(due),
            Action::Receive(due) => self.receive(due, fails),
            Action::Disconnect => {
                self.queue.disconnected(self.now);
                self.is_up = false;
            }
        }
    }

    fn send(&mut self, due: Instant) {
        assert!(self.is_up && self.in_flight.is_empty(), "one pipeline at a time");
        let pipeline: Vec<Unit> = self.queue.in_flight().cloned().collect();
        assert!(!pipeline.is_empty());
        for unit in &pipeline {
            assert!(!unit.is_cancelled() && self.taken[unit.id].1 > self.now, "{unit:?} is not sent");
            match self.skipped.pop_front() {
                Some(skipped) => assert_eq!(unit.id, skipped, "what was skipped goes first"),
                None => {
                    assert!(self.sent.last().is_none_or(|last| *last < unit.id), "in the order in which they came");
                    self.sent.push(unit.id);
                }
            }
            self.in_flight.push_back(unit.id);
        }
        assert_eq!(Some(due), self.in_flight.iter().map(|id| self.taken[*id].1).min());
    }

    fn skip(&mut self) {
        if let Some(skipped) = self.in_flight.pop_front() {
            self.queue.repeat(1);
            self.skipped.push_back(skipped);
        }
    }

    fn receive(&mut self, due: Instant, fails: bool) {
        let deadlines = self.in_flight.iter().map(|id| self.taken[*id].1);
        assert_eq!(Some(due), deadlines.min());
        if fails || due <= self.now {
            let lost = self.queue.lost(self.now);
            assert!(ids(&lost).into_iter().eq(self.in_flight.drain(..)));
            self.hand_back(&lost);
            self.is_up = false;
        } else {
            let answered = self.queue.answered(self.now);
            assert_eq!(Some(answered.id), self.in_flight.pop_front(), "in the order in which they were sent");
            self.hand_back(&[answered]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_unit_is_handed_back_once_and_in_order(events in prop::collection::vec(event(), 1..120)) {
        let mut walk = Walk {
            queue: UnitQueue::new(BOUNDS),
            now: Instant::now(),
            taken: Vec::new(),
            handed_back: Vec::new(),
            sent: Vec::new(),
            in_flight: VecDeque::new(),
            skipped: VecDeque::new(),
            is_up: false,
        };
        for event in events {
            match event {
                Event::Push { bytes, timeout_ms } => walk.push(bytes, timeout_ms),
                Event::Cancel(at) => {
                    if let Some((unit, _)) = walk.taken.get(at) {
                        unit.cancelled.set(true);
                    }
                }
                Event::Wait(milliseconds) => walk.now += ms(milliseconds),
                Event::Drive { fails } => walk.drive(fails),
                Event::Skip => walk.skip(),
            }
            let pushed: Vec<usize> = walk.queue.queued.iter().skip(walk.skipped.len()).map(|unit| unit.bytes).collect();
            assert!(pushed.len() <= BOUNDS.units);
            assert!(pushed.iter().sum::<usize>() <= BOUNDS.bytes || pushed.len() == 1);
            assert_eq!(walk.queue.queued_bytes, walk.queue.queued.iter().map(|unit| unit.bytes).sum::<usize>());
        }
        // Once nothing goes wrong any more, all are answered within a few steps.
        for _ in 0..100 {
            walk.drive(false);
            walk.now += ms(10);
        }
        prop_assert!(walk.handed_back.iter().all(|times| *times == 1));
        prop_assert_eq!(walk.queue.len(), 0);
    }
}
