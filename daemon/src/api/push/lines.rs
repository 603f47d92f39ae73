//! A body of lines, appended as it comes: what is held of it is bounded, however long it is.

use super::{
    PARTITION_DEFAULT,
    batch::{Batch, Target},
    check_names, check_queue_exists,
    wait::Wait,
};
use crate::api::{
    RouteMatch,
    pushed::{Form, Pushed},
    reply::Reply,
};
use crate::{
    access::Grant,
    http::{ErrorCode, Head, Refusal},
    ingest::Core,
    json,
    json::{ndjson, push},
    limits::{NDJSON_BATCH_BYTES, NDJSON_BATCH_MESSAGES, NDJSON_LISTED_MAX, NDJSON_WINDOW_BYTES},
};
use std::borrow::Cow;

/// A push of lines under way.
pub struct Lines<'c, 'h> {
    core: &'c Core,
    grant: Grant,
    queue: &'h str,
    partition: &'h str,
    key: Option<&'h str>,
    wait: Wait,
    pushed: Pushed<'h>,
    next_line: u64,
    /// How far at the window's start there is known to be no end of a line.
    looked_at: usize,
    /// Bytes that were appended since all was durable.
    undurable_bytes: usize,
    /// Messages whose commit nobody has waited for yet.
    unsettled: u64,
}

impl<'c, 'h> Lines<'c, 'h> {
    /// Begins one.
    ///
    /// # Errors
    /// What is wrong with its head.
    pub fn begin(core: &'c Core, head: &Head<'h>, found: &'h RouteMatch<'_>, grant: &Grant) -> Result<Self, Refusal> {
        let queue = found.params.value("queue");
        let partition = found.params.get("partition").map_or(PARTITION_DEFAULT, Cow::as_ref);
        check_names(head, queue, partition)?;
        check_queue_exists(core, queue)?;
        let wait = Wait::by_query(core, head.query)?;
        let pushed = Pushed::nothing(wait.form(head));
        Ok(Self {
            core,
            grant: grant.clone(),
            queue,
            partition,
            key: head.idempotency_key,
            wait,
            pushed,
            next_line: 1,
            looked_at: 0,
            undurable_bytes: 0,
            unsettled: 0,
        })
    }

    /// Appends the whole lines at the start of `window` and takes them out of it; with the last part of a body what is left is a
    /// line too. Waits for the disk, and for PostgreSQL, when too much waits for them.
    ///
    /// # Errors
    /// What is wrong with a line, or why the log does not take it; those before it are kept.
    pub async fn take(&mut self, window: &mut Vec<u8>, is_last: bool) -> Result<(), Refusal> {
        let bytes = match ndjson::whole_lines_bytes(&window[self.looked_at..]) {
            _ if is_last => window.len(),
            0 => {
                self.looked_at = window.len();
                return self.check_length(window);
            }
            bytes => self.looked_at + bytes,
        };
        self.looked_at = 0;
        self.append(&window[..bytes]).await?;
        window.drain(..bytes);
        if window.capacity() > 2 * NDJSON_WINDOW_BYTES {
            window.shrink_to(NDJSON_WINDOW_BYTES);
        }
        self.check_length(window)?;
        self.wait_a_moment(bytes).await
    }

    /// The answer, once its messages are durable; `refusal` says what ended the body early.
    pub fn reply(mut self, refusal: Option<Refusal>) -> Reply<'h> {
        self.pushed.ended_by = refusal.map(Box::new);
        Reply::Pushed(self.pushed)
    }

    async fn append(&mut self, lines: &[u8]) -> Result<(), Refusal> {
        let mut batch = Batch::new(self.core, &self.grant, &self.wait, 0);
        let mut lines = ndjson::lines_from(lines, self.next_line);
        let mut wrong = None;
        for (number, line) in lines.by_ref() {
            let transaction_id = match self.check(number, line) {
                Ok(transaction_id) => transaction_id,
                Err(refusal) => {
                    wrong = Some(refusal);
                    break;
                }
            };
            let is_full = batch.count() >= NDJSON_BATCH_MESSAGES
                || batch.count() > 0 && batch.payload_bytes() + line.len() > NDJSON_BATCH_BYTES;
            if is_full {
                let full = std::mem::replace(&mut batch, Batch::new(self.core, &self.grant, &self.wait, 0));
                append(full, &self.wait, &mut self.pushed, &mut self.unsettled).await?;
            }
            let target = Target {
                queue: Cow::Borrowed(self.queue),
                partition: Cow::Borrowed(self.partition),
                namespace: Cow::default(),
                task: Cow::default(),
            };
            batch.add(target, transaction_id, None, line);
        }
        self.next_line = lines.next_line();
        if batch.count() > 0 {
            append(batch, &self.wait, &mut self.pushed, &mut self.unsettled).await?;
        }
        wrong.map_or(Ok(()), Err)
    }

    /// Checks a line; returns its transaction id.
    fn check(&self, number: u64, line: &[u8]) -> Result<Option<Cow<'h, str>>, Refusal> {
        if line.len() as u64 > self.core.shared.config.max_body_bytes {
            return Err(self.too_long(number));
        }
        json::validate(line).map_err(|error| Refusal::new((&error).into(), format!("line {number}: {error}")))?;
        let Some(key) = self.key else { return Ok(None) };
        let transaction_id = format!("{key}/{number}");
        push::check_transaction_id(&transaction_id).map_err(|_| {
            let what = format!("line {number}: Idempotency-Key with the line's number is too long");
            Refusal::new(ErrorCode::InvalidRequest, what)
        })?;
        Ok(Some(Cow::Owned(transaction_id)))
    }

    fn check_length(&self, unfinished: &[u8]) -> Result<(), Refusal> {
        // It may still end with a CR, which is not counted.
        if unfinished.len() as u64 > self.core.shared.config.max_body_bytes + 1 {
            return Err(self.too_long(self.next_line));
        }
        Ok(())
    }

    fn too_long(&self, number: u64) -> Refusal {
        let max = self.core.shared.config.max_body_bytes;
        Refusal::new(ErrorCode::BodyTooLarge, format!("line {number} is longer than {max} bytes"))
    }

    /// So that what is on its way for one connection is bounded.
    async fn wait_a_moment(&mut self, bytes: usize) -> Result<(), Refusal> {
        // The next lines may be long in coming.
        self.core.submit(false);
        self.undurable_bytes += bytes;
        if self.undurable_bytes >= NDJSON_WINDOW_BYTES {
            // The answer says it if the disk fails.
            if self.core.durable(self.pushed.end_ordinal).await.is_err() {
                return Err(ErrorCode::StorageFailed.into());
            }
            self.undurable_bytes = 0;
        }
        if self.pushed.count > NDJSON_LISTED_MAX {
            self.pushed.form = Form::Minimal;
            self.pushed.items = Default::default();
        }
        if self.unsettled > NDJSON_LISTED_MAX {
            self.pushed.settle().await;
            self.unsettled = 0;
        }
        Ok(())
    }
}

async fn append<'h>(
    mut batch: Batch<'_, '_, 'h>,
    wait: &Wait,
    pushed: &mut Pushed<'h>,
    unsettled: &mut u64,
) -> Result<(), Refusal> {
    let before = pushed.count;
    batch.append(wait, pushed).await?;
    if wait.awaited {
        *unsettled += pushed.count - before;
    }
    Ok(())
}
