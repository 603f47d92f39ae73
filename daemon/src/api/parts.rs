//! A large reply that is written part by part, where there is no memory for it as a whole. Nobody waits for that: what a reply
//! is made of is held meanwhile, and others may need it.

use super::{reply::Reply, writer::ReplyWriter};
use crate::{http::ResponseOptions, limits::REPLY_SMALL_BYTES};

/// What of a reply is still to be written.
pub struct ReplyParts {
    reply: Reply<'static>,
    /// As it was when the length was counted.
    database_is_healthy: bool,
    /// Where the next part begins; `None`: all is written.
    next: Option<usize>,
}

impl ReplyParts {
    /// Appends the head of a reply that is known as a whole, with the length of its body. The body follows in parts.
    pub(super) fn start(
        reply: Reply<'static>,
        writer: &ReplyWriter,
        options: ResponseOptions,
        out: &mut Vec<u8>,
    ) -> Self {
        let database_is_healthy = writer.database_is_healthy();
        let mut parts = Self { reply, database_is_healthy, next: Some(0) };
        let mut length = 0;
        let mut part = writer.bodies.take();
        while parts.write(&mut part) {
            length += part.len();
            part.clear();
        }
        length += part.len();
        writer.bodies.give_back(part);
        parts.next = (!options.head_only).then_some(0);
        parts.reply.write_head(writer, length, options, out);
        parts
    }

    /// Appends the next part of the body: some [`REPLY_SMALL_BYTES`], and what is left of one item. Returns whether another one
    /// follows.
    pub fn write(&mut self, out: &mut Vec<u8>) -> bool {
        if let Some(from) = self.next {
            self.next = self.reply.write_part(from, self.database_is_healthy, REPLY_SMALL_BYTES, out);
        }
        self.next.is_some()
    }

    /// Bytes of memory that it has, about.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.reply.memory_bytes()
    }
}
