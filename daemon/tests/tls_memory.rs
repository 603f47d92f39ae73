//! What a client without a token can make the daemon hold under TLS: as little as without it, and what it sends itself.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{
    PATIENCE,
    tls::{Authority, Conversation, Sealed},
    wait_until,
};
use rcgen::ExtendedKeyUsagePurpose;
use std::{
    any::Any,
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

/// Connections of each kind.
const EACH: usize = 300;

/// Bytes of a connection in each phase: those that any connection has, …
const FREE_BYTES: u64 = 16 << 10;

/// … a record that has come in part or a read of one, and what the session, its task and rustls have.
const RECORD_BYTES: u64 = 17 << 10;
const SESSION_BYTES: u64 = 12 << 10;

/// The header of a record of this type that announces so many bytes.
fn record(content_type: u8, bytes: usize) -> Vec<u8> {
    [&[content_type, 3, 3][..], &(bytes as u16).to_be_bytes()].concat()
}

/// A ClientHello of so many bytes, of which `part` come, in records of `record_bytes`.
fn client_hello(bytes: usize, part: usize, record_bytes: usize) -> Vec<u8> {
    let mut message = vec![0; part];
    message[..6].copy_from_slice(&[1, (bytes >> 16) as u8, (bytes >> 8) as u8, bytes as u8, 3, 3]);
    message.chunks(record_bytes).flat_map(|part| [record(22, part.len()), part.to_vec()].concat()).collect()
}

fn raw(sealed: &Sealed, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(sealed.daemon.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The daemon may have closed it.
    drop(stream.write_all(bytes));
    stream
}

/// A connection whose handshake is done; `plain` follows under TLS, and then `bytes` as they are.
fn after_handshake(sealed: &Sealed, authority: &Authority, plain: &[u8], bytes: &[u8]) -> Conversation {
    let mut conversation = sealed.begin(&[&rustls::version::TLS13], authority.roots(), None).unwrap();
    let stream = &mut conversation.0;
    stream.conn.complete_io(&mut stream.sock).unwrap();
    stream.write_all(plain).unwrap();
    stream.flush().unwrap();
    conversation.0.sock.write_all(bytes).unwrap();
    conversation
}

#[test]
fn clients_without_a_token_hold_next_to_nothing_under_tls_in_any_phase() {
    let authority = Authority::new("right");
    let sealed = Sealed::start_with(&authority, None, &["--request-timeout", "60s"]);
    let part_of_record = [record(23, 16_401), vec![7; 16_000]].concat();
    let part_of_head = [b"GET /health HTTP/1.1\r\nHost: t\r\nX: ", &[b'x'; 15_000][..]].concat();
    let padded = format!("GET /health HTTP/1.1\r\nHost: t\r\nX: {}\r\n\r\n", "x".repeat(15_000)).into_bytes();
    let raw = |bytes: Vec<u8>| -> Box<dyn Fn() -> Box<dyn Any> + '_> {
        let sealed = &sealed;
        Box::new(move || Box::new(raw(sealed, &bytes)))
    };
    let after = |plain: &[u8], bytes: &[u8]| -> Box<dyn Fn() -> Box<dyn Any> + '_> {
        let (sealed, authority, plain, bytes) = (&sealed, &authority, plain.to_vec(), bytes.to_vec());
        Box::new(move || Box::new(after_handshake(sealed, authority, &plain, &bytes)))
    };
    let kinds = [
        ("nothing", raw(Vec::new()), SESSION_BYTES),
        ("the begin of a record", raw(record(22, 8_000)), SESSION_BYTES),
        (
            "a part of a hello",
            raw([record(22, 8_000), client_hello(7_996, 7_900, 16_000)[5..].to_vec()].concat()),
            FREE_BYTES,
        ),
        ("a part of a hello in records", raw(client_hello(60_000, 55_000, 7_000)), FREE_BYTES),
        ("the same in small records", raw(client_hello(60_000, 8_000, 500)), FREE_BYTES),
        ("a handshake", after(b"", b""), SESSION_BYTES),
        ("the begin of a record behind it", after(b"", &record(23, 16_401)), SESSION_BYTES),
        ("a part of a record behind it", after(b"", &part_of_record), RECORD_BYTES + SESSION_BYTES),
        ("a part of a head", after(&part_of_head, b""), FREE_BYTES + RECORD_BYTES / 4 + SESSION_BYTES),
        (
            "a part of a head, and of a record",
            after(&part_of_head, &part_of_record),
            FREE_BYTES + RECORD_BYTES + SESSION_BYTES,
        ),
        ("a long head, and an answer", after(&padded, b""), SESSION_BYTES),
    ];
    let mut faults = Vec::new();
    // What the daemon itself needs to serve so many is there then.
    let first: Vec<Box<dyn Any>> = (0..EACH).map(|_| kinds[8].1()).collect();
    thread::sleep(Duration::from_secs(1));
    drop(first);
    wait_until("all are let go of", || sealed.daemon.sockets() < 50);
    for (what, connect, most) in kinds {
        thread::sleep(Duration::from_millis(600));
        let before = sealed.daemon.memory_bytes();
        let crowd: Vec<Box<dyn Any>> = (0..EACH).map(|_| connect()).collect();
        thread::sleep(Duration::from_millis(1500));
        let each = sealed.daemon.memory_bytes().saturating_sub(before) / EACH as u64;
        println!("{what}: {each} bytes for each of {EACH}, at most {most}");
        if each > most {
            faults.push(format!("{what}: {each}"));
        }
        drop(crowd);
        wait_until("all are let go of", || sealed.daemon.sockets() < 50);
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn a_handshake_has_a_bound_and_honest_ones_are_within_it() {
    let (authority, clients) = (Authority::new("right"), Authority::new("clients"));
    let sealed = Sealed::start(&authority, None);
    // In records and at once, a hello that is too long ends the connection before it is there.
    for hello in [client_hello(60_000, 20_000, 500), client_hello(60_000, 20_000, 16_000)] {
        let mut stream = raw(&sealed, &hello);
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer));
        assert!(answer.len() < 20, "{answer:?}");
    }
    assert!(sealed.connect(authority.roots(), None).unwrap().is_served());
    // One with three post-quantum shares of keys would be as long.
    let mut conversation = sealed.begin(&[&rustls::version::TLS13], authority.roots(), None).unwrap();
    let names = (0..25).map(|n| format!("{n:0200}").into_bytes()).chain([b"http/1.1".to_vec()]).collect();
    conversation.0.conn = sealed.client_with(names, authority.roots());
    assert!(conversation.is_served());
    // A client certificate of several KiB.
    let sealed = Sealed::start(&authority, Some(&clients));
    let names = (0..600).map(|n| format!("host-{n}.clients.example")).collect();
    let client = clients.issue_for(names, ExtendedKeyUsagePurpose::ClientAuth);
    assert!(client.0.len() > 16_000);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let served = sealed.connect_by(&[version], authority.roots(), Some(client.clone())).unwrap().is_served();
        assert!(served);
    }
}
