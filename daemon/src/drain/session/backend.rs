//! Which backend of PostgreSQL serves a drain session: written down, so that the next session can end it.

use crate::{
    drain::checkpoint::checkpoint_store::CheckpointStore,
    postgres::remedy::{Remedy, remedy},
};
use forebay_pgwire::{Connection, Error};

/// Writes down the backend of `conn`. Where the role may not see its own backend, the earlier name is removed.
///
/// The commit waits for synchronous standbys, as every commit does. An earlier session that ended during that wait has
/// committed all the same, and its rows are on the standbys only once this returns.
///
/// # Errors
/// Those of PostgreSQL.
pub(super) async fn register(conn: &mut Connection, store: &CheckpointStore) -> Result<(), Error> {
    const OWN: &str = "pg_backend_pid(), (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())";
    match store.set_backend(conn, OWN).await {
        Err(error) if error.db_error().is_some() && remedy(&error) == Remedy::Pause => {
            tracing::debug!(%error, "the role may not see which backend serves the drain's session");
            store.set_backend(conn, "NULL, NULL").await
        }
        outcome => outcome,
    }
}
