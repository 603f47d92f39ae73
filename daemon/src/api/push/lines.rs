//! A body of lines, appended as it comes: the memory for it is bounded, however long it is.

use super::{
    PARTITION_DEFAULT,
    batch::{Batch, Target},
    check_names, check_queue,
    pushes::Pushes,
    wait::Wait,
};
use crate::{
    access::{Access, AccessRequest, Grant},
    api::{
        pushed::{Form, Pushed},
        reply::Reply,
        routes::RouteMatch,
    },
    http::{ErrorCode, Head, Refusal},
    ingest::NotDurable,
    json,
    json::{ndjson, push},
    limits::{NDJSON_BATCH_BYTES, NDJSON_BATCH_MESSAGES, NDJSON_LISTED_MAX, NDJSON_WINDOW_BYTES},
    memory::Buffer,
};
use forebay_wal::lane::AppendError;
use std::borrow::Cow;

/// A push of lines under way.
pub struct Lines<'c, 'h> {
    pushes: &'c Pushes,
    access: &'c Access,
    grant: Grant,
    request: AccessRequest,
    queue: &'h str,
    partition: &'h str,
    key: Option<&'h str>,
    wait: Wait,
    pushed: Pushed<'h>,
    next_line: u64,
    /// Bytes at the start of the window in which there is no line end.
    searched_bytes: usize,
    /// Bytes appended since everything was durable last.
    undurable_bytes: usize,
    /// Messages whose commits are still waited for.
    uncounted: u64,
}

impl<'c, 'h> Lines<'c, 'h> {
    /// Begins a push.
    ///
    /// # Errors
    /// What is wrong with its head.
    pub(in crate::api) fn begin(
        pushes: &'c Pushes,
        access: &'c Access,
        head: &Head<'h>,
        found: &'h RouteMatch<'_>,
        grant: &Grant,
    ) -> Result<Self, Refusal> {
        let params = &found.params;
        let queue = params.value("queue");
        let partition = params.get("partition").map_or(PARTITION_DEFAULT, Cow::as_ref);
        check_names(head, queue, partition)?;
        pushes.check_queue_exists(queue)?;
        let wait = Wait::by_query(pushes, head.query)?;
        let mut pushed = Pushed::nothing(wait.form(head));
        pushed.is_lines = true;
        Ok(Self {
            pushes,
            access,
            grant: grant.clone(),
            request: found.route.access,
            queue,
            partition,
            key: head.idempotency_key,
            wait,
            pushed,
            next_line: 1,
            searched_bytes: 0,
            undurable_bytes: 0,
            uncounted: 0,
        })
    }

    /// Appends the whole lines at the start of `window` and removes them from it. `is_last`: the body is complete, so what
    /// follows the last line end is a line too. Waits for the disk, and for PostgreSQL, once many lines wait for them.
    ///
    /// # Errors
    /// What is wrong with a line, why the log does not take it, or that the token ended meanwhile; the lines before it are
    /// kept.
    pub async fn take(&mut self, window: &mut Buffer, is_last: bool) -> Result<(), Refusal> {
        self.look_again()?;
        let bytes = match ndjson::whole_lines_bytes(&window[self.searched_bytes..]) {
            _ if is_last => window.len(),
            0 => {
                self.searched_bytes = window.len();
                return self.check_length(window);
            }
            bytes => self.searched_bytes + bytes,
        };
        self.searched_bytes = 0;
        self.append(&window[..bytes]).await?;
        window.remove(bytes);
        if window.capacity() > 2 * NDJSON_WINDOW_BYTES {
            window.shrink_to(NDJSON_WINDOW_BYTES);
        }
        self.check_length(window)?;
        self.wait_if_much_is_pending(bytes).await
    }

    /// Looks again whether the sender may push: a body of lines has no end that a token could wait for.
    fn look_again(&mut self) -> Result<(), Refusal> {
        self.access.renew(&mut self.grant, self.request).and_then(|()| check_queue(&self.grant, self.queue))
    }

    /// Bytes of memory that it has, about.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.pushed.memory_bytes()
    }

    /// The reply. `refusal` says what ended the body early.
    pub fn reply(mut self, refusal: Option<Refusal>) -> Reply<'h> {
        self.pushed.ended_by = refusal.map(Box::new);
        Reply::Pushed(self.pushed)
    }

    async fn append(&mut self, lines: &[u8]) -> Result<(), Refusal> {
        let mut batch = Batch::new(self.pushes, &self.grant, &self.wait, 0);
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
                let full = std::mem::replace(&mut batch, Batch::new(self.pushes, &self.grant, &self.wait, 0));
                append(full, &self.wait, &mut self.pushed, &mut self.uncounted).await?;
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
            append(batch, &self.wait, &mut self.pushed, &mut self.uncounted).await?;
        }
        wrong.map_or(Ok(()), Err)
    }

    /// Checks a line; returns its transaction id.
    fn check(&self, number: u64, line: &[u8]) -> Result<Option<Cow<'h, str>>, Refusal> {
        if line.len() as u64 > self.pushes.config.max_body_bytes {
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
        // It may end with a CR, which does not count.
        if unfinished.len() as u64 > self.pushes.config.max_body_bytes + 1 {
            return Err(self.too_long(self.next_line));
        }
        Ok(())
    }

    fn too_long(&self, number: u64) -> Refusal {
        let max = self.pushes.config.max_body_bytes;
        Refusal::new(ErrorCode::BodyTooLarge, format!("line {number} is longer than {max} bytes"))
    }

    /// Has the appended lines written. Waits where too much would be on its way for this connection otherwise.
    async fn wait_if_much_is_pending(&mut self, bytes: usize) -> Result<(), Refusal> {
        // The client is not answered by this write: the next lines may be long in coming.
        self.pushes.lane.request_write(false);
        self.undurable_bytes += bytes;
        if self.undurable_bytes >= NDJSON_WINDOW_BYTES {
            // The reply says more: it waits for the same.
            match self.pushes.lane.durable(self.pushed.ticket.as_ref()).await {
                Ok(()) => self.pushed.set_durable(),
                Err(NotDurable::Refused { .. }) => return Err(self.pushes.refusal(AppendError::Full)),
                Err(NotDurable::Unknown) => return Err(ErrorCode::StorageFailed.into()),
            }
            self.undurable_bytes = 0;
        }
        if self.pushed.count > NDJSON_LISTED_MAX {
            self.pushed.form = Form::Minimal;
            self.pushed.items = Default::default();
        }
        if self.uncounted > NDJSON_LISTED_MAX {
            self.pushed.count_fates().await;
            self.uncounted = 0;
        }
        Ok(())
    }
}

async fn append<'h>(
    mut batch: Batch<'_, '_, 'h>,
    wait: &Wait,
    pushed: &mut Pushed<'h>,
    uncounted: &mut u64,
) -> Result<(), Refusal> {
    let before = pushed.count;
    batch.append(wait, pushed).await?;
    if wait.awaited {
        *uncounted += pushed.count - before;
    }
    Ok(())
}
