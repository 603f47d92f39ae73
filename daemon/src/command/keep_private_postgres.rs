//! `forebay keep-private-postgres`: the helper process of a daemon with a private PostgreSQL.

use super::Exit;
use crate::{config::LogFormat, logging, serve};
use clap::Args;
use std::{path::PathBuf, process::ExitCode};

/// What the daemon tells its helper.
#[derive(Args)]
pub(super) struct KeepArgs {
    /// The private PostgreSQL's directory
    #[arg(long)]
    dir: PathBuf,
    /// As of the daemon
    #[arg(long)]
    log: String,
    /// As of the daemon
    #[arg(long)]
    log_format: Option<LogFormat>,
}

pub(super) fn run(args: &KeepArgs) -> Result<ExitCode, Exit> {
    let _guard = logging::start(&args.log, args.log_format)?;
    serve::keep_private_postgres(&args.dir).map_err(|error| Exit::usage(error.to_string()))
}
