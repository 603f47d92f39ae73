//! The command line.

mod checkpoint;
mod control;
mod database;
mod dead_letters;
mod exit;
mod keep_private_postgres;
mod print;
mod schema;
mod serve;
mod token;
mod wal;

pub use exit::Exit;

use crate::config::{Config, args::ServeArgs};
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
    /// Messages that PostgreSQL refused: list, show, retry or drop them
    DeadLetters {
        #[command(subcommand)]
        command: dead_letters::DeadLettersCommand,
    },
    /// Whether the log and the database belong together, and the decision if they do not
    Checkpoint {
        #[command(subcommand)]
        command: checkpoint::CheckpointCommand,
    },
    /// Bearer tokens for the daemon's clients
    Token {
        #[command(subcommand)]
        command: token::TokenCommand,
    },
    /// Inspect the log of a stopped or a running daemon
    Wal {
        #[command(subcommand)]
        command: wal::WalCommand,
    },
    /// Keep the private PostgreSQL of a daemon, which starts this by itself
    #[command(hide = true)]
    KeepPrivatePostgres(keep_private_postgres::KeepArgs),
}

/// Runs what the command line says.
#[must_use]
pub fn run() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve { args, print_config: false } => Config::resolve(*args).map_err(Exit::from).and_then(serve::run),
        Command::Serve { args, print_config: true } => print_config(*args),
        Command::Schema { command } => schema::run(command),
        Command::DeadLetters { command } => dead_letters::run(command),
        Command::Checkpoint { command } => checkpoint::run(command),
        Command::Token { command } => token::run(command),
        Command::Wal { command } => wal::run(command),
        Command::KeepPrivatePostgres(args) => match keep_private_postgres::run(&args) {
            Ok(code) => return code,
            Err(exit) => Err(exit),
        },
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            if !exit.message.is_empty() {
                print::note(exit.message);
            }
            ExitCode::from(exit.code)
        }
    }
}

fn print_config(args: ServeArgs) -> Result<(), Exit> {
    let text = Config::resolve(args)?.print()?;
    print::print(|out| out.write_all(text.as_bytes()))
}
