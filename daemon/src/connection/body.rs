//! Bodies that are taken as they come: in chunks, encoded, or of lines. What has come is removed from the read buffer at once,
//! so the buffer never grows with the body.

use super::{
    exchange::{Exchange, ReadOutcome},
    watch::Phase,
};
use crate::{
    api::Lines,
    http::{
        Refusal,
        incoming::{Incoming, Next as BodyNext},
    },
    limits::{BODY_READ_BYTES, NDJSON_WINDOW_BYTES},
    rt::Transport,
};
use std::io;

/// What came of a body.
pub(super) enum BodyOutcome {
    /// All of it was read.
    Whole,
    /// It is refused. `is_whole`: it was read to its end, so it is certain where the next request starts.
    Refused { refusal: Refusal, is_whole: bool },
    /// The client has left.
    Left,
}

/// Reads a body that is needed as a whole to `body`.
pub(super) async fn take_whole<S: Transport>(
    exchange: &mut Exchange<'_, '_, S>,
    mut incoming: Incoming,
    max_body_bytes: u64,
    body: &mut Vec<u8>,
) -> io::Result<BodyOutcome> {
    loop {
        make_room(body, max_body_bytes);
        let fed = match incoming.feed(&exchange.buffer, body, BODY_READ_BYTES) {
            Ok(fed) => fed,
            Err(refusal) => return Ok(BodyOutcome::Refused { refusal, is_whole: false }),
        };
        exchange.remove(fed.consumed);
        match fed.next {
            BodyNext::Done => return Ok(BodyOutcome::Whole),
            BodyNext::Step if body.capacity() <= 2 * BODY_READ_BYTES => {}
            BodyNext::Step => {
                if let Err(refusal) = exchange.hold(exchange.buffer.capacity() + body.capacity()).await {
                    return Ok(BodyOutcome::Refused { refusal, is_whole: false });
                }
            }
            BodyNext::Wire => match read_more(exchange, body.capacity() + incoming.memory_bytes()).await? {
                None => {}
                Some(outcome) => return Ok(outcome),
            },
        }
    }
}

/// Reads a body of lines. The lines at hand are appended to the log before more is read.
pub(super) async fn take_lines<S: Transport>(
    exchange: &mut Exchange<'_, '_, S>,
    mut incoming: Incoming,
    max_line_bytes: u64,
    lines: &mut Lines<'_, '_>,
) -> io::Result<BodyOutcome> {
    let mut window = Vec::new();
    loop {
        make_room(&mut window, max_line_bytes);
        let fed = match incoming.feed(&exchange.buffer, &mut window, BODY_READ_BYTES) {
            Ok(fed) => fed,
            Err(refusal) => return Ok(BodyOutcome::Refused { refusal, is_whole: false }),
        };
        exchange.remove(fed.consumed);
        if fed.next == BodyNext::Step && window.len() < NDJSON_WINDOW_BYTES {
            continue;
        }
        let paused_ms = exchange.now_ms();
        exchange.watch().go_on(Phase::Busy);
        let is_whole = fed.next == BodyNext::Done;
        if let Err(refusal) = lines.take(&mut window, is_whole).await {
            return Ok(BodyOutcome::Refused { refusal, is_whole });
        }
        exchange.go_on_with_body(paused_ms);
        match fed.next {
            BodyNext::Done => return Ok(BodyOutcome::Whole),
            BodyNext::Step => {}
            BodyNext::Wire => match read_more(exchange, window.capacity() + incoming.memory_bytes()).await? {
                None => {}
                Some(outcome) => return Ok(outcome),
            },
        }
    }
}

/// Reads more of a body; `other_bytes` are held beside the buffer. `None`: there is more; otherwise what became of the body.
async fn read_more<S: Transport>(
    exchange: &mut Exchange<'_, '_, S>,
    other_bytes: usize,
) -> io::Result<Option<BodyOutcome>> {
    Ok(match exchange.read_body(other_bytes).await? {
        ReadOutcome::More => None,
        ReadOutcome::Refused(refusal) => Some(BodyOutcome::Refused { refusal, is_whole: false }),
        ReadOutcome::End | ReadOutcome::Interrupted => Some(BodyOutcome::Left),
    })
}

/// Makes room for what a step brings. The room doubles, but not beyond what will be refused: a bomb should not get twice as
/// much.
fn make_room(bytes: &mut Vec<u8>, max_bytes: u64) {
    let least = bytes.len() + BODY_READ_BYTES;
    if bytes.capacity() < least {
        let most = (max_bytes as usize).saturating_add(2 * BODY_READ_BYTES);
        let wanted = (2 * bytes.capacity()).min(most).max(least);
        bytes.reserve_exact(wanted - bytes.len());
    }
}
