//! A daemon in another directory that works with the checkpoints of this log.
//!
//! A copy that is made while the daemon runs has the incarnation that PostgreSQL names in its list. What tells it from a directory
//! that was moved is that a session of that incarnation still works.

use crate::rt;
use forebay_pgwire::{Connection, Error, Param};
use std::{collections::BTreeMap, time::Duration};
use uuid::Uuid;

/// Time between two looks at the sessions. An idle daemon's session works every second.
const LOOK_INTERVAL: Duration = Duration::from_millis(1250);

/// Looks behind each other in which a session has to be seen at work. The rest of the work of a daemon that is gone, which the
/// server still has, ends sooner or later.
const LOOKS: usize = 3;

/// Whether a session that the checkpoints of the log `log_id` name works for another daemon. Returns at once if there is none.
///
/// # Errors
/// Only those that end the connection.
pub(super) async fn is_at_work(conn: &mut Connection, schema: &str, log_id: Uuid) -> Result<bool, Error> {
    let mut before = sessions(conn, schema, log_id).await?;
    for _ in 1..LOOKS {
        if before.is_empty() {
            return Ok(false);
        }
        rt::sleep(LOOK_INTERVAL).await;
        let now = sessions(conn, schema, log_id).await?;
        before =
            now.into_iter().filter(|(pid, began)| before.get(pid).is_some_and(|earlier| began > earlier)).collect();
    }
    Ok(!before.is_empty())
}

/// The sessions that PostgreSQL still has, by their process ids, and when each began its last statement.
async fn sessions(conn: &mut Connection, schema: &str, log_id: Uuid) -> Result<BTreeMap<i32, i64>, Error> {
    // A pooler gives a backend to others, under other names, and perhaps to this session.
    let sql = format!(
        "SELECT a.pid, a.query_start FROM {schema}.drain_checkpoints c \
         JOIN pg_stat_activity a ON a.pid = c.backend_pid AND a.backend_start = c.backend_start \
         WHERE c.log_id = $1 AND a.pid <> pg_backend_pid() AND a.query_start IS NOT NULL \
         AND a.application_name = current_setting('application_name')"
    );
    let rows = match conn.query_once(&sql, &[Param::Uuid(log_id.into_bytes())]).await {
        Err(error) if error.ends_connection() => return Err(error),
        Err(error) => {
            tracing::debug!(%error, "the role may not see whether another session works with the checkpoint");
            return Ok(BTreeMap::new());
        }
        Ok(rows) => rows,
    };
    rows.iter().map(|row| Ok((row.get_i32(0)?, row.get_timestamptz_us(1)?))).collect()
}
