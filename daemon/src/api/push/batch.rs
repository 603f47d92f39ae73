//! Messages on their way into the core's lane.

use super::{checks::check_rate, pushes::Pushes, wait::Wait};
use crate::{
    access::Grant,
    api::pushed::{Form, Pushed, PushedItem},
    http::Refusal,
    ids::unix_now,
    message::Message,
};
use forebay_wal::{frame::KIND_MESSAGE, group::Record, lane::AppendError};
use smallvec::SmallVec;
use std::{borrow::Cow, sync::atomic::Ordering, time::Duration};

/// Messages of a batch that need no allocation.
const FEW: usize = 4;

/// Where a message goes.
pub(super) struct Target<'p, 'i> {
    pub(super) queue: Cow<'i, str>,
    pub(super) partition: Cow<'p, str>,
    pub(super) namespace: Cow<'p, str>,
    pub(super) task: Cow<'p, str>,
}

/// Messages that go into the log all or none. Payloads are borrowed until they are there; what the reply says of the messages is
/// borrowed longer.
pub(super) struct Batch<'c, 'p, 'i> {
    pushes: &'c Pushes,
    grant: &'c Grant,
    now: Duration,
    awaited: bool,
    /// The heads of the messages, one after the other.
    heads: Vec<u8>,
    /// Where each head ends, and the payload.
    messages: SmallVec<[(usize, &'p [u8]); FEW]>,
    payload_bytes: usize,
    items: SmallVec<[PushedItem<'i>; 1]>,
}

impl<'c, 'p, 'i> Batch<'c, 'p, 'i> {
    pub(super) fn new(pushes: &'c Pushes, grant: &'c Grant, wait: &Wait, count: usize) -> Self {
        Self {
            pushes,
            grant,
            now: unix_now(),
            awaited: wait.awaited,
            heads: pushes.heads.take(),
            messages: SmallVec::with_capacity(count),
            payload_bytes: 0,
            items: SmallVec::with_capacity(count),
        }
    }

    pub(super) fn add(
        &mut self,
        target: Target<'_, 'i>,
        transaction_id: Option<Cow<'i, str>>,
        trace_id: Option<uuid::Uuid>,
        payload: &'p [u8],
    ) {
        let id = self.pushes.ids.make(self.now);
        let message = Message {
            id,
            accepted_us: self.now.as_micros() as i64,
            queue: &target.queue,
            partition: &target.partition,
            transaction_id: transaction_id.as_deref(),
            trace_id,
            namespace: &target.namespace,
            task: &target.task,
            producer_sub: self.grant.subject().unwrap_or_default(),
            awaited: self.awaited,
            payload,
        };
        message.encode_head(&mut self.heads);
        self.messages.push((self.heads.len(), payload));
        self.payload_bytes += payload.len();
        self.items.push(PushedItem { id, transaction_id, queue: target.queue });
    }

    pub(super) fn count(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    /// Appends the batch, waiting for room while the lane is busy; it is empty then.
    pub(super) async fn append(&mut self, wait: &Wait, pushed: &mut Pushed<'i>) -> Result<(), Refusal> {
        while !self.append_now(wait, pushed)? {
            self.pushes.lane.room().await;
        }
        Ok(())
    }

    /// Appends the batch if the lane has room now. Returns whether it had; the batch is empty then.
    pub(super) fn append_now(&mut self, wait: &Wait, pushed: &mut Pushed<'i>) -> Result<bool, Refusal> {
        let count = self.messages.len() as u64;
        if count == 0 {
            return Ok(true);
        }
        let pushes = self.pushes;
        pushed.begin_batch(&pushes.lane).map_err(|_| pushes.refusal(AppendError::Full))?;
        check_rate(self.grant, count)?;
        let mut head_start = 0;
        let heads = &self.heads;
        let records: SmallVec<[Record<'_>; FEW]> = self
            .messages
            .iter()
            .map(|&(head_end, body)| {
                let head = &heads[std::mem::replace(&mut head_start, head_end)..head_end];
                Record { kind: KIND_MESSAGE, head, body }
            })
            .collect();
        let (first_number, ticket) = match pushes.lane.append(&records, wait.patience) {
            Ok(appended) => appended,
            Err(error) => {
                self.grant.give_back(count);
                let has_room_later = error == AppendError::Busy && !pushes.lane.is_shutting_down();
                return if has_room_later { Ok(false) } else { Err(pushes.refusal(error)) };
            }
        };
        self.messages.clear();
        if self.awaited {
            pushed.commits.push(pushes.commits.add(first_number, count as usize));
        }
        pushed.add_batch(count, ticket);
        let items = std::mem::take(&mut self.items);
        match pushed.form {
            Form::Minimal => {}
            _ if pushed.items.is_empty() => pushed.items = items,
            _ => pushed.items.extend(items),
        }
        pushes.drain.counters.pushed_messages.fetch_add(count, Ordering::Relaxed);
        Ok(true)
    }
}

impl Drop for Batch<'_, '_, '_> {
    fn drop(&mut self) {
        self.pushes.heads.give_back(std::mem::take(&mut self.heads));
    }
}
