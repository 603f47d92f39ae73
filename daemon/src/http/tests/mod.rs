//! What holds at the edge. The numbers are those of the fault list.

mod chunks;
mod encoded;
mod heads;
mod paths;
mod responses;
mod robustness;
mod smuggling;

use super::{Head, Limits, Parsed, Refusal, request};

const LIMITS: Limits = Limits::new(1_000_000);

#[track_caller]
fn head(bytes: &str) -> Head<'_> {
    match request::parse(bytes.as_bytes(), &LIMITS) {
        Ok(Parsed::Head(head)) => head,
        other => panic!("{other:?} for {bytes:?}"),
    }
}

/// The head of a POST with these header lines.
fn post(lines: &str) -> String {
    format!("POST /push/q HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

#[track_caller]
fn refusal(bytes: impl AsRef<[u8]>) -> Refusal {
    let bytes = bytes.as_ref();
    match request::parse(bytes, &LIMITS) {
        Err(refusal) => refusal,
        other => panic!("{other:?} for {}", String::from_utf8_lossy(bytes)),
    }
}

/// Refused with this status, and the connection closed.
#[track_caller]
fn assert_closes(bytes: impl AsRef<[u8]>, status: u16) {
    let bytes = bytes.as_ref();
    let refusal = refusal(bytes);
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]);
    assert_eq!((refusal.status, refusal.close), (status, true), "{refusal} for {text:?}");
}
