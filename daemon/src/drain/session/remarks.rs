//! What differs in the schema without stopping delivery.

use crate::postgres::schema::{
    self, SchemaError,
    difference::{Difference, listed},
    triggers::{self, TriggerReport, UserTrigger},
};
use forebay_pgwire::{Connection, Error};

/// What a session has found when it compared the schema with what it relies on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Remarks {
    differences: Vec<Difference>,
    triggers: TriggerReport,
}

impl Remarks {
    /// Compares the schema of that name, which is not quoted. With `migrate`, views that are missing are made again.
    ///
    /// # Errors
    /// [`SchemaError::Differs`] if something stops delivery; those of PostgreSQL.
    pub(super) async fn find(conn: &mut Connection, schema: &str, migrate: bool) -> Result<Self, SchemaError> {
        let mut differences = schema::check(conn, schema).await?;
        if migrate && differences.iter().any(Difference::is_about_view) && make_views(conn, schema).await? {
            differences = schema::check(conn, schema).await?;
        }
        Ok(Self { differences, triggers: triggers::report(conn, schema).await? })
    }

    /// Logs it.
    pub(crate) fn log(&self) {
        if !self.differences.is_empty() {
            let differences = listed(&self.differences);
            tracing::error!(
                code = "schema_differs",
                differences,
                "somebody changed the schema; delivery goes on. `forebay schema migrate` makes missing views again"
            );
        }
        let (on_the_books, others): (Vec<_>, Vec<_>) =
            self.triggers.triggers.iter().cloned().partition(UserTrigger::is_on_the_books);
        if !on_the_books.is_empty() {
            let triggers = triggers::listed(&on_the_books);
            tracing::warn!(
                triggers,
                "triggers of others run where the daemon keeps its books; delivery relies on what is there"
            );
        }
        if !others.is_empty() {
            tracing::info!(triggers = triggers::listed(&others), "triggers of others run in the daemon's sessions");
        }
        for warning in &self.triggers.warnings {
            tracing::warn!(
                %warning,
                "a trigger may fail: the daemon's sessions look only for the system's names. Put the schema before the names, or \
                 ALTER FUNCTION … SET search_path"
            );
        }
    }
}

/// Returns whether the views were made.
async fn make_views(conn: &mut Connection, schema: &str) -> Result<bool, Error> {
    match schema::make_views(conn, schema).await {
        Ok(()) => {
            tracing::info!(schema, "views that were missing were made again");
            Ok(true)
        }
        Err(error) if error.ends_connection() => Err(error),
        Err(error) => {
            tracing::debug!(%error, "the views cannot be made again");
            Ok(false)
        }
    }
}
