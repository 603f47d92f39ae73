//! The answers of the queue, as JSON.

use super::{batch::PairId, names::KnownGroup, request::QUEUE_MODE, stored_message::StoredMessage};
use crate::{ids::rfc3339, json::json_string};
use std::io::Write;
use uuid::Uuid;

/// Bytes of a message's document beside its payload, about.
const MESSAGE_BYTES: usize = 420;

/// Messages that were handed out to one pop.
pub(super) fn popped(
    known: &KnownGroup,
    partition_name: &str,
    pair: PairId,
    lease: Option<Uuid>,
    messages: &[StoredMessage],
    autopilot: Option<u32>,
) -> Vec<u8> {
    let payloads: usize = messages.iter().map(|message| message.payload.len()).sum();
    let mut out = Vec::with_capacity(payloads + MESSAGE_BYTES * (1 + messages.len()));
    // What stands in each message and is the same for all.
    let mut shared = Vec::new();
    shared.extend_from_slice(br#","queue":"#);
    json_string(&mut shared, &known.queue_name);
    shared.extend_from_slice(br#","partition":"#);
    json_string(&mut shared, partition_name);
    write(&mut shared, format_args!(r#","partitionId":"{}","leaseId":"#, pair.partition));
    match lease {
        Some(lease) => write(&mut shared, format_args!(r#""{lease}""#)),
        None => shared.extend_from_slice(b"null"),
    }
    shared.extend_from_slice(br#","consumerGroup":"#);
    match &*known.group_name {
        QUEUE_MODE => shared.extend_from_slice(b"null"),
        name => json_string(&mut shared, name),
    }
    out.extend_from_slice(br#"{"success":true"#);
    out.extend_from_slice(&shared);
    if let Some(batch) = autopilot {
        write(&mut out, format_args!(r#","autopilot":{{"partitions":1,"batch":{batch}}}"#));
    }
    out.extend_from_slice(br#","partitionsClaimed":1,"messages":["#);
    for (index, message) in messages.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(&mut out, format_args!(r#"{{"id":"{}","transactionId":"#, message.id));
        match &message.transaction_id {
            Some(id) => json_string(&mut out, id),
            None => write(&mut out, format_args!(r#""{}""#, message.key())),
        }
        match message.trace_id {
            Some(trace) => write(&mut out, format_args!(r#","traceId":"{trace}""#)),
            None => out.extend_from_slice(br#","traceId":null"#),
        }
        out.extend_from_slice(br#","data":"#);
        out.extend_from_slice(message.payload.as_bytes());
        let created = rfc3339(message.created_us);
        write(&mut out, format_args!(r#","createdAt":"{created}","retryCount":{}"#, message.attempts));
        out.extend_from_slice(br#","priority":0,"producerSub":"#);
        match &message.producer_sub {
            Some(sub) => json_string(&mut out, sub),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(&shared);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    out
}

/// What became of one item of an ack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Acked {
    /// It counts.
    Done {
        /// The queue and the partition.
        of: (String, String),
        /// The lease has ended with it.
        is_released: bool,
        /// The group gave the message up.
        is_letter: bool,
    },
    /// The lease is not held.
    LeaseLost,
    /// There is no such message.
    NotFound,
}

/// The array that answers an ack.
pub(super) fn acked(items: &[(String, Acked)]) -> Vec<u8> {
    let element = |(index, (transaction_id, acked)): (usize, &(String, Acked))| match acked {
        Acked::Done { of: (queue, partition), is_released, is_letter } => serde_json::json!({
            "index": index, "transactionId": transaction_id, "success": true, "error": null,
            "queueName": queue, "partitionName": partition, "leaseReleased": is_released, "dlq": is_letter,
        }),
        Acked::LeaseLost | Acked::NotFound => serde_json::json!({
            "index": index, "transactionId": transaction_id, "success": false, "error": why(acked),
            "queueName": null, "partitionName": null, "leaseReleased": false, "dlq": false,
        }),
    };
    let array: Vec<_> = items.iter().enumerate().map(element).collect();
    serde_json::Value::from(array).to_string().into_bytes()
}

/// What is said of an item that does not count.
pub(super) fn why(acked: &Acked) -> &'static str {
    match acked {
        Acked::NotFound => "Message not found",
        Acked::LeaseLost | Acked::Done { .. } => "Invalid or expired lease",
    }
}

fn write(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).unwrap_or_else(|error| unreachable!("a vector takes all that is written: {error}"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{
        directory::{FoundGroup, QueueOptions},
        names::Names,
    };

    #[test]
    fn messages_are_written_with_all_that_clients_read() {
        let options = QueueOptions { lease_ms: 1, retry_limit: 1, retry_delay_ms: 1 };
        let found = FoundGroup { queue: 1, group: 2, options };
        let pair = PairId { partition: 7, group: 2 };
        let message = StoredMessage {
            seq: 3,
            created_us: 1_000_000,
            id: Uuid::from_u128(1),
            trace_id: Some(Uuid::from_u128(2)),
            transaction_key: Some(Uuid::from_u128(3)),
            transaction_id: Some("a \"b\"".into()),
            producer_sub: None,
            payload: r#"{"n": 1}"#.into(),
            attempts: 2,
        };
        for (group, shown) in [("g", serde_json::json!("g")), (QUEUE_MODE, serde_json::Value::Null)] {
            let known = Names::default().add_group(&found, &"q \"1\"".into(), &group.into());
            let lease = Uuid::from_u128(9);
            let body = popped(&known, "p", pair, Some(lease), &[message.clone(), message.clone()], Some(5));
            assert!(body.starts_with(b"{\"success\":true"));
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(
                (&body["queue"], &body["partitionId"], &body["leaseId"]),
                (&"q \"1\"".into(), &"7".into(), &lease.to_string().into())
            );
            let expected = serde_json::json!({
                "id": Uuid::from_u128(1), "transactionId": "a \"b\"", "traceId": Uuid::from_u128(2), "data": {"n": 1},
                "createdAt": "1970-01-01T00:00:01.000000Z", "retryCount": 2, "priority": 0, "producerSub": null,
                "queue": "q \"1\"", "partition": "p", "partitionId": "7", "leaseId": lease, "consumerGroup": shown,
            });
            assert_eq!(body["messages"], serde_json::json!([expected, expected]));
            let body: serde_json::Value =
                serde_json::from_slice(&popped(&known, "p", pair, None, std::slice::from_ref(&message), None)).unwrap();
            assert_eq!(body["messages"][0]["leaseId"], serde_json::Value::Null);
        }
    }
}
