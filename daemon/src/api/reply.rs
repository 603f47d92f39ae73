//! A reply: ready, or a push that waits for the disk, or for PostgreSQL.

use super::{Answer, pushed::Pushed};
use crate::{
    access::cors,
    core::{Asked, Core},
    http::{
        Manner, Refusal,
        response::{JSON, write_response},
    },
};
use smallvec::SmallVec;
use std::rc::Rc;

/// What a request is answered with.
pub enum Reply<'a> {
    /// Known already.
    Ready {
        /// Status.
        status: u16,
        /// `Allow`, for OPTIONS.
        allow: Option<&'static str>,
        /// JSON, or nothing.
        body: Vec<u8>,
    },
    /// Refused.
    Refused(Refusal),
    /// An errand to PostgreSQL is under way.
    Asked(Rc<Asked>),
    /// Messages were appended to the log.
    Pushed(Pushed<'a>),
}

/// An answer that was written before it may leave.
#[derive(Clone, Copy, Debug)]
pub struct Ahead {
    /// It may leave when the lane is durable up to here.
    pub end_ordinal: u64,
    /// Whether the connection must be closed after it.
    pub closes: bool,
}

impl<'a> Reply<'a> {
    /// A refusal.
    #[must_use]
    pub fn refused(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }

    /// JSON.
    #[must_use]
    pub fn json(status: u16, mut body: Vec<u8>) -> Self {
        body.push(b'\n');
        Self::Ready { status, allow: None, body }
    }

    /// The answer to OPTIONS.
    #[must_use]
    pub fn allow(methods: &'static str) -> Self {
        Self::Ready { status: 204, allow: Some(methods), body: Vec::new() }
    }

    /// Writes the answer to `out`, if it stands on nothing that is still to come but the disk.
    pub fn write_ahead(&self, core: &Core, manner: Manner, out: &mut Vec<u8>) -> Option<Ahead> {
        match self {
            Self::Ready { status, allow, body } => {
                write_ready(core, *status, *allow, body, manner, out);
                Some(Ahead { end_ordinal: 0, closes: false })
            }
            Self::Refused(refusal) => {
                Some(Ahead { end_ordinal: 0, closes: write_refusal(core, refusal, None, manner, out) })
            }
            Self::Pushed(pushed) => pushed.is_known_ahead().then(|| {
                pushed.write(core, false, manner, out);
                Ahead { end_ordinal: pushed.end_ordinal, closes: false }
            }),
            Self::Asked(_) => None,
        }
    }

    /// Waits for what the reply stands on, and writes it to `out`. Returns whether the connection must be closed after it.
    pub async fn finish(self, core: &Core, manner: Manner, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Asked(asked) => match asked.wait().await {
                Answer::Done(mut body) => {
                    body.push(b'\n');
                    write_answer(core, 200, None, &body, manner, out);
                    false
                }
                Answer::Refused(refusal) => write_refusal(core, &refusal, None, manner, out),
            },
            Self::Pushed(pushed) => pushed.finish(core, manner, out).await,
            known => known.write_ahead(core, manner, out).is_some_and(|ahead| ahead.closes),
        }
    }
}

fn write_ready(core: &Core, status: u16, allow: Option<&'static str>, body: &[u8], manner: Manner, out: &mut Vec<u8>) {
    // What a browser asks before it lets a page ask.
    let preflight = (allow.is_some() && manner.allow_origin.is_some()).then_some(cors::PREFLIGHT);
    let allow = allow.map(|methods| ("Allow", methods)).into_iter();
    write_answer(core, status, allow.chain(preflight.into_iter().flatten()), body, manner, out);
}

/// Headers of an answer, few enough to need no memory of their own.
type Headers<'a> = SmallVec<[(&'a str, &'a str); 6]>;

/// Writes an answer with `Date`, and how full the log is where it is a 2xx.
pub(super) fn write_answer(
    core: &Core,
    status: u16,
    more: impl IntoIterator<Item = (&'static str, &'static str)>,
    body: &[u8],
    manner: Manner,
    out: &mut Vec<u8>,
) {
    let date = core.date();
    let fill = fill_text(core.fill());
    let mut headers: Headers<'_> = SmallVec::new();
    for header in more {
        headers.push(header);
    }
    if (200..300).contains(&status) {
        headers.push(("Forebay-Buffer-Fill", std::str::from_utf8(&fill).unwrap_or_default()));
    }
    headers.push(("Date", std::str::from_utf8(&date).unwrap_or_default()));
    headers.extend(manner.headers());
    write_response(out, status, &headers, JSON, body, manner.keep_alive, manner.head_only);
}

/// Writes a refusal. Returns whether the connection must be closed after it.
pub fn write_refusal(core: &Core, refusal: &Refusal, accepted: Option<u64>, manner: Manner, out: &mut Vec<u8>) -> bool {
    let date = core.date();
    let mut headers: Headers<'_> = SmallVec::new();
    headers.push(("Date", std::str::from_utf8(&date).unwrap_or_default()));
    headers.extend(manner.headers());
    refusal.write_to(out, accepted, &headers, manner.keep_alive, manner.head_only);
    refusal.close
}

/// A share as `0.00` to `1.00`.
fn fill_text(fill: f64) -> [u8; 4] {
    let hundredths = (fill.clamp(0.0, 1.0) * 100.0).round() as u8;
    [b'0' + hundredths / 100, b'.', b'0' + hundredths / 10 % 10, b'0' + hundredths % 10]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fill_has_two_decimals() {
        for (fill, text) in
            [(0.0, b"0.00"), (0.126, b"0.13"), (0.994, b"0.99"), (0.996, b"1.00"), (1.0, b"1.00"), (7.0, b"1.00")]
        {
            assert_eq!(&fill_text(fill), text);
        }
    }
}
