//! The core with arbitrary bytes: it returns messages or a typed error, and never panics.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of tests fails as a test does: by a panic")]

use bytes::BytesMut;
use forebay_pgwire::core::{
    Authentication, Backend, Channel, CopyInExchange, Credentials, Exchange, Extended, ReadBuffer, Security, Session,
    SimpleQuery, SslAnswer, Startup, StartupProgress, Step, limits, ssl_answer,
};
use forebay_pgwire::{AuthError, ChannelBinding, Error, ProtocolError, Row, TlsError, oid};
use proptest::prelude::*;

/// The tags of the protocol, and one byte that is not a tag.
const TAGS: &[u8] = b"123ACDEGHIKNRSTZcdnstW!";

const TYPES: [u32; 17] = [
    oid::BOOL,
    oid::BYTEA,
    oid::INT8,
    oid::INT2,
    oid::INT4,
    oid::TEXT,
    oid::OID,
    oid::FLOAT8,
    oid::TIMESTAMPTZ,
    oid::UUID,
    oid::JSONB,
    oid::BYTEA_ARRAY,
    oid::INT4_ARRAY,
    oid::TEXT_ARRAY,
    oid::INT8_ARRAY,
    oid::UUID_ARRAY,
    99_999,
];

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn credentials(password: &str) -> Credentials {
    Credentials { user: "somebody".to_owned(), password: Some(password.to_owned()) }
}

fn begin(security: Security, send: &mut BytesMut) -> Startup {
    Startup::begin(credentials("secret"), security, [("user", "somebody")], send).unwrap()
}

/// TCP without encryption, with the default channel binding.
fn open() -> Security {
    Security { channel: Channel::Open, channel_binding: ChannelBinding::Prefer }
}

/// Passes a stream to exchanges, as a driver does, until one fails. A new exchange follows each one that is ready.
fn drive(bytes: &[u8], mut new: impl FnMut() -> Box<dyn Exchange>) {
    let (mut received, mut session, mut exchange) = (ReadBuffer::new(), Session::default(), new());
    received.push(bytes);
    while let Ok(Some(message)) = received.next_message() {
        let Some(message) = session.absorb(message) else { continue };
        match exchange.on_message(message) {
            Ok(forebay_pgwire::core::Progress::Ready(_)) => exchange = new(),
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

/// Passes a stream to every kind of exchange.
fn drive_all(bytes: &[u8]) {
    drive(bytes, || Box::new(SimpleQuery::default()));
    drive(bytes, || Box::new(CopyInExchange::new()));
    let steps = || {
        let once = [Step::Parse, Step::Bind, Step::DescribePortal, Step::Execute { columns: None }];
        once.into_iter().chain([Step::DescribeStatement, Step::Close])
    };
    drive(bytes, || Box::new(Extended::new(steps())));
    // Each step alone, because a random stream seldom completes several steps.
    for step in steps() {
        drive(bytes, || Box::new(Extended::new([step.clone()])));
    }

    let mut send = BytesMut::new();
    let mut startup = begin(open(), &mut send);
    let mut received = ReadBuffer::new();
    received.push(bytes);
    while let Ok(Some(message)) = received.next_message() {
        if !matches!(startup.on_message(message, &mut send), Ok(StartupProgress::More)) {
            return;
        }
    }
}

/// Reads each column of a row, and the column after the last, with every getter. Returns how many values could be read.
fn read_all(row: &Row) -> usize {
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
    let width = row.columns().len();
    assert!(readable(width).iter().all(|read| !read), "nothing is there to read");
    (0..width).flat_map(readable).filter(|read| *read).count()
}

/// The rows of a result with one column and one row, from messages of the simple protocol.
fn rows_of(type_oid: u32, format: u16, value: &[u8]) -> Vec<Row> {
    let mut description = vec![0, 1, b'c', 0];
    description.extend_from_slice(&[0; 6]);
    description.extend_from_slice(&type_oid.to_be_bytes());
    description.extend_from_slice(&[0; 6]);
    description.extend_from_slice(&format.to_be_bytes());
    let mut data = vec![0, 1];
    data.extend_from_slice(&(value.len() as u32).to_be_bytes());
    data.extend_from_slice(value);
    let mut received = ReadBuffer::new();
    received.push(&message(b'T', &description));
    received.push(&message(b'D', &data));
    received.push(&message(b'C', b"SELECT 1\0"));
    let mut query = SimpleQuery::default();
    while let Some(message) = received.next_message().unwrap() {
        query.on_message(message).unwrap();
    }
    query.into_results().unwrap().remove(0).rows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        drive_all(&bytes);
    }

    #[test]
    fn arbitrary_messages_never_panic(
        messages in proptest::collection::vec(
            (proptest::sample::select(TAGS), proptest::collection::vec(any::<u8>(), 0..24)), 0..12),
    ) {
        let stream: Vec<u8> = messages.iter().flat_map(|(tag, body)| message(*tag, body)).collect();
        drive_all(&stream);
    }

    #[test]
    fn sound_messages_in_any_order_never_panic(order in proptest::collection::vec(0..18_usize, 0..24)) {
        let sound: [(u8, &[u8]); 18] = [
            (b'1', b""), (b'2', b""), (b'3', b""), (b'n', b""), (b'I', b""), (b's', b""), (b'c', b""),
            (b't', b"\0\x01\0\0\0\x14"),
            (b'T', b"\0\x01c\0\0\0\0\0\0\0\0\0\0\x14\0\x08\0\0\0\0\0\0"),
            (b'D', b"\0\x01\0\0\0\x01x"),
            (b'C', b"COPY 3\0"),
            (b'E', b"VERROR\0C22P02\0Mbad\0\0"),
            (b'N', b"VNOTICE\0C00000\0Mhm\0\0"),
            (b'S', b"a\0b\0"),
            (b'Z', b"I"),
            (b'G', b"\x01\0\0"),
            (b'R', b"\0\0\0\0"),
            (b'K', b"\0\0\0\x01\0\0\0\x02"),
        ];
        let stream: Vec<u8> = order.iter().flat_map(|place| message(sound[*place].0, sound[*place].1)).collect();
        drive_all(&stream);
    }

    #[test]
    fn arbitrary_values_are_read_or_refused(
        type_oid in proptest::sample::select(&TYPES[..]),
        binary in any::<bool>(),
        value in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        for row in rows_of(type_oid, binary.into(), &value) {
            prop_assert!(read_all(&row) <= 2, "a value is of one type, or two where one is the wider");
        }
    }

    #[test]
    fn arrays_with_lying_headers_are_read_or_refused(
        header in proptest::collection::vec(proptest::sample::select(&[-1_i32, 0, 1, 2, 20, 23, 25, i32::MAX][..]), 0..9),
    ) {
        let value: Vec<u8> = header.iter().flat_map(|word| word.to_be_bytes()).collect();
        for type_oid in TYPES {
            for row in rows_of(type_oid, 1, &value) {
                prop_assert!(read_all(&row) <= 2);
            }
        }
    }
}

#[test]
fn a_length_that_cannot_be_is_refused_by_the_header_alone() {
    for length in [0_u32, 3, 70_000, i32::MAX as u32, u32::MAX] {
        let mut received = ReadBuffer::new();
        received.push(b"D");
        received.push(&length.to_be_bytes());
        let refused = received.next_message();
        assert!(matches!(refused, Err(ProtocolError::MessageLength { tag: b'D', .. })), "{length}: {refused:?}");
        assert!(received.lend().capacity() <= limits::READ_CHUNK_BYTES * 2, "no memory is reserved for it");
    }
}

#[test]
fn a_server_of_another_protocol_is_refused_at_once() {
    let mut received = ReadBuffer::new();
    received.push(b"HTTP/1.1 400 Bad Request\r\n");
    let error = received.next_message().unwrap_err();
    assert!(error.to_string().contains("is this a PostgreSQL server?"), "{error}");
}

#[test]
fn a_row_as_wide_as_its_columns_and_no_other_is_taken() {
    let mut received = ReadBuffer::new();
    received.push(&message(b'T', b"\0\x01c\0\0\0\0\0\0\0\0\0\0\x14\0\x08\0\0\0\0\0\0"));
    received.push(&message(b'D', b"\0\x02\xff\xff\xff\xff\xff\xff\xff\xff"));
    let mut query = SimpleQuery::default();
    query.on_message(received.next_message().unwrap().unwrap()).unwrap();
    let refused = query.on_message(received.next_message().unwrap().unwrap());
    assert_eq!(refused, Err(ProtocolError::RowWidth { values: 2, columns: 1 }));
}

#[test]
fn what_a_session_remembers_is_bounded() {
    let mut session = Session::default();
    let set = |session: &mut Session, name: String, value: String| {
        assert_eq!(session.absorb(Backend::ParameterStatus { name, value }), None);
    };
    for n in 0..limits::PARAMETERS_MAX * 3 {
        set(&mut session, format!("p{n}"), "x".to_owned());
    }
    let known = (0..limits::PARAMETERS_MAX * 3).filter(|n| session.parameter(&format!("p{n}")).is_some()).count();
    assert_eq!(known, limits::PARAMETERS_MAX);
    set(&mut session, "p0".to_owned(), "new".to_owned());
    assert_eq!(session.parameter("p0"), Some("new"));
    set(&mut session, "p0".to_owned(), "x".repeat(limits::PARAMETER_VALUE_MAX_BYTES + 1));
    assert_eq!(session.parameter("p0"), None, "it is absent, and not wrong");
}

/// Starts SCRAM, and returns the client's first message.
fn begin_scram(send: &mut BytesMut) -> (Startup, String) {
    let mut startup = begin(open(), send);
    send.clear();
    let mechanisms = Authentication::Sasl(vec!["SCRAM-SHA-256-PLUS".to_owned(), "SCRAM-SHA-256".to_owned()]);
    startup.on_message(Backend::Authentication(mechanisms), send).unwrap();
    let sent = String::from_utf8_lossy(send).into_owned();
    (startup, sent)
}

fn assert_not_proven(result: Result<StartupProgress, Error>) {
    assert!(matches!(result, Err(Error::Auth(AuthError::ServerNotProven))), "{result:?}");
}

#[test]
fn a_server_that_skips_its_proof_or_forges_it_is_refused() {
    let ok = Backend::Authentication(Authentication::Ok);
    let mut send = BytesMut::new();
    let (mut startup, _) = begin_scram(&mut send);
    assert_not_proven(startup.on_message(ok.clone(), &mut send));

    for forged in [None, Some(&b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="[..]), Some(b"v="), Some(b"e=no")] {
        let (mut startup, sent) = begin_scram(&mut send);
        // A nonce contains no comma, but it may contain `r=`.
        let (_, nonce) = sent.split_once(",r=").unwrap();
        let challenge = format!("r={nonce}server,s=QSXCR+Q6sek8bf92,i=4096");
        let challenge = Authentication::SaslContinue(challenge.into_bytes().into());
        assert_eq!(startup.on_message(Backend::Authentication(challenge), &mut send).unwrap(), StartupProgress::More);
        let next = match forged {
            Some(proof) => Backend::Authentication(Authentication::SaslFinal(proof.into())),
            None => ok.clone(),
        };
        assert_not_proven(startup.on_message(next, &mut send));
    }
}

#[test]
fn a_challenge_that_is_none_and_a_method_that_is_unknown_are_typed_errors() {
    let mut send = BytesMut::new();
    for challenge in ["", "r=other,s=QSXCR+Q6sek8bf92,i=4096", "r=,s=,i=999999999", "e=x"] {
        let (mut startup, _) = begin_scram(&mut send);
        let message = Backend::Authentication(Authentication::SaslContinue(challenge.into()));
        let refused = startup.on_message(message, &mut send);
        assert!(matches!(refused, Err(Error::Auth(AuthError::Scram { .. }))), "{challenge}: {refused:?}");
    }
    for unknown in [Authentication::Unsupported("GSSAPI"), Authentication::Sasl(vec!["OAUTHBEARER".to_owned()])] {
        let mut startup = begin(open(), &mut send);
        let refused = startup.on_message(Backend::Authentication(unknown), &mut send);
        assert!(matches!(refused, Err(Error::Auth(AuthError::UnsupportedMethod { .. }))), "{refused:?}");
    }
}

fn scram(mechanisms: &[&str]) -> Backend {
    Backend::Authentication(Authentication::Sasl(mechanisms.iter().map(|name| (*name).to_owned()).collect()))
}

#[test]
fn scram_is_bound_where_it_can_be_and_says_so_where_it_could_have_been() {
    let both = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"];
    let hash = || Some(vec![7; 32]);
    use ChannelBinding::{Disable, Prefer, Require};
    for (end_point_hash, wish, offered, expected) in [
        (hash(), Prefer, &both[..], Some("p=tls-server-end-point,,")),
        (hash(), Require, &both[..], Some("p=tls-server-end-point,,")),
        (hash(), Disable, &both[..], Some("n,,")),
        (hash(), Prefer, &both[1..], Some("y,,")),
        (hash(), Require, &both[1..], None),
        (None, Prefer, &both[..], Some("n,,")),
        (None, Require, &both[..], None),
    ] {
        let security = Security { channel: Channel::Tls { end_point_hash }, channel_binding: wish };
        let mut send = BytesMut::new();
        let mut startup = begin(security, &mut send);
        send.clear();
        let result = startup.on_message(scram(offered), &mut send);
        let sent = String::from_utf8_lossy(&send).into_owned();
        match expected {
            Some(flag) => {
                assert_eq!(result.unwrap(), StartupProgress::More);
                assert!(sent.contains(&format!("{flag}n=,r=")), "{wish:?} {offered:?}: {sent:?}");
                let mechanism = if flag.starts_with('p') { both[0] } else { both[1] };
                assert!(sent.contains(&format!("{mechanism}\0")), "{sent:?}");
            }
            None => {
                assert!(matches!(result, Err(Error::Auth(AuthError::NotBound))), "{result:?}");
                assert!(send.is_empty(), "nothing was sent: {sent:?}");
            }
        }
    }
}

#[test]
fn who_requires_binding_gives_no_password_to_another_method_and_takes_no_ok_without_it() {
    let requests = [Authentication::CleartextPassword, Authentication::Md5Password([1; 4]), Authentication::Ok];
    for channel in [Channel::Local, Channel::Open, Channel::Tls { end_point_hash: Some(vec![7; 32]) }] {
        for request in requests.clone() {
            let mut send = BytesMut::new();
            let security = Security { channel: channel.clone(), channel_binding: ChannelBinding::Require };
            let mut startup = begin(security, &mut send);
            send.clear();
            let result = startup.on_message(Backend::Authentication(request), &mut send);
            assert!(matches!(result, Err(Error::Auth(AuthError::NotBound))), "{result:?}");
            assert!(send.is_empty());
        }
    }
}

#[test]
fn a_password_in_clear_goes_through_tls_and_unix_sockets_only() {
    for (channel, sent) in
        [(Channel::Local, true), (Channel::Open, false), (Channel::Tls { end_point_hash: None }, true)]
    {
        let mut send = BytesMut::new();
        let mut startup = begin(Security { channel, channel_binding: ChannelBinding::Prefer }, &mut send);
        send.clear();
        let result = startup.on_message(Backend::Authentication(Authentication::CleartextPassword), &mut send);
        if sent {
            assert_eq!(result.unwrap(), StartupProgress::More);
            assert_eq!(&send[..], b"p\0\0\0\x0bsecret\0");
        } else {
            assert!(matches!(result, Err(Error::Auth(AuthError::CleartextInTheOpen))), "{result:?}");
            assert!(send.is_empty(), "the password was not sent");
        }
    }
}

#[test]
fn the_answer_to_the_request_for_tls_is_one_byte_and_nothing_behind_it() {
    assert_eq!(ssl_answer(b""), Ok(None));
    assert_eq!(ssl_answer(b"S"), Ok(Some(SslAnswer::Accepted)));
    assert_eq!(ssl_answer(b"N"), Ok(Some(SslAnswer::Refused)));
    assert_eq!(ssl_answer(b"E\0\0\0"), Ok(Some(SslAnswer::Failed)), "its text is not read");
    for byte in 0..=u8::MAX {
        let alone = ssl_answer(&[byte]);
        assert_eq!(alone.is_ok(), b"SNE".contains(&byte), "{byte}: {alone:?}");
    }
    for stuffed in [&b"SR\0\0\0\x08\0\0\0\0"[..], b"NR\0\0\0\x08\0\0\0\0"] {
        assert_eq!(ssl_answer(stuffed), Err(TlsError::BytesBeforeTls { bytes: 9 }));
    }
}

#[test]
fn nothing_that_is_shown_for_debugging_holds_the_password() {
    let mut send = BytesMut::new();
    let startup = Startup::begin(credentials("hunter2"), open(), [("user", "somebody")], &mut send).unwrap();
    assert!(!format!("{startup:?} {:?}", credentials("hunter2")).contains("hunter2"));
}
