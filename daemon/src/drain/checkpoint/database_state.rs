//! What a database says about a log.

use super::row::Checkpoint;
use crate::{
    postgres::{database, schema, schema::quoted},
    state::database_id::DatabaseId,
};
use forebay_pgwire::{Connection, Error, Param};

/// The database, as far as a log is concerned.
pub struct DatabaseState {
    /// Which database it is, if PostgreSQL tells.
    pub id: Option<DatabaseId>,
    /// Version of its schema; 0 for none.
    pub schema_version: i32,
    /// The log's checkpoints, each with the number of its drainer, in that order.
    pub rows: Vec<(i32, Checkpoint)>,
    /// The database that they name.
    pub row_database: Option<DatabaseId>,
    /// Whether it has messages, of whichever log; only asked where there is no checkpoint.
    pub has_messages: bool,
}

impl DatabaseState {
    /// Asks the database. `schema_name` is not quoted. Checkpoints are read only from a schema of this release's version.
    ///
    /// # Errors
    /// Those of PostgreSQL.
    pub async fn read(conn: &mut Connection, schema_name: &str, log_id: [u8; 16]) -> Result<Self, Error> {
        let id = database::identify(conn).await?;
        let schema_version = schema::version(conn, schema_name).await?;
        let mut state = Self { id, schema_version, rows: Vec::new(), row_database: None, has_messages: false };
        if schema_version != schema::VERSION {
            return Ok(state);
        }
        let sql = format!(
            "SELECT lanes, positions, ordinals, drainer, system_identifier, database_oid \
             FROM {}.drain_checkpoints WHERE log_id = $1 ORDER BY drainer",
            quoted(schema_name)
        );
        for row in conn.query_once(&sql, &[Param::Uuid(log_id)]).await? {
            let named = row.get_opt_i64(4)?.zip(row.get_opt_i64(5)?);
            state.rows.push((row.get_i32(3)?, Checkpoint::read(&row)?));
            state.row_database = named.map(|(system_identifier, oid)| DatabaseId { system_identifier, oid });
        }
        if state.rows.is_empty() {
            state.has_messages = has_messages(conn, &quoted(schema_name)).await?;
        }
        Ok(state)
    }
}

/// Whether there are messages in the quoted `schema`.
///
/// # Errors
/// Those of PostgreSQL.
pub(crate) async fn has_messages(conn: &mut Connection, schema: &str) -> Result<bool, Error> {
    let sql = format!("SELECT EXISTS (SELECT FROM {schema}.messages)");
    conn.query_once(&sql, &[]).await?.first().map_or(Ok(false), |row| row.get_bool(0))
}
