//! Runs a private PostgreSQL in the foreground: `forebay-private-postgres [--ends-with-me] DIRECTORY`.
//!
//! Prints the URL and the postmaster's process id on a line each once it accepts connections, and stops it when
//! standard input ends. Killed with -9 it leaves the server running, for the next one to adopt; with `--ends-with-me`
//! the kernel stops the server then. For developers who want a database to try something on, and for the tests of this
//! crate.

use std::env;
use std::io::{self, Read};
use std::process::ExitCode;
use std::time::Duration;

use forebay_cluster::{Cluster, ClusterConfig, ClusterError, StopMode};

/// Bounds the shutdown checkpoint.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let mut arguments: Vec<_> = env::args_os().skip(1).collect();
    let die_with_process = arguments.first().is_some_and(|first| first == "--ends-with-me");
    if die_with_process {
        arguments.remove(0);
    }
    let [dir] = arguments.as_slice() else {
        eprintln!("usage: forebay-private-postgres [--ends-with-me] DIRECTORY");
        return ExitCode::from(2);
    };
    match run(ClusterConfig { die_with_process, ..ClusterConfig::new(dir) }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("forebay-private-postgres: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: ClusterConfig) -> Result<(), ClusterError> {
    let cluster = Cluster::open(config)?;
    println!("{}\n{}", cluster.url(), cluster.postmaster_pid().unwrap_or_default());
    let mut input = io::stdin().lock();
    let mut buffer = [0; 64];
    // An input that cannot be read has ended, too.
    while input.read(&mut buffer).is_ok_and(|read| read > 0) {}
    cluster.stop(StopMode::Fast, STOP_TIMEOUT)
}
