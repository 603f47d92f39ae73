//! Debian's Chromium with pages of other origins: what it sends for them, and what the daemon makes of it.

use super::{
    appended,
    common::{Client, Daemon, NOWHERE, PATIENCE, data_dir, small_disk::say_not_run},
};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, Sender, channel},
};

const PAGE: &str = include_str!("page.html");

/// Pushes that the page makes when it attacks.
const ATTACKS: u64 = 7;

/// A server on loopback that has the page at `/page`, takes the page's report, and passes everything else on to the daemon. To a
/// browser the daemon then has the page's origin, as after DNS rebinding.
struct Front {
    address: SocketAddr,
    reports: Receiver<Value>,
}

impl Front {
    fn start(daemon: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, reports) = channel();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let sender = sender.clone();
                std::thread::spawn(move || serve(stream, daemon, &sender));
            }
        });
        Self { address, reports }
    }
}

/// Serves one request, and closes. A browser opens connections that it does not use.
fn serve(mut stream: TcpStream, daemon: SocketAddr, reports: &Sender<Value>) {
    let mut request = Vec::new();
    let body_at = loop {
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer) {
            Ok(length) if length > 0 => request.extend_from_slice(&buffer[..length]),
            _ => return,
        }
        if let Some(at) = request.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let head = String::from_utf8_lossy(&request[..body_at]).to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse().ok());
    let length: usize = length.unwrap_or(0);
    let had = request.len() - body_at;
    request.resize(body_at + length, 0);
    if stream.read_exact(&mut request[body_at + had..]).is_err() {
        return;
    }
    let reply = if head.starts_with("get /page?") {
        let head = format!("Content-Type: text/html\r\nContent-Length: {}", PAGE.len());
        format!("HTTP/1.1 200 OK\r\n{head}\r\nConnection: close\r\n\r\n{PAGE}").into_bytes()
    } else if head.starts_with("post /report ") {
        // A test that has failed reads no report.
        let _ = reports.send(serde_json::from_slice(&request[body_at..]).unwrap());
        b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n".to_vec()
    } else {
        pass_on(&request, daemon)
    };
    // A browser that is ended reads nothing more.
    let _ = stream.write_all(&reply);
}

/// Sends a request to the daemon as it is, and returns the reply.
fn pass_on(request: &[u8], daemon: SocketAddr) -> Vec<u8> {
    let mut client = Client::connect(daemon).unwrap();
    client.send(request).unwrap();
    client.finish_sending();
    client.receive_to_end()
}

/// A running Chromium; killed when dropped.
struct Chromium {
    child: Child,
    _profile: tempfile::TempDir,
}

impl Chromium {
    /// Opens a page. Every name below `example` leads to loopback.
    fn open(url: &str) -> std::io::Result<Self> {
        let profile = tempfile::tempdir()?;
        let mut command = Command::new("chromium");
        command.args(["--headless", "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage"]);
        command.args(["--disable-background-networking", "--host-resolver-rules=MAP *.example 127.0.0.1"]);
        // Not every browser keeps pages from the local network, and none keeps those of the machine itself.
        command.arg("--disable-features=LocalNetworkAccessChecks");
        if rustix::process::geteuid().is_root() {
            command.arg("--no-sandbox");
        }
        command.arg(format!("--user-data-dir={}", profile.path().display())).arg(url);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Self { child, _profile: profile })
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // The browser's other processes end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What became of a page.
struct Visit {
    outcomes: Value,
    /// Messages that the log has taken.
    appended: u64,
}

/// Starts a daemon, and opens the page from `host`. `None` without Chromium.
fn visit(host: &str, act: &str, args: &[&str]) -> Option<Visit> {
    let dir = data_dir();
    let fixed = ["--cores", "1", "--sync", "none"];
    let daemon = Daemon::start(&dir.path().join("data"), NOWHERE, &[&fixed, args].concat());
    let front = Front::start(daemon.address);
    let port = front.address.port();
    let url = format!(
        "http://{host}:{port}/page?act={act}&daemon=http://{}&report=http://127.0.0.1:{port}/report",
        daemon.address
    );
    let browser = match Chromium::open(&url) {
        Ok(browser) => browser,
        Err(error) => {
            say_not_run("a page of another origin in Chromium (Debian's package chromium)", &error);
            return None;
        }
    };
    let outcomes = front.reports.recv_timeout(2 * PATIENCE).expect("the page reports");
    drop(browser);
    Some(Visit { outcomes, appended: appended(&daemon) })
}

#[test]
fn a_page_of_another_origin_pushes_nothing_and_would_if_nobody_checked() {
    let outcomes = |image| {
        json!({
            "push": "opaque", "push of items": "opaque", "push without a referrer": "opaque", "retry": "opaque",
            "push with CORS": "TypeError: Failed to fetch", "drop": "TypeError: Failed to fetch",
            "beacon": "true", "form": "sent", "script in a sandbox": "sent", "image": image
        })
    };
    let Some(checked) = visit("evil.example", "attack", &[]) else { return };
    assert_eq!(checked.outcomes, outcomes("not loaded"));
    assert_eq!(checked.appended, 0);
    // The same page and browser where the check is switched off: its requests do arrive.
    let unchecked = visit("evil.example", "attack", &["--host", "*"]).unwrap();
    assert_eq!((unchecked.outcomes, unchecked.appended), (outcomes("not loaded"), ATTACKS));
}

#[test]
fn a_page_whose_name_was_rebound_to_the_daemon_reads_nothing_but_its_health() {
    let Some(visit) = visit("rebound.example", "use", &[]) else { return };
    let refused = "421 misdirected_request";
    let outcomes = json!({"health": "200", "read": refused, "push": refused, "push of JSON": refused, "drop": refused});
    assert_eq!((visit.outcomes, visit.appended), (outcomes, 0));
}

#[test]
fn a_page_of_the_daemon_s_own_origin_reads_and_pushes() {
    let outcomes = json!({
        "health": "200", "read": "200", "push": "201", "push of JSON": "201", "drop": "404 dead_letter_not_found"
    });
    for host in ["127.0.0.1", "localhost", "queue.localhost"] {
        let Some(visit) = visit(host, "use", &[]) else { return };
        assert_eq!((visit.outcomes, visit.appended), (outcomes.clone(), 2), "{host}");
    }
    let named = visit("queue.example", "use", &["--host", "queue.example"]).unwrap();
    assert_eq!((named.outcomes, named.appended), (outcomes, 2));
}
