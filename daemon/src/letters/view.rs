//! Dead letters, and what became of them, as JSON shows them.

use super::{DeadLetter, Payload, id::LetterId, put_back::RetryOutcome};
use crate::ids::rfc3339;
use serde::Serialize;

/// A letter as JSON shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LetterView<'a> {
    id: String,
    place: &'static str,
    queue: &'a str,
    partition: &'a str,
    message_id: Option<uuid::Uuid>,
    transaction_id: Option<&'a str>,
    trace_id: Option<uuid::Uuid>,
    producer_sub: Option<&'a str>,
    sqlstate: &'a str,
    error: &'a str,
    accepted_at: String,
    failed_at: String,
    number: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record_kind: Option<u16>,
    #[serde(flatten)]
    payload: Option<&'a Payload>,
}

impl<'a> LetterView<'a> {
    /// A letter of a list, without its payload.
    #[must_use]
    pub fn listed<P>(id: LetterId, letter: &'a DeadLetter<P>) -> Self {
        Self {
            id: id.to_string(),
            place: place(id),
            queue: &letter.queue,
            partition: &letter.partition,
            message_id: letter.message_id,
            transaction_id: letter.transaction_id.as_deref(),
            trace_id: letter.trace_id,
            producer_sub: letter.producer_sub.as_deref(),
            sqlstate: &letter.sqlstate,
            error: &letter.error,
            accepted_at: rfc3339(letter.accepted_us),
            failed_at: rfc3339(letter.failed_us),
            number: letter.number,
            // Of a message it says nothing.
            record_kind: letter.record_kind.filter(|_| letter.message_id.is_none()),
            payload: None,
        }
    }

    /// A letter with its payload.
    #[must_use]
    pub fn whole(id: LetterId, letter: &'a DeadLetter) -> Self {
        Self { payload: Some(&letter.payload), ..Self::listed(id, letter) }
    }
}

/// Where a letter is kept: `postgres` or `file`.
#[must_use]
pub fn place(id: LetterId) -> &'static str {
    match id {
        LetterId::Table(_) => "postgres",
        LetterId::File(_) => "file",
    }
}

/// What became of a letter that was to be put back, as JSON shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryView<'a> {
    id: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<uuid::Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sqlstate: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

impl<'a> RetryView<'a> {
    /// What became of the letter `id`. A duplicate's `messageId` is that of the message that is in its place.
    #[must_use]
    pub fn of(id: LetterId, outcome: &'a RetryOutcome) -> Self {
        let view =
            |status| Self { id: id.to_string(), status, seq: None, message_id: None, sqlstate: None, error: None };
        match outcome {
            RetryOutcome::Queued { seq } => Self { seq: Some(*seq), ..view("queued") },
            RetryOutcome::Duplicate { of } => Self { message_id: Some(*of), ..view("duplicate") },
            RetryOutcome::Refused { sqlstate, error } => {
                Self { sqlstate: Some(sqlstate), error: Some(error), ..view("failed") }
            }
            RetryOutcome::NoMessage => {
                Self { error: Some("it is not a message that this release knows"), ..view("failed") }
            }
            RetryOutcome::PartitionDeleted => Self {
                error: Some("its partition was deleted at the same time; the letter stays"),
                ..view("partition_deleted")
            },
            RetryOutcome::Gone => Self { error: Some("it is not there any more"), ..view("gone") },
        }
    }
}
