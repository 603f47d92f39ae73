//! What all connections of a run share: the settings, the end of the run, and the first failure.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::args::PushArgs;

use super::audit::AuditFile;
use super::response::ResponseError;

/// How long the run waits for outstanding responses after its end, at most and never longer than `--answer-timeout`. More
/// than the two seconds for which the daemon by default lets a plain push wait for PostgreSQL.
const MAX_GRACE: Duration = Duration::from_secs(5);
/// Time between the start of the connections and the first request that is due with `--rate`. Connecting is not to be
/// measured.
const LEAD: Duration = Duration::from_millis(100);
/// How many bytes of the body of an unexpected response are reported: enough for any error of the daemon.
const SHOWN_BODY_BYTES: usize = 2000;

/// Why a run is not clean.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A connect failed, and `--reconnect` was not given.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// The server's address.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// A connection ended while responses were outstanding, or before the end of the run.
    #[error("connection {connection} lost with {outstanding} responses outstanding: {loss}")]
    Lost {
        /// The connection's number.
        connection: u32,
        /// Number of outstanding responses.
        outstanding: u32,
        /// How the connection ended.
        loss: Loss,
    },
    /// A response that is not 2xx.
    #[error("a push was answered {status}: {body}")]
    Status {
        /// The response's status.
        status: u16,
        /// The beginning of its body.
        body: String,
    },
    /// Bytes that are not a response this client can read.
    #[error("a response cannot be read: {0}")]
    Malformed(ResponseError),
    /// The server sent more responses than there were requests.
    #[error("the server sent a response without a request")]
    Unrequested,
    /// The audit file could not be opened or written.
    #[error("audit file {}: {source}", .path.display())]
    Audit {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A thread of this program could not be started.
    #[error("cannot start a thread: {0}")]
    Spawn(io::Error),
    /// A thread's io_uring could not be set up.
    #[error("cannot set up io_uring: {0}")]
    Ring(io::Error),
    /// A timer could not be created or read.
    #[error("a timer failed: {0}")]
    Timer(io::Error),
    /// A thread or a connection's task panicked.
    #[error("a thread of the load generator panicked")]
    Panic,
    /// Not one request was answered.
    #[error("not one request was answered")]
    NothingAnswered,
}

impl Failure {
    /// The failure of a response with this status and body.
    pub(crate) fn status(status: u16, body: &[u8]) -> Self {
        let shown = &body[..body.len().min(SHOWN_BODY_BYTES)];
        Self::Status { status, body: String::from_utf8_lossy(shown).into_owned() }
    }

    /// The failure of an audit file.
    pub(crate) fn audit(path: &Path, source: io::Error) -> Self {
        Self::Audit { path: path.to_owned(), source }
    }
}

/// How a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Loss {
    /// The server closed it without a word.
    #[error("the server closed the connection")]
    Closed,
    /// The server announced the end in a response.
    #[error("the server responded with Connection: close")]
    Announced,
    /// A read failed.
    #[error("{0}")]
    Read(io::Error),
    /// A write failed, and then the read after it. The write is the cause.
    #[error("{write} (write), then {read}")]
    Write {
        /// The error of the write.
        write: io::Error,
        /// The error of the read.
        read: Box<Loss>,
    },
}

impl Loss {
    /// Adds the error of the write before the read that failed, if there was one.
    pub(crate) fn after(self, write: Option<io::Error>) -> Self {
        match write {
            Some(write) => Self::Write { write, read: Box::new(self) },
            None => self,
        }
    }
}

/// A run.
#[derive(Debug)]
pub(crate) struct Run {
    args: PushArgs,
    id: String,
    answered: Option<AuditFile>,
    lost: Option<AuditFile>,
    started: Instant,
    /// Wall clock at `started`, in nanoseconds since 1970. It makes the times of several runs comparable.
    started_unix_ns: u64,
    ends: Option<Instant>,
    requests_left: AtomicU64,
    stop: AtomicBool,
    failure: Mutex<Option<Failure>>,
}

impl Run {
    /// Opens the audit files and starts the clock.
    ///
    /// # Errors
    /// [`Failure::Audit`] if a file cannot be opened for appending.
    pub(crate) fn new(args: PushArgs) -> Result<Self, Failure> {
        let open = |path: &Option<PathBuf>| path.as_deref().map(AuditFile::open).transpose();
        let (answered, lost) = (open(&args.audit)?, open(&args.audit_lost)?);
        let lead = if args.rate.is_some() { LEAD } else { Duration::ZERO };
        // With a wall clock before 1970, the times in the audit files count from the start of the run.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO) + lead;
        let started_unix_ns = u64::try_from(since_epoch.as_nanos()).unwrap_or(0);
        let id = args.run_id.clone().unwrap_or_else(|| format!("{started_unix_ns:x}.{:x}", std::process::id()));
        let started = Instant::now() + lead;
        Ok(Self {
            id,
            answered,
            lost,
            started,
            started_unix_ns,
            ends: args.run_time().map(|run_time| started + run_time),
            requests_left: AtomicU64::new(args.requests.unwrap_or(u64::MAX)),
            stop: AtomicBool::new(false),
            failure: Mutex::new(None),
            args,
        })
    }

    pub(crate) fn args(&self) -> &PushArgs {
        &self.args
    }

    /// Prefix of the run's transaction ids.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The file of answered messages, with `--audit`.
    pub(crate) fn answered_file(&self) -> Option<&AuditFile> {
        self.answered.as_ref()
    }

    /// The file of messages that were sent but never answered, with `--audit-lost`.
    pub(crate) fn lost_file(&self) -> Option<&AuditFile> {
        self.lost.as_ref()
    }

    /// Waits for the start of the run.
    pub(crate) async fn started(&self) {
        let wait = self.started.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Nanoseconds since the start of the run; 0 before it.
    pub(crate) fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A time of [`Run::now_ns`] as nanoseconds since 1970. Within a run it never goes back.
    pub(crate) fn unix_ns(&self, run_ns: u64) -> u64 {
        self.started_unix_ns.saturating_add(run_ns)
    }

    /// Claims up to `wanted` of the requests that are left. Returns their number, 0 if the run is over.
    pub(crate) fn claim(&self, wanted: u32) -> u32 {
        if self.is_over() {
            return 0;
        }
        // Relaxed, because the counter orders no other memory access.
        let claimed = self.requests_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            (left > 0).then(|| left - left.min(wanted.into()))
        });
        // A number that does not fit into 32 bits is larger than `wanted`.
        claimed.map_or(0, |left| u32::try_from(left).map_or(wanted, |left| left.min(wanted)))
    }

    /// Whether no more requests are to be sent.
    pub(crate) fn is_over(&self) -> bool {
        self.is_stopped() || self.ends.is_some_and(|ends| Instant::now() >= ends)
    }

    /// Time until no more requests are to be sent.
    pub(crate) fn time_left(&self) -> Duration {
        self.ends.map_or(Duration::MAX, |ends| ends.saturating_duration_since(Instant::now()))
    }

    /// Whether the run has failed and is to end at once, without waiting for outstanding responses.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether the time to wait for outstanding responses is over as well.
    pub(crate) fn is_past_grace(&self) -> bool {
        let grace = self.args.answer_timeout.min(MAX_GRACE);
        self.is_stopped() || self.ends.is_some_and(|ends| Instant::now() >= ends + grace)
    }

    /// Ends the run. Only the first failure is reported.
    pub(crate) fn fail(&self, failure: Failure) {
        // A poisoned lock contains a whole failure or none: the value is replaced in one step.
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
        self.stop.store(true, Ordering::Relaxed);
    }

    /// The first failure, if there was one.
    pub(crate) fn take_failure(&self) -> Option<Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
