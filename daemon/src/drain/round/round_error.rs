//! Why a drain transaction did not commit.

use super::obstacle::Obstacle;
use crate::postgres::schema::obstacle::SchemaObstacle;
use forebay_pgwire::Error;

/// Why a round failed. Its transaction is rolled back, unless the connection is lost: then the checkpoint tells what became of
/// it. `RetryPolicy` says what follows from each.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RoundError {
    /// PostgreSQL refused, or the connection was lost. Next step: by the SQLSTATE, see [`crate::postgres::remedy`].
    #[error(transparent)]
    Postgres(#[from] Error),
    /// PostgreSQL refuses rows, or is in trouble. Next step: find out which, and make the rows at fault dead letters.
    #[error("PostgreSQL refuses a row: {error}")]
    Row {
        /// Index of its record in the batch, if PostgreSQL tells.
        record: Option<usize>,
        /// What PostgreSQL said.
        #[source]
        error: Error,
    },
    /// A row or a name fails alone. Next step: try it again after a pause.
    #[error("{0}")]
    Undecided(Obstacle),
    /// PostgreSQL takes no row of the batch. Next step: by the SQLSTATE, see [`crate::postgres::remedy`]; and together with
    /// other rows.
    #[error("{0}")]
    NoneAccepted(Obstacle),
    /// The schema can take no row at all. Next step: a person mends it.
    #[error("{0}")]
    NoRowFits(SchemaObstacle),
    /// Somebody else moved the checkpoint. Next step: connect again, and read it.
    #[error("the checkpoint is not where this drainer left it")]
    CheckpointMoved,
    /// Somebody else writes to a partition. Next step: repeat the round; it asks for the sequence numbers first.
    #[error("the last sequence number of a partition is not the known one")]
    NumberingChanged,
    /// A partition was deleted. Next step: repeat the round, which creates it.
    #[error("a partition that the drain knew is missing")]
    PartitionGone,
    /// A trigger skips rows. Next step: a person removes it.
    #[error("PostgreSQL took {taken} of {sent} rows without an error")]
    CountDiffers {
        /// Rows that were sent.
        sent: u64,
        /// Rows that PostgreSQL counted.
        taken: u64,
    },
    /// PostgreSQL answers for a row that it was not asked about. Next step: see what is between the daemon and PostgreSQL.
    #[error("PostgreSQL reports a duplicate of row {index}, which the round does not have")]
    UnknownRow {
        /// The index that PostgreSQL gave.
        index: i32,
    },
    /// Neither PostgreSQL nor the disk takes dead letters. Next step: make room on the disk, or mend the table.
    #[error("{0}")]
    LettersNotKept(std::io::Error),
}

impl RoundError {
    /// Whether the connection is of no more use after this error.
    pub(crate) fn ends_connection(&self) -> bool {
        matches!(self, Self::Postgres(error) | Self::Row { error, .. } if error.ends_connection())
    }

    /// Whether it is an answer of the server's.
    pub(crate) fn is_of_the_server(&self) -> bool {
        match self {
            Self::Postgres(error) => error.db_error().is_some(),
            _ => true,
        }
    }
}
