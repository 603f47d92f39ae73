//! Records for tests.

use crate::{
    drain::source::log_record::{LogRecord, check},
    message::Message,
};
use forebay_wal::{
    frame::{FrameHeader, KIND_MESSAGE},
    position::segment_start,
};
use uuid::Uuid;

/// The record of that number with `bytes` as its payload.
pub(crate) fn record_of(number: u64, bytes: Vec<u8>) -> LogRecord {
    let header = FrameHeader {
        number,
        ordinal: number,
        payload_len: bytes.len() as u32,
        kind: KIND_MESSAGE,
        flags: 0,
        batch_remaining: 0,
        group_block: 0,
    };
    let is_message = check(KIND_MESSAGE, &bytes).is_some();
    LogRecord::new(&header, 0, segment_start(1), bytes.into(), is_message)
}

/// The record of a message in the queue `q`; its number is also the message's id.
pub(crate) fn record(number: u64, partition: &str, transaction_id: Option<&str>, awaited: bool) -> LogRecord {
    let message = Message {
        id: Uuid::from_u128(number.into()),
        accepted_us: 0,
        queue: "q",
        partition,
        transaction_id,
        trace_id: None,
        namespace: "",
        task: "",
        producer_sub: "",
        awaited,
        payload: b"1",
    };
    let mut bytes = Vec::new();
    message.encode_head(&mut bytes);
    bytes.extend_from_slice(message.payload);
    record_of(number, bytes)
}
