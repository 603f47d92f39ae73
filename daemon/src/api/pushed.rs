//! The reply to a push.

use super::{reply::Reply, writer::ReplyWriter};
use crate::{
    http::{
        Refusal, ResponseOptions,
        response::{JSON, json_string, push_number},
    },
    ingest::{CommitOutcome, LaneWriter, NotDurable, PendingCommit, Ticket},
    state::mailbox::{Delivery, Fate},
};
use smallvec::SmallVec;
use std::{
    borrow::Cow,
    task::{Context, Poll},
};
use uuid::{Uuid, fmt::Hyphenated};

/// The form of the reply to a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// An array in the order of the items, for a push without buffer flags.
    Array,
    /// An object, for a buffered push.
    Object,
    /// An object without the list.
    Minimal,
}

/// A message as the reply names it.
pub struct PushedItem<'a> {
    /// The message's id.
    pub id: Uuid,
    /// The client's transaction id.
    pub transaction_id: Option<Cow<'a, str>>,
    /// Its queue.
    pub queue: Cow<'a, str>,
}

/// A push of which all, or the first lines, are in the log.
pub struct Pushed<'a> {
    /// The form of the reply.
    pub form: Form,
    /// Its messages; empty for [`Form::Minimal`].
    pub items: SmallVec<[PushedItem<'a>; 1]>,
    /// How many there are.
    pub count: u64,
    /// Those that may not be durable yet.
    pub ticket: Option<Ticket>,
    /// The batches of `ticket`: the ordinal behind each, and the count of messages up to there.
    batches: SmallVec<[(u64, u64); 1]>,
    /// How many messages come before `batches`. They are durable.
    durable_count: u64,
    /// Whether each line is a message, so that some may be kept and others not.
    pub is_lines: bool,
    /// The commits that it waits for, in the order of the items.
    pub commits: SmallVec<[PendingCommit; 1]>,
    /// What became of messages that are counted instead of listed, if there are any. They come before those of `commits`.
    pub counted: Option<CountedFates>,
    /// Why an NDJSON body ended early.
    pub ended_by: Option<Box<Refusal>>,
}

/// What became of those messages of a push that are only counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CountedFates {
    duplicates: u64,
    failed: u64,
    /// Whether the wait for some of them was given up.
    is_incomplete: bool,
}

impl<'a> Pushed<'a> {
    /// A push of nothing yet.
    pub(super) fn nothing(form: Form) -> Self {
        Self {
            form,
            items: SmallVec::new(),
            count: 0,
            ticket: None,
            batches: SmallVec::new(),
            durable_count: 0,
            is_lines: false,
            commits: SmallVec::new(),
            counted: None,
            ended_by: None,
        }
    }

    /// The same push, which borrows nothing.
    pub(super) fn into_owned(self) -> Pushed<'static> {
        let Self { form, items, count, ticket, batches, durable_count, is_lines, commits, counted, ended_by } = self;
        // In exactly as much memory as they need.
        let mut owned = SmallVec::with_capacity(items.len());
        owned.extend(items.into_iter().map(PushedItem::into_owned));
        Pushed { form, items: owned, count, ticket, batches, durable_count, is_lines, commits, counted, ended_by }
    }

    /// Prepares for another batch.
    ///
    /// # Errors
    /// [`NotDurable::Refused`]: of the earlier ones not all are kept.
    pub(super) fn begin_batch(&mut self, lane: &LaneWriter) -> Result<(), NotDurable> {
        if let Some(ticket) = &self.ticket
            && !lane.can_extend(ticket)?
        {
            self.set_durable();
        }
        Ok(())
    }

    /// Adds a batch that was appended.
    pub(super) fn add_batch(&mut self, count: u64, ticket: Ticket) {
        self.count += count;
        self.batches.push((ticket.end(), self.count));
        match &mut self.ticket {
            Some(earlier) => earlier.extend(&ticket),
            None => self.ticket = Some(ticket),
        }
    }

    /// Notes that all its messages are durable.
    pub(super) fn set_durable(&mut self) {
        (self.ticket, self.durable_count) = (None, self.count);
        self.batches.clear();
    }

    /// The reply if the messages behind `durable_ordinal` are not kept for the reason in `refusal`.
    pub(super) fn refused(mut self, durable_ordinal: u64, refusal: Refusal) -> Reply<'a> {
        if !self.is_lines {
            return Reply::Refused(refusal);
        }
        let kept = self.batches.iter().rev().find(|(end, _)| *end <= durable_ordinal);
        self.count = kept.map_or(self.durable_count, |(_, count)| *count);
        self.ended_by = Some(Box::new(refusal));
        Reply::Pushed(self)
    }

    /// Bytes of memory that it has, about.
    pub(super) fn memory_bytes(&self) -> usize {
        let texts = |item: &PushedItem<'_>| item.queue.len() + item.transaction_id.as_ref().map_or(0, |id| id.len());
        let items: usize = self.items.iter().map(|item| size_of::<PushedItem<'_>>() + texts(item)).sum();
        let fates: usize = self.commits.iter().map(PendingCommit::memory_bytes).sum();
        items + fates
    }

    /// Bytes of the reply's body, about and at most.
    pub(super) fn written_bytes(&self) -> usize {
        // Twice the text of a UUID, numbers, and the names of the fields.
        const ITEM_BYTES: usize = 200;
        let item = |item: &PushedItem<'_>| {
            let transaction_id = item.transaction_id.as_ref().map_or(0, |id| id.len());
            ITEM_BYTES + item.queue.len() + transaction_id
        };
        match (&self.ended_by, self.form) {
            (Some(refusal), _) => refusal.message.len(),
            (None, Form::Minimal) => ITEM_BYTES,
            (None, _) => self.items.iter().map(item).sum(),
        }
    }

    /// Whether the reply depends on nothing that is still to come but the disk.
    pub(super) fn is_settled(&self) -> bool {
        self.ended_by.is_some() || self.commits.iter().all(|commit| commit.outcome().is_some())
    }

    /// Waits until it is settled.
    pub(super) fn poll_settled(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ended_by.is_some() || self.commits.iter().all(|commit| commit.poll(cx).is_ready()) {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Waits for the commits, and counts instead of listing what became of their messages.
    pub(super) async fn count_fates(&mut self) {
        let mut counted = self.counted.unwrap_or_default();
        for commit in &self.commits {
            counted.is_incomplete |= commit.wait().await != CommitOutcome::Committed;
        }
        (counted.duplicates, counted.failed) = self.exceptions();
        self.commits.clear();
        self.counted = Some(counted);
    }

    /// Whether all messages are known to be in PostgreSQL.
    fn is_committed(&self) -> bool {
        let is_waited_for = !self.commits.is_empty() || self.counted.is_some();
        let is_incomplete = self.counted.is_some_and(|counted| counted.is_incomplete)
            || self.commits.iter().any(|commit| commit.outcome() != Some(CommitOutcome::Committed));
        is_waited_for && !is_incomplete
    }

    /// Appends the reply with what is known by now. The messages are durable.
    pub(super) fn write(&self, writer: &ReplyWriter, options: ResponseOptions, out: &mut Vec<u8>) {
        if let Some(refusal) = &self.ended_by {
            writer.refusal(refusal, Some(self.count), options, out);
            return;
        }
        let mut body = writer.bodies.take();
        self.write_body(writer.database_is_healthy(), &mut body);
        writer.reply(201, JSON, writer.durability_line(self.is_committed()), &body, options, out);
        writer.bodies.give_back(body);
    }

    /// Appends the head of the reply, whose body has `length` bytes and follows.
    pub(super) fn write_head(&self, writer: &ReplyWriter, length: usize, options: ResponseOptions, out: &mut Vec<u8>) {
        writer.head(201, JSON, writer.durability_line(self.is_committed()), length, options, out);
    }

    fn write_body(&self, database_is_healthy: bool, out: &mut Vec<u8>) {
        let all = self.write_part(0, database_is_healthy, usize::MAX, out);
        assert_eq!(all, None, "all of it is one part");
    }

    /// Appends the body from the item `from` on: `most` bytes, and what is left of the last item. Returns the item that follows;
    /// `None`: that was the end.
    pub(super) fn write_part(
        &self,
        from: usize,
        database_is_healthy: bool,
        most: usize,
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        let healthy: &[u8] = if database_is_healthy { b"true" } else { b"false" };
        let start = out.len();
        match self.form {
            Form::Array | Form::Object => {
                let is_array = self.form == Form::Array;
                if from == 0 && is_array {
                    out.push(b'[');
                } else if from == 0 {
                    out.extend_from_slice(br#"{"pushed":true,"qos0":true,"dbHealthy":"#);
                    out.extend_from_slice(healthy);
                    out.extend_from_slice(br#","messages":["#);
                }
                let mut deliveries = self.deliveries_from(if is_array { from } else { usize::MAX });
                for (index, item) in self.items.iter().enumerate().skip(from) {
                    item.write(index, deliveries.next().flatten().as_ref(), is_array, out);
                    if out.len() - start >= most && index + 1 < self.items.len() {
                        return Some(index + 1);
                    }
                }
                out.extend_from_slice(if is_array { b"]" } else { b"]}" });
            }
            Form::Minimal => {
                out.extend_from_slice(br#"{"pushed":true,"count":"#);
                push_number(out, self.count);
                out.extend_from_slice(br#","dbHealthy":"#);
                out.extend_from_slice(healthy);
                if !self.commits.is_empty() || self.counted.is_some() {
                    let (duplicates, failed) = self.exceptions();
                    out.extend_from_slice(br#","duplicates":"#);
                    push_number(out, duplicates);
                    out.extend_from_slice(br#","failed":"#);
                    push_number(out, failed);
                }
                out.push(b'}');
            }
        }
        out.push(b'\n');
        None
    }

    /// What became of the messages from this one on.
    fn deliveries_from(&self, mut first: usize) -> impl Iterator<Item = Option<Delivery>> {
        self.commits.iter().flat_map(move |commit| {
            let skipped = first.min(commit.count());
            first -= skipped;
            (skipped..commit.count()).map(|index| commit.delivery(index))
        })
    }

    fn deliveries(&self) -> impl Iterator<Item = Option<Delivery>> {
        self.commits.iter().flat_map(|commit| (0..commit.count()).map(|index| commit.delivery(index)))
    }

    /// How many duplicates there were, and how many messages that PostgreSQL refused.
    fn exceptions(&self) -> (u64, u64) {
        let before = self.counted.unwrap_or_default();
        self.deliveries().flatten().fold((before.duplicates, before.failed), |(duplicates, failed), delivery| {
            match delivery.fate {
                Fate::Queued => (duplicates, failed),
                Fate::Duplicate { .. } => (duplicates + 1, failed),
                Fate::Refused { .. } => (duplicates, failed + 1),
            }
        })
    }
}

impl PushedItem<'_> {
    fn into_owned(self) -> PushedItem<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        PushedItem { id: self.id, transaction_id: self.transaction_id.map(owned), queue: owned(self.queue) }
    }

    fn write(&self, index: usize, delivery: Option<&Delivery>, whole: bool, out: &mut Vec<u8>) {
        if index > 0 {
            out.push(b',');
        }
        let own_id = uuid_text(self.id);
        let (status, id) = match delivery.map(|delivery| &delivery.fate) {
            None => ("buffered", own_id),
            Some(Fate::Queued) => ("queued", own_id),
            Some(Fate::Duplicate { of }) => ("duplicate", uuid_text(*of)),
            Some(Fate::Refused { .. }) => ("failed", own_id),
        };
        out.extend_from_slice(br#"{"index":"#);
        push_number(out, index as u64);
        out.extend_from_slice(br#","status":""#);
        out.extend_from_slice(status.as_bytes());
        out.extend_from_slice(br#"","message_id":""#);
        out.extend_from_slice(&id);
        out.extend_from_slice(br#"","transaction_id":"#);
        match &self.transaction_id {
            Some(transaction_id) => json_string(out, transaction_id),
            None => {
                out.push(b'"');
                out.extend_from_slice(&own_id);
                out.push(b'"');
            }
        }
        if let Some(delivery) = delivery {
            out.extend_from_slice(br#","partition_id":""#);
            push_number(out, delivery.partition_id as u64);
            out.push(b'"');
            if let Fate::Refused { error } = &delivery.fate {
                out.extend_from_slice(br#","error":"#);
                json_string(out, error);
            }
        }
        if whole {
            out.extend_from_slice(br#","queueName":"#);
            json_string(out, &self.queue);
        }
        out.push(b'}');
    }
}

/// A UUID in its usual form.
fn uuid_text(uuid: Uuid) -> [u8; Hyphenated::LENGTH] {
    let mut text = [0; Hyphenated::LENGTH];
    uuid.hyphenated().encode_lower(&mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item() -> PushedItem<'static> {
        PushedItem { id: Uuid::from_u128(7), transaction_id: Some("a\"b".into()), queue: "q".into() }
    }

    #[test]
    fn every_form_of_answer_is_json_with_the_contract_s_names() {
        let pushed = |form| Pushed { items: smallvec::smallvec![item(), item()], count: 2, ..Pushed::nothing(form) };
        let body = |form| {
            let mut body = Vec::new();
            pushed(form).write_body(true, &mut body);
            serde_json::from_slice::<serde_json::Value>(&body).unwrap()
        };
        let array = body(Form::Array);
        assert_eq!(array[1]["index"], 1);
        assert_eq!(array[1]["status"], "buffered");
        assert_eq!(array[1]["transaction_id"], "a\"b");
        assert_eq!(array[1]["queueName"], "q");
        let object = body(Form::Object);
        assert_eq!(
            (&object["pushed"], &object["qos0"], &object["dbHealthy"]),
            (&true.into(), &true.into(), &true.into())
        );
        assert_eq!(object["messages"][0]["message_id"], Uuid::from_u128(7).to_string());
        assert_eq!(body(Form::Minimal)["count"], 2);
    }

    #[test]
    fn a_duplicate_names_the_first_message_and_a_refused_one_the_reason() {
        let written = |fate| {
            let mut body = Vec::new();
            item().write(0, Some(&Delivery { number: 1, partition_id: 5, fate }), true, &mut body);
            serde_json::from_slice::<serde_json::Value>(&body).unwrap()
        };
        let duplicate = written(Fate::Duplicate { of: Uuid::from_u128(9) });
        assert_eq!(duplicate["message_id"], Uuid::from_u128(9).to_string());
        assert_eq!((&duplicate["status"], &duplicate["partition_id"]), (&"duplicate".into(), &"5".into()));
        let refused = written(Fate::Refused { error: "no".into() });
        assert_eq!((&refused["status"], &refused["error"]), (&"failed".into(), &"no".into()));
    }
}
