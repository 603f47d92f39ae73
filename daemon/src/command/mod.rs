//! The command line.

mod checkpoint;
mod database;
mod dead_letters;
mod exit;
mod print;
mod schema;
mod serve;
mod token;
mod wal;

pub use exit::Exit;

use crate::config::{Config, ConfigError, args::ServeArgs};
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A durable, fast ingestion daemon in front of PostgreSQL
#[derive(Parser)]
#[command(name = "forebay", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon
    Serve {
        #[command(flatten)]
        args: Box<ServeArgs>,
        /// Print the settings, secrets masked, and exit
        #[arg(long)]
        print_config: bool,
    },
    /// The schema in PostgreSQL
    Schema {
        #[command(subcommand)]
        command: schema::SchemaCommand,
    },
    /// What PostgreSQL refused, and what to do with it
    DeadLetters {
        #[command(subcommand)]
        command: dead_letters::DeadLettersCommand,
    },
    /// Whether the log and the database belong together, and the decision where they do not
    Checkpoint {
        #[command(subcommand)]
        command: checkpoint::CheckpointCommand,
    },
    /// Bearer tokens for those who use the daemon
    Token {
        #[command(subcommand)]
        command: token::TokenCommand,
    },
    /// Look into the log, of a stopped or a running daemon
    Wal {
        #[command(subcommand)]
        command: wal::WalCommand,
    },
}

/// Runs what the command line says.
#[must_use]
pub fn run() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve { args, print_config: false } => Config::resolve(*args).map_err(Exit::from).and_then(serve::run),
        Command::Serve { args, print_config: true } => Config::resolve(*args).map_err(Exit::from).map(|config| {
            print!("{}", config.print());
        }),
        Command::Schema { command } => schema::run(command),
        Command::DeadLetters { command } => dead_letters::run(command),
        Command::Checkpoint { command } => checkpoint::run(command),
        Command::Token { command } => token::run(command),
        Command::Wal { command } => wal::run(command),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            if !exit.message.is_empty() {
                eprintln!("forebay: {}", exit.message);
            }
            ExitCode::from(exit.code)
        }
    }
}

impl From<ConfigError> for Exit {
    fn from(error: ConfigError) -> Self {
        Self::usage(error.0)
    }
}
