//! A message as the payload of a log record of kind [`KIND_MESSAGE`](forebay_wal::frame::KIND_MESSAGE). `docs/log-format.md` has
//! the table of bytes.
//!
//! The log keeps the bytes of the message's own payload as they came.

use crate::limits::PRODUCER_SUB_BYTES_MAX;
use uuid::Uuid;

// The length of `producer_sub` is written in 16 bits.
const _: () = assert!(PRODUCER_SUB_BYTES_MAX <= u16::MAX as usize);

/// Version of the layout without a producer. A message is written in the lowest version that holds it.
const VERSION_PLAIN: u8 = 1;

/// Version of the layout with a producer.
const VERSION_WITH_PRODUCER: u8 = 2;

/// Bytes of the fixed part at the start of every message.
const FIXED_BYTES: usize = 40;

/// Texts that stand between the fixed part and the payload: transaction id, queue, partition, namespace, task, producer.
const TEXTS: usize = 6;

const FLAG_TRANSACTION_ID: u8 = 1;
const FLAG_TRACE_ID: u8 = 2;
const FLAG_AWAITED: u8 = 4;

/// A message on its way to PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its id, made by the server: a UUIDv7.
    pub id: Uuid,
    /// When it was accepted, in microseconds since 1970.
    pub accepted_us: i64,
    /// Queue, at most 255 bytes.
    pub queue: &'a str,
    /// Partition, at most 255 bytes.
    pub partition: &'a str,
    /// The client's transaction id. If it is missing, the message id takes its place.
    pub transaction_id: Option<&'a str>,
    /// The client's trace id.
    pub trace_id: Option<Uuid>,
    /// Namespace for a queue that this push creates; empty: none.
    pub namespace: &'a str,
    /// Task for a queue that this push creates; empty: none.
    pub task: &'a str,
    /// Who pushed it, by the `sub` of a valid JWT; empty: unknown. At most [`PRODUCER_SUB_BYTES_MAX`] bytes.
    pub producer_sub: &'a str,
    /// Whether a client waits for the commit.
    pub awaited: bool,
    /// The JSON document. The daemon has validated it.
    pub payload: &'a [u8],
}

/// A record that verified, but is not a message of a version that this release knows.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record is not a message of a version that this release knows")]
pub struct NotAMessage;

impl<'a> Message<'a> {
    /// Appends everything but the payload to `out`. A record's payload is this head and then the message's payload.
    pub fn encode_head(&self, out: &mut Vec<u8>) {
        let transaction_id = self.transaction_id.unwrap_or_default();
        let mut flags = 0;
        flags |= if self.transaction_id.is_some() { FLAG_TRANSACTION_ID } else { 0 };
        flags |= if self.trace_id.is_some() { FLAG_TRACE_ID } else { 0 };
        flags |= if self.awaited { FLAG_AWAITED } else { 0 };
        let version = if self.producer_sub.is_empty() { VERSION_PLAIN } else { VERSION_WITH_PRODUCER };
        let length = |text: &str| (text.len() as u16).to_le_bytes();
        let mut fixed = [0; FIXED_BYTES];
        (fixed[0], fixed[1]) = (version, flags);
        fixed[2..4].copy_from_slice(&length(self.producer_sub));
        fixed[6..8].copy_from_slice(&length(transaction_id));
        fixed[8..16].copy_from_slice(&self.accepted_us.to_le_bytes());
        fixed[16..32].copy_from_slice(self.id.as_bytes());
        fixed[32..34].copy_from_slice(&length(self.queue));
        fixed[34..36].copy_from_slice(&length(self.partition));
        fixed[36..38].copy_from_slice(&length(self.namespace));
        fixed[38..40].copy_from_slice(&length(self.task));
        out.extend_from_slice(&fixed);
        if let Some(trace_id) = self.trace_id {
            out.extend_from_slice(trace_id.as_bytes());
        }
        for text in [transaction_id, self.queue, self.partition, self.namespace, self.task, self.producer_sub] {
            out.extend_from_slice(text.as_bytes());
        }
    }

    /// Reads a record's payload.
    ///
    /// # Errors
    /// [`NotAMessage`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, NotAMessage> {
        let (fixed, mut rest) = bytes.split_first_chunk::<FIXED_BYTES>().ok_or(NotAMessage)?;
        let flags = fixed[1];
        let length = |at: usize| usize::from(u16::from_le_bytes([fixed[at], fixed[at + 1]]));
        let producer_sub_length = match fixed[0] {
            VERSION_PLAIN => 0,
            VERSION_WITH_PRODUCER => length(2),
            _ => return Err(NotAMessage),
        };
        let mut id = [0; 16];
        id.copy_from_slice(&fixed[16..32]);
        let mut accepted_us = [0; 8];
        accepted_us.copy_from_slice(&fixed[8..16]);
        let trace_id = match flags & FLAG_TRACE_ID {
            0 => None,
            _ => {
                let (trace_id, after) = rest.split_first_chunk::<16>().ok_or(NotAMessage)?;
                rest = after;
                Some(Uuid::from_bytes(*trace_id))
            }
        };
        let mut text = |length: usize| {
            let (text, after) = rest.split_at_checked(length).ok_or(NotAMessage)?;
            rest = after;
            std::str::from_utf8(text).map_err(|_| NotAMessage)
        };
        let transaction_id = text(length(6))?;
        let (queue, partition) = (text(length(32))?, text(length(34))?);
        let (namespace, task) = (text(length(36))?, text(length(38))?);
        let producer_sub = text(producer_sub_length)?;
        Ok(Self {
            id: Uuid::from_bytes(id),
            accepted_us: i64::from_le_bytes(accepted_us),
            queue,
            partition,
            transaction_id: (flags & FLAG_TRANSACTION_ID != 0).then_some(transaction_id),
            trace_id,
            namespace,
            task,
            producer_sub,
            awaited: flags & FLAG_AWAITED != 0,
            payload: rest,
        })
    }

    /// Who pushed it, if that is known.
    #[must_use]
    pub fn known_producer(&self) -> Option<&'a str> {
        (!self.producer_sub.is_empty()).then_some(self.producer_sub)
    }

    /// The transaction id as clients see it.
    #[must_use]
    pub fn transaction_id_or_own(&self) -> String {
        self.transaction_id.map_or_else(|| self.id.to_string(), str::to_owned)
    }
}

/// The payload of a record that [`Message::decode`] accepts. Its parts are read where they stand, without a second check: the
/// drain checks each record once and reads it several times.
#[derive(Clone, Copy, Debug)]
pub struct CheckedMessage<'a> {
    bytes: &'a [u8],
}

impl<'a> CheckedMessage<'a> {
    /// Checks a record's payload.
    ///
    /// # Errors
    /// [`NotAMessage`].
    pub fn check(bytes: &'a [u8]) -> Result<Self, NotAMessage> {
        Message::decode(bytes).map(|_| Self { bytes })
    }

    /// A payload that [`check`](Self::check) accepted earlier.
    ///
    /// # Panics
    /// Not here; the methods may panic if `check` refuses `bytes`.
    #[must_use]
    pub fn accepted_earlier(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The message's id.
    #[must_use]
    pub fn id(self) -> Uuid {
        Uuid::from_bytes(self.array(16))
    }

    /// When the message was accepted, in microseconds since 1970.
    #[must_use]
    pub fn accepted_us(self) -> i64 {
        i64::from_le_bytes(self.array(8))
    }

    /// The client's trace id.
    #[must_use]
    pub fn trace_id(self) -> Option<Uuid> {
        self.has(FLAG_TRACE_ID).then(|| Uuid::from_bytes(self.array(FIXED_BYTES)))
    }

    /// Whether a client waits for the commit.
    #[must_use]
    pub fn is_awaited(self) -> bool {
        self.has(FLAG_AWAITED)
    }

    /// The client's transaction id.
    #[must_use]
    pub fn transaction_id(self) -> Option<&'a str> {
        self.has(FLAG_TRANSACTION_ID).then(|| self.text(0))
    }

    /// Two messages of a partition with the same key are the same message. `None` if the client gave no transaction id.
    #[must_use]
    pub fn transaction_key(self) -> Option<TransactionKey> {
        self.transaction_id().map(TransactionKey::of)
    }

    /// The queue's name in UTF-8, at most 255 bytes.
    #[must_use]
    pub fn queue(self) -> &'a [u8] {
        self.part(1)
    }

    /// The partition's name in UTF-8, at most 255 bytes.
    #[must_use]
    pub fn partition(self) -> &'a [u8] {
        self.part(2)
    }

    /// Where it goes, and the labels for a queue that is created for it.
    #[must_use]
    pub fn labels(self) -> Labels<'a> {
        Labels { queue: self.text(1), partition: self.text(2), namespace: self.text(3), task: self.text(4) }
    }

    /// Who pushed it, where that is known.
    #[must_use]
    pub fn known_producer(self) -> Option<&'a str> {
        Some(self.text(5)).filter(|producer_sub| !producer_sub.is_empty())
    }

    /// The JSON document.
    #[must_use]
    pub fn payload(self) -> &'a [u8] {
        &self.bytes[self.text_start(TEXTS)..]
    }

    /// All parts at once.
    #[must_use]
    pub fn message(self) -> Message<'a> {
        Message::decode(self.bytes).unwrap_or_else(|NotAMessage| unreachable!("the payload was checked earlier"))
    }

    fn has(self, flag: u8) -> bool {
        self.bytes[1] & flag != 0
    }

    fn array<const N: usize>(self, at: usize) -> [u8; N] {
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes[at..at + N]);
        array
    }

    /// Length in bytes of the text of that index, in the order in which [`Message::encode_head`] writes them.
    fn text_length(self, index: usize) -> usize {
        const LENGTH_AT: [usize; TEXTS] = [6, 32, 34, 36, 38, 2];
        // The version without a producer does not use the bytes of its length.
        if index == TEXTS - 1 && self.bytes[0] == VERSION_PLAIN {
            return 0;
        }
        usize::from(u16::from_le_bytes(self.array(LENGTH_AT[index])))
    }

    fn text_start(self, index: usize) -> usize {
        let texts_at = FIXED_BYTES + if self.has(FLAG_TRACE_ID) { size_of::<Uuid>() } else { 0 };
        texts_at + (0..index).map(|before| self.text_length(before)).sum::<usize>()
    }

    fn part(self, index: usize) -> &'a [u8] {
        &self.bytes[self.text_start(index)..][..self.text_length(index)]
    }

    fn text(self, index: usize) -> &'a str {
        std::str::from_utf8(self.part(index)).unwrap_or_else(|_| unreachable!("the payload was checked earlier"))
    }
}

/// What a message says about its queue and its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Labels<'a> {
    /// The queue's name.
    pub queue: &'a str,
    /// The partition's name.
    pub partition: &'a str,
    /// The queue's namespace; empty: none.
    pub namespace: &'a str,
    /// The queue's task; empty: none.
    pub task: &'a str,
}

/// A transaction id as PostgreSQL's unique index holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TransactionKey {
    /// The key.
    pub bytes: [u8; 16],
    /// Whether the key is the id, so that the id's text need not be stored beside it.
    pub is_the_id: bool,
}

impl TransactionKey {
    /// The key of `transaction_id`: the id itself if it is a UUID as PostgreSQL prints it, else the first 128 bits of its
    /// BLAKE3 hash.
    #[must_use]
    pub fn of(transaction_id: &str) -> Self {
        // Only the form that PostgreSQL prints is its own key. Another spelling is another id.
        if transaction_id.len() == 36
            && let Ok(uuid) = Uuid::try_parse(transaction_id)
            && uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == transaction_id
        {
            return Self { bytes: uuid.into_bytes(), is_the_id: true };
        }
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&blake3::hash(transaction_id.as_bytes()).as_bytes()[..16]);
        Self { bytes, is_the_id: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_message_comes_back_as_it_was_written(
            queue in ".{1,60}", partition in ".{0,60}", transaction_id in proptest::option::of(".{1,60}"),
            trace_id: Option<u128>, namespace in ".{0,20}", producer_sub in ".{0,20}", awaited: bool, payload: Vec<u8>,
            accepted_us: i64, id: u128,
        ) {
            let message = Message {
                id: Uuid::from_u128(id),
                accepted_us,
                queue: &queue,
                partition: &partition,
                transaction_id: transaction_id.as_deref(),
                trace_id: trace_id.map(Uuid::from_u128),
                namespace: &namespace,
                task: "",
                producer_sub: &producer_sub,
                awaited,
                payload: &payload,
            };
            let mut bytes = Vec::new();
            message.encode_head(&mut bytes);
            bytes.extend_from_slice(&payload);
            prop_assert_eq!(Message::decode(&bytes), Ok(message));
            let checked = CheckedMessage::check(&bytes).unwrap();
            prop_assert_eq!(checked.message(), message);
            prop_assert_eq!((checked.id(), checked.accepted_us()), (message.id, accepted_us));
            prop_assert_eq!(checked.trace_id(), message.trace_id);
            prop_assert_eq!((checked.queue(), checked.partition()), (queue.as_bytes(), partition.as_bytes()));
            prop_assert_eq!(checked.transaction_id(), message.transaction_id);
            prop_assert_eq!(checked.known_producer(), message.known_producer());
            let labels = Labels { queue: &queue, partition: &partition, namespace: &namespace, task: "" };
            prop_assert_eq!(checked.labels(), labels);
            prop_assert_eq!((checked.is_awaited(), checked.payload()), (awaited, &payload[..]));
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes: Vec<u8>, version in VERSION_PLAIN..=VERSION_WITH_PRODUCER) {
            if let Some(first) = bytes.first_mut() {
                *first = version;
            }
            if let Ok(message) = Message::decode(&bytes) {
                prop_assert!(message.payload.len() <= bytes.len());
            }
        }
    }

    #[test]
    fn only_a_message_with_a_producer_is_of_the_later_version_and_no_higher_one_is_read() {
        let plain = Message {
            id: Uuid::nil(),
            accepted_us: 0,
            queue: "q",
            partition: "p",
            transaction_id: None,
            trace_id: None,
            namespace: "",
            task: "t",
            producer_sub: "",
            awaited: false,
            payload: b"",
        };
        let bytes_of = |message: &Message<'_>| {
            let mut bytes = Vec::new();
            message.encode_head(&mut bytes);
            bytes
        };
        let without = bytes_of(&plain);
        assert_eq!((without[0], &without[2..6], &without[FIXED_BYTES..]), (1, &[0; 4][..], &b"qpt"[..]));
        let mut with = bytes_of(&Message { producer_sub: "me", ..plain });
        assert_eq!((with[0], &with[2..6], &with[FIXED_BYTES..]), (2, &[2, 0, 0, 0][..], &b"qptme"[..]));
        assert_eq!((with[1], &with[6..FIXED_BYTES]), (without[1], &without[6..FIXED_BYTES]), "all else stays");
        for length in FIXED_BYTES..with.len() {
            assert_eq!(Message::decode(&with[..length]), Err(NotAMessage), "cut behind {length} bytes");
        }
        for version in [0, VERSION_WITH_PRODUCER + 1, u8::MAX] {
            with[0] = version;
            assert_eq!(Message::decode(&with), Err(NotAMessage), "{version}");
        }
    }

    #[test]
    fn only_a_uuid_as_postgresql_prints_it_is_its_own_key() {
        let uuid = "0198c9b0-5c1a-7e3b-9f00-0123456789ab";
        assert!(TransactionKey::of(uuid).is_the_id);
        for other in [&uuid.to_uppercase(), &uuid.replace('-', ""), &format!("{{{uuid}}}"), "order-1"] {
            assert!(!TransactionKey::of(other).is_the_id, "{other}");
            assert_ne!(TransactionKey::of(other).bytes, TransactionKey::of(uuid).bytes, "{other}");
        }
    }
}
