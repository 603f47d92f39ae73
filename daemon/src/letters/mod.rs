//! Dead letters: messages that PostgreSQL refused, kept whole until a person decides.
//!
//! ```text
//!   drain ─────────┬─► table   forebay.dead_letters: letters are added and counted
//!                  └─► files   wal/dead-letters/*.ndjson: letters that the table refuses as well
//!   command, api ──┬─► store   table and files as one list, page by page ──► put_back, statements ──► a channel to PostgreSQL
//!                  └─► view    letters as JSON shows them
//! ```

pub mod files;
pub mod id;
pub mod page;
pub mod put_back;
mod statements;
pub mod store;
pub mod table;
pub mod view;

use crate::message::Message;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use uuid::Uuid;

/// A message that was refused, or a record that is none. In a list it has no payload: `P` is `()`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter<P = Payload> {
    /// The record's log sequence number; `None` if an earlier release set it aside.
    pub number: Option<u64>,
    /// Its queue; empty for a record that is no message.
    pub queue: String,
    /// Its partition.
    pub partition: String,
    /// The message's id; `None` for a record that is no message.
    pub message_id: Option<Uuid>,
    /// The client's transaction id, else the message's id.
    pub transaction_id: Option<String>,
    /// The client's trace id.
    pub trace_id: Option<Uuid>,
    /// For a queue that is made by this.
    pub namespace: String,
    /// For a queue that is made by this.
    pub task: String,
    /// Who pushed it, where that is known. Files of earlier releases have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub producer_sub: Option<String>,
    /// What the record's payload is, as its frame says.
    pub record_kind: Option<u16>,
    /// When the message was taken, in microseconds since 1970.
    pub accepted_us: i64,
    /// When it was refused last, in microseconds since 1970.
    pub failed_us: i64,
    /// Why: SQLSTATE …
    pub sqlstate: String,
    /// … and what PostgreSQL said.
    pub error: String,
    /// The message's payload, or the record's bytes.
    #[serde(flatten)]
    pub payload: P,
}

/// Bytes, written as text where text holds them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// As they are.
    #[serde(rename = "payloadText")]
    Text(String),
    /// In hexadecimal digits.
    #[serde(rename = "payloadHex")]
    Hex(String),
}

impl Payload {
    /// Of `bytes`. PostgreSQL's `text` holds UTF-8 without U+0000, and so does this.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => Self::Text(text.to_owned()),
            _ => Self::Hex(hexadecimal(bytes)),
        }
    }

    /// The bytes; `None` if these are no hexadecimal digits.
    #[must_use]
    pub fn bytes(&self) -> Option<Cow<'_, [u8]>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text.as_bytes())),
            Self::Hex(digits) => {
                let digit = |digit: u8| char::from(digit).to_digit(16).map(|digit| digit as u8);
                let pair = |pair: &[u8]| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?);
                digits.as_bytes().chunks(2).map(pair).collect::<Option<Vec<u8>>>().map(Cow::Owned)
            }
        }
    }

    /// As it stands in `payload_text`: itself, or as PostgreSQL writes a `bytea`.
    #[must_use]
    pub fn shown(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Hex(digits) => Cow::Owned(format!("\\x{digits}")),
        }
    }
}

impl DeadLetter {
    /// The record of that number and kind, with `bytes` as its payload, which is `message` if it is one.
    #[must_use]
    pub fn of(number: u64, kind: u16, bytes: &[u8], message: Option<&Message<'_>>, why: (&str, &str)) -> Self {
        let storable = |text: &str| text.replace('\0', "\u{fffd}");
        Self {
            number: Some(number),
            queue: message.map_or_else(String::new, |message| storable(message.queue)),
            partition: message.map_or_else(String::new, |message| storable(message.partition)),
            message_id: message.map(|message| message.id),
            transaction_id: message.map(|message| storable(&message.transaction_id_or_own())),
            trace_id: message.and_then(|message| message.trace_id),
            namespace: message.map_or_else(String::new, |message| storable(message.namespace)),
            task: message.map_or_else(String::new, |message| storable(message.task)),
            producer_sub: message.and_then(|message| message.known_producer()).map(storable),
            record_kind: Some(kind),
            accepted_us: message.map_or(0, |message| message.accepted_us),
            failed_us: crate::ids::unix_now().as_micros() as i64,
            sqlstate: why.0.to_owned(),
            error: storable(why.1),
            payload: Payload::of(message.map_or(bytes, |message| message.payload)),
        }
    }
}

impl DeadLetter {
    /// Bytes that it takes, about: names have 255 at most.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let (Payload::Text(payload) | Payload::Hex(payload)) = &self.payload;
        statements::NAMES_BYTES + self.error.len() + payload.len()
    }
}

impl<P> DeadLetter<P> {
    /// The same letter with another payload, and the payload that it had.
    fn replace_payload<Q>(self, payload: Q) -> (DeadLetter<Q>, P) {
        let Self {
            number,
            queue,
            partition,
            message_id,
            transaction_id,
            trace_id,
            namespace,
            task,
            producer_sub,
            record_kind,
            accepted_us,
            failed_us,
            sqlstate,
            error,
            payload: before,
        } = self;
        let letter = DeadLetter {
            number,
            queue,
            partition,
            message_id,
            transaction_id,
            trace_id,
            namespace,
            task,
            producer_sub,
            record_kind,
            accepted_us,
            failed_us,
            sqlstate,
            error,
            payload,
        };
        (letter, before)
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let written = write!(text, "{byte:02x}");
        debug_assert!(written.is_ok());
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_letter_comes_back_from_its_line_byte_for_byte(payload: Vec<u8>, text in ".*", number: u64, id: Option<u128>) {
            for bytes in [&payload[..], text.as_bytes()] {
                let letter = DeadLetter {
                    payload: Payload::of(bytes),
                    message_id: id.map(Uuid::from_u128),
                    ..DeadLetter::of(number, 1, bytes, None, ("22P02", &text))
                };
                let line = serde_json::to_string(&letter).unwrap();
                prop_assert!(!line.contains('\n'));
                let read: DeadLetter = serde_json::from_str(&line).unwrap();
                prop_assert_eq!(read.payload.bytes().unwrap(), bytes);
                prop_assert_eq!(read, letter);
            }
        }
    }

    #[test]
    fn text_is_kept_as_text_and_what_text_cannot_hold_in_digits() {
        assert_eq!(Payload::of("{\"a\": \"é\"}".as_bytes()).shown(), "{\"a\": \"é\"}");
        assert_eq!(Payload::of(&[0x61, 0]), Payload::Hex("6100".into()));
        assert_eq!(Payload::of(&[0xff, 0x0a]).shown(), "\\xff0a");
        for wrong in ["abc", "zz", "+1"] {
            assert_eq!(Payload::Hex(wrong.into()).bytes(), None, "{wrong}");
        }
    }
}
