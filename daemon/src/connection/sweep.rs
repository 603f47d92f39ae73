//! The sweep over a core's connections: it moves their clock, ends what takes too long, and gives free memory back.

use super::{relief::relieve, server::Server, watch::Timeouts};
use crate::{
    limits::{COLLECT_AFTER, CONNECTION_SWEEP_INTERVAL},
    rt,
};
use std::time::{Duration, Instant};

/// A longer step of the clock counts as one of this length: the process was stopped, or its machine.
const STEP_MAX: Duration = Duration::from_secs(1);

/// What one sweep remembers for the next.
pub(super) struct ConnectionSweep {
    timeouts: Timeouts,
    last: Instant,
    /// When connections are looked at next, by the connections' clock.
    due_ms: u64,
    /// Buffers that were freed since the allocator gave memory back.
    freed_buffers: usize,
}

impl ConnectionSweep {
    pub(super) fn new(timeouts: Timeouts) -> Self {
        Self { timeouts, last: Instant::now(), due_ms: 0, freed_buffers: 0 }
    }

    /// Moves the clock to `now`, and relieves those who wait for memory. Looks at all connections once in
    /// [`CONNECTION_SWEEP_INTERVAL`].
    pub(super) fn sweep(&mut self, server: &Server, now: Instant) {
        let step = now.duration_since(std::mem::replace(&mut self.last, now)).min(STEP_MAX);
        let now_ms = server.now_ms() + step.as_millis() as u64;
        server.set_now_ms(now_ms);
        if relieve(&server.registry, &server.budget) > 0 {
            server.memory.take_back();
        }
        if now_ms < self.due_ms {
            return;
        }
        self.due_ms = now_ms + CONNECTION_SWEEP_INTERVAL.as_millis() as u64;
        self.give_memory_back(server);
        server.budget.tick(now_ms);
        server.turns.tick(now_ms);
        server.registry.sweep(now_ms, &self.timeouts);
    }

    /// Gives free memory back once enough buffers were freed, or fewer and no more since the last sweep.
    fn give_memory_back(&mut self, server: &Server) {
        // The connections that the last sweep interrupted have freed theirs by now.
        let freed_now = server.registry.take_freed_buffers();
        self.freed_buffers += freed_now;
        let was_last = self.freed_buffers > 0 && freed_now == 0;
        if self.freed_buffers >= COLLECT_AFTER || was_last {
            self.freed_buffers = 0;
            rt::give_free_memory_back();
        }
    }
}
