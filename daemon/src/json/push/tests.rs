use proptest::prelude::*;

use super::*;

fn parse_default(body: &str) -> Result<PushRequest<'_>, PushError> {
    parse(body.as_bytes(), &PushLimits::default())
}

#[track_caller]
fn assert_refused(body: impl AsRef<[u8]>, kind: PushErrorKind, message: &str) {
    let body = body.as_ref();
    let error = parse(body, &PushLimits::default()).expect_err("refused");
    assert_eq!((error.kind, error.message.as_str()), (kind, message), "{}", String::from_utf8_lossy(body));
}

/// The byte that the message names.
fn error_byte(error: &PushError) -> usize {
    let (_, tail) = error.message.rsplit_once(" at byte ").expect("a place");
    tail.trim_end_matches(" of the body").parse().unwrap()
}

/// A request of one item with these members after a valid queue and payload.
fn with_members(members: &str) -> String {
    format!("{{\"items\":[{{\"queue\":\"q\",\"payload\":1,{members}}}]}}")
}

const FULL: &str = r#" {"bufferMs": 100, "items" : [
    {"queue":"events","partition":"P-1","payload": {"a" : [1, 2.50], "b":"\u00e9"} ,"transactionId":"tx-1",
     "traceId":"0190A5E6-7c0d-7000-8000-0123456789ab","namespace":"ns","task":"t"},
    {"payload":null,"queue":"événements"}
  ], "bufferMax":50, "qos0":true} "#;

#[test]
fn a_full_request_is_cut_into_its_parts_and_payloads_are_the_bytes_that_came() {
    let request = parse_default(FULL).unwrap();
    assert_eq!((request.buffer_ms, request.buffer_max, request.qos0), (Some(100), Some(50), true));
    let [first, second] = request.items.as_slice() else { panic!("two items") };
    assert_eq!(first.queue, "events");
    assert_eq!(first.partition.as_deref(), Some("P-1"));
    assert_eq!(first.payload, br#"{"a" : [1, 2.50], "b":"\u00e9"}"#);
    assert_eq!(first.transaction_id.as_deref(), Some("tx-1"));
    assert_eq!(first.trace_id, Some(Uuid::from_u128(0x0190_a5e6_7c0d_7000_8000_0123_4567_89ab)));
    assert_eq!((first.namespace.as_deref(), first.task.as_deref()), (Some("ns"), Some("t")));
    assert_eq!((&*second.queue, second.payload), ("événements", &b"null"[..]));
    assert_eq!((&second.partition, &second.transaction_id, second.trace_id), (&None, &None, None));
    assert!(matches!(first.queue, Cow::Borrowed(_)));
}

#[test]
fn a_request_without_items_or_with_none_is_told_apart() {
    let request = parse_default(r#"{"items":[]}"#).unwrap();
    assert_eq!(request, PushRequest { items: vec![], buffer_ms: None, buffer_max: None, qos0: false });
    assert!(!request.is_buffered());
    for body in ["{}", "[]", "null", "\"items\"", r#"{"item":[]}"#, r#"{"items":null}"#, r#"{"items":{"queue":"q"}}"#] {
        assert_refused(body, PushErrorKind::InvalidRequest, "items array is required");
    }
}

#[test]
fn keys_may_be_spelled_with_escapes_come_twice_or_be_unknown() {
    let body =
        r#"{"it\u0065ms":[{"queue":"a","payload":1,"pay\u006coad":{"x":2},"queue":"b\u002f\"","data":[3]}],"x":{}}"#;
    let request = parse_default(body).unwrap();
    assert_eq!(request.items[0].queue, "b/\"");
    assert_eq!(request.items[0].payload, br#"{"x":2}"#);
    // Each of two is checked, the unknown ones too.
    assert_refused(
        with_members(r#""queue":1,"queue":"b""#),
        PushErrorKind::InvalidItem,
        "items[0].queue: must be a string",
    );
    assert_refused(
        with_members(r#""x":[1,]"#),
        PushErrorKind::MalformedJson,
        "items[0]: expected a value at byte 42 of the body",
    );
    // Of two lists, the last one counts.
    let twice = r#"{"items":[{"queue":"a","payload":1}],"items":[]}"#;
    assert_eq!(parse_default(twice).unwrap().items.len(), 0);
}

#[test]
fn null_is_absence_save_for_the_payload() {
    let nulls = r#""partition":null,"transactionId":null,"traceId":null,"namespace":null,"task":null"#;
    let item = format!("{{\"queue\":\"q\",\"payload\":null,{nulls}}}");
    let body = format!("{{\"items\":[{item}],\"bufferMs\":null,\"bufferMax\":null,\"qos0\":null}}");
    let request = parse_default(&body).unwrap();
    let item = &request.items[0];
    assert_eq!((&item.partition, &item.transaction_id, item.trace_id), (&None, &None, None));
    assert_eq!((&item.namespace, &item.task, item.payload), (&None, &None, &b"null"[..]));
    assert!(!request.is_buffered());
    assert_refused(
        r#"{"items":[{"queue":null,"payload":1}]}"#,
        PushErrorKind::InvalidItem,
        "items[0].queue: must be a string",
    );
}

#[test]
fn what_is_missing_or_of_the_wrong_type_is_named_with_its_item() {
    let good = r#"{"queue":"q","payload":{}}"#;
    for (item, message) in [
        (r#"{"queue":"q"}"#, "items[2].payload: missing"),
        (r#"{"payload":1}"#, "items[2].queue: missing"),
        ("{}", "items[2].queue: missing"),
        ("[]", "items[2]: must be an object"),
        ("null", "items[2]: must be an object"),
        (r#"{"queue":7,"payload":1}"#, "items[2].queue: must be a string"),
        (r#"{"queue":{"a":["b"]},"payload":1}"#, "items[2].queue: must be a string"),
        (r#"{"queue":"","payload":1}"#, "items[2].queue: must not be empty"),
        (r#"{"queue":"q","payload":1,"partition":1}"#, "items[2].partition: must be a string"),
        (r#"{"queue":"q","payload":1,"partition":""}"#, "items[2].partition: must not be empty"),
        (r#"{"queue":"q","payload":1,"transactionId":true}"#, "items[2].transactionId: must be a string"),
        (r#"{"queue":"q","payload":1,"transactionId":""}"#, "items[2].transactionId: must not be empty"),
        (r#"{"queue":"q","payload":1,"traceId":1}"#, "items[2].traceId: must be a string"),
        (r#"{"queue":"q","payload":1,"traceId":"abc"}"#, "items[2].traceId: must be a UUID"),
        (r#"{"queue":"q","payload":1,"namespace":[]}"#, "items[2].namespace: must be a string"),
        (r#"{"queue":"q","payload":1,"task":false}"#, "items[2].task: must be a string"),
    ] {
        assert_refused(format!("{{\"items\":[{good},{good},{item},{good}]}}"), PushErrorKind::InvalidItem, message);
    }
}

#[test]
fn a_payload_that_cannot_be_stored_is_told_with_its_item_and_byte() {
    let body = |payload: &str| format!("{{\"items\":[{{\"queue\":\"q\",\"payload\":{payload}}}]}}");
    let kind = PushErrorKind::PayloadNotStorable;
    assert_refused(body(r#""\u0000""#), kind, r"items[0].payload: \u0000 cannot be stored at byte 34 of the body");
    assert_refused(
        body(r#"{"a":"\ud800"}"#),
        kind,
        "items[0].payload: half of a surrogate pair cannot be stored at byte 39 of the body",
    );
    assert_refused(
        body("[1,1e1000]"),
        kind,
        "items[0].payload: a number that needs more than 1000 digits written out cannot be stored at byte 36 of the body",
    );
    let deepest = "[".repeat(512) + &"]".repeat(512);
    assert_eq!(parse_default(&body(&deepest)).unwrap().items[0].payload, deepest.as_bytes());
    assert_refused(
        body(&format!("[{deepest}]")),
        kind,
        "items[0].payload: nesting beyond 512 cannot be stored at byte 545 of the body",
    );
    let flawed = [br#"{"items":[{"queue":"q","payload":""#, &b"\xed\xa0\x80"[..], br#""}]}"#].concat();
    assert_refused(flawed, kind, "items[0].payload: invalid UTF-8 cannot be stored at byte 34 of the body");
}

#[test]
fn what_is_not_storable_elsewhere_is_no_fault_of_the_payload() {
    assert_refused(
        r#"{"items":[{"queue":"\u0000","payload":1}]}"#,
        PushErrorKind::InvalidItem,
        r"items[0].queue: \u0000 cannot be stored at byte 20 of the body",
    );
    assert_refused(
        b"{\"items\":[{\"queue\":\"q\xff\",\"payload\":1}]}",
        PushErrorKind::InvalidItem,
        "items[0].queue: invalid UTF-8 cannot be stored at byte 21 of the body",
    );
    assert_refused(
        r#"{"x":"\u0000"}"#,
        PushErrorKind::MalformedJson,
        r"malformed request: \u0000 cannot be stored at byte 6 of the body",
    );
}

#[test]
fn names_are_kept_up_to_their_limits() {
    let (fits, long) = ("é".repeat(127) + "x", "é".repeat(128));
    for field in ["queue", "partition", "namespace", "task"] {
        let request = with_members(&format!("\"{field}\":\"{fits}\""));
        assert!(parse_default(&request).is_ok(), "{field}");
        assert_refused(
            with_members(&format!("\"{field}\":\"{long}\"")),
            PushErrorKind::InvalidItem,
            &format!("items[0].{field}: must not be longer than 255 bytes"),
        );
    }
    let id = "é".repeat(255);
    let body = with_members(&format!("\"transactionId\":\"{id}\""));
    assert_eq!(parse_default(&body).unwrap().items[0].transaction_id.as_deref(), Some(&*id));
    assert_refused(
        with_members(&format!("\"transactionId\":\"{id}é\"")),
        PushErrorKind::InvalidItem,
        "items[0].transactionId: must not be longer than 255 characters",
    );
    for check in [check_queue, check_partition, check_namespace, check_task, check_transaction_id] {
        assert_eq!(check("a\0b"), Err("must not contain U+0000"));
        assert_eq!(check("../'\"\n😀"), Ok(()));
    }
    assert_eq!((check_namespace(""), check_task("")), (Ok(()), Ok(())));
}

#[test]
fn a_trace_id_is_read_in_every_form_that_postgresql_reads() {
    let uuid = Some(Uuid::from_u128(0xa0ee_bc99_9c0b_4ef8_bb6d_6bb9_bd38_0a11));
    for kept in [
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
        "a0eebc999c0b4ef8bb6d6bb9bd380a11",
        "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}",
        "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
    ] {
        assert_eq!(rules::parse_uuid(kept), uuid, "{kept}");
    }
    for refused in [
        "",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a111",
        "a0eebc999c0b4ef8bb6d6bb9bd380a1g",
        "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
        "-a0eebc999c0b4ef8bb6d6bb9bd380a11",
        "a0eebc99--9c0b4ef8bb6d6bb9bd380a11",
        "a0eebc999c0b4ef8bb6d6bb9bd380a11-",
        "a0e-ebc999c0b4ef8bb6d6bb9bd380a11",
        " a0eebc999c0b4ef8bb6d6bb9bd380a11",
        "urn:uuid:a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    ] {
        assert_eq!(rules::parse_uuid(refused), None, "{refused}");
    }
}

#[test]
fn buffering_is_asked_for_with_integers_in_range() {
    let body = |members: &str| format!("{{\"items\":[],{members}}}");
    let read = |members: &str| parse_default(&body(members)).map(|request| (request.buffer_ms, request.buffer_max));
    assert_eq!(read("\"bufferMs\":0,\"bufferMax\":0"), Ok((Some(0), Some(1))));
    assert_eq!(read("\"bufferMs\":3600000,\"bufferMax\":1000000"), Ok((Some(3_600_000), Some(1_000_000))));
    assert_eq!(read("\"bufferMs\":100.0,\"bufferMax\":7.000"), Ok((Some(100), Some(7))));
    assert_eq!(read("\"qos0\":true"), Ok((None, None)));
    assert!(parse_default(&body("\"bufferMs\":0")).unwrap().is_buffered());
    for value in ["-1", "3600001", "1.5", "1e2", "-0", "\"100\"", "true", "[]", "99999999999999999999"] {
        assert_refused(
            body(&format!("\"bufferMs\":{value}")),
            PushErrorKind::InvalidRequest,
            "bufferMs: must be an integer from 0 to 3600000",
        );
    }
    assert_refused(
        body("\"bufferMax\":1000001"),
        PushErrorKind::InvalidRequest,
        "bufferMax: must be an integer from 1 to 1000000",
    );
    assert_refused(body("\"qos0\":1"), PushErrorKind::InvalidRequest, "qos0: must be true or false");
    assert_refused(
        body("\"bufferMs\":01"),
        PushErrorKind::MalformedJson,
        "malformed request: expected ',' or '}' at byte 24 of the body",
    );
}

#[test]
fn more_items_than_the_limit_are_refused() {
    let body = format!("{{\"items\":[{}]}}", [r#"{"queue":"q","payload":1}"#; 4].join(","));
    let parse_with = |max_items| parse(body.as_bytes(), &PushLimits { max_items });
    assert_eq!(parse_with(4).unwrap().items.len(), 4);
    let error = parse_with(3).unwrap_err();
    assert_eq!(
        (error.kind, error.message.as_str()),
        (PushErrorKind::InvalidRequest, "items: more than 3 in one request")
    );
}

#[test]
fn every_prefix_of_a_valid_body_is_refused_and_so_is_anything_after_it() {
    for length in 0..FULL.trim_end().len() {
        let error = parse(&FULL.as_bytes()[..length], &PushLimits::default()).expect_err("refused");
        // A cut inside a character leaves bytes that are not UTF-8, which is the item's fault.
        assert!(matches!(error.kind, PushErrorKind::MalformedJson | PushErrorKind::InvalidItem), "{length}: {error:?}");
        assert!(error.message.ends_with(&format!(" at byte {} of the body", error_byte(&error))), "{error:?}");
        assert!(error_byte(&error) <= length);
    }
    assert_refused(
        "{\"items\":[]}x",
        PushErrorKind::MalformedJson,
        "malformed request: something follows the JSON document at byte 12 of the body",
    );
    assert_refused(
        "",
        PushErrorKind::MalformedJson,
        "malformed request: the JSON ends too early at byte 0 of the body",
    );
}

#[test]
fn every_one_byte_change_of_a_valid_body_is_judged_as_json_first() {
    for at in 0..FULL.len() {
        for byte in 0..=0xff_u8 {
            let mut body = FULL.as_bytes().to_vec();
            body[at] = byte;
            let parsed = parse(&body, &PushLimits::default());
            match super::super::validate(&body) {
                Ok(()) => {
                    assert!(!matches!(&parsed, Err(error) if error.kind == PushErrorKind::MalformedJson), "{parsed:?}")
                }
                Err(_) => assert!(parsed.is_err(), "{}", String::from_utf8_lossy(&body)),
            }
        }
    }
}

proptest! {
    #[test]
    fn payloads_come_back_byte_for_byte_and_names_as_they_were(
        items in prop::collection::vec(
            (
                "[a-z\"\\\\é😀\n]{1,20}",
                prop::sample::select(vec![
                    "1", "-1.50e+2", "\"a\\n\\u0041\"", "{ \"k\" : [ ] }", "[1,\t{\"a\":{\"b\":null}}]", "null", "\"\"",
                ]),
                prop::option::of("[ -~]{1,30}"),
                "[ \n\t]{0,2}",
            ),
            0..8,
        ),
    ) {
        let mut body = b"{\"items\":[".to_vec();
        for (index, (queue, payload, id, space)) in items.iter().enumerate() {
            if index > 0 {
                body.push(b',');
            }
            body.extend_from_slice(b"{\"queue\":");
            super::super::json_string(&mut body, queue);
            if let Some(id) = id {
                body.extend_from_slice(b",\"transactionId\":");
                super::super::json_string(&mut body, id);
            }
            body.extend_from_slice(format!(",\"payload\":{space}{payload}{space}}}").as_bytes());
        }
        body.extend_from_slice(b"]}");
        let request = parse(&body, &PushLimits::default()).unwrap();
        prop_assert_eq!(request.items.len(), items.len());
        for (item, (queue, payload, id, _)) in request.items.iter().zip(&items) {
            prop_assert_eq!(&*item.queue, queue.as_str());
            prop_assert_eq!(item.payload, payload.as_bytes());
            prop_assert_eq!(item.transaction_id.as_deref(), id.as_deref());
        }
    }
}
