//! `wal fork`: gives a copied log an id of its own, by the running daemon, or else by the command itself.

use crate::{
    command::{Exit, checkpoint::state::LogState, control::ask, database::with_database, print::print},
    config::{Config, PostgresTarget},
    control::{ControlReply, ControlRequest},
    datadir::{DataDir, is_in_use},
    drain::checkpoint::fork::fork,
    ids,
    state::{incarnations::Incarnations, place::Common},
};

pub(super) fn run(config: &Config, common: Option<Common>) -> Result<(), Exit> {
    if !config.data_dir.is_dir() {
        return Err(Exit::usage(format!("there is no data directory {}", config.data_dir.display())));
    }
    let reply = match is_in_use(&config.data_dir) {
        true => ask(&config.data_dir, &ControlRequest::WalFork { common })?,
        false => by_command(config, common)?,
    };
    let (lanes, log_id, left) = match reply {
        ControlReply::Decided { lanes, log_id, left, .. } => (lanes, log_id, left),
        ControlReply::Refused { error, exit } => return Err(Exit { code: exit, message: error }),
    };
    print(|out| {
        writeln!(out, "PostgreSQL knows this log as {log_id} from now on")?;
        lanes.iter().try_for_each(|lane| writeln!(out, "{lane}"))?;
        match left {
            0 => Ok(()),
            left => writeln!(out, "{left} records from before the copy are left to the other data directory"),
        }
    })
}

/// The daemon is stopped: the data directory is locked for the duration.
fn by_command(config: &Config, common: Option<Common>) -> Result<ControlReply, Exit> {
    let data_dir = DataDir::open(&config.data_dir, matches!(config.postgres, PostgresTarget::Embedded))?;
    let mut log = LogState::read(data_dir.dir().path())?;
    log.begin_incarnation()?;
    let wal_dir = data_dir.wal();
    let write = |content: &Incarnations| content.write(wal_dir);
    let decided = with_database(config, Some(&data_dir), async |mut conn| {
        let schema = (config.schema.as_str(), config.migrate);
        Ok(fork(&mut conn, schema, &log.places, common, ids::random(), write).await?)
    })?;
    let written = decided.remembered.write(wal_dir);
    written.map_err(|error| Exit::storage(format!("how far the log is drained cannot be written: {error}")))?;
    Ok(ControlReply::decided(&decided))
}
