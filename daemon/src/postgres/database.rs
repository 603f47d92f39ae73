//! Which database this is, and where its server stands: what PostgreSQL says, as far as the role may ask.

use crate::state::database_id::{DatabaseId, ServerPlace};
use forebay_pgwire::{Connection, Error};

/// Asks which database this is; `None` where the role may not, or the server does not know.
///
/// # Errors
/// Only those that end the connection.
pub async fn identify(conn: &mut Connection) -> Result<Option<DatabaseId>, Error> {
    let sql = "SELECT c.system_identifier, d.oid::bigint \
               FROM pg_control_system() c, pg_database d WHERE d.datname = current_database()";
    let rows = tolerate(conn.query_once(sql, &[]).await)?;
    let id = |row: &forebay_pgwire::Row| {
        Ok::<_, Error>(DatabaseId { system_identifier: row.get_i64(0)?, oid: row.get_i64(1)? })
    };
    rows.first().map(id).transpose()
}

/// Asks where the server stands; `None` as for [`identify`].
///
/// # Errors
/// Only those that end the connection.
pub async fn place(conn: &mut Connection) -> Result<Option<ServerPlace>, Error> {
    let sql = "SELECT (l - '0/0'::pg_lsn)::bigint, pg_walfile_name(l) FROM pg_current_wal_insert_lsn() l";
    let rows = tolerate(conn.query_once(sql, &[]).await)?;
    let Some(row) = rows.first() else { return Ok(None) };
    // The name of a file of the server's log begins with its timeline in eight digits.
    let timeline = row.get_str(1)?.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let lsn = row.get_i64(0)? as u64;
    Ok(timeline.map(|timeline| ServerPlace { timeline, lsn }))
}

fn tolerate(rows: Result<Vec<forebay_pgwire::Row>, Error>) -> Result<Vec<forebay_pgwire::Row>, Error> {
    match rows {
        Err(error) if error.ends_connection() => Err(error),
        Err(error) => {
            tracing::debug!(%error, "PostgreSQL does not say which database this is");
            Ok(Vec::new())
        }
        rows => rows,
    }
}
