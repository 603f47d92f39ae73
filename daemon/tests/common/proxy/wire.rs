//! As much of PostgreSQL's protocol, version 3, as finds the borders of messages, and makes a few.

/// Header of a message: its tag and its length.
const HEADER_BYTES: usize = 5;

/// Code in the place of a protocol version with which a client asks for TLS …
const SSL_REQUEST: u32 = 80_877_103;
/// … for encryption by GSSAPI …
const GSS_REQUEST: u32 = 80_877_104;
/// … or for the cancellation of what another connection does.
const CANCEL_REQUEST: u32 = 80_877_102;

/// What the first message of a client is: it has no tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    Startup,
    /// To be answered with one byte.
    Encryption,
    Cancel,
}

/// Bytes of one direction as they arrive, cut into messages.
#[derive(Default)]
pub struct Framer {
    received: Vec<u8>,
}

impl Framer {
    pub fn push(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    /// The next whole message, tag and length included.
    pub fn next(&mut self) -> Option<Vec<u8>> {
        let length = u32::from_be_bytes(self.received.get(1..HEADER_BYTES)?.try_into().unwrap()) as usize + 1;
        (self.received.len() >= length).then(|| self.received.drain(..length).collect())
    }

    /// The first message of a client, once it is whole.
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

/// What an error says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    pub severity: &'static str,
    pub sqlstate: &'static str,
    pub text: String,
}

impl Complaint {
    /// Of one that the session survives.
    pub fn error(sqlstate: &'static str) -> Self {
        Self { severity: "ERROR", sqlstate, text: format!("injected {sqlstate}") }
    }

    /// Of one that ends the session.
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

/// A statement that is none: the server really fails at it. It is prepared without a name in a flight of prepared
/// statements, and a simple query else.
pub fn failing_statement(simple: bool) -> Vec<u8> {
    const TEXT: &[u8] = b"injected";
    if simple { message(b'Q', &[TEXT, &[0]].concat()) } else { message(b'P', &[&[0], TEXT, &[0, 0, 0]].concat()) }
}

/// The client's word that it gives the COPY up.
pub fn copy_fail() -> Vec<u8> {
    message(b'f', b"injected\0")
}
