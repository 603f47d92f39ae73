//! What a database says about a log.

use super::{owner::Owner, row::CheckpointRow};
use crate::{
    postgres::{database, schema, schema::quoted},
    state::{database_id::DatabaseId, incarnations::LogDirectory},
};
use forebay_pgwire::{Connection, Error, Param};
use uuid::Uuid;

/// The database, as far as a log is concerned.
pub struct DatabaseState {
    /// Which database it is, if PostgreSQL tells.
    pub id: Option<DatabaseId>,
    /// Version of its schema; 0 for none.
    pub schema_version: i32,
    /// The log's checkpoints, each with the number of its drainer, in that order.
    pub rows: Vec<(i32, CheckpointRow)>,
    /// The database that they name.
    pub row_database: Option<DatabaseId>,
    /// Whether it has messages, of whichever log; only asked where there is no checkpoint.
    pub has_messages: bool,
    /// The data directory that has them.
    pub owner: Option<LogDirectory>,
}

impl DatabaseState {
    /// Asks the database. `schema_name` is not quoted. Checkpoints are read only from a schema of this release's version.
    ///
    /// # Errors
    /// Those of PostgreSQL.
    pub async fn read(conn: &mut Connection, schema_name: &str, log_id: Uuid) -> Result<Self, Error> {
        let id = database::identify(conn).await?;
        let schema_version = schema::version(conn, schema_name).await?;
        let mut state =
            Self { id, schema_version, rows: Vec::new(), row_database: None, has_messages: false, owner: None };
        if schema_version != schema::VERSION {
            return Ok(state);
        }
        let sql = format!(
            "SELECT {}, drainer, system_identifier, database_oid FROM {}.drain_checkpoints \
             WHERE log_id = $1 ORDER BY drainer",
            CheckpointRow::COLUMNS,
            quoted(schema_name)
        );
        for row in conn.query_once(&sql, &[Param::Uuid(log_id.into_bytes())]).await? {
            let named = row.get_opt_i64(6)?.zip(row.get_opt_i64(7)?);
            state.rows.push((row.get_i32(5)?, CheckpointRow::read(&row)?));
            state.row_database = named.map(|(system_identifier, oid)| DatabaseId { system_identifier, oid });
        }
        if state.rows.is_empty() {
            state.has_messages = has_messages(conn, &quoted(schema_name)).await?;
        }
        state.owner = Owner::find(conn, &quoted(schema_name), log_id).await?;
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
