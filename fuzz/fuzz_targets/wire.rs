//! Runs each exchange of the PostgreSQL client against a server that sends arbitrary bytes, divided at arbitrary positions.
//!
//! What must hold for all inputs:
//! - No panic. The client keeps no more than the bounds in `core::limits`.
//! - Messages, replies and the end of the exchange do not depend on where the stream is divided.
//! - The password is sent in clear only if the server asks for it over TLS or a unix socket.
//! - A log-in with SCRAM, or with channel binding required, never succeeds without the server's proof.
//! - Every getter can be applied to a received row, and gives a value or an error.
#![no_main]

use arbitrary::Arbitrary;
use bytes::BytesMut;
use forebay_pgwire::core::{
    Channel, CopyInExchange, Credentials, Exchange, Extended, Progress, ReadBuffer, Security, Session, SimpleQuery,
    Startup, StartupProgress, Step, limits, ssl_answer,
};
use forebay_pgwire::{ChannelBinding, Column, Format, Row};
use libfuzzer_sys::fuzz_target;

/// A text that the server does not send by chance.
const PASSWORD: &str = "a password that no server knows";

/// Largest message here: larger than most inputs' messages, and small enough that some exceed it.
const MESSAGE_MAX_BYTES: usize = 2048;

/// The exchange that the client runs.
#[derive(Arbitrary, Debug)]
enum Operation {
    Startup {
        channel: u8,
        binding: u8,
    },
    Simple,
    Extended(Vec<PipelineStep>),
    /// A COPY that the client ends after so many messages of the server.
    Copy {
        ended_after: u8,
    },
}

/// A step of a pipeline.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum PipelineStep {
    Parse,
    Bind,
    DescribeStatement,
    DescribePortal,
    Execute,
    ExecuteKnown,
    Close,
}

/// A part of what the server sends.
#[derive(Arbitrary, Debug)]
enum Sent<'a> {
    /// Arbitrary bytes.
    Raw(&'a [u8]),
    /// A message with the right length and an arbitrary body.
    Message(u8, &'a [u8]),
    /// A description of columns: type and format of each.
    Columns(Vec<(u8, bool)>),
    /// A row.
    Values(Vec<Option<&'a [u8]>>),
    /// An error or notice with these fields.
    Diagnostic {
        notice: bool,
        fields: Vec<(u8, &'a str)>,
    },
    /// An authentication request: its number and its data.
    Authentication(u8, &'a [u8]),
    /// The SASL mechanisms that the server offers.
    Mechanisms {
        plus: bool,
        plain: bool,
        other: Option<&'a str>,
    },
    /// The client's nonce with a suffix.
    Challenge {
        more: &'a [u8],
        iterations: u16,
    },
    /// A CommandComplete with this tag.
    Complete(&'a str),
    /// A ReadyForQuery.
    Ready(u8),
    Parameter(&'a str, &'a str),
    Notification(&'a str, &'a str),
}

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    operation: Operation,
    cuts: Vec<u8>,
    sent: Vec<Sent<'a>>,
}

fuzz_target!(|input: Input<'_>| {
    let stream: Vec<u8> = input.sent.iter().flat_map(encode).collect();
    // Arbitrary bytes as the reply to the request for TLS.
    let reply = ssl_answer(&stream);
    assert!(stream.len() != 1 || reply.is_ok() == b"SNE".contains(&stream[0]));
    match &input.operation {
        Operation::Startup { channel, binding } => startup(security(*channel, *binding), &input),
        operation => {
            let whole = converse(operation, &stream, &[]);
            let divided = converse(operation, &stream, &input.cuts);
            assert_eq!(whole, divided, "the exchange depends on where the stream is divided");
        }
    }
});

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("libFuzzer's inputs are far below 4 GiB");
    [&[tag], &length.to_be_bytes()[..], body].concat()
}

fn text(value: &str) -> Vec<u8> {
    [value.as_bytes(), b"\0"].concat()
}

fn count(length: usize) -> [u8; 2] {
    (length as u16).to_be_bytes()
}

/// The types that the getters distinguish, and an unknown one.
const TYPES: [u32; 17] = [16, 17, 20, 21, 23, 25, 26, 701, 1184, 2950, 3802, 1001, 1007, 1009, 1016, 2951, 99_999];

fn encode(sent: &Sent<'_>) -> Vec<u8> {
    match sent {
        Sent::Raw(bytes) => bytes.to_vec(),
        Sent::Message(tag, body) => message(*tag, body),
        Sent::Columns(columns) => {
            let mut body = count(columns.len()).to_vec();
            for (kind, binary) in columns {
                let type_oid = TYPES[usize::from(*kind) % TYPES.len()];
                body.extend_from_slice(b"c\0\0\0\0\0\0\0");
                body.extend_from_slice(&type_oid.to_be_bytes());
                body.extend_from_slice(&[0; 6]);
                body.extend_from_slice(&u16::from(*binary).to_be_bytes());
            }
            message(b'T', &body)
        }
        Sent::Values(values) => {
            let mut body = count(values.len()).to_vec();
            for value in values {
                let length = value.map_or(-1, |value| value.len() as i32);
                body.extend_from_slice(&length.to_be_bytes());
                body.extend_from_slice(value.unwrap_or_default());
            }
            message(b'D', &body)
        }
        Sent::Diagnostic { notice, fields } => {
            let mut body = Vec::new();
            for (field, value) in fields {
                body.push(*field);
                body.extend(text(value));
            }
            body.push(0);
            message(if *notice { b'N' } else { b'E' }, &body)
        }
        Sent::Authentication(kind, body) => message(b'R', &[&u32::from(*kind % 14).to_be_bytes()[..], body].concat()),
        Sent::Mechanisms { plus, plain, other } => {
            let mut body = 10_u32.to_be_bytes().to_vec();
            let offered = [plus.then_some("SCRAM-SHA-256-PLUS"), plain.then_some("SCRAM-SHA-256"), *other];
            offered.into_iter().flatten().for_each(|name| body.extend(text(name)));
            body.push(0);
            message(b'R', &body)
        }
        // Encoded by `challenge` when the nonce is known.
        Sent::Challenge { .. } => Vec::new(),
        Sent::Complete(tag) => message(b'C', &text(tag)),
        Sent::Ready(status) => message(b'Z', &[b"ITE"[usize::from(*status) % 3]]),
        Sent::Parameter(name, value) => message(b'S', &[text(name), text(value)].concat()),
        Sent::Notification(channel, payload) => {
            message(b'A', &[vec![0, 0, 0, 1], text(channel), text(payload)].concat())
        }
    }
}

/// The stream in pieces of these lengths, which repeat. One piece if there are no lengths.
fn pieces<'a>(stream: &'a [u8], cuts: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut unread = stream;
    let mut lengths = cuts.iter().cycle();
    std::iter::from_fn(move || {
        let length = lengths.next().map_or(unread.len(), |cut| usize::from(*cut).max(1)).min(unread.len());
        let (piece, after) = unread.split_at(length);
        unread = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Runs an exchange on the stream. Returns a description of everything that a caller can observe.
fn converse(operation: &Operation, stream: &[u8], cuts: &[u8]) -> Vec<String> {
    let (mut received, mut session, mut seen) = (ReadBuffer::new(), Session::default(), Vec::new());
    received.set_message_max_bytes(MESSAGE_MAX_BYTES);
    let mut running = Running::new(operation);
    'stream: for (place, piece) in pieces(stream, cuts).enumerate() {
        // The two ways in which the client fills its buffer.
        if place % 2 == 0 {
            received.push(piece);
        } else {
            let mut lent = received.lend();
            lent.extend_from_slice(piece);
            received.restore(lent);
        }
        loop {
            let message = match received.next_message() {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(error) => {
                    seen.push(error.to_string());
                    break 'stream;
                }
            };
            let Some(message) = session.absorb(message) else { continue };
            seen.push(message.name().to_owned());
            if !running.on_message(message, &mut seen) {
                break 'stream;
            }
        }
        assert!(received.len() <= MESSAGE_MAX_BYTES, "more than a message is kept");
    }
    running.end(&mut seen);
    let (notices, dropped) = session.take_notices();
    assert!(notices.len() <= limits::NOTICES_MAX);
    let (notifications, dropped_too) = session.take_notifications();
    assert!(notifications.len() <= limits::NOTIFICATIONS_MAX);
    seen.push(format!("{notices:?} {dropped} {notifications:?} {dropped_too} {:?}", session.transaction_status()));
    seen
}

/// An exchange that is running.
enum Running {
    Simple(SimpleQuery),
    Extended(Extended),
    Copy { exchange: CopyInExchange, ended_after: u8 },
}

impl Running {
    fn new(operation: &Operation) -> Self {
        match operation {
            Operation::Extended(steps) => Self::Extended(Extended::new(steps.iter().map(step).collect::<Vec<_>>())),
            Operation::Copy { ended_after } => {
                Self::Copy { exchange: CopyInExchange::new(), ended_after: *ended_after }
            }
            Operation::Simple | Operation::Startup { .. } => Self::Simple(SimpleQuery::default()),
        }
    }

    /// Returns whether the exchange continues.
    fn on_message(&mut self, message: forebay_pgwire::core::Backend, seen: &mut Vec<String>) -> bool {
        let progress = match self {
            Self::Simple(query) => query.on_message(message),
            Self::Extended(query) => query.on_message(message),
            Self::Copy { exchange, ended_after } => {
                let progress = exchange.on_message(message);
                if exchange.is_streaming() {
                    if *ended_after == 0 {
                        exchange.data_ended();
                    }
                    *ended_after = ended_after.saturating_sub(1);
                }
                progress
            }
        };
        seen.push(format!("{progress:?}"));
        matches!(progress, Ok(Progress::More | Progress::CopyIn))
    }

    fn end(self, seen: &mut Vec<String>) {
        match self {
            Self::Simple(query) => match query.into_results() {
                Ok(results) => {
                    for result in results {
                        seen.push(result.tag.as_str().to_owned());
                        seen.extend(result.rows.iter().map(read));
                    }
                }
                Err(error) => seen.push(error.to_string()),
            },
            Self::Extended(query) => {
                let (results, described, failure) = query.into_parts();
                seen.push(format!("{described:?} {failure:?}"));
                for result in results {
                    seen.push(format!("{}", result.tag.rows()));
                    seen.extend(result.rows.iter().map(read));
                }
            }
            Self::Copy { exchange, .. } => seen.push(format!("{:?}", exchange.into_rows())),
        }
    }
}

fn step(step: &PipelineStep) -> Step {
    match step {
        PipelineStep::Parse => Step::Parse,
        PipelineStep::Bind => Step::Bind,
        PipelineStep::DescribeStatement => Step::DescribeStatement,
        PipelineStep::DescribePortal => Step::DescribePortal,
        PipelineStep::Execute => Step::Execute { columns: None },
        PipelineStep::ExecuteKnown => {
            let column = Column { name: "c".to_owned(), type_oid: 20, format: Format::Binary };
            Step::Execute { columns: Some([column].into()) }
        }
        PipelineStep::Close => Step::Close,
    }
}

/// Applies every getter to every column of a row, and to one column too many.
fn read(row: &Row) -> String {
    let width = row.columns().len();
    let readable = |index| {
        [
            row.get_bool(index).is_ok(),
            row.get_i32(index).is_ok(),
            row.get_i64(index).is_ok(),
            row.get_f64(index).is_ok(),
            row.get_str(index).is_ok(),
            row.get_bytes(index).is_ok(),
            row.get_uuid(index).is_ok(),
            row.get_timestamptz_us(index).is_ok(),
            row.get_i32_array(index).is_ok(),
            row.get_i64_array(index).is_ok(),
            row.get_str_array(index).is_ok(),
            row.get_uuid_array(index).is_ok(),
            row.get::<Vec<Option<&[u8]>>>(index).is_ok(),
        ]
    };
    assert!(readable(width).iter().all(|read| !read), "a column that does not exist is read");
    format!("{:?}", (0..width).map(readable).collect::<Vec<_>>())
}

fn security(channel: u8, binding: u8) -> Security {
    let channel = match channel % 4 {
        0 => Channel::Local,
        1 => Channel::Open,
        2 => Channel::Tls { end_point_hash: None },
        _ => Channel::Tls { end_point_hash: Some(vec![7; 32]) },
    };
    let channel_binding =
        [ChannelBinding::Disable, ChannelBinding::Prefer, ChannelBinding::Require][usize::from(binding % 3)];
    Security { channel, channel_binding }
}

/// Logs in to the server of the input.
fn startup(security: Security, input: &Input<'_>) {
    let credentials = Credentials { user: "somebody".to_owned(), password: Some(PASSWORD.to_owned()) };
    let mut send = BytesMut::new();
    let begun = Startup::begin(credentials, security.clone(), [("user", "somebody")], &mut send);
    let mut startup = begun.expect("the parameters contain no NUL");
    let (mut received, mut session) = (ReadBuffer::new(), Session::default());
    let mut scram = false;
    for sent in &input.sent {
        let bytes = match sent {
            Sent::Challenge { more, iterations } => challenge(&send, more, *iterations),
            sent => encode(sent),
        };
        for piece in pieces(&bytes, &input.cuts) {
            received.push(piece);
        }
        loop {
            let message = match received.next_message() {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(_) => return,
            };
            let Some(message) = session.absorb(message) else { continue };
            send.clear();
            let progress = startup.on_message(message, &mut send);
            let clear = contains(&send, PASSWORD.as_bytes());
            assert!(!clear || security.channel != Channel::Open, "the password is sent in clear over an open channel");
            assert!(
                !clear || security.channel_binding != ChannelBinding::Require,
                "the password is sent to a server that is not authenticated"
            );
            scram |= contains(&send, b"SCRAM-SHA-256");
            match progress {
                Ok(StartupProgress::More) => {}
                Ok(StartupProgress::Ready { .. }) => {
                    assert!(!scram, "a server that does not know the password is accepted");
                    assert_ne!(security.channel_binding, ChannelBinding::Require);
                    return;
                }
                Err(_) => return,
            }
        }
    }
}

/// A challenge with the nonce in the client's last message, if there is one.
fn challenge(sent: &[u8], more: &[u8], iterations: u16) -> Vec<u8> {
    let nonce = sent.windows(3).rposition(|window| window == b",r=").map_or(&[][..], |place| &sent[place + 3..]);
    let rest = format!(",s=QSXCR+Q6sek8bf92,i={}", iterations % 64);
    let body = [&11_u32.to_be_bytes()[..], b"r=", nonce, more, rest.as_bytes()];
    message(b'R', &body.concat())
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
