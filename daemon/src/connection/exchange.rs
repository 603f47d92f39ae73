//! What is read from a client and written to it: the buffers over a transport, their part of the budget, and the watch.

use super::{
    budget::{Held, Overloaded},
    server::Server,
    watch::{Phase, Watch},
};
use crate::{
    http::{ErrorCode, Refusal},
    limits::{
        BODY_READ_BYTES, BUFFERED_IDLE_PER_CORE_MAX, LINGER_BYTES_MAX, READ_BUFFER_BYTES, READ_BUFFER_KEPT_BYTES,
        READ_ROOM_BYTES,
    },
    rt,
    rt::Transport,
};
use monoio::{buf::IoBuf, io::AsyncWriteRentExt};
use std::io;

/// What came of a read.
pub(super) enum ReadOutcome {
    /// There are more bytes.
    More,
    /// Nothing was read: the connection is idle, and its buffer is wanted back.
    Interrupted,
    /// The end of the stream.
    End,
    /// The request is refused: it came too slowly, or there is no room for it.
    Refused(Refusal),
}

/// A connection's reads and writes.
pub(super) struct Exchange<'c, 's, S> {
    server: &'c Server,
    stream: &'s mut S,
    watch: &'c Watch,
    /// What was read and is not done with.
    pub(super) buffer: Vec<u8>,
    /// What is to be written.
    pub(super) out: Vec<u8>,
    /// Its part of the budget, for what it has beyond the first buffer.
    held: Held<'c>,
    /// What of a request is waited for, so that its time continues and does not begin anew.
    waits_for: Option<Phase>,
}

impl<'c, 's, S: Transport> Exchange<'c, 's, S> {
    pub(super) fn new(
        server: &'c Server,
        stream: &'s mut S,
        watch: &'c Watch,
        buffer: Vec<u8>,
        held: Held<'c>,
    ) -> Self {
        Self { server, stream, watch, buffer, out: Vec::new(), held, waits_for: None }
    }

    pub(super) fn watch(&self) -> &'c Watch {
        self.watch
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.server.now_ms()
    }

    /// Removes bytes from the start of the buffer.
    pub(super) fn remove(&mut self, bytes: usize) {
        self.buffer.drain(..bytes);
    }

    /// Puts the buffer back after a pass that is done with `consumed` bytes of it.
    pub(super) fn put_back(&mut self, buffer: Vec<u8>, consumed: usize) {
        self.buffer = buffer;
        if consumed == self.buffer.len() {
            self.buffer.clear();
        } else {
            self.remove(consumed);
        }
    }

    /// Reads on until there is more. With an empty buffer that is the wait for the next request.
    pub(super) async fn read(&mut self) -> io::Result<ReadOutcome> {
        if self.buffer.is_empty() {
            return self.read_idle().await;
        }
        self.read_into_buffer(Phase::Head, 0).await
    }

    /// Reads on until the buffer, which holds a head, has `needed` bytes.
    pub(super) async fn read_until(&mut self, needed: usize) -> io::Result<ReadOutcome> {
        while self.buffer.len() < needed {
            match self.read_into_buffer(Phase::Body, needed).await? {
                ReadOutcome::More => {}
                other => return Ok(other),
            }
        }
        Ok(ReadOutcome::More)
    }

    async fn read_into_buffer(&mut self, phase: Phase, needed: usize) -> io::Result<ReadOutcome> {
        // An announced length is believed only as far as it came: the buffer doubles.
        let missing = needed.saturating_sub(self.buffer.len());
        let room = missing.min(self.buffer.len().max(READ_BUFFER_KEPT_BYTES)).max(READ_ROOM_BYTES);
        if self.buffer.capacity() - self.buffer.len() < room {
            let wanted = (self.buffer.len() + room).max(self.buffer.capacity() * 2).min(
                // What is known to be enough is enough.
                if missing > 0 { needed.max(self.buffer.len() + READ_ROOM_BYTES) } else { usize::MAX },
            );
            if let Err(refusal) = self.hold(wanted).await {
                return Ok(ReadOutcome::Refused(refusal));
            }
            self.buffer.reserve_exact(wanted - self.buffer.len());
        }
        self.wait_for(phase);
        self.read_more().await
    }

    /// Reads more of a body into the buffer, which is empty; `other_bytes` are held beside it.
    pub(super) async fn read_body(&mut self, other_bytes: usize) -> io::Result<ReadOutcome> {
        if let Err(refusal) = self.hold(BODY_READ_BYTES + other_bytes).await {
            return Ok(ReadOutcome::Refused(refusal));
        }
        self.buffer.reserve(BODY_READ_BYTES);
        self.wait_for(Phase::Body);
        self.read_more().await
    }

    /// Waits for the next request.
    async fn read_idle(&mut self) -> io::Result<ReadOutcome> {
        if self.server.is_shutting_down() {
            return Ok(ReadOutcome::End);
        }
        if self.buffer.capacity() > READ_BUFFER_KEPT_BYTES || self.buffer.capacity() == 0 {
            self.buffer = Vec::with_capacity(READ_BUFFER_BYTES);
        }
        self.held.set(self.buffer.capacity().saturating_sub(READ_BUFFER_BYTES));
        self.watch.begin(Phase::IdleBuffered, self.server.now_ms());
        let buffer = std::mem::take(&mut self.buffer);
        self.server.buffered_idle.update(|count| count + 1);
        let (outcome, buffer) = self.stream.read_interruptibly(buffer, self.watch.interrupter()).await;
        self.server.buffered_idle.update(|count| count - 1);
        self.buffer = buffer;
        if rt::is_interrupted(&outcome) {
            return Ok(ReadOutcome::Interrupted);
        }
        outcome.map(|bytes| if bytes == 0 { ReadOutcome::End } else { ReadOutcome::More })
    }

    async fn read_more(&mut self) -> io::Result<ReadOutcome> {
        let buffer = std::mem::take(&mut self.buffer);
        let (outcome, buffer) = rt::read_more(self.stream, buffer).await;
        self.buffer = buffer;
        if self.watch.is_late() {
            return Ok(ReadOutcome::Refused(Refusal::too_slow()));
        }
        let bytes = outcome?;
        self.watch.received(bytes);
        Ok(if bytes == 0 { ReadOutcome::End } else { ReadOutcome::More })
    }

    /// Whether the core has too many buffers of idle connections for this one to keep its own.
    pub(super) fn gives_buffer_back(&self) -> bool {
        S::WAITS_WITHOUT_BUFFER
            && self.buffer.is_empty()
            && self.server.buffered_idle.get() >= BUFFERED_IDLE_PER_CORE_MAX
    }

    fn wait_for(&mut self, phase: Phase) {
        if self.waits_for.replace(phase) == Some(phase) {
            self.watch.go_on(phase);
        } else {
            self.watch.begin(phase, self.server.now_ms());
        }
    }

    /// A request came to its end: the time of the next one begins anew.
    pub(super) fn request_ended(&mut self) {
        self.waits_for = None;
    }

    /// The daemon works on a body since `paused_ms`; now more of it may be read. That time does not count.
    pub(super) fn go_on_with_body(&self, paused_ms: u64) {
        if self.waits_for == Some(Phase::Body) {
            self.watch.go_on_with_body(paused_ms, self.server.now_ms());
        }
    }

    /// Waits until the connection may have so many bytes.
    ///
    /// # Errors
    /// 503 after some seconds.
    pub(super) async fn hold(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.watch.go_on(Phase::Busy);
        let paused_ms = self.server.now_ms();
        self.held.grow_to(bytes.saturating_sub(READ_BUFFER_BYTES)).await.map_err(|Overloaded| {
            Refusal::new(ErrorCode::Overloaded, "too much is on its way through this daemon").closing()
        })?;
        self.go_on_with_body(paused_ms);
        Ok(())
    }

    /// Writes what is to leave.
    pub(super) async fn write(&mut self) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        let out = std::mem::take(&mut self.out);
        // It is there already: what others hold does not matter any more.
        let beyond = out.capacity().saturating_sub(READ_BUFFER_KEPT_BYTES);
        if beyond > 0 {
            self.held.set(self.buffer.capacity().saturating_sub(READ_BUFFER_BYTES) + beyond);
        }
        let (written, mut out) = if out.len() <= READ_BUFFER_KEPT_BYTES {
            self.watch.begin(Phase::Writing, self.server.now_ms());
            rt::write_all(self.stream, out).await
        } else {
            Box::pin(self.write_in_parts(out)).await
        };
        written?;
        self.stream.flush().await?;
        self.watch.go_on(Phase::Busy);
        self.waits_for = None;
        out.clear();
        if out.capacity() <= READ_BUFFER_KEPT_BYTES {
            self.out = out;
        }
        Ok(())
    }

    /// A large reply may take long, as long as some of it leaves.
    async fn write_in_parts(&mut self, mut out: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        let mut at = 0;
        while at < out.len() {
            self.watch.begin(Phase::Writing, self.server.now_ms());
            let end = out.len().min(at + READ_BUFFER_KEPT_BYTES);
            let (written, part) = self.stream.write_all(out.slice(at..end)).await;
            out = part.into_inner();
            if let Err(error) = written {
                return (Err(error), out);
            }
            at = end;
        }
        (Ok(at), out)
    }

    /// Closes the writing side. The descriptor stays open: the runtime may end with this task, before it has closed it.
    pub(super) async fn shut_down(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// Closes the writing side, and discards what the client still sends, for a while: a socket that is closed on bytes which
    /// nobody has read takes the last reply along.
    pub(super) async fn linger(&mut self) -> io::Result<()> {
        self.stream.shutdown().await?;
        self.watch.begin(Phase::Lingering, self.server.now_ms());
        let mut discarded = 0;
        while discarded < LINGER_BYTES_MAX && !self.server.is_shutting_down() {
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.clear();
            buffer.reserve(READ_BUFFER_BYTES);
            let (outcome, buffer) = rt::read_more(self.stream, buffer).await;
            self.buffer = buffer;
            match outcome {
                Ok(bytes) if bytes > 0 => discarded += bytes,
                _ => break,
            }
        }
        Ok(())
    }

    /// Gives up the buffers, save for bytes of requests that follow. They, and `reply_bytes` of replies that wait, stay in the
    /// budget.
    pub(super) fn into_parked(mut self, reply_bytes: usize) -> (Box<[u8]>, Held<'c>) {
        let buffer = self.buffer.into_boxed_slice();
        self.held.set((buffer.len() + reply_bytes).saturating_sub(READ_BUFFER_BYTES));
        (buffer, self.held)
    }
}
