//! `forebay checkpoint`: whether log and database belong together, and the decision where they do not.

mod set;
mod show;
mod state;

use super::Exit;
use crate::config::{Config, args::ServeArgs};
use clap::{Subcommand, ValueEnum};

#[derive(Subcommand)]
pub(super) enum CheckpointCommand {
    /// Say what the log has, what the database says, whether they fit, and what there is to decide; exit code 1 if they do
    /// not
    Show {
        #[command(flatten)]
        args: Box<ServeArgs>,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Decide where the drain goes on; the daemon must be stopped
    Set {
        #[command(flatten)]
        args: Box<ServeArgs>,
        /// Where it goes on
        #[arg(long, value_name = "PLACE")]
        to: Place,
        /// It is understood that this cannot be taken back
        #[arg(long)]
        yes: bool,
    },
}

/// Where the drain goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Place {
    /// with the oldest record of the log: all that the log has is delivered; what the database has of that comes twice, unless
    /// it has a transaction id
    LogOldest,
    /// behind the newest record of the log: nothing that the log has now is delivered
    LogEnd,
    /// where the checkpoint in the database says, as after a move of the database to another server
    Database,
}

pub(super) fn run(command: CheckpointCommand) -> Result<(), Exit> {
    match command {
        CheckpointCommand::Show { args, json } => show::run(&Config::resolve(*args)?, json),
        CheckpointCommand::Set { args, to, yes } => set::run(&Config::resolve(*args)?, to, yes),
    }
}
