//! Runs a private PostgreSQL in the foreground: `forebay-private-postgres [--ends-with-me] DIRECTORY`.
//!
//! As soon as the server accepts connections, the program prints its URL and the postmaster's process id, each on a line
//! of its own. It stops the server when standard input ends. If the program is killed with SIGKILL, the server keeps
//! running and the next start adopts it; with `--ends-with-me` the kernel stops the server instead. The program is for
//! developers who need a database for an experiment, and for the tests of this crate.

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
    // 0 if the server has already ended again.
    println!("{}\n{}", cluster.url(), cluster.postmaster_pid().unwrap_or(0));
    let mut input = io::stdin().lock();
    let mut buffer = [0; 64];
    // An input that cannot be read counts as ended.
    while input.read(&mut buffer).is_ok_and(|read| read > 0) {}
    cluster.stop(StopMode::Fast, STOP_TIMEOUT)
}
