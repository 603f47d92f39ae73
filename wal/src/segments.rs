//! The life cycle of segments. A segment is made, or recycled, ahead of need. Once it is drained it is released: recycled,
//! or retained for a while first, or set aside if it is damaged. There are never more segments than the quota allows.
//!
//! One owner changes the log's directories, here, in an order that a crash may cut anywhere. A segment appears under its
//! name only when its zeros and its header are durable.

mod free_list;
mod lane_segments;

use self::{
    free_list::FreeList,
    lane_segments::{LaneSegments, SegmentState},
};
use crate::{
    error::{LogError, ignore},
    layout::Layout,
    limits::{BLOCK_BYTES, ROOM_PROBE_BYTES, SEGMENT_HEADER_BYTES},
    position::Position,
    recovery::{FoundSegment, RecoveredLane},
    segment::{SegmentHeader, file_name, lane_dir_name},
    storage::Storage,
};
use std::{
    collections::{BTreeSet, HashMap},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// File in the directory of free segments that is written to find out whether there is room.
const ROOM_PROBE_FILE: &str = "room.tmp";

/// Why a segment was not prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The quota is reached.
    #[error("the log's quota is reached")]
    Quota,
    /// An operation on a file failed.
    #[error(transparent)]
    Failed(#[from] LogError),
}

/// The segments of a log.
pub struct Segments<S> {
    storage: S,
    layout: Layout,
    segment_bytes: u64,
    quota_bytes: u64,
    total_bytes: u64,
    lanes: HashMap<u16, LaneSegments>,
    free: FreeList,
    /// How long drained segments are kept, if nothing else needs their room.
    retention: Duration,
    /// How many retained segments were released before their time.
    early_releases: u64,
    /// The segments, by lane and number, beside which a file says where they [end](crate::segment::end_name).
    ended: BTreeSet<(u16, u64)>,
    /// Lanes that a segment has left while their directory is not synced.
    unsynced_lanes: BTreeSet<u16>,
}

impl<S: Storage> Segments<S> {
    /// Takes over the directories below `layout`, with the lanes as they were recovered. Releases the segments that no lane
    /// can use.
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
            storage.create_dir(dir).map_err(LogError::io("create", dir))?;
        }
        let free = FreeList::load(&storage, &layout, segment_bytes)?;
        let mut segments = Self {
            storage,
            layout,
            segment_bytes,
            quota_bytes,
            total_bytes: free.len() as u64 * segment_bytes,
            lanes: HashMap::new(),
            free,
            retention: Duration::ZERO,
            early_releases: 0,
            ended: BTreeSet::new(),
            unsynced_lanes: BTreeSet::new(),
        };
        for lane in recovered {
            segments.add_lane(lane)?;
        }
        Ok(segments)
    }

    fn add_lane(&mut self, recovered: &RecoveredLane) -> Result<(), LogError> {
        let lane = recovered.lane;
        for found in &recovered.segments {
            self.add_found(lane, *found);
        }
        for &segment in &recovered.ended {
            match recovered.segments.iter().any(|found| found.segment == segment) {
                true => drop(self.ended.insert((lane, segment))),
                false => self.remove_end(lane, segment),
            }
        }
        // The tail behind a segment that was given up may have been made long before it: its header knows too little.
        let is_behind_end = recovered.ended.iter().any(|segment| segment + 1 == recovered.tail.segment);
        if recovered.tail_header.is_some() || is_behind_end {
            let last = recovered.segments.iter().rfind(|found| found.records > 0);
            self.lanes.entry(lane).or_default().pin_from(last.map(|found| found.segment));
        }
        for found in &recovered.unused {
            self.add_found(lane, *found);
            self.retire(lane, found.segment)?;
        }
        if !recovered.unused.is_empty() {
            self.sync_retired(lane)?;
        }
        Ok(())
    }

    fn add_found(&mut self, lane: u16, found: FoundSegment) {
        self.total_bytes += found.length_bytes;
        let state = SegmentState::new(found.length_bytes, found.damaged);
        self.lanes.entry(lane).or_default().insert(found.segment, state);
    }

    /// Bytes of all segments, including free ones.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Bytes of the drained segments that stay only for their retention.
    #[must_use]
    pub fn retained_bytes(&self) -> u64 {
        self.lanes.values().map(LaneSegments::retained_bytes).sum()
    }

    /// How many retained segments were released before their time because their room was needed.
    #[must_use]
    pub fn early_releases(&self) -> u64 {
        self.early_releases
    }

    /// Keeps segments that are drained from now on for `retention`, unless their room is needed earlier.
    pub fn set_retention(&mut self, retention: Duration) {
        self.retention = retention;
    }

    /// The log's paths.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What the log is stored on.
    pub(crate) fn storage(&self) -> &S {
        &self.storage
    }

    /// Makes the segment that `header` describes, unless it exists. Its data and its name are durable afterwards. A segment
    /// that was kept only until this one was made is released by the next call of [`release`](Self::release).
    ///
    /// # Errors
    /// See [`PrepareError`].
    pub fn prepare(&mut self, header: SegmentHeader) -> Result<(), PrepareError> {
        loop {
            let lane = self.lanes.entry(header.lane).or_default();
            if lane.get(header.segment).is_some() {
                // An earlier attempt made it, and could not open it.
                return Ok(());
            }
            // A drained segment that is kept only until this one is made does not count: else none could be made.
            let needed_bytes = (self.total_bytes + self.segment_bytes).saturating_sub(lane.superseded_bytes());
            let outcome = if self.free.len() == 0 && needed_bytes > self.quota_bytes {
                Err(PrepareError::Quota)
            } else {
                self.make(header).map_err(PrepareError::Failed)
            };
            // Retained segments make room before anything is refused.
            let has_made_room = match &outcome {
                Err(PrepareError::Quota) => self.release_oldest_retained()?,
                Err(PrepareError::Failed(error)) if error.is_no_room() => self.make_room()?,
                Err(PrepareError::Failed(_)) | Ok(()) => false,
            };
            if !has_made_room {
                return outcome;
            }
        }
    }

    /// Gives up what segment `at.segment` of `lane` holds from `at` on: the records there are refused. Afterwards it is
    /// durable that no reader returns them.
    ///
    /// # Errors
    /// [`LogError::Io`]. Nothing is certain then; try again.
    pub fn end_segment(&mut self, lane: u16, at: Position) -> Result<(), LogError> {
        self.with_room(|segments| {
            let (made, path) = (segments.free.new_path(), segments.layout.segment_end(lane, at.segment));
            let block = u64::from(at.offset) / BLOCK_BYTES as u64;
            let created = segments.storage.create_sparse(&made, block);
            created
                .and_then(|()| segments.storage.rename(&made, &path))
                .map_err(|error| segments.discard(&made, LogError::io("create", &path)(error)))?;
            segments.ended.insert((lane, at.segment));
            let lane_dir = segments.layout.lane(lane);
            segments.storage.sync_dir(&lane_dir).map_err(LogError::io("sync", lane_dir))
        })
    }

    /// Finds out whether the disk takes a write again. On a disk that copies on write, a segment that exists may lack room
    /// too.
    ///
    /// # Errors
    /// [`LogError::Io`]: it does not.
    pub fn probe_room(&mut self) -> Result<(), LogError> {
        self.with_room(|segments| {
            let path = segments.layout.free().join(ROOM_PROBE_FILE);
            // Not zeros: some file systems do not store them.
            let written = segments.storage.write_small(&path, &[0xa5; ROOM_PROBE_BYTES]);
            let outcome = written.map_err(LogError::io("write", &path));
            outcome.map_err(|error| segments.discard(&path, error))?;
            segments.storage.remove(&path).map_err(LogError::io("remove", &path))
        })
    }

    /// Repeats an operation that finds no room for as long as something can make room.
    fn with_room(&mut self, mut operation: impl FnMut(&mut Self) -> Result<(), LogError>) -> Result<(), LogError> {
        loop {
            match operation(self) {
                Err(error) if error.is_no_room() => {
                    if !self.make_room()? {
                        return Err(error);
                    }
                }
                outcome => return outcome,
            }
        }
    }

    /// Gives room back to the disk: deletes a free segment, or else releases a retained one. Returns whether there was one.
    ///
    /// Where writing to a free segment takes room, only its removal makes some.
    fn make_room(&mut self) -> Result<bool, LogError> {
        let Some(path) = self.free.pop() else { return self.release_oldest_retained() };
        match self.storage.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                self.free.push(path.clone());
                Err(LogError::io("remove", path)(error))
            }
            _ => {
                self.total_bytes -= self.segment_bytes;
                Ok(true)
            }
        }
    }

    /// Removes a file that could not be made. Returns the error that it was made with.
    fn discard(&self, path: &Path, error: LogError) -> LogError {
        ignore(self.storage.remove(path), "it was not made, or it is replaced or removed later");
        error
    }

    fn make(&mut self, header: SegmentHeader) -> Result<(), LogError> {
        while let Some(&lane) = self.unsynced_lanes.first() {
            self.sync_retired(lane)?;
        }
        let file = match self.free.pop() {
            Some(free) => self.recycle(free, header)?,
            None => self.create(header)?,
        };
        let path = self.layout.segment(header.lane, header.segment);
        if let Err(source) = self.storage.rename(&file, &path) {
            self.free.push(file);
            return Err(LogError::Io { action: "rename to", path, source });
        }
        let lane_dir = self.layout.lane(header.lane);
        if let Err(source) = self.storage.sync_dir(&lane_dir) {
            // The next attempt must rename it again: another sync of an unchanged directory may do nothing, and succeed. If
            // this rename fails, the next attempt replaces the file.
            match self.storage.rename(&path, &file) {
                Ok(()) => self.free.push(file),
                Err(_) => self.total_bytes -= self.segment_bytes,
            }
            return Err(LogError::Io { action: "sync", path: lane_dir, source });
        }
        let state = SegmentState::new(self.segment_bytes, false);
        self.lanes.entry(header.lane).or_default().insert_made(header.segment, state);
        Ok(())
    }

    /// Gives a free segment another header. Returns its path.
    fn recycle(&mut self, free: PathBuf, header: SegmentHeader) -> Result<PathBuf, LogError> {
        let block = SegmentHeader { zeroed: false, ..header }.encode();
        match self.storage.write_first_block(&free, &block) {
            Ok(()) => Ok(free),
            Err(source) => {
                self.free.push(free.clone());
                Err(LogError::Io { action: "write", path: free, source })
            }
        }
    }

    /// Creates a segment in the directory of free segments. Returns its path.
    fn create(&mut self, header: SegmentHeader) -> Result<PathBuf, LogError> {
        let path = self.free.new_path();
        let block: [u8; SEGMENT_HEADER_BYTES] = SegmentHeader { zeroed: true, ..header }.encode();
        if let Err(source) = self.storage.create_segment(&path, &block, self.segment_bytes) {
            // A part of a segment would take room for nothing.
            if let Err(error) = self.storage.remove(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "an unfinished segment could not be removed");
            }
            return Err(LogError::Io { action: "create", path, source });
        }
        self.total_bytes += self.segment_bytes;
        Ok(path)
    }

    /// Releases the segments of `lane` below segment `before`, and those below the `before` of earlier calls: all their
    /// records are drained. The segments that recovery needs stay until there is a later one. Returns how many were
    /// released.
    ///
    /// # Errors
    /// [`LogError::Io`]. Segments that were not released stay; the next call releases them.
    pub fn release(&mut self, lane: u16, before: u64) -> Result<usize, LogError> {
        let now = Instant::now();
        let retention = self.retention;
        self.lanes.entry(lane).or_default().mark_drained(before, retention, now);
        let mut count = 0;
        while let Some((segment, drained_at)) = self.lanes.get(&lane).and_then(LaneSegments::oldest_releasable) {
            if drained_at.is_some_and(|at| now.duration_since(at) < retention) {
                break;
            }
            self.retire(lane, segment)?;
            count += 1;
        }
        if self.unsynced_lanes.contains(&lane) {
            self.sync_retired(lane)?;
        }
        Ok(count)
    }

    /// When the retention of the next segment ends.
    #[must_use]
    pub fn next_release(&self) -> Option<Instant> {
        let oldest = self.lanes.values().filter_map(|lane| lane.oldest_releasable()?.1).min()?;
        oldest.checked_add(self.retention)
    }

    /// Releases the segments whose retention is over.
    ///
    /// # Errors
    /// As [`release`](Self::release).
    pub fn release_retained(&mut self) -> Result<(), LogError> {
        let lanes: Vec<u16> = self.lanes.keys().copied().collect();
        lanes.into_iter().try_for_each(|lane| self.release(lane, 0).map(drop))
    }

    /// Releases the segment that is retained for longest, before its time. Returns whether there was one.
    fn release_oldest_retained(&mut self) -> Result<bool, LogError> {
        let retained = self.lanes.iter().filter_map(|(&number, lane)| {
            let (segment, drained_at) = lane.oldest_releasable()?;
            Some((drained_at?, number, segment))
        });
        let Some((_, lane, segment)) = retained.min() else { return Ok(false) };
        self.retire(lane, segment)?;
        self.early_releases += 1;
        tracing::warn!(lane, segment, "a retained segment is released before its time: the log needs its room");
        self.sync_retired(lane)?;
        Ok(true)
    }

    /// Revokes the release of the segments of `lane` from segment `from` on. Returns whether all these segments still
    /// exist; if not, nothing has changed.
    pub fn revoke_release(&mut self, lane: u16, from: u64) -> bool {
        self.lanes.get_mut(&lane).is_some_and(|lane| lane.revoke_drained(from))
    }

    /// Marks a segment as damaged. Its release then sets it aside and does not recycle it.
    pub fn mark_damaged(&mut self, lane: u16, segment: u64) {
        if let Some(lane) = self.lanes.get_mut(&lane) {
            lane.mark_damaged(segment);
        }
    }

    /// Takes a segment out of its lane: frees it, sets it aside, or removes it. If a crash brings the name back, it names a
    /// drained segment, which is released again.
    fn retire(&mut self, lane: u16, segment: u64) -> Result<(), LogError> {
        let Some(state) = self.lanes.get(&lane).and_then(|lane| lane.get(segment)) else {
            unreachable!("only a segment of a lane is retired");
        };
        let path = self.layout.segment(lane, segment);
        self.unsynced_lanes.insert(lane);
        if state.is_damaged {
            let target = self.set_aside_path(lane, segment)?;
            self.storage.rename(&path, &target).map_err(LogError::io("set aside", &path))?;
            self.total_bytes -= state.length_bytes;
            tracing::warn!(path = %target.display(), "a damaged segment was set aside");
        } else if self.is_recyclable(state) {
            let target = self.free.new_path();
            self.storage.rename(&path, &target).map_err(LogError::io("free", &path))?;
            self.free.push(target);
        } else {
            match self.storage.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(LogError::io("remove", path)(error));
                }
                _ => self.total_bytes -= state.length_bytes,
            }
        }
        // Before what may fail: the name is gone, and another attempt would not find it.
        if let Some(lane) = self.lanes.get_mut(&lane) {
            lane.remove(segment);
        }
        // After the segment: without its end the segment would show what was refused.
        if self.ended.remove(&(lane, segment)) {
            self.remove_end(lane, segment);
        }
        if state.is_damaged {
            let dir = self.layout.set_aside();
            self.storage.sync_dir(&dir).map_err(LogError::io("sync", &dir))?;
        }
        Ok(())
    }

    /// Removes the file that says where a segment ends. The segment is gone.
    fn remove_end(&self, lane: u16, segment: u64) {
        let removed = self.storage.remove(&self.layout.segment_end(lane, segment));
        ignore(removed, "it says nothing without its segment, and the next start removes it");
    }

    /// Makes it durable that segments have left a lane. A freed file gets another header only afterwards: a crash must not
    /// bring that header back under the old name.
    fn sync_retired(&mut self, lane: u16) -> Result<(), LogError> {
        for dir in [self.layout.free(), self.layout.lane(lane)] {
            self.storage.sync_dir(&dir).map_err(LogError::io("sync", dir))?;
        }
        self.unsynced_lanes.remove(&lane);
        Ok(())
    }

    /// A path for a damaged segment that no file has: a segment of this number may have been set aside before.
    fn set_aside_path(&self, lane: u16, segment: u64) -> Result<PathBuf, LogError> {
        let dir = self.layout.set_aside();
        let existing = self.storage.list(&dir).map_err(LogError::io("list", &dir))?;
        let name = format!("{}-{}", lane_dir_name(lane), file_name(segment));
        let mut candidates = (0..).map(|copy| if copy == 0 { name.clone() } else { format!("{name}.{copy}") });
        let Some(name) = candidates.find(|candidate| !existing.contains(candidate)) else {
            unreachable!("a directory has finitely many names");
        };
        Ok(dir.join(name))
    }

    /// Whether a segment can become another one.
    fn is_recyclable(&self, state: SegmentState) -> bool {
        let has_room = self.free.has_room() && self.total_bytes <= self.quota_bytes;
        has_room && state.length_bytes == self.segment_bytes
    }
}
