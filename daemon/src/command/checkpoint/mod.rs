//! `forebay checkpoint`: whether log and database belong together, and the decision if they do not.

mod set;
mod show;
mod state;

use super::Exit;
use crate::config::{Config, args::ServeArgs};
use clap::{Subcommand, ValueEnum};

#[derive(Subcommand)]
pub(super) enum CheckpointCommand {
    /// Show the log's position, the database's checkpoint, whether they match, and the possible decisions; exit code 1 if they
    /// do not match
    Show {
        #[command(flatten)]
        args: Box<ServeArgs>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Decide where the drain continues; the daemon must be stopped
    Set {
        #[command(flatten)]
        args: Box<ServeArgs>,
        /// Where the drain continues
        #[arg(long, value_name = "PLACE")]
        to: Place,
        /// Confirm a decision that cannot be undone
        #[arg(long)]
        yes: bool,
    },
}

/// Where the drain continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Place {
    /// with the oldest record of the log: all records of the log are delivered; those that the database has already come twice,
    /// unless they have a transaction id
    LogOldest,
    /// after the newest record of the log: no record that the log has now is delivered
    LogEnd,
    /// at the checkpoint in the database, for example after the database was moved to another server
    Database,
}

pub(super) fn run(command: CheckpointCommand) -> Result<(), Exit> {
    match command {
        CheckpointCommand::Show { args, json } => show::run(&Config::resolve(*args)?, json),
        CheckpointCommand::Set { args, to, yes } => set::run(&Config::resolve(*args)?, to, yes),
    }
}
