//! How many drainers there are: as many as are configured, unless their checkpoints say otherwise.
//!
//! A checkpoint says how far one drainer is with its partitions, and which partitions those are depends on the number of
//! drainers. So the number changes only at a start at which all drainers are equally far: after every orderly shutdown, and
//! shortly after the last message. Otherwise it stays what it was, with a line in the log.

use super::session_error::SessionError;
use crate::{
    drain::{
        checkpoint::{
            checkpoint_match::{CheckpointMatch, CheckpointMismatch},
            checkpoint_store::CheckpointStore,
            lane_views::{rewind, set_drained, views},
            row::Checkpoint,
        },
        round::dead_letter_keeper::DeadLetterKeeper,
    },
    state::log_view::LogView,
};
use forebay_pgwire::Connection;

/// Finds out how many drainers there are and how far each is. Takes back from the log what a database that went back in time
/// lost. No drainer is at work yet.
///
/// # Errors
/// [`SessionError::Checkpoint`] if a checkpoint does not fit the log; else those of PostgreSQL.
pub(super) async fn plan(
    conn: &mut Connection,
    store: &CheckpointStore,
    letters: &DeadLetterKeeper,
    log: &LogView,
    wanted: usize,
) -> Result<usize, SessionError> {
    let rows = store.lock_all(conn).await?;
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
        matches.push(CheckpointMatch::find(Some(row), &views(log, drainer), true)?);
    }
    for (drainer, found) in matches.iter().enumerate() {
        rewind(log, drainer, found)?;
    }
    set_drainers(log, drainers);
    for (drainer, ((_, row), found)) in rows.iter().zip(&matches).enumerate() {
        letters.settle_unseen(drainer, row, !found.rewound.is_empty());
        set_drained(log, drainer, &found.marks);
    }
    if drainers == wanted {
        return Ok(wanted);
    }
    let (_, first) = &rows[0];
    if rows.iter().any(|(_, row)| row.lanes != first.lanes || row.ordinals != first.ordinals) {
        tracing::warn!(
            drainers,
            wanted,
            "the number of drain connections stays what it was, since they are not equally far; an orderly shutdown while \
             PostgreSQL is available makes them so"
        );
        return Ok(drainers);
    }
    match change_number(conn, store, drainers, wanted, first).await {
        Err(error) if error.db_error().is_some() => {
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
    before: usize,
    wanted: usize,
    row: &Checkpoint,
) -> Result<(), forebay_pgwire::Error> {
    match before < wanted {
        true => store.insert(conn, wanted, row).await,
        false => store.keep_first(conn, wanted).await,
    }
}
