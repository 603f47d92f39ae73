//! Seals a lane to which nothing was appended for a moment, so that a daemon which is killed then has said what was durable.

use super::lane_writer::LaneWriter;
use crate::limits::QUIET_SWEEPS_MAX;

/// What the sweeps have seen of a lane so far.
#[derive(Default)]
pub struct QuietSeal {
    appended_ordinal: u64,
    quiet_sweeps: u32,
}

impl QuietSeal {
    /// Looks at the lane; seals it after [`QUIET_SWEEPS_MAX`] sweeps without a push.
    pub fn sweep(&mut self, lane: &LaneWriter) {
        let appended_ordinal = lane.appended_ordinal();
        let is_quiet = std::mem::replace(&mut self.appended_ordinal, appended_ordinal) == appended_ordinal;
        self.quiet_sweeps = if is_quiet { self.quiet_sweeps + 1 } else { 0 };
        if self.quiet_sweeps >= QUIET_SWEEPS_MAX {
            lane.seal();
        }
    }
}
