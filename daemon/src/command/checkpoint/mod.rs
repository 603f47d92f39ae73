//! `forebay checkpoint`: whether log and database belong together, and the decision if they do not.

mod set;
mod show;
pub(super) mod state;

use super::Exit;
use crate::{
    config::{Config, args::ServeArgs},
    state::place::Place,
};
use clap::Subcommand;

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
    /// Decide where the drain continues; a running daemon carries it out and goes on
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

pub(super) fn run(command: CheckpointCommand) -> Result<(), Exit> {
    match command {
        CheckpointCommand::Show { args, json } => show::run(&Config::resolve(*args)?, json),
        CheckpointCommand::Set { args, to, yes } => set::run(&Config::resolve(*args)?, to, yes),
    }
}
