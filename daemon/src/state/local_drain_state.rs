//! What the data directory remembers of the drain, beside the checkpoint in PostgreSQL: how far it was known to be, and in
//! which database. A database that went back in time, or is another one, is told by it.
//!
//! `wal/drained` has a line of JSON and a line with its checksum. It is written after commits, when a segment is drained and
//! when nothing is to be done: so it is never ahead of what was committed, and mostly close behind. Nothing is lost where it
//! is missing or damaged but that knowledge.

use super::lane_progress::LaneProgress;
use super::{
    database_id::{DatabaseId, ServerPlace},
    mark::Mark,
};
use forebay_wal::position::Position;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};
use uuid::Uuid;

/// Name of the file below the log's directory.
const FILE: &str = "drained";

/// What is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalDrainState {
    /// The log.
    pub log_id: Uuid,
    /// The database that the log was drained into, where that could be told.
    pub database: Option<DatabaseId>,
    /// Where its server stood then.
    pub server: Option<ServerPlace>,
    /// How far each lane was drained.
    pub lanes: Vec<DrainedLane>,
}

/// How far a lane was drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainedLane {
    /// The lane.
    pub lane: u16,
    /// Segment …
    pub segment: u64,
    /// … and offset behind which nothing was drained.
    pub offset: u32,
    /// Ordinal behind the last record that was.
    pub ordinal: u64,
}

impl DrainedLane {
    /// How far a lane is drained now.
    pub(crate) fn of(progress: &LaneProgress) -> Self {
        let mark = Mark { position: progress.drained(), ordinal: progress.drained_ordinal() };
        Self::at(progress.lane.lane(), mark)
    }

    /// A lane that is drained up to `mark`.
    #[must_use]
    pub fn at(lane: u16, mark: Mark) -> Self {
        let Position { segment, offset } = mark.position;
        Self { lane, segment, offset, ordinal: mark.ordinal }
    }

    /// As a mark.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark { position: Position { segment: self.segment, offset: self.offset }, ordinal: self.ordinal }
    }
}

impl LocalDrainState {
    /// Reads what the log in `wal_dir` remembers; `None` if there is nothing, or nothing that is whole and this log's.
    #[must_use]
    pub fn read(wal_dir: &Path, log_id: [u8; 16]) -> Option<Self> {
        let path = wal_dir.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "how far the log was drained is not remembered");
                return None;
            }
        };
        let remembered = parse(&text).filter(|remembered| remembered.log_id.into_bytes() == log_id);
        if remembered.is_none() {
            tracing::warn!(path = %path.display(), "the file is damaged, or another log's: it is left out of account");
        }
        remembered
    }

    /// Writes it, durably, in place of what was remembered before.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, wal_dir: &Path) -> io::Result<()> {
        let path = wal_dir.join(FILE);
        let temporary = path.with_extension("tmp");
        let line = serde_json::to_string(self)?;
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(format!("{line}\n{}\n", checksum(&line)).as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(wal_dir)?.sync_all()
    }

    /// What is remembered of a lane.
    #[must_use]
    pub fn lane(&self, lane: u16) -> Option<Mark> {
        self.lanes.iter().find(|remembered| remembered.lane == lane).map(DrainedLane::mark)
    }
}

fn parse(text: &str) -> Option<LocalDrainState> {
    let (line, rest) = text.split_once('\n')?;
    (rest.strip_suffix('\n')? == checksum(line)).then(|| serde_json::from_str(line).ok()).flatten()
}

fn checksum(line: &str) -> String {
    const SHOWN_CHARS: usize = 16;
    let mut hex = blake3::hash(line.as_bytes()).to_hex().to_string();
    hex.truncate(SHOWN_CHARS);
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written_and_not_at_all_when_damaged_or_another_log_s() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(LocalDrainState::read(dir.path(), [7; 16]), None);
        let remembered = LocalDrainState {
            log_id: Uuid::from_bytes([7; 16]),
            database: Some(DatabaseId { system_identifier: -5, oid: 16_384 }),
            server: Some(ServerPlace { timeline: 2, lsn: u64::MAX }),
            lanes: vec![DrainedLane { lane: 1, segment: 9, offset: 4096, ordinal: 77 }],
        };
        remembered.write(dir.path()).unwrap();
        remembered.write(dir.path()).unwrap();
        assert_eq!(LocalDrainState::read(dir.path(), [7; 16]).as_ref(), Some(&remembered));
        let mark = Mark { position: Position { segment: 9, offset: 4096 }, ordinal: 77 };
        assert_eq!((remembered.lane(1), remembered.lane(0)), (Some(mark), None));
        assert_eq!(LocalDrainState::read(dir.path(), [8; 16]), None);
        let path = dir.path().join(FILE);
        let text = fs::read_to_string(&path).unwrap().replace("77", "78");
        fs::write(&path, text).unwrap();
        assert_eq!(LocalDrainState::read(dir.path(), [7; 16]), None);
    }
}
