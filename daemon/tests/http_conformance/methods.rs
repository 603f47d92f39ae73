//! RFC 9110, section 9: methods.

use super::{GET_PATHS, Stage, ask, ask_kept, health, push};
use std::collections::BTreeSet;

/// Paths with the methods that each allows.
const ALLOWED: [(&str, &str); 9] = [
    ("/api/v1/push", "POST, OPTIONS"),
    ("/push/q", "POST, OPTIONS"),
    ("/push/q/p", "POST, OPTIONS"),
    ("/health", "GET, HEAD, OPTIONS"),
    ("/ready", "GET, HEAD, OPTIONS"),
    ("/api/v1/status/buffers", "GET, HEAD, OPTIONS"),
    ("/api/v1/dead-letters", "GET, HEAD, OPTIONS"),
    ("/api/v1/dead-letters/1", "GET, HEAD, DELETE, OPTIONS"),
    ("/api/v1/dead-letters/1/retry", "POST, OPTIONS"),
];

fn methods(allow: &str) -> BTreeSet<&str> {
    allow.split(", ").collect()
}

#[test]
fn head_is_get_without_a_body() {
    let stage = Stage::shared();
    for path in GET_PATHS {
        // Figures may change between two requests. Of three requests, the middle one counts only if the outer two are
        // equal.
        for attempt in 0.. {
            let mut client = stage.daemon.connect();
            let mut of = |method: &str| client.request(method, path, &[], None).unwrap();
            let (before, head, after) = (of("GET"), of("HEAD"), of("GET"));
            // A client would take the body for the next reply.
            assert_eq!(head.status, before.status, "{path}");
            let headers = |response: &super::Response| {
                let dated = |(name, _): &&(String, String)| name != "Date";
                response.headers.iter().filter(dated).cloned().collect::<Vec<_>>()
            };
            if headers(&before) != headers(&after) && attempt < 100 {
                continue;
            }
            assert_eq!(headers(&head), headers(&before), "{path}");
            let length: usize = head.header("Content-Length").unwrap().parse().unwrap();
            assert!(length > 0, "{path}");
            break;
        }
    }
}

#[test]
fn a_method_that_is_not_allowed_is_told_with_those_that_are() {
    let stage = Stage::shared();
    for (path, allow) in ALLOWED {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "QUERY"] {
            if methods(allow).contains(method) {
                continue;
            }
            let mut client = stage.daemon.connect();
            let response = client.request(method, path, &[], Some(b"")).unwrap();
            assert_eq!(response.status, 405, "{method} {path}");
            assert_eq!(methods(response.header("Allow").unwrap()), methods(allow), "{method} {path}");
            if method != "HEAD" {
                assert_eq!(response.code(), "method_not_allowed", "{method} {path}");
            }
            assert_eq!(client.get("/health").unwrap().status, 200, "after {method} {path}");
        }
    }
}

#[test]
fn options_tells_what_is_allowed_without_a_body() {
    let stage = Stage::shared();
    for (path, allow) in ALLOWED {
        let response = ask_kept(&stage, format!("OPTIONS {path} HTTP/1.1\r\nHost: t\r\n\r\n"));
        assert_eq!(response.status, 204, "{path}");
        assert_eq!(methods(response.header("Allow").unwrap()), methods(allow), "{path}");
        assert_eq!((response.header("Content-Length"), response.header("Content-Type")), (None, None), "{path}");
        assert_eq!(response.header("Transfer-Encoding"), None, "{path}");
    }
    assert_eq!(ask_kept(&stage, "OPTIONS /nothing HTTP/1.1\r\nHost: t\r\n\r\n").status, 404);
}

#[test]
fn options_with_an_asterisk_asks_of_the_daemon_as_a_whole() {
    let stage = Stage::shared();
    let response = ask_kept(&stage, "OPTIONS * HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(response.status, 204);
    let allow = methods(response.header("Allow").unwrap());
    assert!(ALLOWED.iter().flat_map(|(_, allow)| methods(allow)).all(|method| allow.contains(method)), "{allow:?}");
}

#[test]
fn a_method_that_nobody_knows_is_501_wherever_it_is_meant_to_go() {
    let stage = Stage::shared();
    for method in ["FOO", "PROPFIND", "get", "Post", "GETS", "X-!#$%&'*+.^_`|~9"] {
        for path in ["/health", "/push/q", "/nothing"] {
            let response = ask_kept(&stage, format!("{method} {path} HTTP/1.1\r\nHost: t\r\n\r\n"));
            assert_eq!(
                (response.status, response.code()),
                (501, "method_not_implemented".to_owned()),
                "{method} {path}"
            );
        }
    }
}

#[test]
fn a_get_with_a_body_is_a_get_and_the_body_is_passed_over() {
    let stage = Stage::shared();
    let request = "GET /health HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nGET /".to_owned();
    assert_eq!(ask_kept(&stage, request).json()["status"], "healthy");
    let request = "GET /health HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
    assert_eq!(ask_kept(&stage, request).json()["status"], "healthy");
}

#[test]
fn a_tunnel_is_not_made() {
    let stage = Stage::shared();
    for target in ["t:443", "/health", "http://t/health"] {
        let (_, response) = ask(&stage, format!("CONNECT {target} HTTP/1.1\r\nHost: t\r\n\r\n"));
        assert!(matches!(response.status, 400 | 405 | 501), "{target}: {}", response.status);
    }
}

#[test]
fn what_get_and_head_ask_for_changes_nothing() {
    let stage = Stage::start(&[]);
    let before = stage.daemon.figure("pushedMessages");
    for path in GET_PATHS.iter().chain(&["/push/rfc_safe", "/api/v1/push", "/api/v1/dead-letters/retry"]) {
        for method in ["GET", "HEAD", "OPTIONS"] {
            assert!(
                stage.daemon.connect().request(method, path, &[], Some(b"")).unwrap().status < 500,
                "{method} {path}"
            );
        }
    }
    assert_eq!(stage.daemon.figure("pushedMessages"), before);
    assert_eq!(stage.rows("SELECT count(*) FROM forebay.queues"), [["0"]]);
    assert_eq!(ask_kept(&stage, push("rfc_safe", "")).status, 201);
    assert_eq!(ask_kept(&stage, health("")).status, 200);
}
