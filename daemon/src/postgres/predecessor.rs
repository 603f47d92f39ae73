//! The session before this one: PostgreSQL may not have heard that it was lost.
//!
//! A backend that waits for the rest of a COPY, or for room to answer, holds the checkpoint's row for as long as it waits,
//! and neither `statement_timeout` nor a timeout for idleness ends that. So each session writes down which backend serves it,
//! and the next one ends that backend: the data directory's lock says that nobody uses it any more.

use forebay_pgwire::{Connection, Error, Param, oid};

/// Ends the backends of a log's sessions that PostgreSQL still has, as far as the role may: that of one `drainer`, or all of
/// them. Only for whoever holds the lock of the log's data directory.
///
/// # Errors
/// Only those that end the connection.
pub async fn end_sessions(
    conn: &mut Connection,
    schema: &str,
    log_id: [u8; 16],
    drainer: Option<i32>,
) -> Result<(), Error> {
    // A process id comes again; with the time of its start it names one backend. Of another role's that is not shown.
    let sql = format!(
        "SELECT c.backend_pid, a.backend_start = c.backend_start, \
                CASE WHEN a.backend_start = c.backend_start THEN pg_terminate_backend(a.pid) END \
         FROM {schema}.drain_checkpoints c JOIN pg_stat_activity a ON a.pid = c.backend_pid \
         WHERE c.log_id = $1 AND c.drainer = coalesce($2, c.drainer) AND a.pid <> pg_backend_pid()"
    );
    let params = [Param::Uuid(log_id), drainer.map_or(Param::Null(oid::INT4), Param::I32)];
    let rows = match conn.query_once(&sql, &params).await {
        Err(error) if error.ends_connection() => return Err(error),
        Err(error) => {
            tracing::warn!(%error, "the drain's session of before cannot be ended; if it was lost, its locks are waited for");
            return Ok(());
        }
        Ok(rows) => rows,
    };
    for row in rows {
        let pid = row.get_i32(0)?;
        match (row.get_opt_bool(1)?, row.get_opt_bool(2)?) {
            (Some(true), ended) => {
                tracing::info!(pid, ended, "PostgreSQL still had the drain's session of before; it is ended");
            }
            (None, _) => tracing::debug!(pid, "it is not shown whether this is the drain's session of before"),
            (Some(false), _) => {}
        }
    }
    Ok(())
}
