//! Requests as bytes. A connection renders its request once, and before each use patches only the digits in it.
//!
//! Identifiers have a fixed width, so that a patched request keeps its `Content-Length`.

use crate::args::{MAX_CONNECTIONS, MAX_PARTITIONS, PushArgs};

/// Digits of the counter in a transaction id. The counter counts messages, with NDJSON requests.
const COUNTER_DIGITS: usize = 12;
/// Digits of the connection's number in a transaction id.
const CONNECTION_DIGITS: usize = 5;
/// Digits of a partition's number in its name.
const PARTITION_DIGITS: usize = 6;
/// Length of a UUID as text.
const UUID_CHARS: usize = 36;
/// Number of messages on a connection between a message and its duplicate. More than a transaction of the server holds,
/// so that the two are in different ones, and a multiple of all usual numbers of partitions, so that both are in the same
/// partition.
const DUPLICATE_DISTANCE: u64 = 160_000;
/// Number that the server gives to the first line of an NDJSON body in `<Idempotency-Key>/<line>`.
const FIRST_LINE: u64 = 1;

const _: () = assert!(MAX_CONNECTIONS as u64 <= 10u64.pow(CONNECTION_DIGITS as u32));
const _: () = assert!(MAX_PARTITIONS as u64 <= 10u64.pow(PARTITION_DIGITS as u32));

/// The positions in a request of the digits of one message, with NDJSON of the request.
#[derive(Clone, Copy, Debug, Default)]
struct Slots {
    partition_at: Option<usize>,
    counter_at: Option<usize>,
}

/// Renders one connection's requests, and derives the names of its messages.
#[derive(Debug)]
pub(crate) struct Renderer {
    /// As many copies of the request as may be outstanding. Empty between `render` and `give_back`.
    bytes: Vec<u8>,
    request_bytes: usize,
    body_bytes: usize,
    slots: Vec<Slots>,
    naming: Naming,
}

/// Derives the names of a connection's messages from their counters.
#[derive(Debug)]
struct Naming {
    /// `<run id>-<connection>-`, if the messages have transaction ids.
    transaction_prefix: Option<String>,
    /// Seed of the names, if they are UUIDs.
    uuid_seed: Option<u64>,
    duplicate_every: Option<u64>,
    connection: u64,
    partitions: Option<u64>,
    messages_per_request: u64,
    ndjson: bool,
}

impl Renderer {
    /// A renderer for the requests of one connection.
    pub(crate) fn new(args: &PushArgs, run_id: &str, connection: u32) -> Self {
        let naming = Naming {
            transaction_prefix: args
                .wants_transaction_ids()
                .then(|| format!("{run_id}-{connection:0CONNECTION_DIGITS$}-")),
            uuid_seed: args.uuids.then(|| seed_of(run_id, connection)),
            duplicate_every: args.duplicate_every,
            connection: u64::from(connection),
            partitions: args.partitions.map(u64::from),
            messages_per_request: u64::from(args.messages_per_request),
            ndjson: args.ndjson,
        };
        let (request, slots, body_bytes) = if args.ndjson { ndjson(args, &naming) } else { json(args, &naming) };
        Self { bytes: request.repeat(args.pipeline as usize), request_bytes: request.len(), body_bytes, slots, naming }
    }

    /// Length of a request's body, in bytes.
    pub(crate) fn body_bytes(&self) -> usize {
        self.body_bytes
    }

    /// Renders requests `first..first + count` of this connection. Returns a buffer and the length to send of it.
    ///
    /// The caller returns the buffer with [`Renderer::give_back`] before the next call. `count` is at most `--pipeline`.
    pub(crate) fn render(&mut self, first: u64, count: u32) -> (Vec<u8>, usize) {
        let len = count as usize * self.request_bytes;
        assert!(len <= self.bytes.len(), "the buffer was not given back, or more requests than it holds are rendered");
        for (copy, request) in (first..first + u64::from(count)).enumerate() {
            let base = copy * self.request_bytes;
            for (item, slots) in self.slots.iter().enumerate() {
                let counter = self.naming.counter(request, item as u64);
                if let Some(at) = slots.counter_at {
                    let named = self.naming.named(counter);
                    match self.naming.uuid_seed {
                        Some(seed) => write_uuid(&mut self.bytes[base + at..][..UUID_CHARS], seed, named),
                        None => write_digits(&mut self.bytes[base + at..][..COUNTER_DIGITS], named),
                    }
                }
                if let (Some(at), Some(partition)) = (slots.partition_at, self.naming.partition(counter)) {
                    write_digits(&mut self.bytes[base + at..][..PARTITION_DIGITS], partition);
                }
            }
        }
        (std::mem::take(&mut self.bytes), len)
    }

    /// Returns the buffer of [`Renderer::render`].
    pub(crate) fn give_back(&mut self, bytes: Vec<u8>) {
        self.bytes = bytes;
    }

    /// Name and partition of each message in the connection's request `request`, in the order of the body. Empty if the
    /// messages have no transaction ids.
    pub(crate) fn names(&self, request: u64) -> impl Iterator<Item = (String, String)> {
        let naming = &self.naming;
        naming.transaction_prefix.iter().flat_map(move |prefix| {
            (0..naming.messages_per_request).map(move |item| {
                let counter = naming.counter(request, item);
                let partition = naming.partition(counter).map_or_else(|| "Default".to_owned(), partition_name);
                let line = if naming.ndjson { format!("/{}", item + FIRST_LINE) } else { String::new() };
                let name = match naming.uuid_seed {
                    Some(seed) => uuid(seed, counter),
                    None => format!("{prefix}{counter:0COUNTER_DIGITS$}{line}"),
                };
                (name, partition)
            })
        })
    }
}

impl Naming {
    /// The counter of a message. With NDJSON, where a request has one key and one partition, it counts requests.
    fn counter(&self, request: u64, item: u64) -> u64 {
        if self.ndjson { request } else { request * self.messages_per_request + item }
    }

    /// The counter from which the name of message `counter` is derived. For a duplicate it is that of the original.
    fn named(&self, counter: u64) -> u64 {
        match self.duplicate_every {
            Some(every) if counter % every == every - 1 => counter % DUPLICATE_DISTANCE,
            _ => counter,
        }
    }

    fn partition(&self, counter: u64) -> Option<u64> {
        self.partitions.map(|partitions| (self.connection + counter) % partitions)
    }
}

fn partition_name(partition: u64) -> String {
    format!("p{partition:0PARTITION_DIGITS$}")
}

/// Writes `value` in decimal with leading zeros.
fn write_digits(out: &mut [u8], mut value: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
    assert!(value == 0, "the value has more digits than there is room for");
}

/// A seed for each connection of a run.
fn seed_of(run_id: &str, connection: u32) -> u64 {
    run_id.bytes().fold(u64::from(connection), |seed, byte| mix(seed ^ u64::from(byte)))
}

/// The finalizer of splitmix64: a bijection under which neighbouring inputs give unrelated outputs.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// The UUID of message `counter`, in the form of version 4.
fn uuid(seed: u64, counter: u64) -> String {
    let mut text = vec![0; UUID_CHARS];
    write_uuid(&mut text, seed, counter);
    String::from_utf8_lossy(&text).into_owned()
}

fn write_uuid(out: &mut [u8], seed: u64, counter: u64) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let high = mix(seed ^ counter);
    let low = mix(high ^ seed.rotate_left(32));
    let mut bits = (u128::from(high) << 64) | u128::from(low);
    bits = bits & !(0xF << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let mut shift = 128;
    for (at, place) in out.iter_mut().enumerate() {
        if matches!(at, 8 | 13 | 18 | 23) {
            *place = b'-';
        } else {
            shift -= 4;
            *place = DIGITS[(bits >> shift) as usize & 0xF];
        }
    }
}

/// `POST /api/v1/push`: the request, its slots, and the length of its body.
fn json(args: &PushArgs, naming: &Naming) -> (Vec<u8>, Vec<Slots>, usize) {
    let payload = payload(args.payload_bytes as usize);
    let mut body = String::from(r#"{"items":["#);
    let mut slots = Vec::with_capacity(args.messages_per_request as usize);
    for item in 0..args.messages_per_request {
        let mut place = Slots::default();
        body.push_str(if item == 0 { r#"{"queue":""# } else { r#",{"queue":""# });
        body.push_str(&args.queue);
        if naming.partitions.is_some() {
            body.push_str(r#"","partition":"p"#);
            place.partition_at = Some(push_zeros(&mut body, PARTITION_DIGITS));
        }
        body.push_str(r#"","payload":"#);
        body.push_str(&payload);
        if let Some(prefix) = &naming.transaction_prefix {
            body.push_str(r#","transactionId":""#);
            let digits = if naming.uuid_seed.is_some() {
                UUID_CHARS
            } else {
                body.push_str(prefix);
                COUNTER_DIGITS
            };
            place.counter_at = Some(push_zeros(&mut body, digits));
            body.push('"');
        }
        body.push('}');
        slots.push(place);
    }
    body.push(']');
    if args.buffered {
        body.push_str(&format!(r#","bufferMs":{},"bufferMax":{}"#, args.buffer_ms, args.buffer_max));
    }
    body.push('}');

    let mut request = format!(
        "POST /api/v1/push HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        args.url.host,
        body.len()
    );
    for place in &mut slots {
        place.partition_at = place.partition_at.map(|at| at + request.len());
        place.counter_at = place.counter_at.map(|at| at + request.len());
    }
    request.push_str(&body);
    (request.into_bytes(), slots, body.len())
}

/// `POST /push/{queue}[/{partition}]` with a line per message: the request, its slots, and the length of its body.
fn ndjson(args: &PushArgs, naming: &Naming) -> (Vec<u8>, Vec<Slots>, usize) {
    let mut place = Slots::default();
    let mut request = format!("POST /push/{}", args.queue);
    if naming.partitions.is_some() {
        request.push_str("/p");
        place.partition_at = Some(push_zeros(&mut request, PARTITION_DIGITS));
    }
    if args.buffered {
        request.push_str(&format!("?bufferMs={}&bufferMax={}", args.buffer_ms, args.buffer_max));
    } else {
        request.push_str("?wait=postgres");
    }
    request.push_str(" HTTP/1.1\r\nHost: ");
    request.push_str(&args.url.host);
    if let Some(prefix) = &naming.transaction_prefix {
        request.push_str("\r\nIdempotency-Key: ");
        request.push_str(prefix);
        place.counter_at = Some(push_zeros(&mut request, COUNTER_DIGITS));
    }
    let body = format!("{}\n", payload(args.payload_bytes as usize)).repeat(args.messages_per_request as usize);
    request.push_str(&format!("\r\nContent-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n", body.len()));
    request.push_str(&body);
    (request.into_bytes(), vec![place], body.len())
}

/// Appends `count` zeros. Returns their position.
fn push_zeros(text: &mut String, count: usize) -> usize {
    let at = text.len();
    text.extend(std::iter::repeat_n('0', count));
    at
}

/// A JSON document of exactly `bytes` bytes: an object with one string of letters and digits, or a number if there is no
/// room for an object. The string hardly repeats, so that a table with compression has no less work than with real
/// messages.
fn payload(bytes: usize) -> String {
    const OPEN: &str = r#"{"data":""#;
    const CLOSE: &str = r#""}"#;
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz012345";
    let Some(filling) = bytes.checked_sub(OPEN.len() + CLOSE.len()) else {
        return "1".repeat(bytes);
    };
    let mut text = String::with_capacity(bytes);
    text.push_str(OPEN);
    // Knuth's MMIX generator. Only its high bits are random enough.
    let mut state: u64 = 0x5EED;
    for _ in 0..filling {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push(char::from(ALPHABET[(state >> 59) as usize]));
    }
    text.push_str(CLOSE);
    text
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
