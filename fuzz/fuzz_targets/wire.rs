//! PostgreSQL's side of the wire, said by anybody: each exchange of the client against any bytes, cut anywhere.
//!
//! What must hold, whatever comes:
//! - no panic, and nothing kept beyond the bounds in `core::limits`;
//! - where the stream is cut changes nothing: the same messages, the same answers, the same end;
//! - the password leaves in clear only where the server asks for it over TLS or a unix socket;
//! - whoever has begun SCRAM, or requires binding, is never told that he is in without the server's proof;
//! - a row that was taken can be read, by every getter, to a value or an error.
#![no_main]

use arbitrary::Arbitrary;
use bytes::BytesMut;
use forebay_pgwire::core::{
    Channel, CopyInExchange, Credentials, Exchange, Extended, Progress, ReadBuffer, Security, Session, SimpleQuery,
    Startup, StartupProgress, Step, limits, ssl_answer,
};
use forebay_pgwire::{ChannelBinding, Column, Format, Row};
use libfuzzer_sys::fuzz_target;

/// Nothing that a server would say by itself.
const PASSWORD: &str = "a password that no server knows";

/// Bound of a message here: above what the inputs hold, and low enough to be met.
const MESSAGE_MAX_BYTES: usize = 2048;

/// What the client is about to do.
#[derive(Arbitrary, Debug)]
enum Asked {
    Startup { channel: u8, binding: u8 },
    Simple,
    Extended(Vec<Asking>),
    Copy { ended_after: u8 },
}

/// A step of a pipeline.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Asking {
    Parse,
    Bind,
    DescribeStatement,
    DescribePortal,
    Execute,
    ExecuteKnown,
    Close,
}

/// What the server says.
#[derive(Arbitrary, Debug)]
enum Said<'a> {
    /// Bytes as they come.
    Raw(&'a [u8]),
    /// A message whose length is right.
    Message(u8, &'a [u8]),
    /// A row's description, with types that the getters know.
    Columns(Vec<(u8, bool)>),
    /// A row.
    Values(Vec<Option<&'a [u8]>>),
    /// An error or notice of such fields.
    Diagnostic {
        notice: bool,
        fields: Vec<(u8, &'a str)>,
    },
    /// The number of an authentication request, and what goes with it.
    Authentication(u8, &'a [u8]),
    /// An offer of mechanisms.
    Mechanisms {
        plus: bool,
        plain: bool,
        other: Option<&'a str>,
    },
    /// The client's own nonce, said back with more.
    Challenge {
        more: &'a [u8],
        iterations: u16,
    },
    /// A command's tag.
    Complete(&'a str),
    /// The end of an exchange.
    Ready(u8),
    Parameter(&'a str, &'a str),
    Notification(&'a str, &'a str),
}

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    asked: Asked,
    cuts: Vec<u8>,
    said: Vec<Said<'a>>,
}

fuzz_target!(|input: Input<'_>| {
    let stream: Vec<u8> = input.said.iter().flat_map(encode).collect();
    // Any bytes may stand where the answer to the request for TLS is.
    let answer = ssl_answer(&stream);
    assert!(stream.len() != 1 || answer.is_ok() == b"SNE".contains(&stream[0]));
    match &input.asked {
        Asked::Startup { channel, binding } => startup(security(*channel, *binding), &input),
        asked => {
            let whole = converse(asked, &stream, &[]);
            let cut = converse(asked, &stream, &input.cuts);
            assert_eq!(whole, cut, "a cut changes the conversation");
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

/// Types that the getters tell apart, and one that nobody knows.
const TYPES: [u32; 17] = [16, 17, 20, 21, 23, 25, 26, 701, 1184, 2950, 3802, 1001, 1007, 1009, 1016, 2951, 99_999];

fn encode(said: &Said<'_>) -> Vec<u8> {
    match said {
        Said::Raw(bytes) => bytes.to_vec(),
        Said::Message(tag, body) => message(*tag, body),
        Said::Columns(columns) => {
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
        Said::Values(values) => {
            let mut body = count(values.len()).to_vec();
            for value in values {
                let length = value.map_or(-1, |value| value.len() as i32);
                body.extend_from_slice(&length.to_be_bytes());
                body.extend_from_slice(value.unwrap_or_default());
            }
            message(b'D', &body)
        }
        Said::Diagnostic { notice, fields } => {
            let mut body = Vec::new();
            for (field, value) in fields {
                body.push(*field);
                body.extend(text(value));
            }
            body.push(0);
            message(if *notice { b'N' } else { b'E' }, &body)
        }
        Said::Authentication(kind, body) => message(b'R', &[&u32::from(*kind % 14).to_be_bytes()[..], body].concat()),
        Said::Mechanisms { plus, plain, other } => {
            let mut body = 10_u32.to_be_bytes().to_vec();
            let offered = [plus.then_some("SCRAM-SHA-256-PLUS"), plain.then_some("SCRAM-SHA-256"), *other];
            offered.into_iter().flatten().for_each(|name| body.extend(text(name)));
            body.push(0);
            message(b'R', &body)
        }
        // The nonce is put in when it is known.
        Said::Challenge { .. } => Vec::new(),
        Said::Complete(tag) => message(b'C', &text(tag)),
        Said::Ready(status) => message(b'Z', &[b"ITE"[usize::from(*status) % 3]]),
        Said::Parameter(name, value) => message(b'S', &[text(name), text(value)].concat()),
        Said::Notification(channel, payload) => {
            message(b'A', &[vec![0, 0, 0, 1], text(channel), text(payload)].concat())
        }
    }
}

/// The stream in pieces of these lengths, over and over; whole without any.
fn pieces<'a>(stream: &'a [u8], cuts: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = stream;
    let mut lengths = cuts.iter().cycle();
    std::iter::from_fn(move || {
        let length = lengths.next().map_or(rest.len(), |cut| usize::from(*cut).max(1)).min(rest.len());
        let (piece, after) = rest.split_at(length);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Runs an exchange over the stream, and gives all that could be seen of it.
fn converse(asked: &Asked, stream: &[u8], cuts: &[u8]) -> Vec<String> {
    let (mut received, mut session, mut seen) = (ReadBuffer::new(), Session::default(), Vec::new());
    received.set_message_max_bytes(MESSAGE_MAX_BYTES);
    let mut talk = Talk::new(asked);
    'stream: for (place, piece) in pieces(stream, cuts).enumerate() {
        // As a read by the kernel does it, and as a look beside it does.
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
            if !talk.on_message(message, &mut seen) {
                break 'stream;
            }
        }
        assert!(received.len() <= MESSAGE_MAX_BYTES, "less than a message is kept");
    }
    talk.end(&mut seen);
    let (notices, dropped) = session.take_notices();
    assert!(notices.len() <= limits::NOTICES_MAX);
    let (notifications, dropped_too) = session.take_notifications();
    assert!(notifications.len() <= limits::NOTIFICATIONS_MAX);
    seen.push(format!("{notices:?} {dropped} {notifications:?} {dropped_too} {:?}", session.transaction_status()));
    seen
}

/// An exchange, and what reads its results.
enum Talk {
    Simple(SimpleQuery),
    Extended(Extended),
    Copy { exchange: CopyInExchange, ended_after: u8 },
}

impl Talk {
    fn new(asked: &Asked) -> Self {
        match asked {
            Asked::Extended(steps) => Self::Extended(Extended::new(steps.iter().map(step).collect::<Vec<_>>())),
            Asked::Copy { ended_after } => Self::Copy { exchange: CopyInExchange::new(), ended_after: *ended_after },
            Asked::Simple | Asked::Startup { .. } => Self::Simple(SimpleQuery::default()),
        }
    }

    /// `false` when the conversation is over.
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
            Self::Simple(query) => {
                for result in query.into_results().unwrap_or_default() {
                    seen.push(result.tag.as_str().to_owned());
                    seen.extend(result.rows.iter().map(read));
                }
            }
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

fn step(asking: &Asking) -> Step {
    match asking {
        Asking::Parse => Step::Parse,
        Asking::Bind => Step::Bind,
        Asking::DescribeStatement => Step::DescribeStatement,
        Asking::DescribePortal => Step::DescribePortal,
        Asking::Execute => Step::Execute { columns: None },
        Asking::ExecuteKnown => {
            let column = Column { name: "c".to_owned(), type_oid: 20, format: Format::Binary };
            Step::Execute { columns: Some([column].into()) }
        }
        Asking::Close => Step::Close,
    }
}

/// Reads a row by every getter, also behind its end.
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
    assert!(readable(width).iter().all(|read| !read), "nothing is there to read");
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

/// Logs in to whoever is there.
fn startup(security: Security, input: &Input<'_>) {
    let credentials = Credentials { user: "somebody".to_owned(), password: Some(PASSWORD.to_owned()) };
    let mut send = BytesMut::new();
    let begun = Startup::begin(credentials, security.clone(), [("user", "somebody")], &mut send);
    let mut startup = begun.expect("the parameters hold no NUL");
    let (mut received, mut session) = (ReadBuffer::new(), Session::default());
    let mut scram = false;
    for said in &input.said {
        let bytes = match said {
            Said::Challenge { more, iterations } => challenge(&send, more, *iterations),
            said => encode(said),
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
            assert!(!clear || security.channel != Channel::Open, "the password is on its way in the open");
            assert!(!clear || security.channel_binding != ChannelBinding::Require, "to whom is not known");
            scram |= contains(&send, b"SCRAM-SHA-256");
            match progress {
                Ok(StartupProgress::More) => {}
                Ok(StartupProgress::Ready { .. }) => {
                    assert!(!scram, "nobody here knows the password");
                    assert_ne!(security.channel_binding, ChannelBinding::Require);
                    return;
                }
                Err(_) => return,
            }
        }
    }
}

/// A challenge to what was just sent, if that holds a nonce.
fn challenge(sent: &[u8], more: &[u8], iterations: u16) -> Vec<u8> {
    let nonce = sent.windows(3).rposition(|window| window == b",r=").map_or(&[][..], |place| &sent[place + 3..]);
    let rest = format!(",s=QSXCR+Q6sek8bf92,i={}", iterations % 64);
    let body = [&11_u32.to_be_bytes()[..], b"r=", nonce, more, rest.as_bytes()];
    message(b'R', &body.concat())
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
