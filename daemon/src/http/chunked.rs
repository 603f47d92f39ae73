//! Chunked bodies (RFC 9112 section 7.1), decoded as they arrive.

use super::{MAX_CHUNK_EXTENSION_BYTES, MAX_TRAILER_BYTES, Refusal, sink::Sink};

/// Hexadecimal digits of a `u64`.
const MAX_SIZE_DIGITS: u8 = 16;

/// Decodes one body, however its bytes are split. It is strict: a size is hexadecimal digits and nothing else, a line ends with
/// CR LF, and white space after a size must be followed by an extension (RFC 9112 section 7.1.1). Extensions and the trailer are
/// checked, bounded and ignored.
///
/// A decoder is not used after an error or the end.
#[derive(Debug, Clone)]
pub struct Decoder {
    state: State,
    /// Of the current chunk: first its size as far as the digits are read, then the bytes that are still to come.
    chunk_bytes: u64,
    size_digits: u8,
    body_bytes: u64,
    max_body_bytes: u64,
    extension_bytes: usize,
    trailer_bytes: usize,
}

/// The result of one call of [`Decoder::feed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the input that belong to this body: all, unless it ended.
    pub consumed: usize,
    /// Whether the body is complete. The next request follows it.
    pub is_done: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    /// In the white space before an extension.
    BeforeExtension,
    Extension,
    /// After the CR of a size's line.
    SizeLineFeed,
    Data,
    /// After a chunk's data.
    DataReturn,
    DataLineFeed,
    /// At the start of a line after the last chunk.
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLineFeed,
    /// After the CR of the empty line.
    LastLineFeed,
    Done,
}

impl Decoder {
    /// A decoder for a body of at most `max_body_bytes`. Chunk sizes do not count.
    #[must_use]
    pub fn new(max_body_bytes: u64) -> Self {
        Self {
            state: State::Size,
            chunk_bytes: 0,
            size_digits: 0,
            body_bytes: 0,
            max_body_bytes,
            extension_bytes: 0,
            trailer_bytes: 0,
        }
    }

    /// Bytes of all chunks so far, including the one that was announced last.
    #[must_use]
    pub fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// Decodes `input`, and appends the body's content to `out`.
    ///
    /// # Errors
    /// 400 for an invalid chunk, extension or trailer, and for too long ones; 413 as soon as a size announces too large a body.
    /// Both close the connection. `out` may then hold a part of the body.
    pub fn feed(&mut self, input: &[u8], out: &mut impl Sink) -> Result<Progress, Refusal> {
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            if self.state == State::Data {
                let rest = &input[at..];
                let taken = rest.len().min(usize::try_from(self.chunk_bytes).unwrap_or(usize::MAX));
                out.append(&rest[..taken]);
                at += taken;
                self.chunk_bytes -= taken as u64;
                if self.chunk_bytes == 0 {
                    self.state = State::DataReturn;
                }
            } else {
                self.state = self.step(input[at])?;
                at += 1;
            }
        }
        Ok(Progress { consumed: at, is_done: self.state == State::Done })
    }

    fn step(&mut self, byte: u8) -> Result<State, Refusal> {
        match self.state {
            State::Size => self.size_byte(byte),
            State::BeforeExtension => self.white_space_byte(byte),
            State::Extension => self.extension_byte(byte),
            State::SizeLineFeed if byte == b'\n' => self.start_chunk(),
            State::DataReturn if byte == b'\r' => Ok(State::DataLineFeed),
            State::DataLineFeed if byte == b'\n' => {
                self.size_digits = 0;
                Ok(State::Size)
            }
            State::TrailerStart | State::TrailerName | State::TrailerValue => self.trailer_byte(byte),
            State::TrailerLineFeed if byte == b'\n' => Ok(State::TrailerStart),
            State::LastLineFeed if byte == b'\n' => Ok(State::Done),
            // `feed` calls this neither in data nor after the end.
            State::Data | State::Done => Ok(self.state),
            State::DataReturn | State::DataLineFeed => {
                Err(Refusal::malformed("a chunk's data must be as long as its size says and end with CR LF"))
            }
            State::SizeLineFeed | State::TrailerLineFeed | State::LastLineFeed => {
                Err(Refusal::malformed("a line of a chunked body must end with CR LF"))
            }
        }
    }

    fn size_byte(&mut self, byte: u8) -> Result<State, Refusal> {
        if let Some(digit) = char::from(byte).to_digit(16) {
            if self.size_digits == MAX_SIZE_DIGITS {
                return Err(Refusal::malformed("a chunk's size has more than 16 digits"));
            }
            // Sixteen digits fit into 64 bits.
            self.chunk_bytes = self.chunk_bytes << 4 | u64::from(digit);
            self.size_digits += 1;
            return Ok(State::Size);
        }
        match byte {
            b'\r' if self.size_digits > 0 => Ok(State::SizeLineFeed),
            b';' | b' ' | b'\t' if self.size_digits > 0 => self.white_space_byte(byte),
            _ => Err(Refusal::malformed("a chunk's size must be hexadecimal digits")),
        }
    }

    fn white_space_byte(&mut self, byte: u8) -> Result<State, Refusal> {
        match byte {
            b';' => self.extension_byte(byte),
            b' ' | b'\t' => self.extension_byte(byte).map(|_| State::BeforeExtension),
            _ => Err(Refusal::malformed("a chunk's size must be hexadecimal digits")),
        }
    }

    fn extension_byte(&mut self, byte: u8) -> Result<State, Refusal> {
        self.extension_bytes += 1;
        match byte {
            b'\r' => Ok(State::SizeLineFeed),
            _ if is_control(byte) => Err(Refusal::malformed("a control character in a chunk's extension")),
            _ if self.extension_bytes > MAX_CHUNK_EXTENSION_BYTES => {
                Err(Refusal::malformed("the chunks' extensions are too long"))
            }
            _ => Ok(State::Extension),
        }
    }

    fn start_chunk(&mut self) -> Result<State, Refusal> {
        if self.chunk_bytes == 0 {
            return Ok(State::TrailerStart);
        }
        self.body_bytes = self
            .body_bytes
            .checked_add(self.chunk_bytes)
            .filter(|total| *total <= self.max_body_bytes)
            .ok_or_else(|| Refusal::body_too_large(self.max_body_bytes))?;
        Ok(State::Data)
    }

    fn trailer_byte(&mut self, byte: u8) -> Result<State, Refusal> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > MAX_TRAILER_BYTES {
            return Err(Refusal::malformed("the trailer is too long"));
        }
        match (self.state, byte) {
            (State::TrailerStart, b'\r') => Ok(State::LastLineFeed),
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerStart | State::TrailerName, _) if is_token(byte) => Ok(State::TrailerName),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLineFeed),
            (State::TrailerValue, _) if !is_control(byte) => Ok(State::TrailerValue),
            _ => Err(Refusal::malformed("the trailer has a line that is not a header")),
        }
    }
}

/// Whether a byte is a control character other than the tab.
fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}

/// Whether a byte may stand in a header's name (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
