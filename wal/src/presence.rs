//! Whether an open log is still where it was: nobody removed or replaced its directories, nor removed, replaced or truncated the
//! segments that are written.
//!
//! A process can go on writing to a file that no name leads to any more. What it writes there is lost with the process.

use crate::{error::LogError, lane::LaneShared, layout::Layout, log::Log, position::Position};
use rustix::{fs::Stat, io::Errno};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Which file or directory a name led to.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(path: &Path) -> rustix::io::Result<Self> {
        let Stat { st_dev, st_ino, .. } = rustix::fs::lstat(path)?;
        Ok(Self { device: st_dev, inode: st_ino })
    }
}

/// A segment when it was looked at for the first time.
#[derive(Clone, Copy)]
struct KnownSegment {
    segment: u64,
    identity: Identity,
    /// In bytes. A segment has all its bytes before it is written.
    length: i64,
}

impl KnownSegment {
    fn look(path: &Path, segment: u64) -> rustix::io::Result<Self> {
        let Stat { st_dev, st_ino, st_size, .. } = rustix::fs::lstat(path)?;
        Ok(Self { segment, identity: Identity { device: st_dev, inode: st_ino }, length: st_size })
    }

    /// Whether `path` certainly leads elsewhere, or nowhere, or to fewer bytes than there were, or than `durable`.
    fn is_gone(&self, path: &Path, durable: u32) -> bool {
        match Self::look(path, self.segment) {
            Ok(now) => now.identity != self.identity || now.length < self.length.max(durable.into()),
            Err(error) => says_missing(error),
        }
    }
}

/// A lane that is written, and its segment when it was looked at last.
struct WrittenLane {
    shared: Arc<LaneShared>,
    segment: Option<KnownSegment>,
}

/// The directories and files of an open log.
pub struct Presence {
    layout: Layout,
    dirs: Vec<(PathBuf, Identity)>,
    lanes: Vec<WrittenLane>,
}

impl Presence {
    /// Those of `log`, which was just opened, and the directories in `others`.
    ///
    /// # Errors
    /// [`LogError::Io`] if one of them cannot be looked at.
    pub fn new(log: &Log, others: &[PathBuf]) -> Result<Self, LogError> {
        let written: Vec<u16> = log.lanes.iter().map(|lane| lane.lane()).collect();
        let of_lanes = written.iter().map(|lane| log.layout.lane(*lane));
        let dirs = others.iter().cloned().chain([log.layout.root().to_path_buf()]).chain(of_lanes);
        let identified = dirs.map(|path| match Identity::of(&path) {
            Ok(identity) => Ok((path, identity)),
            Err(error) => Err(LogError::io("look at", path)(error.into())),
        });
        let lanes = log.all_lanes.iter().filter(|info| written.contains(&info.lane));
        Ok(Self {
            layout: log.layout.clone(),
            dirs: identified.collect::<Result<_, _>>()?,
            lanes: lanes.map(|info| WrittenLane::new(Arc::clone(&info.shared), &log.layout)).collect(),
        })
    }

    /// Looks whether all is still there.
    ///
    /// # Errors
    /// [`LogError::Replaced`] if something is not, or another file has its name. An error of the file system that says neither
    /// is no evidence, and passed over: a write will fail if the disk is gone.
    pub fn check(&mut self) -> Result<(), LogError> {
        for (path, identity) in &self.dirs {
            if is_other(path, *identity) {
                return Err(LogError::Replaced { path: path.clone() });
            }
        }
        self.lanes.iter_mut().try_for_each(|lane| lane.check(&self.layout))
    }
}

impl WrittenLane {
    fn new(shared: Arc<LaneShared>, layout: &Layout) -> Self {
        let segment = shared.durable_end().segment;
        // It may be missing for lack of room; then nothing is written.
        let segment = KnownSegment::look(&layout.segment(shared.lane(), segment), segment).ok();
        Self { shared, segment }
    }

    fn check(&mut self, layout: &Layout) -> Result<(), LogError> {
        let Position { segment, offset } = self.shared.durable_end();
        let path = layout.segment(self.shared.lane(), segment);
        let is_gone = match self.segment {
            Some(known) if known.segment == segment => known.is_gone(&path, offset),
            known => match KnownSegment::look(&path, segment) {
                Ok(found) => {
                    self.segment = Some(found);
                    found.length < offset.into()
                }
                // The lane has gone on to it, so it was there.
                Err(error) => known.is_some() && says_missing(error),
            },
        };
        // The drain may release a segment as soon as the lane writes to the next one.
        if is_gone && self.shared.durable_end().segment == segment {
            return Err(LogError::Replaced { path });
        }
        Ok(())
    }
}

/// Whether `path` certainly leads elsewhere, or nowhere.
fn is_other(path: &Path, known: Identity) -> bool {
    match Identity::of(path) {
        Ok(identity) => identity != known,
        Err(error) => says_missing(error),
    }
}

fn says_missing(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::NOTDIR)
}
