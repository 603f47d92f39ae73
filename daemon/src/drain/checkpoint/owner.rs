//! The data directory that has the checkpoints of a log, as PostgreSQL knows it.

use crate::state::{
    incarnations::{Incarnation, LogDirectory},
    log_identity::LogIdentity,
};
use forebay_pgwire::{Connection, Error, Param};
use uuid::Uuid;

/// What a data directory writes into `log_owners` when it takes checkpoints.
pub struct Owner {
    /// The id under which PostgreSQL knows the log.
    pub log_id: Uuid,
    /// The id in the log's files.
    pub origin: Uuid,
    /// Which directory it is.
    pub directory: LogDirectory,
    /// The incarnation that takes them …
    pub incarnation: Uuid,
    /// … and all that the directory lists.
    pub incarnations: Vec<Incarnation>,
}

impl Owner {
    /// This process.
    #[must_use]
    pub fn of(identity: &LogIdentity) -> Self {
        Self {
            log_id: identity.log_id(),
            origin: identity.origin(),
            directory: identity.own().clone(),
            incarnation: identity.incarnation(),
            incarnations: identity.list(),
        }
    }

    /// Carries out `change`, a statement with `params` that changes rows of `drain_checkpoints` of one log, and writes down, in
    /// the same statement, who did so. Returns whether there was a row to change.
    ///
    /// # Errors
    /// Those of PostgreSQL.
    pub async fn change(
        &self,
        conn: &mut Connection,
        schema: &str,
        change: &str,
        params: &[Param<'_>],
    ) -> Result<bool, Error> {
        let [origin, incarnation, host, directory, list] = std::array::from_fn(|index| params.len() + 1 + index);
        let sql = format!(
            "WITH changed AS ({change} RETURNING log_id) \
             INSERT INTO {schema}.log_owners (log_id, origin, incarnation, host, directory, incarnations) \
             SELECT DISTINCT log_id, ${origin}, ${incarnation}, ${host}, ${directory}, ${list} FROM changed \
             ON CONFLICT (log_id) DO UPDATE SET origin = excluded.origin, incarnation = excluded.incarnation, \
             host = excluded.host, directory = excluded.directory, incarnations = excluded.incarnations, claimed_at = now()"
        );
        let json = serde_json::to_vec(&self.incarnations).map_err(|error| Error::Usage { what: error.to_string() })?;
        let own = [
            Param::Uuid(self.origin.into_bytes()),
            Param::Uuid(self.incarnation.into_bytes()),
            Param::Text(&self.directory.host),
            Param::Text(&self.directory.directory),
            Param::Jsonb(&json),
        ];
        let all: Vec<Param<'_>> = params.iter().chain(&own).copied().collect();
        Ok(conn.execute_once(&sql, &all).await? > 0)
    }

    /// The directory that has the checkpoints of the log `log_id` in the quoted `schema`.
    ///
    /// # Errors
    /// Those of PostgreSQL.
    pub async fn find(conn: &mut Connection, schema: &str, log_id: Uuid) -> Result<Option<LogDirectory>, Error> {
        let sql = format!("SELECT host, directory FROM {schema}.log_owners WHERE log_id = $1");
        let rows = conn.query_once(&sql, &[Param::Uuid(log_id.into_bytes())]).await?;
        let read = |row: &forebay_pgwire::Row| {
            Ok(LogDirectory { host: row.get_str(0)?.to_owned(), directory: row.get_str(1)?.to_owned() })
        };
        rows.first().map(read).transpose()
    }
}
