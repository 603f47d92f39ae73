//! RFC 9110, sections 5, 6, 8, 12 to 15: header fields of requests and replies.

use super::{GET_PATHS, Response, Stage, ask, ask_kept, assert_refused_and_closed, health, push};
use std::collections::BTreeSet;

/// Replies of all kinds.
pub(super) fn answers(stage: &Stage) -> Vec<(String, Response)> {
    let mut requests: Vec<String> =
        GET_PATHS.iter().map(|path| format!("GET {path} HTTP/1.1\r\nHost: t\r\n\r\n")).collect();
    requests.extend([
        push("rfc_answers", ""),
        push("rfc_answers", "Prefer: return=minimal\r\n"),
        push("rfc_answers?wait=postgres", ""),
        push("rfc_answers?x=y", ""),
        push("rfc_answers", "Content-Encoding: x-unknown\r\n"),
        push("rfc_answers", "Content-Length: 1\r\n"),
        push("rfc_answers", "Connection: close\r\n"),
        "POST /push/rfc_answers HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n1".to_owned(),
        "POST /push/rfc_answers HTTP/1.1\r\nHost: t\r\n\r\n".to_owned(),
        "GET /push/q HTTP/1.1\r\nHost: t\r\n\r\n".to_owned(),
        "OPTIONS /health HTTP/1.1\r\nHost: t\r\n\r\n".to_owned(),
        "GET /nothing HTTP/1.1\r\nHost: t\r\n\r\n".to_owned(),
        "GET /health HTTP/9.9\r\nHost: t\r\n\r\n".to_owned(),
        "nothing\r\n\r\n".to_owned(),
    ]);
    requests.into_iter().map(|request| (request.clone(), ask(stage, request).1)).collect()
}

#[test]
fn every_answer_with_content_names_its_length_and_type_and_no_header_comes_twice() {
    let stage = Stage::shared();
    for (request, response) in answers(&stage) {
        let names: BTreeSet<String> = response.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
        assert_eq!(names.len(), response.headers.len(), "{request:?}: {:?}", response.headers);
        assert_eq!(response.header("Transfer-Encoding"), None, "{request:?}");
        if response.status == 204 {
            assert_eq!((response.header("Content-Length"), response.body.len()), (None, 0), "{request:?}");
            continue;
        }
        assert_eq!(response.header("Content-Length"), Some(&*response.body.len().to_string()), "{request:?}");
        assert_eq!(response.header("Content-Type"), Some("application/json"), "{request:?}");
        assert!(response.json().is_object() || response.json().is_array(), "{request:?}");
    }
}

#[test]
fn names_of_headers_are_read_in_any_case() {
    let stage = Stage::shared();
    let request = "POST /push/rfc_case HTTP/1.1\r\nhOsT: t\r\nCONTENT-LENGTH: 1\r\niDEMPOTENCY-kEY: k\r\nPREFER: RETURN=MINIMAL\r\n\r\n1";
    let response = ask_kept(&stage, request);
    assert_eq!((response.status, response.json()["count"].as_u64()), (201, Some(1)));
    let request = "POST /push/rfc_case HTTP/1.1\r\nhost: t\r\ncontent-length: 4\r\ncontent-type: APPLICATION/X-NDJSON; a=b\r\n\r\n2\n3\n";
    assert_eq!(ask_kept(&stage, request).json()["messages"].as_array().unwrap().len(), 2);
    let ids = stage.rows("SELECT transaction_id FROM forebay.message_log WHERE queue = 'rfc_case' ORDER BY seq");
    stage.payloads("rfc_case", 3);
    assert!(ids.is_empty() || ids[0] == ["k"]);
}

#[test]
fn headers_that_mean_nothing_here_are_passed_over() {
    let stage = Stage::shared();
    let whole = ask_kept(&stage, health("")).body.len();
    for lines in [
        "X-Unknown: y\r\n",
        "Accept: text/html;q=1, */*;q=0\r\n",
        "Accept-Encoding: gzip, br, identity;q=0\r\n",
        "Accept-Charset: latin1\r\nAccept-Language: tlh\r\n",
        "Cookie: a=b\r\nCookie: c=d\r\n",
        "Range: bytes=0-1\r\n",
        "Range: bytes=5-1\r\nIf-Range: \"x\"\r\n",
        "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
        "If-None-Match: \"x\"\r\n",
        "Max-Forwards: 0\r\n",
        "TE: trailers, deflate\r\n",
        "Trailer: X\r\nVia: 1.0 fred, 1.1 p.example\r\n",
        "Cache-Control: only-if-cached\r\nPragma: no-cache\r\n",
        "Content-Type: multipart/form-data\r\n",
        "Date: yesterday\r\n",
    ] {
        let response = ask_kept(&stage, health(lines));
        assert_eq!((response.status, response.body.len()), (200, whole), "{lines:?}");
        for header in ["Content-Range", "Content-Encoding", "Location", "ETag", "Last-Modified"] {
            assert_eq!(response.header(header), None, "{lines:?}");
        }
    }
}

#[test]
fn empty_elements_of_a_list_are_passed_over() {
    let stage = Stage::shared();
    let response = ask_kept(&stage, push("rfc_lists", "Prefer: , ,return=minimal,,\r\nConnection: ,,\r\n"));
    assert_eq!((response.status, response.json()["count"].as_u64()), (201, Some(1)));
}

#[test]
fn a_header_that_says_one_thing_is_refused_when_it_says_two() {
    let stage = Stage::shared();
    for name in ["Host", "Content-Type", "Content-Encoding", "Idempotency-Key", "Authorization", "Content-Length"] {
        assert_refused_and_closed(&stage, push("rfc_twice", &format!("{name}: 1\r\n{name}: 1\r\n")), 400);
    }
    stage.payloads("rfc_twice", 0);
}

#[test]
fn every_refusal_says_what_is_wrong_and_where_to_try_again_when() {
    let stage = Stage::shared();
    for (request, response) in answers(&stage) {
        if response.status < 400 {
            continue;
        }
        assert!(!response.error().is_empty() && !response.code().is_empty(), "{request:?}");
        match response.status {
            405 => assert!(response.header("Allow").is_some(), "{request:?}"),
            429 | 503 => {
                let seconds: u64 = response.header("Retry-After").unwrap().parse().unwrap();
                assert!(seconds > 0, "{request:?}");
            }
            _ => {}
        }
    }
}

#[test]
fn an_encoding_that_is_not_known_is_415_and_identity_is_none() {
    let stage = Stage::shared();
    assert_eq!(ask_kept(&stage, push("rfc_encoding", "Content-Encoding: identity\r\n")).status, 201);
    for coding in ["br", "x-unknown", "compress"] {
        let (_, response) = ask(&stage, push("rfc_no_encoding", &format!("Content-Encoding: {coding}\r\n")));
        assert_eq!((response.status, response.code()), (415, "encoding_not_supported".to_owned()), "{coding}");
    }
    stage.payloads("rfc_encoding", 1);
    stage.payloads("rfc_no_encoding", 0);
}
