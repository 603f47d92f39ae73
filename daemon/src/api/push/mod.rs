//! Pushes: from a body to records in the core's lane.

mod batch;
mod lines;
mod wait;

pub use lines::Lines;

use super::{
    Route,
    admit::{self, check_queue},
    reply::{Form, Pushed, Reply},
};
use crate::{
    access::Grant,
    core::Core,
    http::{Head, Refusal},
    json::{
        self,
        push::{self, PushError, PushLimits, PushRequest},
    },
};
use batch::{Batch, Target};
use forebay_wal::lane::AppendError;
use std::borrow::Cow;
use wait::Wait;

/// Where a message goes that does not say.
const PARTITION_DEFAULT: &str = "Default";

/// `POST /api/v1/push`
pub(super) async fn json<'a>(
    core: &Core,
    head: &Head<'a>,
    grant: &Grant,
    body: &'a [u8],
) -> Result<Reply<'a>, Refusal> {
    let request = push::parse(body, &PushLimits::default())
        .map_err(|PushError { code, message }| Refusal::new(400, code, message))?;
    let wait = Wait::of(core, request.is_buffered(), request.buffer_ms, request.buffer_max);
    let mut pushed = Pushed::nothing(wait.form(head));
    if request.items.is_empty() {
        return Ok(Reply::Pushed(pushed));
    }
    for (index, item) in request.items.iter().enumerate() {
        let checked = check_queue(grant, &item.queue).and_then(|()| check_queue_exists(core, &item.queue));
        checked.map_err(|refusal| of_item(index, refusal))?;
    }
    let mut batch = Batch::new(core, grant, &wait, request.items.len());
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
    batch.append(&wait, &mut pushed).await?;
    Ok(Reply::Pushed(pushed))
}

/// `POST /push/{queue}[/{partition}]` with a body that is at hand.
pub(super) async fn by_path<'a>(
    core: &Core,
    head: &Head<'a>,
    route: Route<'a>,
    grant: &Grant,
    body: &'a [u8],
) -> Result<Reply<'a>, Refusal> {
    if route.takes_lines(head) {
        return few_lines(core, head, &route, grant, body).await;
    }
    let Route::PushByPath { queue, partition } = route else { return json(core, head, grant, body).await };
    let partition = partition.unwrap_or(Cow::Borrowed(PARTITION_DEFAULT));
    check_names(head, &queue, &partition)?;
    check_queue_exists(core, &queue)?;
    let wait = Wait::by_query(core, head.query)?;
    let mut pushed = Pushed::nothing(wait.form(head));
    json::validate(body).map_err(|error| Refusal::new(400, error.code(), format!("payload: {error}")))?;
    let mut batch = Batch::new(core, grant, &wait, 1);
    let target = Target { queue, partition, namespace: Cow::default(), task: Cow::default() };
    batch.add(target, head.idempotency_key.map(Cow::Borrowed), None, body);
    batch.append(&wait, &mut pushed).await?;
    Ok(Reply::Pushed(pushed))
}

/// Lines that are at hand: few, so their names may be made anew.
async fn few_lines<'a>(
    core: &Core,
    head: &Head<'a>,
    route: &Route<'a>,
    grant: &Grant,
    body: &'a [u8],
) -> Result<Reply<'a>, Refusal> {
    let mut lines = Lines::begin(core, head, route, grant)?;
    let mut window = body.to_vec();
    let ended_by = lines.take(&mut window, true).await.err();
    Ok(lines.reply(ended_by).into_owned())
}

/// Checks what comes by the path and by `Idempotency-Key`.
fn check_names(head: &Head<'_>, queue: &str, partition: &str) -> Result<(), Refusal> {
    let invalid = |what: &str, error: &str| Refusal::new(400, "invalid_request", format!("{what}: {error}"));
    push::check_queue(queue).map_err(|error| invalid("queue", error))?;
    push::check_partition(partition).map_err(|error| invalid("partition", error))?;
    match head.idempotency_key.map(push::check_transaction_id) {
        Some(Err(error)) => Err(invalid("Idempotency-Key", error)),
        _ => Ok(()),
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

impl Pushed<'_> {
    fn nothing(form: Form) -> Self {
        Self {
            form,
            items: Default::default(),
            count: 0,
            end_ordinal: 0,
            awaited: Default::default(),
            settled: None,
            ended_by: None,
        }
    }
}
