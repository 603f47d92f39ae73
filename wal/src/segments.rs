//! The life of segments: made or recycled before they are needed, released once drained, set aside when damaged, and never
//! more of them than the quota allows.
//!
//! All operations on the log's directories happen here, by one owner, in an order that a crash may cut anywhere: a segment
//! appears under its name only when its zeros and its header are durable.

use crate::{
    error::LogError,
    layout::Layout,
    limits::{SEGMENT_HEADER_BYTES, SEGMENTS_FREE_MAX},
    recovery::{FoundSegment, RecoveredLane},
    segment::{SegmentHeader, file_name, lane_dir_name, parse_file_name},
    storage::Storage,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    path::PathBuf,
    time::{Duration, Instant},
};

/// Why a segment was not prepared.
#[derive(Debug)]
pub enum PrepareError {
    /// The quota is reached.
    Quota,
    /// The file system refused.
    Failed(LogError),
}

/// Which segments exist.
pub struct Segments<S> {
    storage: S,
    layout: Layout,
    segment_bytes: u64,
    quota_bytes: u64,
    total_bytes: u64,
    lanes: HashMap<u16, Held>,
    free: Vec<PathBuf>,
    names_made: u64,
    /// How long drained segments are kept, as long as there is room.
    retention: Duration,
    /// Retained segments that went early, for want of room.
    given_up: u64,
    /// Lanes that a segment left while it is not durable yet that it did.
    unsynced: BTreeSet<u16>,
}

/// What a lane has.
#[derive(Default)]
struct Held {
    segments: BTreeMap<u64, HeldSegment>,
    /// Segments below this one were drained.
    drained_below: u64,
    /// The segments from this one on stay until there is a newer one: here stands the last record that verifies.
    kept_from: Option<u64>,
}

#[derive(Clone, Copy)]
struct HeldSegment {
    length_bytes: u64,
    damaged: bool,
    /// When it was drained, if it is retained.
    drained_at: Option<Instant>,
}

impl Held {
    /// The oldest segment and since when it is retained, if it was drained and nothing is to be known by it any more. Where
    /// numbers and ordinals go on stands in the last segment's header and records, and behind a write that never finished in
    /// the records before it.
    fn dispensable(&self) -> Option<(u64, Option<Instant>)> {
        let (&first, held) = self.segments.first_key_value()?;
        (first < self.dispensable_below()).then_some((first, held.drained_at))
    }

    fn dispensable_below(&self) -> u64 {
        let last = self.segments.last_key_value().map_or(0, |(&last, _)| last);
        self.drained_below.min(self.kept_from.unwrap_or(last).min(last))
    }

    /// Bytes of drained segments; `retained`: of those that are kept for the time that was asked for, else of those that go
    /// as soon as there is a newer one.
    fn drained_bytes(&self, retained: bool) -> u64 {
        let below = self.dispensable_below();
        let is_retained = |segment: u64, held: &HeldSegment| segment < below && held.drained_at.is_some();
        let drained = self.segments.range(..self.drained_below);
        drained
            .filter(|(segment, held)| is_retained(**segment, held) == retained)
            .map(|(_, held)| held.length_bytes)
            .sum()
    }
}

impl<S: Storage> Segments<S> {
    /// Takes charge of the directories below `layout`, with the lanes as they were recovered. Segments that nothing can be
    /// done with are freed, or set aside if they are damaged.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn new(
        storage: S,
        layout: Layout,
        segment_bytes: u64,
        quota_bytes: u64,
        recovered: &[RecoveredLane],
    ) -> Result<Self, LogError> {
        let (free_dir, set_aside_dir) = (layout.free(), layout.set_aside());
        for dir in [&free_dir, &set_aside_dir] {
            storage.create_dir(dir).map_err(LogError::io("make", dir))?;
        }
        let mut segments = Self {
            storage,
            layout,
            segment_bytes,
            quota_bytes,
            total_bytes: 0,
            lanes: HashMap::new(),
            free: Vec::new(),
            names_made: 0,
            retention: Duration::ZERO,
            given_up: 0,
            unsynced: BTreeSet::new(),
        };
        segments.adopt_free()?;
        for lane in recovered {
            for found in &lane.segments {
                segments.hold(lane.lane, *found);
            }
            if lane.tail_header.is_some() {
                let last = lane.segments.iter().rfind(|found| found.records > 0);
                segments.lanes.entry(lane.lane).or_default().kept_from = last.map(|found| found.segment);
            }
            for found in &lane.unused {
                segments.hold(lane.lane, *found);
                segments.let_go(lane.lane, found.segment)?;
            }
            if !lane.unused.is_empty() {
                segments.sync_released(lane.lane)?;
            }
        }
        Ok(segments)
    }

    fn adopt_free(&mut self) -> Result<(), LogError> {
        let dir = self.layout.free();
        for name in self.storage.list(&dir).map_err(LogError::io("list", &dir))? {
            // A stranger's file is left alone.
            let Some(made) = parse_file_name(&name) else { continue };
            self.names_made = self.names_made.max(made);
            let path = dir.join(name);
            let (_, length) = self.storage.open(&path).map_err(LogError::io("open", &path))?;
            // One that a crash left half made, or of another size, is of no use.
            if length == self.segment_bytes && self.free.len() < SEGMENTS_FREE_MAX {
                self.total_bytes += length;
                self.free.push(path);
            } else {
                self.storage.remove(&path).map_err(LogError::io("remove", &path))?;
            }
        }
        Ok(())
    }

    fn hold(&mut self, lane: u16, found: FoundSegment) {
        self.total_bytes += found.length_bytes;
        let held = HeldSegment { length_bytes: found.length_bytes, damaged: found.damaged, drained_at: None };
        self.lanes.entry(lane).or_default().segments.insert(found.segment, held);
    }

    /// Bytes of all segments, free ones included.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Bytes of drained segments that are kept for a while.
    #[must_use]
    pub fn retained_bytes(&self) -> u64 {
        self.lanes.values().map(|held| held.drained_bytes(true)).sum()
    }

    /// How many retained segments went before their time, for want of room.
    #[must_use]
    pub fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Keeps segments that are drained from now on for `retention`, as long as nothing else needs the room.
    pub fn retain(&mut self, retention: Duration) {
        self.retention = retention;
    }

    /// The paths of the log.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Makes the segment that `header` describes; it is durable, name and all, when this returns. What it allows to be
    /// [released](Self::release) waits for the next call of that.
    ///
    /// # Errors
    /// See [`PrepareError`].
    pub fn prepare(&mut self, header: SegmentHeader) -> Result<(), PrepareError> {
        loop {
            let held = self.lanes.entry(header.lane).or_default();
            if held.segments.contains_key(&header.segment) {
                // Made before, and could not be opened then.
                return Ok(());
            }
            // What was drained, and is only kept for where the lane goes on, does not stand in the way of the next one.
            let held_back_bytes = held.drained_bytes(false);
            let needed_bytes = (self.total_bytes + self.segment_bytes).saturating_sub(held_back_bytes);
            let outcome = if self.free.is_empty() && needed_bytes > self.quota_bytes {
                Err(PrepareError::Quota)
            } else {
                self.make(header).map_err(PrepareError::Failed)
            };
            let lacks_room = match &outcome {
                Err(PrepareError::Quota) => true,
                Err(PrepareError::Failed(error)) => error.is_no_room(),
                Ok(()) => false,
            };
            // What is only retained makes room before anything is refused.
            if !lacks_room || !self.give_up_oldest().map_err(PrepareError::Failed)? {
                return outcome;
            }
        }
    }

    /// Lets go of the segment that is retained for longest. Returns whether there was one.
    fn give_up_oldest(&mut self) -> Result<bool, LogError> {
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

    fn make(&mut self, header: SegmentHeader) -> Result<(), LogError> {
        let lane_dir = self.layout.lane(header.lane);
        let path = self.layout.segment(header.lane, header.segment);
        while let Some(&lane) = self.unsynced.first() {
            self.sync_released(lane)?;
        }
        let made = match self.free.pop() {
            Some(free) => {
                let block = SegmentHeader { zeroed: false, ..header }.encode();
                if let Err(source) = self.storage.write_first_block(&free, &block) {
                    self.free.push(free.clone());
                    return Err(LogError::io("write", free)(source));
                }
                free
            }
            None => {
                let new = self.new_free_path();
                let block: [u8; SEGMENT_HEADER_BYTES] = SegmentHeader { zeroed: true, ..header }.encode();
                self.storage.create_segment(&new, &block, self.segment_bytes).map_err(|source| {
                    // What was made of it so far would fill the disk up for nothing.
                    if let Err(error) = self.storage.remove(&new)
                        && error.kind() != io::ErrorKind::NotFound
                    {
                        tracing::warn!(path = %new.display(), %error, "an unfinished segment could not be removed");
                    }
                    LogError::Io { what: "make", path: new.clone(), source }
                })?;
                self.total_bytes += self.segment_bytes;
                new
            }
        };
        if let Err(source) = self.storage.rename(&made, &path) {
            self.free.push(made);
            return Err(LogError::Io { what: "rename to", path, source });
        }
        if let Err(source) = self.storage.sync_dir(&lane_dir) {
            // Renamed once more by the next attempt: another sync of a name that did not change may do nothing, and
            // succeed. If it cannot be taken back, the next attempt replaces it.
            match self.storage.rename(&path, &made) {
                Ok(()) => self.free.push(made),
                Err(_) => self.total_bytes -= self.segment_bytes,
            }
            return Err(LogError::Io { what: "sync", path: lane_dir, source });
        }
        let held = HeldSegment { length_bytes: self.segment_bytes, damaged: false, drained_at: None };
        let lane = self.lanes.entry(header.lane).or_default();
        lane.segments.insert(header.segment, held);
        lane.kept_from = None;
        Ok(())
    }

    /// Notes that something in a segment does not verify, so that it is set aside rather than recycled.
    pub fn mark_damaged(&mut self, lane: u16, segment: u64) {
        if let Some(held) = self.lanes.get_mut(&lane).and_then(|held| held.segments.get_mut(&segment)) {
            held.damaged = true;
        }
    }

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
    fn sync_released(&mut self, lane: u16) -> Result<(), LogError> {
        for dir in [self.layout.free(), self.layout.lane(lane)] {
            self.storage.sync_dir(&dir).map_err(LogError::io("sync", dir))?;
        }
        self.unsynced.remove(&lane);
        Ok(())
    }

    /// A name in the directory of free segments that no other file has, or had in this life.
    fn new_free_path(&mut self) -> PathBuf {
        self.names_made += 1;
        self.layout.free().join(file_name(self.names_made))
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
    fn let_go(&mut self, lane: u16, segment: u64) -> Result<(), LogError> {
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
