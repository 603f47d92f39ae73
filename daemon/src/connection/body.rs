//! Bodies that are taken as they come: in chunks, encoded, or of lines. What has come is removed from the read buffer at once,
//! so the buffer never grows with the body. A body that nobody uses is passed over.

use super::{
    exchange::{Exchange, ReadOutcome},
    watch::Phase,
};
use crate::{
    api::Lines,
    http::{
        Body, Refusal,
        incoming::{Incoming, Next as BodyNext, Unwanted},
    },
    limits::{BODY_READ_BYTES, MEDIUM_HELD_BYTES, NDJSON_WINDOW_BYTES, UNWANTED_BODY_BYTES_MAX},
    memory::{Buffer, Turn},
    rt::Transport,
};
use std::io;

/// Up to so many bytes of a body whose length is not known are held as they come.
const DOUBLED_BYTES_MAX: usize = MEDIUM_HELD_BYTES / 5;

/// Beyond so many it takes a turn to go on, until it holds all that it may have.
const WITHOUT_TURN_BYTES_MAX: usize = DOUBLED_BYTES_MAX / 2;

/// Beyond the doubling so many are held at once: with a buffer and most decoders beside them they are a medium request. A longer body holds
/// as much as it may have.
const ONE_STEP_BYTES: usize = MEDIUM_HELD_BYTES * 4 / 5;

/// What came of a body.
pub(super) enum BodyOutcome {
    /// All of it was read.
    Whole,
    /// It is refused. `is_whole`: it was read to its end, so it is certain where the next request starts.
    Refused { refusal: Refusal, is_whole: bool },
    /// The client has left.
    Left,
}

impl BodyOutcome {
    const fn refused(refusal: Refusal) -> Self {
        Self::Refused { refusal, is_whole: false }
    }
}

/// Passes over a body that nobody uses.
pub(super) async fn pass_over<S: Transport>(
    exchange: &mut Exchange<'_, '_, S>,
    framing: Body,
) -> io::Result<BodyOutcome> {
    let mut unwanted = Unwanted::new(framing, UNWANTED_BODY_BYTES_MAX);
    loop {
        match unwanted.pass_over(&exchange.buffer) {
            Err(refusal) => return Ok(BodyOutcome::refused(refusal)),
            Ok((consumed, is_done)) => {
                exchange.buffer.remove(consumed);
                if is_done {
                    return Ok(BodyOutcome::Whole);
                }
            }
        }
        if let Some(outcome) = ended_by(exchange.read_unwanted().await?) {
            return Ok(outcome);
        }
    }
}

/// Reads a body that is needed as a whole to `body`.
pub(super) async fn take_whole<S: Transport>(
    exchange: &mut Exchange<'_, '_, S>,
    mut incoming: Incoming,
    max_body_bytes: u64,
    body: &mut Buffer,
) -> io::Result<BodyOutcome> {
    let mut turn: Option<Turn<'_>> = None;
    loop {
        let capacity = next_capacity(&incoming, exchange.buffer.len(), body, max_body_bytes);
        if capacity > WITHOUT_TURN_BYTES_MAX && body.capacity() < ONE_STEP_BYTES && turn.is_none() {
            turn = match exchange.take_turn().await {
                Ok(turn) => Some(turn),
                Err(refusal) => return Ok(BodyOutcome::refused(refusal)),
            };
        }
        if let Err(refusal) = make_room(exchange, &incoming, body, 0, capacity).await {
            return Ok(BodyOutcome::refused(refusal));
        }
        if capacity > ONE_STEP_BYTES {
            // It holds all that it may need, and waits for nobody any more.
            turn = None;
        }
        let fed = match incoming.feed(&exchange.buffer, body) {
            Ok(fed) => fed,
            Err(refusal) => return Ok(BodyOutcome::refused(refusal)),
        };
        exchange.buffer.remove(fed.consumed);
        match fed.next {
            BodyNext::Done => return Ok(BodyOutcome::Whole),
            BodyNext::Step => {}
            BodyNext::Wire => {
                if let Some(outcome) = ended_by(exchange.read_body().await?) {
                    return Ok(outcome);
                }
            }
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
    let mut window = Buffer::default();
    loop {
        let listed_bytes = lines.memory_bytes();
        let capacity = next_capacity(&incoming, exchange.buffer.len(), &window, max_line_bytes);
        if let Err(refusal) = make_room(exchange, &incoming, &mut window, listed_bytes, capacity).await {
            return Ok(BodyOutcome::refused(refusal));
        }
        let fed = match incoming.feed(&exchange.buffer, &mut window) {
            Ok(fed) => fed,
            Err(refusal) => return Ok(BodyOutcome::refused(refusal)),
        };
        exchange.buffer.remove(fed.consumed);
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
        exchange.keep(incoming.memory_bytes() + window.capacity() + lines.memory_bytes());
        match fed.next {
            BodyNext::Done => return Ok(BodyOutcome::Whole),
            BodyNext::Step => {}
            BodyNext::Wire => {
                if let Some(outcome) = ended_by(exchange.read_body().await?) {
                    return Ok(outcome);
                }
            }
        }
    }
}

/// What became of a body by a read; `None`: there is more of it.
fn ended_by(read: ReadOutcome) -> Option<BodyOutcome> {
    match read {
        ReadOutcome::More => None,
        ReadOutcome::Refused(refusal) => Some(BodyOutcome::refused(refusal)),
        ReadOutcome::End | ReadOutcome::Interrupted => Some(BodyOutcome::Left),
    }
}

/// The room that the next step needs, with `wire_bytes` at hand. It doubles, but not beyond what will be refused: a bomb should not
/// get twice as much. It is held in few steps: of those who wait for more, few keep memory from others that is of no use without it.
fn next_capacity(incoming: &Incoming, wire_bytes: usize, bytes: &Buffer, max_bytes: u64) -> usize {
    let least = bytes.len() + incoming.room_bytes(wire_bytes);
    let most = (max_bytes as usize).saturating_add(2 * BODY_READ_BYTES);
    let capacity = match bytes.capacity() {
        enough if enough >= least => enough,
        capacity => (2 * capacity).min(most).max(least),
    };
    if capacity <= DOUBLED_BYTES_MAX {
        capacity
    } else if capacity <= ONE_STEP_BYTES {
        ONE_STEP_BYTES
    } else {
        most.max(capacity)
    }
}

/// Makes room for so many bytes, and holds what the decoder has by now; `other_bytes` are held beside them.
async fn make_room<S: Transport>(
    exchange: &mut Exchange<'_, '_, S>,
    incoming: &Incoming,
    bytes: &mut Buffer,
    other_bytes: usize,
    capacity: usize,
) -> Result<(), Refusal> {
    let leave = exchange.keep_more(incoming.memory_bytes() + capacity + other_bytes).await?;
    bytes.grow_to(capacity, leave);
    Ok(())
}
