//! `forebay token new`

use super::{
    Exit,
    print::{note, print},
};
use crate::{
    access::{
        Scope, token,
        token::TokenHash,
        tokens::{append, file},
    },
    private_files::AtPath,
};
use std::{path::PathBuf, str::FromStr};

#[derive(clap::Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token, show it once, and add its hash to the tokens file
    New {
        /// The file that `serve` reads; made if it is missing. A running daemon reads it again on SIGHUP
        #[arg(long, env = "FOREBAY_TOKENS_FILE", value_name = "FILE")]
        tokens_file: PathBuf,
        /// What the token allows: push, pop and admin, separated by commas
        #[arg(long, value_name = "SCOPES", value_delimiter = ',', required = true)]
        scopes: Vec<Scope>,
        /// Allow pushes only to queues whose names begin with this
        #[arg(long, value_name = "PREFIX")]
        queue_prefix: Option<String>,
        /// Messages that it may push a second, such as 1000 or 1000/s
        #[arg(long, value_name = "N/s")]
        rate: Option<PerSecond>,
        /// Messages that it may push at once after a quiet time [default: those of one second]
        #[arg(long, value_name = "N", requires = "rate")]
        burst: Option<u64>,
        /// Its name, for people who read the file
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
}

/// A rate, written `1000` or `1000/s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PerSecond(u64);

/// A text that is no rate.
#[derive(Debug, thiserror::Error)]
#[error("a rate is a number of messages a second, such as 1000/s")]
pub(super) struct NotARate;

impl FromStr for PerSecond {
    type Err = NotARate;
    fn from_str(text: &str) -> Result<Self, NotARate> {
        let number = text.strip_suffix("/s").unwrap_or(text);
        number.parse().map(Self).map_err(|_| NotARate)
    }
}

pub(super) fn run(command: TokenCommand) -> Result<(), Exit> {
    let TokenCommand::New { tokens_file, scopes, queue_prefix, rate, burst, name } = command;
    let scopes = scopes.into_iter().collect();
    file::check_rights(scopes, queue_prefix.as_deref()).map_err(|error| Exit::usage(error.to_string()))?;
    let rate = rate.map(|rate| rate.0);
    let rate = file::check_rate(rate, burst).map_err(|error| Exit::usage(error.to_string()))?;
    let token = token::make().map_err(|error| Exit::usage(error.to_string()))?;
    let row = file::Row { name, hash: TokenHash::of(&token), scopes, queue_prefix, rate };
    let appended = append::append(&tokens_file, &row).map_err(AtPath::new(&tokens_file));
    appended.map_err(|error| Exit::usage(error.to_string()))?;
    note("keep the token, it is not shown again; a running daemon accepts it after SIGHUP");
    print(|out| writeln!(out, "{token}"))
}
