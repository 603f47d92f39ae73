//! Content codings of request bodies (RFC 9110 section 8.4), decoded as the bytes arrive and a bounded step at a time. A small
//! body that expands to a huge one costs no memory before it is refused.

use super::{ErrorCode, Refusal, gzip::Gzip};
use crate::{
    limits::{GZIP_BYTES, ZSTD_BEGIN_BYTES, ZSTD_WINDOW_LOG_MAX},
    memory::Buffer,
};

/// The coding of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// None.
    Identity,
    /// gzip (RFC 1952) of one or more members.
    Gzip,
    /// zstd (RFC 8878) of one or more frames.
    Zstd,
}

impl Coding {
    /// The coding that a `Content-Encoding` names.
    ///
    /// # Errors
    /// 415 for an unknown coding, and for several.
    pub fn of(content_encoding: Option<&str>) -> Result<Self, Refusal> {
        let Some(name) = content_encoding else { return Ok(Self::Identity) };
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if is("identity") {
            Ok(Self::Identity)
        } else if is("gzip") || is("x-gzip") {
            Ok(Self::Gzip)
        } else if is("zstd") {
            Ok(Self::Zstd)
        } else {
            Err(ErrorCode::EncodingNotSupported.into())
        }
    }
}

/// The result of one step of a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Bytes of the input that were consumed.
    pub consumed: usize,
    /// Bytes that were appended to the output. If both are zero, the decoder needs more input.
    pub produced: usize,
}

/// Most bytes that one step appends.
pub const STEP_BYTES: usize = 16 << 10;

/// Decodes a coding.
pub enum Decoder {
    /// gzip
    Gzip(Box<Gzip>),
    /// zstd
    Zstd(Zstd),
}

impl Decoder {
    /// The decoder of a coding; `None` for identity.
    ///
    /// # Errors
    /// 503 if memory is short.
    pub fn new(coding: Coding) -> Result<Option<Self>, Refusal> {
        Ok(match coding {
            Coding::Identity => None,
            Coding::Gzip => Some(Self::Gzip(Box::new(Gzip::new()))),
            Coding::Zstd => Some(Self::Zstd(Zstd::new()?)),
        })
    }

    /// Decodes some of `input`, and appends at most [`STEP_BYTES`] to `out`, which has room for them.
    ///
    /// # Errors
    /// 400 for a body of another coding or a damaged one, 413 for too large a zstd window.
    pub fn step(&mut self, input: &[u8], out: &mut Buffer) -> Result<Step, Refusal> {
        match self {
            Self::Gzip(gzip) => gzip.step(input, out),
            Self::Zstd(zstd) => zstd.step(input, out),
        }
    }

    /// Whether the input may end here.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        match self {
            Self::Gzip(gzip) => gzip.is_complete(),
            Self::Zstd(zstd) => zstd.complete,
        }
    }

    /// Bytes of memory that the decoder of a coding has when it begins, and until a step says more.
    #[must_use]
    pub const fn begin_bytes(coding: Coding) -> usize {
        match coding {
            Coding::Identity => 0,
            Coding::Gzip => size_of::<Gzip>() + GZIP_BYTES,
            Coding::Zstd => ZSTD_BEGIN_BYTES,
        }
    }

    /// Bytes of memory that it has, and that its next step uses. A zstd decoder has a window once a step came to a frame that
    /// needs one; until the next step at most a block of it is used.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        match self {
            Self::Gzip(_) => Self::begin_bytes(Coding::Gzip),
            Self::Zstd(zstd) => zstd.context.sizeof().max(ZSTD_BEGIN_BYTES),
        }
    }
}

/// 400: the body does not match `Content-Encoding`.
pub(super) fn malformed(what: &'static str) -> Refusal {
    Refusal::new(ErrorCode::MalformedEncoding, what).closing()
}

/// zstd's own decoder, with a limit on its window.
pub struct Zstd {
    context: zstd_safe::DCtx<'static>,
    /// Whether the input ended with a whole frame.
    complete: bool,
}

/// `ZSTD_error_frameParameter_windowTooLarge` of zstd_errors.h, as the library returns it.
const WINDOW_TOO_LARGE: usize = 0_usize.wrapping_sub(16);

impl Zstd {
    fn new() -> Result<Self, Refusal> {
        let no_memory = || Refusal::new(ErrorCode::Overloaded, "there is no memory for a zstd decoder");
        let mut context = zstd_safe::DCtx::try_create().ok_or_else(no_memory)?;
        context.set_parameter(zstd_safe::DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX)).map_err(|_| no_memory())?;
        Ok(Self { context, complete: false })
    }

    fn step(&mut self, input: &[u8], out: &mut Buffer) -> Result<Step, Refusal> {
        if input.is_empty() && self.complete {
            return Ok(Step { consumed: 0, produced: 0 });
        }
        let mut piece = [0_u8; STEP_BYTES];
        let mut to = zstd_safe::OutBuffer::around(&mut piece[..]);
        let mut from = zstd_safe::InBuffer::around(input);
        let left = self.context.decompress_stream(&mut to, &mut from).map_err(|code| {
            if code == WINDOW_TOO_LARGE {
                let window = 1_u64 << ZSTD_WINDOW_LOG_MAX;
                return Refusal::new(ErrorCode::BodyTooLarge, format!("its zstd window is larger than {window} bytes"))
                    .closing();
            }
            malformed("the body is not zstd, or is damaged")
        })?;
        let (consumed, produced) = (from.pos(), to.pos());
        out.append(&piece[..produced]);
        // A step without input and output does not tell where the decoder stands.
        if consumed > 0 || produced > 0 {
            self.complete = left == 0;
        }
        Ok(Step { consumed, produced })
    }
}
