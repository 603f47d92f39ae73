//! The part of PostgreSQL's protocol, version 3, that finds the boundaries of messages and builds a few.

/// The size of a message header: tag and length.
const HEADER_BYTES: usize = 5;

/// The code that a client sends in place of a protocol version to request TLS …
const SSL_REQUEST: u32 = 80_877_103;
/// … encryption by GSSAPI …
const GSS_REQUEST: u32 = 80_877_104;
/// … or the cancellation of another connection's query.
const CANCEL_REQUEST: u32 = 80_877_102;

/// The kind of a client's first message, which has no tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    Startup,
    /// A request for encryption, answered with one byte.
    Encryption,
    Cancel,
}

/// Cuts the bytes of one direction into messages.
#[derive(Default)]
pub struct Framer {
    received: Vec<u8>,
}

impl Framer {
    pub fn push(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    /// The next complete message, including tag and length.
    pub fn next(&mut self) -> Option<Vec<u8>> {
        let length = u32::from_be_bytes(self.received.get(1..HEADER_BYTES)?.try_into().unwrap()) as usize + 1;
        (self.received.len() >= length).then(|| self.received.drain(..length).collect())
    }

    /// The client's first message, once it is complete.
    pub fn next_first(&mut self) -> Option<(First, Vec<u8>)> {
        let length = u32::from_be_bytes(self.received.get(..4)?.try_into().unwrap()) as usize;
        if self.received.len() < length {
            return None;
        }
        let message: Vec<u8> = self.received.drain(..length).collect();
        let first = match u32::from_be_bytes(message[4..8].try_into().unwrap()) {
            SSL_REQUEST | GSS_REQUEST => First::Encryption,
            CANCEL_REQUEST => First::Cancel,
            _ => First::Startup,
        };
        Some((first, message))
    }
}

/// A message.
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() + 4) as u32;
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

/// The content of an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    pub severity: &'static str,
    pub sqlstate: &'static str,
    pub text: String,
}

impl Complaint {
    /// An error that the session survives.
    pub fn error(sqlstate: &'static str) -> Self {
        Self { severity: "ERROR", sqlstate, text: format!("injected {sqlstate}") }
    }

    /// An error that ends the session.
    pub fn fatal(sqlstate: &'static str) -> Self {
        Self { severity: "FATAL", sqlstate, text: format!("injected {sqlstate}") }
    }

    /// As an ErrorResponse.
    pub fn response(&self) -> Vec<u8> {
        message(b'E', &self.fields())
    }

    /// As a NoticeResponse.
    pub fn notice(&self) -> Vec<u8> {
        message(b'N', &self.fields())
    }

    fn fields(&self) -> Vec<u8> {
        let mut body = Vec::new();
        for (field, value) in
            [(b'S', self.severity), (b'V', self.severity), (b'C', self.sqlstate), (b'M', self.text.as_str())]
        {
            body.push(field);
            body.extend_from_slice(value.as_bytes());
            body.push(0);
        }
        body.push(0);
        body
    }
}

/// A ParameterStatus.
pub fn parameter_status(name: &str, value: &str) -> Vec<u8> {
    message(b'S', format!("{name}\0{value}\0").as_bytes())
}

/// An invalid statement, at which the server really fails. It is either a simple query or a flight of prepared
/// statements that uses the unnamed statement.
pub fn failing_statement(simple: bool) -> Vec<u8> {
    const TEXT: &[u8] = b"injected";
    if simple { message(b'Q', &[TEXT, &[0]].concat()) } else { message(b'P', &[&[0], TEXT, &[0, 0, 0]].concat()) }
}

/// The client's message that aborts a COPY.
pub fn copy_fail() -> Vec<u8> {
    message(b'f', b"injected\0")
}
