//! Printing to standard output.

use super::Exit;
use crate::ignore::ignore;
use std::{
    fmt::Display,
    io::{self, BufWriter, Write},
};

/// Prints to standard output. A reader that closes the pipe early, as `head` does, is no failure.
pub(super) fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Exit> {
    let mut out = BufWriter::new(io::stdout().lock());
    printed(write(&mut out).and_then(|()| out.flush()))
}

/// Prints a note on standard error. Nothing depends on whether somebody reads it.
pub(super) fn note(text: impl Display) {
    ignore(writeln!(io::stderr(), "forebay: {text}"), "nobody reads standard error");
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
