//! Connections: what is too slow is ended, what is idle costs next to nothing, and bodies are taken as they come.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Client, Daemon, NOWHERE, data_dir, wait_until};
use forebay::limits::{CONNECTIONS_PER_CORE_MAX, DESCRIPTORS_KEPT};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::Write;

/// A daemon that waits for no PostgreSQL and little for anybody.
fn impatient(dir: &std::path::Path) -> Daemon {
    let timeouts = ["--idle-timeout", "1s", "--request-timeout", "500ms"];
    Daemon::start(dir, NOWHERE, &[&["--cores", "1"], &timeouts[..]].concat())
}

/// The next answer is a 408, and the connection is closed with it.
fn expect_408(client: &mut Client, what: &str) {
    let response = client.receive(false).unwrap();
    assert_eq!((response.status, response.code()), (408, "request_timeout".to_owned()), "{what}");
    assert_eq!(response.header("Connection"), Some("close"), "{what}");
    assert!(client.is_closed(), "{what}");
}

#[test]
fn case_66_and_67_a_slow_head_and_a_slow_body_are_told_so_and_closed_and_the_requests_before_them_count() {
    let dir = data_dir();
    let daemon = impatient(dir.path());
    let whole = "POST /push/slow HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\n1";
    for (what, slow) in [
        ("a head", "POST /push/slow HT"),
        ("a body", "POST /push/slow HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\n[1"),
        ("chunks", "POST /push/slow HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[1"),
    ] {
        let mut client = daemon.connect();
        client.send(format!("{whole}{slow}").as_bytes()).unwrap();
        assert_eq!(client.receive(false).unwrap().status, 201, "{what}");
        expect_408(&mut client, what);
    }
    // A byte now and then is no body.
    let mut client = daemon.connect();
    client.send(b"POST /push/slow HTTP/1.1\r\nHost: t\r\nContent-Length: 100000\r\n\r\n[").unwrap();
    // The write fails once the daemon has had enough.
    while client.send(b" ").is_ok() && !client.has_received() {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    expect_408(&mut client, "a byte now and then");
    let mut lines = daemon.connect();
    let head =
        "POST /push/slow HTTP/1.1\r\nHost: t\r\nContent-Type: application/x-ndjson\r\nContent-Length: 99\r\n\r\n";
    lines.send(format!("{head}1\n2\n3").as_bytes()).unwrap();
    let response = lines.receive(false).unwrap();
    assert_eq!((response.status, response.json()["accepted"].as_u64()), (408, Some(2)));
    assert_eq!(daemon.figure("pending"), 3 + 2);
}

#[test]
fn an_idle_connection_is_closed_without_a_word_and_a_busy_one_is_not() {
    let dir = data_dir();
    let daemon = impatient(dir.path());
    let (mut silent, mut once, mut busy) = (daemon.connect(), daemon.connect(), daemon.connect());
    assert_eq!(once.get("/health").unwrap().status, 200);
    for _ in 0..15 {
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert_eq!(busy.get("/health").unwrap().status, 200);
    }
    assert!(silent.is_closed() && once.is_closed());
    // Its buffer has gone and come back meanwhile.
    std::thread::sleep(std::time::Duration::from_millis(600));
    assert_eq!(busy.post("/push/q", b"1").unwrap().status, 201);
}

#[test]
fn case_71_an_idle_connection_costs_next_to_nothing_also_one_that_was_busy_and_memory_returns() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let count = (limit.maximum.unwrap_or(u64::MAX).saturating_sub(1000) as usize).min(8000);
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), NOWHERE, &["--cores", "1"]);
    let crowd = || -> Vec<Client> {
        let mut crowd: Vec<Client> = (0..count).map(|_| daemon.connect()).collect();
        // Twice: some have a buffer still, and others have given theirs back.
        for _ in 0..2 {
            crowd.iter_mut().for_each(|client| assert_eq!(client.get("/health").unwrap().status, 200));
        }
        crowd
    };
    // From a daemon that nobody has talked to, so that nothing is hidden in memory that an earlier crowd left behind.
    std::thread::sleep(std::time::Duration::from_secs(1));
    let (before, peak_before) = (daemon.memory_bytes(), daemon.peak_memory_bytes());
    let mut after_first = None;
    for _ in 0..3 {
        let mut clients = crowd();
        wait_until("an idle connection has 2 KiB at most", || {
            daemon.memory_bytes().saturating_sub(before) <= 2048 * count as u64
        });
        println!(
            "{} bytes for each of {count} connections",
            daemon.memory_bytes().saturating_sub(before) / count as u64
        );
        let with_crowd = daemon.memory_bytes();
        let grown = daemon.peak_memory_bytes() - peak_before;
        // The buffers of those that rest have 5 MiB, and the allocator some of its own.
        assert!(grown <= 2048 * count as u64 + (8 << 20), "it grew by {grown} bytes while they came");
        let last = clients.split_off(count - 200);
        drop(clients);
        if after_first.is_some() {
            // In a later look at the connections than the others.
            std::thread::sleep(std::time::Duration::from_millis(600));
        }
        drop(last);
        wait_until("all are let go of", || daemon.sockets() < 50);
        // Tables that have grown stay; they do not grow again with the next crowd.
        match after_first {
            None => {
                wait_until("what they had returns", || daemon.memory_bytes() < before + (2 << 20));
                std::thread::sleep(std::time::Duration::from_secs(1));
                after_first = Some(daemon.memory_bytes());
            }
            Some(first) => wait_until("all of it returns", || daemon.memory_bytes() <= first + first / 20),
        }
        println!("{before} before, {with_crowd} with them, {} after", daemon.memory_bytes());
    }
}

#[test]
fn lines_are_appended_as_they_come_however_many_there_are_and_in_whatever_coding() {
    let dir = data_dir();
    let args = ["--cores", "1", "--max-body-bytes", "4096"];
    let daemon = Daemon::start(dir.path(), NOWHERE, &args);
    let lines: String = (0..60_000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(lines.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let mut zstd = vec![0; zstd_safe::compress_bound(lines.len())];
    let written = zstd_safe::compress(&mut zstd[..], lines.as_bytes(), 1).unwrap();
    let mut client = daemon.connect();
    for (coding, body) in [("identity", lines.as_bytes()), ("gzip", &gzip), ("zstd", &zstd[..written])] {
        let headers = [("Content-Type", "application/x-ndjson"), ("Content-Encoding", coding)];
        let response = client.request("POST", "/push/lines", &headers, Some(body)).unwrap();
        assert_eq!((response.status, response.json()["count"].as_u64()), (201, Some(60_000)), "{coding}");
        assert!(response.json().get("messages").is_none(), "{coding}");
    }
    assert_eq!(daemon.figure("pending"), 3 * 60_000);
    // What has come is in the log before the rest comes, and before the line that is wrong.
    let mut slow = daemon.connect();
    let head =
        "POST /push/slow HTTP/1.1\r\nHost: t\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n";
    slow.send(format!("{head}\r\n6\r\n1\n2\n34\r\n").as_bytes()).unwrap();
    wait_until("two lines are there", || daemon.figure("pending") == 3 * 60_000 + 2);
    slow.send(b"8\r\n\nwrong\n5\r\n").unwrap();
    let response = slow.receive(false).unwrap();
    assert_eq!((response.status, response.json()["accepted"].as_u64()), (400, Some(3)));
    assert!(response.error().starts_with("line 4:"), "{}", response.error());
    assert!(slow.is_closed());
    let mut long = daemon.connect();
    let response = long.post_ndjson("/push/long", format!("1\n{}\n2\n", "7".repeat(5000)).as_bytes()).unwrap();
    assert_eq!(
        (response.status, response.code(), response.json()["accepted"].as_u64()),
        (413, "body_too_large".into(), Some(1))
    );
}

#[test]
fn case_69_encoded_bodies_of_json_are_taken_within_the_limit_and_bombs_are_not() {
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), NOWHERE, &["--cores", "1"]);
    let gzip = |plain: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    };
    let push = |coding: &str, content_type: &str, body: &[u8]| {
        let headers = [("Content-Type", content_type), ("Content-Encoding", coding)];
        daemon.connect().request("POST", "/push/coded", &headers, Some(body)).unwrap()
    };
    assert_eq!(push("gzip", "application/json", &gzip(b"{\"a\": [1, 2]}")).status, 201);
    let cut = gzip(b"{\"a\": [1, 2]}");
    let response = push("gzip", "application/json", &cut[..cut.len() - 3]);
    assert_eq!((response.status, response.code()), (400, "malformed_encoding".to_owned()));
    let response = push("br", "application/json", b"1");
    assert_eq!((response.status, response.header("Accept-Encoding")), (415, Some("gzip, zstd")));
    let bomb = gzip(&vec![b' '; 100 << 20]);
    let before = daemon.memory_bytes();
    for content_type in ["application/json", "application/x-ndjson"] {
        let response = push("gzip", content_type, &bomb);
        assert_eq!((response.status, response.code()), (413, "body_too_large".to_owned()), "{content_type}");
    }
    let grown = daemon.memory_bytes().saturating_sub(before);
    // A body of 16 MiB is taken, in room that doubles; the bomb has 100.
    assert!(grown < 64 << 20, "{grown} bytes");
    assert_eq!(daemon.figure("pending"), 1);
}

#[test]
fn every_answer_has_a_date_and_every_2xx_says_how_full_the_log_is() {
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), NOWHERE, &["--cores", "1"]);
    let mut client = daemon.connect();
    for (method, path, status) in [
        ("GET", "/health", 200),
        ("HEAD", "/ready", 200),
        ("GET", "/api/v1/status/buffers", 200),
        ("OPTIONS", "/push/q", 204),
        ("POST", "/push/q", 201),
        ("GET", "/nothing", 404),
    ] {
        let response = client.request(method, path, &[], (method == "POST").then_some(b"1")).unwrap();
        assert_eq!(response.status, status, "{path}");
        let date = response.header("Date").unwrap();
        assert!(date.len() == 29 && date.ends_with(" GMT"), "{path}: {date}");
        assert_eq!(response.header("Forebay-Buffer-Fill").is_some(), status < 300, "{path}");
    }
}

#[test]
fn case_42_out_of_descriptors_newcomers_are_told_so_once_in_the_log_and_taken_when_there_is_room() {
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), NOWHERE, &["--cores", "1"]);
    let pid = rustix::process::Pid::from_raw(daemon.pid() as i32).unwrap();
    // The log's first segments are made meanwhile, and would take the descriptor that is kept.
    let mut open = 0;
    wait_until("all that it needs is open", || {
        std::thread::sleep(std::time::Duration::from_millis(500));
        let now = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count() as u64;
        std::mem::replace(&mut open, now) == now
    });
    let limit = Rlimit { current: Some(open + 20), maximum: getrlimit(Resource::Nofile).maximum };
    rustix::process::prlimit(Some(pid), Resource::Nofile, limit).unwrap();
    let mut first = daemon.connect();
    assert_eq!(first.get("/health").unwrap().status, 200);
    let mut crowd: Vec<Client> = (0..60).map(|_| daemon.connect()).collect();
    let last = crowd.last_mut().unwrap().receive(false).unwrap();
    assert_eq!((last.status, last.code(), last.header("Retry-After")), (503, "overloaded".to_owned(), Some("1")));
    assert_eq!(first.post("/push/q", b"1").unwrap().status, 201);
    assert_eq!(daemon.log().matches("accept_failed").count(), 1, "{}", daemon.log());
    drop(crowd);
    wait_until("there is room again", || daemon.connect().get("/health").is_ok_and(|response| response.status == 200));
    wait_until("and that is said", || daemon.log().contains("connections are accepted again"));
}

#[test]
fn the_table_of_descriptors_does_not_grow_under_a_crowd_while_the_kernel_would_stop_the_core() {
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), NOWHERE, &["--cores", "1"]);
    let table = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
        size.trim().parse::<u64>().unwrap()
    };
    let before = table();
    let mut crowd: Vec<Client> = (0..600).map(|_| daemon.connect()).collect();
    assert_eq!(crowd.last_mut().unwrap().get("/health").unwrap().status, 200);
    assert!(before > 600, "{before}");
    assert_eq!(table(), before);
}

#[test]
fn a_core_s_completion_queue_has_room_for_all_that_its_connections_may_wait_for_at_once() {
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), NOWHERE, &["--cores", "1"]);
    let descriptors =
        getrlimit(Resource::Nofile).maximum.map_or(u64::MAX, |most| most.saturating_sub(DESCRIPTORS_KEPT));
    let connections = descriptors.min(CONNECTIONS_PER_CORE_MAX.into());
    // For each a read, poll or write, and the cancellation of it.
    let needed = 2 * connections;
    // The system says nothing of a ring that is in use at that moment.
    wait_until("a ring has room for so many", || {
        let entries = std::fs::read_dir(format!("/proc/{}/fdinfo", daemon.pid())).unwrap();
        let infos = entries.flatten().filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
        let mut masks = infos.filter_map(|info| {
            let line = info.lines().find_map(|line| line.strip_prefix("CqMask:"))?;
            u64::from_str_radix(line.trim().trim_start_matches("0x"), 16).ok()
        });
        masks.any(|mask| mask + 1 >= needed)
    });
}
