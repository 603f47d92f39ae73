//! What is said over the socket: a request and its reply, each a line of JSON.

use crate::{
    drain::checkpoint::decision::Decided,
    state::{
        mark::{LaneMark, Mark},
        place::{Common, Place},
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    fmt,
    io::{self, BufRead, BufReader, Read, Write},
};
use uuid::Uuid;

/// Longest line in bytes. A request has a few dozen; a reply has a hundred for each lane.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// What a command asks of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ControlRequest {
    /// `checkpoint set`: the drain continues at `to`.
    CheckpointSet {
        /// Where.
        to: Place,
    },
    /// `wal fork`: the log gets an id of its own.
    WalFork {
        /// What becomes of records that other directories have too.
        common: Option<Common>,
    },
}

/// What the daemon says to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum ControlReply {
    /// The drain continues there.
    Decided {
        /// Every lane of the log.
        lanes: Vec<DecidedLane>,
        /// The id under which PostgreSQL knows the log.
        log_id: Uuid,
        /// Records that are left to another data directory.
        left: u64,
        /// Records that are delivered and may be in PostgreSQL already.
        doubtful: u64,
    },
    /// It was not done.
    Refused {
        /// Why.
        error: String,
        /// The exit code of the command.
        exit: u8,
    },
}

impl ControlReply {
    /// What was decided.
    #[must_use]
    pub fn decided(decided: &Decided) -> Self {
        let Decided { remembered, left, doubtful, .. } = decided;
        let lanes = remembered.lanes.iter().map(DecidedLane::from).collect();
        Self::Decided { lanes, log_id: remembered.log_id, left: *left, doubtful: *doubtful }
    }
}

/// Where the drain continues in a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DecidedLane(LaneMark);

impl From<&LaneMark> for DecidedLane {
    fn from(lane: &LaneMark) -> Self {
        Self(*lane)
    }
}

impl fmt::Display for DecidedLane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mark { position, ordinal } = self.0.mark();
        write!(f, "lane {}: goes on at {position} (record {ordinal})", self.0.lane)
    }
}

/// Writes `value` as a line.
///
/// # Errors
/// Those of the connection.
pub(super) fn write_line(mut to: impl Write, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// Reads a line.
///
/// # Errors
/// Those of the connection; `InvalidData` for what is no such line.
pub(super) fn read_line<T: DeserializeOwned>(from: impl Read) -> io::Result<T> {
    let mut line = Vec::new();
    BufReader::new(from.take(LINE_BYTES_MAX)).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the line has no end"));
    }
    Ok(serde_json::from_slice(&line)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_replies_are_lines_of_json() {
        let request = ControlRequest::CheckpointSet { to: Place::LogOldest };
        let mut line = Vec::new();
        write_line(&mut line, &request).unwrap();
        assert_eq!(String::from_utf8_lossy(&line), "{\"command\":\"checkpoint-set\",\"to\":\"log-oldest\"}\n");
        assert_eq!(read_line::<ControlRequest>(&line[..]).unwrap(), request);
        for strange in ["", "{}\n", "{\"command\":\"checkpoint-set\",\"to\":\"database\"}", "{\"command\":\"stop\"}\n"]
        {
            assert!(read_line::<ControlRequest>(strange.as_bytes()).is_err(), "{strange:?}");
        }
        let endless = read_line::<ControlRequest>(io::repeat(b'x'));
        assert_eq!(endless.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
