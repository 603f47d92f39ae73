//! `docs/log-format.md` matches the code: the byte table of a message and its test vectors.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

// The log's own tests read the page through this module too.
#[path = "../../wal/tests/page/mod.rs"]
mod page;

use forebay::message::{Message, NotAMessage};
use page::{ByteTable, Page, Vector};
use std::collections::BTreeSet;
use uuid::Uuid;

const TABLE: &str = "## Message";
const VECTORS: [&str; 3] = ["message", "message-least", "message-producer"];

fn message(vector: &Vector) -> Message<'_> {
    let text = |name: &str| vector.fields.get(name).map(String::as_str);
    Message {
        id: Uuid::from_bytes(vector.uuid("id")),
        accepted_us: vector.number("accepted_us"),
        queue: vector.text("queue"),
        partition: vector.text("partition"),
        transaction_id: text("transaction_id"),
        trace_id: text("trace_id").map(|_| Uuid::from_bytes(vector.uuid("trace_id"))),
        namespace: vector.text("namespace"),
        task: vector.text("task"),
        producer_sub: text("producer_sub").unwrap_or_default(),
        awaited: vector.number::<u8>("awaited") == 1,
        payload: vector.text("payload").as_bytes(),
    }
}

fn encode(message: &Message<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode_head(&mut bytes);
    bytes.extend_from_slice(message.payload);
    bytes
}

/// The flag bit whose meaning contains `what`.
fn bit(table: &ByteTable, what: &str) -> u32 {
    let mut bits = table.field("flags").meaning.split("; ").filter(|bit| bit.contains(what));
    let (number, _) = bits.next().unwrap().strip_prefix("bit ").unwrap().split_once(':').unwrap();
    number.parse().unwrap()
}

/// Asserts that a changed message differs from `base` in one field of the fixed part, which has this value.
fn assert_shows(table: &ByteTable, base: &Message<'_>, changed: &Message<'_>, name: &str, value: u64) {
    let (base, bytes) = (encode(base), encode(changed));
    table.assert_only_changed(name, &base, &bytes, &[]);
    assert_eq!(table.integer(&bytes, name), value, "{name}");
    assert_eq!(Message::decode(&bytes), Ok(*changed), "{name}");
}

#[test]
fn every_field_of_a_message_is_where_its_table_says() {
    let page = Page::read();
    let table = page.byte_table(TABLE);
    let vector = page.vector("message");
    let base = message(&vector);
    let long = |length: usize| "x".repeat(length);
    let (queue, partition, namespace, task) = (long(0x1112), long(0x2122), long(0x3132), long(0x4142));
    let transaction_id = long(0x5152);
    let accepted_us = 0x0102_0304_0506_0708;
    for (name, changed, value) in [
        ("accepted_us", Message { accepted_us, ..base }, accepted_us as u64),
        ("queue_len", Message { queue: &queue, ..base }, 0x1112),
        ("partition_len", Message { partition: &partition, ..base }, 0x2122),
        ("namespace_len", Message { namespace: &namespace, ..base }, 0x3132),
        ("task_len", Message { task: &task, ..base }, 0x4142),
        ("transaction_id_len", Message { transaction_id: Some(&transaction_id), ..base }, 0x5152),
    ] {
        assert_shows(&table, &base, &changed, name, value);
    }

    // Both have a text of length 0, so only the flag distinguishes them.
    let nameless = Message { transaction_id: None, ..base };
    let empty = Message { transaction_id: Some(""), ..base };
    for (what, set, clear) in [
        ("a transaction id", empty, nameless),
        ("a trace id", base, Message { trace_id: None, ..base }),
        ("a client waits", base, Message { awaited: false, ..base }),
    ] {
        let flags = table.integer(&encode(&set), "flags");
        assert_shows(&table, &set, &clear, "flags", flags & !(1 << bit(&table, what)));
    }

    let id = Uuid::from_u128(!0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
    let (before, bytes) = (encode(&base), encode(&Message { id, ..base }));
    table.assert_only_changed("id", &before, &bytes, &[]);
    assert_eq!(&bytes[table.field("id").at.clone()], id.as_bytes());

    let with_producer = encode(&Message { producer_sub: &long(0x0102), ..base });
    table.assert_only_changed("producer_sub_len", &before, &with_producer, &["version"]);
    assert_eq!(table.integer(&with_producer, "producer_sub_len"), 0x0102);
    let versions: Vec<&str> = table.field("version").meaning.split('`').skip(1).step_by(2).collect();
    let written = [&before, &with_producer].map(|bytes| table.integer(bytes, "version").to_string());
    assert_eq!(versions, written);
    for bytes in [&before, &with_producer] {
        assert_eq!(table.field("reserved").quoted().parse(), Ok(table.integer(bytes, "reserved")));
    }
    let expected = [
        "version",
        "flags",
        "producer_sub_len",
        "reserved",
        "transaction_id_len",
        "accepted_us",
        "id",
        "queue_len",
        "partition_len",
        "namespace_len",
        "task_len",
    ];
    let names = table.names();
    assert_eq!(names.iter().copied().collect::<BTreeSet<_>>(), BTreeSet::from(expected));
    assert_eq!(names.len(), expected.len());
}

#[test]
fn the_parts_of_a_message_follow_in_the_order_of_their_table() {
    let page = Page::read();
    let (table, rows) = (page.byte_table(TABLE), page.rows(TABLE, &["part", "size", "what"]));
    for name in VECTORS {
        let vector = page.vector(name);
        let mut expected = vector.bytes[..table.len()].to_vec();
        for row in &rows {
            let part = row[0].trim_matches('`');
            let bytes = match vector.fields.get(part) {
                Some(_) if part == "trace_id" => vector.uuid(part).to_vec(),
                Some(text) => text.as_bytes().to_vec(),
                None => Vec::new(),
            };
            let quoted = row[1].split('`').nth(1).unwrap_or_default();
            if let Some(field) = quoted.strip_suffix("_len") {
                assert_eq!(field, part, "the field that has the part's length");
                assert_eq!(table.integer(&vector.bytes, quoted), bytes.len() as u64, "{part}");
            }
            expected.extend_from_slice(&bytes);
        }
        assert_eq!(encode(&message(&vector)), expected, "{name}");
    }
    let parts: BTreeSet<_> = rows.iter().map(|row| row[0].trim_matches('`')).collect();
    let expected = ["trace_id", "transaction_id", "queue", "partition", "namespace", "task", "producer_sub", "payload"];
    assert_eq!(parts, BTreeSet::from(expected));
    assert_eq!(rows.len(), expected.len());
}

#[test]
fn the_message_vectors_are_what_is_written_and_read() {
    let page = Page::read();
    let names: Vec<_> = page.vector_names().into_iter().filter(|name| name.starts_with("message")).collect();
    assert_eq!(names, VECTORS);
    let table = page.byte_table(TABLE);
    for name in names {
        let vector = page.vector(name);
        assert_eq!(Message::decode(&vector.bytes), Ok(message(&vector)), "{name}");
        assert_eq!(encode(&message(&vector)), vector.bytes, "{name}");
        for version in [0, 3, 255] {
            let mut other_version = vector.bytes.clone();
            other_version[0] = version;
            assert_eq!(Message::decode(&other_version), Err(NotAMessage), "{name}, version {version}");
        }
        let mut reserved = vector.bytes.clone();
        reserved[table.field("reserved").at.clone()].fill(7);
        if table.integer(&vector.bytes, "version") == 1 {
            reserved[table.field("producer_sub_len").at.clone()].fill(7);
        }
        assert_eq!(Message::decode(&reserved), Ok(message(&vector)), "{name}: reserved bytes are not looked at");
    }
}
