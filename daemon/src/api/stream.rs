//! Replies whose body is produced piece by piece.

use super::writer::{ReplyHead, ReplyWriter};
use crate::{
    access::{Access, AccessRequest, Grant},
    http::{
        Refusal, ResponseOptions,
        response::{LAST_CHUNK, push_chunk},
    },
};
use std::{future::Future, pin::Pin};

/// What [`BodySource::next`] returns.
pub type NextPiece<'a> = Pin<Box<dyn Future<Output = Result<bool, Refusal>> + 'a>>;

/// Where the body of a streamed reply comes from.
pub trait BodySource {
    /// Waits for the next piece and appends it to `piece`, which is empty. Returns whether another one may follow. A piece may
    /// be empty. Dropping the future gives up whatever it waits for.
    ///
    /// # Errors
    /// Why there are no more pieces. Before the first piece the client is refused with it; later the body is cut off.
    fn next<'a>(&'a mut self, piece: &'a mut Vec<u8>) -> NextPiece<'a>;
}

/// A reply whose body comes from a [`BodySource`]. It is sent in chunks to clients of HTTP/1.1; for others its end is that of
/// the connection.
pub struct StreamReply {
    head: ReplyHead,
    source: Box<dyn BodySource>,
    grant: Grant,
    access: AccessRequest,
}

impl StreamReply {
    /// 200 with a body of this type, for whoever has `grant`, as long as that allows `access`.
    #[must_use]
    pub fn new(
        content_type: &'static str,
        source: impl BodySource + 'static,
        grant: Grant,
        access: AccessRequest,
    ) -> Self {
        Self { head: ReplyHead::ok(content_type), source: Box::new(source), grant, access }
    }

    /// Looks again whether its client may have it; to be asked before each piece.
    ///
    /// # Errors
    /// 401 or 403 where what was granted was taken back.
    pub fn look_again(&mut self, access: &Access) -> Result<(), Refusal> {
        access.renew(&mut self.grant, self.access)
    }

    /// The next piece of its body; see [`BodySource::next`].
    ///
    /// # Errors
    /// Why there are no more pieces.
    pub async fn next(&mut self, piece: &mut Vec<u8>) -> Result<bool, Refusal> {
        self.source.next(piece).await
    }

    /// Appends what stands before its body.
    pub(super) fn write_head(&self, writer: &ReplyWriter, options: ResponseOptions, out: &mut Vec<u8>) {
        let ReplyHead { status, content_type, lines } = &self.head;
        writer.stream_head(*status, content_type, lines, options, out);
    }

    /// Appends a piece of its body as it is sent.
    pub fn write_piece(piece: &[u8], options: ResponseOptions, out: &mut Vec<u8>) {
        if options.takes_chunks() {
            push_chunk(out, piece);
        } else {
            out.extend_from_slice(piece);
        }
    }

    /// Appends the end of its body, if that is not the end of the connection.
    pub fn write_end(options: ResponseOptions, out: &mut Vec<u8>) {
        if options.takes_chunks() {
            out.extend_from_slice(LAST_CHUNK);
        }
    }
}
