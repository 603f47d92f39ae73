//! The life of segments: made or recycled before they are needed, released once drained, set aside when damaged, and never
//! more of them than the quota allows.
//!
//! All operations on the log's directories happen here, by one owner, in an order that a crash may cut anywhere: a segment
//! appears under its name only when its zeros and its header are durable.

mod held;
mod release;

use self::held::{Held, HeldSegment};
use crate::{
    error::LogError,
    layout::Layout,
    limits::{SEGMENT_HEADER_BYTES, SEGMENTS_FREE_MAX},
    recovery::{FoundSegment, RecoveredLane},
    segment::{SegmentHeader, file_name, parse_file_name},
    storage::Storage,
};
use std::{
    collections::{BTreeSet, HashMap},
    io,
    path::PathBuf,
    time::Duration,
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

    /// A name in the directory of free segments that no other file has, or had in this life.
    fn new_free_path(&mut self) -> PathBuf {
        self.names_made += 1;
        self.layout.free().join(file_name(self.names_made))
    }
}
