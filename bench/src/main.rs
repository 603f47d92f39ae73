//! `forebay-bench`, the load generator for Forebay.
//!
//! It sends requests over HTTP as clients do. It reports requests, messages and bytes per second, latencies, and any
//! response that a client would not expect. It shares no code with the daemon on purpose: a common fault would hide
//! itself.
//!
//! It promises:
//! - The default is a **closed loop**: a connection has at most `--pipeline` requests outstanding and waits for their
//!   responses before it sends more. With `--rate` the loop is **open**, and latencies count from when a request was due.
//! - **Every response is read**, its status and its whole body. One unexpected response makes the run fail.
//! - A message in the audit file **was answered** with a 2xx. It is in the file before it is counted.
//!
//! It refuses what it cannot measure correctly: responses without a `Content-Length`, bodies of unbounded size, and TLS.
//!
//! ```text
//! main ─ args            the command line
//!   hold                 idle connections
//!   push                 threads, one ring each; the result of the run
//!   ├─ run               what all connections share: settings, the end of the run, the first failure
//!   ├─ connection        one connection's loop: connect, send, read, retry
//!   │   ├─ request       requests as bytes: rendered once, identifiers patched in place
//!   │   ├─ response      responses from bytes: status line, head, body
//!   │   ├─ socket        a query that tokio-uring does not offer
//!   │   └─ timer         a precise timer for `--rate`
//!   ├─ descriptor        tokio-uring's raw descriptors; the only unsafe code
//!   ├─ watchdog          closes connections that wait too long
//!   ├─ audit             the files of answered and lost messages
//!   └─ stats ─ report    counts and latencies; the table and the JSON
//! ```
//!
//! Exit codes: 0 if the run was clean, 1 if not (the reason is on standard error), 2 if the command line was wrong.

mod args;
mod hold;
mod push;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match args::Cli::parse().command {
        args::Command::Push(args) => push::main(&args),
        args::Command::Hold(args) => match hold::run(&args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("forebay-bench: {error}");
                ExitCode::FAILURE
            }
        },
    }
}
