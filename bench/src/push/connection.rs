//! One connection's loop: connects, sends requests, reads every response, and handles the loss of the connection.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio_uring::buf::BoundedBuf;
use tokio_uring::net::TcpStream;

use crate::args::OnError;

use super::audit;
use super::request::Renderer;
use super::response;
use super::run::{Failure, Loss, Run};
use super::socket::is_connected_to_itself;
use super::stats::Stats;
use super::timer::{STEP_NS, Timer};
use super::watchdog::Watched;

/// Bytes per read: some hundred responses, so that a deep pipeline needs few reads.
const READ_BYTES: usize = 64 * 1024;
/// Pause after the first failed connect. It doubles with each attempt, up to [`LAST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// Longest pause between two attempts to connect, so that a server that comes back is found soon.
const LAST_PAUSE: Duration = Duration::from_millis(100);
/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Requests that a connection sends together and that are not answered yet.
#[derive(Clone, Copy, Debug)]
struct Batch {
    /// Number of the first of these requests.
    first: u64,
    /// Number of requests.
    count: u32,
    /// When they were sent the first time, in nanoseconds since the start of the run.
    sent_ns: Option<u64>,
}

/// Why an exchange of requests and responses failed.
#[derive(Debug)]
enum ExchangeError {
    /// The connection was lost. `--reconnect` and `--on-error` decide how to continue.
    Lost(Loss),
    /// The run fails.
    Failed(Failure),
}

/// One connection. A lost connection is replaced, so it may use several sockets in turn.
pub(crate) struct Connection {
    run: Arc<Run>,
    index: u32,
    stats: Rc<RefCell<Stats>>,
    watched: Rc<Watched>,
    renderer: Renderer,
    /// Only with `--rate`.
    timer: Option<Timer>,
    /// The buffer of the next read. Empty while the kernel owns it.
    chunk: Vec<u8>,
    /// The beginning of a response that is still incomplete.
    inbox: Vec<u8>,
    /// Lines for the audit file. Kept to reuse the allocation.
    lines: String,
    next_request: u64,
    connected_before: bool,
}

impl Connection {
    pub(crate) fn new(run: Arc<Run>, index: u32, stats: Rc<RefCell<Stats>>) -> Self {
        Self {
            renderer: Renderer::new(run.args(), run.id(), index),
            run,
            index,
            stats,
            watched: Rc::default(),
            timer: None,
            chunk: Vec::with_capacity(READ_BYTES),
            inbox: Vec::new(),
            lines: String::new(),
            next_request: 0,
            connected_before: false,
        }
    }

    /// The part of the connection that the watchdog uses.
    pub(crate) fn watched(&self) -> Rc<Watched> {
        Rc::clone(&self.watched)
    }

    /// Sends and reads until the run is over.
    pub(crate) async fn run(mut self) {
        let mut batch = None;
        if let Err(failure) = self.send_all(&mut batch).await {
            self.run.fail(failure);
        }
        if let Some(batch) = batch {
            self.stats.borrow_mut().unanswered_requests += u64::from(batch.count);
            if let Err(failure) = self.record_lost(&batch) {
                self.run.fail(failure);
            }
        }
        self.watched.stream.take();
        let ended_ns = self.run.now_ns();
        let mut stats = self.stats.borrow_mut();
        stats.ended_ns = stats.ended_ns.max(ended_ns);
    }

    /// The loop of [`Connection::run`]. Leaves requests that were sent but not answered in `batch`.
    async fn send_all(&mut self, batch: &mut Option<Batch>) -> Result<(), Failure> {
        let mut stream: Option<Rc<TcpStream>> = None;
        if self.run.args().rate.is_some() {
            // Before the run starts, because a new descriptor takes milliseconds if the kernel has to grow the table.
            self.timer = Some(Timer::new().map_err(Failure::Timer)?);
        }
        loop {
            if self.run.is_over() {
                return Ok(());
            }
            let connected = match stream.take() {
                Some(connected) => connected,
                None => match self.connect().await? {
                    Some(connected) => connected,
                    None => return Ok(()),
                },
            };
            self.run.started().await;
            let mut pending = match batch.take().or_else(|| self.claim()) {
                Some(pending) => pending,
                None => return Ok(()),
            };
            if let Some(due_ns) = self.due_ns(pending.first) {
                let was_free = self.sleep_until(due_ns).await?;
                if self.run.is_over() {
                    return Ok(());
                }
                // If the timer or this thread is late, that time is not counted against the server.
                let from_ns = if was_free { self.run.now_ns() } else { due_ns };
                pending.sent_ns.get_or_insert(from_ns);
            }
            let outcome = self.exchange(&connected, &mut pending).await;
            self.watched.waits_since_ns.set(None);
            match outcome {
                Ok(true) => stream = Some(connected),
                Ok(false) => self.after_announced_close()?,
                Err(ExchangeError::Failed(failure)) => return Err(failure),
                Err(ExchangeError::Lost(loss)) => *batch = self.after_loss(pending, loss)?,
            }
        }
    }

    /// The next requests to send, as many as `--pipeline` and the run allow; none if the run is over.
    fn claim(&mut self) -> Option<Batch> {
        let count = self.run.claim(self.run.args().pipeline);
        let batch = Batch { first: self.next_request, count, sent_ns: None };
        self.next_request += u64::from(count);
        (count > 0).then_some(batch)
    }

    /// When a request is due with `--rate`, in nanoseconds since the start of the run. The connections take turns.
    fn due_ns(&self, request: u64) -> Option<u64> {
        let args = self.run.args();
        let turn = u128::from(request) * u128::from(args.connections) + u128::from(self.index);
        let due_ns = turn * 1_000_000_000 / u128::from(args.rate?);
        Some(u64::try_from(due_ns).unwrap_or(u64::MAX))
    }

    /// Sleeps until `due_ns`, or until the run is over. Returns false if `due_ns` has passed already.
    async fn sleep_until(&mut self, due_ns: u64) -> Result<bool, Failure> {
        let now_ns = self.run.now_ns();
        if due_ns <= now_ns {
            return Ok(false);
        }
        let expires_ns = due_ns.checked_next_multiple_of(STEP_NS).unwrap_or(due_ns);
        // The run may end before the request is due.
        let wait = Duration::from_nanos(expires_ns - now_ns).min(self.run.time_left());
        if wait.is_zero() {
            return Ok(false);
        }
        if let Some(timer) = &mut self.timer {
            timer.wait(wait).await.map_err(Failure::Timer)?;
        }
        Ok(true)
    }

    /// Connects, with `--reconnect` as often as it takes. None if the run ended before a connect succeeded.
    async fn connect(&mut self) -> Result<Option<Rc<TcpStream>>, Failure> {
        self.watched.stream.take();
        self.inbox.clear();
        let address = self.run.args().url.address;
        let mut pause = FIRST_PAUSE;
        loop {
            let source = match open(address).await {
                Ok(stream) => {
                    let stream = Rc::new(stream);
                    self.watched.stream.replace(Some(Rc::clone(&stream)));
                    self.stats.borrow_mut().reconnects += u64::from(self.connected_before);
                    self.connected_before = true;
                    return Ok(Some(stream));
                }
                Err(source) => source,
            };
            self.stats.borrow_mut().failed_connects += 1;
            if !self.run.args().reconnect {
                return Err(Failure::Connect { address, source });
            }
            if self.run.is_over() {
                return Ok(None);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// Sends a batch and reads its responses, each of which shortens it. Returns whether the server keeps the connection
    /// open.
    async fn exchange(&mut self, stream: &TcpStream, batch: &mut Batch) -> Result<bool, ExchangeError> {
        let now_ns = self.run.now_ns();
        batch.sent_ns.get_or_insert(now_ns);
        self.watched.waits_since_ns.set(Some(now_ns));
        let (bytes, len) = self.renderer.render(batch.first, batch.count);
        let (written, slice) = stream.write_all(bytes.slice(..len)).await;
        self.renderer.give_back(slice.into_inner());
        // If the write failed, responses may still be there: a server may respond and close before it has read the rest.
        let mut write_error = written.err();
        loop {
            let (read, chunk) = stream.read(std::mem::take(&mut self.chunk)).await;
            self.chunk = chunk;
            let read_bytes = match read {
                Ok(0) => return Err(ExchangeError::Lost(Loss::Closed.after(write_error.take()))),
                Ok(read_bytes) => read_bytes,
                Err(error) => return Err(ExchangeError::Lost(Loss::Read(error).after(write_error.take()))),
            };
            self.inbox.extend_from_slice(&self.chunk[..read_bytes]);
            let closes = self.take_responses(batch)?;
            if batch.count == 0 {
                let is_clean = self.inbox.is_empty();
                return if is_clean { Ok(!closes) } else { Err(ExchangeError::Failed(Failure::Unrequested)) };
            }
            if closes {
                return Err(ExchangeError::Lost(Loss::Announced));
            }
        }
    }

    /// Takes the whole responses from the inbox and counts them, those with a 2xx only after they are in the audit file.
    /// Returns whether the server closes the connection.
    fn take_responses(&mut self, batch: &mut Batch) -> Result<bool, ExchangeError> {
        let answered_ns = self.run.now_ns();
        let sent_ns = batch.sent_ns.unwrap_or(answered_ns);
        let (mut taken_bytes, mut good, mut closes) = (0, 0, false);
        let mut failure = None;
        self.lines.clear();
        while failure.is_none() && !closes && good < batch.count {
            let unread = &self.inbox[taken_bytes..];
            match response::parse(unread) {
                Ok(None) => break,
                Err(error) => failure = Some(Failure::Malformed(error)),
                Ok(Some(response)) => {
                    *self.stats.borrow_mut().statuses.entry(response.status).or_default() += 1;
                    closes = response.closes;
                    if response.is_success() {
                        self.add_lines(batch.first + u64::from(good), sent_ns, Some(answered_ns));
                        good += 1;
                    } else {
                        failure = Some(Failure::status(response.status, &unread[response.body.clone()]));
                    }
                    taken_bytes += response.len_bytes();
                }
            }
        }
        self.inbox.drain(..taken_bytes);
        self.count_good(batch, good, answered_ns.saturating_sub(sent_ns)).map_err(ExchangeError::Failed)?;
        failure.map_or(Ok(closes), |failure| Err(ExchangeError::Failed(failure)))
    }

    /// Writes the lines of `good` answered requests to the audit file, counts the requests and removes them from the batch.
    fn count_good(&mut self, batch: &mut Batch, good: u32, latency_ns: u64) -> Result<(), Failure> {
        if good == 0 {
            return Ok(());
        }
        if let Some(file) = self.run.answered_file() {
            file.append(&self.lines)?;
        }
        let messages_per_request = self.run.args().messages_per_request;
        self.stats.borrow_mut().count_answered(good, messages_per_request, self.renderer.body_bytes(), latency_ns);
        batch.first += u64::from(good);
        batch.count -= good;
        self.watched.waits_since_ns.set(Some(self.run.now_ns()));
        Ok(())
    }

    /// Adds the lines of one request's messages, if there is a file for them. `answered_ns` is none for a lost request.
    fn add_lines(&mut self, request: u64, sent_ns: u64, answered_ns: Option<u64>) {
        let file = if answered_ns.is_some() { self.run.answered_file() } else { self.run.lost_file() };
        if file.is_none() {
            return;
        }
        let sent = self.run.unix_ns(sent_ns);
        let answered = answered_ns.map(|answered_ns| self.run.unix_ns(answered_ns));
        for (name, partition) in self.renderer.names(request) {
            audit::push_line(&mut self.lines, &name, &partition, sent, answered);
        }
    }

    /// Continues after the server has closed the connection behind its last response. Nothing is lost, but without
    /// `--reconnect` the run fails.
    fn after_announced_close(&self) -> Result<(), Failure> {
        if self.run.args().reconnect || self.run.is_over() {
            return Ok(());
        }
        Err(Failure::Lost { connection: self.index, outstanding: 0, loss: Loss::Announced })
    }

    /// Treats a batch whose connection was lost as `--on-error` says. Returns the batch if it is to be sent again.
    fn after_loss(&mut self, batch: Batch, loss: Loss) -> Result<Option<Batch>, Failure> {
        let args = self.run.args();
        // After the end of the run it is usually the watchdog that closed the connection, which is no failure.
        let over = self.run.is_over();
        match args.on_error {
            OnError::Fail if over && args.reconnect => Ok(Some(batch)),
            OnError::Fail => {
                self.stats.borrow_mut().unanswered_requests += u64::from(batch.count);
                self.record_lost(&batch)?;
                Err(Failure::Lost { connection: self.index, outstanding: batch.count, loss })
            }
            OnError::Retry => {
                self.stats.borrow_mut().retried_requests += if over { 0 } else { u64::from(batch.count) };
                Ok(Some(batch))
            }
            OnError::Abandon => {
                self.stats.borrow_mut().abandoned_requests += u64::from(batch.count);
                self.record_lost(&batch)?;
                Ok(None)
            }
        }
    }

    /// Writes the messages of a batch to the file of lost messages, if they were sent.
    fn record_lost(&mut self, batch: &Batch) -> Result<(), Failure> {
        let run = Arc::clone(&self.run);
        let (Some(file), Some(sent_ns)) = (run.lost_file(), batch.sent_ns) else {
            return Ok(());
        };
        self.lines.clear();
        for request in batch.first..batch.first + u64::from(batch.count) {
            self.add_lines(request, sent_ns, None);
        }
        file.append(&self.lines)
    }
}

/// One attempt to connect.
async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let attempt = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
    let stream = attempt.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    if is_connected_to_itself(&stream)? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    stream.set_nodelay(true)?;
    Ok(stream)
}
