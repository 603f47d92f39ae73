//! One connection: reads requests, answers them in order; all complete requests at hand are taken in one pass and
//! answered with one write.

use super::Core;
use crate::{
    api::{self, Reply},
    http::{Body, Head, Limits, Manner, Method, Parsed, Refusal, chunked::Decoder, request, response::CONTINUE},
    limits::{PIPELINED_MAX, READ_BUFFER_BYTES, READ_BUFFER_KEPT_BYTES, READ_ROOM_BYTES},
    rt::{self, Stopper},
};
use monoio::{
    io::{AsyncWriteRent, AsyncWriteRentExt},
    net::TcpStream,
};
use std::{cell::Cell, io, rc::Rc};

/// A chunked body that is still coming.
struct Chunks {
    decoder: Decoder,
    body: Vec<u8>,
    /// Bytes behind the head that the decoder has had.
    fed: usize,
    done: bool,
}

/// What a pass over the buffer came to.
struct Pass {
    /// Bytes of it that are dealt with.
    consumed: usize,
    /// Bytes that the buffer must hold for the next request to be complete, as far as that is known.
    needed: usize,
    /// The client waits for a word before it sends the body.
    send_continue: bool,
    /// More complete requests may stand in the buffer.
    again: bool,
    close: bool,
}

pub(super) async fn serve(core: Rc<Core>, mut stream: TcpStream, id: u64) {
    let idle = core.registry.add(id, Stopper::new(&stream));
    // Declared after the stream, so removed before it: the entry must not outlive the descriptor.
    let _removed = Removed { core: &core, id };
    match rt::catch_panic(converse(&core, &mut stream, &idle)).await {
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::debug!(%error, "a connection ended"),
        None => tracing::error!(code = "connection_panicked", "a connection was given up after a panic"),
    }
}

struct Removed<'a> {
    core: &'a Core,
    id: u64,
}

impl Drop for Removed<'_> {
    fn drop(&mut self) {
        self.core.registry.remove(self.id);
        self.core.end_if_done();
    }
}

async fn converse(core: &Core, stream: &mut TcpStream, idle: &Cell<bool>) -> io::Result<()> {
    let mut buffer: Vec<u8> = Vec::with_capacity(READ_BUFFER_BYTES);
    let mut out: Vec<u8> = Vec::new();
    let mut chunks: Option<Chunks> = None;
    let (mut continue_sent, mut admitted) = (false, false);
    loop {
        let pass = take_requests(core, &buffer, &mut admitted, &mut chunks, &mut out).await;
        if pass.consumed > 0 {
            buffer.drain(..pass.consumed);
            continue_sent = false;
        }
        if pass.send_continue && !continue_sent {
            out.extend_from_slice(CONTINUE);
            continue_sent = true;
        }
        if !out.is_empty() {
            let (written, kept) = stream.write_all(out).await;
            written?;
            out = kept;
            out.clear();
        }
        if pass.close {
            return stream.shutdown().await;
        }
        if pass.again {
            continue;
        }
        make_room(&mut buffer, pass.needed.saturating_sub(pass.consumed));
        idle.set(buffer.is_empty());
        if core.is_stopping() && buffer.is_empty() {
            return stream.shutdown().await;
        }
        let (read, kept) = rt::read_more(stream, buffer).await;
        buffer = kept;
        if read? == 0 {
            // The runtime may end with this task, before it has closed the descriptor.
            return stream.shutdown().await;
        }
        idle.set(false);
    }
}

/// Room for what is needed; a buffer that served a large request is given back once it is empty.
fn make_room(buffer: &mut Vec<u8>, needed: usize) {
    if buffer.is_empty() && buffer.capacity() > READ_BUFFER_KEPT_BYTES && needed < READ_BUFFER_KEPT_BYTES {
        *buffer = Vec::with_capacity(READ_BUFFER_BYTES);
    }
    // A body's announced length is believed only as far as it came: the buffer doubles.
    let missing = needed.saturating_sub(buffer.len());
    buffer.reserve(missing.min(buffer.len().max(READ_BUFFER_KEPT_BYTES)).max(READ_ROOM_BYTES));
}

/// Takes all complete requests in `buffer`, waits for what they are to be answered with, and writes the answers to `out`.
///
/// `admitted` says whether the request at the buffer's start was admitted before.
async fn take_requests(
    core: &Core,
    buffer: &[u8],
    admitted: &mut bool,
    chunks: &mut Option<Chunks>,
    out: &mut Vec<u8>,
) -> Pass {
    let limits = Limits::new(core.shared.config.max_body_bytes);
    let mut pass = Pass { consumed: 0, needed: 0, send_continue: false, again: false, close: false };
    let chunked_body;
    let mut replies: Vec<(Reply<'_>, Manner)> = Vec::new();
    while !pass.close {
        if replies.len() == PIPELINED_MAX {
            pass.again = true;
            break;
        }
        let rest = &buffer[pass.consumed..];
        let head = match request::parse(rest, &limits) {
            Ok(Parsed::Partial) => break,
            Ok(Parsed::Head(head)) => head,
            Err(refusal) => {
                pass.close = true;
                replies.push((
                    Reply::refused(refusal),
                    Manner { keep_alive: false, head_only: false, keep_alive_header: None },
                ));
                break;
            }
        };
        let manner = Manner {
            keep_alive: head.keep_alive && !core.is_stopping(),
            head_only: head.method == Method::Head,
            keep_alive_header: head.keep_alive_header(),
        };
        let admission = match api::route(head.method, head.path) {
            Err(refusal) => Err(refusal),
            Ok(route) if std::mem::replace(admitted, true) => Ok(route),
            Ok(route) => api::admit(core, &head, &route).map(|()| route),
        };
        let route = match admission {
            Ok(route) => route,
            Err(refusal) => {
                // What is at hand of the body is passed over; for the rest of it nobody waits.
                let total = whole_request_bytes(&head, rest, limits.max_body_bytes);
                pass.consumed += total.unwrap_or(rest.len());
                pass.close = total.is_none() || !manner.keep_alive;
                *admitted = false;
                replies.push((Reply::refused(refusal), Manner { keep_alive: !pass.close, ..manner }));
                continue;
            }
        };
        let total = match head.framing {
            Body::None => head.head_len,
            Body::Length(length) => head.head_len + length as usize,
            Body::Chunked => match feed_chunks(chunks, &rest[head.head_len..], limits.max_body_bytes) {
                Ok(Some(fed)) => head.head_len + fed,
                Ok(None) => usize::MAX,
                Err(refusal) => {
                    pass.close = true;
                    replies.push((Reply::refused(refusal), Manner { keep_alive: false, ..manner }));
                    break;
                }
            },
        };
        if rest.len() < total {
            pass.needed = if total == usize::MAX { 0 } else { pass.consumed + total };
            pass.send_continue = head.expect_continue;
            break;
        }
        if head.framing == Body::Chunked {
            // A body of chunks is whole in a buffer of its own; the pass ends with it, for the next would need another.
            chunked_body = chunks.take().map(|chunks| chunks.body).unwrap_or_default();
            pass.consumed += total;
            pass.close = !manner.keep_alive;
            pass.again = !pass.close;
            *admitted = false;
            replies.push((api::handle(core, &head, &route, &chunked_body).await, manner));
            break;
        }
        let body = &rest[head.head_len..total];
        pass.consumed += total;
        pass.close = !manner.keep_alive;
        *admitted = false;
        replies.push((api::handle(core, &head, &route, body).await, manner));
    }
    core.submit();
    for (reply, manner) in replies {
        pass.close |= reply.finish(core, manner, out).await;
    }
    pass
}

/// How many bytes at the start of `rest` are the request with this head, if all of it is there.
fn whole_request_bytes(head: &Head<'_>, rest: &[u8], max_body_bytes: u64) -> Option<usize> {
    let total = match head.framing {
        Body::None => head.head_len,
        Body::Length(length) => head.head_len + length as usize,
        Body::Chunked => {
            let progress = Decoder::new(max_body_bytes).feed(&rest[head.head_len..], &mut Vec::new());
            head.head_len + progress.ok().filter(|progress| progress.is_done)?.consumed
        }
    };
    (total <= rest.len()).then_some(total)
}

/// Feeds what is new of a chunked body. Returns how many bytes it has on the wire once it is complete.
fn feed_chunks(chunks: &mut Option<Chunks>, wire: &[u8], max_body_bytes: u64) -> Result<Option<usize>, Refusal> {
    let state = chunks.get_or_insert_with(|| Chunks {
        decoder: Decoder::new(max_body_bytes),
        body: Vec::new(),
        fed: 0,
        done: false,
    });
    if !state.done {
        let progress = state.decoder.feed(&wire[state.fed..], &mut state.body)?;
        state.fed += progress.consumed;
        state.done = progress.is_done;
    }
    Ok(state.done.then_some(state.fed))
}
