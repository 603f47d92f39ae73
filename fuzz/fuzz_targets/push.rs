//! Follows a push from its bytes to the records of the log: head, route, body, JSON, message. Sockets and log are left out.
//!
//! What must hold:
//! - No input leads to a panic.
//! - A well-formed push reaches the route of its path, with the body that was sent.
//! - Each of its messages reads back unchanged from its record, and its payload is valid JSON.
#![no_main]

use arbitrary::Arbitrary;
use forebay::{
    api::{BodyKind, find_route},
    http::{Body, Head, Limits, Parsed, chunked::Decoder, request},
    json::{
        ndjson,
        push::{self, PushLimits},
        validate,
    },
    message::Message,
};
use libfuzzer_sys::fuzz_target;
use std::borrow::Cow;
use uuid::Uuid;

const LIMITS: Limits = Limits::new(64 << 10);

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    target: Target<'a>,
    key: Option<&'a str>,
    body: Content<'a>,
    chunk_bytes: Option<u8>,
}

#[derive(Arbitrary, Debug)]
enum Target<'a> {
    Items,
    Path(&'a str),
    PathAndPartition(&'a str, &'a str),
    Lines(&'a str),
    /// An arbitrary head.
    Raw(&'a [u8]),
}

#[derive(Arbitrary, Debug)]
enum Content<'a> {
    Raw(&'a [u8]),
    /// Items with arbitrary texts.
    Items(Vec<Item<'a>>, Option<u32>),
    /// Lines that may or may not be JSON.
    Lines(Vec<&'a str>),
}

#[derive(Arbitrary, Debug)]
struct Item<'a> {
    queue: &'a str,
    partition: Option<&'a str>,
    transaction_id: Option<&'a str>,
    trace_id: Option<u128>,
    payload: &'a str,
    namespace: Option<&'a str>,
}

fuzz_target!(|input: Input<'_>| {
    let body = body(&input.body);
    let bytes = request(&input, &body);
    let Ok(Parsed::Head(head)) = request::parse(&bytes, &LIMITS) else { return };
    let Some(content) = content(&head, &bytes[head.head_len..]) else { return };
    if !matches!(input.target, Target::Raw(_)) {
        assert_eq!(content, body, "the body differs from what was sent");
    }
    let Ok(found) = find_route(head.method, head.path) else { return };
    match (found.route.is_push(), found.route.body) {
        (true, BodyKind::Json) => items(&content),
        (true, BodyKind::PayloadOrLines) => {
            let (queue, partition) = (found.param("queue").expect("the pattern has it"), found.param("partition"));
            match &input.target {
                Target::Path(sent) | Target::Lines(sent) => assert_eq!((queue, partition), (*sent, None)),
                Target::PathAndPartition(sent, other) => assert_eq!((queue, partition), (*sent, Some(*other))),
                Target::Items | Target::Raw(_) => {}
            }
            by_path(&head, queue, partition, &content);
        }
        _ => {}
    }
});

/// A text, percent-encoded for a segment of a path.
fn segment(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string is JSON")
}

fn body(content: &Content<'_>) -> Vec<u8> {
    match content {
        Content::Raw(bytes) => bytes.to_vec(),
        Content::Lines(lines) => lines.join("\n").into_bytes(),
        Content::Items(items, buffer_ms) => {
            let items: Vec<String> = items.iter().map(item).collect();
            let buffer_ms = buffer_ms.map(|ms| format!(",\"bufferMs\":{ms}")).unwrap_or_default();
            format!("{{\"items\":[{}]{buffer_ms}}}", items.join(",")).into_bytes()
        }
    }
}

fn item(item: &Item<'_>) -> String {
    let mut text = format!("{{\"queue\":{},\"payload\":{}", quoted(item.queue), item.payload);
    let texts = [("partition", item.partition), ("transactionId", item.transaction_id), ("namespace", item.namespace)];
    for (name, value) in texts {
        if let Some(value) = value {
            text.push_str(&format!(",\"{name}\":{}", quoted(value)));
        }
    }
    if let Some(trace_id) = item.trace_id {
        text.push_str(&format!(",\"traceId\":\"{}\"", Uuid::from_u128(trace_id)));
    }
    text + "}"
}

fn request(input: &Input<'_>, body: &[u8]) -> Vec<u8> {
    let line = match &input.target {
        Target::Items => "POST /api/v1/push HTTP/1.1\r\nHost: h\r\n".to_owned(),
        Target::Path(queue) => format!("POST /push/{} HTTP/1.1\r\nHost: h\r\n", segment(queue)),
        Target::PathAndPartition(queue, partition) => {
            format!("POST /push/{}/{} HTTP/1.1\r\nHost: h\r\n", segment(queue), segment(partition))
        }
        Target::Lines(queue) => {
            format!("POST /push/{} HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-ndjson\r\n", segment(queue))
        }
        Target::Raw(bytes) => return [*bytes, body].concat(),
    };
    let mut bytes = line.into_bytes();
    if let Some(key) = input.key {
        // A control character would end the header line.
        let key: String = key.chars().filter(|character| !character.is_control()).collect();
        bytes.extend_from_slice(format!("Idempotency-Key: {key}\r\n").as_bytes());
    }
    match input.chunk_bytes {
        None => {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
            bytes.extend_from_slice(body);
        }
        Some(chunk_bytes) => {
            bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            for chunk in body.chunks(usize::from(chunk_bytes).max(1)) {
                bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
        }
    }
    bytes
}

/// The request's body, if it is complete.
fn content(head: &Head<'_>, wire: &[u8]) -> Option<Vec<u8>> {
    match head.framing {
        Body::None => None,
        Body::Length(length) => wire.get(..length as usize).map(<[u8]>::to_vec),
        Body::Chunked => {
            let mut body = Vec::new();
            let progress = Decoder::new(LIMITS.max_body_bytes).feed(wire, &mut body).ok()?;
            progress.is_done.then_some(body)
        }
    }
}

fn items(body: &[u8]) {
    let Ok(request) = push::parse(body, &PushLimits::default()) else { return };
    for item in request.items {
        let message = Message {
            id: Uuid::nil(),
            accepted_us: 0,
            queue: &item.queue,
            partition: item.partition.as_deref().unwrap_or("Default"),
            transaction_id: item.transaction_id.as_deref(),
            trace_id: item.trace_id,
            namespace: item.namespace.as_deref().unwrap_or_default(),
            task: item.task.as_deref().unwrap_or_default(),
            producer_sub: "",
            awaited: !body.is_empty(),
            payload: item.payload,
        };
        check(&message);
    }
}

fn by_path(head: &Head<'_>, queue: &str, partition: Option<&str>, body: &[u8]) {
    let partition = partition.unwrap_or("Default");
    let key = head.idempotency_key;
    if push::check_queue(queue).is_err()
        || push::check_partition(partition).is_err()
        || key.is_some_and(|key| push::check_transaction_id(key).is_err())
    {
        return;
    }
    let is_lines = head.media_type().is_some_and(|kind| kind.eq_ignore_ascii_case("application/x-ndjson"));
    let documents: Vec<(u64, &[u8])> = if is_lines { ndjson::lines(body).collect() } else { vec![(1, body)] };
    for (number, payload) in documents {
        if validate(payload).is_err() {
            return;
        }
        let transaction_id = match key {
            Some(key) if is_lines => Some(Cow::Owned(format!("{key}/{number}"))),
            key => key.map(Cow::Borrowed),
        };
        let transaction_id = transaction_id.as_deref();
        if transaction_id.is_some_and(|id| push::check_transaction_id(id).is_err()) {
            return;
        }
        let message = Message {
            id: Uuid::max(),
            accepted_us: i64::MAX,
            queue,
            partition,
            transaction_id,
            trace_id: None,
            namespace: "",
            task: "",
            // A record of version 2.
            producer_sub: "somebody",
            awaited: false,
            payload,
        };
        check(&message);
    }
}

fn check(message: &Message<'_>) {
    assert_eq!(validate(message.payload), Ok(()));
    let mut record = Vec::new();
    message.encode_head(&mut record);
    record.extend_from_slice(message.payload);
    assert_eq!(Message::decode(&record).as_ref(), Ok(message), "the message does not read back from its record");
    for length in 0..record.len() - message.payload.len() {
        // A record that ends in its head is not the message.
        assert_ne!(Message::decode(&record[..length]).as_ref(), Ok(message));
    }
}
