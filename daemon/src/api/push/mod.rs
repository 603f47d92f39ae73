//! Pushes: from a body to records in the core's lane.

mod batch;
mod checks;
mod lines;
mod pushes;
mod wait;

pub(super) use checks::{check_queue, log_full};
pub use lines::Lines;
pub(super) use pushes::Pushes;

use super::{pushed::Pushed, reply::Reply, request::Request};
use crate::{
    http::{ErrorCode, Head, Refusal},
    json,
    json::{
        push,
        push::{PushError, PushLimits, PushRequest},
    },
};
use batch::{Batch, Target};
use std::borrow::Cow;
use wait::Wait;

/// The partition of a message that names none.
const PARTITION_DEFAULT: &str = "Default";

/// A push that was parsed and checked, of which nothing is in the log yet.
pub(super) struct Prepared<'c, 'a> {
    batch: Batch<'c, 'a, 'a>,
    wait: Wait,
    pushed: Pushed<'a>,
}

impl<'a> Prepared<'_, 'a> {
    /// Appends it, if the lane has room now; `None` if it is busy, and then nothing of it was kept.
    ///
    /// # Errors
    /// Why it is not taken.
    pub(super) fn append_now(mut self) -> Result<Option<Reply<'a>>, Refusal> {
        let is_appended = self.batch.append_now(&self.wait, &mut self.pushed)?;
        Ok(is_appended.then_some(Reply::Pushed(self.pushed)))
    }

    /// Appends it, waiting for room while the lane is busy.
    ///
    /// # Errors
    /// Why it is not taken.
    pub(super) async fn append(mut self) -> Result<Reply<'a>, Refusal> {
        self.batch.append(&self.wait, &mut self.pushed).await?;
        Ok(Reply::Pushed(self.pushed))
    }
}

/// `POST /api/v1/push`
pub(super) fn json<'c, 'a>(request: &Request<'_, 'c, 'a>) -> Result<Prepared<'c, 'a>, Refusal> {
    let Request { endpoints, head, grant, body, .. } = request;
    let pushes = &endpoints.pushes;
    let request = push::parse(body, &PushLimits::default())
        .map_err(|PushError { kind, message }| Refusal::new(kind.into(), message))?;
    let wait = Wait::of(pushes, request.is_buffered(), request.buffer_ms, request.buffer_max);
    let pushed = Pushed::nothing(wait.form(head));
    for (index, item) in request.items.iter().enumerate() {
        let checked = check_queue(grant, &item.queue).and_then(|()| pushes.check_queue_exists(&item.queue));
        checked.map_err(|refusal| of_item(index, refusal))?;
    }
    let mut batch = Batch::new(pushes, grant, &wait, request.items.len());
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
    Ok(Prepared { batch, wait, pushed })
}

/// `POST /push/{queue}[/{partition}]` with one payload.
pub(super) fn by_path<'c, 'a>(request: &Request<'_, 'c, 'a>) -> Result<Prepared<'c, 'a>, Refusal> {
    let Request { endpoints, head, params, grant, body, access: _ } = request;
    let pushes = &endpoints.pushes;
    let queue = params.value("queue").clone();
    let partition = params.get("partition").cloned().unwrap_or(Cow::Borrowed(PARTITION_DEFAULT));
    check_names(head, &queue, &partition)?;
    pushes.check_queue_exists(&queue)?;
    let wait = Wait::by_query(pushes, head.query)?;
    let pushed = Pushed::nothing(wait.form(head));
    json::validate(body).map_err(|error| Refusal::new((&error).into(), format!("payload: {error}")))?;
    let mut batch = Batch::new(pushes, grant, &wait, 1);
    let target = Target { queue, partition, namespace: Cow::default(), task: Cow::default() };
    batch.add(target, head.idempotency_key.map(Cow::Borrowed), None, body);
    Ok(Prepared { batch, wait, pushed })
}

/// Checks what comes by the path and by `Idempotency-Key`.
fn check_names(head: &Head<'_>, queue: &str, partition: &str) -> Result<(), Refusal> {
    let invalid = |what: &str, error: &str| Refusal::new(ErrorCode::InvalidRequest, format!("{what}: {error}"));
    push::check_queue(queue).map_err(|error| invalid("queue", error))?;
    push::check_partition(partition).map_err(|error| invalid("partition", error))?;
    match head.idempotency_key.map(push::check_transaction_id) {
        Some(Err(error)) => Err(invalid("Idempotency-Key", error)),
        _ => Ok(()),
    }
}

fn of_item(index: usize, refusal: Refusal) -> Refusal {
    let message = format!("items[{index}].queue: {}", refusal.message);
    Refusal { message: message.into(), ..refusal }
}
