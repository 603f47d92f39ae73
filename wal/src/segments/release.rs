//! The end of segments: released once drained, recycled, retained for a while, or set aside where they are damaged.

use super::{
    Segments,
    held::{Held, HeldSegment},
};
use crate::{
    error::LogError,
    limits::SEGMENTS_FREE_MAX,
    segment::{file_name, lane_dir_name},
    storage::Storage,
};
use std::{io, path::PathBuf, time::Instant};

impl<S: Storage> Segments<S> {
    /// Releases the segments of `lane` below `before`, and those below an earlier call's: everything in them was drained. What
    /// says where the lane goes on stays until there is a newer segment. Returns how many were released.
    ///
    /// # Errors
    /// [`LogError::Io`]; what was not released stays, and is released with the next call.
    pub fn release(&mut self, lane: u16, before: u64) -> Result<usize, LogError> {
        let now = Instant::now();
        let retention = self.retention;
        let held = self.lanes.entry(lane).or_default();
        held.drained_below = held.drained_below.max(before);
        if !retention.is_zero() {
            for (_, held) in held.segments.range_mut(..held.drained_below) {
                held.drained_at.get_or_insert(now);
            }
        }
        let mut released = 0;
        while let Some((segment, drained_at)) = self.lanes.get(&lane).and_then(Held::dispensable) {
            if drained_at.is_some_and(|at| now.duration_since(at) < retention) {
                break;
            }
            self.let_go(lane, segment)?;
            released += 1;
        }
        if self.unsynced.contains(&lane) {
            self.sync_released(lane)?;
        }
        Ok(released)
    }

    /// When the next retained segment goes.
    #[must_use]
    pub fn next_release(&self) -> Option<Instant> {
        let oldest = self.lanes.values().filter_map(|held| held.dispensable()?.1).min()?;
        oldest.checked_add(self.retention)
    }

    /// Releases what was retained for long enough.
    ///
    /// # Errors
    /// As [`release`](Self::release).
    pub fn release_retained(&mut self) -> Result<(), LogError> {
        let lanes: Vec<u16> = self.lanes.keys().copied().collect();
        lanes.into_iter().try_for_each(|lane| self.release(lane, 0).map(drop))
    }

    /// Takes the segments of `lane` from `from` on as not drained again. Returns whether all that there ever were from there
    /// on are still there; nothing has changed if not.
    pub fn reclaim(&mut self, lane: u16, from: u64) -> bool {
        let Some(held) = self.lanes.get_mut(&lane) else { return false };
        if held.segments.first_key_value().is_none_or(|(&first, _)| first > from) {
            return false;
        }
        held.drained_below = held.drained_below.min(from);
        held.segments.range_mut(from..).for_each(|(_, held)| held.drained_at = None);
        true
    }

    /// Makes it durable that segments left a lane, before a freed file gets another header: a crash must not bring that back
    /// under the old name.
    pub(super) fn sync_released(&mut self, lane: u16) -> Result<(), LogError> {
        for dir in [self.layout.free(), self.layout.lane(lane)] {
            self.storage.sync_dir(&dir).map_err(LogError::io("sync", dir))?;
        }
        self.unsynced.remove(&lane);
        Ok(())
    }

    /// Lets go of the segment that is retained for longest. Returns whether there was one.
    pub(super) fn give_up_oldest(&mut self) -> Result<bool, LogError> {
        let retained = self.lanes.iter().filter_map(|(&lane, held)| {
            let (segment, drained_at) = held.dispensable()?;
            Some((drained_at?, lane, segment))
        });
        let Some((_, lane, segment)) = retained.min() else { return Ok(false) };
        self.let_go(lane, segment)?;
        self.given_up += 1;
        tracing::warn!(lane, segment, "a drained segment is let go before its time: the log needs the room");
        self.sync_released(lane)?;
        Ok(true)
    }

    /// Notes that something in a segment does not verify, so that it is set aside rather than recycled.
    pub fn mark_damaged(&mut self, lane: u16, segment: u64) {
        if let Some(held) = self.lanes.get_mut(&lane).and_then(|held| held.segments.get_mut(&segment)) {
            held.damaged = true;
        }
    }

    /// A name for a damaged segment. One that was set aside before under the same name stays.
    fn set_aside_path(&self, lane: u16, segment: u64) -> Result<PathBuf, LogError> {
        let dir = self.layout.set_aside();
        let taken = self.storage.list(&dir).map_err(LogError::io("list", &dir))?;
        let name = format!("{}-{}", lane_dir_name(lane), file_name(segment));
        let mut candidates = (0..).map(|copy| if copy == 0 { name.clone() } else { format!("{name}.{copy}") });
        let free = candidates.find(|candidate| !taken.contains(candidate));
        Ok(dir.join(free.unwrap_or(name)))
    }

    /// Whether a segment that is let go can become another one.
    fn is_of_use(&self, held: HeldSegment) -> bool {
        let has_room = self.free.len() < SEGMENTS_FREE_MAX && self.total_bytes <= self.quota_bytes;
        has_room && held.length_bytes == self.segment_bytes
    }

    /// Frees a segment, sets it aside, or removes it. A name that a crash brings back is a drained segment, and released
    /// again.
    pub(super) fn let_go(&mut self, lane: u16, segment: u64) -> Result<(), LogError> {
        let Some(held) = self.lanes.get(&lane).and_then(|held| held.segments.get(&segment)).copied() else {
            return Ok(());
        };
        let path = self.layout.segment(lane, segment);
        self.unsynced.insert(lane);
        if held.damaged {
            let target = self.set_aside_path(lane, segment)?;
            self.storage.rename(&path, &target).map_err(LogError::io("set aside", &path))?;
            self.total_bytes -= held.length_bytes;
            tracing::warn!(path = %target.display(), "a damaged segment was set aside");
        } else if self.is_of_use(held) {
            let target = self.new_free_path();
            self.storage.rename(&path, &target).map_err(LogError::io("free", &path))?;
            self.free.push(target);
        } else {
            match self.storage.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(LogError::io("remove", path)(error));
                }
                _ => self.total_bytes -= held.length_bytes,
            }
        }
        // Before a sync that may fail: the name is gone, and another attempt would not find it.
        if let Some(lane) = self.lanes.get_mut(&lane) {
            lane.segments.remove(&segment);
        }
        if held.damaged {
            let dir = self.layout.set_aside();
            self.storage.sync_dir(&dir).map_err(LogError::io("sync", &dir))?;
        }
        Ok(())
    }
}
