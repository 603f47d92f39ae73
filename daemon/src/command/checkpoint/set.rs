//! `checkpoint set`: by the running daemon, or else by the command itself.

use super::state::LogState;
use crate::{
    command::{Exit, control::ask, database::with_database, print::print},
    config::{Config, PostgresTarget},
    control::{ControlReply, ControlRequest},
    datadir::{DataDir, is_in_use},
    drain::checkpoint::decision::decide,
    ids,
    state::place::Place,
};

pub(super) fn run(config: &Config, to: Place, yes: bool) -> Result<(), Exit> {
    if !yes {
        return Err(Exit::usage(
            "this decides what is delivered and what is not, and cannot be taken back: see `forebay checkpoint show`, \
             then say --yes",
        ));
    }
    if !config.data_dir.is_dir() {
        return Err(Exit::usage(format!("there is no data directory {}", config.data_dir.display())));
    }
    let reply = match is_in_use(&config.data_dir) {
        true => ask(&config.data_dir, &ControlRequest::CheckpointSet { to })?,
        false => by_command(config, to)?,
    };
    let (lanes, doubtful) = match reply {
        ControlReply::Decided { lanes, doubtful, .. } => (lanes, doubtful),
        ControlReply::Refused { error, exit } => return Err(Exit { code: exit, message: error }),
    };
    print(|out| {
        lanes.iter().try_for_each(|lane| writeln!(out, "{lane}"))?;
        match doubtful {
            0 => Ok(()),
            doubtful => writeln!(
                out,
                "how far the drain was is known only from wal/drained, which may lag behind: up to {doubtful} records may come twice, \
                 unless they have a transaction id"
            ),
        }
    })
}

/// The daemon is stopped: the data directory is locked for the duration.
fn by_command(config: &Config, to: Place) -> Result<ControlReply, Exit> {
    let data_dir = DataDir::open(&config.data_dir, matches!(config.postgres, PostgresTarget::Embedded))?;
    let mut log = LogState::read(data_dir.dir().path())?;
    log.begin_incarnation()?;
    let decided = with_database(config, Some(&data_dir), async |mut conn| {
        Ok(decide(&mut conn, &config.schema, config.migrate, &log.places, to, ids::random()).await?)
    })?;
    let written = decided.remembered.write(data_dir.wal());
    written.map_err(|error| Exit::storage(format!("the decision cannot be remembered: {error}")))?;
    Ok(ControlReply::decided(&decided))
}
