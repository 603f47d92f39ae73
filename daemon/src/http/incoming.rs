//! A body that is taken as it comes: its framing and its coding undone, with what they make bounded.

use super::{
    Body, ErrorCode, Refusal, chunked,
    coding::{Coding, Decoder},
};
use crate::limits::{EXPANSION_FREE_BYTES, EXPANSION_MAX};

/// Bytes of the wire that are taken apart at once where they are chunks of something encoded.
const PIECE_BYTES: usize = 16 << 10;

/// A body on its way.
pub struct Incoming {
    framing: Framing,
    decoder: Option<Decoder>,
    /// Bytes without their framing that the decoder has not had yet, and how many of them it had.
    coded: Vec<u8>,
    coded_at: usize,
    wire_is_done: bool,
    in_bytes: u64,
    out_bytes: u64,
    bound: Bound,
}

/// How large a body may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// So many bytes.
    Bytes(u64),
    /// Any size, but [`EXPANSION_MAX`] times as large as it came at most, beyond [`EXPANSION_FREE_BYTES`].
    Expansion,
}

enum Framing {
    Length(u64),
    Chunks(chunked::Decoder),
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fed {
    /// Bytes of the wire that were taken.
    pub consumed: usize,
    /// What is next.
    pub next: Next,
}

/// What a body that is on its way needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// More from the wire.
    Wire,
    /// Another step: there is more to be had from what is at hand.
    Step,
    /// Nothing: it is complete.
    Done,
}

impl Incoming {
    /// A body with this framing and coding.
    ///
    /// # Errors
    /// 503 where there is no memory.
    pub fn new(framing: Body, coding: Coding, bound: Bound) -> Result<Self, Refusal> {
        let framing = match framing {
            Body::None => Framing::Length(0),
            Body::Length(bytes) => Framing::Length(bytes),
            // A chunk's size says before the chunk that it will be too much.
            Body::Chunked => Framing::Chunks(chunked::Decoder::new(match bound {
                Bound::Bytes(max) => max,
                Bound::Expansion => u64::MAX,
            })),
        };
        Ok(Self {
            framing,
            decoder: Decoder::new(coding)?,
            coded: Vec::new(),
            coded_at: 0,
            wire_is_done: false,
            in_bytes: 0,
            out_bytes: 0,
            bound,
        })
    }

    /// Bytes of memory that it has.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.coded.capacity() + self.decoder.as_ref().map_or(0, Decoder::memory_bytes)
    }

    /// Takes from `wire`, and appends to `out` what of it is the body's content: at most `room` bytes, or one step of the
    /// decoder.
    ///
    /// # Errors
    /// 400 for what is not the framing or the coding that was announced, 413 for a body that becomes too large.
    pub fn feed(&mut self, wire: &[u8], out: &mut Vec<u8>, room: usize) -> Result<Fed, Refusal> {
        let before = out.len();
        let fed = if self.decoder.is_some() { self.decode(wire, out) } else { self.copy(wire, out, room) }?;
        self.out_bytes += (out.len() - before) as u64;
        match self.bound {
            Bound::Bytes(max) if self.out_bytes > max => Err(Refusal::body_too_large(max)),
            Bound::Expansion
                if self.decoder.is_some()
                    && self.out_bytes > EXPANSION_FREE_BYTES + EXPANSION_MAX.saturating_mul(self.in_bytes) =>
            {
                let what = format!("the body becomes more than {EXPANSION_MAX} times as large as it came");
                Err(Refusal::new(ErrorCode::BodyTooLarge, what).closing())
            }
            _ => Ok(fed),
        }
    }

    fn copy(&mut self, wire: &[u8], out: &mut Vec<u8>, room: usize) -> Result<Fed, Refusal> {
        let (consumed, is_done) = self.framing.take(&wire[..wire.len().min(room)], out)?;
        let next = match (is_done, consumed < wire.len()) {
            (true, _) => Next::Done,
            (false, true) => Next::Step,
            (false, false) => Next::Wire,
        };
        Ok(Fed { consumed, next })
    }

    fn decode(&mut self, wire: &[u8], out: &mut Vec<u8>) -> Result<Fed, Refusal> {
        let mut consumed = 0;
        if self.coded_at == self.coded.len() && !self.wire_is_done {
            self.coded.clear();
            self.coded_at = 0;
            let piece = &wire[..wire.len().min(PIECE_BYTES)];
            (consumed, self.wire_is_done) = self.framing.take(piece, &mut self.coded)?;
            self.in_bytes += self.coded.len() as u64;
        }
        let Some(decoder) = &mut self.decoder else { return Ok(Fed { consumed, next: Next::Done }) };
        let step = decoder.step(&self.coded[self.coded_at..], out)?;
        self.coded_at += step.consumed;
        let has_moved = step.consumed > 0 || step.produced > 0;
        let next = if has_moved || consumed < wire.len() && !self.wire_is_done {
            Next::Step
        } else if !self.wire_is_done {
            Next::Wire
        } else if decoder.is_complete() && self.coded_at == self.coded.len() {
            Next::Done
        } else {
            return Err(super::coding::malformed("the body ends before what it encodes does"));
        };
        Ok(Fed { consumed, next })
    }
}

impl Framing {
    /// Takes from `wire` what belongs to the body, and appends its content to `out`. Returns how much it took, and whether the
    /// body is complete.
    fn take(&mut self, wire: &[u8], out: &mut Vec<u8>) -> Result<(usize, bool), Refusal> {
        match self {
            Self::Length(left) => {
                let taken = wire.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                out.extend_from_slice(&wire[..taken]);
                *left -= taken as u64;
                Ok((taken, *left == 0))
            }
            Self::Chunks(decoder) => {
                let progress = decoder.feed(wire, out)?;
                Ok((progress.consumed, progress.is_done))
            }
        }
    }
}
