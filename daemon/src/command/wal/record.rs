//! A record as a line of NDJSON.

use super::inspection::Record;
use crate::{ids::rfc3339, message::Message};
use forebay_wal::frame::KIND_MESSAGE;
use serde::Serialize;
use std::io;
use uuid::Uuid;

/// The fields of a message's line before its payload.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MessageHead<'a> {
    number: u64,
    lane: u16,
    ordinal: u64,
    queue: &'a str,
    partition: &'a str,
    id: String,
    transaction_id: Option<&'a str>,
    trace_id: Option<String>,
    accepted_at: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    task: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    producer_sub: &'a str,
}

/// The line of a record that is not a message.
#[derive(Serialize)]
struct Other {
    number: u64,
    lane: u16,
    ordinal: u64,
    kind: u16,
    hex: String,
}

/// The message that a record holds.
pub(super) fn message<'a>(record: &Record<'a>) -> Option<Message<'a>> {
    if record.header.kind == KIND_MESSAGE { Message::decode(record.payload).ok() } else { None }
}

/// Replaces the content of `line` by the record's line, its end included.
///
/// # Errors
/// None: writing to memory does not fail, but its type says so.
pub(super) fn render(record: &Record<'_>, message: Option<&Message<'_>>, line: &mut Vec<u8>) -> io::Result<()> {
    line.clear();
    let (lane, number, ordinal) = (record.lane, record.header.number, record.header.ordinal);
    let Some(message) = message else {
        let hex = data_encoding::HEXLOWER.encode(record.payload);
        serde_json::to_writer(&mut *line, &Other { number, lane, ordinal, kind: record.header.kind, hex })?;
        line.push(b'\n');
        return Ok(());
    };
    let head = MessageHead {
        number,
        lane,
        ordinal,
        queue: message.queue,
        partition: message.partition,
        id: message.id.to_string(),
        transaction_id: message.transaction_id,
        trace_id: message.trace_id.map(|id: Uuid| id.to_string()),
        accepted_at: rfc3339(message.accepted_us),
        namespace: message.namespace,
        task: message.task,
        producer_sub: message.producer_sub,
    };
    serde_json::to_writer(&mut *line, &head)?;
    // The payload goes in as it is, so that numbers keep their digits: the object is opened again for it.
    line.pop();
    line.extend_from_slice(b",\"payload\":");
    // Outside of strings, where JSON lets it stand, an end of line is white space.
    line.extend(message.payload.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
    line.extend_from_slice(b"}\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_wal::frame::FrameHeader;

    fn record(kind: u16, payload: &[u8]) -> Record<'_> {
        let payload_len = payload.len() as u32;
        let header =
            FrameHeader { number: 7, ordinal: 5, payload_len, kind, flags: 1, batch_remaining: 0, group_block: 1 };
        Record { lane: 3, header, payload }
    }

    fn line_of(record: &Record<'_>) -> String {
        let mut line = b"of before".to_vec();
        render(record, message(record).as_ref(), &mut line).unwrap();
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn a_payload_keeps_its_digits_and_stays_on_its_line() {
        let message = Message {
            id: Uuid::from_u128(1),
            accepted_us: 1,
            queue: "q\n\"",
            partition: "p",
            transaction_id: None,
            trace_id: Some(Uuid::from_u128(2)),
            namespace: "",
            task: "t",
            producer_sub: "",
            awaited: false,
            payload: b"{\"a\":\r\n 1.000000000000000000001}",
        };
        let mut bytes = Vec::new();
        message.encode_head(&mut bytes);
        bytes.extend_from_slice(message.payload);
        assert_eq!(
            line_of(&record(KIND_MESSAGE, &bytes)),
            "{\"number\":7,\"lane\":3,\"ordinal\":5,\"queue\":\"q\\n\\\"\",\"partition\":\"p\",\
             \"id\":\"00000000-0000-0000-0000-000000000001\",\"transactionId\":null,\
             \"traceId\":\"00000000-0000-0000-0000-000000000002\",\"acceptedAt\":\"1970-01-01T00:00:00.000001Z\",\
             \"task\":\"t\",\"payload\":{\"a\":   1.000000000000000000001}}\n"
        );
    }

    #[test]
    fn a_record_that_is_no_message_is_shown_by_its_kind_and_bytes() {
        for kind in [KIND_MESSAGE, 9] {
            let expected = format!("{{\"number\":7,\"lane\":3,\"ordinal\":5,\"kind\":{kind},\"hex\":\"00ff\"}}\n");
            assert_eq!(line_of(&record(kind, &[0, 255])), expected);
        }
    }
}
