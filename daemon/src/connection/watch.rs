//! What the sweep knows of each connection, and when it ends what takes too long. No request has a timer.

use crate::{
    limits::{ANSWER_TIMEOUT, BODY_BYTES_PER_S_MIN, BUFFER_KEPT, LINGER},
    rt::{Interrupter, Stopper},
};
use std::{cell::Cell, time::Duration};

/// What a connection is doing, as far as it matters how long that takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Between requests, without a buffer.
    Idle,
    /// Between requests, a buffer at hand for the next one.
    Resting,
    /// A part of a head is there.
    Head,
    /// A head is there, and its body is coming.
    Body,
    /// It waits for us, for the disk or for PostgreSQL: that is no fault of the client's.
    Busy,
    /// Its answer leaves.
    Writing,
    /// It was told to go, and what it still sends is thrown away.
    Leaving,
}

/// How long what may take. In milliseconds of the core's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// Between requests.
    pub(crate) idle_ms: u64,
    /// For a head; and over how long a body's rate is taken.
    pub(crate) request_ms: u64,
}

impl Timeouts {
    pub(crate) fn new(idle: Duration, request: Duration) -> Self {
        Self { idle_ms: idle.as_millis() as u64, request_ms: request.as_millis() as u64 }
    }
}

/// One connection, for the sweep and for the stop of the daemon.
pub(crate) struct Watch {
    stopper: Stopper,
    interrupter: Interrupter,
    phase: Cell<Phase>,
    since_ms: Cell<u64>,
    /// Of a body: when the time began over which its rate is taken, and what has come since.
    window_ms: Cell<u64>,
    window_bytes: Cell<u64>,
    /// The first time is free: a connection has to get up to speed.
    is_first_window: Cell<bool>,
    is_late: Cell<bool>,
}

/// What the sweep does about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Fine,
    /// Its buffer goes back.
    Interrupt,
    /// It is closed without a word.
    Close,
    /// It is told so, and closed.
    Late,
    /// It is cut.
    Cut,
}

impl Watch {
    pub(crate) fn new(stopper: Stopper, now_ms: u64) -> Self {
        Self {
            stopper,
            interrupter: Interrupter::default(),
            phase: Cell::new(Phase::Idle),
            since_ms: Cell::new(now_ms),
            window_ms: Cell::new(now_ms),
            window_bytes: Cell::new(0),
            is_first_window: Cell::new(true),
            is_late: Cell::new(false),
        }
    }

    /// A phase begins.
    pub(crate) fn begin(&self, phase: Phase, now_ms: u64) {
        self.phase.set(phase);
        self.since_ms.set(now_ms);
        if phase == Phase::Body {
            self.window_ms.set(now_ms);
            self.window_bytes.set(0);
            self.is_first_window.set(true);
        }
    }

    /// A phase goes on, or one begins whose time is that of the one before.
    pub(crate) fn go_on(&self, phase: Phase) {
        self.phase.set(phase);
    }

    /// A body goes on after the daemon kept it waiting since `paused_ms`, which does not count.
    pub(crate) fn go_on_with_body(&self, paused_ms: u64, now_ms: u64) {
        self.phase.set(Phase::Body);
        self.window_ms.set(self.window_ms.get() + now_ms.saturating_sub(paused_ms));
    }

    /// Something of a body has come.
    pub(crate) fn received(&self, bytes: usize) {
        self.window_bytes.set(self.window_bytes.get() + bytes as u64);
    }

    /// Whether the sweep has ended a request because it came too slowly: it is to be answered with 408.
    pub(crate) fn is_late(&self) -> bool {
        self.is_late.get()
    }

    /// For the read of a connection that rests.
    pub(crate) fn interrupter(&self) -> &Interrupter {
        &self.interrupter
    }

    /// The daemon stops: those between requests are closed.
    pub(crate) fn stop_if_idle(&self) {
        if matches!(self.phase.get(), Phase::Idle | Phase::Resting | Phase::Leaving) {
            self.stopper.stop_reading();
        }
    }

    /// The daemon ends.
    pub(crate) fn stop(&self) {
        self.stopper.stop();
    }

    /// Ends what took too long. Returns whether the buffer was asked back.
    pub(crate) fn sweep(&self, now_ms: u64, timeouts: &Timeouts) -> bool {
        let verdict = self.judge(now_ms, timeouts);
        match verdict {
            Verdict::Fine => {}
            Verdict::Interrupt => self.interrupter.interrupt(),
            Verdict::Close => self.stopper.stop_reading(),
            Verdict::Late => {
                self.is_late.set(true);
                self.stopper.stop_reading();
            }
            Verdict::Cut => self.stopper.stop(),
        }
        verdict == Verdict::Interrupt
    }

    fn judge(&self, now_ms: u64, timeouts: &Timeouts) -> Verdict {
        let age_ms = now_ms.saturating_sub(self.since_ms.get());
        let has_taken = |limit: Duration| u128::from(age_ms) >= limit.as_millis();
        match self.phase.get() {
            Phase::Idle | Phase::Resting if age_ms >= timeouts.idle_ms => Verdict::Close,
            Phase::Resting if has_taken(BUFFER_KEPT) => Verdict::Interrupt,
            Phase::Head if age_ms >= timeouts.request_ms => Verdict::Late,
            Phase::Body => self.judge_body(now_ms, timeouts),
            Phase::Writing if has_taken(ANSWER_TIMEOUT) => Verdict::Cut,
            Phase::Leaving if has_taken(LINGER) => Verdict::Cut,
            Phase::Idle | Phase::Resting | Phase::Head | Phase::Busy | Phase::Writing | Phase::Leaving => Verdict::Fine,
        }
    }

    fn judge_body(&self, now_ms: u64, timeouts: &Timeouts) -> Verdict {
        let window_ms = now_ms.saturating_sub(self.window_ms.get());
        if window_ms < timeouts.request_ms {
            return Verdict::Fine;
        }
        let is_first = self.is_first_window.replace(false);
        if !is_first && self.window_bytes.get() * 1000 < BODY_BYTES_PER_S_MIN * window_ms {
            return Verdict::Late;
        }
        self.window_ms.set(now_ms);
        self.window_bytes.set(0);
        Verdict::Fine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUTS: Timeouts = Timeouts { idle_ms: 75_000, request_ms: 10_000 };

    fn watch() -> (std::net::UdpSocket, Watch) {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let watch = Watch::new(Stopper::new(&socket), 1000);
        (socket, watch)
    }

    #[test]
    fn a_connection_between_requests_gives_its_buffer_back_first_and_is_closed_later() {
        let (_socket, watch) = watch();
        watch.begin(Phase::Resting, 1000);
        assert_eq!(watch.judge(1000, &TIMEOUTS), Verdict::Fine);
        assert_eq!(watch.judge(1000 + BUFFER_KEPT.as_millis() as u64, &TIMEOUTS), Verdict::Interrupt);
        watch.go_on(Phase::Idle);
        assert_eq!(watch.judge(75_999, &TIMEOUTS), Verdict::Fine);
        assert_eq!(watch.judge(76_000, &TIMEOUTS), Verdict::Close);
    }

    #[test]
    fn case_66_a_head_has_its_time_from_its_first_byte_on() {
        let (_socket, watch) = watch();
        watch.begin(Phase::Head, 5000);
        watch.go_on(Phase::Busy);
        watch.go_on(Phase::Head);
        assert_eq!(watch.judge(14_999, &TIMEOUTS), Verdict::Fine);
        assert_eq!(watch.judge(15_000, &TIMEOUTS), Verdict::Late);
    }

    #[test]
    fn case_66_a_body_has_a_rate_to_keep_after_a_first_time_that_is_free() {
        let (_socket, watch) = watch();
        watch.begin(Phase::Body, 0);
        assert_eq!(watch.judge(10_000, &TIMEOUTS), Verdict::Fine);
        watch.received(10 * 1024);
        assert_eq!(watch.judge(20_000, &TIMEOUTS), Verdict::Fine);
        watch.received(10 * 1024 - 1);
        assert_eq!(watch.judge(29_999, &TIMEOUTS), Verdict::Fine);
        assert_eq!(watch.judge(30_000, &TIMEOUTS), Verdict::Late);
    }

    #[test]
    fn time_that_the_daemon_takes_is_not_the_client_s() {
        let (_socket, watch) = watch();
        watch.begin(Phase::Body, 0);
        assert_eq!(watch.judge(10_000, &TIMEOUTS), Verdict::Fine);
        watch.go_on(Phase::Busy);
        assert_eq!(watch.judge(500_000, &TIMEOUTS), Verdict::Fine);
        watch.go_on_with_body(11_000, 500_000);
        assert_eq!(watch.judge(508_999, &TIMEOUTS), Verdict::Fine);
        assert_eq!(watch.judge(509_000, &TIMEOUTS), Verdict::Late);
    }

    #[test]
    fn a_reader_that_takes_nothing_is_cut() {
        let (_socket, watch) = watch();
        watch.begin(Phase::Writing, 0);
        let limit_ms = ANSWER_TIMEOUT.as_millis() as u64;
        assert_eq!(watch.judge(limit_ms - 1, &TIMEOUTS), Verdict::Fine);
        assert_eq!(watch.judge(limit_ms, &TIMEOUTS), Verdict::Cut);
    }
}
