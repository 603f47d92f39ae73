//! The names that the daemon has, and those that `--host` gives it.

use super::common::{Daemon, NOWHERE, Response, data_dir, forebay};

/// A daemon without PostgreSQL.
struct Named {
    daemon: Daemon,
    _dir: tempfile::TempDir,
}

impl Named {
    fn start(args: &[&str]) -> Self {
        let dir = data_dir();
        let fixed = ["--cores", "1", "--sync", "none"];
        let daemon = Daemon::start(&dir.path().join("data"), NOWHERE, &[&fixed, args].concat());
        Self { daemon, _dir: dir }
    }

    fn ask(&self, target: &str, version: &str, fields: &str) -> Response {
        let mut client = self.daemon.connect();
        client.send(format!("GET {target} {version}\r\n{fields}\r\n").as_bytes()).unwrap();
        client.receive(false).unwrap()
    }

    /// The status for a request that names this host.
    fn status(&self, host: &str) -> u16 {
        self.ask("/api/v1/status/buffers", "HTTP/1.1", &format!("Host: {host}\r\n")).status
    }
}

fn machine() -> String {
    rustix::system::uname().nodename().to_str().unwrap().to_owned()
}

#[test]
fn the_daemon_is_asked_by_any_address_by_localhost_by_its_machine_s_name_and_by_those_of_host() {
    let named = Named::start(&["--host", "queue.example,Other.Example", "--host", "third"]);
    let machine = machine();
    for host in [
        "127.0.0.1",
        "127.0.0.1:1",
        "10.0.0.1:6632",
        "[::1]",
        "[fe80::1]:6632",
        "localhost",
        "LOCALHOST:6632",
        "localhost.",
        "a.localhost:80",
        "queue.example",
        "Queue.Example.:443",
        "other.example",
        "third:80",
        &machine,
        &format!("{machine}:6632"),
    ] {
        assert_eq!(named.status(host), 200, "{host}");
    }
    for host in [
        "",
        ":6632",
        "evil.example",
        "queue.example.evil.example",
        "evil-queue.example",
        "localhost.evil.example",
        "evillocalhost",
        "127.0.0.1.evil.example",
        "127.1",
        "2130706433",
        "0x7f000001",
        "[::1].evil.example",
        "[::1",
        "localhost:6632.evil.example",
        "localhost:99999",
        "local%68ost",
        "t",
    ] {
        assert_eq!(named.status(host), 421, "{host}");
    }
}

#[test]
fn the_target_s_host_goes_before_the_header_and_http_1_0_may_name_none() {
    let named = Named::start(&[]);
    let path = "/api/v1/status/buffers";
    let status = |target: &str, version: &str, fields: &str| named.ask(target, version, fields).status;
    assert_eq!(status(path, "HTTP/1.0", ""), 200);
    assert_eq!(status(path, "HTTP/1.0", "Host: evil.example\r\n"), 421);
    assert_eq!(status(path, "HTTP/1.0", "Origin: null\r\n"), 403);
    assert_eq!(status(&format!("http://localhost{path}"), "HTTP/1.1", "Host: evil.example\r\n"), 200);
    assert_eq!(status(&format!("http://evil.example{path}"), "HTTP/1.1", "Host: localhost\r\n"), 421);
    assert_eq!(status(&format!("http://evil.example{path}"), "HTTP/1.0", ""), 421);
}

#[test]
fn an_asterisk_is_every_name_and_switches_the_check_off() {
    let named = Named::start(&["--host", "*"]);
    assert_eq!((named.status("evil.example"), named.status("")), (200, 200));
    let fields = "Host: rebound.example\r\nOrigin: null\r\nSec-Fetch-Site: cross-site\r\n";
    assert_eq!(named.ask("/api/v1/status/buffers", "HTTP/1.1", fields).status, 200);
}

#[test]
fn origins_of_cors_may_ask_from_their_pages_for_a_host_of_the_daemon_s() {
    let named = Named::start(&["--cors-origin", "https://app.example"]);
    let ask = |host: &str, origin: &str| {
        let fields = format!("Host: {host}\r\nOrigin: {origin}\r\nSec-Fetch-Site: cross-site\r\n");
        named.ask("/api/v1/status/buffers", "HTTP/1.1", &fields)
    };
    let response = ask("127.0.0.1", "https://app.example");
    assert_eq!((response.status, response.header("Access-Control-Allow-Origin")), (200, Some("https://app.example")));
    // A page can read why its request for another host was refused.
    let response = ask("app.example", "https://app.example");
    assert_eq!((response.status, response.header("Access-Control-Allow-Origin")), (421, Some("https://app.example")));
    for origin in ["https://app.example:8443", "http://app.example", "https://x.app.example", "null"] {
        let response = ask("127.0.0.1", origin);
        assert_eq!((response.status, response.header("Access-Control-Allow-Origin")), (403, None), "{origin}");
    }
}

#[test]
fn a_host_with_a_port_a_scheme_or_a_path_is_refused_at_the_start() {
    for host in ["queue.example:6632", "http://queue.example", "queue.example/x", "*.example", "a,,b"] {
        let output = forebay(&["serve", "--host", host, "--print-config"]);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{host}: {errors}");
        assert!(errors.contains("--host") && errors.contains("without scheme, port or path"), "{errors}");
    }
    let output = forebay(&["serve", "--host", "queue.example,[2001:db8::1]", "--print-config"]);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(printed.contains(r#"host = ["queue.example", "[2001:db8::1]"]"#), "{printed}");
}
