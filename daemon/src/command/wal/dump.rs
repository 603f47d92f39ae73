//! `wal dump`: the messages as NDJSON.

use super::{Exit, finding, look::Look, printed, record};
use clap::Args;
use std::io::{self, BufWriter, Write};

/// Which messages.
#[derive(Args)]
pub(in crate::command) struct Selection {
    /// Only those of this queue
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
    /// Only those from this number on
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    from: u64,
    /// So many at most
    #[arg(long, value_name = "COUNT", default_value_t = u64::MAX, hide_default_value = true)]
    limit: u64,
}

pub(super) fn run(look: &Look, selection: &Selection) -> Result<(), Exit> {
    // Who reads the messages only does not miss that some are missing.
    finding::print_damage(look);
    let mut out = BufWriter::new(io::stdout().lock());
    let mut records = look.records()?;
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
