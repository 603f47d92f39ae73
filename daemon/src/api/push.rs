//! Pushes: from a body to records in the core's lane.

use super::{
    admit,
    reply::{Form, Pushed, PushedItem, Reply},
};
use crate::{
    core::Core,
    drain::signal::Patience,
    http::{Head, Refusal, path},
    ids::unix_now,
    json::{
        self, ndjson,
        push::{self, PushError, PushLimits, PushRequest},
    },
    limits::{NDJSON_BATCH_BYTES, NDJSON_BATCH_MESSAGES},
    message::Message,
    shared::DatabaseHealth,
};
use forebay_wal::{
    frame::KIND_MESSAGE,
    group::{Appended, Record},
    lane::AppendError,
};
use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

/// Where a message goes that does not say.
const PARTITION_DEFAULT: &str = "Default";

/// `POST /api/v1/push`
pub(super) async fn json<'a>(core: &Core, head: &Head<'a>, body: &'a [u8]) -> Result<Reply<'a>, Refusal> {
    let request = push::parse(body, &PushLimits::default())
        .map_err(|PushError { code, message }| Refusal::new(400, code, message))?;
    let wait = Wait::of(core, request.is_buffered(), request.buffer_ms, request.buffer_max);
    let form = wait.form(head);
    if request.items.is_empty() {
        return Ok(Reply::Pushed(Box::new(Pushed::nothing(form))));
    }
    for (index, item) in request.items.iter().enumerate() {
        check_queue_exists(core, &item.queue).map_err(|refusal| of_item(index, refusal))?;
    }
    let mut batch = Batch::new(core, &wait, request.items.len());
    let PushRequest { items, .. } = request;
    for item in items {
        let target = Target {
            queue: item.queue,
            partition: item.partition.unwrap_or(Cow::Borrowed(PARTITION_DEFAULT)),
            namespace: item.namespace.unwrap_or_default(),
            task: item.task.unwrap_or_default(),
        };
        batch.add(target, item.transaction_id, item.trace_id, item.payload);
    }
    let mut pushed = Pushed::nothing(form);
    batch.append(core, &wait, &mut pushed).await.map_err(|error| refusal_of(core, error))?;
    Ok(Reply::Pushed(Box::new(pushed)))
}

/// `POST /push/{queue}[/{partition}]`
pub(super) async fn by_path<'a>(
    core: &Core,
    head: &Head<'a>,
    queue: &str,
    partition: Option<&str>,
    body: &'a [u8],
) -> Result<Reply<'a>, Refusal> {
    let partition = partition.unwrap_or(PARTITION_DEFAULT);
    let invalid = |what: &str, error: &str| Refusal::new(400, "invalid_request", format!("{what}: {error}"));
    push::check_queue(queue).map_err(|error| invalid("queue", error))?;
    push::check_partition(partition).map_err(|error| invalid("partition", error))?;
    if let Some(key) = head.idempotency_key {
        push::check_transaction_id(key).map_err(|error| invalid("Idempotency-Key", error))?;
    }
    check_queue_exists(core, queue)?;
    let wait = Wait::by_query(core, head.query)?;
    let target = || Target {
        queue: Cow::Owned(queue.to_owned()),
        partition: Cow::Owned(partition.to_owned()),
        namespace: Cow::default(),
        task: Cow::default(),
    };
    let mut pushed = Pushed::nothing(wait.form(head));
    if head.media_type().is_some_and(|media_type| media_type.eq_ignore_ascii_case("application/x-ndjson")) {
        append_lines(core, head, &wait, target, body, &mut pushed).await;
        return Ok(Reply::Pushed(Box::new(pushed)));
    }
    json::validate(body).map_err(|error| Refusal::new(400, error.code(), format!("payload: {error}")))?;
    let mut batch = Batch::new(core, &wait, 1);
    batch.add(target(), head.idempotency_key.map(Cow::Borrowed), None, body);
    batch.append(core, &wait, &mut pushed).await.map_err(|error| refusal_of(core, error))?;
    Ok(Reply::Pushed(Box::new(pushed)))
}

/// Appends line by line, in order; what ends it early is left in `pushed`.
async fn append_lines<'a>(
    core: &Core,
    head: &Head<'a>,
    wait: &Wait,
    target: impl Fn() -> Target<'a>,
    body: &'a [u8],
    pushed: &mut Pushed<'a>,
) {
    let mut batch = Batch::new(core, wait, 0);
    for (number, line) in ndjson::lines(body) {
        if let Err(error) = json::validate(line) {
            pushed.ended_by = Some(Refusal::new(400, error.code(), format!("line {number}: {error}")));
            break;
        }
        let transaction_id = head.idempotency_key.map(|key| Cow::Owned(format!("{key}/{number}")));
        if transaction_id.as_deref().is_some_and(|id| push::check_transaction_id(id).is_err()) {
            let what = format!("line {number}: Idempotency-Key with the line's number is too long");
            pushed.ended_by = Some(Refusal::new(400, "invalid_request", what));
            break;
        }
        batch.add(target(), transaction_id, None, line);
        if batch.is_large() {
            let full = std::mem::replace(&mut batch, Batch::new(core, wait, 0));
            if let Err(error) = full.append(core, wait, pushed).await {
                pushed.ended_by = Some(refusal_of(core, error));
                return;
            }
        }
    }
    if !batch.is_empty()
        && let Err(error) = batch.append(core, wait, pushed).await
    {
        pushed.ended_by = Some(refusal_of(core, error));
    }
}

/// Where a push may not make its queue, refuses one that is not there.
fn check_queue_exists(core: &Core, queue: &str) -> Result<(), Refusal> {
    if core.shared.config.auto_create_queues {
        return Ok(());
    }
    match core.shared.has_queue(queue) {
        Some(true) => Ok(()),
        Some(false) => Err(Refusal::new(404, "queue_not_found", format!("queue {queue} does not exist"))),
        None => {
            let what = "which queues exist is not known before PostgreSQL was reached once";
            Err(Refusal::new(503, "queues_unknown", what).retry_after_s(1))
        }
    }
}

fn of_item(index: usize, refusal: Refusal) -> Refusal {
    let message = format!("items[{index}].queue: {}", refusal.message);
    Refusal { message: message.into(), ..refusal }
}

fn refusal_of(core: &Core, error: AppendError) -> Refusal {
    match error {
        AppendError::TooLarge { max } => {
            Refusal::new(413, "body_too_large", format!("a push takes at most {max} bytes in the log"))
        }
        AppendError::Full => admit::log_full(core),
        // Until then `Core::append` waits while the lane is busy.
        AppendError::Busy => Refusal::new(503, "shutting_down", "the daemon is shutting down").retry_after_s(1),
        AppendError::Poisoned => admit::storage_failed(),
    }
}

/// What a push's answer waits for.
struct Wait {
    patience: Patience,
    buffered: bool,
    /// Whether the commit is waited for: with PostgreSQL away nobody does, the answer is the log's.
    awaited: bool,
}

impl Wait {
    fn of(core: &Core, buffered: bool, buffer_ms: Option<u32>, buffer_max: Option<u32>) -> Self {
        if !buffered {
            let awaited = core.shared.health() != DatabaseHealth::Disconnected;
            return Self { patience: Patience::NONE, buffered, awaited };
        }
        let config = &core.shared.config;
        let wait = Duration::from_millis(buffer_ms.unwrap_or(config.flush_ms).into());
        let count = u64::from(buffer_max.unwrap_or(config.flush_max));
        Self { patience: Patience { until: Some(Instant::now() + wait), count }, buffered, awaited: false }
    }

    /// Buffered, unless `wait=postgres` says otherwise.
    fn by_query(core: &Core, query: &str) -> Result<Self, Refusal> {
        let (mut buffered, mut buffer_ms, mut buffer_max) = (true, None, None);
        for pair in path::query_pairs(query) {
            let (name, value) = pair?;
            let invalid = |error: &str| Refusal::new(400, "invalid_request", format!("{name}: {error}"));
            match name.as_ref() {
                "bufferMs" => buffer_ms = Some(push::parse_buffer_ms(&value).map_err(invalid)?),
                "bufferMax" => buffer_max = Some(push::parse_buffer_max(&value).map_err(invalid)?),
                "wait" if value == "postgres" => buffered = false,
                "wait" => return Err(invalid("must be postgres, or left out")),
                _ => return Err(invalid("there is no such parameter; there are bufferMs, bufferMax and wait")),
            }
        }
        if !buffered && (buffer_ms.is_some() || buffer_max.is_some()) {
            return Err(Refusal::new(
                400,
                "invalid_request",
                "wait=postgres and bufferMs or bufferMax exclude each other",
            ));
        }
        Ok(Self::of(core, buffered, buffer_ms, buffer_max))
    }

    fn form(&self, head: &Head<'_>) -> Form {
        match (head.prefer_minimal, self.buffered) {
            (true, _) => Form::Minimal,
            (false, true) => Form::Object,
            (false, false) => Form::Array,
        }
    }
}

struct Target<'a> {
    queue: Cow<'a, str>,
    partition: Cow<'a, str>,
    namespace: Cow<'a, str>,
    task: Cow<'a, str>,
}

/// Messages that go into the log whole or not at all.
struct Batch<'c, 'a> {
    core: &'c Core,
    now: Duration,
    awaited: bool,
    /// The messages' heads, one behind the other.
    heads: Vec<u8>,
    /// Where each ends.
    head_ends: Vec<usize>,
    payloads: Vec<&'a [u8]>,
    payload_bytes: usize,
    items: Vec<PushedItem<'a>>,
}

impl<'c, 'a> Batch<'c, 'a> {
    fn new(core: &'c Core, wait: &Wait, count: usize) -> Self {
        Self {
            core,
            now: unix_now(),
            awaited: wait.awaited,
            heads: Vec::with_capacity(128 * count),
            head_ends: Vec::with_capacity(count),
            payloads: Vec::with_capacity(count),
            payload_bytes: 0,
            items: Vec::with_capacity(count),
        }
    }

    fn add(
        &mut self,
        target: Target<'a>,
        transaction_id: Option<Cow<'a, str>>,
        trace_id: Option<uuid::Uuid>,
        payload: &'a [u8],
    ) {
        let id = self.core.ids.make(self.now);
        let message = Message {
            id,
            accepted_us: self.now.as_micros() as i64,
            queue: &target.queue,
            partition: &target.partition,
            transaction_id: transaction_id.as_deref(),
            trace_id,
            namespace: &target.namespace,
            task: &target.task,
            awaited: self.awaited,
            payload,
        };
        message.encode_head(&mut self.heads);
        self.head_ends.push(self.heads.len());
        self.payloads.push(payload);
        self.payload_bytes += payload.len();
        self.items.push(PushedItem { id, transaction_id, queue: target.queue });
    }

    fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    fn is_large(&self) -> bool {
        self.items.len() >= NDJSON_BATCH_MESSAGES || self.payload_bytes >= NDJSON_BATCH_BYTES
    }

    async fn append(self, core: &Core, wait: &Wait, pushed: &mut Pushed<'a>) -> Result<(), AppendError> {
        let mut head_start = 0;
        let records: Vec<Record<'_>> = self
            .head_ends
            .iter()
            .zip(&self.payloads)
            .map(|(&head_end, &body)| {
                let head = &self.heads[std::mem::replace(&mut head_start, head_end)..head_end];
                Record { kind: KIND_MESSAGE, head, body }
            })
            .collect();
        let Appended { first_number, end_ordinal } = core.append(&records, wait.patience).await?;
        let count = self.items.len();
        if self.awaited {
            pushed.awaited.push(core.await_commit(first_number, count));
        }
        pushed.count += count as u64;
        pushed.end_ordinal = end_ordinal;
        if pushed.form != Form::Minimal {
            pushed.items.extend(self.items);
        }
        core.shared.counters.pushed_messages.fetch_add(count as u64, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }
}

impl Pushed<'_> {
    fn nothing(form: Form) -> Self {
        Self { form, items: Vec::new(), count: 0, end_ordinal: 0, awaited: Vec::new(), ended_by: None }
    }
}
