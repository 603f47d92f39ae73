//! Compares the daemon's JSON scanner with serde_json on arbitrary bodies.
//!
//! What must hold:
//! - No body makes the scanner panic, and the position in an error lies within the body.
//! - What the scanner accepts is JSON. What it refuses as malformed is not JSON for serde_json either.
//! - A push that is accepted is valid JSON. So is each of its payloads alone, and its names follow their rules.
//! - Lines are the same wherever the body is divided.
//! - A string that is written reads back.
#![no_main]

use forebay::json::{
    json_string,
    ndjson::{lines, lines_from, whole_lines_bytes},
    push::{self, PushLimits},
    validate,
};
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;

fuzz_target!(|body: &[u8]| {
    let validated = validate(body);
    let is_json = serde_json::from_slice::<&RawValue>(body).is_ok();
    match &validated {
        Ok(()) => assert!(is_json, "accepted, but not JSON"),
        Err(error) => {
            assert!(error.offset <= body.len());
            assert!(error.kind.is_not_storable() || !is_json, "refused as malformed, but JSON: {error}");
        }
    }
    if let Ok(request) = push::parse(body, &PushLimits { max_items: 64 }) {
        assert_eq!(validated, Ok(()), "an accepted push is not JSON");
        assert!(request.items.len() <= 64);
        for item in &request.items {
            assert_eq!(validate(item.payload), Ok(()));
            assert_eq!(push::check_queue(&item.queue), Ok(()));
            if let Some(partition) = &item.partition {
                assert_eq!(push::check_partition(partition), Ok(()));
            }
            if let Some(id) = &item.transaction_id {
                assert_eq!(push::check_transaction_id(id), Ok(()));
            }
        }
    }
    check_lines(body);
    if let Ok(text) = std::str::from_utf8(body) {
        let mut written = Vec::new();
        json_string(&mut written, text);
        assert_eq!(serde_json::from_slice::<String>(&written).expect("a string"), text);
    }
});

/// Divides the body at a position that its first byte determines.
fn check_lines(body: &[u8]) {
    let whole: Vec<(u64, &[u8])> = lines(body).collect();
    let cut = body.first().map_or(0, |byte| usize::from(*byte) % (body.len() + 1));
    let taken = whole_lines_bytes(&body[..cut]);
    let mut first = lines_from(&body[..taken], 1);
    let mut parted: Vec<(u64, &[u8])> = first.by_ref().collect();
    let next = first.next_line();
    parted.extend(lines_from(&body[taken..], next));
    assert_eq!(whole, parted, "the lines depend on where the body is divided");
}
