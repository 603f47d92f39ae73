//! Every route with every sender, before a real PostgreSQL.

use super::{
    FRIENDS, STRANGERS, Target, appended,
    common::{stage::Stage, wait_until},
    is_probe, targets,
};
use forebay::http::Method;
use serde_json::json;

#[test]
fn what_a_browser_sends_for_a_page_of_a_stranger_is_refused_on_every_route_and_does_nothing() {
    let stage = Stage::start(&[]);
    // A dead letter, with the id 1, to be read, retried or dropped.
    stage.cluster.psql("ALTER TABLE forebay.messages ADD CONSTRAINT no CHECK (payload <> '\"refused\"')").unwrap();
    let item = json!({"items": [{"queue": "refused", "payload": "refused"}]});
    assert_eq!(stage.daemon.connect().push(&item).unwrap().status, 201);
    wait_until("the letter is counted", || stage.daemon.figure("failed") == 1);
    stage.cluster.psql("ALTER TABLE forebay.messages DROP CONSTRAINT no").unwrap();
    let before = appended(&stage.daemon);
    for target in targets() {
        for stranger in &STRANGERS {
            let response = target.send(&stage.daemon, stranger, &[]);
            let what = format!("{} {} by {}: {response:?}", target.method.name(), target.path, stranger.name);
            if is_probe(&target.path) {
                assert_eq!(response.status, 200, "{what}");
                continue;
            }
            let (status, code) = stranger.refusal.unwrap();
            assert_eq!((response.status, response.code().as_str()), (status, code), "{what}");
            assert_eq!(response.header("Access-Control-Allow-Origin"), None, "{what}");
            assert_eq!(response.header("X-Content-Type-Options"), Some("nosniff"), "{what}");
            let names_flag = response.error().contains(if status == 421 { "--host" } else { "--cors-origin" });
            assert!(names_flag, "{what}");
        }
    }
    stage.daemon.wait_until_drained();
    assert_eq!(appended(&stage.daemon), before, "nothing was pushed");
    assert_eq!(stage.rows("SELECT count(*) FROM forebay.messages"), [["0"]], "nothing was retried");
    assert_eq!(stage.rows("SELECT count(*) FROM forebay.dead_letters"), [["1"]], "nothing was dropped");

    // The same requests of others do what they should: the first retry puts the letter back.
    let targets = targets();
    for target in &targets {
        for friend in &FRIENDS {
            let response = target.send(&stage.daemon, friend, &[]);
            let what = format!("{} {} by {}: {response:?}", target.method.name(), target.path, friend.name);
            assert!(![403, 421].contains(&response.status), "{what}");
        }
    }
    let is_push = |target: &&Target| target.body.is_some() && target.path.contains("push");
    let pushes = targets.iter().filter(is_push).count() * FRIENDS.len();
    assert_eq!(appended(&stage.daemon), before + pushes as u64);
    stage.daemon.wait_until_drained();
    assert_eq!(stage.rows("SELECT count(*) FROM forebay.messages"), [[(pushes + 1).to_string()]]);
}

#[test]
fn a_page_of_a_stranger_does_not_learn_which_routes_there_are_and_options_and_probes_are_open() {
    let stage = Stage::shared();
    let target = |method, path: &str| Target { method, path: path.to_owned(), body: None };
    for (method, path, status) in [
        (Method::Get, "/nothing", 404),
        (Method::Post, "/", 404),
        (Method::Get, "/api/v1/push", 405),
        (Method::Trace, "/push/q", 405),
        (Method::Head, "/api/v1/status/buffers", 200),
        (Method::Post, "/push/q", 411),
        (Method::Get, "/push/%zz", 400),
        (Method::Get, "/api/v1/status/%62uffers", 200),
        (Method::Get, "/HEALTH", 404),
        (Method::Get, "//health", 404),
        (Method::Get, "/health/", 404),
    ] {
        for stranger in &STRANGERS {
            let refusal = target(method, path).send(&stage.daemon, stranger, &[]).status;
            assert_eq!(Some(refusal), stranger.refusal.map(|(status, _)| status), "{path} by {}", stranger.name);
        }
        for friend in &FRIENDS {
            assert_eq!(
                target(method, path).send(&stage.daemon, friend, &[]).status,
                status,
                "{path} by {}",
                friend.name
            );
        }
    }
    for (method, path, status) in [
        (Method::Options, "/api/v1/push", 204),
        (Method::Options, "*", 204),
        (Method::Options, "/nothing", 404),
        (Method::Get, "/health", 200),
        (Method::Head, "/health", 200),
        (Method::Get, "/h%65alth?x=y", 200),
        (Method::Post, "/health", 405),
        (Method::Get, "/ready", 200),
    ] {
        for sender in STRANGERS.iter().chain(&FRIENDS) {
            assert_eq!(
                target(method, path).send(&stage.daemon, sender, &[]).status,
                status,
                "{path} by {}",
                sender.name
            );
        }
    }
}

#[test]
fn the_body_of_a_refused_request_is_not_asked_for_and_never_taken_for_a_request() {
    let stage = Stage::shared();
    let before = appended(&stage.daemon);
    let head = "POST /push/q HTTP/1.1\r\nHost: rebound.example\r\n";
    let mut client = stage.daemon.connect();
    client.send(format!("{head}Expect: 100-continue\r\nContent-Length: 1\r\n\r\n").as_bytes()).unwrap();
    assert_eq!(client.receive_one(false).unwrap().status, 421, "and no 100 before it");
    assert!(client.is_closed());
    // A body that came with its head is passed over, and the connection goes on.
    let hidden = "POST /push/q HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n1";
    for framing in [
        format!("Content-Length: {}\r\n\r\n{hidden}", hidden.len()),
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len()),
    ] {
        let mut client = stage.daemon.connect();
        client.send(format!("{head}{framing}").as_bytes()).unwrap();
        assert_eq!(client.receive(false).unwrap().status, 421);
        assert_eq!(client.get("/health").unwrap().status, 200);
    }
    assert_eq!(appended(&stage.daemon), before);
    // Requests of both kinds on one connection, as a proxy mixes them.
    let friend = "GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let stranger = "GET /api/v1/dead-letters HTTP/1.1\r\nHost: rebound.example\r\n\r\n";
    let mut client = stage.daemon.connect();
    client.send([friend, stranger, friend, stranger, friend].concat().as_bytes()).unwrap();
    let statuses: Vec<u16> = (0..5).map(|_| client.receive(false).unwrap().status).collect();
    assert_eq!(statuses, [200, 421, 200, 421, 200]);
}
