//! What all connections of a run share: the plan, when it ends, and the first thing that went wrong.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::args::PushArgs;

use super::audit::AuditFile;
use super::response::ResponseError;

/// How long after the end of the run outstanding answers are waited for, at most (and never longer than
/// `--answer-timeout`): above the two seconds for which a plain push waits for PostgreSQL by default.
const MAX_GRACE: Duration = Duration::from_secs(5);
/// With `--rate`, how long the connections have before the first request is due: how they are made is not what is measured.
const LEAD: Duration = Duration::from_millis(100);
/// Bytes of an offending body that are shown.
const SHOWN_BODY_BYTES: usize = 2000;

/// Why a run is not clean.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server could not be reached, and reconnecting was not asked for.
    Connect {
        /// Where it was looked for.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The connection ended while answers were outstanding, or before the run did.
    Lost {
        /// The connection's number.
        connection: u32,
        /// Requests whose answers were outstanding.
        outstanding: u32,
        /// How it ended.
        why: String,
    },
    /// An answer that is not 2xx.
    Status {
        /// Its status.
        status: u16,
        /// The beginning of its body.
        body: String,
    },
    /// Bytes that are no answer.
    Malformed(ResponseError),
    /// The server sent more answers than there were requests.
    Unasked,
    /// The audit file could not be opened or written.
    Audit {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A thread could not be started or did not end well.
    Thread(String),
    /// Not one request was answered.
    NothingAnswered,
}

impl Failure {
    /// The failure of an answer with this status and body.
    pub(crate) fn status(status: u16, body: &[u8]) -> Self {
        let shown = &body[..body.len().min(SHOWN_BODY_BYTES)];
        Self::Status { status, body: String::from_utf8_lossy(shown).into_owned() }
    }

    /// The failure of a timer.
    pub(crate) fn timer(error: io::Error) -> Self {
        Self::Thread(format!("a timer cannot be had: {error}"))
    }

    /// The failure of an audit file.
    pub(crate) fn audit(path: &Path, error: io::Error) -> Self {
        Self::Audit { path: path.to_owned(), error }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect { address, error } => write!(f, "cannot connect to {address}: {error}"),
            Self::Lost { connection, outstanding, why } => {
                write!(f, "connection {connection} lost with {outstanding} answers outstanding: {why}")
            }
            Self::Status { status, body } => write!(f, "a push was answered {status}: {body}"),
            Self::Malformed(error) => write!(f, "an answer cannot be read: {error}"),
            Self::Unasked => f.write_str("the server sent an answer that nobody had asked for"),
            Self::Audit { path, error } => write!(f, "audit file {}: {error}", path.display()),
            Self::Thread(why) => write!(f, "a thread of the load generator failed: {why}"),
            Self::NothingAnswered => f.write_str("not one request was answered"),
        }
    }
}

/// A run under way.
#[derive(Debug)]
pub(crate) struct Run {
    args: PushArgs,
    id: String,
    answered: Option<AuditFile>,
    lost: Option<AuditFile>,
    started: Instant,
    /// Wall clock at `started`, nanoseconds since 1970: makes the stamps of several runs comparable.
    started_unix_ns: u64,
    ends: Option<Instant>,
    requests_left: AtomicU64,
    stop: AtomicBool,
    failure: Mutex<Option<Failure>>,
}

impl Run {
    /// Opens the audit files and sets the clock.
    ///
    /// # Errors
    /// [`Failure::Audit`] when a file cannot be opened for appending.
    pub(crate) fn new(args: PushArgs) -> Result<Self, Failure> {
        let open = |path: &Option<PathBuf>| path.as_deref().map(AuditFile::open).transpose();
        let (answered, lost) = (open(&args.audit)?, open(&args.audit_lost)?);
        let lead = if args.rate.is_some() { LEAD } else { Duration::ZERO };
        // A clock before 1970 only makes stamps that count from the start of the run.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + lead;
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

    /// First part of the run's transaction ids.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The file of answered messages, where one was asked for.
    pub(crate) fn answered_file(&self) -> Option<&AuditFile> {
        self.answered.as_ref()
    }

    /// The file of messages whose answer never came, where one was asked for.
    pub(crate) fn lost_file(&self) -> Option<&AuditFile> {
        self.lost.as_ref()
    }

    /// Waits until the clock runs.
    pub(crate) async fn started(&self) {
        let wait = self.started.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Nanoseconds since the start of the run; none before it.
    pub(crate) fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A stamp of [`Run::now_ns`] as nanoseconds since 1970; within a run it never goes back.
    pub(crate) fn unix_ns(&self, run_ns: u64) -> u64 {
        self.started_unix_ns.saturating_add(run_ns)
    }

    /// Up to `wanted` requests of those left; 0 when the run is over.
    pub(crate) fn claim(&self, wanted: u32) -> u32 {
        if self.is_over() {
            return 0;
        }
        // No other memory hangs on this counter.
        let claimed = self.requests_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            (left > 0).then(|| left - left.min(wanted.into()))
        });
        // The claim is the smaller of the two, so it fits.
        claimed.map_or(0, |left| u32::try_from(left).map_or(wanted, |left| left.min(wanted)))
    }

    /// Whether nothing more is to be sent.
    pub(crate) fn is_over(&self) -> bool {
        self.is_stopped() || self.ends.is_some_and(|ends| Instant::now() >= ends)
    }

    /// Time until nothing more is to be sent.
    pub(crate) fn time_left(&self) -> Duration {
        self.ends.map_or(Duration::MAX, |ends| ends.saturating_duration_since(Instant::now()))
    }

    /// Whether something went wrong and the run is to end at once, outstanding answers or not.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether the time to wait for outstanding answers after the end is over as well.
    pub(crate) fn is_past_grace(&self) -> bool {
        let grace = self.args.answer_timeout.min(MAX_GRACE);
        self.is_stopped() || self.ends.is_some_and(|ends| Instant::now() >= ends + grace)
    }

    /// Ends the run; the first failure is the one that is reported.
    pub(crate) fn fail(&self, failure: Failure) {
        // A poisoned lock holds a whole failure or none: the value is replaced in one step.
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
        self.stop.store(true, Ordering::Relaxed);
    }

    /// The first failure, if there was one.
    pub(crate) fn take_failure(&self) -> Option<Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
