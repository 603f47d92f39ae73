//! What is read from a client and written to it: the buffers over a transport, the memory that they hold, and the watch.

use super::{
    server::Server,
    watch::{HungUp, Phase, Watch},
};
use crate::{
    http::{
        Body, ErrorCode, MAX_HEAD_BYTES, Refusal,
        coding::Coding,
        incoming::{Bound, Incoming},
    },
    limits::{
        BODY_READ_BYTES, BUFFERED_IDLE_PER_CORE_MAX, CONNECTION_FREE_BYTES, READ_BUFFER_BYTES, READ_BUFFER_KEPT_BYTES,
        READ_ROOM_BYTES, REPLY_SMALL_BYTES, SMALL_HELD_BYTES,
    },
    memory::{Buffer, Grow, Held, Overloaded, Turn},
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
    pub(super) buffer: Buffer,
    /// What is to be written.
    pub(super) out: Vec<u8>,
    /// Its part of the budget, for all that it has beyond what every connection has.
    held: Held<'c>,
    /// Bytes that the conversation has beside `buffer` and `out`: a body, a decoder, replies.
    kept_bytes: usize,
    /// Whether the last read filled the buffer: more was there.
    is_filled: bool,
    /// What of a request is waited for, so that its time continues and does not begin anew.
    waits_for: Option<Phase>,
}

impl<'c, 's, S: Transport> Exchange<'c, 's, S> {
    pub(super) fn new(server: &'c Server, stream: &'s mut S, watch: &'c Watch, buffer: Buffer, held: Held<'c>) -> Self {
        let out = Vec::new();
        Self { server, stream, watch, buffer, out, held, kept_bytes: 0, is_filled: false, waits_for: None }
    }

    pub(super) fn watch(&self) -> &'c Watch {
        self.watch
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.server.now_ms()
    }

    /// Reads on until there is more. With an empty buffer that is the wait for the next request.
    pub(super) async fn read(&mut self) -> io::Result<ReadOutcome> {
        if self.buffer.is_empty() {
            return self.read_idle().await;
        }
        // A part of a head is there: it grows no further than the longest one.
        if self.buffer.room() < READ_ROOM_BYTES && self.buffer.capacity() < MAX_HEAD_BYTES {
            self.out = Vec::new();
            let capacity = (2 * self.buffer.capacity()).min(MAX_HEAD_BYTES);
            if let Err(refusal) = self.grow_buffer(capacity).await {
                return Ok(ReadOutcome::Refused(refusal));
            }
        }
        self.wait_for(Phase::Head);
        self.read_more().await
    }

    /// Reads on until the buffer, which holds a head, has `needed` bytes.
    pub(super) async fn read_until(&mut self, needed: usize) -> io::Result<ReadOutcome> {
        while self.buffer.len() < needed {
            if let Err(refusal) = self.make_room_for(needed).await {
                return Ok(ReadOutcome::Refused(refusal));
            }
            self.wait_for(Phase::Body);
            match self.read_more().await? {
                ReadOutcome::More => {}
                other => return Ok(other),
            }
        }
        Ok(ReadOutcome::More)
    }

    /// An announced length is believed only as far as it came: the buffer doubles. What is to be more than small is had at once,
    /// though: of those who wait for more, none keeps memory from others that is of no use without it, and nothing is copied. Pages
    /// that nothing was written to take no memory.
    async fn make_room_for(&mut self, needed: usize) -> Result<(), Refusal> {
        let (length, missing) = (self.buffer.len(), needed - self.buffer.len());
        let room = missing.min(length.max(CONNECTION_FREE_BYTES)).max(READ_ROOM_BYTES);
        if self.buffer.room() >= room {
            return Ok(());
        }
        // What is known to be enough is enough.
        let enough = needed.max(length + READ_ROOM_BYTES);
        let capacity = (length + room).max(self.buffer.capacity() * 2).min(enough);
        let capacity = if capacity > SMALL_HELD_BYTES { enough } else { capacity };
        let leave = self.hold(capacity + self.kept_bytes).await?;
        self.buffer.grow_to(capacity, leave);
        Ok(())
    }

    /// Reads more of a body into the buffer, which is empty. It grows as long as reads fill it.
    pub(super) async fn read_body(&mut self) -> io::Result<ReadOutcome> {
        let capacity = self.buffer.capacity();
        let wanted = if self.is_filled || capacity == 0 { 2 * capacity } else { capacity };
        let wanted = wanted.clamp(READ_BUFFER_BYTES, BODY_READ_BYTES);
        if wanted > capacity
            && let Err(refusal) = self.grow_buffer(wanted).await
        {
            return Ok(ReadOutcome::Refused(refusal));
        }
        self.read_unwanted().await
    }

    /// Reads more of a body into the buffer, which is empty and stays as large as it is.
    pub(super) async fn read_unwanted(&mut self) -> io::Result<ReadOutcome> {
        self.wait_for(Phase::Body);
        self.read_more().await
    }

    async fn grow_buffer(&mut self, capacity: usize) -> Result<(), Refusal> {
        let leave = self.hold(capacity + self.kept_bytes).await?;
        self.buffer.grow_to(capacity, leave);
        Ok(())
    }

    /// Waits for the next request.
    async fn read_idle(&mut self) -> io::Result<ReadOutcome> {
        if self.server.is_shutting_down() {
            return Ok(ReadOutcome::End);
        }
        if self.buffer.capacity() > READ_BUFFER_KEPT_BYTES || self.buffer.capacity() == 0 {
            self.buffer = Buffer::free(READ_BUFFER_BYTES);
        }
        self.keep(0);
        self.watch.begin(Phase::IdleBuffered, self.server.now_ms());
        let buffer = self.buffer.lend();
        self.server.buffered_idle.update(|count| count + 1);
        let (outcome, buffer) = self.stream.read_interruptibly(buffer, self.watch.interrupter()).await;
        self.server.buffered_idle.update(|count| count - 1);
        self.buffer.restore(buffer);
        if rt::is_interrupted(&outcome) {
            return Ok(ReadOutcome::Interrupted);
        }
        self.is_filled = self.buffer.room() == 0;
        outcome.map(|bytes| if bytes == 0 { ReadOutcome::End } else { ReadOutcome::More })
    }

    async fn read_more(&mut self) -> io::Result<ReadOutcome> {
        loop {
            let buffer = self.buffer.lend();
            let (outcome, buffer) = self.stream.read_interruptibly(buffer, self.watch.interrupter()).await;
            self.buffer.restore(buffer);
            if self.watch.is_late() {
                return Ok(ReadOutcome::Refused(self.too_slow()));
            }
            if rt::is_interrupted(&outcome) {
                continue;
            }
            let bytes = outcome?;
            self.watch.received(bytes);
            self.is_filled = self.buffer.room() == 0;
            return Ok(if bytes == 0 { ReadOutcome::End } else { ReadOutcome::More });
        }
    }

    fn too_slow(&self) -> Refusal {
        if !self.watch.holding().is_refused() {
            return Refusal::too_slow();
        }
        let why = "others wait for memory, and of all requests that hold some this one comes most slowly";
        Refusal::new(ErrorCode::RequestTimeout, why).closing()
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

    /// Says whose memory it is from now on.
    pub(super) fn set_owner(&mut self, owner: Option<u64>) {
        self.held.set_owner(owner);
    }

    /// The conversation has so many bytes beside the buffers, which are allocated already or fewer than before.
    pub(super) fn keep(&mut self, bytes: usize) {
        self.kept_bytes = bytes;
        self.held.note(self.buffer.capacity() + self.out.capacity() + bytes);
    }

    /// Waits until the conversation may have so many bytes beside the buffers.
    ///
    /// # Errors
    /// 503 after some time.
    pub(super) async fn keep_more(&mut self, bytes: usize) -> Result<Grow, Refusal> {
        let leave = self.hold(self.buffer.capacity() + bytes).await?;
        self.kept_bytes = self.kept_bytes.max(bytes);
        Ok(leave)
    }

    /// Waits until the conversation may have so many bytes beside the buffers, for an answer that is not there yet.
    ///
    /// # Errors
    /// 503 after some time.
    pub(super) async fn keep_answer(&mut self, bytes: usize) -> Result<(), Refusal> {
        let total = self.buffer.capacity() + self.out.capacity() + bytes;
        match self.watch.park(self.held.grow_to(total)).await {
            Ok(Ok(_)) => {
                self.kept_bytes = self.kept_bytes.max(bytes);
                Ok(())
            }
            Ok(Err(Overloaded)) => Err(no_memory()),
            Err(HungUp) => Err(hung_up()),
        }
    }

    /// Leave to write a reply of so many bytes to `out`, which is empty, if there is memory for it. Nobody waits for that: what the
    /// reply is made of is held meanwhile, and all who wait could hold what the others wait for.
    pub(super) fn try_hold_reply(&mut self, bytes: usize) -> Option<Grow> {
        self.held.try_grow_to(self.buffer.capacity() + self.kept_bytes + bytes)
    }

    /// Waits until the connection may have so many bytes beside `out`.
    async fn hold(&mut self, bytes: usize) -> Result<Grow, Refusal> {
        let total = bytes + self.out.capacity();
        if self.held.covers(total) {
            return Ok(self.held.covered(total));
        }
        let paused_ms = self.server.now_ms();
        // Its own memory, since hardly any conversation waits here.
        let leave = match Box::pin(self.watch.park(self.held.grow_to(total))).await {
            Ok(Ok(leave)) => leave,
            // One that is slow is told so. The daemon is ready for others all the same.
            Ok(Err(Overloaded)) if self.watch.is_late() => return Err(self.too_slow()),
            Ok(Err(Overloaded)) => {
                self.server.memory.refuse_push();
                return Err(no_memory());
            }
            Err(HungUp) => return Err(hung_up()),
        };
        self.go_on_with_body(paused_ms);
        if total > SMALL_HELD_BYTES {
            // What others gave up for it: the allocator keeps it for a while, and as likely as not takes new memory.
            rt::give_free_memory_back();
        }
        Ok(leave)
    }

    /// Begins a body that is decoded as it comes.
    ///
    /// # Errors
    /// 503 if there is no memory for its decoder.
    pub(super) async fn begin_body(
        &mut self,
        framing: Body,
        content_encoding: Option<&str>,
        bound: Bound,
    ) -> Result<Incoming, Refusal> {
        let coding = Coding::of(content_encoding)?;
        let leave = self.keep_more(Incoming::begin_bytes(coding)).await?;
        Incoming::new(framing, coding, bound, leave)
    }

    /// Waits for the turn of a body whose length is not known.
    ///
    /// # Errors
    /// When the client hangs up meanwhile.
    pub(super) async fn take_turn(&mut self) -> Result<Turn<'c>, Refusal> {
        let paused_ms = self.server.now_ms();
        // Its own memory, since hardly any conversation waits here.
        let turn = Box::pin(self.watch.park(self.server.turns.take())).await.map_err(|HungUp| hung_up())?;
        self.go_on_with_body(paused_ms);
        Ok(turn)
    }

    /// Writes what is to leave.
    pub(super) async fn write(&mut self) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        let is_small = self.out.capacity() <= REPLY_SMALL_BYTES;
        if !is_small {
            self.keep(self.kept_bytes);
        }
        let out = std::mem::take(&mut self.out);
        self.watch.begin(Phase::Writing, self.server.now_ms());
        let (written, mut out) = if out.len() <= READ_BUFFER_KEPT_BYTES {
            rt::write_all(self.stream, out).await
        } else {
            Box::pin(self.write_in_parts(out)).await
        };
        written?;
        self.stream.flush().await?;
        self.watch.go_on(Phase::Busy);
        self.waits_for = None;
        out.clear();
        if is_small {
            self.out = out;
        } else {
            self.keep(self.kept_bytes);
        }
        Ok(())
    }

    /// Writes a part of a reply, of which some was written before: it is one and the same reply whose pace counts.
    pub(super) async fn write_part(&mut self) -> io::Result<()> {
        let mut part = std::mem::take(&mut self.out);
        self.watch.go_on(Phase::Writing);
        let (written, returned) = rt::write_all(self.stream, part).await;
        written?;
        part = returned;
        self.stream.flush().await?;
        self.watch.sent(part.len(), self.server.now_ms());
        part.clear();
        self.out = part;
        Ok(())
    }

    /// A large reply may take long, as long as some of it leaves.
    async fn write_in_parts(&mut self, mut out: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        let mut at = 0;
        while at < out.len() {
            let end = out.len().min(at + READ_BUFFER_KEPT_BYTES);
            let (written, part) = self.stream.write_all(out.slice(at..end)).await;
            out = part.into_inner();
            if let Err(error) = written {
                return (Err(error), out);
            }
            self.watch.sent(end - at, self.server.now_ms());
            at = end;
        }
        (Ok(at), out)
    }

    /// Closes the writing side. The descriptor stays open: the runtime may end with this task, before it has closed it.
    pub(super) async fn shut_down(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// Closes the writing side and discards what the client still sends, up to `most_bytes` and for a while: a socket that is
    /// closed on bytes which nobody has read takes the last reply along.
    pub(super) async fn linger(&mut self, most_bytes: u64) -> io::Result<()> {
        self.stream.shutdown().await?;
        self.watch.begin(Phase::Lingering, self.server.now_ms());
        (self.buffer, self.out) = (Buffer::free(CONNECTION_FREE_BYTES), Vec::new());
        self.keep(0);
        let mut discarded = 0;
        while discarded < most_bytes && !self.server.is_shutting_down() {
            self.buffer.clear();
            let (outcome, buffer) = rt::read_more(self.stream, self.buffer.lend()).await;
            self.buffer.restore(buffer);
            match outcome {
                Ok(bytes) if bytes > 0 => discarded += bytes as u64,
                _ => break,
            }
            self.watch.discarded(self.server.now_ms());
        }
        Ok(())
    }

    /// Gives up the buffers, save for bytes of requests that follow. They, and `reply_bytes` of replies that wait, stay in the
    /// budget.
    pub(super) fn into_parked(mut self, reply_bytes: usize) -> (Box<[u8]>, Held<'c>) {
        let buffer = self.buffer.into_boxed_slice();
        self.held.note(buffer.len() + reply_bytes);
        (buffer, self.held)
    }
}

fn no_memory() -> Refusal {
    Refusal::new(ErrorCode::Overloaded, "others hold all memory that there is for requests").closing()
}

fn hung_up() -> Refusal {
    let why = "the client closed its side of the connection while the request waited for memory";
    Refusal::new(ErrorCode::Overloaded, why).closing()
}
