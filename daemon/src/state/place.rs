//! Where the drain continues when a person decides.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Where the drain continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// with the oldest record of the log, of a forked one where it was forked: all records of the log are delivered; those that the
    /// database has already come twice, unless they have a transaction id
    LogOldest,
    /// after the newest record of the log: no record that the log has now is delivered
    LogEnd,
    /// at the checkpoint in the database, for example after the database was moved to another server
    Database,
    /// where the drain stood when it found that log and database do not fit, or further on if the checkpoint proves it: what it had
    /// not delivered until then is delivered, and nothing else
    Mismatch,
}

/// What becomes of the records of a forked log that both data directories have and PostgreSQL does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Common {
    /// the other data directory delivers them
    Leave,
    /// this data directory delivers them: right only if the other one is gone for good
    Deliver,
}

impl Place {
    /// As the command line has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LogOldest => "log-oldest",
            Self::LogEnd => "log-end",
            Self::Database => "database",
            Self::Mismatch => "mismatch",
        }
    }
}
