use std::collections::HashSet;

use clap::Parser;
use serde_json::Value;

use super::*;
use crate::args::{Cli, Command};

fn args(line: &str) -> PushArgs {
    let words = ["forebay-bench", "push"].into_iter().chain(line.split_whitespace());
    match Cli::try_parse_from(words).unwrap().command {
        Command::Push(args) => *args,
        Command::Hold(_) => unreachable!("a push was parsed"),
    }
}

/// The heads and bodies of the requests in `bytes`, divided by their Content-Length.
fn cut(mut bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut requests = Vec::new();
    while !bytes.is_empty() {
        let head_end = memchr::memmem::find(bytes, b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap().parse().unwrap();
        let (body, rest) = bytes[head_end..].split_at(length);
        requests.push((head, body.to_vec()));
        bytes = rest;
    }
    requests
}

fn render(renderer: &mut Renderer, first: u64, count: u32) -> Vec<(String, Vec<u8>)> {
    let (bytes, len) = renderer.render(first, count);
    let requests = cut(&bytes[..len]);
    renderer.give_back(bytes);
    requests
}

#[test]
fn a_plain_push_contains_the_items_and_nothing_else() {
    let args = args("--messages-per-request 3 --payload-bytes 40 --queue q.1");
    let mut renderer = Renderer::new(&args, "run", 0);
    let requests = render(&mut renderer, 0, 1);
    assert_eq!(requests.len(), 1);
    let (head, body) = &requests[0];
    assert!(head.starts_with("POST /api/v1/push HTTP/1.1\r\nHost: 127.0.0.1:6632\r\n"));
    assert_eq!(renderer.body_bytes(), body.len());
    let body: Value = serde_json::from_slice(body).unwrap();
    let items = body["items"].as_array().unwrap();
    assert_eq!(items.len(), 3);
    for item in items {
        assert_eq!(item["queue"], "q.1");
        assert_eq!(item.as_object().unwrap().len(), 2, "{item}");
        assert_eq!(item["payload"].to_string().len(), 40);
    }
    assert_eq!(body.as_object().unwrap().len(), 1);
    assert_eq!(renderer.names(0).count(), 0);
}

#[test]
fn a_buffered_push_contains_its_limits() {
    let mut renderer = Renderer::new(&args("--buffered --buffer-ms 7 --buffer-max 9"), "run", 0);
    let body: Value = serde_json::from_slice(&render(&mut renderer, 0, 1)[0].1).unwrap();
    assert_eq!((body["bufferMs"].as_u64(), body["bufferMax"].as_u64()), (Some(7), Some(9)));
}

#[test]
fn every_message_has_the_name_and_partition_that_the_audit_file_gives_it() {
    let args = args("--messages-per-request 3 --partitions 4 --pipeline 2 --transaction-ids");
    let mut renderer = Renderer::new(&args, "run", 17);
    let mut seen = HashSet::new();
    for first in [0, 2, 999_999] {
        let requests = render(&mut renderer, first, 2);
        assert_eq!(requests.len(), 2);
        for (request, (_, body)) in (first..).zip(requests) {
            let body: Value = serde_json::from_slice(&body).unwrap();
            let sent: Vec<(String, String)> = body["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|item| {
                    let text = |key: &str| item[key].as_str().unwrap().to_owned();
                    (text("transactionId"), text("partition"))
                })
                .collect();
            assert_eq!(sent, renderer.names(request).collect::<Vec<_>>());
            for (name, _) in sent {
                assert!(name.starts_with("run-00017-"));
                assert!(seen.insert(name));
            }
        }
    }
    let partitions: HashSet<String> = (0..4).flat_map(|request| renderer.names(request)).map(|(_, p)| p).collect();
    assert_eq!(partitions.len(), 4);
}

#[test]
fn a_retried_tail_of_a_batch_is_sent_with_the_same_bytes() {
    let args = args("--pipeline 3 --transaction-ids --partitions 2");
    let mut renderer = Renderer::new(&args, "run", 1);
    let whole = render(&mut renderer, 5, 3);
    let tail = render(&mut renderer, 6, 2);
    assert_eq!(whole[1..], tail[..]);
}

#[test]
fn ndjson_has_a_line_per_message_and_a_key_per_request() {
    let args = args("--ndjson --messages-per-request 3 --partitions 2 --transaction-ids --pipeline 2 --buffered");
    let mut renderer = Renderer::new(&args, "run", 0);
    for (request, (head, body)) in render(&mut renderer, 0, 2).into_iter().enumerate() {
        let expected = format!("POST /push/bench/p00000{request}?bufferMs=100&bufferMax=100 HTTP/1.1\r\n");
        assert!(head.starts_with(&expected), "{head}");
        assert!(head.contains(&format!("\r\nIdempotency-Key: run-00000-00000000000{request}\r\n")), "{head}");
        let lines: Vec<Value> =
            std::str::from_utf8(&body).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 3);
        let names: Vec<String> = renderer.names(request as u64).map(|(name, _)| name).collect();
        assert_eq!(names[2], format!("run-00000-00000000000{request}/3"));
    }
}

#[test]
fn plain_ndjson_waits_for_postgresql_and_needs_no_partition() {
    let mut renderer = Renderer::new(&args("--ndjson"), "run", 0);
    let (head, _) = &render(&mut renderer, 0, 1)[0];
    assert!(head.starts_with("POST /push/bench?wait=postgres HTTP/1.1\r\n"), "{head}");
    assert!(!head.contains("Idempotency-Key"));
}

#[test]
fn payloads_are_json_of_exactly_the_given_length() {
    for bytes in [1, 2, 10, 11, 12, 100, 5000] {
        let text = payload(bytes);
        assert_eq!(text.len(), bytes);
        assert!(serde_json::from_str::<Value>(&text).is_ok(), "{text}");
    }
}

#[test]
fn uuids_are_well_formed_and_unique_and_duplicates_have_the_partition_of_the_original() {
    let args = args("--uuids --messages-per-request 1000 --partitions 16 --duplicate-every 4");
    let mut renderer = Renderer::new(&args, "run", 3);
    let ids = |renderer: &mut Renderer, request| -> Vec<(String, String)> {
        let body: Value = serde_json::from_slice(&render(renderer, request, 1)[0].1).unwrap();
        let items = body["items"].as_array().unwrap().iter();
        items
            .map(|item| {
                (item["transactionId"].as_str().unwrap().to_owned(), item["partition"].as_str().unwrap().to_owned())
            })
            .collect()
    };
    let first = ids(&mut renderer, 0);
    assert_eq!(first.iter().collect::<HashSet<_>>().len(), 1000);
    for (id, _) in &first {
        let bytes = id.as_bytes();
        assert!(bytes.len() == 36 && bytes[14] == b'4' && b"89ab".contains(&bytes[19]), "{id}");
    }
    let later = ids(&mut renderer, DUPLICATE_DISTANCE / 1000);
    let repeated: Vec<usize> = (0..1000).filter(|&index| first[index] == later[index]).collect();
    assert_eq!(repeated, (0..1000).filter(|index| index % 4 == 3).collect::<Vec<_>>());
}
