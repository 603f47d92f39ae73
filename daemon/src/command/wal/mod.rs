//! `forebay wal`: looks into the log of a stopped or a running daemon and changes nothing in it.
//!
//! What a running daemon writes or releases meanwhile may or may not be shown.

mod dump;
mod finding;
mod look;
mod ls;
mod record;
mod salvage;
mod stats;
mod verify;

use super::{
    Exit,
    print::{print, print_json, printed},
};
use clap::{Args, Subcommand};
use look::Look;
use std::path::PathBuf;

#[derive(Subcommand)]
pub(super) enum WalCommand {
    /// List the segments: state, records, numbers, bytes
    Ls {
        #[command(flatten)]
        at: At,
        /// One JSON object a line and segment
        #[arg(long)]
        json: bool,
    },
    /// Sum up lanes and queues
    Stats {
        #[command(flatten)]
        at: At,
        /// One JSON object
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
    /// Read every record and report what does not verify, with segment and offset; exit code 1 if anything does not
    Verify {
        #[command(flatten)]
        at: At,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Copy what verifies out of the log, as one NDJSON file a lane; exit code 1 if anything does not verify
    Salvage {
        #[command(flatten)]
        at: At,
        /// Directory for the files, a new or an empty one
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
}

/// Which log.
#[derive(Args)]
pub(super) struct At {
    /// The daemon's data directory
    #[arg(long, env = "FOREBAY_DATA_DIR", default_value = "./forebay-data", value_name = "DIR")]
    data_dir: PathBuf,
}

pub(super) fn run(command: WalCommand) -> Result<(), Exit> {
    match command {
        WalCommand::Ls { at, json } => ls::run(&Look::at(&at.data_dir)?, json),
        WalCommand::Stats { at, json } => stats::run(&Look::at(&at.data_dir)?, json),
        WalCommand::Dump { at, selection } => dump::run(&Look::at(&at.data_dir)?, &selection),
        WalCommand::Verify { at, json } => verify::run(&Look::at(&at.data_dir)?, json),
        WalCommand::Salvage { at, to } => salvage::run(&Look::of_what_is_left(&at.data_dir)?, &to),
    }
}

/// `first..last`, or a dash.
fn span<T: std::fmt::Display>(ends: Option<(T, T)>) -> String {
    ends.map_or_else(|| "-".to_owned(), |(first, last)| format!("{first}..{last}"))
}
