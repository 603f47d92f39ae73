//! `forebay-bench`, the load generator for Forebay.
//!
//! It drives a server over HTTP as its clients do and says what came of it: requests, messages and bytes a second, the
//! latencies, and each answer that was not what a client had to expect. It shares no code with the daemon, on purpose:
//! what measures and what is measured must not be wrong together.
//!
//! It promises
//! - a **closed loop**: a connection has at most `--pipeline` requests outstanding and sends no more before their answers; with
//!   `--rate` an **open** one, whose latencies count from when a request was due,
//! - that **every answer is read**, its status and the whole of its body, and that a run with one unexpected answer fails,
//! - that a message in the audit file **was answered** with a 2xx, and stands there before it is counted.
//!
//! It refuses what it cannot measure honestly: answers without a `Content-Length`, bodies of unbounded size, TLS.
//!
//! ```text
//! main ─ args            what was asked for
//!   hold                 idle connections
//!   push                 threads, one ring each; the verdict
//!   ├─ run               what all connections share: the plan, the end of the run, the first failure
//!   ├─ connection        one connection's loop: connect, send, read, retry
//!   │   ├─ request       bytes out: requests rendered once, identifiers patched in place
//!   │   ├─ response      bytes in: a status line, a head, a body
//!   │   └─ socket        what tokio-uring cannot tell of a socket; the only unsafe code
//!   ├─ watchdog          ends what waits too long
//!   ├─ audit             the file of answered messages
//!   └─ stats ─ report    counts and latencies; the table and the JSON
//! ```
//!
//! Exit codes: 0 the run was clean, 1 it was not (the reason stands on standard error), 2 the command line was wrong.

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
