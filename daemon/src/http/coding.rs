//! Content codings of request bodies (RFC 9110 section 8.4), undone as the bytes come and never more than is asked for: a
//! small body that becomes a huge one costs no memory before it is refused.

use super::{ErrorCode, Refusal, gzip::Gzip};
use crate::limits::ZSTD_WINDOW_LOG_MAX;

/// What a body is encoded with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// Nothing.
    Identity,
    /// gzip (RFC 1952), of one member or several.
    Gzip,
    /// zstd (RFC 8878), of one frame or several.
    Zstd,
}

impl Coding {
    /// What a `Content-Encoding` says.
    ///
    /// # Errors
    /// 415 for one that is not known, and for several.
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

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Bytes of the input that were taken.
    pub consumed: usize,
    /// Bytes that were appended to the output. Less than the room that there was: there is no more to be had from this input.
    pub produced: usize,
}

/// Bytes that one step appends at most.
pub const STEP_BYTES: usize = 16 << 10;

/// Undoes a coding.
pub enum Decoder {
    /// gzip
    Gzip(Box<Gzip>),
    /// zstd
    Zstd(Zstd),
}

impl Decoder {
    /// For a coding; `None` for identity.
    ///
    /// # Errors
    /// 503 where there is no memory.
    pub fn new(coding: Coding) -> Result<Option<Self>, Refusal> {
        Ok(match coding {
            Coding::Identity => None,
            Coding::Gzip => Some(Self::Gzip(Box::new(Gzip::new()))),
            Coding::Zstd => Some(Self::Zstd(Zstd::new()?)),
        })
    }

    /// Goes on with `input`, and appends at most [`STEP_BYTES`] to `out`.
    ///
    /// # Errors
    /// 400 for what is not that coding, 413 for a zstd window that is too large.
    pub fn step(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Step, Refusal> {
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

    /// Bytes of memory that it has.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        match self {
            Self::Gzip(_) => size_of::<Gzip>() + (48 << 10),
            Self::Zstd(zstd) => zstd.context.sizeof(),
        }
    }
}

/// 400: the bytes are not what `Content-Encoding` says.
pub(super) fn malformed(what: &'static str) -> Refusal {
    Refusal::new(ErrorCode::MalformedEncoding, what).closing()
}

/// zstd's own decoder, with a bound on its window.
pub struct Zstd {
    context: zstd_safe::DCtx<'static>,
    /// At the end of a frame, and there was one.
    complete: bool,
}

/// `ZSTD_error_frameParameter_windowTooLarge` of zstd_errors.h, as the library returns it.
const WINDOW_TOO_LARGE: usize = 0_usize.wrapping_sub(16);

impl Zstd {
    fn new() -> Result<Self, Refusal> {
        let no_memory = || Refusal::new(ErrorCode::Overloaded, "there is no memory to decode zstd");
        let mut context = zstd_safe::DCtx::try_create().ok_or_else(no_memory)?;
        context.set_parameter(zstd_safe::DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX)).map_err(|_| no_memory())?;
        Ok(Self { context, complete: false })
    }

    fn step(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Step, Refusal> {
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
            malformed("the body is not zstd, or damaged")
        })?;
        let (consumed, produced) = (from.pos(), to.pos());
        out.extend_from_slice(&piece[..produced]);
        // Nothing in and nothing out says nothing about where it stands.
        if consumed > 0 || produced > 0 {
            self.complete = left == 0;
        }
        Ok(Step { consumed, produced })
    }
}
