//! What the sweep knows of each connection, and when it ends what takes too long. No request has a timer.

use crate::{
    limits::{
        ANSWER_TIMEOUT, BODY_BYTES_PER_S_MIN, BUFFER_KEPT, CONNECTION_SWEEP_INTERVAL, LINGER, LINGER_SILENCE,
        PACE_PERIOD, PACE_SHARE,
    },
    memory::Holding,
    rt::{Interrupter, ShutdownHandle},
};
use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

/// What a connection is doing, as far as it matters how long that takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A TLS handshake.
    Handshake,
    /// Between requests, without a buffer.
    Idle,
    /// Between requests, with a buffer for the next one.
    IdleBuffered,
    /// A part of a head is there.
    Head,
    /// A head is there, and its body is coming.
    Body,
    /// The daemon, or its disk, is at work: the time is not the client's.
    Busy,
    /// It waits for PostgreSQL, or for memory; the sweep looks whether its client hangs up.
    Parked,
    /// A reply is being written.
    Writing,
    /// The last reply is written; what the client still sends is discarded.
    Lingering,
}

/// How long phases may take, in milliseconds of the connections' clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// Between requests.
    pub(crate) idle_ms: u64,
    /// For a head; also the period over which the rate of a body is measured.
    pub(crate) request_ms: u64,
}

impl Timeouts {
    pub(crate) fn new(idle: Duration, request: Duration) -> Self {
        Self { idle_ms: idle.as_millis() as u64, request_ms: request.as_millis() as u64 }
    }
}

/// The client closed its side of the connection, or is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HungUp;

/// One connection, as the sweep and the shutdown see it.
pub(crate) struct Watch {
    handle: ShutdownHandle,
    interrupter: Interrupter,
    phase: Cell<Phase>,
    since_ms: Cell<u64>,
    /// When the current period began over which the rate of a body is measured, and the bytes that came since. While it lingers:
    /// when something came last.
    period_ms: Cell<u64>,
    period_bytes: Cell<u64>,
    /// The first period has no least rate: a connection has to get up to speed.
    is_first_period: Cell<bool>,
    is_late: Cell<bool>,
    pace: Pace,
    /// The memory that it holds.
    holding: Holding,
    has_hung_up: Cell<bool>,
    /// The task that is parked.
    parked: RefCell<Option<Waker>>,
}

/// How fast a client sends a body or takes an answer, in a shorter period: it matters while others wait for memory.
#[derive(Default)]
struct Pace {
    since_ms: Cell<u64>,
    bytes: Cell<u64>,
    /// Bytes a second in the last whole period; `None` before that.
    bytes_per_s: Cell<Option<u64>>,
}

impl Pace {
    fn begin(&self, now_ms: u64) {
        self.since_ms.set(now_ms);
        self.bytes.set(0);
        self.bytes_per_s.set(None);
    }

    fn measure(&self, now_ms: u64) {
        let elapsed = Duration::from_millis(now_ms.saturating_sub(self.since_ms.get()));
        if elapsed < PACE_PERIOD {
            return;
        }
        let bytes = self.bytes.take();
        self.since_ms.set(now_ms);
        // A longer period says that the core had no time to read: that is not the client's.
        if elapsed < PACE_PERIOD + 2 * CONNECTION_SWEEP_INTERVAL {
            self.bytes_per_s.set(Some(bytes * 1000 / elapsed.as_millis() as u64));
        }
    }
}

/// How slow a connection is for the memory that it holds: what it moves in a second, in thousandths of what it must.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slowness(pub(crate) u64);

impl Slowness {
    /// It moves as much as it must.
    pub(crate) const ENOUGH: Self = Self(1000);
}

/// What the sweep does about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SweepAction {
    /// Nothing.
    Keep,
    /// Takes its buffer back.
    TakeBuffer,
    /// Closes it without a reply.
    Close,
    /// Ends its request, which is refused as too slow.
    RefuseLate,
    /// Cuts it, also while a reply is written.
    Cut,
}

impl Watch {
    pub(crate) fn new(handle: ShutdownHandle, now_ms: u64) -> Self {
        Self {
            handle,
            interrupter: Interrupter::default(),
            phase: Cell::new(Phase::Idle),
            since_ms: Cell::new(now_ms),
            period_ms: Cell::new(now_ms),
            period_bytes: Cell::new(0),
            is_first_period: Cell::new(true),
            is_late: Cell::new(false),
            pace: Pace::default(),
            holding: Holding::default(),
            has_hung_up: Cell::new(false),
            parked: RefCell::default(),
        }
    }

    /// A phase begins.
    pub(crate) fn begin(&self, phase: Phase, now_ms: u64) {
        self.phase.set(phase);
        self.since_ms.set(now_ms);
        if matches!(phase, Phase::Body | Phase::Writing | Phase::Lingering) {
            self.period_ms.set(now_ms);
            self.period_bytes.set(0);
            self.is_first_period.set(true);
            self.pace.begin(now_ms);
        }
    }

    /// A phase continues, or one begins that shares the time of the phase before.
    pub(crate) fn go_on(&self, phase: Phase) {
        self.phase.set(phase);
    }

    /// A body continues after the daemon kept its client waiting since `paused_ms`, which does not count.
    pub(crate) fn go_on_with_body(&self, paused_ms: u64, now_ms: u64) {
        let pause_ms = now_ms.saturating_sub(paused_ms);
        self.phase.set(Phase::Body);
        self.period_ms.update(|since_ms| since_ms + pause_ms);
        self.pace.since_ms.update(|since_ms| since_ms + pause_ms);
    }

    /// Bytes of a body were received.
    pub(crate) fn received(&self, bytes: usize) {
        self.period_bytes.update(|before| before + bytes as u64);
        self.pace.bytes.update(|before| before + bytes as u64);
    }

    /// A part of a reply was sent: the time for the next one begins anew.
    pub(crate) fn sent(&self, bytes: usize, now_ms: u64) {
        self.since_ms.set(now_ms);
        self.pace.bytes.update(|before| before + bytes as u64);
    }

    /// Something came that is discarded.
    pub(crate) fn discarded(&self, now_ms: u64) {
        self.period_ms.set(now_ms);
    }

    /// The memory that it holds.
    pub(crate) fn holding(&self) -> &Holding {
        &self.holding
    }

    /// How slow its client is for what it holds; `None` where that is not known yet, or where it is not the client that takes the
    /// time.
    pub(crate) fn slowness(&self) -> Option<Slowness> {
        let is_clients = matches!(self.phase.get(), Phase::Body | Phase::Writing) || self.holding.waits_for_body();
        let bytes_per_s = self.pace.bytes_per_s.get().filter(|_| is_clients)?;
        let needed_per_s = BODY_BYTES_PER_S_MIN.max(self.holding.bytes() as u64 / PACE_SHARE);
        Some(Slowness(bytes_per_s.saturating_mul(1000) / needed_per_s))
    }

    /// Takes the memory back that it holds: its request is refused, or its connection cut in the middle of a reply. One that waits
    /// for more finds out when it is woken.
    pub(crate) fn take_memory_back(&self) {
        if self.slowness().is_some_and(|slowness| slowness < Slowness::ENOUGH) {
            self.is_late.set(true);
        }
        self.holding.refuse();
        match self.phase.get() {
            Phase::Body => self.do_about_it(SweepAction::RefuseLate),
            Phase::Writing => self.do_about_it(SweepAction::Cut),
            _ => {}
        }
    }

    /// Whether the sweep ended a request because it came too slowly: it is to be answered with 408.
    pub(crate) fn is_late(&self) -> bool {
        self.is_late.get()
    }

    /// Interrupts the read of a connection that keeps a buffer between requests.
    pub(crate) fn interrupter(&self) -> &Interrupter {
        &self.interrupter
    }

    /// Shuts the connection down.
    pub(crate) fn handle(&self) -> &ShutdownHandle {
        &self.handle
    }

    /// Waits for `wait` while the sweep looks whether the client hangs up.
    ///
    /// # Errors
    /// [`HungUp`], once the client has and `wait` is not over; then at each later call as well.
    pub(crate) async fn park<T>(&self, wait: impl Future<Output = T>) -> Result<T, HungUp> {
        let mut wait = pin!(wait);
        poll_fn(|cx| self.poll_parked(cx, |cx| wait.as_mut().poll(cx))).await
    }

    /// As [`park`](Self::park), for a wait that is no future.
    pub(crate) fn poll_parked<T>(
        &self,
        cx: &mut Context<'_>,
        wait: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<Result<T, HungUp>> {
        let outcome = match wait(cx) {
            Poll::Ready(outcome) => Ok(outcome),
            Poll::Pending if self.has_hung_up.get() => Err(HungUp),
            Poll::Pending => {
                self.go_on(Phase::Parked);
                self.parked.replace(Some(cx.waker().clone()));
                return Poll::Pending;
            }
        };
        self.go_on(Phase::Busy);
        Poll::Ready(outcome)
    }

    /// Whether the sweep is to look whether the client has hung up.
    pub(crate) fn is_parked(&self) -> bool {
        self.phase.get() == Phase::Parked && !self.has_hung_up.get()
    }

    /// Whether the client was found to have hung up.
    pub(crate) fn has_hung_up(&self) -> bool {
        self.has_hung_up.get()
    }

    /// The client has hung up: ends the wait.
    pub(crate) fn hang_up(&self) {
        self.has_hung_up.set(true);
        if let Some(waker) = self.parked.take() {
            waker.wake();
        }
    }

    /// The daemon shuts down: a connection that is between requests is closed.
    pub(crate) fn stop_if_idle(&self) {
        if matches!(self.phase.get(), Phase::Idle | Phase::IdleBuffered | Phase::Lingering) {
            self.handle.stop_reading();
        }
    }

    /// The daemon ends.
    pub(crate) fn stop(&self) {
        self.handle.stop();
    }

    /// Ends what took too long.
    pub(crate) fn sweep(&self, now_ms: u64, timeouts: &Timeouts) -> SweepAction {
        if self.holding.bytes() > 0 && matches!(self.phase.get(), Phase::Body | Phase::Writing) {
            self.pace.measure(now_ms);
        }
        let action = self.action(now_ms, timeouts);
        self.do_about_it(action);
        action
    }

    fn do_about_it(&self, action: SweepAction) {
        match action {
            SweepAction::Keep => {}
            SweepAction::TakeBuffer => self.interrupter.interrupt(),
            SweepAction::Close => self.handle.stop_reading(),
            SweepAction::RefuseLate => {
                self.is_late.set(true);
                // What comes after it is still read, and thrown away, so that the client finds the answer.
                self.interrupter.interrupt();
            }
            SweepAction::Cut => self.handle.stop(),
        }
    }

    fn action(&self, now_ms: u64, timeouts: &Timeouts) -> SweepAction {
        let age_ms = now_ms.saturating_sub(self.since_ms.get());
        let has_taken = |limit: Duration| u128::from(age_ms) >= limit.as_millis();
        match self.phase.get() {
            Phase::Idle | Phase::IdleBuffered if age_ms >= timeouts.idle_ms => SweepAction::Close,
            Phase::Handshake if age_ms >= timeouts.request_ms => SweepAction::Close,
            Phase::IdleBuffered if has_taken(BUFFER_KEPT) => SweepAction::TakeBuffer,
            Phase::Head if age_ms >= timeouts.request_ms => SweepAction::RefuseLate,
            Phase::Body => self.action_on_body(now_ms, timeouts),
            Phase::Writing if has_taken(ANSWER_TIMEOUT) => SweepAction::Cut,
            Phase::Lingering if has_taken(LINGER) => SweepAction::Cut,
            Phase::Lingering
                if u128::from(now_ms.saturating_sub(self.period_ms.get())) >= LINGER_SILENCE.as_millis() =>
            {
                SweepAction::Cut
            }
            Phase::Handshake
            | Phase::Idle
            | Phase::IdleBuffered
            | Phase::Head
            | Phase::Busy
            | Phase::Parked
            | Phase::Writing
            | Phase::Lingering => SweepAction::Keep,
        }
    }

    fn action_on_body(&self, now_ms: u64, timeouts: &Timeouts) -> SweepAction {
        let period_ms = now_ms.saturating_sub(self.period_ms.get());
        if period_ms < timeouts.request_ms {
            return SweepAction::Keep;
        }
        let is_first = self.is_first_period.replace(false);
        if !is_first && self.period_bytes.get() * 1000 < BODY_BYTES_PER_S_MIN * period_ms {
            return SweepAction::RefuseLate;
        }
        self.period_ms.set(now_ms);
        self.period_bytes.set(0);
        SweepAction::Keep
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{limits::CONNECTION_FREE_BYTES, memory::Budget};
    use std::pin::Pin;

    const TIMEOUTS: Timeouts = Timeouts { idle_ms: 75_000, request_ms: 10_000 };

    fn watch() -> Watch {
        Watch::new(ShutdownHandle::closed(), 1000)
    }

    #[test]
    fn a_connection_between_requests_gives_its_buffer_back_first_and_is_closed_later() {
        let watch = watch();
        watch.begin(Phase::IdleBuffered, 1000);
        assert_eq!(watch.action(1000, &TIMEOUTS), SweepAction::Keep);
        assert_eq!(watch.action(1000 + BUFFER_KEPT.as_millis() as u64, &TIMEOUTS), SweepAction::TakeBuffer);
        watch.go_on(Phase::Idle);
        assert_eq!(watch.action(75_999, &TIMEOUTS), SweepAction::Keep);
        assert_eq!(watch.action(76_000, &TIMEOUTS), SweepAction::Close);
    }

    #[test]
    fn case_66_a_head_has_its_time_from_its_first_byte_on() {
        let watch = watch();
        watch.begin(Phase::Head, 5000);
        watch.go_on(Phase::Busy);
        watch.go_on(Phase::Head);
        assert_eq!(watch.action(14_999, &TIMEOUTS), SweepAction::Keep);
        assert_eq!(watch.action(15_000, &TIMEOUTS), SweepAction::RefuseLate);
    }

    #[test]
    fn case_66_a_body_has_a_rate_to_keep_after_a_first_time_that_is_free() {
        let watch = watch();
        watch.begin(Phase::Body, 0);
        assert_eq!(watch.action(10_000, &TIMEOUTS), SweepAction::Keep);
        watch.received(10 * 1024);
        assert_eq!(watch.action(20_000, &TIMEOUTS), SweepAction::Keep);
        watch.received(10 * 1024 - 1);
        assert_eq!(watch.action(29_999, &TIMEOUTS), SweepAction::Keep);
        assert_eq!(watch.action(30_000, &TIMEOUTS), SweepAction::RefuseLate);
    }

    #[test]
    fn time_that_the_daemon_takes_is_not_the_client_s() {
        let watch = watch();
        watch.begin(Phase::Body, 0);
        assert_eq!(watch.action(10_000, &TIMEOUTS), SweepAction::Keep);
        watch.go_on(Phase::Busy);
        assert_eq!(watch.action(500_000, &TIMEOUTS), SweepAction::Keep);
        watch.go_on_with_body(11_000, 500_000);
        assert_eq!(watch.action(508_999, &TIMEOUTS), SweepAction::Keep);
        assert_eq!(watch.action(509_000, &TIMEOUTS), SweepAction::RefuseLate);
    }

    #[test]
    fn how_slow_a_client_is_for_what_it_holds_is_known_after_a_period_and_not_while_the_daemon_works() {
        let (watch, budget) = (watch(), Budget::new(1 << 20, 1000));
        let mut held = budget.hold(watch.holding());
        held.note(CONNECTION_FREE_BYTES + 100_000);
        watch.begin(Phase::Body, 0);
        watch.sweep(499, &TIMEOUTS);
        assert_eq!(watch.slowness(), None);
        watch.received(5000);
        watch.sweep(1000, &TIMEOUTS);
        // A tenth a second is 10,000 bytes.
        assert_eq!(watch.slowness(), Some(Slowness(500)));
        watch.go_on(Phase::Busy);
        assert_eq!(watch.slowness(), None);
        watch.go_on_with_body(1000, 5000);
        watch.received(20_000);
        watch.sweep(5499, &TIMEOUTS);
        assert_eq!(watch.slowness(), Some(Slowness(500)));
        watch.sweep(6000, &TIMEOUTS);
        assert_eq!(watch.slowness(), Some(Slowness(2000)));
        watch.begin(Phase::Writing, 7000);
        watch.sweep(8000, &TIMEOUTS);
        assert_eq!(watch.slowness(), Some(Slowness(0)));
    }

    #[test]
    fn what_is_discarded_has_an_end_and_a_silent_client_an_earlier_one() {
        let watch = watch();
        let (most_ms, silence_ms) = (LINGER.as_millis() as u64, LINGER_SILENCE.as_millis() as u64);
        watch.begin(Phase::Lingering, 0);
        assert_eq!(watch.action(silence_ms - 1, &TIMEOUTS), SweepAction::Keep);
        assert_eq!(watch.action(silence_ms, &TIMEOUTS), SweepAction::Cut);
        watch.discarded(most_ms - 1);
        assert_eq!(watch.action(most_ms - 1, &TIMEOUTS), SweepAction::Keep);
        assert_eq!(watch.action(most_ms, &TIMEOUTS), SweepAction::Cut);
    }

    #[test]
    fn a_reader_that_takes_nothing_is_cut() {
        let watch = watch();
        watch.begin(Phase::Writing, 0);
        let limit_ms = ANSWER_TIMEOUT.as_millis() as u64;
        assert_eq!(watch.action(limit_ms - 1, &TIMEOUTS), SweepAction::Keep);
        assert_eq!(watch.action(limit_ms, &TIMEOUTS), SweepAction::Cut);
    }

    #[test]
    fn a_wait_ends_when_the_client_hangs_up_unless_it_is_over_by_then() {
        let watch = watch();
        let poll = |wait: Pin<&mut dyn Future<Output = Result<u8, HungUp>>>| {
            wait.poll(&mut Context::from_waker(Waker::noop()))
        };
        {
            let mut wait = pin!(watch.park(std::future::pending()));
            assert_eq!(poll(wait.as_mut()), Poll::Pending);
            assert!(watch.is_parked());
            watch.hang_up();
            assert!(!watch.is_parked(), "it is looked at no more");
            assert_eq!(poll(wait.as_mut()), Poll::Ready(Err(HungUp)));
        }
        assert_eq!(poll(pin!(watch.park(std::future::pending()))), Poll::Ready(Err(HungUp)));
        assert_eq!(poll(pin!(watch.park(std::future::ready(1)))), Poll::Ready(Ok(1)));
        assert!(watch.has_hung_up() && !watch.is_parked());
    }
}
