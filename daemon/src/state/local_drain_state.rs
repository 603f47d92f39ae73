//! What the data directory remembers of the drain, beside the checkpoint in PostgreSQL: how far it was known to be, and in
//! which database. A database that went back in time, or is another one, is told by it.
//!
//! `wal/drained` has a line of JSON and a line with its checksum. It is written after commits, when a segment is drained and
//! when nothing is to be done: so it is never ahead of what was committed, and mostly close behind. Nothing is lost where it
//! is missing or damaged but that knowledge.

use super::{
    checked_file,
    database_id::{DatabaseId, ServerPlace},
    mark::{LaneMark, Mark},
};
use forebay_os::dir::Dir;
use serde::{Deserialize, Serialize};
use std::io;
use uuid::Uuid;

/// Name of the file below the log's directory.
const FILE: &str = "drained";

/// Bytes of the file that are read: a log has at most 65,535 lanes, each of which takes less than 100 bytes.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// What is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalDrainState {
    /// Id under which PostgreSQL knows the log.
    pub log_id: Uuid,
    /// The database that the log was drained into, where that could be told.
    pub database: Option<DatabaseId>,
    /// Where its server stood then.
    pub server: Option<ServerPlace>,
    /// How far each lane was drained.
    pub lanes: Vec<LaneMark>,
}

impl LocalDrainState {
    /// Reads what the log in `wal` remembers; `None` if there is nothing, or nothing that is whole and this log's.
    #[must_use]
    pub fn read(wal: &Dir, log_id: [u8; 16]) -> Option<Self> {
        let path = wal.path().join(FILE);
        let text = match wal.read_text(FILE, FILE_BYTES_MAX) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "how far the log was drained is not remembered");
                return None;
            }
        };
        let remembered =
            checked_file::parse(&text).filter(|remembered: &Self| remembered.log_id.into_bytes() == log_id);
        if remembered.is_none() {
            tracing::warn!(path = %path.display(), "the file is damaged, or another log's: it is left out of account");
        }
        remembered
    }

    /// Writes it, durably, in place of what was remembered before.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, wal: &Dir) -> io::Result<()> {
        wal.write_whole(FILE, checked_file::render(self)?.as_bytes())
    }

    /// What is remembered of a lane.
    #[must_use]
    pub fn lane(&self, lane: u16) -> Option<Mark> {
        LaneMark::find(&self.lanes, lane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_wal::position::Position;

    #[test]
    fn it_is_read_as_it_was_written_and_not_at_all_when_damaged_or_another_log_s() {
        let dir = tempfile::tempdir().unwrap();
        let wal = Dir::open(dir.path()).unwrap();
        assert_eq!(LocalDrainState::read(&wal, [7; 16]), None);
        let remembered = LocalDrainState {
            log_id: Uuid::from_bytes([7; 16]),
            database: Some(DatabaseId { system_identifier: -5, oid: 16_384 }),
            server: Some(ServerPlace { timeline: 2, lsn: u64::MAX }),
            lanes: vec![LaneMark { lane: 1, segment: 9, offset: 4096, ordinal: 77 }],
        };
        remembered.write(&wal).unwrap();
        remembered.write(&wal).unwrap();
        assert_eq!(LocalDrainState::read(&wal, [7; 16]).as_ref(), Some(&remembered));
        let mark = Mark { position: Position { segment: 9, offset: 4096 }, ordinal: 77 };
        assert_eq!((remembered.lane(1), remembered.lane(0)), (Some(mark), None));
        assert_eq!(LocalDrainState::read(&wal, [8; 16]), None);
        let path = dir.path().join(FILE);
        let text = std::fs::read_to_string(&path).unwrap().replace("77", "78");
        std::fs::write(&path, text).unwrap();
        assert_eq!(LocalDrainState::read(&wal, [7; 16]), None);
    }
}
