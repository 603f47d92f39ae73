//! `checkpoint show`.

use super::state::LogState;
use crate::{
    command::{
        Exit,
        database::{postgres, with_database},
        print::{print, print_json},
    },
    config::Config,
    drain::checkpoint::{
        checkpoint_match::{CheckpointMismatch, LaneView},
        database_state::DatabaseState,
    },
    postgres::schema,
    state::mark::Mark,
};
use forebay_wal::position::Position;
use serde_json::{Value, json};
use std::io::{self, Write};

pub(super) fn run(config: &Config, as_json: bool) -> Result<(), Exit> {
    let log = LogState::read(&config.data_dir)?;
    let database = with_database(config, None, async |mut conn| {
        DatabaseState::read(&mut conn, &config.schema, log.places.log_id()).await.map_err(postgres)
    })?;
    let verdict = log.judge(&database);
    print(|out| match as_json {
        true => print_json(out, &object(&log, &database, &verdict)),
        false => text(out, &log, &database, &verdict),
    })?;
    if verdict.is_err() { Err(Exit::findings()) } else { Ok(()) }
}

fn object(log: &LogState, database: &DatabaseState, verdict: &Result<(), CheckpointMismatch>) -> Value {
    let mark =
        |mark: Mark| json!({"segment": mark.position.segment, "offset": mark.position.offset, "ordinal": mark.ordinal});
    let lanes = log.places.lanes.iter().zip(&log.places.ends).map(|(view, end)| {
        let LaneView { lane, oldest, drained, .. } = *view;
        json!({"lane": lane, "oldest": mark(oldest), "rememberedDrained": mark(drained), "end": mark(*end)})
    });
    let checkpoints = database.rows.iter().map(|(drainer, row)| {
        let lanes = row.checkpoint.marks().map(|(lane, Mark { position, ordinal })| {
            let Position { segment, offset } = position;
            json!({"lane": lane, "segment": segment, "offset": offset, "ordinal": ordinal})
        });
        json!({"drainer": drainer, "incarnation": row.incarnation, "lanes": lanes.collect::<Vec<_>>()})
    });
    json!({
        "logId": log.places.log_id(),
        "incarnation": log.places.incarnations.list.last().map(|last| last.id),
        "owner": database.owner,
        "lanes": lanes.collect::<Vec<_>>(),
        "rememberedDatabase": log.remembered.as_ref().and_then(|remembered| remembered.database),
        "rememberedServer": log.remembered.as_ref().and_then(|remembered| remembered.server),
        "database": database.id,
        "schemaVersion": database.schema_version,
        "checkpointDatabase": database.row_database,
        "checkpoints": checkpoints.collect::<Vec<_>>(),
        "fits": verdict.is_ok(),
        "mismatch": verdict.as_ref().err().map(ToString::to_string),
    })
}

fn text(
    out: &mut dyn Write,
    log: &LogState,
    database: &DatabaseState,
    verdict: &Result<(), CheckpointMismatch>,
) -> io::Result<()> {
    let known =
        |known: Option<&dyn std::fmt::Display>| known.map_or_else(|| "not known".to_owned(), ToString::to_string);
    writeln!(out, "log {}", log.places.log_id())?;
    let incarnation = log.places.incarnations.list.last().map(|last| last.id);
    writeln!(out, "  its last incarnation is {}", known(incarnation.as_ref().map(|id| id as _)))?;
    for (view, end) in log.places.lanes.iter().zip(&log.places.ends) {
        let LaneView { lane, oldest, drained, .. } = view;
        writeln!(
            out,
            "  lane {lane}: from {} (record {}) to {} (record {})",
            oldest.position, oldest.ordinal, end.position, end.ordinal
        )?;
        writeln!(out, "    remembered as drained to {} (record {})", drained.position, drained.ordinal)?;
    }
    let remembered = log.remembered.as_ref();
    let drained_into = remembered.and_then(|remembered| remembered.database);
    writeln!(out, "  drained into {}", known(drained_into.as_ref().map(|id| id as _)))?;
    let server = remembered.and_then(|remembered| remembered.server);
    writeln!(out, "    whose server stood at {}", known(server.as_ref().map(|server| server as _)))?;
    writeln!(out, "database: {}", known(database.id.as_ref().map(|id| id as _)))?;
    if database.schema_version != schema::VERSION {
        writeln!(out, "  its schema has version {}, this release knows {}", database.schema_version, schema::VERSION)?;
    }
    if database.rows.is_empty() {
        writeln!(out, "  no checkpoint of this log")?;
    }
    for (drainer, row) in &database.rows {
        let name = known(row.incarnation.as_ref().map(|id| id as _));
        writeln!(out, "  checkpoint of drainer {drainer}, of the incarnation {name}:")?;
        for (lane, Mark { position, ordinal }) in row.checkpoint.marks() {
            writeln!(out, "    lane {lane}: {position} (record {ordinal})")?;
        }
    }
    if let Some(owner) = &database.owner {
        writeln!(out, "  taken last by {owner}")?;
    }
    match verdict {
        Ok(()) => writeln!(out, "they fit"),
        Err(what @ CheckpointMismatch::Copied { .. }) => {
            writeln!(out, "they do not fit: {what}")?;
            writeln!(out, "to decide, unless this directory took no push and can be deleted:")?;
            writeln!(
                out,
                "  forebay wal fork  gives this log an id of its own, and delivers what only this directory has"
            )
        }
        Err(what) => {
            writeln!(out, "they do not fit: {what}")?;
            let records = |from: &dyn Fn(usize) -> u64| {
                log.places
                    .ends
                    .iter()
                    .enumerate()
                    .map(|(index, end)| end.ordinal.saturating_sub(from(index)))
                    .sum::<u64>()
            };
            let all = records(&|index| log.places.lanes[index].start().ordinal);
            writeln!(
                out,
                "to decide if neither can be brought back to where it was; a running daemon goes on at once:"
            )?;
            writeln!(
                out,
                "  forebay checkpoint set --to log-oldest --yes  delivers all {all} records of the log; those that the database \
                 has come twice, unless they have a transaction id"
            )?;
            writeln!(out, "  forebay checkpoint set --to log-end --yes     delivers none of them")?;
            if log.places.mismatch_point.is_some() {
                writeln!(
                    out,
                    "  forebay checkpoint set --to mismatch --yes    goes on where the drain was, as the checkpoint or \
                     wal/drained says, and delivers what is not delivered yet"
                )?;
            }
            if !database.rows.is_empty() && log.places.judge(database).is_ok() {
                writeln!(
                    out,
                    "  forebay checkpoint set --to database --yes    goes on where the checkpoint says: right where the database \
                     was moved with all that it had"
                )?;
            }
            Ok(())
        }
    }
}
