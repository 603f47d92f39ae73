//! Sends a streamed reply, one piece at a time.

use super::{exchange::Exchange, server::Server, watch::HungUp};
use crate::{
    api::StreamReply,
    http::{ErrorCode, Refusal, ResponseOptions},
    limits::STREAM_PIECE_BYTES,
    rt::Transport,
};
use std::io;

/// Why no further piece is sent.
enum NoPiece {
    /// The source has none, or there is no room for it.
    Refused(Refusal),
    HungUp,
}

/// Sends `stream`. The next piece is asked for when the one before has left, so a slow client slows its source down. Returns
/// whether the connection is kept: the body is complete, and its end is known to the client.
///
/// An error before the first piece is a refusal. Behind it the body is cut off: the last chunk is missing.
pub(super) async fn send<S: Transport>(
    exchange: &mut Exchange<'_, '_, S>,
    server: &Server,
    mut stream: StreamReply,
    options: ResponseOptions,
) -> io::Result<bool> {
    let mut piece = Vec::new();
    let mut is_started = false;
    loop {
        let has_more = match next_piece(exchange, server, &mut stream, &mut piece).await {
            Ok(has_more) => has_more,
            Err(NoPiece::HungUp) => return Ok(false),
            Err(NoPiece::Refused(refusal)) if is_started => {
                tracing::warn!(error = %refusal, "a streamed reply was cut off");
                return Ok(false);
            }
            Err(NoPiece::Refused(refusal)) => {
                server.api.write_refusal(&refusal, options, &mut exchange.out);
                return Ok(!refusal.close);
            }
        };
        if !std::mem::replace(&mut is_started, true) {
            server.api.write_stream_head(&stream, options, &mut exchange.out);
            if options.head_only {
                return Ok(options.takes_chunks());
            }
        }
        StreamReply::write_piece(&piece, options, &mut exchange.out);
        piece = Vec::new();
        if !has_more {
            StreamReply::write_end(options, &mut exchange.out);
            return Ok(options.takes_chunks());
        }
        exchange.write().await?;
    }
}

/// Waits for room in the budget and for the next piece. Returns whether another one may follow.
async fn next_piece<S: Transport>(
    exchange: &mut Exchange<'_, '_, S>,
    server: &Server,
    stream: &mut StreamReply,
    piece: &mut Vec<u8>,
) -> Result<bool, NoPiece> {
    if server.is_shutting_down() {
        return Err(NoPiece::Refused(ErrorCode::ShuttingDown.into()));
    }
    stream.look_again(&server.gate.access).map_err(NoPiece::Refused)?;
    // For the piece, and for the same in chunks.
    exchange.keep_answer(2 * STREAM_PIECE_BYTES).await.map_err(NoPiece::Refused)?;
    match exchange.watch().park(stream.next(piece)).await {
        Ok(outcome) => outcome.map_err(NoPiece::Refused),
        Err(HungUp) => Err(NoPiece::HungUp),
    }
}
