//! Access control: every endpoint with every kind of token.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{
    Client, Daemon, NOWHERE, Response, data_dir, forebay,
    jwt::{SECRET, secret_file, signed, soon},
    wait_until,
};
use forebay::{
    access::{AccessRequest, Scope},
    api::{ROUTES, find_route},
    http::Method,
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fs, path::PathBuf, time::Duration};

/// A daemon with a tokens file.
struct Guarded {
    daemon: Daemon,
    tokens_file: PathBuf,
    admin: String,
    _dir: tempfile::TempDir,
}

/// Creates a token with the command line.
fn new_token(file: &std::path::Path, args: &[&str]) -> String {
    let file = file.to_str().unwrap();
    let output = forebay(&[&["token", "new", "--tokens-file", file], args].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

impl Guarded {
    fn start(args: &[&str]) -> Self {
        let dir = data_dir();
        let tokens_file = dir.path().join("tokens.toml");
        let admin = new_token(&tokens_file, &["--scopes", "admin"]);
        let all = [&["--tokens-file", tokens_file.to_str().unwrap()], args].concat();
        let daemon = Daemon::start(&dir.path().join("data"), NOWHERE, &all);
        Self { daemon, tokens_file, admin, _dir: dir }
    }

    /// Creates a token that the daemon accepts.
    fn token(&self, args: &[&str]) -> String {
        let token = new_token(&self.tokens_file, args);
        self.reload();
        token
    }

    fn reload(&self) {
        let told = || self.daemon.log().matches("tokens and keys").count();
        let before = told();
        self.daemon.signal(rustix::process::Signal::HUP);
        wait_until("the tokens are read again", || told() > before);
    }

    fn appended(&self) -> u64 {
        let response = with_token(&mut self.daemon.connect(), "GET", "/api/v1/status/buffers", Some(&self.admin), None);
        let lanes = response.json()["lanes"].as_array().unwrap().clone();
        lanes.iter().map(|lane| lane["appendedOrdinal"].as_u64().unwrap()).sum()
    }
}

fn with_token(client: &mut Client, method: &str, path: &str, token: Option<&str>, body: Option<&[u8]>) -> Response {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<(&str, &str)> = bearer.iter().map(|bearer| ("Authorization", bearer.as_str())).collect();
    client.request(method, path, &headers, body).unwrap()
}

/// Method, path and body of a request for each endpoint, and the access that the endpoint requires. Each new endpoint
/// needs a row here.
const TABLE: [(Method, &str, Option<&[u8]>, AccessRequest); ROUTES.len() + 2] = [
    (Method::Post, "/api/v1/push", Some(br#"{"items":[{"queue":"q","payload":1}],"qos0":true}"#), PUSH),
    (Method::Post, "/push/q", Some(b"1"), PUSH),
    (Method::Post, "/push/q/p", Some(b"1"), PUSH),
    (Method::Get, "/api/v1/pop/queue/q", None, POP),
    (Method::Get, "/api/v1/pop/queue/q/partition/p", None, POP),
    (Method::Post, "/api/v1/ack", Some(br#"{"transactionId":"t","partitionId":"1"}"#), POP),
    (Method::Post, "/api/v1/configure", Some(br#"{"queue":"q"}"#), AccessRequest::Either(Scope::Push, Scope::Pop)),
    (Method::Post, "/api/v1/ack/batch", Some(br#"{"acknowledgments":[]}"#), POP),
    (Method::Post, "/api/v1/lease/0190f5fe-0000-7000-8000-000000000000/extend", Some(b""), POP),
    (Method::Get, "/health", None, AccessRequest::Nothing),
    (Method::Get, "/ready", None, AccessRequest::Token),
    (Method::Get, "/api/v1/status/buffers", None, ADMIN),
    (Method::Get, "/api/v1/dead-letters", None, ADMIN),
    (Method::Post, "/api/v1/dead-letters/retry", Some(b""), ADMIN),
    (Method::Get, "/api/v1/dead-letters/f1", None, ADMIN),
    (Method::Post, "/api/v1/dead-letters/f1/retry", Some(b""), ADMIN),
    (Method::Delete, "/api/v1/dead-letters/f1", None, ADMIN),
    (Method::Options, "/api/v1/push", None, AccessRequest::Token),
    (Method::Head, "/api/v1/status/buffers", None, ADMIN),
];

const PUSH: AccessRequest = AccessRequest::Scope(Scope::Push);
const POP: AccessRequest = AccessRequest::Scope(Scope::Pop);
const ADMIN: AccessRequest = AccessRequest::Scope(Scope::Admin);

/// The row of the daemon's route table that matches a request.
fn row(method: Method, path: &str) -> (&'static str, &'static str) {
    let route = find_route(method, path).unwrap().route;
    (route.method.name(), route.pattern.text())
}

#[test]
fn every_endpoint_asks_for_its_scope_and_does_nothing_without_it_case_73() {
    let tested: BTreeSet<_> = TABLE.iter().map(|(method, path, ..)| row(*method, path)).collect();
    for route in ROUTES {
        let (method, pattern) = (route.method.name(), route.pattern.text());
        assert!(tested.contains(&(method, pattern)), "{method} {pattern} has no row here");
    }

    let guarded = Guarded::start(&["--sync", "none", "--cores", "1"]);
    let (push, pop) = (guarded.token(&["--scopes", "push"]), guarded.token(&["--scopes", "pop"]));
    let all = guarded.token(&["--scopes", "push,pop,admin"]);
    let wrong = format!("{}x", &push[..push.len() - 1]);
    let tokens: [(Option<&str>, &[Scope]); 7] = [
        (None, &[]),
        (Some(""), &[]),
        (Some(&wrong), &[]),
        (Some(&push), &[Scope::Push]),
        (Some(&pop), &[Scope::Pop]),
        (Some(&guarded.admin), &[Scope::Admin]),
        (Some(&all), &Scope::ALL),
    ];
    for (method, path, body, access) in TABLE {
        assert_eq!(find_route(method, path).unwrap().route.access, access, "{path}");
        for (token, scopes) in tokens {
            let is_known = !scopes.is_empty();
            let expected = match access {
                AccessRequest::Nothing => None,
                _ if !is_known => Some(401),
                AccessRequest::Scope(scope) if !scopes.contains(&scope) => Some(403),
                AccessRequest::Either(one, other) if !scopes.contains(&one) && !scopes.contains(&other) => Some(403),
                AccessRequest::Token | AccessRequest::Scope(_) | AccessRequest::Either(..) => None,
            };
            let before = guarded.appended();
            let response = with_token(&mut guarded.daemon.connect(), method.name(), path, token, body);
            let what = format!("{} {path} with {scopes:?}: {response:?}", method.name());
            match expected {
                Some(status) => {
                    assert_eq!(response.status, status, "{what}");
                    assert_eq!(guarded.appended(), before, "{what}");
                    assert_eq!(response.header("WWW-Authenticate"), (status == 401).then_some("Bearer"), "{what}");
                    if method != Method::Head {
                        assert_eq!(response.code(), if status == 401 { "unauthorized" } else { "forbidden" }, "{what}");
                    }
                }
                None => {
                    assert!(![401, 403].contains(&response.status), "{what}");
                    let is_push = access == PUSH;
                    assert_eq!(response.status == 201, is_push, "{what}");
                    assert_eq!(guarded.appended(), before + u64::from(is_push), "{what}");
                }
            }
        }
    }
}

#[test]
fn without_the_right_a_body_is_not_asked_for() {
    let guarded = Guarded::start(&["--cores", "1"]);
    let mut client = guarded.daemon.connect();
    client.send(b"POST /push/q HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n").unwrap();
    assert_eq!(client.receive_one(false).unwrap().status, 401, "and no 100 before it");
    assert!(client.is_closed());
}

#[test]
fn a_token_with_a_prefix_pushes_to_such_queues_only_and_the_item_is_named() {
    let guarded = Guarded::start(&["--cores", "1"]);
    let token = guarded.token(&["--scopes", "push", "--queue-prefix", "orders."]);
    let mut client = guarded.daemon.connect();
    let mut push = |queues: &[&str]| {
        let items: Vec<Value> = queues.iter().map(|queue| json!({"queue": queue, "payload": 1})).collect();
        let body = json!({"items": items, "qos0": true}).to_string();
        with_token(&mut client, "POST", "/api/v1/push", Some(&token), Some(body.as_bytes()))
    };
    assert_eq!(push(&["orders.eu", "orders."]).status, 201);
    let before = guarded.appended();
    let refused = push(&["orders.eu", "orders.us", "others", "orders.eu"]);
    assert_eq!((refused.status, refused.code().as_str()), (403, "forbidden"));
    assert!(refused.error().starts_with("items[2].queue: "), "{}", refused.error());
    for (path, status) in
        [("/push/orders.eu", 201), ("/push/orders%2Eeu", 201), ("/push/others", 403), ("/push/order", 403)]
    {
        assert_eq!(with_token(&mut client, "POST", path, Some(&token), Some(b"1")).status, status, "{path}");
    }
    assert_eq!(guarded.appended(), before + 2);
}

#[test]
fn a_rate_holds_over_connections_and_cores_and_is_told_as_429() {
    let guarded = Guarded::start(&["--cores", "2"]);
    let token = guarded.token(&["--scopes", "push", "--rate", "1/s", "--burst", "20"]);
    let other = guarded.token(&["--scopes", "push"]);
    let mut refused = 0;
    for _ in 0..200 {
        let response = with_token(&mut guarded.daemon.connect(), "POST", "/push/q", Some(&token), Some(b"1"));
        if response.status == 429 {
            refused += 1;
            assert_eq!(response.code(), "rate_limited");
            assert!(response.header("Retry-After").unwrap().parse::<u64>().unwrap() >= 1);
        } else {
            assert_eq!(response.status, 201);
        }
    }
    assert!(refused > 0, "200 are more than 20 and one a second");
    let appended = guarded.appended();
    let mut client = guarded.daemon.connect();
    let items: Vec<Value> = (0..1000).map(|_| json!({"queue": "q", "payload": 1})).collect();
    let body = json!({"items": items, "qos0": true}).to_string();
    let push =
        |client: &mut Client, token| with_token(client, "POST", "/api/v1/push", Some(token), Some(body.as_bytes()));
    assert_eq!(push(&mut client, &token).status, 429, "a push is counted by its messages");
    assert_eq!(guarded.appended(), appended, "and is taken whole or not at all");
    assert_eq!(push(&mut client, &other).status, 201, "another token has its own");
    let lines = b"1\n2\n3\n".repeat(200);
    let authorization = format!("Bearer {token}");
    let headers = [("Authorization", authorization.as_str()), ("Content-Type", "application/x-ndjson")];
    let ended = client.request("POST", "/push/q", &headers, Some(&lines)).unwrap();
    assert_eq!((ended.status, &ended.json()["accepted"]), (429, &json!(0)));
    assert_eq!(with_token(&mut client, "GET", "/ready", Some(&token), None).status, 200, "only messages are counted");
}

#[test]
fn a_token_that_is_removed_opens_nothing_more_on_connections_that_are_open() {
    let guarded = Guarded::start(&["--cores", "2"]);
    let token = guarded.token(&["--scopes", "push"]);
    let mut clients: Vec<Client> = (0..8).map(|_| guarded.daemon.connect()).collect();
    let mut statuses = |token: &str| -> Vec<u16> {
        clients.iter_mut().map(|client| with_token(client, "POST", "/push/q", Some(token), Some(b"1")).status).collect()
    };
    assert_eq!(statuses(&token), [201; 8]);
    let kept = fs::read_to_string(&guarded.tokens_file).unwrap();
    let admin_only = kept.split("[[token]]").nth(1).unwrap();
    fs::write(&guarded.tokens_file, format!("[[token]]{admin_only}")).unwrap();
    assert_eq!(statuses(&token), [201; 8], "not before SIGHUP");
    guarded.reload();
    assert_eq!(statuses(&token), [401; 8]);
    fs::write(&guarded.tokens_file, "no tokens at all").unwrap();
    guarded.reload();
    assert!(guarded.daemon.log().contains("access_not_reloaded"), "{}", guarded.daemon.log());
    assert_eq!(statuses(&guarded.admin), [403; 8], "a bad file leaves the tokens as they were");
    fs::write(&guarded.tokens_file, &kept).unwrap();
    guarded.reload();
    assert_eq!(statuses(&token), [201; 8]);
}

#[test]
fn a_stream_whose_token_is_removed_ends_with_401_and_what_it_accepted() {
    let guarded = Guarded::start(&["--cores", "1"]);
    let token = guarded.token(&["--scopes", "push"]);
    let begin = |lines: &str| {
        let mut client = guarded.daemon.connect();
        let head = format!(
            "POST /push/stream HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        client.send(format!("{head}{:x}\r\n{lines}\r\n", lines.len()).as_bytes()).unwrap();
        client
    };
    let (mut removed, mut narrowed) = (begin("1\n2\n"), begin("1\n2\n3\n"));
    wait_until("the lines are there", || guarded.appended() == 5);
    // A reload that changes nothing for it ends nothing.
    guarded.reload();
    removed.send(b"2\r\n3\n\r\n").unwrap();
    wait_until("it goes on", || guarded.appended() == 6);
    let kept = fs::read_to_string(&guarded.tokens_file).unwrap();
    fs::write(&guarded.tokens_file, kept.replace("scopes = [\"push\"]", "scopes = [\"pop\"]")).unwrap();
    guarded.reload();
    narrowed.send(b"2\r\n4\n\r\n").unwrap();
    let response = narrowed.receive(false).unwrap();
    assert_eq!(
        (response.status, response.code(), response.json()["accepted"].as_u64()),
        (403, "forbidden".into(), Some(3))
    );
    let admin_only = kept.split("[[token]]").nth(1).unwrap();
    fs::write(&guarded.tokens_file, format!("[[token]]{admin_only}")).unwrap();
    guarded.reload();
    removed.send(b"2\r\n5\n\r\n").unwrap();
    let response = removed.receive(false).unwrap();
    let accepted = response.json()["accepted"].as_u64();
    assert_eq!((response.status, response.code(), accepted), (401, "unauthorized".into(), Some(3)));
    assert!(removed.is_closed() && narrowed.is_closed());
    assert_eq!(guarded.appended(), 6);
}

#[test]
fn a_body_whose_token_is_removed_before_its_end_is_not_kept() {
    let guarded = Guarded::start(&["--cores", "1"]);
    let token = guarded.token(&["--scopes", "push"]);
    // The first two wait with their heads, one of them for a long body; the third sends a chunk.
    let begun = [
        "Content-Length: 3\r\n\r\n1",
        "Content-Length: 100000\r\n\r\n1",
        "Transfer-Encoding: chunked\r\n\r\n1\r\n1\r\n",
    ];
    let rest = ["23".to_owned(), "2".repeat(99_999), "2\r\n23\r\n0\r\n\r\n".to_owned()];
    let mut clients: Vec<Client> = begun
        .iter()
        .map(|begun| {
            let mut client = guarded.daemon.connect();
            let head = format!("POST /push/q HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {token}\r\n{begun}");
            client.send(head.as_bytes()).unwrap();
            client
        })
        .collect();
    std::thread::sleep(Duration::from_millis(200));
    let kept = fs::read_to_string(&guarded.tokens_file).unwrap();
    let admin_only = kept.split("[[token]]").nth(1).unwrap();
    fs::write(&guarded.tokens_file, format!("[[token]]{admin_only}")).unwrap();
    guarded.reload();
    for (client, rest) in clients.iter_mut().zip(&rest) {
        client.send(rest.as_bytes()).unwrap();
        assert_eq!(client.receive(false).unwrap().status, 401);
    }
    assert_eq!(guarded.appended(), 0);
}

#[test]
fn what_is_sent_or_kept_of_tokens_is_not_logged_or_printed() {
    let guarded = Guarded::start(&["--cores", "1", "--log", "debug"]);
    let mut client = guarded.daemon.connect();
    let wrong = "fb_this-is-not-a-token";
    assert_eq!(with_token(&mut client, "POST", "/push/q", Some(wrong), Some(b"1")).status, 401);
    assert_eq!(with_token(&mut client, "GET", "/ready", Some(&guarded.admin), None).status, 200);
    let log = guarded.daemon.log();
    assert!(!log.contains(wrong) && !log.contains(&guarded.admin), "{log}");
    assert!(!fs::read_to_string(&guarded.tokens_file).unwrap().contains(&guarded.admin));
}

#[test]
fn an_address_that_strangers_reach_needs_something_that_keeps_them_out() {
    let refused = forebay(&["serve", "--listen", "0.0.0.0:0", "--postgres", "embedded"]);
    assert_eq!(refused.status.code(), Some(2));
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    for way in ["--tokens-file", "--jwks-file", "--tls-client-ca", "--insecure"] {
        assert!(text.contains(way), "{text}");
    }
    for (flag, value) in
        [("--tokens-file", "t"), ("--jwks-file", "j"), ("--jwt-secret-file", "s"), ("--insecure", "true")]
    {
        let taken = forebay(&["serve", "--listen", "192.0.2.1:1", flag, value, "--print-config"]);
        assert!(taken.status.success(), "{flag}: {}", String::from_utf8_lossy(&taken.stderr));
    }
    let tls = ["serve", "--listen", "192.0.2.1:1", "--tls-cert", "c", "--tls-key", "k", "--print-config"];
    assert_eq!(forebay(&tls).status.code(), Some(2), "TLS alone lets everybody in");
    assert!(forebay(&[&tls[..], &["--tls-client-ca", "a"]].concat()).status.success());
    assert_eq!(forebay(&["serve", "--tls-cert", "c", "--print-config"]).status.code(), Some(2), "without its key");
}

#[test]
fn a_tokens_file_that_others_may_write_to_is_refused_at_the_start() {
    use std::os::unix::fs::PermissionsExt;
    let dir = data_dir();
    let file = dir.path().join("tokens.toml");
    new_token(&file, &["--scopes", "push"]);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    let data = dir.path().join("data");
    let args = ["serve", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap(), "--postgres", NOWHERE];
    let refused = forebay(&[&args[..], &["--tokens-file", file.to_str().unwrap()]].concat());
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("chmod go-w"));
    let appended = forebay(&["token", "new", "--tokens-file", file.to_str().unwrap(), "--scopes", "push"]);
    assert_eq!((appended.status.code(), appended.stdout.len()), (Some(2), 0), "no token is shown that is not kept");
}

#[test]
fn web_pages_may_ask_where_their_origin_is_configured_and_nowhere_else() {
    const PAGE: &str = "https://page.example";
    let guarded = Guarded::start(&["--cores", "1", "--cors-origin", "https://other.example,https://page.example"]);
    let mut client = guarded.daemon.connect();
    let mut ask = |method: &str, headers: &[(&str, &str)], body: Option<&[u8]>| {
        client.request(method, "/push/q", headers, body).unwrap()
    };
    let asks = [("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "authorization")];
    let preflight = ask("OPTIONS", &[&[("Origin", PAGE)], &asks[..]].concat(), None);
    assert_eq!((preflight.status, preflight.header("Access-Control-Allow-Origin")), (204, Some(PAGE)));
    assert!(preflight.header("Access-Control-Allow-Headers").unwrap().contains("Authorization"));
    assert!(preflight.header("Access-Control-Allow-Methods").unwrap().contains("POST"));
    assert_eq!(preflight.header("Vary"), Some("Origin"));
    let stranger = ask("OPTIONS", &[&[("Origin", "https://stranger.example")], &asks[..]].concat(), None);
    assert_eq!((stranger.status, stranger.header("Access-Control-Allow-Origin")), (401, None));
    // A web page can read the reason of a refusal.
    let refused = ask("POST", &[("Origin", PAGE)], Some(b"1"));
    assert_eq!((refused.status, refused.header("Access-Control-Allow-Origin")), (401, Some(PAGE)));
    let token = guarded.token(&["--scopes", "push"]);
    let bearer = format!("Bearer {token}");
    let taken = ask("POST", &[("Origin", PAGE), ("Authorization", &bearer)], Some(b"1"));
    assert_eq!((taken.status, taken.header("Access-Control-Allow-Origin")), (201, Some(PAGE)));
    assert!(taken.header("Access-Control-Expose-Headers").unwrap().contains("Forebay-Durability"));
    let elsewhere = ask("POST", &[("Authorization", &bearer)], Some(b"1"));
    assert_eq!(elsewhere.header("Access-Control-Allow-Origin"), None);
    for response in [&preflight, &stranger, &refused, &taken, &elsewhere] {
        assert_eq!(response.header("Access-Control-Allow-Credentials"), None);
    }
    // Headers that keep browsers from loading the reply and caches from storing it.
    let health = client.request("GET", "/health", &[], None).unwrap();
    for response in [&stranger, &refused, &health] {
        assert_eq!(response.header("X-Content-Type-Options"), Some("nosniff"));
        assert_eq!(response.header("Cache-Control"), Some("no-store"));
    }
}

#[test]
fn jwts_open_what_their_scopes_and_roles_say() {
    let dir = data_dir();
    let secret = secret_file(dir.path());
    let args = ["--jwt-secret-file", secret.to_str().unwrap(), "--jwt-issuer", "me", "--cores", "1"];
    let daemon = Daemon::start(&dir.path().join("data"), NOWHERE, &args);
    let exp = soon();
    let mut client = daemon.connect();
    let mut statuses = |token: &str| {
        ["/push/q", "/api/v1/status/buffers"].map(|path| {
            let (method, body) = if path == "/push/q" { ("POST", Some(&b"1"[..])) } else { ("GET", None) };
            with_token(&mut client, method, path, Some(token), body).status
        })
    };
    for (claims, expected) in [
        (json!({"exp": exp, "iss": "me", "role": "admin"}), [201, 200]),
        (json!({"exp": exp, "iss": "me", "role": "read-write"}), [201, 403]),
        (json!({"exp": exp, "iss": "me", "scope": "admin"}), [403, 200]),
        (json!({"exp": exp, "iss": "me"}), [403, 403]),
        (json!({"exp": exp, "iss": "other", "role": "admin"}), [401, 401]),
        (json!({"exp": exp - 3600, "iss": "me", "role": "admin"}), [401, 401]),
    ] {
        for _ in 0..2 {
            assert_eq!(statuses(&signed(&claims, SECRET)), expected, "{claims}");
        }
    }
    let right = json!({"exp": exp, "iss": "me", "role": "admin"});
    assert_eq!(statuses(&signed(&right, "another secret, also of enough bytes")), [401, 401]);
    fs::write(&secret, "another secret, also of enough bytes").unwrap();
    let told = || daemon.log().matches("were read again").count();
    daemon.signal(rustix::process::Signal::HUP);
    wait_until("the secret is read again", || told() > 0);
    assert_eq!(statuses(&signed(&right, "another secret, also of enough bytes")), [201, 200]);
    assert_eq!(statuses(&signed(&right, SECRET)), [401, 401]);
}
