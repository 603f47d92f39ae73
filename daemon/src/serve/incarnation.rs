//! The incarnation of this start.

use super::ServeError;
use crate::{
    datadir::DataDir,
    ids,
    state::{
        incarnations::LogDirectory,
        log_identity::LogIdentity,
        mark::{LaneMark, Mark},
    },
};
use forebay_wal::log::Log;
use uuid::Uuid;

/// Begins an incarnation of the log. Nothing is pushed before it is written down: what a copy of the directory has is told by
/// where the incarnations begin.
pub(super) fn begin(log: &Log, data_dir: &DataDir) -> Result<LogIdentity, ServeError> {
    let lanes = log.all_lanes.iter().map(|lane| {
        let end = Mark { position: lane.shared.durable_end(), ordinal: lane.shared.durable_ordinal() };
        LaneMark::new(lane.lane, end)
    });
    let own = LogDirectory::on_this_host(data_dir.dir().path());
    LogIdentity::begin(data_dir.wal(), Uuid::from_bytes(log.id), ids::random(), lanes.collect(), own).map_err(|error| {
        ServeError::Storage(format!("the start cannot be written down in the log's directory: {error}"))
    })
}
