//! A body that is decoded as it arrives: first its framing, then its coding. Its size is bounded, and so is the memory that it
//! takes: nothing here grows but by leave.

use super::{
    Body, ErrorCode, Refusal, chunked,
    coding::{Coding, Decoder, STEP_BYTES},
    sink::{Discard, Sink},
};
use crate::{
    limits::{EXPANSION_FREE_BYTES, EXPANSION_MAX},
    memory::{Buffer, Grow},
};

/// Bytes of the wire that are unframed at once before they are decoded.
const PIECE_BYTES: usize = 16 << 10;

/// A body that is arriving.
pub struct Incoming {
    framing: Framing,
    decoder: Option<Decoder>,
    /// Unframed bytes for the decoder, and how many of them it has consumed.
    coded: Vec<u8>,
    coded_at: usize,
    wire_is_done: bool,
    in_bytes: u64,
    out_bytes: u64,
    bound: Bound,
}

/// The limit of a body's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// This many bytes.
    Bytes(u64),
    /// Any size. Beyond [`EXPANSION_FREE_BYTES`] it may expand by [`EXPANSION_MAX`] at most.
    Expansion,
}

enum Framing {
    Length(u64),
    Chunks(chunked::Decoder),
}

/// The result of one call of [`Incoming::feed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fed {
    /// Bytes of the wire that were consumed.
    pub consumed: usize,
    /// What comes next.
    pub next: Next,
}

/// What an arriving body needs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// More bytes from the wire.
    Wire,
    /// Another call: the bytes at hand have more content.
    Step,
    /// Nothing: the body is complete.
    Done,
}

impl Incoming {
    /// A body with this framing and coding. `leave` is for [`begin_bytes`](Self::begin_bytes) beside what there is.
    ///
    /// # Errors
    /// 503 if memory is short.
    pub fn new(framing: Body, coding: Coding, bound: Bound, leave: Grow) -> Result<Self, Refusal> {
        assert!(leave.total_bytes() >= Self::begin_bytes(coding), "the leave is for less");
        let max_bytes = match bound {
            Bound::Bytes(max) => max,
            Bound::Expansion => u64::MAX,
        };
        let decoder = Decoder::new(coding)?;
        Ok(Self {
            framing: Framing::new(framing, max_bytes),
            coded: Vec::with_capacity(decoder.as_ref().map_or(0, |_| PIECE_BYTES)),
            decoder,
            coded_at: 0,
            wire_is_done: false,
            in_bytes: 0,
            out_bytes: 0,
            bound,
        })
    }

    /// Bytes of memory that a body of this coding has when it begins.
    #[must_use]
    pub const fn begin_bytes(coding: Coding) -> usize {
        match coding {
            Coding::Identity => 0,
            Coding::Gzip | Coding::Zstd => PIECE_BYTES + Decoder::begin_bytes(coding),
        }
    }

    /// Bytes of memory that it has, and that its next step uses.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.coded.capacity() + self.decoder.as_ref().map_or(0, Decoder::memory_bytes)
    }

    /// Room that [`feed`](Self::feed) needs for so many bytes of the wire.
    #[must_use]
    pub fn room_bytes(&self, wire_bytes: usize) -> usize {
        if self.decoder.is_some() { STEP_BYTES } else { wire_bytes.min(PIECE_BYTES) }
    }

    /// Decodes some of `wire`, and appends the body's content to `out`: as much as there is room for, or one step of the
    /// decoder.
    ///
    /// # Errors
    /// 400 if the bytes do not match the announced framing or coding, 413 if the body becomes too large.
    ///
    /// # Panics
    /// If `out` has less room than [`room_bytes`](Self::room_bytes).
    pub fn feed(&mut self, wire: &[u8], out: &mut Buffer) -> Result<Fed, Refusal> {
        let (before, room) = (out.len(), out.room());
        assert!(room >= self.room_bytes(wire.len()), "room is made before a step");
        let fed = if self.decoder.is_some() { self.decode(wire, out) } else { self.copy(wire, out, room) }?;
        self.out_bytes += (out.len() - before) as u64;
        match self.bound {
            Bound::Bytes(max) if self.out_bytes > max => Err(Refusal::body_too_large(max)),
            Bound::Expansion
                if self.decoder.is_some()
                    && self.out_bytes > EXPANSION_FREE_BYTES + EXPANSION_MAX.saturating_mul(self.in_bytes) =>
            {
                let what = format!("the body expands by more than a factor of {EXPANSION_MAX}");
                Err(Refusal::new(ErrorCode::BodyTooLarge, what).closing())
            }
            _ => Ok(fed),
        }
    }

    fn copy(&mut self, wire: &[u8], out: &mut Buffer, room: usize) -> Result<Fed, Refusal> {
        let (consumed, is_done) = self.framing.take(&wire[..wire.len().min(room)], out)?;
        let next = match (is_done, consumed < wire.len()) {
            (true, _) => Next::Done,
            (false, true) => Next::Step,
            (false, false) => Next::Wire,
        };
        Ok(Fed { consumed, next })
    }

    fn decode(&mut self, wire: &[u8], out: &mut Buffer) -> Result<Fed, Refusal> {
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
            return Err(super::coding::malformed("the body ends in the middle of its encoding"));
        };
        Ok(Fed { consumed, next })
    }
}

/// A body that nobody uses: it is passed over as it arrives, whatever its coding.
pub struct Unwanted(Framing);

impl Unwanted {
    /// A body with this framing, which may have so many bytes.
    #[must_use]
    pub fn new(framing: Body, max_bytes: u64) -> Self {
        Self(Framing::new(framing, max_bytes))
    }

    /// Passes over what of `wire` belongs to the body. Returns how many bytes that are, and whether the body is complete.
    ///
    /// # Errors
    /// 400 if the bytes do not match the announced framing, 413 if the body becomes too large.
    pub fn pass_over(&mut self, wire: &[u8]) -> Result<(usize, bool), Refusal> {
        self.0.take(wire, &mut Discard)
    }
}

impl Framing {
    /// A chunk's size announces too large a body before the chunk arrives.
    fn new(framing: Body, max_bytes: u64) -> Self {
        match framing {
            Body::None => Self::Length(0),
            Body::Length(bytes) => Self::Length(bytes),
            Body::Chunked => Self::Chunks(chunked::Decoder::new(max_bytes)),
        }
    }

    /// Appends the content of the body's bytes in `wire` to `out`. Returns how many bytes belong to the body, and whether it is
    /// complete.
    fn take(&mut self, wire: &[u8], out: &mut impl Sink) -> Result<(usize, bool), Refusal> {
        match self {
            Self::Length(left) => {
                let taken = wire.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                out.append(&wire[..taken]);
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
