//! Printing to standard output.

use super::Exit;
use crate::ignore::ignore;
use std::{
    fmt::Display,
    io::{self, BufWriter, Write},
    sync::mpsc::channel,
    thread,
    time::Duration,
};

/// Prints to standard output. A reader that closes the pipe early, as `head` does, is no failure.
pub(super) fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Exit> {
    let mut out = BufWriter::new(io::stdout().lock());
    printed(write(&mut out).and_then(|()| out.flush()))
}

/// Time that a note gets. Standard error may take nothing, because its reader does not read.
const NOTE_PATIENCE: Duration = Duration::from_secs(1);

/// Prints a note on standard error. Nothing depends on whether somebody reads it, and nobody waits for that.
pub(super) fn note(text: impl Display) {
    let line = format!("forebay: {text}\n");
    let (written, writing) = channel();
    let write = move || {
        ignore(io::stderr().write_all(line.as_bytes()), "nobody reads standard error");
        ignore(written.send(()), "the note took too long");
    };
    match thread::Builder::new().name("note".into()).spawn(write) {
        Ok(_) => ignore(writing.recv_timeout(NOTE_PATIENCE), "standard error takes nothing"),
        Err(error) => tracing::debug!(%error, "no thread for a note"),
    }
}

/// The outcome of printing, with the same exception.
pub(super) fn printed(outcome: io::Result<()>) -> Result<(), Exit> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| Exit::storage(format!("cannot write to standard output: {error}"))),
    }
}

/// Prints a value as one line of JSON.
pub(super) fn print_json(out: &mut dyn Write, value: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}
