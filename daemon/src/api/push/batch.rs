//! Messages on their way into the core's lane.

use super::{refusal_of, wait::Wait};
use crate::api::{
    admit::check_rate,
    pushed::{Form, Pushed, PushedItem},
};
use crate::{access::Grant, http::Refusal, ids::unix_now, ingest::Core, message::Message};
use forebay_wal::{
    frame::KIND_MESSAGE,
    group::{Appended, Record},
    lane::AppendError,
};
use smallvec::SmallVec;
use std::{borrow::Cow, time::Duration};

/// Messages of a batch that need no memory of their own.
const FEW: usize = 4;

/// Where a message goes.
pub(super) struct Target<'p, 'i> {
    pub(super) queue: Cow<'i, str>,
    pub(super) partition: Cow<'p, str>,
    pub(super) namespace: Cow<'p, str>,
    pub(super) task: Cow<'p, str>,
}

/// Messages that go into the log whole or not at all. Their payloads are needed until they are there, what is said of them in
/// the answer longer.
pub(super) struct Batch<'c, 'p, 'i> {
    core: &'c Core,
    grant: &'c Grant,
    now: Duration,
    awaited: bool,
    /// The messages' heads, one behind the other.
    heads: Vec<u8>,
    /// Where each ends, and its payload.
    messages: SmallVec<[(usize, &'p [u8]); FEW]>,
    payload_bytes: usize,
    items: SmallVec<[PushedItem<'i>; 1]>,
}

impl<'c, 'p, 'i> Batch<'c, 'p, 'i> {
    pub(super) fn new(core: &'c Core, grant: &'c Grant, wait: &Wait, count: usize) -> Self {
        Self {
            core,
            grant,
            now: unix_now(),
            awaited: wait.awaited,
            heads: core.scratch(),
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

    /// Appends it, waiting for room while the lane is busy. It is empty then.
    pub(super) async fn append(&mut self, wait: &Wait, pushed: &mut Pushed<'i>) -> Result<(), Refusal> {
        while !self.append_now(wait, pushed)? {
            self.core.room().await;
        }
        Ok(())
    }

    /// Appends it, if the lane has room now. Returns whether it had; the batch is empty then.
    pub(super) fn append_now(&mut self, wait: &Wait, pushed: &mut Pushed<'i>) -> Result<bool, Refusal> {
        let count = self.messages.len() as u64;
        if count == 0 {
            return Ok(true);
        }
        check_rate(self.grant, count)?;
        let core = self.core;
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
        let Appended { first_number, end_ordinal } = match core.append(&records, wait.patience) {
            Ok(appended) => appended,
            Err(error) => {
                self.grant.give_back(count);
                return if error == AppendError::Busy && !core.is_stopping() {
                    Ok(false)
                } else {
                    Err(refusal_of(core, error))
                };
            }
        };
        self.messages.clear();
        if self.awaited {
            pushed.awaited.push(core.await_commit(first_number, count as usize));
        }
        pushed.count += count;
        pushed.end_ordinal = end_ordinal;
        let items = std::mem::take(&mut self.items);
        match pushed.form {
            Form::Minimal => {}
            _ if pushed.items.is_empty() => pushed.items = items,
            _ => pushed.items.extend(items),
        }
        core.shared.drain.counters.pushed_messages.fetch_add(count, std::sync::atomic::Ordering::Relaxed);
        Ok(true)
    }
}

impl Drop for Batch<'_, '_, '_> {
    fn drop(&mut self) {
        self.core.give_back(std::mem::take(&mut self.heads));
    }
}
