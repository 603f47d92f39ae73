//! `forebay wal`: inspects the log of a stopped or a running daemon. Only `fork` changes anything: the log's id.
//!
//! Records that a running daemon writes or releases in the meantime may be missing or shown.

mod dump;
mod finding;
mod fork;
mod inspection;
mod ls;
mod record;
mod salvage;
mod span;
mod stats;
mod verify;

use super::Exit;
use crate::{
    config::{Config, args::ServeArgs},
    state::place::Common,
};
use clap::{Args, Subcommand};
use inspection::Inspection;
use std::path::PathBuf;

#[derive(Subcommand)]
pub(super) enum WalCommand {
    /// List the segments with their state, records, numbers and bytes
    Ls {
        #[command(flatten)]
        at: At,
        /// Print one JSON object for each segment, on a line of its own
        #[arg(long)]
        json: bool,
    },
    /// Print totals of lanes and queues
    Stats {
        #[command(flatten)]
        at: At,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print the messages as NDJSON, in the order of their numbers
    Dump {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        selection: dump::Selection,
    },
    /// Read every record and report those that do not verify, with segment and offset; exit code 1 if there is any
    Verify {
        #[command(flatten)]
        at: At,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Copy the records that verify to one NDJSON file for each lane; exit code 1 if any record does not verify
    Salvage {
        #[command(flatten)]
        at: At,
        /// Directory for the files; it is made, or must be empty
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
    /// Give a copied log an id of its own, and deliver what only this data directory has; a running daemon carries it out
    Fork {
        #[command(flatten)]
        args: Box<ServeArgs>,
        /// What becomes of records from before the copy that PostgreSQL does not have yet
        #[arg(long, value_name = "CHOICE")]
        common: Option<Common>,
    },
}

/// The log to inspect.
#[derive(Args)]
pub(super) struct At {
    /// The daemon's data directory
    #[arg(long, env = "FOREBAY_DATA_DIR", default_value = "./forebay-data", value_name = "DIR")]
    data_dir: PathBuf,
}

pub(super) fn run(command: WalCommand) -> Result<(), Exit> {
    match command {
        WalCommand::Ls { at, json } => ls::run(&Inspection::at(&at.data_dir)?, json),
        WalCommand::Stats { at, json } => stats::run(&Inspection::at(&at.data_dir)?, json),
        WalCommand::Dump { at, selection } => dump::run(&Inspection::at(&at.data_dir)?, &selection),
        WalCommand::Verify { at, json } => verify::run(&Inspection::at(&at.data_dir)?, json),
        WalCommand::Salvage { at, to } => salvage::run(&Inspection::remaining_only(&at.data_dir)?, &to),
        WalCommand::Fork { args, common } => fork::run(&Config::resolve(*args)?, common),
    }
}
