//! `forebay wal`: looks into the log and changes nothing.

use super::Exit;
use crate::datadir;
use clap::Subcommand;
use forebay_wal::{
    finding::Finding,
    layout::Layout,
    limits::SEGMENT_BYTES_DEFAULT,
    recovery::{RecoverOptions, RecoveredLane, recover_lane},
    storage::Disk,
};
use std::path::PathBuf;

#[derive(Subcommand)]
pub(super) enum WalCommand {
    /// Read every record and report what does not verify, with segment and offset; exit code 1 if anything does not
    Verify {
        /// The daemon's data directory
        #[arg(long, env = "FOREBAY_DATA_DIR", default_value = "./forebay-data", value_name = "DIR")]
        data_dir: PathBuf,
    },
}

pub(super) fn run(command: WalCommand) -> Result<(), Exit> {
    match command {
        WalCommand::Verify { data_dir } => verify(&data_dir),
    }
}

fn verify(data_dir: &std::path::Path) -> Result<(), Exit> {
    let running = datadir::is_in_use(data_dir);
    let layout = Layout::new(datadir::wal_dir(data_dir));
    if !layout.root().is_dir() {
        return Err(Exit::usage(format!("there is no log at {}", layout.root().display())));
    }
    let storage = |error: forebay_wal::error::LogError| Exit::storage(error.to_string());
    let log_id = layout.read_log_id(&Disk).map_err(storage)?;
    // The size matters for what would be written next, and nothing is.
    let options = RecoverOptions { log_id, segment_bytes: SEGMENT_BYTES_DEFAULT, sync: false };
    let mut sound = true;
    for lane in layout.lanes(&Disk).map_err(storage)? {
        let recovered = recover_lane(&Disk, &layout, lane, options).map_err(storage)?;
        sound &= report(&recovered, running);
    }
    if sound { Ok(()) } else { Err(Exit::findings()) }
}

/// Prints what was found of a lane; returns whether all of it verifies.
fn report(lane: &RecoveredLane, running: bool) -> bool {
    let records: u64 = lane.segments.iter().map(|segment| segment.records).sum();
    println!("lane {}: {} segments, {records} records", lane.lane, lane.segments.len() + lane.unused.len());
    let mut sound = true;
    for finding in &lane.findings {
        // A running daemon has a write under way at any time.
        let expected = running && matches!(finding, Finding::UnfinishedWrite { .. })
            || matches!(finding, Finding::Stranger { .. });
        sound &= expected;
        println!("lane {}: {finding}{}", lane.lane, if expected { " (expected)" } else { "" });
    }
    sound
}
