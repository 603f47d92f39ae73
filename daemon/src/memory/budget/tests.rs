use super::*;
use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake},
};

const MIB: usize = 1 << 20;

/// Of 32 MiB large ones reach up to 26, medium ones up to 30.
fn budget() -> Budget {
    Budget::new(32 * MIB, 20_000)
}

fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Polls a wait once, for so many bytes that are counted.
fn grow(held: &mut Held<'_>, bytes: usize) -> Poll<bool> {
    poll(pin!(held.grow_to(bytes + CONNECTION_FREE_BYTES))).map(|outcome| outcome.is_ok())
}

#[test]
fn what_every_connection_has_is_not_counted() {
    let (budget, holding) = (budget(), Holding::default());
    let mut held = budget.hold(&holding);
    let leave = poll(pin!(held.grow_to(CONNECTION_FREE_BYTES)));
    assert!(matches!(leave, Poll::Ready(Ok(leave)) if leave.total_bytes() == CONNECTION_FREE_BYTES));
    assert_eq!((holding.bytes(), budget.held_bytes.get()), (0, 0));
    assert_eq!(grow(&mut held, 100), Poll::Ready(true));
    assert!(held.covers(CONNECTION_FREE_BYTES + 100) && !held.covers(CONNECTION_FREE_BYTES + 101));
    drop(held);
    assert_eq!((holding.bytes(), budget.held_bytes.get()), (0, 0));
}

#[test]
fn large_ones_leave_room_for_medium_ones_and_those_for_small_ones() {
    let budget = budget();
    let holdings: [Holding; 8] = Default::default();
    let mut held = holdings.each_ref().map(|holding| budget.hold(holding));
    let [one, other, third, answer, medium, second_medium, small, second_small] = &mut held;
    assert_eq!(grow(one, 16 * MIB), Poll::Ready(true));
    assert_eq!(grow(other, 10 * MIB), Poll::Ready(true));
    assert_eq!(grow(third, 3 * MIB), Poll::Pending);
    assert!(answer.try_grow_to(MIB).is_none(), "an answer takes no room of medium bodies");
    assert_eq!(grow(medium, 5 * MIB / 2), Poll::Ready(true));
    assert_eq!(grow(second_medium, 2 * MIB), Poll::Pending);
    medium.note(0);
    assert_eq!(grow(medium, 2 * MIB), Poll::Ready(true));
    assert_eq!(grow(second_medium, 2 * MIB), Poll::Ready(true));
    small.set_owner(None);
    assert_eq!(grow(small, SMALL_HELD_BYTES), Poll::Ready(true));
    assert_eq!(grow(second_small, SMALL_HELD_BYTES), Poll::Ready(true));
    assert_eq!(budget.held_bytes.get(), 30 * MIB + 2 * SMALL_HELD_BYTES);
    drop(held);
    assert_eq!(budget.held_bytes.get(), 0);
}

/// Whether it was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn those_who_wait_stay_in_the_order_in_which_they_came_and_nobody_new_overtakes_them() {
    let budget = budget();
    let holdings: [Holding; 5] = Default::default();
    let [one, rest @ .., newcomer] = &holdings;
    let (mut one, mut newcomer) = (budget.hold(one), budget.hold(newcomer));
    assert_eq!(grow(&mut one, 26 * MIB), Poll::Ready(true));
    let mut held = rest.each_ref().map(|holding| budget.hold(holding));
    let mut waits: Vec<_> = held.iter_mut().map(|held| Box::pin(held.grow_to(14 * MIB))).collect();
    let woken: [Arc<Woken>; 3] = Default::default();
    let mut poll_woken = || -> Vec<usize> {
        let is_woken = |index: &usize| woken[*index].0.swap(false, Ordering::Relaxed);
        let poll = |index: &usize| {
            let waker = Waker::from(Arc::clone(&woken[*index]));
            waits[*index].as_mut().poll(&mut Context::from_waker(&waker)).is_ready()
        };
        (0..3).filter(is_woken).filter(poll).collect()
    };
    woken.iter().for_each(|woken| Arc::clone(woken).wake());
    for now_ms in 0..3 {
        assert_eq!(poll_woken(), [0; 0]);
        budget.tick(now_ms);
    }
    assert_eq!(poll_woken(), [0; 0]);
    one.note(0);
    assert_eq!(grow(&mut newcomer, 5 * MIB), Poll::Pending);
    assert_eq!(poll_woken(), [0]);
    assert_eq!(poll_woken(), [0; 0], "the second one finds no room");
}

#[test]
fn whoever_waits_too_long_is_told_and_one_that_leaves_makes_way() {
    let budget = budget();
    let holdings: [Holding; 3] = Default::default();
    let [mut one, mut other, mut third] = holdings.each_ref().map(|holding| budget.hold(holding));
    assert_eq!(grow(&mut one, 26 * MIB), Poll::Ready(true));
    {
        let mut waits = pin!(other.grow_to(3 * MIB));
        assert!(poll(waits.as_mut()).is_pending() && holdings[1].waits_for_body());
        budget.tick(19_999);
        assert!(poll(waits.as_mut()).is_pending());
        let missing_bytes = 3 * MIB - CONNECTION_FREE_BYTES;
        assert_eq!(budget.shortage(), Some(Shortage { missing_bytes, wait_ms: 19_999 }));
        budget.tick(20_000);
        assert!(matches!(poll(waits.as_mut()), Poll::Ready(Err(Overloaded))));
    }
    assert_eq!((budget.shortage(), holdings[1].bytes(), holdings[1].waits_for_body()), (None, 0, false));
    {
        let mut leaves = Box::pin(other.grow_to(20 * MIB));
        assert!(poll(leaves.as_mut()).is_pending());
        one.note(20 * MIB);
        assert_eq!(grow(&mut third, 3 * MIB), Poll::Pending, "one waits that came before");
    }
    assert_eq!(grow(&mut third, 3 * MIB), Poll::Ready(true));
}

#[test]
fn what_is_there_already_is_counted_and_nobody_gets_more_until_it_is_gone() {
    let budget = budget();
    let holdings: [Holding; 2] = Default::default();
    let [mut one, mut other] = holdings.each_ref().map(|holding| budget.hold(holding));
    one.note(32 * MIB + CONNECTION_FREE_BYTES);
    assert!(!budget.is_overdrawn());
    one.note(33 * MIB + CONNECTION_FREE_BYTES);
    assert!(budget.is_overdrawn());
    let mut waits = pin!(other.grow_to(CONNECTION_FREE_BYTES + 1));
    assert!(poll(waits.as_mut()).is_pending());
    one.note(0);
    assert!(!budget.is_overdrawn() && poll(waits.as_mut()).is_ready());
}

#[test]
fn one_that_waits_and_is_refused_finds_out_and_an_answer_never_waits() {
    let budget = budget();
    let holdings: [Holding; 3] = Default::default();
    let [mut one, mut other, mut answer] = holdings.each_ref().map(|holding| budget.hold(holding));
    assert_eq!(grow(&mut one, 26 * MIB), Poll::Ready(true));
    assert!(answer.try_grow_to(MIB).is_none());
    {
        let mut waits = pin!(other.grow_to(3 * MIB));
        assert!(poll(waits.as_mut()).is_pending());
        holdings[1].refuse();
        assert!(matches!(poll(waits.as_mut()), Poll::Ready(Err(Overloaded))));
    }
    one.note(0);
    assert!(answer.try_grow_to(MIB).is_some_and(|leave| leave.total_bytes() == MIB));
    assert!(answer.try_grow_to(40 * MIB).is_none(), "it is written in parts");
}

#[test]
fn a_token_may_hold_all_until_others_wait_and_then_its_part() {
    let budget = budget();
    let holdings: [Holding; 4] = Default::default();
    let [mut one, mut same, mut other, mut big] = holdings.each_ref().map(|holding| budget.hold(holding));
    one.set_owner(Some(1));
    same.set_owner(Some(1));
    other.set_owner(Some(2));
    big.set_owner(Some(2));
    assert_eq!(grow(&mut one, 18 * MIB), Poll::Ready(true));
    assert!(budget.exceeds_share(Some(1)) && !budget.exceeds_share(Some(2)) && !budget.exceeds_share(None));
    assert_eq!(grow(&mut same, MIB), Poll::Ready(true), "nobody else waits");
    {
        let mut waits = Box::pin(big.grow_to(15 * MIB));
        assert!(poll(waits.as_mut()).is_pending());
        assert_eq!(grow(&mut same, MIB + 1), Poll::Pending, "another token waits");
        assert_eq!(grow(&mut other, MIB), Poll::Ready(true));
        one.note(0);
        assert!(poll(waits.as_mut()).is_ready());
    }
    assert_eq!(grow(&mut same, MIB + 1), Poll::Ready(true));
    // What a connection holds goes along when another token is shown on it.
    other.set_owner(Some(1));
    assert_eq!((budget.of_owner(1), budget.of_owner(2)), (2 * MIB + 1, 15 * MIB - CONNECTION_FREE_BYTES));
}
