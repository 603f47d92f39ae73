//! Looks from time to time whether the schema is still what delivery relies on: somebody may change it under a session, whose
//! statements go on without an error.

use super::{remarks::Remarks, session_error::SessionError};
use crate::{drain::settings::DrainSettings, limits::SCHEMA_LOOK_INTERVAL};
use forebay_pgwire::Connection;
use std::time::Instant;

/// Compares the schema of a session with what the daemon relies on.
pub(super) struct SchemaWatch {
    /// Not quoted.
    schema: String,
    migrate: bool,
    remarks: Remarks,
    looked_at: Instant,
}

impl SchemaWatch {
    /// Looks for the first time.
    ///
    /// # Errors
    /// Those of [`look`](Self::look).
    pub(super) async fn begin(conn: &mut Connection, settings: &DrainSettings) -> Result<Self, SessionError> {
        let (schema, migrate) = (settings.schema.name.clone(), settings.migrate);
        let mut watch = Self { schema, migrate, remarks: Remarks::default(), looked_at: Instant::now() };
        watch.look(conn).await?;
        Ok(watch)
    }

    /// The schema's name, not quoted.
    pub(super) fn schema(&self) -> &str {
        &self.schema
    }

    /// What differs, as far as delivery goes on.
    pub(super) fn remarks(&self) -> &Remarks {
        &self.remarks
    }

    /// Whether it is time to look again.
    pub(super) fn is_due(&self) -> bool {
        self.looked_at.elapsed() >= SCHEMA_LOOK_INTERVAL
    }

    /// Looks.
    ///
    /// # Errors
    /// [`SessionError::Schema`] if something stops delivery; those of PostgreSQL.
    pub(super) async fn look(&mut self, conn: &mut Connection) -> Result<(), SessionError> {
        self.remarks = Remarks::find(conn, &self.schema, self.migrate).await?;
        self.looked_at = Instant::now();
        Ok(())
    }
}
