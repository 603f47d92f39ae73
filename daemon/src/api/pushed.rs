//! What is said of a push, once it is durable.

use super::{
    admit,
    reply::{write_answer, write_refusal},
};
use crate::{
    http::{
        Manner, Refusal,
        response::{json_string, push_number},
    },
    ingest::{Awaited, CommitWait, Core},
    state::{
        database_health::DatabaseHealth,
        mailbox::{Delivery, Fate},
    },
};
use forebay_wal::group::SyncMethod;
use smallvec::SmallVec;
use std::{borrow::Cow, rc::Rc};
use uuid::{Uuid, fmt::Hyphenated};

/// Which words a push is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// An array in the order of the items, for a push without buffer flags.
    Array,
    /// An object, for a buffered push.
    Object,
    /// An object without the list.
    Minimal,
}

/// A message as its answer names it.
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
    /// The words of the answer.
    pub form: Form,
    /// Its messages; empty for [`Form::Minimal`].
    pub items: SmallVec<[PushedItem<'a>; 1]>,
    /// How many there are.
    pub count: u64,
    /// They are durable when the lane has come so far.
    pub end_ordinal: u64,
    /// The wait for the commit, if somebody does, in the order of the items.
    pub awaited: SmallVec<[Rc<Awaited>; 1]>,
    /// What became of those whose commit was waited for before, and which are not listed.
    pub settled: Option<Settled>,
    /// Why an NDJSON body ended early.
    pub ended_by: Option<Box<Refusal>>,
}

/// How those messages of a push fared that are only counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    duplicates: u64,
    failed: u64,
    /// Whether some were not committed in time.
    is_short: bool,
}

impl Pushed<'_> {
    /// A push of nothing yet.
    pub(super) fn nothing(form: Form) -> Self {
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

    /// Whether its answer is known as soon as its messages are in the log, and leaves once they are durable.
    pub(super) fn is_known_ahead(&self) -> bool {
        self.awaited.is_empty() && self.settled.is_none() && self.ended_by.is_none()
    }

    /// Waits for what the answer stands on, and writes it. Returns whether the connection must be closed after it.
    pub(super) async fn finish(mut self, core: &Core, manner: Manner, out: &mut Vec<u8>) -> bool {
        if core.durable(self.end_ordinal).await.is_err() {
            return write_refusal(core, &admit::storage_failed_meanwhile(), None, manner, out);
        }
        if let Some(refusal) = self.ended_by.take() {
            return write_refusal(core, &refusal, Some(self.count), manner, out);
        }
        let mut committed = !self.awaited.is_empty() || self.settled.is_some();
        committed &= !self.settled.is_some_and(|settled| settled.is_short);
        for awaited in &self.awaited {
            committed &= awaited.wait().await == CommitWait::Committed;
        }
        self.write(core, committed, manner, out);
        false
    }

    /// Writes the answer.
    pub(super) fn write(&self, core: &Core, committed: bool, manner: Manner, out: &mut Vec<u8>) {
        let durability: &[u8] = match (committed, core.shared.config.sync.method()) {
            (true, _) => b"Forebay-Durability: postgres\r\n",
            (false, SyncMethod::None) => b"Forebay-Durability: memory\r\n",
            (false, _) => b"Forebay-Durability: disk\r\n",
        };
        let mut body = core.scratch();
        self.write_body(core.shared.health.get() == DatabaseHealth::Connected, &mut body);
        write_answer(core, 201, durability, &body, manner, out);
        core.give_back(body);
    }

    /// Waits for the commits that are awaited, and counts instead of listing what became of their messages.
    pub async fn settle(&mut self) {
        let mut settled = self.settled.unwrap_or_default();
        for awaited in &self.awaited {
            settled.is_short |= awaited.wait().await != CommitWait::Committed;
        }
        (settled.duplicates, settled.failed) = self.exceptions();
        self.awaited.clear();
        self.settled = Some(settled);
    }

    fn write_body(&self, database_is_healthy: bool, out: &mut Vec<u8>) {
        let healthy: &[u8] = if database_is_healthy { b"true" } else { b"false" };
        match self.form {
            Form::Array => {
                out.push(b'[');
                let mut deliveries = self.deliveries().chain(std::iter::repeat(None));
                for (index, item) in self.items.iter().enumerate() {
                    item.write(index, deliveries.next().flatten().as_ref(), true, out);
                }
                out.push(b']');
            }
            Form::Object => {
                out.extend_from_slice(br#"{"pushed":true,"qos0":true,"dbHealthy":"#);
                out.extend_from_slice(healthy);
                out.extend_from_slice(br#","messages":["#);
                for (index, item) in self.items.iter().enumerate() {
                    item.write(index, None, false, out);
                }
                out.extend_from_slice(b"]}");
            }
            Form::Minimal => {
                out.extend_from_slice(br#"{"pushed":true,"count":"#);
                push_number(out, self.count);
                out.extend_from_slice(br#","dbHealthy":"#);
                out.extend_from_slice(healthy);
                if !self.awaited.is_empty() || self.settled.is_some() {
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
    }

    fn deliveries(&self) -> impl Iterator<Item = Option<Delivery>> {
        self.awaited.iter().flat_map(|awaited| (0..awaited.count()).map(|index| awaited.delivery(index)))
    }

    /// How many duplicates there were, and how many messages that PostgreSQL refused.
    fn exceptions(&self) -> (u64, u64) {
        let before = self.settled.unwrap_or_default();
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
        let pushed = |form| Pushed {
            form,
            items: smallvec::smallvec![item(), item()],
            count: 2,
            end_ordinal: 0,
            awaited: SmallVec::new(),
            settled: None,
            ended_by: None,
        };
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
