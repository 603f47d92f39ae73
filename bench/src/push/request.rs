//! Requests as bytes, rendered once a connection; before each sending only digits are patched in place.
//!
//! Identifiers have a fixed width, so a patched request keeps its `Content-Length`.

use crate::args::{MAX_CONNECTIONS, MAX_PARTITIONS, PushArgs};

/// Digits of a message's (with NDJSON a request's) counter in a transaction id.
const COUNTER_DIGITS: usize = 12;
/// Digits of the connection's number in a transaction id.
const CONNECTION_DIGITS: usize = 5;
/// Digits of a partition's number in its name.
const PARTITION_DIGITS: usize = 6;
/// Length of a UUID in text.
const UUID_CHARS: usize = 36;
/// How many messages of its connection lie between a duplicate and the message whose transaction id it bears: more than a
/// transaction of the server takes, and a multiple of every usual number of partitions, for it must be the same one.
const DUPLICATE_DISTANCE: u64 = 160_000;
/// Number that the server gives the first line of an NDJSON body in `<Idempotency-Key>/<line>`.
const FIRST_LINE: u64 = 1;

const _: () = assert!(MAX_CONNECTIONS as u64 <= 10u64.pow(CONNECTION_DIGITS as u32));
const _: () = assert!(MAX_PARTITIONS as u64 <= 10u64.pow(PARTITION_DIGITS as u32));

/// Where in a request the digits of one message (with NDJSON: of the request) stand.
#[derive(Clone, Copy, Debug, Default)]
struct Slots {
    partition_at: Option<usize>,
    counter_at: Option<usize>,
}

/// Renders one connection's requests, and knows what each of its messages is called.
#[derive(Debug)]
pub(crate) struct Renderer {
    /// As many copies of the request as may be outstanding; empty while lent out.
    bytes: Vec<u8>,
    request_bytes: usize,
    body_bytes: usize,
    slots: Vec<Slots>,
    naming: Naming,
}

/// The names of a connection's messages, by their counters.
#[derive(Debug)]
struct Naming {
    /// `<run id>-<connection>-`, where messages are named by the client.
    transaction_prefix: Option<String>,
    /// Seed of the names, where they are UUIDs.
    uuid_seed: Option<u64>,
    duplicate_every: Option<u64>,
    connection: u64,
    partitions: Option<u64>,
    messages_per_request: u64,
    ndjson: bool,
}

impl Renderer {
    /// The requests of connection `connection` as `args` wants them, under the run's id.
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

    /// Bytes of one request's body.
    pub(crate) fn body_bytes(&self) -> usize {
        self.body_bytes
    }

    /// Requests `first..first + count` of this connection: a buffer and the length in it that is to be sent.
    ///
    /// The buffer comes back by [`Renderer::give_back`] before the next call. `count` is at most the pipeline's depth.
    pub(crate) fn render(&mut self, first: u64, count: u32) -> (Vec<u8>, usize) {
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
        (std::mem::take(&mut self.bytes), count as usize * self.request_bytes)
    }

    /// Takes back what [`Renderer::render`] lent out.
    pub(crate) fn give_back(&mut self, bytes: Vec<u8>) {
        self.bytes = bytes;
    }

    /// Name and partition of each message of the connection's request `request`, in the order of the body; nothing
    /// where the server makes the names.
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
    /// What is counted: messages, or with NDJSON, where a request has one key and one partition, requests.
    fn counter(&self, request: u64, item: u64) -> u64 {
        if self.ndjson { request } else { request * self.messages_per_request + item }
    }

    /// The counter of the message whose name message `counter` bears: its own, unless it is a duplicate.
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

/// Writes `value` in decimal with leading zeros; digits that do not fit are dropped.
fn write_digits(out: &mut [u8], mut value: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// A number of its own for each connection of a run.
fn seed_of(run_id: &str, connection: u32) -> u64 {
    run_id.bytes().fold(u64::from(connection), |seed, byte| mix(seed ^ u64::from(byte)))
}

/// The finalizer of splitmix64: every input has an output of its own, and neighbours have nothing in common.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// The UUID (version 4 by its form) of message `counter`.
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

/// `POST /push/{queue}[/{partition}]` with a line a message: the request, its slots, and the length of its body.
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

/// Appends `count` zeros and says where they begin.
fn push_zeros(text: &mut String, count: usize) -> usize {
    let at = text.len();
    text.extend(std::iter::repeat_n('0', count));
    at
}

/// A JSON document of exactly `bytes` bytes: an object with one string of letters and digits that hardly repeats
/// (a compressing table must not have it easier than with real messages), or a number where an object does not fit.
fn payload(bytes: usize) -> String {
    const OPEN: &str = r#"{"data":""#;
    const CLOSE: &str = r#""}"#;
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz012345";
    let Some(filling) = bytes.checked_sub(OPEN.len() + CLOSE.len()) else {
        return "1".repeat(bytes);
    };
    let mut text = String::with_capacity(bytes);
    text.push_str(OPEN);
    // Knuth's MMIX generator; its high bits are the good ones.
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
