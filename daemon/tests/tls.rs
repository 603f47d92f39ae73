//! TLS of the daemon's own port: its certificate, client certificates, and the reload of certificates.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{
    PATIENCE,
    tls::{Authority, Sealed},
    wait_until,
};
use rcgen::ExtendedKeyUsagePurpose;
use std::{
    fs,
    io::{self, Read, Write},
    net::TcpStream,
};

#[test]
fn who_trusts_the_daemons_authority_is_served_under_tls_1_2_and_1_3() {
    let authority = Authority::new("right");
    let sealed = Sealed::start(&authority, None);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut conversation = sealed.connect_by(&[version], authority.roots(), None).unwrap();
        assert!(conversation.is_served());
    }
    let error = sealed.connect(Authority::new("wrong").roots(), None).err().unwrap();
    assert!(error.to_string().contains("invalid peer certificate"), "{error}");
}

#[test]
fn a_large_body_and_many_requests_at_once_come_through_whole() {
    let authority = Authority::new("right");
    let sealed = Sealed::start(&authority, None);
    let mut conversation = sealed.connect(authority.roots(), None).unwrap();
    let payload = format!("\"{}\"", "x".repeat(3 << 20));
    assert!(conversation.push(payload.as_bytes()).unwrap().starts_with("HTTP/1.1 201 "));
    let items: Vec<String> = (0..5000).map(|_| r#"{"queue":"q","payload":1}"#.to_owned()).collect();
    let body = format!(r#"{{"items":[{}],"qos0":true}}"#, items.join(","));
    let head = format!("POST /api/v1/push HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n", body.len());
    conversation.0.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let answer = conversation.receive().unwrap();
    assert_eq!(answer.matches("\"message_id\"").count(), 5000, "a large answer");
    let one = "POST /push/q HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\n1";
    conversation.0.write_all(one.repeat(200).as_bytes()).unwrap();
    let mut answers = String::new();
    while answers.matches("HTTP/1.1 201").count() < 200 || !answers.ends_with("}\n") {
        answers += &conversation.receive().unwrap();
    }
}

#[test]
fn a_client_certificate_is_needed_where_one_is_asked_for() {
    let (authority, clients, strangers) =
        (Authority::new("right"), Authority::new("clients"), Authority::new("strangers"));
    let sealed = Sealed::start(&authority, Some(&clients));
    let client = clients.issue(ExtendedKeyUsagePurpose::ClientAuth);
    assert!(sealed.connect(authority.roots(), Some(client)).unwrap().is_served());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        assert!(sealed.connect_by(&[version], authority.roots(), None).is_err(), "without one");
        let stranger = strangers.issue(ExtendedKeyUsagePurpose::ClientAuth);
        assert!(sealed.connect_by(&[version], authority.roots(), Some(stranger)).is_err(), "with a stranger's");
        let server = clients.issue(ExtendedKeyUsagePurpose::ServerAuth);
        assert!(sealed.connect_by(&[version], authority.roots(), Some(server)).is_err(), "with one for servers");
    }
}

#[test]
fn a_client_certificate_which_browsers_show_for_every_page_opens_nothing_to_pages_of_strangers() {
    let (authority, clients) = (Authority::new("right"), Authority::new("clients"));
    let sealed = Sealed::start(&authority, Some(&clients));
    let client = clients.issue(ExtendedKeyUsagePurpose::ClientAuth);
    let mut conversation = sealed.connect(authority.roots(), Some(client)).unwrap();
    for (fields, status) in [
        ("Host: 127.0.0.1\r\nOrigin: http://evil.example\r\nSec-Fetch-Site: cross-site", 403),
        ("Host: 127.0.0.1\r\nOrigin: null", 403),
        ("Host: 127.0.0.1\r\nSec-Fetch-Site: cross-site", 403),
        ("Host: rebound.example\r\nOrigin: https://rebound.example\r\nSec-Fetch-Site: same-origin", 421),
        ("Host: 127.0.0.1\r\nOrigin: https://127.0.0.1\r\nSec-Fetch-Site: same-origin", 201),
        ("Host: localhost", 201),
    ] {
        let answer = conversation.push_as(fields, b"1").unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{fields}: {answer}");
    }
}

#[test]
fn certificates_change_on_sighup_and_open_connections_stay() {
    let (before, after) = (Authority::new("before"), Authority::new("after"));
    let sealed = Sealed::start(&before, None);
    let mut open = sealed.connect(before.roots(), None).unwrap();
    let reload = |word: &str| {
        let told = || sealed.daemon.log().matches(word).count();
        let count = told();
        sealed.daemon.signal(rustix::process::Signal::HUP);
        wait_until("the certificates are read again", || told() > count);
    };
    // A key that does not match the certificate: nothing changes.
    let (cert_pem, key_pem) = after.issue(ExtendedKeyUsagePurpose::ServerAuth);
    fs::write(&sealed.cert, &cert_pem).unwrap();
    reload("tls_not_reloaded");
    assert!(open.is_served() && sealed.connect(before.roots(), None).unwrap().is_served());
    fs::write(&sealed.key, key_pem).unwrap();
    reload("certificates were read again");
    assert!(open.is_served(), "what was agreed holds");
    assert!(sealed.connect(after.roots(), None).unwrap().is_served());
    assert!(sealed.connect(before.roots(), None).is_err());
}

#[test]
fn plain_http_on_the_port_of_tls_is_closed_and_the_daemon_serves_on() {
    let authority = Authority::new("right");
    let sealed = Sealed::start(&authority, None);
    for bytes in [&b"GET /health HTTP/1.1\r\nHost: t\r\n\r\n"[..], b"\0", b"\x16\x03\x01\xff\xff", b""] {
        let mut stream = TcpStream::connect(sealed.daemon.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
        assert!(ended.is_ok() || ended.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset), "{bytes:?}");
    }
    assert!(sealed.connect(authority.roots(), None).unwrap().is_served());
    assert!(sealed.daemon.terminate().success());
}

#[test]
fn who_says_nothing_is_closed_and_who_rests_is_served_again() {
    let authority = Authority::new("right");
    let sealed = Sealed::start_with(&authority, None, &["--request-timeout", "1s"]);
    let mut resting = sealed.connect(authority.roots(), None).unwrap();
    for bytes in [&b""[..], b"\x16\x03\x01"] {
        let mut stream = TcpStream::connect(sealed.daemon.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        // At most a TLS close notification.
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("the handshake takes too long, and ends");
        assert!(answer.len() < 20, "{answer:?}");
    }
    // Long enough for its buffers to have been freed.
    std::thread::sleep(std::time::Duration::from_secs(2));
    for _ in 0..3 {
        assert!(resting.is_served());
    }
}
