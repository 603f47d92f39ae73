//! How many drainers there are: as many as are configured, unless their checkpoints say otherwise.
//!
//! A checkpoint says how far one drainer is with its partitions, and which partitions those are depends on the number of
//! drainers. So the number changes only at a start at which all drainers are equally far: after every orderly shutdown, and
//! shortly after the last message. Otherwise it stays what it was, with a line in the log.

use super::{ownership::Ownership, session_error::SessionError};
use crate::{
    drain::{
        checkpoint::{
            checkpoint_match::CheckpointMismatch,
            checkpoint_store::CheckpointStore,
            lane_views::{rewind, set_drained},
            row::CheckpointRow,
        },
        round::dead_letter_keeper::DeadLetterKeeper,
    },
    state::log_view::LogView,
};
use forebay_pgwire::Connection;

/// Finds out how many drainers there are and how far each is, and takes their checkpoints. Takes back from the log what a database that went back in time
/// lost. No drainer is at work yet.
///
/// # Errors
/// [`SessionError::Checkpoint`] if a checkpoint does not fit the log; else those of PostgreSQL.
pub(super) async fn plan(
    conn: &mut Connection,
    store: &CheckpointStore,
    ownership: &Ownership,
    letters: &DeadLetterKeeper,
    log: &LogView,
    wanted: usize,
) -> Result<usize, SessionError> {
    let mut rows = store.lock_all(conn).await?;
    if rows.is_empty() {
        set_drainers(log, wanted);
        return Ok(wanted);
    }
    if let Some(drainer) = (0..rows.len()).find(|drainer| rows[*drainer].0 != *drainer as i32) {
        return Err(CheckpointMismatch::DrainerMissing { drainer }.into());
    }
    let drainers = rows.len();
    // All of them before anything follows from one.
    let mut matches = Vec::new();
    for (drainer, (_, row)) in rows.iter().enumerate() {
        matches.push(ownership.judge(conn, drainer, row).await?);
    }
    for (drainer, found) in matches.iter().enumerate() {
        rewind(log, drainer, found)?;
    }
    set_drainers(log, drainers);
    for (drainer, ((_, row), found)) in rows.iter().zip(&matches).enumerate() {
        letters.settle_unseen(drainer, &row.checkpoint, !found.rewound.is_empty());
        set_drained(log, drainer, &found.marks);
    }
    // Once all fit: a directory that is refused for one of them takes none.
    for (drainer, (_, row)) in rows.iter_mut().enumerate() {
        *row = ownership.claim(conn, store, drainer, row.clone()).await?;
    }
    if drainers == wanted {
        return Ok(wanted);
    }
    let (_, first) = &rows[0];
    let differs = |(_, row): &(i32, CheckpointRow)| {
        row.checkpoint.lanes != first.checkpoint.lanes || row.checkpoint.ordinals != first.checkpoint.ordinals
    };
    if rows.iter().any(differs) {
        tracing::warn!(
            drainers,
            wanted,
            "the number of drain connections stays what it was, since they are not equally far; an orderly shutdown while \
             PostgreSQL is available makes them so"
        );
        return Ok(drainers);
    }
    match change_number(conn, store, ownership, drainers, wanted, first).await {
        Err(SessionError::Postgres(error)) if error.db_error().is_some() => {
            tracing::warn!(drainers, wanted, %error, "the number of drain connections stays what it was");
            return Ok(drainers);
        }
        outcome => outcome?,
    }
    tracing::info!(before = drainers, drainers = wanted, "the number of drain connections has changed");
    set_drainers(log, wanted);
    Ok(wanted)
}

fn set_drainers(log: &LogView, drainers: usize) {
    log.lanes.iter().for_each(|progress| progress.set_drainers(drainers));
}

/// Turns the checkpoints of `before` drainers, all at `row`, into those of `wanted` drainers.
async fn change_number(
    conn: &mut Connection,
    store: &CheckpointStore,
    ownership: &Ownership,
    before: usize,
    wanted: usize,
    row: &CheckpointRow,
) -> Result<(), SessionError> {
    match before < wanted {
        true => store.insert(conn, &ownership.claimer()?.0, wanted, row).await?,
        false => {
            store.keep_first(conn, wanted).await?;
            true
        }
    };
    Ok(())
}
