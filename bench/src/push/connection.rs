//! One connection's loop: connect, send, read every answer, and what is done when the connection goes away.

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
use super::run::{Failure, Run};
use super::socket::is_connected_to_itself;
use super::stats::Stats;
use super::timer::{STEP_NS, Timer};
use super::watchdog::Watched;

/// Bytes read from a socket at once.
const READ_BYTES: usize = 64 * 1024;
/// First pause before connecting again; it doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LAST_PAUSE: Duration = Duration::from_millis(100);
/// Longest time for one attempt to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Requests of a connection that are sent together and not yet answered.
#[derive(Clone, Copy, Debug)]
struct Batch {
    /// The first of them.
    first: u64,
    /// How many.
    count: u32,
    /// When they were sent the first time, in nanoseconds of the run.
    sent_ns: Option<u64>,
}

/// How an exchange ended that did not end well.
#[derive(Debug)]
enum Trouble {
    /// The connection is gone: a matter of `--reconnect` and `--on-error`.
    Lost(String),
    /// The run is over.
    Failed(Failure),
}

/// One connection, over all its sockets.
pub(crate) struct Connection {
    run: Arc<Run>,
    index: u32,
    stats: Rc<RefCell<Stats>>,
    watched: Rc<Watched>,
    renderer: Renderer,
    /// With `--rate`.
    timer: Option<Timer>,
    /// Read into; empty while the kernel has it.
    chunk: Vec<u8>,
    /// Bytes of answers that are not whole yet.
    inbox: Vec<u8>,
    /// Lines for the audit file, kept for their allocation.
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

    /// What the watchdog has to see.
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
            if let Err(failure) = self.note_lost(&batch) {
                self.run.fail(failure);
            }
        }
        self.watched.stream.take();
        let ended_ns = self.run.now_ns();
        let mut stats = self.stats.borrow_mut();
        stats.ended_ns = stats.ended_ns.max(ended_ns);
    }

    /// The loop of [`Connection::run`]; requests that were sent and not answered are left in `batch`.
    async fn send_all(&mut self, batch: &mut Option<Batch>) -> Result<(), Failure> {
        let mut stream: Option<Rc<TcpStream>> = None;
        if self.run.args().rate.is_some() {
            // Before the clock runs: a new descriptor may take milliseconds, where the table of them has to grow.
            self.timer = Some(Timer::new().map_err(Failure::timer)?);
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
                    // It was never sent.
                    return Ok(());
                }
                // What the timer, or this thread, is late is not the server's.
                let from_ns = if was_free { self.run.now_ns() } else { due_ns };
                pending.sent_ns.get_or_insert(from_ns);
            }
            let outcome = self.exchange(&connected, &mut pending).await;
            self.watched.waits_since_ns.set(None);
            match outcome {
                Ok(true) => stream = Some(connected),
                Ok(false) => self.closed_in_order()?,
                Err(Trouble::Failed(failure)) => return Err(failure),
                Err(Trouble::Lost(why)) => *batch = self.lost(pending, why)?,
            }
        }
    }

    /// The next requests to send, as many as may be outstanding.
    fn claim(&mut self) -> Option<Batch> {
        let count = self.run.claim(self.run.args().pipeline);
        let batch = Batch { first: self.next_request, count, sent_ns: None };
        self.next_request += u64::from(count);
        (count > 0).then_some(batch)
    }

    /// When a request is due, in nanoseconds of the run, with `--rate`: the connections take turns.
    fn due_ns(&self, request: u64) -> Option<u64> {
        let args = self.run.args();
        let turn = u128::from(request) * u128::from(args.connections) + u128::from(self.index);
        let due_ns = turn * 1_000_000_000 / u128::from(args.rate?);
        Some(u64::try_from(due_ns).unwrap_or(u64::MAX))
    }

    /// Sleeps until then, or until the run is over. Returns whether there was still time.
    async fn sleep_until(&mut self, due_ns: u64) -> Result<bool, Failure> {
        let now_ns = self.run.now_ns();
        if due_ns <= now_ns {
            return Ok(false);
        }
        let expires_ns = due_ns.checked_next_multiple_of(STEP_NS).unwrap_or(due_ns);
        // The run may end meanwhile. A timer that is set to nothing never expires.
        let wait = Duration::from_nanos(expires_ns - now_ns).min(self.run.time_left());
        if wait.is_zero() {
            return Ok(false);
        }
        if let Some(timer) = &mut self.timer {
            timer.wait(wait).await.map_err(Failure::timer)?;
        }
        Ok(true)
    }

    /// A fresh socket, or none when the run ended before there was one.
    async fn connect(&mut self) -> Result<Option<Rc<TcpStream>>, Failure> {
        self.watched.stream.take();
        self.inbox.clear();
        let address = self.run.args().url.address;
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match open(address).await {
                Ok(stream) => {
                    let stream = Rc::new(stream);
                    self.watched.stream.replace(Some(Rc::clone(&stream)));
                    self.stats.borrow_mut().reconnects += u64::from(self.connected_before);
                    self.connected_before = true;
                    return Ok(Some(stream));
                }
                Err(error) => error,
            };
            self.stats.borrow_mut().failed_connects += 1;
            if !self.run.args().reconnect {
                return Err(Failure::Connect { address, error });
            }
            if self.run.is_over() {
                return Ok(None);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// Sends a batch and reads its answers, each of which makes it shorter. Says whether the connection is still good.
    async fn exchange(&mut self, stream: &TcpStream, batch: &mut Batch) -> Result<bool, Trouble> {
        let now_ns = self.run.now_ns();
        batch.sent_ns.get_or_insert(now_ns);
        self.watched.waits_since_ns.set(Some(now_ns));
        let (bytes, len) = self.renderer.render(batch.first, batch.count);
        let (written, slice) = stream.write_all(bytes.slice(..len)).await;
        self.renderer.give_back(slice.into_inner());
        // A server may answer and close before it has read everything: what it said comes first.
        let mut write_error = written.err();
        loop {
            let (read, chunk) = stream.read(std::mem::take(&mut self.chunk)).await;
            self.chunk = chunk;
            let read_bytes = match read {
                Ok(0) => return Err(Trouble::Lost(ended(write_error.take(), "the server closed the connection"))),
                Ok(read_bytes) => read_bytes,
                Err(error) => return Err(Trouble::Lost(ended(write_error.take(), &error.to_string()))),
            };
            self.inbox.extend_from_slice(&self.chunk[..read_bytes]);
            let closes = self.take_answers(batch)?;
            if batch.count == 0 {
                return if self.inbox.is_empty() { Ok(!closes) } else { Err(Trouble::Failed(Failure::Unasked)) };
            }
            if closes {
                return Err(Trouble::Lost("the server answered Connection: close".to_owned()));
            }
        }
    }

    /// Counts the whole answers in the inbox, the good ones only after the audit file has them. Says whether the server
    /// closes the connection.
    fn take_answers(&mut self, batch: &mut Batch) -> Result<bool, Trouble> {
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
                Ok(Some(answer)) => {
                    *self.stats.borrow_mut().statuses.entry(answer.status).or_default() += 1;
                    closes = answer.closes;
                    if answer.is_success() {
                        self.add_lines(batch.first + u64::from(good), sent_ns, Some(answered_ns));
                        good += 1;
                    } else {
                        failure = Some(Failure::status(answer.status, &unread[answer.body.clone()]));
                    }
                    taken_bytes += answer.len_bytes();
                }
            }
        }
        self.inbox.drain(..taken_bytes);
        self.count_good(batch, good, answered_ns.saturating_sub(sent_ns)).map_err(Trouble::Failed)?;
        failure.map_or(Ok(closes), |failure| Err(Trouble::Failed(failure)))
    }

    /// Makes the good answers durable enough, then counts them and takes them off the batch.
    fn count_good(&mut self, batch: &mut Batch, good: u32, latency_ns: u64) -> Result<(), Failure> {
        if good == 0 {
            return Ok(());
        }
        if let Some(file) = self.run.answered_file() {
            file.append(&self.lines)?;
        }
        let messages_per_request = self.run.args().messages_per_request;
        self.stats.borrow_mut().answered(good, messages_per_request, self.renderer.body_bytes(), latency_ns);
        batch.first += u64::from(good);
        batch.count -= good;
        self.watched.waits_since_ns.set(Some(self.run.now_ns()));
        Ok(())
    }

    /// Adds the lines of one request's messages, if a file wants them.
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

    /// The server closed after its last answer: nothing is lost, but without `--reconnect` the run cannot go on.
    fn closed_in_order(&self) -> Result<(), Failure> {
        if self.run.args().reconnect || self.run.is_over() {
            return Ok(());
        }
        let why = "the server answered Connection: close".to_owned();
        Err(Failure::Lost { connection: self.index, outstanding: 0, why })
    }

    /// Does with a batch whose answers were lost what the user asked for; what is to be sent again comes back.
    fn lost(&mut self, batch: Batch, why: String) -> Result<Option<Batch>, Failure> {
        let args = self.run.args();
        // Once the run is over this is the watchdog's doing, or no different from it.
        let over = self.run.is_over();
        match args.on_error {
            OnError::Fail if over && args.reconnect => Ok(Some(batch)),
            OnError::Fail => {
                self.stats.borrow_mut().unanswered_requests += u64::from(batch.count);
                self.note_lost(&batch)?;
                Err(Failure::Lost { connection: self.index, outstanding: batch.count, why })
            }
            OnError::Retry => {
                self.stats.borrow_mut().retried_requests += if over { 0 } else { u64::from(batch.count) };
                Ok(Some(batch))
            }
            OnError::Abandon => {
                self.stats.borrow_mut().abandoned_requests += u64::from(batch.count);
                self.note_lost(&batch)?;
                Ok(None)
            }
        }
    }

    /// Writes down the messages of a batch as sent and never answered, unless they were never sent.
    fn note_lost(&mut self, batch: &Batch) -> Result<(), Failure> {
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

/// The first cause of a connection's end: a failed write explains the read that failed after it.
fn ended(write_error: Option<io::Error>, read: &str) -> String {
    write_error.map_or_else(|| read.to_owned(), |error| format!("{error} (writing), then {read}"))
}
