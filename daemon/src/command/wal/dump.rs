//! `wal dump`: the messages as NDJSON.

use super::{finding, inspection::Inspection, record};
use crate::command::{Exit, print::printed};
use clap::Args;
use std::io::{self, BufWriter, Write};

/// The messages to print.
#[derive(Args)]
pub(crate) struct Selection {
    /// Only messages of this queue
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
    /// Only messages from this number on
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    from: u64,
    /// At most this many messages
    #[arg(long, value_name = "COUNT", default_value_t = u64::MAX, hide_default_value = true)]
    limit: u64,
}

pub(super) fn run(log: &Inspection, selection: &Selection) -> Result<(), Exit> {
    // Readers of the messages alone would not notice that some are missing.
    finding::print_damage(log);
    let mut out = BufWriter::new(io::stdout().lock());
    let mut records = log.records()?;
    let mut line = Vec::new();
    let mut left = selection.limit;
    while left > 0
        && let Some(found) = records.next()?
    {
        let message = record::message(&found);
        let queue_matches = |queue: &String| message.as_ref().is_some_and(|message| message.queue == queue);
        if found.header.number < selection.from || !selection.queue.as_ref().is_none_or(queue_matches) {
            continue;
        }
        left -= 1;
        let outcome = record::render(&found, message.as_ref(), &mut line).and_then(|()| out.write_all(&line));
        if outcome.is_err() {
            return printed(outcome);
        }
    }
    printed(out.flush())
}
