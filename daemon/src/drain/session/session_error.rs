//! Why a drain session could not be opened.

use crate::{
    drain::checkpoint::checkpoint_match::CheckpointMismatch,
    postgres::{
        connect::ConnectError,
        schema::{SchemaError, obstacle::SchemaObstacle, owner::UntrustedSchema},
    },
    state::place::Place,
};
use forebay_pgwire::Error;

/// Why a drain session could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// PostgreSQL refused, or the connection was lost. Next step: by the SQLSTATE, see [`crate::postgres::remedy`].
    #[error(transparent)]
    Postgres(#[from] Error),
    /// A stranger has power over the schema. Next step: as the text says.
    #[error(transparent)]
    Untrusted(UntrustedSchema),
    /// The schema is missing, too old, too new or changed. Next step: migrate it, run another release, or take the change back.
    #[error(transparent)]
    Schema(SchemaError),
    /// The database cannot store every text. Next step: name a database with the encoding UTF8.
    #[error("the database has the encoding {encoding}; it must be UTF8")]
    Encoding {
        /// The database's encoding.
        encoding: String,
    },
    /// The checkpoint does not fit the log, or the database is another one. Next step: `forebay checkpoint set`, or for a copy
    /// `forebay wal fork`.
    #[error("{mismatch}")]
    Checkpoint {
        /// What does not fit.
        mismatch: CheckpointMismatch,
        /// Where the drain should continue if neither can be brought back.
        choice: Option<Place>,
    },
    /// The schema into which the log was drained is gone. Next step: rename it back, or `forebay checkpoint set`.
    #[error(
        "the schema {schema} is gone from the database into which the log was drained; if it was renamed, rename it back"
    )]
    SchemaGone {
        /// Its name.
        schema: String,
    },
    /// Somebody else changed the checkpoint while it was being taken. Next step: read it again.
    #[error("somebody else changed the checkpoint while this daemon took it")]
    ClaimLost,
    /// A trigger keeps the checkpoint from being taken. Next step: a person removes it.
    #[error(transparent)]
    Skipped(SchemaObstacle),
    /// The data directory could not note that PostgreSQL names it. Next step: make room on its disk.
    #[error("the data directory's incarnation could not be written down: {0}")]
    NotNamed(std::io::Error),
    /// The first drainer has not created the checkpoints yet. Next step: wait for it.
    #[error("the first drainer has not created the checkpoints yet")]
    NoCheckpoint,
}

impl From<CheckpointMismatch> for SessionError {
    fn from(mismatch: CheckpointMismatch) -> Self {
        Self::Checkpoint { choice: mismatch.choice(), mismatch }
    }
}

impl From<ConnectError> for SessionError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Postgres(error) => Self::Postgres(error),
            ConnectError::Untrusted(untrusted) => Self::Untrusted(untrusted),
        }
    }
}

impl From<SchemaError> for SessionError {
    fn from(error: SchemaError) -> Self {
        match error {
            SchemaError::Postgres(error) => Self::Postgres(error),
            SchemaError::Untrusted(untrusted) => Self::Untrusted(untrusted),
            error => Self::Schema(error),
        }
    }
}
