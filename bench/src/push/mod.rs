//! `forebay-bench push`: runs the connections, merges their counts, and reports the result.

mod audit;
mod connection;
mod descriptor;
mod report;
mod request;
mod response;
mod run;
mod socket;
mod stats;
mod timer;
mod watchdog;

use std::cell::RefCell;
use std::io;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use crate::args::PushArgs;

use self::connection::Connection;
use self::report::Report;
use self::run::{Failure, Run};
use self::stats::Stats;

const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;

/// Entries of a thread's submission queue. They do not limit the connections: a full queue is submitted early.
const RING_ENTRIES: u32 = 1024;

/// Runs the load and prints the report. The exit code says whether all responses were as a client expects.
pub(crate) fn main(args: &PushArgs) -> ExitCode {
    if let Err(error) = args.check() {
        eprintln!("forebay-bench: {error}");
        return ExitCode::from(EXIT_USAGE);
    }
    let run = match Run::new(args.clone()) {
        Ok(run) => Arc::new(run),
        Err(failure) => {
            eprintln!("forebay-bench: {failure}");
            return ExitCode::from(EXIT_FAILED);
        }
    };
    let threads = thread_count(args);
    let stats = drive(&run, threads);
    let failure = run.take_failure().or_else(|| (stats.answered_requests == 0).then_some(Failure::NothingAnswered));

    let report = Report::new(args, run.id(), threads, &stats, failure.as_ref());
    let printed = if args.json { report.print_json() } else { report.print_table() };
    if let Some(failure) = &failure {
        eprintln!("forebay-bench: {failure}");
    }
    if let Err(error) = &printed {
        eprintln!("forebay-bench: cannot print the report: {error}");
    }
    if failure.is_some() || printed.is_err() { ExitCode::from(EXIT_FAILED) } else { ExitCode::SUCCESS }
}

fn thread_count(args: &PushArgs) -> u32 {
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let wanted = args.threads.map_or_else(|| u32::try_from(cores).unwrap_or(u32::MAX), u32::from);
    wanted.clamp(1, args.connections)
}

/// Distributes the connections over `threads` threads and merges their counts.
fn drive(run: &Arc<Run>, threads: u32) -> Stats {
    let mut all = Stats::new();
    let mut workers = Vec::new();
    for worker in 0..threads {
        let mine = Arc::clone(run);
        let spawned = thread::Builder::new().name(format!("push-{worker}")).spawn(move || {
            work(&mine, (worker..mine.args().connections).step_by(threads as usize)).unwrap_or_else(|error| {
                mine.fail(Failure::Ring(error));
                Stats::new()
            })
        });
        match spawned {
            Ok(handle) => workers.push(handle),
            Err(error) => run.fail(Failure::Spawn(error)),
        }
    }
    for handle in workers {
        match handle.join() {
            Ok(stats) => all.merge(&stats),
            Err(_) => run.fail(Failure::Panic),
        }
    }
    all
}

/// One thread: a ring, its connections, and their watchdog.
fn work(run: &Arc<Run>, connections: impl Iterator<Item = u32>) -> io::Result<Stats> {
    // Without the cooperative flag the kernel interrupts this thread for every completion.
    let mut builder = tokio_uring::builder();
    builder.entries(RING_ENTRIES).uring_builder(tokio_uring::uring_builder().setup_coop_taskrun());
    let runtime = tokio_uring::Runtime::new(&builder)?;
    let stats = Rc::new(RefCell::new(Stats::new()));
    runtime.block_on(async {
        let mut watched = Vec::new();
        let mut tasks = Vec::new();
        for index in connections {
            let connection = Connection::new(Arc::clone(run), index, Rc::clone(&stats));
            watched.push(connection.watched());
            tasks.push(tokio_uring::spawn(connection.run()));
        }
        let watchdog = tokio_uring::spawn(watchdog::watch(Arc::clone(run), watched));
        for task in tasks {
            if task.await.is_err() {
                run.fail(Failure::Panic);
            }
        }
        watchdog.abort();
    });
    Ok(stats.take())
}
