//! What is read from the client, and what is written to it.

use super::{Came, Conversation};
use super::{budget::Overloaded, watch::Phase};
use crate::{
    http::{ErrorCode, Refusal},
    limits::{LINGER_BYTES_MAX, READ_BUFFER_BYTES, READ_BUFFER_KEPT_BYTES, READ_ROOM_BYTES, RESTING_PER_CORE_MAX},
    rt,
    rt::Transport,
};
use monoio::{buf::IoBuf, io::AsyncWriteRentExt};
use std::io;

impl<S: Transport> Conversation<'_, S> {
    /// Reads on, until there is more; a request that is told to close instead comes as a refusal.
    pub(crate) async fn read(&mut self, needed: usize) -> io::Result<Result<Came, Refusal>> {
        if self.buffer.is_empty() {
            return self.rest().await.map(Ok);
        }
        // A body's announced length is believed only as far as it came: the buffer doubles.
        let missing = needed.saturating_sub(self.buffer.len());
        let room = missing.min(self.buffer.len().max(READ_BUFFER_KEPT_BYTES)).max(READ_ROOM_BYTES);
        if self.buffer.capacity() - self.buffer.len() < room {
            let wanted = (self.buffer.len() + room).max(self.buffer.capacity() * 2).min(
                // What is known to be enough is enough.
                if missing > 0 { needed.max(self.buffer.len() + READ_ROOM_BYTES) } else { usize::MAX },
            );
            if let Err(refusal) = self.hold(wanted).await {
                return Ok(Err(refusal));
            }
            self.buffer.reserve_exact(wanted - self.buffer.len());
        }
        self.wait_for(if needed > 0 { Phase::Body } else { Phase::Head });
        self.read_more().await.map(Ok)
    }

    /// Waits for the next request.
    async fn rest(&mut self) -> io::Result<Came> {
        if self.core.is_stopping() {
            return Ok(Came::End);
        }
        if self.buffer.capacity() > READ_BUFFER_KEPT_BYTES || self.buffer.capacity() == 0 {
            self.buffer = Vec::with_capacity(READ_BUFFER_BYTES);
        }
        self.held.set(self.buffer.capacity().saturating_sub(READ_BUFFER_BYTES));
        self.watch.begin(Phase::Resting, self.core.now_ms());
        let buffer = std::mem::take(&mut self.buffer);
        self.core.resting.update(|resting| resting + 1);
        let (outcome, buffer) = self.stream.read_interruptibly(buffer, self.watch.interrupter()).await;
        self.core.resting.update(|resting| resting - 1);
        self.buffer = buffer;
        if rt::is_interrupted(&outcome) {
            return Ok(Came::Interrupted);
        }
        outcome.map(|bytes| if bytes == 0 { Came::End } else { Came::More })
    }

    /// Whether this connection, which has answered everything, keeps no buffer until its client says something again.
    pub(crate) fn gives_buffer_back(&self) -> bool {
        S::WAITS_WITHOUT_BUFFER
            && self.buffer.is_empty()
            && self.cache.is_empty()
            && self.core.resting.get() >= RESTING_PER_CORE_MAX
    }

    pub(crate) fn wait_for(&mut self, phase: Phase) {
        if self.waits_for.replace(phase) == Some(phase) {
            self.watch.go_on(phase);
        } else {
            self.watch.begin(phase, self.core.now_ms());
        }
    }

    pub(crate) async fn read_more(&mut self) -> io::Result<Came> {
        let buffer = std::mem::take(&mut self.buffer);
        let (outcome, buffer) = rt::read_more(self.stream, buffer).await;
        self.buffer = buffer;
        if self.watch.is_late() {
            return Ok(Came::Late);
        }
        let bytes = outcome?;
        self.watch.received(bytes);
        Ok(if bytes == 0 { Came::End } else { Came::More })
    }

    /// Waits until the connection may have so many bytes.
    pub(crate) async fn hold(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.watch.go_on(Phase::Busy);
        let paused_ms = self.core.now_ms();
        self.held
            .grow_to(bytes.saturating_sub(READ_BUFFER_BYTES))
            .await
            .map_err(|Overloaded| Refusal::from(ErrorCode::Overloaded).closing())?;
        if self.waits_for == Some(Phase::Body) {
            self.watch.go_on_with_body(paused_ms, self.core.now_ms());
        }
        Ok(())
    }

    /// Sends what is to leave.
    pub(crate) async fn write(&mut self) -> io::Result<()> {
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
            self.watch.begin(Phase::Writing, self.core.now_ms());
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

    /// A large answer may take long, as long as some of it leaves.
    async fn write_in_parts(&mut self, mut out: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        let mut at = 0;
        while at < out.len() {
            self.watch.begin(Phase::Writing, self.core.now_ms());
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

    /// Says that nothing more is sent, and throws away what the client still sends, for a while: a socket closed on bytes that
    /// nobody has read takes the last answer along.
    pub(crate) async fn leave(&mut self) -> io::Result<()> {
        self.stream.shutdown().await?;
        self.watch.begin(Phase::Leaving, self.core.now_ms());
        let mut thrown_away = 0;
        while thrown_away < LINGER_BYTES_MAX && !self.core.is_stopping() {
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.clear();
            buffer.reserve(READ_BUFFER_BYTES);
            let (outcome, buffer) = rt::read_more(self.stream, buffer).await;
            self.buffer = buffer;
            match outcome {
                Ok(bytes) if bytes > 0 => thrown_away += bytes,
                _ => break,
            }
        }
        Ok(())
    }
}
