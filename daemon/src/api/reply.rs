//! A reply: ready, or a push that waits for the disk, or for PostgreSQL.

use super::{Answer, pushed::Pushed};
use crate::{
    http::{
        Manner, Methods, Refusal, cors,
        response::{GUARDS, JSON, Response},
    },
    ingest::{Asked, Core},
};
use std::rc::Rc;

/// What a request is answered with.
pub enum Reply<'a> {
    /// Known already.
    Ready {
        /// Status.
        status: u16,
        /// `Allow`, for OPTIONS.
        allow: Option<Methods>,
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
    pub fn allow(methods: Methods) -> Self {
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
                    write_answer(core, 200, GUARDS, &body, manner, out);
                    false
                }
                Answer::Refused(refusal) => write_refusal(core, &refusal, None, manner, out),
            },
            Self::Pushed(pushed) => pushed.finish(core, manner, out).await,
            known => known.write_ahead(core, manner, out).is_some_and(|ahead| ahead.closes),
        }
    }
}

fn write_ready(core: &Core, status: u16, allow: Option<Methods>, body: &[u8], manner: Manner, out: &mut Vec<u8>) {
    // What a browser asks before it lets a page ask.
    let preflight = if manner.allow_origin.is_some() { cors::PREFLIGHT } else { "" };
    let lines = allow.map(|methods| format!("Allow: {methods}\r\n{preflight}"));
    write_answer(core, status, lines.as_ref().map_or(GUARDS, |lines| lines.as_bytes()), body, manner, out);
}

/// Writes an answer with these header lines, `Date`, and how full the log is where it is a 2xx.
pub(super) fn write_answer(core: &Core, status: u16, lines: &[u8], body: &[u8], manner: Manner, out: &mut Vec<u8>) {
    let mut response = Response::start(out, status, JSON, body);
    response.lines(lines);
    if (200..300).contains(&status) {
        response.lines(&fill_line(core.fill_percent()));
    }
    response.lines(&core.date_line());
    manner.headers().for_each(|(name, value)| response.header(name, value));
    response.end(manner.keep_alive, manner.head_only);
}

/// Writes a refusal. Returns whether the connection must be closed after it.
pub fn write_refusal(core: &Core, refusal: &Refusal, accepted: Option<u64>, manner: Manner, out: &mut Vec<u8>) -> bool {
    refusal.write_to(out, accepted, &core.date_line(), manner);
    refusal.close
}

/// How full the log is, in hundredths, as a share of `0.00` to `1.00`.
fn fill_line(percent: u8) -> [u8; 27] {
    let mut line = *b"Forebay-Buffer-Fill: 0.00\r\n";
    let [.., ones, _, tenths, hundredths, _, _] = &mut line;
    (*ones, *tenths, *hundredths) = (b'0' + percent / 100, b'0' + percent / 10 % 10, b'0' + percent % 10);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fill_has_two_decimals() {
        for (percent, text) in [(0, "0.00"), (7, "0.07"), (13, "0.13"), (99, "0.99"), (100, "1.00")] {
            assert_eq!(fill_line(percent), format!("Forebay-Buffer-Fill: {text}\r\n").as_bytes());
        }
    }
}
